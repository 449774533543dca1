"""The work on greenlet and on gevent: peer.py greenlet|gevent WORK ARGUMENTS.

What the words and answers mean is in measure/src/lib.rs. A greenlet has no scheduler, no channels and no timers: it is
resumed by a loop, as the bare coroutines are.
"""

import resource
import sys
import time

BATCH = 1000
NAPS = 10
HOUR = 3600
now = time.perf_counter_ns


def answer(what, value):
    print(f"{what} {value:.2f}", flush=True)


def answer_each(what, start, count):
    answer(what, (now() - start) / count)


def memory():
    """What this process has, in bytes: resident, and page tables."""
    with open("/proc/self/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return [int(lines[name].split()[0]) * 1024 for name in ("VmRSS", "VmPTE")]


def answer_growth(before, count):
    for what, then, current in zip(("resident", "page_tables"), before, memory()):
        answer(what, (current - then) / count)


def naps(number):
    """Ten random times to sleep, in seconds."""
    random, mask = number * 2654435761 + 88172645463325252, 2**64 - 1
    for _ in range(NAPS):
        random ^= (random << 13) & mask
        random ^= random >> 7
        random ^= (random << 17) & mask
        yield random % 100_000 / 1e6


class Greenlet:
    def __init__(self):
        import greenlet

        self.greenlet = greenlet.greenlet
        self.hub = greenlet.getcurrent().switch

    def spawn(self, tasks):
        start = now()
        for _ in range(tasks // BATCH):
            for each in [self.greenlet(nothing) for _ in range(BATCH)]:
                each.switch()
        answer_each("ns", start, tasks)

    def switch(self, tasks, rounds, _depth, _order):
        hub = self.hub

        def body():
            for _ in range(rounds + 1):
                hub()

        switches = [self.greenlet(body).switch for _ in range(tasks)]
        for switch in switches:
            switch()
        start = now()
        for _ in range(rounds):
            for switch in switches:
                switch()
        answer_each("ns", start, tasks * rounds)

    def idle(self, tasks):
        before, start = memory(), now()
        waiting = [self.greenlet(self.hub) for _ in range(tasks)]
        for each in waiting:
            each.switch()
        answer_each("make", start, tasks)
        answer_growth(before, tasks)
        start = now()
        for each in waiting:
            each.switch()
        answer_each("end", start, tasks)


class Gevent:
    def __init__(self):
        import gevent
        import gevent.event
        import gevent.queue
        import gevent.socket

        self.gevent = gevent

    def spawn(self, tasks):
        start = now()
        for _ in range(tasks // BATCH):
            self.gevent.joinall([self.gevent.spawn(nothing) for _ in range(BATCH)])
        answer_each("ns", start, tasks)

    def switch(self, tasks, rounds, _depth, _order):
        sleep = self.gevent.sleep

        def body(first):
            sleep(0)
            start = now()
            for _ in range(rounds):
                sleep(0)
            if first:
                answer_each("ns", start, tasks * rounds)

        self.gevent.joinall([self.gevent.spawn(body, place == 0) for place in range(tasks)])

    def ring(self, tasks, hops, _depth):
        channels = [self.gevent.queue.Channel() for _ in range(tasks)]
        done = self.gevent.event.Event()

        def body(receive, send):
            while True:
                value = receive()
                if value == 0:
                    return done.set()
                send(value - 1)

        for place, channel in enumerate(channels):
            self.gevent.spawn(body, channel.get, channels[(place + 1) % tasks].put)
        self.gevent.sleep(0)
        start = now()
        channels[0].put(hops)
        done.wait()
        answer_each("ns", start, hops)

    def idle(self, tasks):
        never, all_run, ran = self.gevent.event.Event(), self.gevent.event.Event(), [0]

        def body():
            ran[0] += 1
            if ran[0] == tasks:
                all_run.set()
            never.wait()

        before, start = memory(), now()
        waiting = [self.gevent.spawn(body) for _ in range(tasks)]
        all_run.wait()
        answer_each("make", start, tasks)
        answer_growth(before, tasks)
        start = now()
        never.set()
        self.gevent.joinall(waiting)
        answer_each("end", start, tasks)

    def sleeps(self, tasks):
        def body(number):
            for nap in naps(number):
                self.gevent.sleep(nap)

        self.gevent.joinall([self.gevent.spawn(body, number) for number in range(tasks)])
        answer("cpu", time.process_time_ns())

    def timeouts(self, count):
        start = now()
        for _ in range(count):
            timeout = self.gevent.Timeout(HOUR)
            timeout.start()
            timeout.close()
        answer_each("ns", start, count)

    def echo(self):
        listener = self.gevent.socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(4096)
        answer("port", listener.getsockname()[1])
        while True:
            self.gevent.spawn(self.attend, listener.accept()[0])

    def attend(self, stream):
        socket = self.gevent.socket
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while received := stream.recv(1024):
            stream.sendall(received)


def nothing():
    pass


def main():
    which, work, *arguments = sys.argv[1:]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    does = getattr({"greenlet": Greenlet, "gevent": Gevent}[which](), work, None)
    if does is None or "random" in arguments:
        return print("unsupported")
    does(*(int(word) if word.isdigit() else word for word in arguments))


main()
