"""A program that stops reading: back-pressure reaches the sender, relayd's memory stays flat, others go on."""

import hashlib
import os
import threading
import time

import pytest

from net import CHUNK, echoes, pattern_blocks, pattern_sha
from procs import SLOW
from relay import sanitized

MIB = 1 << 20
GROWTH_KIB = 4 * 1024
ON_THE_WAY = 64 * MIB  # more than all windows and socket buffers between the two programs


class Reader:
    """Reads a socket to EOF, but rests while `resting` is set; keeps count and hash."""

    def __init__(self, rest_after):
        self.digest, self.count, self.rest_after = hashlib.sha256(), 0, rest_after
        self.resting, self.go_on = threading.Event(), threading.Event()

    def read(self, sock):
        while data := sock.recv(CHUNK):
            self.digest.update(data)
            self.count += len(data)
            if self.count >= self.rest_after and not self.go_on.is_set():
                self.resting.set()
                self.go_on.wait(120 * SLOW)
        return self.count, self.digest.hexdigest()


class Sender:
    def __init__(self, size):
        self.size, self.sent = size, 0

    def send(self, sock):
        for piece in pattern_blocks(self.size, seed=1):
            view = memoryview(piece)
            while view:
                done = sock.send(view[:CHUNK])
                self.sent += done
                view = view[done:]
        sock.shutdown(1)


def transfer(net, port, box, sender, reader, towards):
    """Run one transfer in threads; returns a function that waits for it and gives (count, hash)."""
    box.update(sender=sender, reader=reader, towards=towards, result=None)
    box["done"] = threading.Event()
    sock = net.connect(port, timeout=120)

    def client():
        with sock:
            if towards == "device":
                sender.send(sock)
                sock.recv(1)
            else:
                box["result"] = reader.read(sock)
                box["done"].set()

    threading.Thread(target=client, daemon=True).start()

    def result():
        assert box["done"].wait(120 * SLOW), f"{sender.sent} sent, {reader.count} read"
        return box["result"]

    return result


@pytest.mark.parametrize("towards", ["device", "client"])
def test_reader_that_stops_for_10_s(relay, net, towards):
    """The readers are programs behind ssh: their ssh goes on reading, so only SSH's windows can stop the flow."""
    measure = not sanitized()
    size, rest = (1024 * MIB, 10) if measure else (192 * MIB, 3)
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    box = {}

    def service(conn, _):
        conn.settimeout(120 * SLOW)
        if box["towards"] == "device":
            box["result"] = box["reader"].read(conn)
            box["done"].set()
        else:
            box["sender"].send(conn)

    raspi.publish(f"9:localhost:{net.serve(service).port}", f"7:localhost:{net.echo().port}",
                  expect=["raspi:9", "raspi:7"])
    _, (bulk, echo) = alice.local("raspi:9", "raspi:7")
    other = net.connect(echo)
    assert echoes(other)

    warm = 64 * MIB if measure else 8 * MIB
    result = transfer(net, bulk, box, Sender(warm), Reader(rest_after=warm * 2), towards)
    assert result() == (warm, pattern_sha(warm, seed=1))
    relay.wait_bridges(1)
    base = peak = relay.rss()

    sender, reader = Sender(size), Reader(rest_after=size // 4)
    result = transfer(net, bulk, box, sender, reader, towards)
    assert reader.resting.wait(120 * SLOW), reader.count
    began, trips = time.monotonic(), 0
    while time.monotonic() - began < rest:
        assert echoes(other, os.urandom(1000))
        assert echoes(net.connect(echo), b"a new bridge of the same two sessions")
        trips += 1
        peak = max(peak, relay.rss())
        time.sleep(0.05)
    assert trips > rest / SLOW
    assert sender.sent - reader.count < ON_THE_WAY, "the sender was not stopped"
    [held] = [row["held"] for row in relay.list("bridges") if row["endpoint"] == "raspi:9"]
    assert 0 < held <= MIB // 2 + 2 * MIB, "the bridge's own bound and one window"

    reader.go_on.set()
    while not box["done"].wait(0.1) and time.monotonic() - began < 120 * SLOW:
        peak = max(peak, relay.rss())
        assert echoes(other)
    assert result() == (size, pattern_sha(size, seed=1))
    assert echoes(other)
    if measure:
        peak = max(peak, relay.rss())
        assert peak - base < GROWTH_KIB, f"resident memory grew from {base} to {peak} KiB"


def test_many_stalled_bridges_do_not_stop_the_session(relay, net):
    """20 bridges of one session whose readers never read; the 21st works, and ends of the stalled ones are noticed."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    stop = threading.Event()
    stalled = net.serve(lambda conn, _: stop.wait(60 * SLOW))
    raspi.publish(f"9:localhost:{stalled.port}", f"7:localhost:{net.echo().port}", expect=["raspi:9", "raspi:7"])
    _, (bulk, echo) = alice.local("raspi:9", "raspi:7")
    socks = [net.connect(bulk) for _ in range(20)]
    for sock in socks:
        sock.settimeout(0.2)
        try:
            for piece in pattern_blocks(8 * MIB):
                sock.sendall(piece)
        except TimeoutError:
            pass
    relay.wait_bridges(20)
    assert echoes(net.connect(echo), b"the 21st")
    stop.set()
    for sock in socks:
        sock.close()
    relay.wait_bridges(1, timeout=20)
    assert echoes(net.connect(echo), b"and after")
