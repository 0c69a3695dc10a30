"""What a server costs, read from /proc, and the load generator through its phases."""

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
import time

TICK = 1 / os.sysconf("SC_CLK_TCK")
LINE_TIMEOUT = 180  # seconds for the load generator to come to the end of a phase
CALM_TIMEOUT = 15
CALM_CPU = 0.005  # seconds used in 0.2 s


class Failed(Exception):
    """A measurement that could not be made, in a sentence for people."""


# ---- The machine


@contextlib.contextmanager
def cores_awake():
    """A process of the lowest priority spins on each core. In a virtual machine the wake-up of a core that has halted takes
    some 50 µs of the hypervisor's, which come and go with the scheduler's choice of a core, whatever the server does."""
    spin = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n for _ in range(1000000): pass"
    spinners = []
    try:
        for core in sorted(os.sched_getaffinity(0)):
            spinners.append(subprocess.Popen([sys.executable, "-c", spin]))
            os.sched_setaffinity(spinners[-1].pid, {core})
            os.sched_setscheduler(spinners[-1].pid, os.SCHED_IDLE, os.sched_param(0))
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


# ---- A server and all its processes


@dataclasses.dataclass(frozen=True)
class Reading:
    """Of a process and all below it."""
    cpu: float  # seconds, of the ended ones too
    pss: float  # KiB
    descriptors: int
    processes: int


def _read(path):
    try:
        with open(path) as f:
            return f.read()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # ended meanwhile


def _processes():
    """{pid: (parent, ticks of the children that it has waited for)} of everything that runs."""
    found = {}
    for name in os.listdir("/proc"):
        fields = _read(f"/proc/{name}/stat").rpartition(")")[2].split() if name.isdigit() else []
        if fields:
            found[int(name)] = int(fields[1]), int(fields[13]) + int(fields[14])
    return found


def _own_seconds(pid):
    """CPU time of a process, all its threads, ended ones too, to the nanosecond: clock_getcpuclockid(3)."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0  # ended meanwhile


def family(root):
    """{pid: CPU seconds} of root and its descendants."""
    everything, children = _processes(), {}
    for pid, (parent, _) in everything.items():
        children.setdefault(parent, []).append(pid)
    found, todo = {}, [root]
    while todo:
        pid = todo.pop()
        if pid in everything:
            found[pid] = _own_seconds(pid) + everything[pid][1] * TICK
            todo += children.get(pid, [])
    return found


def cpu_seconds(root):
    """CPU time of root and of all that it ever started.

    When a process ends, its own time and that of the children that it had waited for move, in one step, into its
    parent's cutime + cstime once the parent waits for it; until then it is a zombie that still has them. So the sum
    over the living of own time + cutime + cstime holds everything exactly once. Only an end between the reading of
    a child and that of its parent could count it twice or not at all: a reading counts only if the same processes
    are there just after it. (sshd waits for all of its children, and none of them outlives its parent.)

    Own time is exact, cutime and cstime are cut to whole ticks: each living process that has waited for others may
    hide up to two ticks. A difference of two readings is therefore good if such processes are few (all sessions have
    ended, and sshd's listener has waited for them) or the same in both (they are up all the time)."""
    before = family(root)
    for _ in range(1000):
        after = family(root)
        if before.keys() == after.keys():
            return sum(after.values())
        before = after
    raise Failed(f"the processes below {root} never stood still long enough to be read")


def calm(root):
    """Wait until root and its descendants have finished what they had to do; returns their CPU seconds. What a
    server does behind its answers (the children of sshd that end, rows that relayd writes) is its cost too."""
    deadline, last, since = time.monotonic() + CALM_TIMEOUT, cpu_seconds(root), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = cpu_seconds(root)
        if now - last > CALM_CPU:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > 0.2:
            return now
    return cpu_seconds(root)


def read(root):
    """A Reading of root, once it is calm."""
    cpu, pss, descriptors = calm(root), 0, 0
    pids = list(family(root))
    for pid in pids:
        for line in _read(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                pss += int(line.split()[1])
        try:
            descriptors += len(os.listdir(f"/proc/{pid}/fd"))
        except FileNotFoundError:
            pass
    return Reading(cpu, pss, descriptors, len(pids))


# ---- Processes that this run starts


def until(check, timeout, what):
    """Poll check() until it returns something true, and return that."""
    deadline = time.monotonic() + timeout
    while not (got := check()):
        if time.monotonic() > deadline:
            raise Failed(f"{what()}: not within {timeout:g} s")
        time.sleep(0.02)
    return got


class Process:
    """A program in a process group of its own, so that Ctrl-C reaches it through us, with its stderr in a file."""

    def __init__(self, argv, log, **options):
        self.argv, self.log = [str(a) for a in argv], log
        with open(log, "wb") as err:
            self.popen = subprocess.Popen(self.argv, stderr=err, process_group=0, **options)

    pid = property(lambda self: self.popen.pid)
    running = property(lambda self: self.popen.poll() is None)

    def said(self):
        """The end of its stderr, for an error message."""
        with open(self.log, errors="replace") as f:
            return " / ".join(f.read().splitlines()[-3:]) or "without a word"

    def stop(self, number=signal.SIGTERM):
        """End it and everything below it."""
        below = [pid for pid in family(self.pid) if pid != self.pid] if self.running else []
        if self.running:
            self.popen.send_signal(number)
        try:
            self.popen.wait(10)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
        for pid in below:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe:
                pipe.close()


# ---- The load generator


class Load:
    """One run of the load generator: with Load(...) as load: it is set up; load.measure() is what it measured;
    the sessions stay until the end of the block. Options: client_keys="FILE" is --client-keys FILE, True a flag."""

    def __init__(self, program, log, mode, **options):
        self.mode, argv = mode, [program, mode]
        for name, value in options.items():
            argv += ["--" + name.replace("_", "-")] + ([] if value is True else [value])
        self.process = Process(argv, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.running = False
        self.buffer = b""

    def __enter__(self):
        try:
            if self._line() != "ready":
                raise Failed(f"load {self.mode}: not ready")
        except BaseException:
            self.process.stop()
            raise
        return self

    def __exit__(self, *_):
        self.process.stop(signal.SIGKILL)  # devices lose their power, they do not say good-bye

    def _line(self):
        deadline = time.monotonic() + LINE_TIMEOUT
        pipe = self.process.popen.stdout.fileno()
        while b"\n" not in self.buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise Failed(f"load {self.mode}: nothing within {LINE_TIMEOUT} s: {self.process.said()}")
            data = os.read(pipe, 65536)
            if not data:
                self.process.popen.wait()
                raise Failed(f"load {self.mode}: {self.process.said()}")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode().strip()

    def at_once(self):
        """It never waits for a processor: it has real-time priority from now on."""
        for thread in os.listdir(f"/proc/{self.process.pid}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(1))

    def start(self):
        """Begin to measure, and return at once."""
        try:
            self.process.popen.stdin.write(b"go\n")
            self.process.popen.stdin.flush()
        except BrokenPipeError:
            raise Failed(f"load {self.mode}: {self.process.said()}") from None
        self.running = True

    def measure(self):
        """Measure to the end; returns the result, a dict."""
        if not self.running:
            self.start()
        result = json.loads(self._line())
        if result.get("failed"):
            raise Failed(f"load {self.mode}: {result['failed']} failed: {self.process.said()}")
        return result

    def still_measuring(self):
        """It has neither a result nor an end."""
        ready, _, _ = select.select([self.process.popen.stdout], [], [], 0)
        return not ready
