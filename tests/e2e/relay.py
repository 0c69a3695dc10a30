"""relayd under test, and the people and machines that use it.

    def test_x(relay, net):
        raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
        raspi.publish("7:localhost:%d" % net.echo().port, expect="raspi:7")
        status, out = alice.through_W("raspi:7").finish(b"hello")
"""

import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time

import keys as keylib
from net import Net, is_listening
from procs import SLOW, until  # noqa: F401  (tests import them from here too)

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RELAYD = os.environ.get("RELAYD", os.path.join(TOP, "relayd", "relayd"))
RELAYCTL = os.environ.get("RELAYCTL", os.path.join(TOP, "relayctl", "relayctl"))
SANITIZER = re.compile(r"(Address|Leak|Thread|Memory|UndefinedBehavior)Sanitizer|runtime error:|Assertion .* failed")

SSH_CONFIG = """Host relay
  HostName {host}
  Port {port}
  HostKeyAlias relay
  User {user}
Host *
  IdentityFile {key}
  IdentitiesOnly yes
  IdentityAgent none
  BatchMode yes
  StrictHostKeyChecking yes
  UserKnownHostsFile {known_hosts}
  GlobalKnownHostsFile /dev/null
  UpdateHostKeys no
  ControlMaster no
  ControlPath none
  ConnectTimeout {connect_timeout}
"""


def sanitized():
    """True if the daemon was built with ASan or TSan (memory is not measured then)."""
    with open(RELAYD, "rb") as f:
        data = f.read()
    return b"__asan_init" in data or b"__tsan_init" in data


class Relay:
    """One relayd on a state directory of its own."""

    def __init__(self, procs, folder, keys, args=(), start=True, program=RELAYD, env=None, **options):
        """options become --key value (underscores to dashes); args are passed as they are; env is added to ours."""
        self.procs, self.folder, self.keys = procs, folder, keys
        self.program, self.env = program, {**os.environ, **(env or {})}
        self.args, self.options = list(args), options
        self.popen_options = {}
        self.state = os.path.join(folder, "state")
        os.makedirs(self.state, mode=0o700, exist_ok=True)
        self.socket = os.path.join(folder, "ctl.sock")
        self.known_hosts = os.path.join(folder, "known_hosts")
        # Outside the range from which the kernel takes local ports, or a restart might find its own taken.
        self.listen = [f"127.0.0.1:{Net.free_port()}", f"[::1]:{Net.free_port()}"]
        self.lines, self._cond = [], threading.Condition()
        self.log_is_read = threading.Event()  # cleared: its log piles up in the pipe
        self.log_is_read.set()
        self.popen = None
        self.exit_status = None
        self.principals = []
        if start:
            self.start()

    # -- the daemon

    def argv(self):
        argv = [self.program]
        for addr in self.listen:
            argv += ["--listen", addr]
        argv += ["--state-dir", self.state, "--control-socket", self.socket]
        for key, value in self.options.items():
            argv += ["--" + key.replace("_", "-"), str(value)]
        return argv + self.args

    def spawn(self):
        """Start the program and read its log; does not wait for anything."""
        self.exit_status = None
        self.popen = subprocess.Popen([*self.procs.prefix, *self.argv()], stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                      process_group=0, **{"env": self.env, **self.popen_options})
        self._reader = threading.Thread(target=self._read_log, args=(self.popen.stderr,), daemon=True)
        self._reader.start()

    def start(self):
        since = self.mark()
        self.spawn()
        self.wait_log(r'[ "]ready("})?$', since, 15)
        self.ports = {}
        for line in self.lines[since:]:
            if m := re.search(r'listening on (\S+):(\d+)("})?$', line):
                self.ports[m[1]] = int(m[2])
        self.port = self.ports["127.0.0.1"]
        hostkey = re.search(r"ssh-ed25519 [A-Za-z0-9+/=]+", self.ctl("host-key", json=False))[0]
        with open(self.known_hosts, "w") as f:
            f.write(f"relay,[127.0.0.1]:{self.port},127.0.0.1 {hostkey}\n")
        for principal in self.principals:
            principal.write_config()

    def _read_log(self, pipe):
        for raw in pipe:
            self.log_is_read.wait()
            with self._cond:
                self.lines.append(raw.decode(errors="replace").rstrip("\n"))
                self._cond.notify_all()
        with self._cond:
            self._cond.notify_all()
        pipe.close()

    pid = property(lambda self: self.popen.pid)
    running = property(lambda self: self.popen is not None and self.popen.poll() is None)

    def stop(self):
        """SIGTERM; it must exit 0 within 10 s and leave no sanitizer report."""
        popen, self.popen = self.popen, None
        if popen.poll() is None:
            popen.send_signal(signal.SIGTERM)
        try:
            status = popen.wait(10 * SLOW)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
            raise AssertionError("relayd did not stop on SIGTERM") from None
        self.exit_status = status
        self._reader.join(5)
        reports = [line for line in self.lines if SANITIZER.search(line)]
        assert not reports, reports
        assert status == 0, f"relayd ended with status {status}"

    def kill9(self):
        self.popen.kill()
        self.popen.wait()
        self.popen = None

    def restart(self, kill=False):
        """Stop (or kill -9) and start again on the same ports and state; returns the time of the start."""
        self.kill9() if kill else self.stop()
        started = time.monotonic()
        self.listen = [f"{addr}:{port}" for addr, port in self.ports.items()]
        self.start()
        return started

    # -- its log

    def mark(self):
        """Where the log stands now, for `since`."""
        with self._cond:
            return len(self.lines)

    def logged(self, regex, since=0):
        """All lines from `since` on that match."""
        with self._cond:
            return [line for line in self.lines[since:] if re.search(regex, line)]

    def wait_log(self, regex, since=0, timeout=10):
        """Wait for a line that matches regex; returns the match."""
        pattern, deadline = re.compile(regex), time.monotonic() + timeout * SLOW
        at = since
        with self._cond:
            while True:
                while at < len(self.lines):
                    if m := pattern.search(self.lines[at]):
                        return m
                    at += 1
                left = deadline - time.monotonic()
                if left <= 0 or not self._reader.is_alive():
                    why = "not logged in time" if left <= 0 else "not logged before relayd ended"
                    raise AssertionError(f"/{regex}/ {why}:\n" + "\n".join(self.lines[since:][-40:]))
                self._cond.wait(min(left, 0.2))

    # -- its process

    def rss(self):
        """Resident memory in KiB."""
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"^VmRSS:\s+(\d+)", f.read(), re.M)[1])

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    # -- relayctl

    def ctl(self, *args, input=None, check=True, json=True, timeout=20):
        """Run relayctl. With check: the parsed result (json) or stdout, and exit 0 is asserted.
        Without check: the CompletedProcess, its stdout parsed as .json if it is JSON."""
        argv = [*self.procs.prefix, RELAYCTL, "--control-socket", self.socket]
        argv += (["--json"] if json else []) + [str(a) for a in args]
        done = subprocess.run(argv, input=input if input is not None else "", capture_output=True, text=True,
                              timeout=timeout * SLOW)
        done.json = _parse(done.stdout)
        if not check:
            return done
        assert done.returncode == 0, f"{argv} ended with {done.returncode}: {done.stderr}{done.stdout}"
        if not json:
            return done.stdout
        assert done.json is not None, f"{argv} printed no JSON: {done.stdout!r}"
        return done.json

    def list(self, what, tenant=None):
        return self.ctl("list", what, *(["--tenant", tenant] if tenant else []))

    def add_tenant(self, name):
        return self.ctl("add-tenant", name)

    def add_device(self, name, tenant=None, allow=(), key=None, user=None):
        return self._add(["add-device"], name, tenant, allow, key, user)

    def add_client(self, name, tenant=None, allow=(), key=None, user=None):
        return self._add(["add-client"], name, tenant, allow, key, user)

    def add_admin(self, name, tenant=None, key=None, user=None):
        """A client that is an administrator of its tenant."""
        return self._add(["add-client", "--admin"], name, tenant, (), key, user)

    def _add(self, command, name, tenant, allow, key, user):
        key = key or self.keys.new()
        argv = [*command, "--name", name]
        argv += ["--tenant", tenant] if tenant else []
        for rule in allow:
            argv += ["--allow", rule]
        self.ctl(*argv, key + ".pub")
        return self.stranger(name, key=key, tenant=tenant, user=user)

    def stranger(self, name="stranger", key=None, tenant=None, user=None):
        """Somebody with a key and an ssh_config, whom relayd has not been told about."""
        principal = Principal(self, name, key or self.keys.new(), tenant, user or tenant or "somebody")
        self.principals.append(principal)
        return principal

    def endpoint(self, name_port, tenant=None):
        """The row of `list endpoints` for "raspi:22", or None."""
        name, _, port = name_port.rpartition(":")
        for row in self.list("endpoints", tenant):
            if row["name"] == name and row["port"] == int(port):
                return row
        return None

    def wait_published(self, name_port, publishers=1, tenant=None, timeout=10):
        """Wait until "raspi:22" is online with at least so many publishers; returns its row."""
        def ready():
            row = self.endpoint(name_port, tenant)
            return row if row and row["online"] and row["publishers"] >= publishers else None
        return until(ready, timeout, lambda: f"{name_port} published; endpoints: {self.list('endpoints', tenant)}")

    def wait_withdrawn(self, name_port, tenant=None, timeout=10):
        """Wait until nobody publishes "raspi:22"."""
        def gone():
            row = self.endpoint(name_port, tenant)
            return row is None or not row["online"]
        until(gone, timeout, lambda: f"{name_port} withdrawn; endpoints: {self.list('endpoints', tenant)}")

    def wait_bridges(self, count, tenant=None, timeout=10):
        until(lambda: len(self.list("bridges", tenant)) == count, timeout,
              lambda: f"{count} bridges; have {self.list('bridges', tenant)}")


def _parse(text):
    try:
        return json.loads(text)
    except ValueError:
        return None


class Principal:
    """A device or a client: a key, an ssh_config with strict host-key checking, and the real ssh."""

    def __init__(self, relay, name, key, tenant=None, user="somebody"):
        self.relay, self.name, self.key, self.tenant, self.user = relay, name, key, tenant, user
        self.pub = key + ".pub"
        self.folder = os.path.join(relay.folder, f"p{len(relay.principals)}")
        os.makedirs(self.folder, exist_ok=True)
        self.config = os.path.join(self.folder, "config")
        self.extra = ""
        self.write_config()

    fingerprint = property(lambda self: keylib.fingerprint(self.key))
    public = property(lambda self: keylib.public(self.key))

    def write_config(self, first=None):
        """(Re)write the ssh_config; `first` is put before everything else, so its settings win."""
        if first is not None:
            self.extra = first
        with open(self.config, "w") as f:
            f.write(self.extra + SSH_CONFIG.format(host="127.0.0.1", port=self.relay.port, user=self.user, key=self.key,
                                                   known_hosts=self.relay.known_hosts,
                                                   connect_timeout=int(10 * SLOW)))

    def trust(self, line):
        """Add a known_hosts line (shared by everybody of this relay)."""
        with open(self.relay.known_hosts, "a") as f:
            f.write(line)

    def argv(self, *args, host="relay", command=(), program="ssh"):
        return [program, "-F", self.config, *args, *([host] if host else []), *command]

    def ssh(self, *args, host="relay", command=(), **options):
        """Start ssh ARGS relay COMMAND; stdin and stdout are /dev/null."""
        return self.relay.procs.spawn(self.argv(*args, host=host, command=command), **options)

    def ssh_pipes(self, *args, host="relay", command=(), **options):
        return self.relay.procs.spawn_pipes(self.argv(*args, host=host, command=command), **options)

    def ssh_pty(self, *args, host="relay", command=(), **options):
        return self.relay.procs.spawn_pty(self.argv(*args, host=host, command=command), **options)

    def run(self, *args, host="relay", command=(), input=b"", timeout=30):
        """ssh ARGS relay COMMAND to its end; returns a CompletedProcess."""
        return self.relay.procs.run(self.argv(*args, host=host, command=command), input, timeout)

    def order(self, *words, options=()):
        """ssh relay WORDS --json, quoted as words: (exit status, the one JSON document that it printed)."""
        done = self.run(*options, command=[shlex.join(str(w) for w in words) + " --json"])
        return done.returncode, json.loads(done.stdout) if done.stdout else None

    def via(self, *words, input="", json=False):
        """relayctl --via relay WORDS; a CompletedProcess."""
        argv = [RELAYCTL, "--via", "relay", "--ssh", shlex.join(["ssh", "-F", self.config])]
        argv += (["--json"] if json else []) + [str(w) for w in words]
        return subprocess.run([*self.relay.procs.prefix, *argv], input=input, capture_output=True, text=True,
                              timeout=20 * SLOW)

    def publish(self, *forwards, expect=(), options=()):
        """ssh -N -R ... relay, and wait until each of `expect` ("raspi:22") is published by one more session."""
        expect = [expect] if isinstance(expect, str) else list(expect)
        before = {e: (self.relay.endpoint(e, self.tenant) or {}).get("publishers", 0) for e in expect}
        args = [a for forward in forwards for a in ("-R", forward)]
        proc = self.ssh("-N", "-T", "-o", "ExitOnForwardFailure=yes", *options, *args)
        for name_port in expect:
            try:
                self.relay.wait_published(name_port, before[name_port] + 1, self.tenant)
            except AssertionError as e:
                raise AssertionError(f"{e}\nssh said: {proc.err()}") from None
        return proc

    def through_W(self, target, *options):
        """ssh -W TARGET relay with pipes as stdin and stdout."""
        return self.ssh_pipes(*options, "-W", target)

    def local(self, *targets, options=()):
        """ssh -N -L for each target; returns (process, local ports) once they listen."""
        from net import Net
        ports = [Net.free_port() for _ in targets]
        args = [a for port, target in zip(ports, targets) for a in ("-L", f"127.0.0.1:{port}:{target}")]
        proc = self.ssh("-N", "-T", "-o", "ExitOnForwardFailure=yes", *options, *args)
        until(lambda: all(is_listening(p) for p in ports) or not proc.running, what="ssh -L listening")
        assert proc.running, proc.err()
        return proc, ports

    def paramiko(self):
        """A logged-in paramiko.Transport; the host key is checked."""
        import paramiko
        transport = paramiko.Transport(("127.0.0.1", self.relay.port))
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = 20 * SLOW
        try:
            transport.start_client(timeout=20 * SLOW)
            with open(self.relay.known_hosts) as f:
                assert transport.get_remote_server_key().get_base64() in f.read()
            transport.auth_publickey(self.user, paramiko.Ed25519Key.from_private_key_file(self.key))
        except BaseException:
            transport.close()  # or it stays connected
            raise
        return transport
