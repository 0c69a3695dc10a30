"""The servers that are measured, each started anew for a measurement: relayd, sshd and HAProxy."""

import concurrent.futures
import contextlib
import json
import os
import pwd
import random
import re
import signal
import socket
import subprocess

from measure import Failed, Process, read, until

CONTROL_CONNECTIONS = 8
FLEET, FIRST, CLIENT, OTHER_DEVICE, OTHER_CLIENT = "fleet", "first", "client", "other-device", "other-client"
EVE, MALLET = "eve", "mallet"
SINGLE = FIRST, CLIENT, OTHER_DEVICE, OTHER_CLIENT, EVE, MALLET
ACCOUNT_COMMENT = "relayd benchmark of process"


def free_port():
    """A TCP port below those that the kernel gives to outgoing connections, of which a run makes many."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
        low = int(f.read().split()[0])
    for _ in range(1000):
        port = random.randrange(10000, max(low, 20000))
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise Failed("no free TCP port on 127.0.0.1")


class Server:
    """A running server: with Server(bench) as server. Subclasses start self.process and know who may log in."""

    def __init__(self, bench):
        self.bench, self.port, self.process = bench, free_port(), None

    def __enter__(self):
        try:
            self.start()
            until(lambda: not self.process.running or self.is_ready(), 20, lambda: f"{self.name} is not ready")
            if not self.process.running:
                raise Failed(f"{self.name} ended: {self.process.said()}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.stop()

    def is_ready(self):
        """It says so: it listens before it can serve, and a connection to find out would have to be served."""
        with open(self.process.log) as f:
            return re.search(self.ready, f.read(), re.M)

    def spawn(self, argv):
        self.process = Process(argv, self.bench.path(f"{self.name}.log"), stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)

    def read(self):
        return read(self.process.pid)

    def load(self, mode, **options):
        return self.bench.load(mode, port=self.port, **options)


class Relayd(Server):
    """relayd with its defaults, on a registry that Relayd.register() has filled once. It has two tenants:
    `default` with the fleet, one device more and one client; `other` with one device and one client, and Eve and
    Mallet, who are hostile."""

    name, ready, workers = "relayd", " ready$", None

    def start(self):
        self.socket = self.bench.path("control.sock")
        self.spawn([self.bench.relayd, "--listen", f"127.0.0.1:{self.port}", "--state-dir", self.bench.path("state"),
                    "--control-socket", self.socket, "--user", self.bench.accounts[0],
                    *(["--workers", str(self.workers)] if self.workers else [])])

    def fleet(self):
        return {"keys": self.bench.keys(FLEET)}

    def first(self):
        """A device of the same tenant that is not of the fleet."""
        return {"keys": self.bench.keys(FIRST)}

    def pair(self, number=0):
        """A device and its client; those of number 1 are another tenant's."""
        if number == 0:
            return {"keys": self.bench.keys(FLEET), "client_keys": self.bench.keys(CLIENT), "target": "dev00001:22"}
        return {"keys": self.bench.keys(OTHER_DEVICE), "client_keys": self.bench.keys(OTHER_CLIENT),
                "target": "machine:22"}

    def attack(self, name):
        """The hostile peers of the other tenant at work, for longer than anybody measures."""
        return self.bench.attack(name, port=self.port, user="other",
                                 known_hosts=self.bench.path("state/ssh_host_ed25519_key.pub"), eve=self.bench.keys(EVE),
                                 mallet=self.bench.keys(MALLET), seconds=3600)

    def status(self):
        return next(iter(self._control([("status", "default", {})])))

    def heap_kib(self):
        """Heap in use, or None if this relayd does not say."""
        used = self.status().get("memory", {}).get("heap_used")
        return None if used is None else used / 1024

    def register(self, count):
        """Tell it about `count` devices and everybody else. Not measured."""
        keys = self.bench.public_keys

        def add(kind, tenant, name, key):
            return f"add-{kind}", tenant, {"name": name, "key": key}

        for _ in self._control([("add-tenant", "default", {"name": "other"}),
                                add("device", "default", "first", keys(FIRST)[0]),
                                add("client", "default", "person", keys(CLIENT)[0]),
                                add("device", "other", "machine", keys(OTHER_DEVICE)[0]),
                                add("client", "other", "person", keys(OTHER_CLIENT)[0]),
                                add("device", "other", "eve", keys(EVE)[0]),
                                add("client", "other", "mallet", keys(MALLET)[0])]):
            pass
        devices = [add("device", "default", f"dev{n:05}", key) for n, key in enumerate(keys(FLEET)[:count], 1)]
        with concurrent.futures.ThreadPoolExecutor(CONTROL_CONNECTIONS) as pool:
            shares = [devices[n::CONTROL_CONNECTIONS] for n in range(CONTROL_CONNECTIONS)]
            for _ in pool.map(lambda share: list(self._control(share)), shares):
                pass

    def _control(self, requests):
        """The results of (command, tenant, arguments), in order, over one connection."""
        try:
            yield from self._exchange(requests)
        except (OSError, ValueError) as error:
            raise Failed(f"relayd's control socket: {error}") from None

    def _exchange(self, requests):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(self.socket)
            with sock.makefile("rw") as lines:
                for command, tenant, args in requests:
                    lines.write(json.dumps({"v": 1, "id": 1, "cmd": command, "tenant": tenant, "args": args}) + "\n")
                    lines.flush()
                    answer = json.loads(lines.readline() or "{}")
                    if not answer.get("ok"):
                        raise Failed(f"relayd refused {command}: {answer.get('error')}")
                    yield answer["result"]


class OneWorker(Relayd):
    """All tenants on one thread: the worst that one can do to another."""

    workers = 1


class Sshd(Server):
    """The system's own sshd, as root, so that its privileges are separated as packaged. Each of two accounts has
    one authorized key, the shortest look-up that sshd can have."""

    name, ready = "sshd", "^Server listening on "

    def start(self):
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # a compiled-in need, which its unit file makes
        authorized = self.bench.path("authorized")
        os.makedirs(authorized, mode=0o755, exist_ok=True)
        for account in self.bench.accounts:
            names = [name for name, owner in zip((CLIENT, OTHER_CLIENT), self.bench.accounts) if owner == account]
            with open(os.path.join(authorized, account), "w") as f:
                f.writelines(self.bench.public_keys(name)[0] + "\n" for name in names)
        config = self.bench.path("sshd_config")
        with open(config, "w") as f:
            f.write(f"""ListenAddress 127.0.0.1
Port {self.port}
HostKey {self.bench.host_key()}
PidFile none
AuthorizedKeysFile {authorized}/%u
StrictModes no
KbdInteractiveAuthentication no
UsePAM yes
AllowTcpForwarding yes
MaxStartups 10000
MaxSessions 10000
""")
        self.spawn([self.bench.sshd, "-D", "-e", "-f", config])

    def fleet(self):
        return {"user": self.bench.accounts[0], "keys": self.bench.keys(CLIENT), "publish": "127.0.0.1:0"}

    first = fleet

    def pair(self, number=0):
        address = f"127.0.0.1:{free_port()}"
        keys = self.bench.keys((CLIENT, OTHER_CLIENT)[number])
        account = self.bench.accounts[number]
        return {"user": account, "client_user": account, "keys": keys, "client_keys": keys,
                "publish": address, "target": address}


class Haproxy(Server):
    """A plain TCP proxy with one thread: what moving the bytes costs without SSH."""

    name = "haproxy"

    def start(self):
        self.target = free_port()
        config = self.bench.path("haproxy.cfg")
        with open(config, "w") as f:
            f.write(f"""global
    nbthread 1
    maxconn 1000
defaults
    mode tcp
    timeout connect 10s
    timeout client 60s
    timeout server 60s
listen bench
    bind 127.0.0.1:{self.port}
    server target 127.0.0.1:{self.target}
""")
        self.spawn([self.bench.haproxy, "-db", "-f", config])

    def is_ready(self):
        """It says nothing, and would pass a connection on to the load."""
        with open("/proc/net/tcp") as f:
            return any(f":{self.port:04X} 00000000:0000 0A " in line for line in f)

    def load(self, mode, **options):
        return super().load(mode, listen_port=self.target, **options)


SERVERS = {"relayd": Relayd, "sshd": Sshd, "haproxy": Haproxy, "openssl": None}  # none: nothing to start


# ---- Accounts for sshd


def remove_stale_accounts():
    """Those that a killed run has left."""
    for entry in pwd.getpwall():
        if entry.pw_gecos.startswith(ACCOUNT_COMMENT) and not os.path.exists("/proc/" + entry.pw_gecos.split()[-1]):
            _remove_account(entry.pw_name)


@contextlib.contextmanager
def account(number):
    """An account for this run; gives its name."""
    name = f"relaybench{os.getpid()}-{number}"
    try:
        done = subprocess.run(["useradd", "--no-create-home", "--home-dir", "/nonexistent", "--shell",
                               "/usr/sbin/nologin", "--comment", f"{ACCOUNT_COMMENT} {os.getpid()}", name],
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"useradd {name}: {done.stderr.strip()}")
        yield name
    finally:
        _remove_account(name)


def _remove_account(name):
    """userdel refuses while a process of the account is left: what an interrupted run leaves is killed."""
    try:
        uid = pwd.getpwnam(name).pw_uid
    except KeyError:
        return
    try:
        until(lambda: not _kill_all_of(uid), 10, lambda: f"processes of {name} are still there")
    finally:
        subprocess.run(["userdel", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _kill_all_of(uid):
    """True if there was one."""
    found = False
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid:
                found = True
                os.kill(int(pid), signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError):
            pass
    return found
