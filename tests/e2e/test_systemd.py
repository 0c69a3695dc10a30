"""What a service manager and relayd tell each other: readiness, and sockets that outlive a restart."""

import contextlib
import os
import re
import signal
import socket
import threading
import time

import pytest
from net import Net
from procs import SLOW, until
from relay import Relay


class Manager:
    """Holds the listening sockets and reads the notifications, as systemd does, and starts a relayd with them."""

    def __init__(self, procs, folder, keys):
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.settimeout(10 * SLOW)
        path = os.path.join(folder, "notify.sock")
        self.notifications.bind(path)
        self.relay = Relay(procs, folder, keys, start=False)
        self.environment = {**os.environ, "NOTIFY_SOCKET": path}
        self.sockets = []
        self.relay.popen_options = {"env": self.environment}

    def listen(self, host="127.0.0.1", **options):
        sock = socket.create_server((host, Net.free_port()), family=socket.AF_INET6 if ":" in host else socket.AF_INET,
                                    backlog=4096, **options)
        self.sockets.append(sock)
        return sock.getsockname()[1]

    def pass_sockets(self, count=None):
        """From descriptor 3 on, and the number of the process that they are for, which only a shell knows."""
        fds = [sock.fileno() for sock in self.sockets]
        spare = 10 + max(fds)  # out of the way of what is overwritten
        moves = [f"{spare + i}<&{fd}" for i, fd in enumerate(fds)] + [f"{3 + i}<&{spare + i}" for i in range(len(fds))]
        script = " ".join(["exec", *moves, "&&", f"export LISTEN_PID=$$ LISTEN_FDS={count or len(fds)}", "&&", 'exec "$@"'])
        argv = self.relay.argv
        self.relay.argv = lambda: ["bash", "-c", script, "bash", *argv()]
        self.relay.popen_options = {"env": self.environment, "pass_fds": fds}

    def told(self):
        """The next notification as a dict."""
        return dict(line.split("=", 1) for line in self.notifications.recv(4096).decode().splitlines())

    def close(self):
        self.notifications.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def manager(procs, folder, keys, request):
    made = Manager(procs, folder, keys)
    request.node.relays = [made.relay]
    yield made
    for proc in procs.all:
        proc.kill()
    if made.relay.popen is not None:
        made.relay.stop()
    made.close()


# ---- sd_notify


def test_ready_reloading_and_stopping_are_told(manager):
    relay, path = manager.relay, os.path.join(manager.relay.folder, "relayd.conf")
    relay.args = ["--config", path]
    with open(path, "w") as f:
        f.write("[relayd]\n")
    relay.start()
    assert manager.told() == {"READY": "1", "STATUS": "serving"}
    before = time.monotonic_ns() // 1000
    relay.popen.send_signal(signal.SIGHUP)
    reloading = manager.told()
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert manager.told() == {"READY": "1", "STATUS": "serving"}
    with open(path, "w") as f:
        f.write("[relayd]\ncolour = red\n")
    relay.popen.send_signal(signal.SIGHUP)
    assert manager.told()["RELOADING"] == "1"
    assert re.fullmatch(r"serving; the configuration stays as it was: .*relayd.conf:2: unknown key \"colour\".*",
                        (ready := manager.told())["STATUS"]) and ready["READY"] == "1"
    relay.popen.send_signal(signal.SIGTERM)
    assert manager.told()["STOPPING"] == "1"
    relay.stop()


def test_a_start_that_fails_is_never_ready(manager):
    os.chmod(manager.relay.state, 0o777)
    manager.relay.spawn()
    assert manager.relay.popen.wait(10 * SLOW) == 1
    manager.relay.popen = None
    manager.notifications.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.told()


# ---- socket activation


def test_passed_sockets_are_used_in_place_of_listen(manager):
    relay, v4, v6 = manager.relay, manager.listen(), manager.listen("::1")
    unused = int(relay.listen[0].rpartition(":")[2])
    manager.pass_sockets()
    relay.start()
    assert relay.ports == {"127.0.0.1": v4, "[::1]": v6}
    raspi = relay.add_device("raspi")
    assert raspi.run(command=["whoami"]).returncode == 0
    assert raspi.run("-o", "HostName=::1", "-p", str(v6), command=["whoami"]).returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", unused))


@pytest.mark.parametrize("make", [
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    lambda: socket.socketpair()[0],
], ids=["datagram", "not-listening", "unix"])
def test_what_is_not_a_listening_tcp_socket_is_refused(make, manager):
    manager.listen()
    manager.sockets.append(make())
    manager.pass_sockets()
    manager.relay.spawn()
    assert manager.relay.popen.wait(10 * SLOW) == 1
    manager.relay.wait_log("descriptor 4, passed by the service manager, is not a TCP socket that listens")
    manager.relay.popen = None


def test_a_descriptor_that_is_not_there_is_refused(manager):
    manager.listen()
    manager.pass_sockets(count=2)
    manager.relay.spawn()
    assert manager.relay.popen.wait(10 * SLOW) == 1
    manager.relay.popen = None


class Visitors:
    """Connect all the time; what became of each connection is counted."""

    def __init__(self, port, count=4):
        self.port, self.refused, self.greeted, self.cut = port, [], 0, 0
        self.ends, self.lock = threading.Event(), threading.Lock()
        self.threads = [threading.Thread(target=self.run) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.ends.is_set():
            greeting = b""
            try:
                with socket.create_connection(("127.0.0.1", self.port), 20 * SLOW) as sock:
                    with contextlib.suppress(ConnectionResetError):
                        greeting = sock.recv(100)
                with self.lock:
                    self.greeted += greeting.startswith(b"SSH-2.0-relayd")
                    self.cut += greeting == b""
            except OSError as e:
                self.refused.append(e)

    def stop(self):
        self.ends.set()
        for thread in self.threads:
            thread.join()


def test_a_restart_refuses_no_connection(manager):
    relay, port = manager.relay, manager.listen()
    manager.pass_sockets()
    relay.start()
    raspi = relay.add_device("raspi")
    visitors = Visitors(port)
    try:
        for _ in range(3):
            seen = visitors.greeted
            until(lambda: visitors.greeted > seen + 20, 20, "visitors who are greeted")
            relay.stop()
            with socket.create_connection(("127.0.0.1", port), 20 * SLOW) as early:  # nobody accepts it yet
                relay.start()
                assert early.recv(100).startswith(b"SSH-2.0-relayd")
            assert raspi.run(command=["whoami"]).returncode == 0
    finally:
        visitors.stop()
    assert not visitors.refused
    assert visitors.greeted > 60
    assert visitors.cut < visitors.greeted / 4, "more than those that a stop finds half way"
