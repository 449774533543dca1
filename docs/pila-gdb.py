# What gdb does not know of itself: the tasklets of a program that uses pila, with their backtraces. It works on live
# processes and on core files, without running anything in them.
#
#     (gdb) source docs/pila-gdb.py
#     (gdb) pila ls          the tasklets of the selected thread
#     (gdb) pila bt 7        the backtrace of its tasklet #7
#     (gdb) pila bt all      those of all of its suspended tasklets
#
# It needs full debug information of pila (`debug = "full"` in the profile; the default when not optimized) and x86-64.
# What it reads are internals of the version of pila that it comes with.

import re
import struct

import gdb
import gdb.unwinder

PREFIX = "pila_runtime::current::SCHEDULER"


def scheduler():
    """That of the selected thread."""
    found = gdb.execute("info variables " + PREFIX, to_string=True)
    name = re.search(r"\S*{}\S*VAL\S*".format(PREFIX), found)
    if name is None:
        raise gdb.GdbError("no pila in this program, or no symbols")
    language = gdb.parameter("language")
    gdb.execute("set language c", to_string=True)
    try:
        place = gdb.parse_and_eval("(char *) &'{}'".format(name.group()))
    finally:
        gdb.execute("set language " + language, to_string=True)
    try:
        scheduler = gdb.lookup_type("pila_runtime::scheduler::Scheduler")
    except gdb.error:
        raise gdb.GdbError('no types of pila: build with debug = "full"')
    return place.cast(scheduler.pointer()).dereference()


def variant(value):
    """The name of an enum's variant, and what it holds."""
    field = [field for field in value.type.fields() if not field.artificial][-1]
    return field.name, value[field]


def some(option):
    """What an `Option` holds."""
    name, value = variant(option)
    return value[value.type.fields()[0]] if name == "Some" else None


def name(shared):
    """What an `Arc<str>` holds, if there is one: behind its two counters."""
    if shared is None:
        return ""
    text = shared["ptr"]["pointer"]
    place, length = int(text["data_ptr"]) + 16, int(text["length"])
    return "'{}' ".format(gdb.selected_inferior().read_memory(place, length).tobytes().decode())


class Tasklet:
    def __init__(self, core, index, task, stand):
        self.id = int(task["id"][task["id"].type.fields()[0]])
        self.is_current = index == int(core["current"])
        self.state, _ = variant(stand["state"])
        self.waiting, _ = variant(task["waiting"])
        self.context = some(stand["context"])
        self.is_started = some(task["job"]) is None
        rare = some(task["rare"])
        self.name = "" if rare is None else name(some(rare.dereference()["name"]))

    def line(self):
        state = "Running" if self.is_current else self.state
        if state == "Parked":
            state = self.waiting
        elif not self.is_started:
            state += ", not started"
        return "#{:<6} {}{}".format(self.id, self.name, state)

    def registers(self):
        """Those it goes on with: corosensei keeps them at the end of its stack."""
        record = self.context["record"]["pointer"].dereference()
        inferior = gdb.selected_inferior()
        place = int(record["coroutine"]["stack_ptr"].address)
        (stack,) = struct.unpack("<Q", inferior.read_memory(place, 8).tobytes())
        kept = struct.unpack("<QQQ", inferior.read_memory(stack, 24).tobytes())
        rip, rbx, rbp = kept
        return {"rip": rip, "rbx": rbx, "rbp": rbp, "rsp": stack + 24}


def items(vector, kind):
    """What a `Vec` holds."""
    first = vector["buf"]["inner"]["ptr"]["pointer"]["pointer"]
    first = first.cast(gdb.lookup_type(kind).pointer())
    return [first[index] for index in range(int(vector["len"]))]


def tasklets():
    core = scheduler()["core"]["value"]["value"]
    stands = items(core["stands"], "pila_runtime::table::Stand")
    entries = items(core["tasks"]["entries"], "slab::Entry<pila_runtime::table::Task>")
    for index, entry in enumerate(entries):
        kind, task = variant(entry)
        if kind == "Occupied":
            yield Tasklet(core, index, task[task.type.fields()[0]], stands[index])


class Suspended(gdb.unwinder.Unwinder):
    """Makes gdb believe that the innermost frame was called by a suspended tasklet."""

    class Id:
        def __init__(self, sp, pc):
            self.sp, self.pc = sp, pc

    def __init__(self):
        super().__init__("pila-suspended")
        self.registers = None

    def __call__(self, pending):
        if self.registers is None or int(pending.read_register("rsp")) != self.innermost:
            return None
        # Below the tasklet's frames, or gdb thinks that the stack is corrupt.
        below = gdb.Value(self.registers["rsp"] - 256).cast(self.word)
        info = pending.create_unwind_info(self.Id(below, below))
        for name, value in self.registers.items():
            info.add_saved_register(name, gdb.Value(value).cast(self.word))
        return info

    def backtrace(self, registers):
        """Of one that goes on with `registers`, as far as where it began."""
        frame = gdb.newest_frame()
        self.innermost = int(frame.read_register("rsp"))
        self.word = frame.architecture().integer_type(64, False)
        self.registers = registers
        gdb.invalidate_cached_frames()
        try:
            lines = gdb.execute("bt", to_string=True).splitlines()
        finally:
            self.registers = None
            gdb.invalidate_cached_frames()
        # The first is the frame that the thread really is in. Where two stacks meet gdb sees a signal.
        begins = next((at for at, line in enumerate(lines) if line.startswith("#1 ")), len(lines))
        ends = (at for at, line in enumerate(lines) if "<signal handler called>" in line)
        return "\n".join(lines[begins : next(ends, len(lines))])


SUSPENDED = Suspended()
gdb.unwinder.register_unwinder(None, SUSPENDED, replace=True)


class Pila(gdb.Command):
    """Tasklets of pila.

    pila ls        those of the selected thread
    pila bt N      the backtrace of its tasklet #N
    pila bt all    those of all of its suspended tasklets"""

    def __init__(self):
        super().__init__("pila", gdb.COMMAND_STACK)

    def invoke(self, arguments, from_tty):
        arguments = arguments.split()
        if arguments == ["ls"]:
            for tasklet in tasklets():
                print(tasklet.line())
        elif len(arguments) == 2 and arguments[0] == "bt":
            self.backtraces(arguments[1].lstrip("#"))
        else:
            raise gdb.GdbError("pila ls, pila bt N or pila bt all")

    def backtraces(self, which):
        if gdb.selected_frame().architecture().name() != "i386:x86-64":
            raise gdb.GdbError("pila bt knows x86-64 only")
        chosen = [tasklet for tasklet in tasklets() if which in ("all", str(tasklet.id))]
        if not chosen:
            raise gdb.GdbError("no tasklet #{} in this thread".format(which))
        for tasklet in chosen:
            if tasklet.context is not None:
                print(tasklet.line())
                print(SUSPENDED.backtrace(tasklet.registers()))
            elif which != "all":
                print(tasklet.line())
                if tasklet.is_started:
                    print("it runs, or it is main: see bt")


Pila()
