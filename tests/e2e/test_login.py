"""Before the login: who dawdles, guesses or sends garbage is cut off; who has many keys is let in."""

import contextlib
import os
import socket
import time

import paramiko
import pytest
from hostile import GLOBAL_REQUEST, OPEN, attach, bystanders  # noqa: F401
from procs import SLOW, until


def test_whoever_does_not_log_in_is_cut_off(make_relay, net, attach):
    relay = make_relay(login_grace="1s")
    alice = attach(relay.add_client("alice"))
    since, started = relay.mark(), time.monotonic()
    silent, banner, slow = (net.connect(relay.port) for _ in range(3))
    banner.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
    keyed = paramiko.Transport(("127.0.0.1", relay.port))
    keyed.start_client(timeout=20 * SLOW)
    trickle = iter(b"SSH-2.0-slow" + b"w" * 1000)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while time.monotonic() - started < 10 * SLOW and len(relay.logged("closed: the login took too long",
        since)) < 4:
            slow.sendall(bytes([next(trickle)]))
            slow.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                slow.recv(100)
    for sock in (silent, banner, slow):
        with contextlib.suppress(ConnectionResetError):
            while sock.recv(4096):
                pass
    until(lambda: not keyed.is_active(), what="the idle transport closed")
    until(lambda: len(relay.logged("closed: the login took too long", since)) == 4, what="four closed")
    assert time.monotonic() - started > 0.9
    assert alice.alive(), "the grace time hit somebody who is logged in"


@pytest.mark.parametrize("hello", [
    b"\0" * 100000, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"SSH-1.5-old\r\n", b"SSH-2.0-" + b"x" * 5000,
    b"\n" * 70000, b"SSH-2.0-x\r\n" + b"\xff" * 100000, b"SSH-2.0-x\r\n" + b"\0\0\x40\0" * 50000,
    b"SSH-2.0-x\r\n\0\0\0\x0c\x0a\x14" + b"\0" * 100],
    ids=["zeros", "http", "ssh1", "long banner", "newlines", "huge packet", "many packets", "empty kexinit"])
def test_garbage_instead_of_a_login(hello, relay, bystanders, net):
    for _ in range(5):
        sock = net.connect(relay.port)
        with contextlib.suppress(OSError):  # it may have hung up already
            sock.sendall(hello)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
    assert bystanders.fine()
    until(lambda: relay.ctl("status")["waiting"] == 0, what="the connections gone")


def test_an_agent_with_eight_keys_logs_in(relay, keys, procs, folder):
    paths = [keys.new() for _ in range(8)]
    relay.ctl("add-client", "--name", "alice", paths[-1] + ".pub")
    agent = os.path.join(folder, "agent")
    procs.spawn(["ssh-agent", "-D", "-a", agent])
    until(lambda: os.path.exists(agent), what="the agent")
    procs.run(["ssh-add", *paths[:-1]], env={**os.environ, "SSH_AUTH_SOCK": agent})
    assert procs.run(["ssh-add", paths[-1]], env={**os.environ, "SSH_AUTH_SOCK": agent}).returncode == 0
    someone = relay.stranger()
    done = someone.run("-o", f"IdentityAgent={agent}", "-o", "IdentitiesOnly=no", command=["whoami"])
    assert done.returncode == 0 and b"alice" in done.stdout, done.stderr
    until(lambda: len(relay.logged('refused login ".*": unknown_key: ')) >= 7, what="seven reasons")


def test_guessing_keys_has_an_end(relay, bystanders, keys):
    transport = paramiko.Transport(("127.0.0.1", relay.port))
    transport.start_client(timeout=20 * SLOW)
    transport.auth_timeout = 20 * SLOW
    tries = 0
    while transport.is_active() and tries < 100:
        tries += 1
        with contextlib.suppress(paramiko.SSHException, EOFError):
            transport.auth_publickey("somebody", paramiko.Ed25519Key.from_private_key_file(keys.new()))
    assert 8 < tries < 100, "too few for an agent full of keys" if tries <= 8 else "it may guess for ever"
    relay.wait_log("closed: too many login attempts")
    assert bystanders.fine()


def test_other_ways_to_log_in_are_refused(relay):
    for try_ in (lambda t: t.auth_password("root", "x"), lambda t: t.auth_none("root"),
                 lambda t: t.auth_interactive("root", lambda *_: [])):
        transport = paramiko.Transport(("127.0.0.1", relay.port))
        transport.start_client(timeout=20 * SLOW)
        with pytest.raises(paramiko.BadAuthenticationType) as refusal:
            try_(transport)
        assert refusal.value.allowed_types == ["publickey"]
        transport.close()


def test_channels_and_requests_before_the_login_are_not_served(relay, bystanders):
    for kind, fields in ((OPEN, ("session", 1, 1 << 21, 1 << 15)), (GLOBAL_REQUEST, ("tcpip-forward", True, "x", 80)),
                         (OPEN, ("direct-tcpip", 1, 1 << 21, 1 << 15, "good", 7, "127.0.0.1", 1))):
        transport = paramiko.Transport(("127.0.0.1", relay.port))
        transport.start_client(timeout=20 * SLOW)
        message = paramiko.Message()
        message.add_byte(bytes([kind]))
        for field in fields:
            message.add(field) if not isinstance(field, int) or isinstance(field, bool) else message.add_int(field)
        transport._send_user_message(message)
        until(lambda: not transport.is_active(), what="the connection cut")
    assert [row["name"] for row in relay.list("endpoints")] == ["good"] and len(relay.list("bridges")) == 1
    assert bystanders.fine()
