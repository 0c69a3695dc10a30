"""Peers that break the protocol, stall or vanish: it costs them their session at most, and nobody else anything."""

import contextlib
import random
import re
import socket
import time

import paramiko
import pytest
from hostile import (  # noqa: F401
    CLOSE, CONFIRMATION, DATA, EOF, EXTENDED_DATA, GLOBAL_REQUEST, OPEN, OPEN_FAILURE, REQUEST, REQUEST_FAILURE,
    REQUEST_SUCCESS, WINDOW_ADJUST, Bystanders, attach, bridge, bridged, bystanders, closed_log, eve, mallet)
from procs import SLOW, until
from relay import sanitized

# ---- answers of a device


@pytest.mark.parametrize("packet", [0, 1, 32768])
def test_a_second_confirmation_ends_the_session(packet, relay, bystanders, eve, mallet):
    before = relay.rss()
    back, stream = bridge(eve, mallet)
    stream.send(b"x")
    assert back.read(1) == b"x"
    eve.put(CONFIRMATION, back.peer, back.own, 1 << 21, packet)
    eve.wait_end()
    closed_log(relay, "eve")
    stream.expect(CLOSE)
    assert bystanders.fine() and mallet.alive()
    assert sanitized() or relay.rss() - before < 16 * 1024


def test_a_confirmation_with_maximum_packet_0_ends_the_session(relay, bystanders, eve, mallet):
    own = mallet.direct(b"eve", 1)
    eve.confirm(eve.incoming(), packet=0)
    eve.wait_end()
    assert mallet.opened(own) is None
    relay.wait_log('refused connect "eve:1": (device_gone|open_refused): ')
    assert bystanders.fine() and mallet.alive()


@pytest.mark.parametrize("number", [0, 77, 0xffffffff])
def test_a_confirmation_of_nothing_harms_nobody(number, relay, bystanders, eve):
    eve.put(CONFIRMATION, number, 1, 1 << 21, 0)
    eve.put(OPEN_FAILURE, number, 1, "x" * 3000, "")
    assert bystanders.fine()


@pytest.mark.parametrize("packet", [1, 10])
def test_a_tiny_maximum_packet_costs_the_device_its_session(packet, relay, bystanders, eve, mallet):
    before = relay.rss()
    _, stream = bridge(eve, mallet, packet=packet)
    with contextlib.suppress(EOFError):
        for _ in range(8):
            stream.send(b"x" * 32000)
    eve.wait_end()
    closed_log(relay, "eve", sentence="maximum packet")
    assert bystanders.fine() and mallet.alive()
    assert sanitized() or relay.rss() - before < 24 * 1024


def test_a_tiny_maximum_packet_is_found_out_while_the_device_sends(relay, bystanders, eve, mallet):
    """relayd reads while it writes: what comes in meanwhile is no excuse for a packet of every byte."""
    back, stream = bridge(eve, mallet, window=0, packet=1)
    stream.send(b"x" * 30000)
    assert mallet.alive()
    with eve.kept() as parts:
        for i in range(320):
            if i == 64:
                eve.put(WINDOW_ADJUST, back.peer, 1 << 20)
            eve.put(2, b"y" * 32000)
    with contextlib.suppress(EOFError, OSError):
        eve.packetizer.write_all(b"".join(parts))
    eve.wait_end()
    closed_log(relay, "eve", sentence="maximum packet")
    assert 0 < len(eve.seen(DATA)) <= 300
    assert bystanders.fine() and mallet.alive()


def test_an_open_that_the_device_never_answers_is_refused_in_time(make_relay, net, attach):
    relay = make_relay(open_timeout="1s")
    bystanders = Bystanders(relay, net)
    alice = relay.add_client("alice")
    eve, mallet = attach(relay.add_device("eve")), attach(alice)
    assert eve.publish(b"eve", 1) == 1
    started = time.monotonic()
    owns = [mallet.direct(b"eve", 1) for _ in range(5)]
    late = [eve.incoming() for _ in owns]
    assert [mallet.opened(own) for own in owns] == [None] * 5
    assert 0.9 < time.monotonic() - started < 8 * SLOW
    until(lambda: len(relay.logged('refused connect "eve:1": open_timeout: ')) == 5, what="five reasons")
    done = alice.run("-v", "-W", "eve:1")
    assert done.returncode == 255 and "open_timeout" in done.stderr
    late.append(eve.incoming())
    for incoming in late:  # the answer comes after all: closed, not left open for ever
        stream = eve.confirm(incoming)
        stream.expect(CLOSE)
        stream.close()
    assert eve.alive() and bridged(relay) == 0
    back, stream = bridge(eve, mallet)
    stream.send(b"now")
    assert back.read(3) == b"now" and bystanders.fine()


def test_close_for_a_channel_that_was_never_confirmed_ends_the_session(relay, bystanders, eve, mallet):
    own = mallet.direct(b"eve", 1)
    eve.put(CLOSE, eve.incoming().peer)
    eve.wait_end()
    assert mallet.opened(own) is None and mallet.alive()
    assert bystanders.fine()


@pytest.mark.parametrize("end", ["EOF", "EOF CLOSE", "CLOSE"])
@pytest.mark.parametrize("confirmed", ["first", "last"])
def test_all_of_an_answer_in_one_read(confirmed, end, bystanders, eve, mallet):
    """What the service behind a device says and ends at once arrives together with the confirmation."""
    own = mallet.direct(b"eve", 1)
    incoming = eve.incoming()
    with eve.one_segment():
        if confirmed == "first":
            eve.confirm(incoming)
        eve.put(DATA, incoming.peer, b"early")
        if "EOF" in end:
            eve.put(EOF, incoming.peer)
        if confirmed == "last":
            eve.confirm(incoming)
        if "CLOSE" in end:
            eve.put(CLOSE, incoming.peer)
    stream = mallet.opened(own)
    assert stream.read(5) == b"early"
    stream.expect(EOF if "EOF" in end else CLOSE)
    if "CLOSE" in end:
        stream.close()
    assert eve.alive() and bystanders.fine()


def test_a_device_that_leaves_before_it_answers(relay, bystanders, eve, mallet):
    own = mallet.direct(b"eve", 1)
    eve.incoming()
    eve.sock.shutdown(socket.SHUT_RDWR)
    assert mallet.opened(own) is None
    relay.wait_log('refused connect "eve:1": device_gone: ')
    assert mallet.alive() and bystanders.fine()


def test_a_refusal_of_a_device_may_say_anything(relay, bystanders, eve, mallet):
    own = mallet.direct(b"eve", 1)
    eve.put(OPEN_FAILURE, eve.incoming().peer, 2, b"\x1b[31mtext\r\nINFO ready %s%n\xff", b"")
    assert mallet.opened(own) is None
    relay.wait_log('refused connect "eve:1": open_refused: ')
    assert not [line for line in relay.lines if re.search(r"[^\x20-\x7e]", line)]
    assert bystanders.fine()


# ---- out of turn


def test_requests_that_outlive_their_channel(relay, bystanders, mallet):
    for i in range(100):
        session = mallet.session()
        with mallet.one_segment():
            mallet.put(REQUEST, session.peer, "exec", True, "whoami")
            mallet.put(REQUEST, session.peer, "shell", True)
            mallet.put(CLOSE, session.peer)
            mallet.put(REQUEST, session.peer, "exec", True, "help")
            mallet.put(REQUEST, session.peer, "pty-req", True, b"x", 80, 24, 0, 0, b"")
            mallet.put(REQUEST, session.peer, "window-change", False, 80, 24, 0, 0)
    assert mallet.alive() and bystanders.fine()
    (row,) = [row for row in relay.list("sessions") if row["principal"] == "mallet"]
    assert row["bridges"] == 0


def test_requests_on_a_bridge_that_is_closing(bystanders, eve, mallet):
    for _ in range(50):
        back, stream = bridge(eve, mallet)
        with mallet.one_segment():
            mallet.put(REQUEST, stream.peer, "exec", True, "whoami")
            mallet.put(REQUEST, stream.peer, "subsystem", True, "sftp")
            mallet.put(CLOSE, stream.peer)
            mallet.put(REQUEST, stream.peer, "shell", True)
        with eve.one_segment():
            eve.put(REQUEST, back.peer, "exec", True, "whoami")
            eve.put(CLOSE, back.peer)
            eve.put(REQUEST, back.peer, "exit-status", False, 1)
        stream.expect(CLOSE)
        back.expect(CLOSE)
    assert eve.alive() and mallet.alive() and bystanders.fine()


def test_nothing_follows_eof_or_close_on_the_other_side(bystanders, eve, mallet):
    back, stream = bridge(eve, mallet)
    with mallet.one_segment():
        stream.send(b"before")
        stream.eof()
        stream.send(b"after EOF")
        stream.eof()
    received = b""
    while (message := back.expect(DATA, EOF))[0] == DATA:
        received += message[1].asbytes()[8:]
    assert received in (b"before", b"beforeafter EOF")
    with mallet.one_segment():
        stream.close()
        stream.send(b"after CLOSE")
        stream.eof()
        stream.close()
    back.expect(CLOSE)
    assert eve.alive()
    assert back.raw.seen(DATA, back.own) == [] and back.raw.seen(EOF, back.own) == [], "it was passed on"
    back.close()
    assert bystanders.fine()


def test_both_sides_close_at_once(relay, bystanders, eve, mallet):
    for _ in range(50):
        back, stream = bridge(eve, mallet)
        stream.send(b"x" * 1000)
        back.send(b"y" * 1000)
        back.close()
        stream.close()
        stream.expect(CLOSE)
        back.expect(CLOSE)
    assert eve.alive() and mallet.alive() and bridged(relay) == 0
    assert bystanders.fine()


def test_the_second_stream_of_a_bridge_is_dropped(bystanders, eve, mallet):
    back, stream = bridge(eve, mallet)
    mallet.put(EXTENDED_DATA, stream.peer, 1, b"stderr")
    stream.send(b"data")
    assert back.read(4) == b"data" and back.raw.seen(EXTENDED_DATA) == []
    assert bystanders.fine()


def test_messages_for_channels_that_do_not_exist(bystanders, mallet):
    for number in (0, 1, 99, 0x7fffffff, 0xffffffff):
        mallet.put(DATA, number, b"x")
        for kind in (EOF, CLOSE):
            mallet.put(kind, number)
        mallet.put(REQUEST, number, "exec", False, "whoami")
    assert bystanders.fine()


@pytest.mark.parametrize("kinds", [
    (GLOBAL_REQUEST, OPEN, CONFIRMATION, OPEN_FAILURE), (REQUEST, DATA, EXTENDED_DATA, WINDOW_ADJUST),
    (EOF, CLOSE, 99, 100, 81, 82), (1, 2, 3, 4, 5, 6), (20, 21, 30, 31), (50, 51, 52, 60, 192, 255)])
def test_cut_messages(kinds, relay, bystanders, attach):
    """Every message cut short, and with lengths that lie."""
    mallet = relay.add_client("mallet")
    bodies = (b"", b"\0", b"\0\0\0", b"\xff" * 4, b"\0\0\0\1", b"\xff" * 40,
              b"\0\0\0\x0dtcpip-forward\1\xff\xff\xff\xff",
              b"\0\0\0\x0cdirect-tcpip\0\0\0\1\0\0\0\1\0\0\0\1\x7f\xff\xff\xff")
    for kind, body in [(kind, body) for kind in kinds for body in bodies]:
        raw = attach(mallet)
        message = paramiko.Message()
        message.add_bytes(bytes([kind]) + body)
        with contextlib.suppress(EOFError):
            raw._send_user_message(message)
            raw.put(GLOBAL_REQUEST, "keepalive@openssh.com", True)
        with contextlib.suppress(AssertionError):  # that it answers is not promised, nor that it hangs up
            until(lambda raw=raw: not raw.is_active() or raw.seen(REQUEST_SUCCESS) or raw.seen(REQUEST_FAILURE), 1)
        raw.close()
    assert bystanders.fine()


@pytest.mark.parametrize("garbage", [
    b"\0" * 4096, b"\xff" * 4096, random.Random(1).randbytes(4096), b"SSH-2.0-again\r\n"],
    ids=["zeros", "ones", "random", "banner"])
def test_garbage_after_login_ends_the_session(garbage, relay, bystanders, mallet):
    with contextlib.suppress(OSError):
        mallet.sock.sendall(garbage)
        mallet.sock.shutdown(socket.SHUT_WR)
    mallet.wait_end()
    closed_log(relay, "mallet")
    assert bystanders.fine()


# ---- who vanishes


def test_a_client_that_vanishes_while_it_opens(relay, bystanders, eve, attach):
    raw = attach(relay.add_client("mallet"))
    for _ in range(10):
        raw.direct(b"eve", 1)
    waiting = [eve.incoming() for _ in range(10)]
    raw.sock.shutdown(socket.SHUT_RDWR)
    closed_log(relay, "mallet")
    for incoming in waiting[:5]:
        stream = eve.confirm(incoming)
        stream.expect(CLOSE)
        stream.close()
    for incoming in waiting[5:]:
        eve.put(OPEN_FAILURE, incoming.peer, 2, "no", "")
    assert eve.alive() and bridged(relay) == 0
    assert bystanders.fine()


def test_sessions_that_come_and_go_leave_nothing_behind(relay, bystanders, attach):
    principal = relay.add_client("mallet")
    fds = relay.fds()
    for i in range(30):
        raw = attach(principal)
        for _ in range(i % 5):
            raw.direct(b"good", 7)
        raw.sock.shutdown(socket.SHUT_RDWR)
    until(lambda: relay.fds() <= fds, what=f"descriptors back to {fds}")
    until(lambda: len(relay.list("sessions")) == 2 and len(relay.list("bridges")) == 1, what="the sessions ended")
    assert bystanders.fine()
