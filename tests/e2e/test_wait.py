"""wait-for-device: an open for an endpoint that nobody serves is held until a device publishes it."""

import fcntl
import os
import re
import signal
import socket
import struct
import termios
import threading
import time

from hostile import CLOSE, OPEN, OPEN_FAILURE, attach, closed_log  # noqa: F401
from procs import SLOW, until
from test_limits import used, wait_used


def unread(sock):
    """Bytes that were sent and have not arrived in the other's kernel."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]


def test_an_open_succeeds_when_the_device_comes_back(make_relay, net):
    relay = make_relay(wait_for_device="60s")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    echo = net.echo()
    device = raspi.publish(f"7:localhost:{echo.port}", expect="raspi:7")
    assert alice.through_W("raspi:7").finish(b"at once") == (0, b"at once")
    device.stop()
    relay.wait_withdrawn("raspi:7")
    asked = [alice.through_W("raspi:7") for _ in range(3)]
    other = alice.through_W("raspi:8")
    until(lambda: len(relay.list("sessions")) == 4, what="the clients logged in")
    raspi.publish(f"7:localhost:{echo.port}", expect="raspi:7")
    assert [proc.finish(b"waited") for proc in asked] == [(0, b"waited")] * 3
    assert other.running and not relay.logged("refused")


def test_away_unknown_and_forbidden_are_alike(make_relay, attach):  # noqa: F811
    """In answer and in time; the log alone tells them apart."""
    relay = make_relay(wait_for_device="1500ms")
    relay.add_device("away")
    eve = attach(relay.add_device("forbidden"))
    assert eve.publish(b"forbidden", 1) == 1
    mallet = attach(relay.add_client("mallet", allow=["away", "unknown"]))
    started, took = time.monotonic(), {}
    names = {mallet.direct(name, 1): name.decode() for name in (b"away", b"unknown", b"forbidden", b"neither")}
    while len(took) < len(names):
        _, message = mallet.expect(OPEN_FAILURE)
        own = message.get_int()
        took[names[own]] = time.monotonic() - started, message.asbytes()[4:]
    assert len({answer for _, answer in took.values()}) == 1
    times = [seconds for seconds, _ in took.values()]
    assert min(times) > 1.4 and max(times) - min(times) < 0.5 * SLOW
    assert mallet.alive()
    texts = [re.sub(r"(connect) \S+:", r"\1", text) for text in mallet.debug_texts]
    assert len(texts) == 4 and len(set(texts)) == 1 and "not_reachable" in texts[0]
    assert eve.alive() and not eve.seen(OPEN)
    relay.wait_log('refused connect "forbidden:1": not_reachable: .*no rule allows it')
    relay.wait_log('refused connect "unknown:1": not_reachable: .*there is no such name')


def test_what_waits_is_served_only_to_whom_it_is_allowed(make_relay, attach):  # noqa: F811
    relay = make_relay(wait_for_device="60s")
    device = relay.add_device("eve")
    alice, mallet = attach(relay.add_client("alice")), attach(relay.add_client("mallet", allow=["other"]))
    mine, his = alice.direct(b"eve", 1), mallet.direct(b"eve", 1)
    assert alice.alive() and mallet.alive()
    eve = attach(device)
    assert eve.publish(b"eve", 1) == 1
    back = eve.confirm(eve.incoming())
    stream = alice.opened(mine)
    stream.send(b"mine")
    assert back.read(4) == b"mine"
    assert eve.alive() and not eve.seen(OPEN) and not mallet.seen(OPEN_FAILURE, his)
    relay.ctl("allow", "mallet", "eve")  # as good as a publish
    eve.confirm(eve.incoming())
    assert mallet.opened(his) is not None


def test_a_client_that_leaves_waits_no_more(make_relay, attach):  # noqa: F811
    relay = make_relay(wait_for_device="60s")
    device, mallet = relay.add_device("eve"), attach(relay.add_client("mallet"))
    for _ in range(50):
        mallet.direct(b"eve", 1)
    assert mallet.alive()
    mallet.sock.shutdown(socket.SHUT_RDWR)
    closed_log(relay, "mallet")
    eve = attach(device)
    assert eve.publish(b"eve", 1) == 1 and eve.alive() and not eve.seen(OPEN)


def test_an_open_waits_again_when_the_device_leaves_before_it_answers(make_relay, attach):  # noqa: F811
    relay = make_relay(wait_for_device="60s")
    device, mallet = relay.add_device("eve"), attach(relay.add_client("mallet"))
    own = mallet.direct(b"eve", 1)
    for _ in range(3):
        eve = attach(device)
        assert eve.publish(b"eve", 1) == 1
        eve.incoming()
        eve.sock.shutdown(socket.SHUT_RDWR)
    eve = attach(device)
    assert eve.publish(b"eve", 1) == 1
    back = eve.confirm(eve.incoming())
    mallet.opened(own).send(b"at last")
    assert back.read(7) == b"at last"


def test_an_open_waits_for_a_device_that_is_dead_without_anybody_knowing(make_relay, attach):  # noqa: F811
    relay = make_relay(wait_for_device="60s", open_timeout="1s")
    device, mallet = relay.add_device("eve"), attach(relay.add_client("mallet"))
    dead = attach(device)
    assert dead.publish(b"eve", 1) == 1
    own = mallet.direct(b"eve", 1)
    asked = dead.incoming()
    wait_used(relay, "bridges", 0, "eve")
    assert used(relay, "bridges", "mallet") == 1
    assert dead.publish(b"eve", 2) == 2 and dead.alive() and not dead.seen(OPEN), "it was asked again"
    back = attach(device)
    assert back.publish(b"eve", 1) == 1
    stream = back.confirm(back.incoming())
    mallet.opened(own).send(b"at last")
    assert stream.read(7) == b"at last"
    dead.confirm(asked).expect(CLOSE)


def test_an_open_for_a_device_that_floods_waits_until_the_flood_is_over(make_relay, attach):  # noqa: F811
    """While relayd has too much of it to handle, the device is not asked: each open would read more of it."""
    relay = make_relay(wait_for_device="60s", workers=1)
    eve, mallet = attach(relay.add_device("eve")), attach(relay.add_client("mallet"))
    assert eve.publish(b"eve", 1) == 1 and mallet.alive()

    def flood():
        with eve.one_segment():
            for _ in range(4000):
                eve.open("x11", b"x" * 1000, 1)

    flooding = threading.Thread(target=flood)
    os.kill(relay.pid, signal.SIGSTOP)
    flooding.start()
    until(lambda: unread(eve.sock) > 1 << 20, what="the flood is on its way")
    with mallet.one_segment():
        for _ in range(200):
            mallet.direct(b"eve", 1)
    os.kill(relay.pid, signal.SIGCONT)
    assert len({eve.incoming().peer for _ in range(200)}) == 200
    flooding.join()


def test_a_standby_is_asked_when_the_newest_does_not_answer(make_relay, attach):  # noqa: F811
    relay = make_relay(wait_for_device="60s", open_timeout="1s")
    device, mallet = relay.add_device("eve"), attach(relay.add_client("mallet"))
    standby, newest = attach(device), attach(device)
    assert standby.publish(b"eve", 1) == 1 and newest.publish(b"eve", 1) == 1
    own = mallet.direct(b"eve", 1)
    newest.incoming()
    standby.confirm(standby.incoming())
    assert mallet.opened(own) is not None


def test_an_open_that_nobody_answers_ends_with_the_wait(make_relay, attach):  # noqa: F811
    relay = make_relay(wait_for_device="2s", open_timeout="500ms")
    eve, mallet = attach(relay.add_device("eve")), attach(relay.add_client("mallet"))
    assert eve.publish(b"eve", 1) == 1
    began = time.monotonic()
    assert mallet.connect(b"eve", 1) is None
    assert time.monotonic() - began > 1.9
    relay.wait_log('refused connect "eve:1": open_timeout')


def test_opens_that_wait_are_bounded_and_end(make_relay, attach):  # noqa: F811
    relay = make_relay(wait_for_device="4s")
    mallet = attach(relay.add_client("mallet"))
    with mallet.one_segment():
        for i in range(3000):
            mallet.direct(f"no{i}".encode(), 1)
    until(lambda: len(mallet.seen(OPEN_FAILURE)) >= 2000, what="those beyond the limit are refused at once")
    relay.wait_log("too_many_channels: ")
    until(lambda: len(mallet.seen(OPEN_FAILURE)) == 3000, 15, "the others after the time")
    assert mallet.alive()
