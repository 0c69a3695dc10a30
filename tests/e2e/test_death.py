"""Peers that die without a word: the cable is pulled, the process is stopped, an answer never comes."""

import contextlib
import os
import subprocess
import sys
import threading
import time

import pytest

from hostile import CLOSE, GLOBAL_REQUEST, OPEN_FAILURE, attach, bridge, bridged, closed_log, eve, mallet  # noqa: F401
from net import echoes
from procs import SLOW, own_network, until
from relay import sanitized

ECHO = """import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        while data := self.connection.recv(4096):
            self.connection.sendall(data)
server = socketserver.ThreadingTCPServer(("127.0.0.1", 7), Echo)
print("up", file=__import__("sys").stderr, flush=True)
server.serve_forever()
"""


class Place:
    """A network namespace behind a cable of its own to the one where relayd runs, with an echo service."""

    def __init__(self, procs, relay_network, number):
        self.procs, self.number = procs, number
        self.near, self.far = f"10.9.{number}.1", f"10.9.{number}.2"
        procs.prefix = []
        self.holder = own_network(procs)
        self.prefix, self.relay_prefix = procs.prefix, ["nsenter", "-t", str(relay_network.pid), "--net"]
        procs.prefix = self.relay_prefix
        cable = f"cable{number}"
        self.ip("near", f"link add {cable} type veth peer name far netns {self.holder.pid}")
        self.ip("near", f"addr add {self.near}/24 dev {cable}")
        self.ip("near", f"link set {cable} up")
        self.ip("far", f"addr add {self.far}/24 dev far")
        self.ip("far", "link set far up")
        self.run(procs.spawn, [sys.executable, "-c", ECHO]).wait_err("^up")

    def ip(self, end, command):
        subprocess.run([*(self.relay_prefix if end == "near" else self.prefix), "ip", *command.split()], check=True)

    def run(self, job, *args, **options):
        """job(*args), and what it starts runs here."""
        self.procs.prefix = self.prefix
        try:
            return job(*args, **options)
        finally:
            self.procs.prefix = self.relay_prefix

    def publish(self, device):
        return self.run(device.publish, "7:localhost:7", expect=f"{device.name}:7",
                        options=["-o", f"HostName={self.near}"])

    def cut(self):
        """From now on packets get lost both ways; neither side is told."""
        for end, address, cable in (("near", self.far, f"cable{self.number}"), ("far", self.near, "far")):
            self.ip(end, f"neigh replace {address} lladdr 02:00:00:00:00:99 nud permanent dev {cable}")


@pytest.fixture
def place(procs):
    """place() makes one; the first call must come before relayd is started, which listens everywhere."""
    network, made = own_network(procs), []

    def make():
        made.append(Place(procs, network, len(made) + 1))
        return made[-1]

    return make


class Pipe:
    """ssh -W through the relay: an open bridge."""

    def __init__(self, client, target):
        self.proc = client.through_W(target)
        assert self.echoes(b"ping")

    def echoes(self, data):
        self.send(data)
        return self.proc.stdout.read1(len(data)) == data

    def send(self, data):
        self.proc.stdin.write(data)
        self.proc.stdin.flush()


def sessions(relay, principal):
    return [row for row in relay.list("sessions") if row["principal"] == principal]


# ---- the cable is pulled


def test_a_device_comes_back_from_elsewhere_and_is_reachable_at_once(place, make_relay):
    before, after = place(), place()
    relay = make_relay(args=["--listen", "0.0.0.0:2222"], dead_peer_timeout="9s")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    for principal in (raspi, alice):
        principal.write_config("Port 2222\n")
    before.publish(raspi)
    held = Pipe(alice, "raspi:7")
    before.cut()
    cut = time.monotonic()
    after.publish(raspi)
    back = time.monotonic()
    assert Pipe(alice, "raspi:7").proc.running
    assert time.monotonic() - back < 2 * SLOW
    assert len(sessions(relay, "raspi")) == 2 and held.proc.running
    held.send(b"into the void")
    until(lambda: len(sessions(relay, "raspi")) == 1, 9 - (time.monotonic() - cut) / SLOW + 2, "the dead session gone")
    assert held.proc.wait() != 255, held.proc.err()
    assert Pipe(alice, "raspi:7").proc.running and not relay.logged("refused")


@pytest.mark.parametrize("written", [None, 3, 8], ids=["idle", "early", "late"])
def test_a_dead_device_is_gone_in_time(written, place, make_relay):
    """Whether nothing is on its way when the cable is pulled, or something is sent just before the probes would tell."""
    away = place()
    relay = make_relay(args=["--listen", "0.0.0.0:2222"], dead_peer_timeout="12s")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    for principal in (raspi, alice):
        principal.write_config("Port 2222\n")
    away.publish(raspi)
    held = Pipe(alice, "raspi:7")
    away.cut()
    cut = time.monotonic()
    if written is not None:
        until(lambda: time.monotonic() - cut > written, written + 1)
        held.send(b"anybody there?")
    until(lambda: not sessions(relay, "raspi"), 20, "the dead session gone", every=0.1)
    assert 6 < time.monotonic() - cut < 12.5 * SLOW
    held.proc.wait()
    assert relay.endpoint("raspi:7")["publishers"] == 0


def test_a_dead_device_is_gone_after_45_seconds_by_default(place, make_relay):
    away = place()
    relay = make_relay(args=["--listen", "0.0.0.0:2222"])
    devices, alice = [relay.add_device(name) for name in ("idle", "busy")], relay.add_client("alice")
    for principal in (*devices, alice):
        principal.write_config("Port 2222\n")
    for device in devices:
        away.publish(device)
    held = [Pipe(alice, f"{device.name}:7") for device in devices]
    away.cut()
    cut = time.monotonic()
    while time.monotonic() - cut < 40 and sessions(relay, "busy"):
        if 13 < time.monotonic() - cut:
            held[1].send(b"x")
        time.sleep(0.2)
    assert sessions(relay, "idle"), "too early: a short outage must be survived"
    until(lambda: not sessions(relay, "idle") and not sessions(relay, "busy"), 45 - 40 + 0.5,
          lambda: f"gone after {time.monotonic() - cut:.1f} s", every=0.1)
    for pipe in held:
        pipe.proc.wait()


def test_a_session_keeps_the_timeout_with_which_it_came(make_relay, net, folder):
    """Its kernel answers less and less often while its window is shut: too seldom for those that come now."""
    path = os.path.join(folder, "relayd.conf")
    with open(path, "w") as f:
        f.write("[relayd]\ndead-peer-timeout = 60s\n")
    relay = make_relay(args=["--config", path])
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    device = raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    held = Pipe(alice, "raspi:7")
    device.freeze()
    held.send(bytes(400000))
    with open(path, "w") as f:
        f.write("[relayd]\ndead-peer-timeout = 5s\n")
    assert relay.ctl("reload")["changed"] == ["dead-peer-timeout"]
    reloaded = time.monotonic()
    while time.monotonic() - reloaded < 14:
        assert sessions(relay, "raspi"), relay.logged("closed: ")
        time.sleep(0.5)
    device.thaw()
    assert len(held.proc.stdout.read(400000)) == 400000


# ---- the peer's kernel is alive, the peer says nothing


def deaf(raw):
    """From now on it takes everything and answers nothing, key exchanges included."""
    raw.answers_requests = False
    raw._handler_table = {**raw._handler_table, 20: lambda raw, message: None}
    raw._expected_packet = ()
    return raw


def test_a_stopped_device_is_asked_and_closed(make_relay, net):
    relay = make_relay(open_timeout="1s")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    device = raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    held = Pipe(alice, "raspi:7")
    device.freeze()
    started = time.monotonic()
    done = alice.run("-v", "-W", "raspi:7")
    assert done.returncode == 255 and "open_timeout" in done.stderr
    assert sessions(relay, "raspi"), "it was not given the time to answer"
    until(lambda: not sessions(relay, "raspi"), 20, "the stopped device is gone", every=0.1)
    assert time.monotonic() - started > 15
    closed_log(relay, "raspi", sentence="fell silent")
    held.proc.wait()
    device.thaw()
    assert device.wait() == 255


def test_a_device_stopped_during_an_upload(make_relay, procs):
    """Its kernel has no room for what was sent, so nobody can ask it anything."""
    own_network(procs)
    subprocess.run([*procs.prefix, "sysctl", "-qw", "net.ipv4.tcp_rmem=4096 65536 65536"], check=True)
    procs.spawn([sys.executable, "-c", ECHO.replace("sendall(data)", "fileno()")]).wait_err("^up")
    relay = make_relay(open_timeout="1s", dead_peer_timeout="12s")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    device = raspi.publish("7:localhost:7", expect="raspi:7")
    held, sent = alice.through_W("raspi:7"), [0]

    def upload():
        with contextlib.suppress(OSError):
            while held.stdin.write(bytes(1 << 16)):
                sent[0] += 1

    thread = threading.Thread(target=upload)
    thread.start()
    until(lambda: sent[0] > 100, what="the upload")
    device.freeze()
    stopped = time.monotonic()
    done = alice.run("-v", "-W", "raspi:7")
    assert done.returncode == 255 and "open_timeout" in done.stderr
    assert time.monotonic() - stopped < 5 * SLOW and sessions(relay, "raspi")
    until(lambda: not sessions(relay, "raspi"), 12.5 - (time.monotonic() - stopped) / SLOW, "it is gone", every=0.1)
    closed_log(relay, "raspi", sentence="timed out")
    held.wait()
    thread.join()
    device.thaw()
    assert device.wait() == 255


def test_thousands_of_opens_towards_a_stopped_device_leave_nothing_behind(make_relay, net, attach):  # noqa: F811
    relay = make_relay(open_timeout="1s")
    raspi, mallets = relay.add_device("raspi"), [relay.add_client(f"mallet{i}") for i in range(3)]
    device = raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    attached = [attach(mallet) for mallet in mallets]
    fds = relay.fds()
    device.freeze()
    for round_ in range(1, 6):
        for mallet in attached:
            for _ in range(300):
                mallet.direct(b"raspi", 7)
        until(lambda: all(len(mallet.seen(OPEN_FAILURE)) == 300 * round_ for mallet in attached), 20, "all refused")
    assert bridged(relay, "raspi:7") == 0
    until(lambda: not sessions(relay, "raspi"), 30, "the stopped device is gone", every=0.1)
    assert all(mallet.alive() and len(mallet.seen(OPEN_FAILURE)) == 1500 for mallet in attached)
    assert relay.fds() == fds - 1
    device.thaw()
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    assert Pipe(mallets[0], "raspi:7").proc.running


def test_whoever_owes_an_answer_and_is_silent_is_closed_and_nobody_else(make_relay, attach):  # noqa: F811
    """An open, a CLOSE, a key exchange: each is owed by one peer that is deaf and by one that only is slow."""
    relay = make_relay(open_timeout="1s", rekey_limit="64K")
    client = attach(relay.add_client("client"))

    def device(name):
        raw = attach(relay.add_device(name))
        assert raw.publish(name.encode(), 1) == 1
        return raw

    def joined(raw, name):
        own = client.direct(name.encode(), 1)
        back = raw.confirm(raw.incoming())
        return back, client.opened(own)

    peers = {f"{how}-{what}": device(f"{how}-{what}") for how in ("deaf", "slow") for what in ("open", "close", "none")}
    for how in ("deaf", "slow"):
        client.direct(f"{how}-open".encode(), 1)
        back, stream = joined(peers[f"{how}-close"], f"{how}-close")
        stream.close()
        back.expect(CLOSE)
    rekeyed = peers["deaf-rekey"] = device("deaf-rekey")
    _, stream = joined(rekeyed, "deaf-rekey")
    for name, raw in peers.items():
        if name.startswith("deaf"):
            deaf(raw)
    for _ in range(30):
        stream.send(b"x" * 4000)

    gone = ["deaf-close", "deaf-open", "deaf-rekey"]
    until(lambda: sorted(name for name, raw in peers.items() if not raw.is_active()) == gone, 25,
          lambda: f"only {gone} are gone: {[name for name, raw in peers.items() if not raw.is_active()]}")
    for name in gone:
        closed_log(relay, name, sentence="fell silent")
    assert peers["slow-open"].alive() and peers["slow-close"].alive() and client.alive()
    assert [sessions(relay, name) != [] for name in ("slow-open", "slow-close", "deaf-none")] == [True] * 3
    stream.expect(CLOSE)


def test_any_byte_is_a_sign_of_life(make_relay, attach):  # noqa: F811
    relay = make_relay(open_timeout="1s")
    eve_, mallet_ = attach(relay.add_device("eve")), attach(relay.add_client("mallet"))
    assert eve_.publish(b"eve", 1) == 1
    deaf(eve_)
    own = mallet_.direct(b"eve", 1)
    started = time.monotonic()
    while time.monotonic() - started < 20:
        eve_.put(2, b"")  # SSH_MSG_IGNORE
        time.sleep(2)
    assert mallet_.opened(own) is None and sessions(relay, "eve")
    until(lambda: not sessions(relay, "eve"), 25, "closed once it is silent", every=0.1)


def test_requests_during_a_key_exchange_that_never_ends_fill_no_memory(make_relay, attach):  # noqa: F811
    relay = make_relay(rekey_limit="64K")
    mallet_ = attach(relay.add_client("mallet"))
    deaf(mallet_)
    before, sent = relay.rss(), 0
    with contextlib.suppress(EOFError, OSError):
        while mallet_.is_active() and sent < 1000000:
            with mallet_.one_segment():
                for _ in range(200):
                    mallet_.put(GLOBAL_REQUEST, "no-such@request", True)
            sent += 200
    assert sent < 1000000
    closed_log(relay, "mallet", sentence="key exchange")
    assert sanitized() or relay.rss() - before < 32 << 10
