"""A device that logs in twice: the newest session serves, the older ones stand by."""

import socket
import time

from hostile import EOF, Stream, attach, mallet  # noqa: F401
from net import echoes, read_all
from procs import SLOW, until

AT_ONCE = 5.0  # seconds: far below every time-out in play


def body(alice, target="raspi:80"):
    status, answer = alice.through_W(target).finish(b"GET / HTTP/1.0\r\n\r\n")
    return answer.rpartition(b"\r\n\r\n")[2] if status == 0 else None


def publishers(relay, name_port, count):
    until(lambda: (relay.endpoint(name_port) or {}).get("publishers") == count,
          what=lambda: f"{count} publishers: {relay.endpoint(name_port)}")


def test_frozen_device_comes_back_and_is_reachable_at_once(relay, net):
    """Its first ssh is stopped, as after a power cut: neither FIN nor RST tells the relay."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    old = raspi.publish(f"80:localhost:{net.http(b'old').port}", expect="raspi:80")
    assert body(alice) == b"old"
    old.freeze()
    raspi.publish(f"80:localhost:{net.http(b'new').port}", expect="raspi:80")
    began = time.monotonic()
    assert body(alice) == b"new"
    assert time.monotonic() - began < AT_ONCE * SLOW
    for _ in range(5):
        assert body(alice) == b"new"
    assert not relay.logged("refused")
    old.thaw()
    assert body(alice) == b"new"
    assert relay.endpoint("raspi:80")["publishers"] == 2


def test_newest_serves_and_older_ones_take_over_in_turn(relay, net):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    sessions = []
    for n in range(3):
        sessions.append(raspi.publish(f"80:localhost:{net.http(b'%d' % n).port}", expect="raspi:80"))
        assert body(alice) == b"%d" % n
    publishers(relay, "raspi:80", 3)
    sessions[1].stop()  # a standby leaves: nothing changes
    publishers(relay, "raspi:80", 2)
    assert body(alice) == b"2"
    sessions[2].stop()  # the one that serves leaves
    publishers(relay, "raspi:80", 1)
    assert body(alice) == b"0"
    sessions[0].stop()
    relay.wait_withdrawn("raspi:80")
    assert body(alice) is None


def test_bridges_of_a_standby_live_on(relay, net):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    old = raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    _, (port,) = alice.local("raspi:7")
    held = net.connect(port)
    assert echoes(held)
    new = raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    fresh = net.connect(port)
    assert echoes(fresh) and echoes(held)
    rows = {row["device_session"] for row in relay.list("bridges")}
    assert len(rows) == 2
    new.kill()
    assert read_all(fresh) == b""
    assert echoes(held)
    assert echoes(net.connect(port), b"the older one serves again")
    assert old.running


def test_standby_serves_when_the_newest_does_not_answer(make_relay, net):
    """The newest session freezes: after open-timeout the older one is asked."""
    relay = make_relay(open_timeout="1s")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    raspi.publish(f"80:localhost:{net.http(b'old').port}", expect="raspi:80")
    new = raspi.publish(f"80:localhost:{net.http(b'new').port}", expect="raspi:80")
    assert body(alice) == b"new"
    new.freeze()
    until(lambda: body(alice) == b"old", 15, "the standby serves")
    new.thaw()


def test_only_what_did_not_answer_is_left_to_the_standby(make_relay, attach):  # noqa: F811
    """One service behind a returned device hangs; the others are still there."""
    relay = make_relay(open_timeout="1s")
    device, mallet = relay.add_device("eve"), attach(relay.add_client("mallet"))
    standby, newest = attach(device), attach(device)
    for session in (standby, newest):
        assert session.publish(b"eve", 1) == 1 and session.publish(b"eve", 2) == 2
    own = mallet.direct(b"eve", 2)
    newest.incoming()
    assert mallet.opened(own) is None
    for port, session in ((1, newest), (2, standby)):
        own = mallet.direct(b"eve", port)
        session.confirm(session.incoming())
        assert mallet.opened(own) is not None


def test_open_to_a_frozen_device_times_out_as_a_failed_open(make_relay, net):
    relay = make_relay(open_timeout="1s")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    device = raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    device.freeze()
    done = alice.run("-W", "raspi:7", input=b"x")
    assert done.returncode == 255 and done.stdout == b"" and "open failed" in done.stderr
    relay.wait_log(r'refused connect "raspi:7": open_timeout')
    device.thaw()


def test_a_device_that_leaves_during_an_open_fails_it(relay, net):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    device = raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    device.freeze()
    asked = alice.through_W("raspi:7")
    until(lambda: any(row["principal"] == "alice" for row in relay.list("sessions")), what="alice logged in")
    device.kill()
    status, out = asked.finish()
    assert (status, out) == (255, b"")
    relay.wait_withdrawn("raspi:7")


def test_what_a_device_sends_before_it_answers_goes_with_it(relay, attach, mallet):  # noqa: F811
    """The client gets what the standby sends, and nothing else."""
    device = relay.add_device("eve")
    standby, newest = attach(device), attach(device)
    assert standby.publish(b"eve", 1) == 1 and newest.publish(b"eve", 1) == 1
    own = mallet.direct(b"eve", 1)
    asked = newest.incoming()
    newest.numbers += 1
    early = Stream(newest, newest.numbers, asked.peer)
    early.send(b"from the newest")
    early.eof()
    assert newest.alive()
    newest.sock.shutdown(socket.SHUT_RDWR)
    back = standby.confirm(standby.incoming())
    stream = mallet.opened(own)
    back.send(b"from the standby")
    assert stream.read(16) == b"from the standby"
    assert relay.list("bridges")[0]["held"] == 0
    assert relay.list("bridges")[0]["bytes_down"] == 16
    assert mallet.alive() and not mallet.seen(EOF)
