"""Each allocation on the way of a login, a publish and a connect fails once: one connection is lost at most."""

import contextlib
import itertools
import os
import sqlite3
import time

import paramiko
import pytest
from faults import faults, make_faulty  # noqa: F401
from hostile import CLOSE, CONFIRMATION, DATA, OPEN, OPEN_FAILURE, attach, bridge  # noqa: F401
from procs import SLOW, until


class Failed(Exception):
    """A login, a publish, an open or a connection."""


def stored_owners(relay, tenant):
    """Whose name out is on disk."""
    with contextlib.closing(sqlite3.connect(os.path.join(relay.state, "relayd.db"), timeout=5)) as db:
        return [name for name, in db.execute(
            "SELECT DISTINCT p.name FROM endpoints e JOIN principals p ON p.id = e.principal_id"
            " JOIN tenants t ON t.id = e.tenant_id WHERE t.name = ? AND e.name = 'out'", (tenant,))]


class Life:
    """A device logs in and publishes, a client logs in, connects, echoes, both leave. go() does what is still missing."""

    def __init__(self, attach, relay, tenant):  # noqa: F811
        self.attach, self.tenant, self.relay = attach, tenant, relay
        relay.add_tenant(tenant)
        self.principals = [relay.add_device("dev", tenant=tenant, allow=["out"], key=relay.life_keys[0]),
                           relay.add_client("cli", tenant=tenant, key=relay.life_keys[1])]
        self.sessions = [None, None]
        self.published, self.lost = set(), 0

    def go(self):
        """A refusal or the end of a connection is a Failed."""
        started = time.monotonic()
        try:
            self.publish()
            self.connect(self.session(0), self.session(1))
            self.leave()
        except (paramiko.SSHException, EOFError, OSError) as e:
            assert time.monotonic() - started < 15 * SLOW, f"it hung: {e!r}"
            raise Failed(repr(e)) from None
        except AssertionError as e:
            if "the connection ended" not in str(e):
                raise
            raise Failed(str(e)) from None

    def session(self, which):
        if self.sessions[which] is None:
            self.lost += 1  # unless it comes to something
            self.sessions[which] = self.attach(self.principals[which])
            self.lost -= 1
        return self.sessions[which]

    def publish(self):
        device = self.session(0)
        for name, port in ((b"dev", 7), (b"out", 7), (b"out", 8)):
            if (name, port) not in self.published and device.publish(name, port) is None:
                raise Failed(f"publish of {name}:{port}")
            self.published.add((name, port))

    def connect(self, device, client):
        own = client.direct(b"out", 7)
        until(lambda: device.seen(OPEN) or client.seen(CONFIRMATION, own) or client.seen(OPEN_FAILURE, own) or
              not (device.is_active() and client.is_active()), what="an answer to the open")
        if device.seen(OPEN):
            there = device.confirm(device.incoming())
        here = client.opened(own)
        if here is None:
            raise Failed("open")
        for end, other in ((here, there), (there, here)):
            end.send(b"hello")
            kind, message = other.expect(DATA, CLOSE)
            if kind == CLOSE:
                # what was confirmed and never joined must not look to the client like an end of the service
                until(lambda: not client.is_active(), what="the end of the client's session")
                raise Failed("the bridge was closed")
            message.get_int()
            assert message.get_string() == b"hello"
        here.close()
        there.expect(CLOSE)

    def count_lost(self):
        """Drops what is lost; how many connections that were."""
        for which, session in enumerate(self.sessions):
            if session is not None and not session.is_active():
                self.sessions[which], self.lost = None, self.lost + 1
                if which == 0:
                    self.published.clear()
        return self.lost

    def leave(self):
        since = self.relay.mark()
        for session in self.sessions:
            session.close()
        for name in ("dev", "cli"):
            self.relay.wait_log(rf"tenant={self.tenant} principal={name} session=\d+ closed", since)
        self.sessions = [None, None]
        self.published.clear()

    def rival(self):
        """A name whose publish was refused is free, in memory and on disk; one whose publish was accepted is not."""
        rival = self.attach(self.relay.add_device("rival", tenant=self.tenant, allow=["out"], key=self.relay.life_keys[2]))
        if (b"out", 7) in self.published:
            assert rival.publish(b"out", 9) is None, "it took another's name"
        else:
            assert rival.publish(b"out", 7) == 7
            self.wait_stored("rival")
        self.relay.ctl("remove-device", "rival", "--tenant", self.tenant)

    def wait_stored(self, owner):
        """out belongs to that device on disk."""
        until(lambda: stored_owners(self.relay, self.tenant) == [owner],
              what=lambda: f"out is {owner}'s, not {stored_owners(self.relay, self.tenant)}")


def test_one_connection_is_lost_at_most(make_faulty, faults, attach, keys):  # noqa: F811
    relay = make_faulty(workers=2)
    relay.life_keys = [keys.new() for _ in range(3)]
    calm_device = attach(relay.add_device("eve"))
    calm_client = attach(relay.add_client("alice"))
    assert calm_device.publish(b"eve", 1) == 1
    there, here = bridge(calm_device, calm_client)
    Life(attach, relay, "warm").go()
    before = relay.fds()
    number, struck = 0, True
    while struck:
        number += 1
        life = Life(attach, relay, f"t{number}")
        since = relay.mark()
        faults.fail_allocation(number)
        try:
            life.go()
            failed = None
        except Failed as e:
            failed = e
        struck = faults.struck
        faults.fail_allocation(0)
        where = f"allocation {number}, {relay.logged('fault: ', since)}"
        assert relay.running, where
        assert failed is None or struck, f"{where}: {failed}"
        until(lambda: life.count_lost() <= 1, what=where)
        here.send(b"calm")
        assert there.read(4) == b"calm", where
        if life.sessions[0] is not None and life.published:
            life.rival()
        life.go()
        life.wait_stored("dev")
        relay.ctl("remove-tenant", life.tenant)
    assert number > 20, "hardly anything was allocated"
    until(lambda: relay.fds() <= before, what=lambda: f"{before} descriptors as before, not {relay.fds()}")


def test_a_name_is_moved_or_not(make_faulty, faults, attach):  # noqa: F811
    """What relayctl is told holds in memory and on disk, whichever allocation fails."""
    relay = make_faulty()
    devices = {name: relay.add_device(name, allow=["out"]) for name in ("first", "second")}
    session = attach(devices["first"])
    assert session.publish(b"out", 7) == 7
    until(lambda: stored_owners(relay, "default") == ["first"], what="out is first's")
    number, struck, owner = 0, True, "first"
    while struck:
        number += 1
        target = "second" if owner == "first" else "first"
        since = relay.mark()
        # libevent's bufferevent_socket_new() does not see that it has no memory for a callback, and never writes
        faults.fail_allocation(number, own_only=True)
        done = relay.ctl("move-endpoint", "out", target, check=False)
        struck = faults.struck
        faults.fail_allocation(0)
        where = f"allocation {number}, {relay.logged('fault: ', since)}"
        assert relay.running and (struck or done.returncode == 0), (where, done)
        session.close()
        relay.add_tenant(f"t{number}")  # behind what the move has left to write
        (owner,) = stored_owners(relay, "default")
        assert owner == target or done.returncode != 0, f"{where}: it was done, and out is {owner}'s"
        other = attach(devices["second" if owner == "first" else "first"])
        assert other.publish(b"out", 7) is None, f"{where}: it is {owner}'s"
        other.close()
        session = attach(devices[owner])
        assert session.publish(b"out", 7) == 7, f"{where}: it is {owner}'s"
    assert number > 5


@pytest.mark.parametrize("change", ["add-device", "allow", "disallow"])
def test_a_rule_is_not_called_wrong_for_lack_of_memory(change, make_faulty, faults, keys):  # noqa: F811
    relay = make_faulty()
    relay.add_device("first", allow=["web", "cam"])
    argv = {"add-device": ["add-device", "--name", "second", "--allow", "out:80", keys.new() + ".pub"],
            "allow": ["allow", "first", "out:80"], "disallow": ["disallow", "first", "web"]}[change]
    codes = set()
    for number in itertools.count(1):
        faults.fail_allocation(number, own_only=True)
        done = relay.ctl(*argv, check=False)
        if done.returncode == 0:
            break
        assert relay.running and faults.struck, done
        if done.returncode == 1:  # else it was relayctl's connection
            codes.add(done.json["error"]["code"])
    assert codes == {"out_of_memory"}
