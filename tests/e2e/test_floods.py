"""Peers that send too much of something: each session is bounded, and the others go on."""

import contextlib
import random
import re

import pytest
from hostile import (  # noqa: F401
    CLOSE, GLOBAL_REQUEST, OPEN_FAILURE, REQUEST_FAILURE, REQUEST_SUCCESS, WINDOW_ADJUST, attach, bridge, bridged,
    bystanders, closed_log, eve, mallet)
from procs import until
from relay import sanitized


def test_refused_publishes_cost_no_memory(relay, bystanders, mallet, eve):
    def flood(count):
        for i in range(count):
            for peer in (eve, mallet):
                peer.put(GLOBAL_REQUEST, "tcpip-forward", True, b"%04d" % i + b"n" * 996, 80)
            if i % 100 == 99:
                for peer in (eve, mallet):
                    for _ in range(100):
                        assert peer.expect(REQUEST_SUCCESS, REQUEST_FAILURE)[0] == REQUEST_FAILURE

    flood(300)
    before = relay.rss()
    flood(2500)
    assert sanitized() or relay.rss() - before < 1536, f"it grew by {relay.rss() - before} KiB"
    assert len(relay.list("endpoints")) == 2 and bystanders.fine()


@pytest.mark.parametrize("what", ["connect", "publish"])
def test_a_flood_of_refusals_is_no_flood_of_log_lines(what, relay, bystanders, mallet):
    count, code = 10000, "not_reachable" if what == "connect" else "not_device"
    for i in range(count // 200):
        with mallet.one_segment():
            for _ in range(200):
                if what == "connect":
                    mallet.direct(f"no{i}".encode(), 1)
                else:
                    mallet.put(GLOBAL_REQUEST, "tcpip-forward", True, f"no{i}", 80)
        if i == 25:
            assert bystanders.fine()

    def told():
        single = len(relay.logged(rf'principal=mallet session=\d+ refused {what} ".*": {code}: '))
        lines = relay.logged(rf"principal=mallet session=\d+ refused {what} \d+ more times: {code}: ")
        return single + sum(int(re.search(r" (\d+) more times", line)[1]) for line in lines)

    until(lambda: told() == count, 30, lambda: f"{count} refusals; the log tells of {told()}")
    assert len(relay.logged("principal=mallet")) < 500
    assert mallet.alive() and bystanders.fine()


def test_endpoints_of_one_session_are_bounded(relay, bystanders, eve):
    for base in range(0, 1500, 100):
        for i in range(base, base + 100):
            eve.put(GLOBAL_REQUEST, "tcpip-forward", True, f"n{i}.eve", 80)
    answers = [eve.expect(REQUEST_SUCCESS, REQUEST_FAILURE, timeout=30)[0] for _ in range(1500)]
    accepted = answers.count(REQUEST_SUCCESS)
    assert 100 <= accepted <= 1000 and answers == [REQUEST_SUCCESS] * accepted + [REQUEST_FAILURE] * (1500 - accepted)
    relay.wait_log(r'principal=eve session=\d+ refused publish ".*": too_many_published: ')
    assert bystanders.fine()
    # withdrawing makes room
    assert eve.ask("cancel-tcpip-forward", b"n0.eve", 80)[0] and eve.publish(b"again.eve", 80) == 80


def test_global_requests_are_answered_in_order(bystanders, eve):
    chance, expected = random.Random(3), []
    for round_ in range(20):
        with eve.one_segment():
            for i in range(100):
                name = f"n{round_}-{i}.eve".encode()
                kind = chance.choice(["port", "zero", "bad", "unknown", "keepalive", "silent", "foreign"])
                if kind == "port":
                    eve.put(GLOBAL_REQUEST, "tcpip-forward", True, name, 80)
                    eve.put(GLOBAL_REQUEST, "cancel-tcpip-forward", True, name, 80)
                    expected += [(REQUEST_SUCCESS, 0), (REQUEST_SUCCESS, 0)]
                elif kind == "zero":
                    eve.put(GLOBAL_REQUEST, "tcpip-forward", True, name, 0)
                    expected.append((REQUEST_SUCCESS, 4))
                elif kind in ("bad", "foreign"):
                    eve.put(GLOBAL_REQUEST, "tcpip-forward", True, b"a..b" if kind == "bad" else b"good", 80)
                    expected.append((REQUEST_FAILURE, 0))
                elif kind == "unknown":
                    eve.put(GLOBAL_REQUEST, "no-such@request", True, b"x")
                    expected.append((REQUEST_FAILURE, 0))
                else:
                    eve.put(GLOBAL_REQUEST, "keepalive@openssh.com", kind == "keepalive")
                    expected += [(None, 0)] if kind == "keepalive" else []
        while expected:
            (kind, size), (answer, message) = expected.pop(0), eve.expect(REQUEST_SUCCESS, REQUEST_FAILURE)
            assert kind in (None, answer) and len(message.asbytes()) == size, (kind, answer, message.asbytes())
    assert bystanders.fine()


def test_a_flood_of_keepalives_holds_up_nobody(bystanders, mallet):
    for _ in range(50):
        with mallet.one_segment():
            for _ in range(400):
                mallet.put(GLOBAL_REQUEST, "keepalive@openssh.com", True)
    assert bystanders.fine()
    for _ in range(50 * 400):
        mallet.expect(REQUEST_SUCCESS, REQUEST_FAILURE, timeout=30)
    assert mallet.alive()


def test_channels_of_one_session_are_bounded(relay, bystanders, mallet):
    owns = [mallet.open("session") for _ in range(3000)]
    streams = [mallet.opened(own, timeout=60) for own in owns]
    opened = [stream for stream in streams if stream is not None]
    assert 100 <= len(opened) <= 1000
    relay.wait_log(r'principal=mallet session=\d+ refused channel "session": too_many_channels: ')
    relay.wait_log(r"principal=mallet session=\d+ refused channel \d+ more times: too_many_channels: ")
    assert mallet.connect(b"good", 7) is None
    relay.wait_log(r'principal=mallet session=\d+ refused connect "good:7": too_many_channels: ')
    assert bystanders.fine()
    for stream in opened:
        stream.close()
    for stream in opened:
        stream.expect(CLOSE, timeout=30)
    assert mallet.connect(b"good", 7).echoes(), "room was not made by closing"


def test_opens_that_wait_for_a_device_are_bounded(relay, bystanders, eve, mallet):
    owns = [mallet.direct(b"eve", 1) for _ in range(3000)]
    waiting = 500  # half of the device's channels: the others are left to others
    until(lambda: len(mallet.seen(OPEN_FAILURE)) == len(owns) - waiting, what="all but the first 500 refused")
    relay.wait_log('refused connect "eve:1": too_many_channels: ')
    assert bystanders.fine()
    mallet.close()
    closed_log(relay, "mallet")
    confirmed = [eve.confirm(eve.incoming()) for _ in range(waiting)]
    for stream in confirmed:
        stream.expect(CLOSE)
        stream.close()
    assert eve.alive() and bridged(relay) == 0


@pytest.mark.parametrize("packet", [0, 1])
def test_opens_with_a_tiny_maximum_packet_do_no_harm(packet, bystanders, mallet):
    with contextlib.suppress(EOFError):
        for _ in range(300):
            own = mallet.direct(b"good", 7, packet=packet)
        if packet == 1:
            stream = mallet.opened(own)
            for _ in range(20):
                stream.send(b"x" * 10000)
    assert bystanders.fine()


def test_a_peer_that_ignores_the_window_fills_no_memory(relay, bystanders, eve, mallet):
    before = relay.rss()
    _, stream = bridge(eve, mallet, window=0)
    with contextlib.suppress(EOFError):
        for _ in range(1500):
            stream.send(b"x" * 32000)
    assert bystanders.fine()
    assert sanitized() or relay.rss() - before < 8 * 1024


def test_window_adjusts_beyond_all_bounds(relay, bystanders, eve, mallet):
    _, stream = bridge(eve, mallet)
    with contextlib.suppress(EOFError):
        for _ in range(5):
            mallet.put(WINDOW_ADJUST, stream.peer, 0xffffffff)
        mallet.put(WINDOW_ADJUST, 4711, 1)
    mallet.wait_end()
    closed_log(relay, "mallet")
    assert eve.alive() and bystanders.fine()
