// The work on Boost.Fiber, which has no sockets. What the words and answers mean is in measure/src/lib.rs.

#include <boost/fiber/all.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <sys/resource.h>
#include <vector>

namespace fibers = boost::fibers;
using Clock = std::chrono::steady_clock;
using Task = fibers::fiber;

static const size_t BATCH = 1000;
static const size_t STACK_SIZE = 64 * 1024;

static void answer(const char *what, double value) {
    std::printf("%s %.2f\n", what, value);
    std::fflush(stdout);
}

static void answer_each(const char *what, Clock::time_point start, size_t count) {
    answer(what, std::chrono::duration<double, std::nano>(Clock::now() - start).count() / count);
}

static double worked() {
    rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e9 + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e3;
}

// What this process has, in bytes.
static double memory(const char *name) {
    std::FILE *status = std::fopen("/proc/self/status", "r");
    char line[256];
    unsigned long kib = 0;
    while (std::fgets(line, sizeof line, status))
        if (!std::strncmp(line, name, std::strlen(name))) kib = std::strtoul(line + std::strlen(name), nullptr, 10);
    std::fclose(status);
    return kib * 1024.0;
}

// Stacks are kept for the next; a pool, as the library advises for many short fibers.
template <typename Body> static Task go(Body &&body) {
    static fibers::pooled_fixedsize_stack stacks(STACK_SIZE);
    return Task(fibers::launch::post, std::allocator_arg, stacks, std::forward<Body>(body));
}

// Without a pool, whose memory comes in blocks that double, for fibers that are all alive at once.
template <typename Body> static Task go_to_stay(Body &&body) {
    return Task(fibers::launch::post, std::allocator_arg, fibers::fixedsize_stack(STACK_SIZE), std::forward<Body>(body));
}

// After the call, so that it cannot become a jump that leaves no frame.
#define THEN_SOMETHING(call) do { call; asm volatile(""); } while (0)
template <typename Body> __attribute__((noinline)) static void third(Body &body) { THEN_SOMETHING(body()); }
template <typename Body> __attribute__((noinline)) static void second(Body &body) { THEN_SOMETHING(third(body)); }
template <typename Body> __attribute__((noinline)) static void below_three_calls(Body body) { THEN_SOMETHING(second(body)); }

static void spawn(size_t tasks) {
    size_t left = 0;
    fibers::mutex mutex;
    fibers::condition_variable done;
    auto start = Clock::now();
    for (size_t i = 0; i < tasks / BATCH; i++) {
        left = BATCH;
        for (size_t k = 0; k < BATCH; k++) go([&] { if (--left == 0) done.notify_one(); }).detach();
        std::unique_lock<fibers::mutex> lock(mutex);
        done.wait(lock, [&] { return left == 0; });
    }
    answer_each("ns", start, tasks);
}

static void switches(size_t tasks, size_t rounds, bool deep) {
    std::vector<Task> all;
    for (size_t place = 0; place < tasks; place++)
        all.push_back(go([=] {
            boost::this_fiber::yield();
            auto start = Clock::now();
            for (size_t i = 0; i < rounds; i++) {
                if (deep) below_three_calls([] { boost::this_fiber::yield(); });
                else boost::this_fiber::yield();
            }
            if (place == 0) answer_each("ns", start, rounds * tasks);
        }));
    for (auto &task : all) task.join();
}

static void ring(size_t tasks, size_t hops) {
    using Channel = fibers::unbuffered_channel<size_t>;
    std::vector<std::unique_ptr<Channel>> channels;
    for (size_t i = 0; i < tasks; i++) channels.push_back(std::make_unique<Channel>());
    Channel done;
    std::vector<Task> all;
    for (size_t i = 0; i < tasks; i++)
        all.push_back(go([&, i] {
            size_t value;
            while (channels[i]->pop(value) == fibers::channel_op_status::success) {
                if (value == 0) { done.push(0); return; }
                channels[(i + 1) % tasks]->push(value - 1);
            }
        }));
    boost::this_fiber::yield();
    auto start = Clock::now();
    channels[0]->push(hops);
    done.value_pop();
    answer_each("ns", start, hops);
    for (auto &channel : channels) channel->close();
    for (auto &task : all) task.join();
}

static void idle(size_t tasks) {
    size_t ran = 0;
    bool woken = false;
    fibers::mutex mutex;
    fibers::condition_variable never, all;
    double resident = memory("VmRSS:"), page_tables = memory("VmPTE:");
    auto start = Clock::now();
    for (size_t i = 0; i < tasks; i++)
        go_to_stay([&] {
            std::unique_lock<fibers::mutex> lock(mutex);
            if (++ran == tasks) all.notify_one();
            never.wait(lock, [&] { return woken; });
            if (--ran == 0) all.notify_one();
        }).detach();
    std::unique_lock<fibers::mutex> lock(mutex);
    all.wait(lock, [&] { return ran == tasks; });
    answer_each("make", start, tasks);
    answer("resident", (memory("VmRSS:") - resident) / tasks);
    answer("page_tables", (memory("VmPTE:") - page_tables) / tasks);
    start = Clock::now();
    woken = true;
    never.notify_all();
    all.wait(lock, [&] { return ran == 0; });
    answer_each("end", start, tasks);
}

static void sleeps(size_t tasks) {
    std::vector<Task> all;
    for (uint64_t number = 0; number < tasks; number++)
        all.push_back(go_to_stay([number] {
            uint64_t random = number * 2654435761u + 88172645463325252u;
            for (int nap = 0; nap < 10; nap++) {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                boost::this_fiber::sleep_for(std::chrono::microseconds(random % 100000));
            }
        }));
    for (auto &task : all) task.join();
    answer("cpu", worked());
}

int main(int count, char **words) {
    std::string work = words[1], last = words[count - 1];
    auto number = [&](int place) { return std::stoul(words[place]); };
    if (work == "spawn") spawn(number(2));
    else if (work == "switch" && last == "creation") switches(number(2), number(3), words[4] == std::string("deep"));
    else if (work == "ring") ring(number(2), number(3));
    else if (work == "idle") idle(number(2));
    else if (work == "sleeps") sleeps(number(2));
    else std::puts("unsupported");
}
