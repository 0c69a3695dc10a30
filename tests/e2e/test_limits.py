"""What `relayctl limit` allows and refuses: sessions, endpoints, bridges, opens; shown with what is used of it."""

import math
import time

import pytest
from paramiko.message import Message

from control import refused
from hostile import CLOSE, OPEN, OPEN_FAILURE, Incoming, attach, bridge  # noqa: F401
from procs import until


def limit(relay, name, value, principal=None, tenant=None):
    args = [*(["--tenant", tenant] if tenant else []), "limit", *(["--principal", principal] if principal else [])]
    return relay.ctl(*args, name, str(value))


def row(relay, name, principal=None, tenant=None):
    """The row of `show` for that limit."""
    shown = relay.ctl("show", *([principal] if principal else []), *(["--tenant", tenant] if tenant else []))
    [found] = [row for row in shown["limits"] if row["limit"] == name]
    return found


def used(relay, name, principal=None, tenant=None):
    return row(relay, name, principal, tenant)["used"]


def wait_used(relay, name, count, principal=None, tenant=None):
    until(lambda: used(relay, name, principal, tenant) == count,
          what=lambda: f"{count} {name} used; have {used(relay, name, principal, tenant)}")


@pytest.fixture
def published(relay, raspi, net):
    """raspi:7 is an echo."""
    return raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")


# -- the command


def test_what_show_shows(relay, raspi, alice):
    relay.add_tenant("acme")
    assert row(relay, "bridges", "alice") == {"limit": "bridges", "value": 10000, "used": 0, "default": 10000,
                                              "unit": "at a time"}
    done = limit(relay, "bridges", 5, "alice")
    assert done == {"status": "set", "tenant": "default", "name": "alice", "kind": "client", "limit": "bridges",
                    "value": 5, "closed": {"sessions": 0, "bridges": 0}}
    assert row(relay, "bridges", "alice")["value"] == 5 and row(relay, "bridges", "raspi")["value"] == 10000
    limit(relay, "bytes-up", "1M", tenant="acme")
    assert row(relay, "bytes-up", tenant="acme")["value"] == 1 << 20 and row(relay, "bytes-up")["value"] is None
    relay.restart()
    assert row(relay, "bridges", "alice")["value"] == 5
    text = relay.ctl("--tenant", "acme", "show", json=False)
    assert "bytes-up" in text and " 1M " in text and "bytes a second" in text
    assert relay.ctl("limit", "held", "none", json=False) == "set tenant default: held none\n"
    assert relay.ctl("limit", "held", "default", json=False) == "set tenant default: held 1G\n"
    refused(relay, "bad_argument", "limit", "sesions", "5", says=["sesions", "sessions, endpoints"])
    refused(relay, "bad_argument", "limit", "bridges", "lots", says=["lots", "whole number"])
    refused(relay, "not_found", "limit", "--principal", "bob", "bridges", "5", says="bob")
    assert alice.run(command=["limit", "bridges", "none"]).returncode != 0


# -- sessions


def test_a_client_has_no_more_sessions_than_it_may(relay, alice):
    limit(relay, "sessions", 2, "alice")
    first, second = alice.ssh("-N"), alice.ssh("-N")
    wait_used(relay, "sessions", 2, "alice")
    third = alice.run("-N")
    assert third.returncode == 255 and "as many sessions are up" in third.stderr
    relay.wait_log(r'refused login "alice@127.0.0.1": too_many_sessions: .* \(sessions of client alice: 2 of 2\)')
    assert first.running and second.running
    assert limit(relay, "sessions", 1, "alice")["closed"] == {"sessions": 0, "bridges": 0}
    first.stop()
    wait_used(relay, "sessions", 1, "alice")
    assert alice.run("-N").returncode == 255 and second.running, "lowered"
    second.stop()
    wait_used(relay, "sessions", 0, "alice")
    assert alice.run(command=["whoami"]).returncode == 0


def test_a_tenant_has_no_more_sessions_than_it_may(relay, alice):
    bob, carol = relay.add_client("bob"), relay.add_client("carol", tenant=relay.add_tenant("acme")["name"])
    limit(relay, "sessions", 1)
    alice.ssh("-N")
    wait_used(relay, "sessions", 1)
    assert bob.run("-N").returncode == 255
    relay.wait_log(r"too_many_sessions: .* \(sessions of tenant default: 1 of 1\)")
    assert carol.run(command=["whoami"]).returncode == 0


def test_a_device_at_its_limit_lets_the_newest_in_for_the_oldest_standby(relay, raspi, alice, net):
    limit(relay, "sessions", 3, "raspi")
    echo = net.echo().port
    other = raspi.publish(f"8:localhost:{echo}", expect="raspi:8")
    standby = raspi.publish(f"7:localhost:{echo}", expect="raspi:7")
    serving = raspi.publish(f"7:localhost:{echo}", expect="raspi:7")
    newest = raspi.publish(f"7:localhost:{echo}")
    assert standby.wait() == 255 and "a newer one took the place" in standby.err()
    relay.wait_published("raspi:7", 2)
    assert other.running and serving.running and newest.running
    assert used(relay, "sessions", "raspi") == 3
    assert alice.through_W("raspi:7").finish(b"hello") == (0, b"hello")


def test_a_dead_session_keeps_no_device_out(relay, raspi, alice, net):
    limit(relay, "sessions", 1, "raspi")
    stopped = raspi.publish("7:localhost:1", expect="raspi:7")
    stopped.freeze()
    raspi.ssh("-N", "-R", f"7:localhost:{net.echo().port}")
    until(lambda: alice.through_W("raspi:7").finish(b"hello") == (0, b"hello"), what="the new session serves")
    assert used(relay, "sessions", "raspi") == 1
    limit(relay, "sessions", 0, "raspi")
    assert raspi.run("-N").returncode == 255, "none at all"


# -- endpoints


def test_a_device_serves_no_more_endpoints_than_it_may(relay, raspi, net):
    limit(relay, "endpoints", 2, "raspi")
    raspi.publish("7:localhost:1", "8:localhost:1", expect=["raspi:7", "raspi:8"])
    assert used(relay, "endpoints", "raspi") == used(relay, "endpoints") == 2
    raspi.publish("7:localhost:1", "8:localhost:1", expect=["raspi:7", "raspi:8"])
    assert used(relay, "endpoints", "raspi") == 2, "a standby needs no room"
    assert raspi.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", "9:localhost:1").returncode == 255
    relay.wait_log(r'refused publish "localhost:9": too_many_served: .* \(endpoints of device raspi: 2 of 2\)')
    limit(relay, "endpoints", 3, "raspi")
    raspi.publish("9:localhost:1", expect="raspi:9")
    limit(relay, "endpoints", 3)
    berry = relay.add_device("berry")
    assert berry.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", "9:localhost:1").returncode == 255
    relay.wait_log(r"too_many_served: .* \(endpoints of tenant default: 3 of 3\)")
    for row_ in relay.list("sessions"):
        relay.ctl("disconnect", row_["id"])
    wait_used(relay, "endpoints", 0)


# -- bridges and opens


@pytest.mark.parametrize("whose", ["client alice", "device raspi", "tenant default"])
def test_no_more_bridges_than_client_device_and_tenant_may_have(relay, published, alice, whose):
    kind, name = whose.split()
    principal = None if kind == "tenant" else name
    limit(relay, "bridges", 2, principal)
    first, second = alice.through_W("raspi:7"), alice.through_W("raspi:7")
    relay.wait_bridges(2)
    assert used(relay, "bridges", principal) == 2
    third = alice.run("-v", "-W", "raspi:7")
    assert third.returncode == 255
    assert "Remote: refused connect \"raspi:7\": too_many_bridges: " in third.stderr
    relay.wait_log(rf"too_many_bridges: .* \(bridges of {whose}: 2 of 2\)")
    limit(relay, "bridges", 1, principal)
    assert first.running and second.running, "nothing is cut"
    assert first.finish(b"1") == (0, b"1")
    relay.wait_bridges(1)
    assert alice.run("-W", "raspi:7").returncode == 255
    assert second.finish(b"2") == (0, b"2")
    wait_used(relay, "bridges", 0, principal)
    assert alice.through_W("raspi:7").finish(b"3") == (0, b"3")


def test_another_client_is_not_bound_by_it(relay, published, alice):
    bob = relay.add_client("bob")
    limit(relay, "bridges", 0, "alice")
    assert alice.run("-W", "raspi:7").returncode == 255
    assert bob.through_W("raspi:7").finish(b"hello") == (0, b"hello")


def test_refused_opens_are_not_counted(relay, published, alice):
    for _ in range(3):
        assert alice.run("-W", "nosuch:1").returncode == 255
    assert used(relay, "bridges", "alice") == used(relay, "bridges") == used(relay, "bridges", "raspi") == 0


def test_coming_back_brings_no_new_opens(relay, published, attach):  # noqa: F811
    mallet = relay.add_client("mallet")
    limit(relay, "opens", 100, "mallet")
    began, opened = time.monotonic(), 0
    for _ in range(5):
        raw = attach(mallet)
        with raw.one_segment():
            owns = [raw.direct(b"raspi", 7) for _ in range(150)]
        opened += sum(raw.opened(own) is not None for own in owns)
        raw.close()
        until(lambda: not [row for row in relay.list("sessions") if row["principal"] == "mallet"], what="it has left")
    assert 5 <= opened <= 5 + 100 * (time.monotonic() - began)


@pytest.mark.parametrize("principal", ["mallet", "raspi", None])
def test_no_more_opens_a_second(relay, published, attach, principal):  # noqa: F811
    mallet = attach(relay.add_client("mallet"))
    limit(relay, "opens", 5, principal)
    began = time.monotonic()
    with mallet.one_segment():
        owns = [mallet.direct(b"raspi", 7) for _ in range(20)]
    opened = [stream for stream in [mallet.opened(own) for own in owns] if stream is not None]
    assert 5 <= len(opened) <= 5 + math.ceil(5 * (time.monotonic() - began))
    relay.wait_log(r"too_many_opens: .* \(opens of \w+ \w+: 5 a second\)")
    until(lambda: mallet.connect(b"raspi", 7), what="an open a while later")
    limit(relay, "opens", "none", principal)
    owns = [mallet.direct(b"raspi", 7) for _ in range(20)]
    assert None not in [mallet.opened(own) for own in owns]
    until(lambda: used(relay, "opens", principal) >= 20, what="opens shown", every=0.1)
    until(lambda: used(relay, "opens", principal) == 0, what="a second without opens", every=0.1)


def test_one_client_cannot_take_all_channels_of_a_device(relay, published, attach, alice, net):  # noqa: F811
    mallet, eve = attach(relay.add_client("mallet")), attach(relay.add_client("eve"))
    owns = [mallet.direct(b"raspi", 7) for _ in range(900)]
    until(lambda: len(mallet.seen(OPEN_FAILURE)) == 400, what="half of the 1000 refused")
    relay.wait_log(r"too_many_channels: .* \(the free channels of session \d+ are for other clients\)")
    owns = [eve.direct(b"raspi", 7) for _ in range(300)]
    until(lambda: len(eve.seen(OPEN_FAILURE)) == 50, what="half of the rest refused")
    assert used(relay, "bridges", "raspi") == 750
    assert alice.through_W("raspi:7").finish(b"hello") == (0, b"hello")
    assert mallet.connect(b"raspi", 7) is None
    eve.close()
    wait_used(relay, "bridges", 0, "eve")
    assert mallet.connect(b"raspi", 7) is None, "it has as many as are free"


def test_channels_that_are_not_answered_or_closed_count_on(make_relay, attach):  # noqa: F811
    relay = make_relay(open_timeout="1s")
    eve = attach(relay.add_device("eve"))
    mallet, alice = attach(relay.add_client("mallet")), attach(relay.add_client("alice"))
    assert eve.publish(b"eve", 1) == 1
    streams = [bridge(eve, mallet) for _ in range(10)]
    for _, stream in streams:
        stream.close()
        stream.expect(CLOSE)
    for failures in (600, 1200, 1800):
        for _ in range(600):
            mallet.direct(b"eve", 1)
        until(lambda: len(mallet.seen(OPEN_FAILURE)) == failures and eve.alive(), 20, "all are refused")
    assert len(eve.seen(OPEN)) == 490
    own = alice.direct(b"eve", 1)
    until(lambda: len(eve.seen(OPEN)) == 491, what="the open of another client")
    eve.confirm(Incoming(Message(eve.seen(OPEN)[-1])))
    assert alice.opened(own) is not None


def test_what_a_connection_leaves_behind_is_discharged(relay, published, alice):
    """However a bridge ends: by either end, by disconnect, by revocation."""
    bridges = [alice.through_W("raspi:7") for _ in range(4)]
    relay.wait_bridges(4)
    bridges[0].kill()
    wait_used(relay, "bridges", 3)
    relay.ctl("disconnect", relay.list("bridges")[0]["client_session"])
    wait_used(relay, "bridges", 2)
    relay.ctl("disallow", "alice", "*")
    assert [used(relay, "bridges", name) for name in ("alice", "raspi", None)] == [0, 0, 0]
    relay.ctl("allow", "alice", "*")
    again = alice.through_W("raspi:7")
    relay.wait_bridges(1)
    published.kill()
    wait_used(relay, "bridges", 0)
    again.wait()
    for name in ("sessions", "endpoints", "bridges", "held"):
        wait_used(relay, name, 0, "raspi")
        wait_used(relay, name, 0)
