"""Before login: how many may wait, which sources are held back, and what happens at the limit of descriptors."""

import contextlib
import os
import socket
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import paramiko
import pytest
from net import connect, echoes
from procs import SLOW, until

HELD = r"warn connections from 127\.0\.0\.1 are held back for \d+ s: "
BANNER = b"SSH-2.0-relayd"
REFUSAL = b"relayd: too many failures from this address: try again later\r\n"


def visit(relay, send=b"", host="127.0.0.1", source=None, leave=False):
    """What a peer hears that sends this, until relayd closes; with leave, it does not wait for that."""
    with socket.create_connection((host, relay.port if host == "127.0.0.1" else relay.ports["[::1]"]), 20 * SLOW,
                                  source_address=(source, 0) if source else None) as sock:
        sock.sendall(send)
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while (data := sock.recv(4096)) and not leave:
                heard += data
    return heard


def greets(relay, source="127.0.0.1"):
    """True if relayd speaks SSH to a new connection, False if it refuses it."""
    with socket.create_connection(("127.0.0.1", relay.port), 20 * SLOW, source_address=(source, 0)) as sock:
        heard = sock.recv(4096)
    assert heard.startswith(BANNER) or heard == REFUSAL, heard
    return heard != REFUSAL


@pytest.fixture
def strict(make_relay):
    """A relayd that exempts nobody, not even this machine."""
    return make_relay(penalty_exempt="", login_grace="20s")


# ---- penalties


def fail_until_held(relay, fail):
    """fail() again and again; returns how often it was until the source was held back."""
    since, times = relay.mark(), 0
    while not relay.logged(HELD, since):
        assert times < 40, "never held back"
        closed = relay.mark()
        fail()
        times += 1
        relay.wait_log(r"session=\d+ closed: ", closed)
    return times


def wrong_key(relay, stranger):
    def fail():
        assert stranger.run(command=["whoami"]).returncode == 255
    return fail


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.0\r\n\r\n", b"SSH-2.0-x\r\n" + b"\xff" * 64],
                         ids=["banner", "packet"])
def test_garbage_is_held_back_and_told_so(garbage, strict):
    assert fail_until_held(strict, lambda: visit(strict, garbage)) == 2
    assert visit(strict) == REFUSAL
    status = strict.ctl("status")
    assert status["sources_held"] == 1 and status["connections_refused"] == 1
    assert greets(strict, source="127.0.0.2"), "another source"
    assert len(strict.logged(HELD)) == 1


def test_wrong_keys_are_held_back_and_ssh_shows_why(strict):
    stranger = strict.stranger()
    assert fail_until_held(strict, wrong_key(strict, stranger)) == 4  # the first is paid off in part by then
    done = stranger.run("-v", command=["whoami"])
    assert done.returncode == 255 and "too many failures from this address" in done.stderr
    strict.wait_log(HELD + "it failed to log in")


def test_who_sends_too_much_before_the_login_is_held_back(strict):
    def flood():
        transport = paramiko.Transport(connect(strict.port))
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = 20 * SLOW
        ignore = paramiko.Message()
        ignore.add_byte(b"\2")
        ignore.add_string(b"x" * 1000)
        try:
            transport.start_client(timeout=20 * SLOW)
            for _ in range(55):
                transport._send_message(ignore)
            with pytest.raises(paramiko.BadAuthenticationType):
                transport.auth_none("raspi")  # is answered: so much is allowed
            with contextlib.suppress(OSError, EOFError):
                for _ in range(10):
                    transport._send_message(ignore)
            until(lambda: not transport.is_active(), what="the end of the connection")
        finally:
            transport.close()

    times = fail_until_held(strict, flood)
    assert times <= 4
    strict.wait_log(HELD + "it failed to log in")
    assert len(strict.logged("closed: too many login attempts, or too much sent before the login")) == times


def test_who_leaves_early_is_held_back_late(strict):
    assert fail_until_held(strict, lambda: visit(strict, b"SSH-2.0-probe\r\n", leave=True)) >= 15


def test_who_does_not_log_in_in_time_is_held_back(make_relay):
    relay = make_relay(penalty_exempt="", login_grace="200ms")

    def linger():
        with socket.create_connection(("127.0.0.1", relay.port), 20 * SLOW) as sock:
            while sock.recv(4096):
                pass
    assert fail_until_held(relay, linger) == 2
    relay.wait_log(HELD + "it did not log in in time")


def test_a_health_check_is_never_held_back(strict):
    """It connects and leaves without a word, as load balancers do."""
    for _ in range(100):
        since = strict.mark()
        with socket.create_connection(("127.0.0.1", strict.port), 20 * SLOW):
            pass
        strict.wait_log("closed: the peer left", since)
    assert strict.ctl("status")["sources_held"] == 0


def test_who_says_nothing_for_long_and_leaves_before_the_grace_is_over_is_held_back(strict):
    socks = [connect(strict.port) for _ in range(2)]
    time.sleep(4 + SLOW)
    for sock in socks:
        sock.close()
    strict.wait_log(HELD + "it did not log in in time")


def test_many_keys_before_the_right_one_are_no_failure(strict, keys):
    raspi = strict.add_device("raspi")
    wrong = "".join(f"IdentityFile {keys.new()}\n" for _ in range(8))
    raspi.write_config(first="Host relay\n" + wrong)
    for _ in range(5):
        since = strict.mark()
        assert raspi.run(command=["whoami"]).returncode == 0
        until(lambda: len(strict.logged("refused login .* unknown_key", since)) == 8, what="8 refused keys")
    assert strict.ctl("status")["sources_held"] == 0


def test_a_source_with_sessions_is_slowed_and_never_refused(strict, net):
    """A fleet behind one address, of which one device fails all the time."""
    raspi = strict.add_device("raspi")
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    fail_until_held(strict, wrong_key(strict, strict.stranger()))
    alice = strict.add_client("alice")
    with ThreadPoolExecutor(12) as pool:
        jobs = [pool.submit(lambda: alice.through_W("raspi:7").finish(b"hello")) for _ in range(24)]
        assert all(job.result() == (0, b"hello") for job in jobs)
    status = strict.ctl("status")
    assert status["connections_refused"] == 0 and status["sources_held"] == 1


def test_of_a_source_with_sessions_any_number_waits_and_none_is_refused(strict):
    raspi = strict.add_device("raspi")
    raspi.ssh("-N")
    until(lambda: strict.ctl("status")["sessions"] == 1, what="the session")
    fail_until_held(strict, wrong_key(strict, strict.stranger()))
    since = strict.mark()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(strict.port)) for _ in range(300)]
        assert greeted(socks[0], 20 * SLOW) and greeted(socks[9], 20 * SLOW)
        assert not greeted(socks[-1], 0.3), "nobody was slowed"
        for sock in socks[20:-1]:
            sock.close()
        assert greeted(socks[-1], 20 * SLOW), "those that have left are still waited for"
    assert strict.ctl("status")["connections_refused"] == 0
    until(lambda: strict.ctl("status")["waiting"] == 0, what="all gone")
    assert len(strict.logged("closed: ", since)) < 60, "those that left had to be served"


def test_the_last_session_that_leaves_ends_that(strict):
    raspi = strict.add_device("raspi")
    session = raspi.ssh("-N")
    until(lambda: strict.ctl("status")["sessions"] == 1, what="the session")
    fail_until_held(strict, wrong_key(strict, strict.stranger()))
    assert greets(strict)
    session.kill()
    until(lambda: strict.ctl("status")["sessions"] == 0, what="its end")
    assert not greets(strict)


def test_exempt_networks_and_the_switch(make_relay, folder):
    path = os.path.join(folder, "relayd.conf")

    def write(text):
        with open(path, "w") as f:
            f.write("[relayd]\n" + text)

    write("")
    relay = make_relay(args=["--config", path])
    for _ in range(5):
        visit(relay, b"x\r\n")
    assert greets(relay), "this machine is exempt by default"
    write("penalty-exempt = 192.0.2.0/24\npenalty-exempt = 127.0.0.2/32\n")
    assert relay.ctl("reload")["changed"] == ["penalty-exempt"]
    fail_until_held(relay, lambda: visit(relay, b"x\r\n"))
    assert not greets(relay)
    for _ in range(5):
        visit(relay, b"x\r\n", source="127.0.0.2")
    assert greets(relay, source="127.0.0.2")
    write("penalty-exempt =\npenalties = off\n")
    assert relay.ctl("reload")["changed"] == ["penalties", "penalty-exempt"]
    assert greets(relay)


def test_ipv6_counts_by_64(strict):
    for _ in range(2):
        visit(strict, b"x\r\n", host="::1")
    strict.wait_log("connections from ::/64 are held back")


def test_a_registry_that_cannot_be_read_is_nobodys_fault(strict):
    raspi = strict.add_device("raspi")
    database = os.path.join(strict.state, "relayd.db")
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as db:
        db.execute("ALTER TABLE keys RENAME TO kept")
        try:
            for _ in range(4):
                assert raspi.run(command=["whoami"]).returncode == 255
        finally:
            db.execute("ALTER TABLE kept RENAME TO keys")
    strict.wait_log("registry_unavailable")
    assert raspi.run(command=["whoami"]).returncode == 0
    assert strict.ctl("status")["sources_held"] == 0


# ---- max-logins


def greeted(sock, timeout):
    """True if relayd speaks to this connection in time."""
    sock.settimeout(timeout)
    try:
        return sock.recv(100).startswith(BANNER)
    except TimeoutError:
        return False


@contextlib.contextmanager
def talking(socks):
    """Meanwhile each of them says a little now and then: it keeps its place."""
    done = threading.Event()

    def talk():
        while not done.wait(0.5):
            for sock in socks:
                with contextlib.suppress(OSError):
                    sock.send(b"S")
    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_at_max_logins_who_is_silent_makes_room(make_relay, net):
    relay = make_relay(penalty_exempt="127.0.0.1/32", max_logins=10, login_grace="10m")
    raspi = relay.add_device("raspi")
    silent = [socket.create_connection(("127.0.0.1", relay.port), source_address=("127.0.0.2", 0)) for _ in range(10)]
    assert all(greeted(s, 20 * SLOW) for s in silent)
    with net.connect(relay.port) as talker, talking([talker]):
        assert raspi.run(command=["whoami"]).returncode == 0
        relay.wait_log("closed: the login took too long: it was silent while others waited")
        relay.wait_log("connections from 127.0.0.2 are held back for .*: it did not log in in time")
        assert greeted(talker, 20 * SLOW) and relay.ctl("status")["waiting"] >= 1
    for sock in silent:
        sock.close()


def test_while_there_is_room_nobody_has_to_hurry(make_relay, net):
    relay = make_relay(max_logins=10)
    sock = net.connect(relay.port)
    time.sleep(4 + SLOW)
    assert relay.ctl("status")["waiting"] == 1 and greeted(sock, 1)


def test_at_max_logins_the_rest_waits_and_nobody_is_refused(make_relay, net):
    relay = make_relay(max_logins=10)
    raspi = relay.add_device("raspi")
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    client, (port,) = relay.add_client("alice").local("raspi:7")
    sock = net.connect(port)
    idle = [net.connect(relay.port) for _ in range(10)]
    assert all(greeted(s, 20 * SLOW) for s in idle)
    relay.wait_log("no more than 10 connections that have not logged in .see max-logins.: new connections wait")
    late = [net.connect(relay.port) for _ in range(5)]
    with talking(idle):
        assert not greeted(late[0], 0.3)
        assert relay.ctl("status")["waiting"] == 10
        assert echoes(sock) and echoes(net.connect(port)), "what is up goes on"
    for s in idle[:5]:
        s.close()
    assert all(greeted(s, 20 * SLOW) for s in late)
    assert len(relay.logged("have not logged in")) <= 2, "said once in a while"


def test_max_logins_can_be_raised_while_they_wait(make_relay, net, folder):
    path = os.path.join(folder, "relayd.conf")
    with open(path, "w") as f:
        f.write("[relayd]\nmax-logins = 2\n")
    relay = make_relay(args=["--config", path])
    socks = [net.connect(relay.port) for _ in range(6)]
    assert all(greeted(s, 20 * SLOW) for s in socks[:2]) and not greeted(socks[2], 0.3)
    with open(path, "w") as f:
        f.write("[relayd]\nmax-logins = 6\n")
    assert relay.ctl("reload")["changed"] == ["max-logins"]
    assert all(greeted(s, 20 * SLOW) for s in socks[2:])


def test_a_fleet_that_comes_at_once_from_one_address_gets_in(make_relay):
    """More than may log in at a time, none exempt: each waits for its turn and none fails."""
    relay = make_relay(penalty_exempt="", max_logins=20)
    raspi = relay.add_device("raspi")
    key = paramiko.Ed25519Key.from_private_key_file(raspi.key)
    count = int(300 / SLOW)
    sockets = [connect(relay.port, timeout=60) for _ in range(count)]
    transports, lock = [], threading.Lock()

    def log_in(sock):
        transport = paramiko.Transport(sock)
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = 60 * SLOW
        with lock:
            transports.append(transport)
        transport.start_client(timeout=60 * SLOW)
        transport.auth_publickey("raspi", key)
        return transport.is_authenticated()

    try:
        with ThreadPoolExecutor(40) as pool:
            assert all(pool.map(log_in, sockets))
        status = relay.ctl("status")
        assert status["sessions"] == count and status["connections_refused"] == status["sources_held"] == 0
    finally:
        for transport in transports:
            transport.close()


# ---- descriptors


def test_at_the_limit_of_descriptors_accepting_pauses_and_goes_on(make_relay, net, procs):
    procs.prefix = ["prlimit", "--nofile=160:160"]
    relay = make_relay(workers=1)
    procs.prefix = []
    raspi = relay.add_device("raspi")
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    client, (port,) = relay.add_client("alice").local("raspi:7")
    sock = net.connect(port)
    most = 160 - 64 - 2 * 10 - 2  # the reserve, two workers', the two that are logged in
    idle = [net.connect(relay.port) for _ in range(most)]
    assert all(greeted(s, 20 * SLOW) for s in idle)
    late = [net.connect(relay.port) for _ in range(5)]
    with talking(idle):
        assert not greeted(late[0], 0.3)
        relay.wait_log("no more than 76 connections .see the limit of open files.: new connections wait")
        assert echoes(sock) and echoes(net.connect(port)) and relay.add_tenant("t")["status"] == "added"
    for s in idle[:5]:
        s.close()
    assert all(greeted(s, 20 * SLOW) for s in late)
    assert not relay.logged("cannot accept|Too many open files")


def test_a_slowed_connection_that_waits_is_dropped_when_relayd_stops(strict):
    raspi = strict.add_device("raspi")
    raspi.ssh("-N")
    until(lambda: strict.ctl("status")["sessions"] == 1, what="the session")
    fail_until_held(strict, lambda: visit(strict, b"x\r\n"))
    waiting = [connect(strict.port) for _ in range(60)]
    started = time.monotonic()
    strict.stop()
    assert time.monotonic() - started < 5 * SLOW
    for sock in waiting:
        sock.close()
