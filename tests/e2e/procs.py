"""Child processes of one test: started in their own group, waited for with a bound, killed by id."""

import ctypes
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time

SLOW = float(os.environ.get("RELAYD_TEST_SLOW", "1"))
PR_SET_CHILD_SUBREAPER = 36


def until(check, timeout=10, what="the condition", every=0.02):
    """Poll check() until it returns something true and return that; fail after timeout (scaled) seconds."""
    deadline = time.monotonic() + timeout * SLOW
    while True:
        got = check()
        if got:
            return got
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout * SLOW:g} s: {what() if callable(what) else what}")
        time.sleep(every)


class Proc:
    """One running program. Its stderr goes to a file, so that it never blocks and can be read at any time."""

    def __init__(self, argv, errfile, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=None, cwd=None):
        self.argv = [str(a) for a in argv]
        self.errfile = errfile
        with open(errfile, "wb") as err:
            self.popen = subprocess.Popen(self.argv, stdin=stdin, stdout=stdout, stderr=err, env=env, cwd=cwd,
                                          process_group=0)

    pid = property(lambda self: self.popen.pid)
    stdin = property(lambda self: self.popen.stdin)
    stdout = property(lambda self: self.popen.stdout)
    running = property(lambda self: self.popen.poll() is None)

    def err(self):
        """What it has written to stderr so far."""
        with open(self.errfile, errors="replace") as f:
            return f.read()

    def wait_err(self, regex, timeout=10):
        """Wait for regex in stderr; returns the match."""
        return until(lambda: re.search(regex, self.err(), re.M), timeout,
                     lambda: f"/{regex}/ on stderr of {self.argv}:\n{self.err()}")

    def wait(self, timeout=10):
        """Wait for the end; returns the exit status."""
        try:
            return self.popen.wait(timeout * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout * SLOW:g} s: {self.argv}\n{self.err()}") from None

    def finish(self, input=None, timeout=20):
        """Write input, close stdin, read stdout to its end; returns (exit status, stdout)."""
        try:
            out, _ = self.popen.communicate(input, timeout * SLOW)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout * SLOW:g} s: {self.argv}\n{self.err()}") from None
        return self.popen.returncode, out

    def signal(self, number):
        self.popen.send_signal(number)

    def freeze(self):
        """SIGSTOP it and return once it has really stopped."""
        self.signal(signal.SIGSTOP)
        until(lambda: proc_state(self.pid) == "T", what=f"process {self.pid} stopped")

    def thaw(self):
        self.signal(signal.SIGCONT)

    def stop(self, timeout=10):
        """SIGTERM and wait; returns the exit status."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait(timeout)

    def kill(self):
        if self.running:
            self.popen.kill()
        self.popen.wait()
        for pipe in (self.stdin, self.stdout):
            if pipe:
                try:
                    pipe.close()
                except OSError:
                    pass


class Pty(Proc):
    """A program that has a pty as its controlling terminal."""

    def __init__(self, argv, errfile, env=None, columns=80):
        self.argv = [str(a) for a in argv]
        self.errfile = errfile
        self.master, slave = pty.openpty()
        self.resize(columns)
        self.popen = subprocess.Popen(self.argv, stdin=slave, stdout=slave, stderr=slave, env=env,
                                      preexec_fn=_own_terminal)
        os.close(slave)
        self._seen = b""
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            try:
                data = os.read(self.master, 4096)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self._seen += data

    def wait(self, *args, **options):
        """What it said to its end is in output() then; a child that it left behind may still have the terminal open."""
        status = super().wait(*args, **options)
        self._reader.join(2)
        return status

    def err(self):
        return self.output()

    def output(self):
        with self._lock:
            return self._seen.decode(errors="replace")

    def resize(self, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def mark(self):
        return len(self.output())

    def expect(self, regex, since=0, timeout=10):
        """Wait for regex on the terminal, from character `since` on."""
        return until(lambda: re.search(regex, self.output()[since:]), timeout,
                     lambda: f"/{regex}/ on the terminal of {self.argv}:\n{self.output()[since:]!r}")

    def send(self, text):
        os.write(self.master, text.encode() if isinstance(text, str) else text)

    def kill(self):
        super().kill()
        if self.master >= 0:
            self._reader.join(2)
            os.close(self.master)
            self.master = -1


def _own_terminal():
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Procs:
    """All processes of one test. `prefix` is put before every command (a network namespace, say)."""

    def __init__(self, folder):
        self.folder = folder
        self.prefix = []
        self.all = []
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self.before = descendants(os.getpid())

    def _errfile(self):
        return os.path.join(self.folder, f"stderr.{len(self.all)}")

    def spawn(self, argv, **options):
        proc = Proc([*self.prefix, *argv], self._errfile(), **options)
        self.all.append(proc)
        return proc

    def spawn_pipes(self, argv, **options):
        """stdin and stdout are pipes, unbuffered."""
        return self.spawn(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options)

    def spawn_pty(self, argv, **options):
        proc = Pty([*self.prefix, *argv], self._errfile(), **options)
        self.all.append(proc)
        return proc

    def run(self, argv, input=b"", timeout=30, **options):
        """Run to the end; returns a CompletedProcess with bytes in stdout and text in stderr."""
        proc = self.spawn_pipes(argv, **options)
        status, out = proc.finish(input, timeout)
        return subprocess.CompletedProcess(proc.argv, status, out, proc.err())

    def kill(self):
        for proc in self.all:
            proc.kill()
        for _ in range(100):  # what detached itself (ssh -f, autossh's children) has become our child
            left = descendants(os.getpid()) - self.before
            if not left:
                return
            for pid in left:
                _kill_and_reap(pid)
            time.sleep(0.01)
        raise AssertionError(f"processes survive the test: {left}")


def _kill_and_reap(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ChildProcessError, ProcessLookupError):
        pass


def _stat(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def proc_state(pid):
    fields = _stat(pid)
    return fields[0] if fields else None


def descendants(root):
    """Ids of all processes below root."""
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(name)
            if fields:
                children.setdefault(int(fields[1]), []).append(int(name))
    found, todo = set(), [root]
    while todo:
        for pid in children.get(todo.pop(), []):
            found.add(pid)
            todo.append(pid)
    return found


def own_network(procs):
    """Give the test a network namespace with a loopback of its own: whatever is started from now on lives there,
    so that well-known ports (22, 20000) are free. Needs root."""
    holder = procs.spawn(["unshare", "--net", "sh", "-c", "ip link set lo up && echo up >&2 && exec sleep infinity"])
    holder.wait_err("^up")
    procs.prefix = ["nsenter", "-t", str(holder.pid), "--net"]
    return holder
