"""Limits of bytes: rates that slow one and no other, and what waits in bridges."""

import threading
import time

import pytest

from net import pattern, pattern_blocks, pattern_sha, read_exact, sha
from procs import SLOW, until
from test_limits import limit, row, used, wait_used

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture
def relay(make_relay):
    return make_relay(workers=1)


@pytest.fixture
def services(relay, raspi, net):
    """raspi:9 reads all and answers with count and hash, raspi:8 sends 4 MiB, raspi:7 is an echo."""
    raspi.publish(f"9:localhost:{net.sink().port}", f"8:localhost:{net.source(4 * MIB).port}",
                  f"7:localhost:{net.echo().port}", expect=["raspi:9", "raspi:8", "raspi:7"])


class Upload(threading.Thread):
    """Sends through a local port to a sink; `took` is how long until the sink's answer was there."""

    def __init__(self, net, port, size, seed=0):
        super().__init__(daemon=True)
        self.sock, self.size, self.seed = net.connect(port, timeout=120), size, seed
        self.answer = self.took = None
        self.start()

    def run(self):
        try:
            self.send()
        except OSError:
            pass  # the test is over

    def send(self):
        began = time.monotonic()
        for piece in pattern_blocks(self.size, self.seed):
            self.sock.sendall(piece)
        self.sock.shutdown(1)
        answer = self.sock.recv(200)
        self.took = time.monotonic() - began
        self.answer = answer

    def wait(self, timeout=60):
        until(lambda: self.answer is not None, timeout, "the upload to end")
        assert self.answer.decode().split() == [str(self.size), pattern_sha(self.size, self.seed)]
        return self.took


@pytest.mark.parametrize("principal", ["alice", "raspi", None])
def test_a_rate_is_held(relay, services, alice, net, principal):
    """A bucket is full at first: n seconds' worth cannot pass in less than n - 1 seconds."""
    rate = MIB // 2
    limit(relay, "bytes-up", "512K", principal)
    _, (port,) = alice.local("raspi:9")
    upload = Upload(net, port, 4 * rate)
    seen = []
    while upload.answer is None:
        seen.append(used(relay, "bytes-up", principal))
        time.sleep(0.1)
    assert 3 <= upload.wait() < 3 + 6 * SLOW
    assert max(seen) <= 2 * rate + 64 * KIB, "a full bucket and what comes in meanwhile, by relayd's own clock"
    assert rate / 2 < sorted(seen)[len(seen) // 2] <= rate + 64 * KIB, seen


def test_the_other_direction_has_its_own(relay, services, alice, net):
    limit(relay, "bytes-down", "1M", "raspi")
    _, (up, down) = alice.local("raspi:9", "raspi:8")
    Upload(net, up, 64 * MIB).wait(20)
    began = time.monotonic()
    assert sha(read_exact(net.connect(down), 4 * MIB)) == pattern_sha(4 * MIB)
    assert time.monotonic() - began >= 3


def test_a_shaped_client_slows_nobody_else(relay, services, alice, net):
    """bob's bridges end at the same device session; carol's tenant shares the worker."""
    bob = relay.add_client("bob")
    relay.add_tenant("acme")
    cam, carol = relay.add_device("cam", tenant="acme"), relay.add_client("carol", tenant="acme")
    cam.publish(f"9:localhost:{net.sink().port}", expect="cam:9")
    limit(relay, "bytes-up", "128K", "alice")
    _, (slow,) = alice.local("raspi:9")
    _, (quick,) = bob.local("raspi:9")
    _, (far,) = carol.local("cam:9")
    shaped = Upload(net, slow, 4 * MIB)
    until(lambda: used(relay, "held", "alice") > 256 * KIB, what="alice is held up")
    Upload(net, quick, 32 * MIB).wait()
    Upload(net, far, 32 * MIB).wait()
    assert shaped.answer is None, "alice was as quick"
    [bridge] = relay.list("bridges")
    assert bridge["client"] == "alice" and bridge["bytes_up"] < 4 * MIB, "its source waits"
    limit(relay, "bytes-up", "none", "alice")
    shaped.wait(20)


def test_a_shaped_tenant_slows_no_other(relay, services, alice, net):
    relay.add_tenant("acme")
    cam, carol = relay.add_device("cam", tenant="acme"), relay.add_client("carol", tenant="acme")
    cam.publish(f"9:localhost:{net.sink().port}", expect="cam:9")
    limit(relay, "bytes-up", "64K", tenant="acme")
    _, (slow,) = carol.local("cam:9")
    _, (quick,) = alice.local("raspi:9")
    shaped = Upload(net, slow, 4 * MIB)
    until(lambda: used(relay, "held", tenant="acme") > 256 * KIB, what="carol is held up")
    Upload(net, quick, 64 * MIB).wait()
    assert shaped.answer is None


def test_bridges_that_share_a_rate_take_turns(relay, raspi, alice, net):
    delivered = {}

    def count(conn, _):
        delivered[conn] = 0
        while data := conn.recv(4096):
            delivered[conn] += len(data)
        conn.sendall(b"%d -" % delivered[conn])

    raspi.publish(f"9:localhost:{net.serve(count).port}", expect="raspi:9")
    limit(relay, "bytes-up", "256K", "alice")
    _, (port,) = alice.local("raspi:9")
    uploads = [Upload(net, port, 4 * MIB) for _ in range(4)]
    until(lambda: len(delivered) == 4 and min(delivered.values()) > 0, what="all four have begun")
    before = dict(delivered)
    until(lambda: sum(delivered.values()) - sum(before.values()) > MIB, 60, "a MiB more")
    least, *_, most = sorted(delivered[conn] - before[conn] for conn in before)
    assert most < 1.5 * least, (least, most)
    limit(relay, "bytes-up", "none", "alice")
    until(lambda: all(upload.answer == b"%d -" % (4 * MIB) for upload in uploads), what="the ends")


def test_a_shaped_bridge_sleeps(relay, raspi, alice, net):
    """Waiting for its turn in both directions must not keep the worker busy."""

    def both_ways(conn, _):
        conn.sendall(pattern(4 * MIB))
        while conn.recv(4096):
            pass

    raspi.publish(f"8:localhost:{net.serve(both_ways).port}", expect="raspi:8")
    limit(relay, "bytes-up", 1, "alice")
    limit(relay, "bytes-down", 1, "alice")
    _, (port,) = alice.local("raspi:8")
    sock = net.connect(port)
    sock.sendall(pattern(100 * KIB))
    until(lambda: used(relay, "held") > 600 * KIB, what="it is held up, both ways")

    def cpu():
        with open(f"/proc/{relay.pid}/stat") as f:
            fields = f.read().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = cpu()
    time.sleep(2)
    assert cpu() - before < 50, "hundredths of a second"
    limit(relay, "bytes-down", "default", "alice")
    assert sha(read_exact(sock, 4 * MIB)) == pattern_sha(4 * MIB)


def test_another_rate_holds_at_once_for_who_waits(relay, services, alice, net):
    """At a byte a second the last of 60 bridges waits a minute for its turn."""
    limit(relay, "bytes-up", 1, "alice")
    _, (port,) = alice.local("raspi:7")
    socks = [net.connect(port) for _ in range(60)]
    for sock in socks:
        sock.sendall(b"hello")
    until(lambda: used(relay, "held", "alice") > 250, what="they wait")
    began = time.monotonic()
    limit(relay, "bytes-up", "none", "alice")
    assert all(read_exact(sock, 5) == b"hello" for sock in socks)
    assert time.monotonic() - began < 30


def test_what_a_shaped_client_left_behind_goes_with_its_right(relay, services, alice, net):
    limit(relay, "bytes-up", "1K", "alice")
    ssh, (port,) = alice.local("raspi:9")
    net.connect(port).sendall(pattern(64 * KIB))
    until(lambda: used(relay, "held", "alice") > 32 * KIB, what="it waits")
    ssh.kill()
    wait_used(relay, "sessions", 0, "alice")
    [bridge] = relay.list("bridges")
    assert bridge["client_session"] == 0 and used(relay, "bridges", "alice") == 1 and used(relay, "held") > 0
    assert relay.ctl("remove-client", "alice")["closed"] == {"sessions": 0, "bridges": 1}
    assert relay.list("bridges") == [] and used(relay, "held") == used(relay, "bridges") == 0


def test_who_leaves_owes_nothing(relay, services, alice, net):
    """Bridges that wait for their turn and are cut off leave no debt to the next."""
    limit(relay, "bytes-up", "16K")
    _, (port,) = alice.local("raspi:9")
    socks = [net.connect(port) for _ in range(50)]
    for sock in socks:
        sock.sendall(pattern(64 * KIB))
    relay.wait_bridges(50)
    until(lambda: used(relay, "held") > 2 * MIB, what="all of them wait")
    relay.ctl("disallow", "alice", "*")
    relay.ctl("allow", "alice", "*")
    Upload(net, port, 1).wait(2)


def test_a_command_is_not_slowed_by_much(relay, services, alice, net):
    """A rate that is not used up delays nothing."""
    limit(relay, "bytes-up", "64K", "alice")
    for _ in range(5):
        assert alice.through_W("raspi:7").finish(b"hello", timeout=5) == (0, b"hello")


# -- bytes held


def stalled(relay, net, count, port):
    """Bridges to a service that reads nothing, each filled until its source has to wait."""
    socks = [net.connect(port) for _ in range(count)]
    for sock in socks:
        sock.settimeout(0.3)
        try:
            for piece in pattern_blocks(16 * MIB):
                sock.sendall(piece)
        except TimeoutError:
            pass
    relay.wait_bridges(count)
    return socks


@pytest.mark.parametrize("principal", ["alice", "raspi", None])
def test_who_holds_too_much_takes_little_and_loses_nothing(relay, services, raspi, alice, net, principal):
    stop = threading.Event()
    lazy = net.serve(lambda conn, _: stop.wait(60 * SLOW))
    raspi.publish(f"10:localhost:{lazy.port}", expect="raspi:10")
    limit(relay, "held", "256K", principal)
    _, (full, echo, sink) = alice.local("raspi:10", "raspi:7", "raspi:9")
    socks = stalled(relay, net, 8, full)
    row_ = row(relay, "held", principal)
    assert row_["used"] > row_["value"] == 256 * KIB

    def helds():
        return sorted((bridge["held"] for bridge in relay.list("bridges")), reverse=True)

    # What is under way still comes; then the two agree.
    until(lambda: used(relay, "held", principal) == sum(helds()), what=lambda: f"it is charged what is held: {helds()}")
    # The first fills its queue; of the others each takes a little, and then what one window lets come.
    bounds = [512 * KIB + 2 * MIB + 64 * KIB] + 7 * [16 * KIB + 2 * MIB + 64 * KIB]
    assert all(held <= bound for held, bound in zip(helds(), bounds)), helds()

    Upload(net, sink, 8 * MIB, seed=3).wait()
    there = net.connect(echo)
    there.settimeout(20 * SLOW)
    threading.Thread(target=there.sendall, args=(pattern(4 * MIB),), daemon=True).start()
    assert read_exact(there, 4 * MIB) == pattern(4 * MIB), "both ways at once"
    stop.set()
    for sock in [*socks, there]:
        sock.close()
    wait_used(relay, "held", 0, principal)


def test_with_nothing_to_hold_all_bytes_still_arrive(relay, services, alice, net):
    for name in ("alice", "raspi", None):
        limit(relay, "held", 0, name)
    _, (up, down) = alice.local("raspi:9", "raspi:8")
    uploads = [Upload(net, up, 4 * MIB, seed) for seed in range(4)]
    assert sha(read_exact(net.connect(down), 4 * MIB)) == pattern_sha(4 * MIB)
    for upload in uploads:
        upload.wait()
    wait_used(relay, "held", 0)
