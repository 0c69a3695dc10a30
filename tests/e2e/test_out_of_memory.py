"""Each allocation on the way of a login, a publish and a connect fails once: one connection is lost at most."""

import contextlib
import os
import sqlite3

import paramiko
from faults import faults, make_faulty  # noqa: F401
from hostile import CLOSE, CONFIRMATION, DATA, OPEN, OPEN_FAILURE, attach, bridge  # noqa: F401
from procs import until


class Failed(Exception):
    """A login, a publish, an open or a connection."""


class Life:
    """A device logs in and publishes, a client logs in, connects, echoes. go() does what is still missing of it."""

    def __init__(self, attach, relay, tenant):  # noqa: F811
        self.attach, self.tenant, self.relay = attach, tenant, relay
        relay.add_tenant(tenant)
        self.principals = [relay.add_device("dev", tenant=tenant, allow=["out"], key=relay.life_keys[0]),
                           relay.add_client("cli", tenant=tenant, key=relay.life_keys[1])]
        self.sessions = [None, None]
        self.published, self.lost = set(), 0

    def go(self):
        device = self.session(0)
        for name in (b"dev", b"out"):
            if name not in self.published:
                self.check(device.publish, name, 7)
                self.published.add(name)
        self.connect(device, self.session(1))

    def session(self, which):
        if self.sessions[which] is None:
            try:
                self.sessions[which] = self.attach(self.principals[which])
            except (paramiko.SSHException, EOFError, OSError) as e:
                self.lost += 1
                raise Failed(f"login of {which}: {e!r}") from None
        return self.sessions[which]

    def connect(self, device, client):
        own = client.direct(b"out", 7)
        until(lambda: device.seen(OPEN) or client.seen(CONFIRMATION, own) or client.seen(OPEN_FAILURE, own) or
              not (device.is_active() and client.is_active()), what="an answer to the open")
        if device.seen(OPEN):
            there = device.confirm(device.incoming())
        here = self.check(client.opened, own)
        for end, other in ((here, there), (there, here)):
            end.send(b"hello")
            kind, message = self.check(other.expect, DATA, CLOSE)
            if kind == CLOSE:
                # what was confirmed and never joined must not look to the client like an end of the service
                until(lambda: not client.is_active(), what="the end of the client's session")
                raise Failed("the bridge was closed")
            message.get_int()
            assert message.get_string() == b"hello"
        here.close()
        self.check(there.expect, CLOSE)

    @staticmethod
    def check(step, *args):
        """What the step returns; a refusal and the end of a connection are a Failed."""
        try:
            got = step(*args)
        except (EOFError, OSError) as e:
            raise Failed(repr(e)) from None
        except AssertionError as e:
            if "the connection ended" not in str(e):
                raise
            raise Failed(str(e)) from None
        if got is None:
            raise Failed(f"{step.__name__} {args} refused")
        return got

    def count_lost(self):
        """Drops what is lost; how many connections that were."""
        for which, session in enumerate(self.sessions):
            if session is not None and not session.is_active():
                self.sessions[which], self.lost = None, self.lost + 1
                if which == 0:
                    self.published.clear()
        return self.lost

    def leave(self):
        for session in self.sessions:
            session.close()
        until(lambda: self.relay.list("sessions", self.tenant) == [], what="the sessions are gone")

    def stored(self):
        with contextlib.closing(sqlite3.connect(os.path.join(self.relay.state, "relayd.db"), timeout=5)) as db:
            return {name for name, in db.execute("SELECT e.name FROM endpoints e JOIN tenants t ON t.id = e.tenant_id"
                                                 " WHERE t.name = ?", (self.tenant,))}


def test_one_connection_is_lost_at_most(make_faulty, faults, attach, keys):  # noqa: F811
    relay = make_faulty(workers=2)
    relay.life_keys = [keys.new(), keys.new()]
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
        life.go()
        until(lambda: "out" in life.stored(), what=lambda: f"{where}: stored {life.stored()}")
        life.leave()
        relay.ctl("remove-tenant", life.tenant)
    assert number > 20, "hardly anything was allocated"
    until(lambda: relay.fds() <= before, what=lambda: f"{before} descriptors as before, not {relay.fds()}")
