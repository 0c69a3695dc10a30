"""Ends that are stalled, gone or flooding: nothing spins, nothing sticks, nothing grows."""

import contextlib
import os
import socket
import threading
import time

import pytest
from hostile import (  # noqa: F401
    CLOSE, DATA, GLOBAL_REQUEST, OPEN, OPEN_FAILURE, REQUEST_SUCCESS, WINDOW_ADJUST, attach, bridge, bridged,
    bystanders, closed_log, eve, mallet)
from procs import SLOW, until
from relay import sanitized

TICKS = os.sysconf("SC_CLK_TCK")


def cpu(relay):
    """CPU time that relayd has used, in seconds."""
    with open(f"/proc/{relay.pid}/stat") as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


# ---- stalled bridges


@pytest.mark.parametrize("command", [["disconnect", "nobody"], ["allow", "other", "x"], ["allow", "mallet", "x"]],
                         ids=["disconnect", "allow", "allow-itself"])
def test_a_client_may_leave_while_the_device_has_not_taken_its_data(command, relay, eve, mallet):  # noqa: F811
    """What the client has sent still waits for the device; its session is no more, and nobody may look at it."""
    relay.add_client("other")
    back, stream = bridge(eve, mallet, window=0)
    stream.send(b"x" * 20000)
    stream.close()
    stream.expect(CLOSE)
    mallet.close()
    closed_log(relay, "mallet")
    assert [row["endpoint"] for row in relay.list("bridges")] == ["eve:1"]
    done = relay.ctl(*command, check=False)
    assert done.returncode == (1 if command[0] == "disconnect" else 0), done
    assert eve.alive() and relay.running
    if command[1] == "mallet":
        return  # whether it is cut with a change of its client is the relay's own decision
    eve.put(WINDOW_ADJUST, back.peer, 100000)
    assert back.read(20000) == b"x" * 20000
    back.expect(CLOSE)
    back.close()
    relay.wait_bridges(0)


def test_a_bridge_that_is_stalled_both_ways_costs_no_cpu_time(relay, eve, mallet):  # noqa: F811
    own = mallet.direct(b"eve", 1, window=0)
    back = eve.confirm(eve.incoming(), window=0)
    stream = mallet.opened(own)
    stream.send(b"up" * 5000)
    back.send(b"down" * 5000)

    def queued():
        (row,) = relay.list("bridges")
        return row["held"] >= 30000
    until(queued, what=lambda: f"data queued both ways: {relay.list('bridges')}")
    before, started = cpu(relay), time.monotonic()
    while time.monotonic() - started < 1:  # not one that polls relayd
        time.sleep(0.05)
    used = cpu(relay) - before
    assert used < 0.3 or SLOW > 1, f"{used:.2f} s of CPU time in a second"
    mallet.put(WINDOW_ADJUST, stream.peer, 20000)
    eve.put(WINDOW_ADJUST, back.peer, 10000)
    assert back.read(10000) == b"up" * 5000 and stream.read(20000) == b"down" * 5000
    stream.send(b"more")
    eve.put(WINDOW_ADJUST, back.peer, 4)
    assert back.read(4) == b"more"


def test_a_stream_goes_on_when_something_else_has_emptied_the_socket(make_relay, attach):  # noqa: F811
    """relayd holds data back while the device's socket is full. An open of another client, too, may find room in it and
    write out what waited: there is no event for that, and the stream must go on all the same. The room must come about
    between two looks at the socket, so it is tried many times."""
    relay = make_relay(open_timeout="60s")
    eve_, mallet_, other = (attach(p) for p in (relay.add_device("eve"), relay.add_client("mallet"),
                                                relay.add_client("other")))
    assert eve_.publish(b"eve", 1) == 1
    eve_.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
    own = mallet_.direct(b"eve", 1)
    eve_.confirm(eve_.incoming(), window=0xfffffff0)
    stream = mallet_.opened(own)
    got, window, moved, stop = [0], [32000], threading.Condition(), threading.Event()
    deliver = eve_._arrived

    def at_device(kind, message):
        if kind == DATA:
            got[0] += len(message.asbytes()) - 8
        elif kind != OPEN:
            deliver(kind, message)

    def at_client(kind, message):
        if kind == WINDOW_ADJUST:
            with moved:
                window[0] += int.from_bytes(message.asbytes()[4:8], "big")
                moved.notify()

    eve_._arrived, mallet_._arrived, other._arrived = at_device, at_client, lambda *_: None

    def pump():
        with contextlib.suppress(EOFError, OSError):
            while not stop.is_set():
                with moved:
                    if not moved.wait_for(lambda: window[0] >= 16000, 0.2):
                        continue
                    window[0] -= 16000
                stream.send(b"x" * 16000)

    def opens():
        with contextlib.suppress(EOFError, OSError):
            for _ in range(950):  # the device answers none: below the limit of its channels
                other.direct(b"eve", 1)
                if stop.wait(0.002):
                    return

    threads = [threading.Thread(target=pump), threading.Thread(target=opens)]
    for thread in threads:
        thread.start()
    try:
        while threads[1].is_alive():
            before = got[0]
            until(lambda: got[0] > before, 3, lambda: f"progress; stuck after {got[0]} bytes: {relay.list('bridges')}")
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


# ---- floods


def watched(relay, job):
    """Runs job() and returns by how much relayd's resident memory was above what it is now, in KiB."""
    before, peak, stop = relay.rss(), [0], threading.Event()

    def watch():
        while not stop.wait(0.02):
            peak[0] = max(peak[0], relay.rss())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        job()
    finally:
        stop.set()
        thread.join()
    return peak[0] - before


def test_a_flood_of_refused_opens_does_not_pile_up(relay, bystanders, mallet):  # noqa: F811
    """They come faster than they can be refused; but never so many that a slow reader here would be ended for that."""
    count, ahead, answers = 200000, 5000, [0]

    def arrived(kind, _):
        answers[0] += kind == OPEN_FAILURE

    mallet._arrived = arrived

    def flood():
        for i in range(count // 500):
            until(lambda: i * 500 - answers[0] < ahead, 60, lambda: f"answers to {i * 500} opens; have {answers[0]}")
            with mallet.one_segment():
                for _ in range(500):
                    mallet.direct(b"no", 1)
            if i % 100 == 50:
                assert bystanders.fine()
        until(lambda: answers[0] == count, 60, lambda: f"{count} refusals; have {answers[0]}")

    grown = watched(relay, flood)
    assert sanitized() or grown < 32 << 10, f"it grew by {grown} KiB"
    assert bystanders.fine()


def test_a_peer_that_asks_and_never_reads_is_ended(relay, bystanders, mallet):  # noqa: F811
    mallet.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
    released = threading.Event()
    mallet._arrived = lambda *_: released.wait()  # paramiko's thread reads no more

    def flood():
        with contextlib.suppress(EOFError, OSError):
            for _ in range(1500):
                with mallet.one_segment():
                    for _ in range(200):
                        mallet.put(GLOBAL_REQUEST, "keepalive@openssh.com", True)
            raise AssertionError("300000 requests were taken, and no answer read")

    try:
        grown = watched(relay, flood)
        closed_log(relay, "mallet")
    finally:
        released.set()
    assert sanitized() or grown < 32 << 10, f"it grew by {grown} KiB"
    assert bystanders.fine()


def test_many_free_ports_are_distinct_and_found_without_a_long_search(relay, attach):  # noqa: F811
    device = relay.add_device("raspi")
    ports, costs = [], []
    for _ in range(8):
        session, before = attach(device), cpu(relay)
        for _ in range(1000):
            session.put(GLOBAL_REQUEST, "tcpip-forward", True, b"raspi", 0)
        for _ in range(1000):
            ports.append(session.expect(REQUEST_SUCCESS, timeout=30)[1].get_int())
        costs.append(cpu(relay) - before)
    assert len(set(ports)) == 8000 and min(ports) >= 49152 and max(ports) < 65536
    relay.add_tenant("acme")  # the rows of so many names do not hold an administrator up
    # if every search began at the first port, the last thousand would look at millions of ports
    assert costs[-1] < 2 * costs[0] + 0.2, costs
