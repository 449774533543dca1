/* The work on State Threads, which has neither channels nor timeouts around anything. Its only way to make way is to
 * sleep for no time. What the words and answers mean is in measure/src/lib.rs. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <st.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 1000, STACK_SIZE = 64 * 1024, BUFFER = 1024 };

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static double worked(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static void answer(const char *what, double value) {
    printf("%s %.2f\n", what, value);
    fflush(stdout);
}

static void *must(void *made, const char *what) {
    if (made) return made;
    perror(what);
    exit(1);
}

static void go(void *(*body)(void *), void *argument) {
    must(st_thread_create(body, argument, 0, STACK_SIZE), "st_thread_create");
}

/* What this process has, in bytes. */
static double memory(const char *name) {
    FILE *status = must(fopen("/proc/self/status", "r"), "/proc/self/status");
    char line[256];
    unsigned long kib = 0;
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, name, strlen(name))) kib = strtoul(line + strlen(name), NULL, 10);
    fclose(status);
    return kib * 1024.0;
}

static long tasks, rounds, running;
static int woken;
static st_cond_t all, never;
static double start;

static void *empty(void *nothing) {
    if (--running == 0) st_cond_signal(all);
    return nothing;
}

static void spawn(void) {
    start = now();
    for (long i = 0; i < tasks / BATCH; i++) {
        running = BATCH;
        for (int k = 0; k < BATCH; k++) go(empty, NULL);
        while (running) st_cond_wait(all);
    }
    answer("ns", (now() - start) / tasks);
}

static void *yielding(void *is_first) {
    st_usleep(0);
    double begun = now();
    for (long i = 0; i < rounds; i++) st_usleep(0);
    if (is_first) answer("ns", (now() - begun) / ((double)rounds * tasks));
    if (--running == 0) st_cond_signal(all);
    return NULL;
}

static void switches(void) {
    running = tasks;
    for (long i = 0; i < tasks; i++) go(yielding, i == 0 ? &tasks : NULL);
    while (running) st_cond_wait(all);
}

static void *waiting(void *nothing) {
    if (++running == tasks) st_cond_signal(all);
    while (!woken) st_cond_wait(never);
    if (--running == 0) st_cond_signal(all);
    return nothing;
}

static void idle(void) {
    double resident = memory("VmRSS:"), page_tables = memory("VmPTE:");
    start = now();
    for (long i = 0; i < tasks; i++) go(waiting, NULL);
    while (running < tasks) st_cond_wait(all);
    answer("make", (now() - start) / tasks);
    answer("resident", (memory("VmRSS:") - resident) / tasks);
    answer("page_tables", (memory("VmPTE:") - page_tables) / tasks);
    start = now();
    woken = 1;
    st_cond_broadcast(never);
    while (running) st_cond_wait(all);
    answer("end", (now() - start) / tasks);
}

static void *sleeping(void *number) {
    uint64_t random = (uint64_t)(uintptr_t)number * 2654435761u + 88172645463325252u;
    for (int nap = 0; nap < 10; nap++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        st_usleep(random % 100000);
    }
    if (--running == 0) st_cond_signal(all);
    return NULL;
}

static void sleeps(void) {
    running = tasks;
    for (long i = 0; i < tasks; i++) go(sleeping, (void *)(uintptr_t)i);
    while (running) st_cond_wait(all);
    answer("cpu", worked());
}

static void *attend(void *stream) {
    char buffer[BUFFER];
    for (;;) {
        ssize_t got = st_read(stream, buffer, sizeof buffer, ST_UTIME_NO_TIMEOUT);
        if (got <= 0 || st_write(stream, buffer, got, ST_UTIME_NO_TIMEOUT) != got) break;
    }
    st_netfd_close(stream);
    return NULL;
}

static void echo(void) {
    int socket_ = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof address;
    if (bind(socket_, (void *)&address, length) || listen(socket_, 4096) ||
        getsockname(socket_, (void *)&address, &length)) {
        perror("listen");
        exit(1);
    }
    st_netfd_t listener = must(st_netfd_open_socket(socket_), "st_netfd_open_socket");
    answer("port", ntohs(address.sin_port));
    for (;;) {
        st_netfd_t stream = must(st_accept(listener, NULL, NULL, ST_UTIME_NO_TIMEOUT), "st_accept");
        setsockopt(st_netfd_fileno(stream), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        go(attend, stream);
    }
}

int main(int count, char **words) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    /* Without this it uses select, which stops at 1,024 descriptors. */
    st_set_eventsys(ST_EVENTSYS_ALT);
    st_init();
    all = st_cond_new();
    never = st_cond_new();
    const char *work = words[1];
    tasks = count > 2 ? atol(words[2]) : 0;
    rounds = count > 3 ? atol(words[3]) : 0;
    if (!strcmp(work, "spawn")) spawn();
    else if (!strcmp(work, "switch") && !strcmp(words[count - 1], "creation")) switches();
    else if (!strcmp(work, "idle")) idle();
    else if (!strcmp(work, "sleeps")) sleeps();
    else if (!strcmp(work, "echo")) echo();
    else puts("unsupported");
    return 0;
}
