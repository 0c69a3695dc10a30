"""Storage that fills up, becomes read-only, is locked or damaged in the middle of changes: they are refused with a reason,
what lives goes on, and all is well by itself when the storage is."""

import contextlib
import os
import sqlite3

import pytest
from control import refused
from faults import faults, make_faulty  # noqa: F401
from hostile import GLOBAL_REQUEST, REQUEST_SUCCESS, attach, bridge  # noqa: F401
from procs import until
from storage import disk, fill  # noqa: F401


def database(relay):
    return os.path.join(relay.state, "relayd.db")


@contextlib.contextmanager
def opened(relay):
    with contextlib.closing(sqlite3.connect(database(relay), isolation_level=None, timeout=5)) as db:
        yield db


def stored_names(relay):
    with opened(relay) as db:
        return {name for name, in db.execute("SELECT name FROM endpoints")}


def sound(relay):
    with opened(relay) as db:
        return (db.execute("PRAGMA integrity_check").fetchall() == [("ok",)] and
                db.execute("PRAGMA foreign_key_check").fetchall() == [])


class Traffic:
    """A device and a client with a bridge, and one of each who have not logged in yet."""

    def __init__(self, relay, attach, keys):  # noqa: F811
        self.relay, self.attach, self.spare = relay, attach, keys.new()
        self.principals = [relay.add_device("eve", allow=["out*"]), relay.add_client("alice")]
        self.late_device, self.late_client = relay.add_device("late"), relay.add_client("bob")
        relay.ctl("add-client", "--name", "old", keys.new() + ".pub")
        self.before = self.registry()
        self.begin()

    def begin(self):
        self.device, self.client = map(self.attach, self.principals)
        assert self.device.publish(b"eve", 1) == 1
        self.there, self.here = bridge(self.device, self.client)
        self.goes_on()

    def registry(self):
        return {what: [(row["name"], row.get("rules")) for row in self.relay.list(what)]
                for what in ("tenants", "devices", "clients")}

    def goes_on(self):
        """Bytes over the bridge that is open and over a new one."""
        for there, here in ((self.there, self.here), bridge(self.device, self.client)):
            here.send(b"hello")
            assert there.read(5) == b"hello"
            there.send(b"world")
            assert here.read(5) == b"world"

    def logins_go_on(self):
        """New sessions, a publish of the device's own name, a connect to it."""
        device, client = self.attach(self.late_device), self.attach(self.late_client)
        assert device.publish(b"late", 22) == 22
        own = client.direct(b"late", 22)
        device.confirm(device.incoming())
        assert client.opened(own) is not None
        device.close()
        client.close()

    def is_refused(self, code="store_unavailable", says="the registry cannot be written"):
        """Every kind of change, in words that tell what the storage has; nothing of it is made."""
        sentences = [refused(self.relay, code, *change, says=says) for change in (
            ["add-tenant", "new"], ["add-client", "--name", "new", self.spare + ".pub"], ["remove-client", "old"],
            ["allow", "alice", "more"], ["rename", "bob", "robert"])]
        assert self.device.publish(b"out", 80) is None, "a name was promised that cannot be written"
        assert self.relay.ctl("status")["store"] == "the last change could not be written"
        assert self.registry() == self.before
        return sentences

    def recovers(self, since):
        self.relay.wait_log("the registry can be written again", since)
        assert self.relay.ctl("status")["store"] == "ok"
        assert self.device.publish(b"out", 80) == 80
        self.relay.ctl("remove-client", "old")
        self.relay.ctl("add-client", "--name", "new", self.spare + ".pub")
        after = self.registry()
        self.relay.restart(kill=True)
        assert self.registry() == after and sound(self.relay)
        assert {name for name, _ in after["clients"]} == {"alice", "bob", "new"}


@pytest.fixture
def traffic(attach, keys):  # noqa: F811
    return lambda relay: Traffic(relay, attach, keys)


def test_a_full_disk(make_relay, disk, traffic):  # noqa: F811
    state = os.path.join(disk, "state")
    os.mkdir(state, 0o700)
    relay = make_relay(state_dir=state)
    relay.state = state
    busy = traffic(relay)
    since = relay.mark()
    fill(disk)
    assert any("full" in sentence for sentence in busy.is_refused())
    busy.goes_on()
    busy.logins_go_on()
    assert relay.logged("database or disk is full", since)
    os.unlink(os.path.join(disk, "fill"))
    busy.recovers(since)


def test_read_only_storage(make_faulty, faults, traffic):  # noqa: F811
    relay = make_faulty()
    busy = traffic(relay)
    since = relay.mark()
    faults.read_only(True)
    assert all("disk I/O error" in sentence for sentence in busy.is_refused())
    busy.goes_on()
    busy.logins_go_on()
    assert sound(relay)
    faults.read_only(False)
    busy.recovers(since)


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_another_process_that_holds_the_lock(relay, traffic, procs, lock):
    busy = traffic(relay)
    since = relay.mark()
    holder = procs.spawn_pipes(["/usr/bin/python3", "-c", "import sqlite3, sys\n"
                                "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
                                "db.execute(sys.argv[2])\nprint('held', file=sys.stderr, flush=True)\n"
                                "sys.stdin.read()", database(relay), lock])
    holder.wait_err("held")
    assert all("locked" in sentence for sentence in busy.is_refused())
    busy.goes_on()
    busy.logins_go_on()
    holder.kill()  # it dies with the lock: nothing of its is left behind
    busy.recovers(since)


# ---- slow


def test_a_device_that_publishes_and_cancels_keeps_nobody_waiting(make_faulty, faults, attach):  # noqa: F811
    """However much of it has come while the disk was slow, it is written at once."""
    relay = make_faulty()
    restless, other = attach(relay.add_device("restless")), attach(relay.add_device("other", allow=["out"]))
    faults.hold_sync(True)
    before = faults.syncs
    assert restless.publish(b"restless", 1) == 1
    until(lambda: faults.syncs > before, what="the disk is waited for")
    before = faults.syncs
    for first in range(1000, 5000, 100):
        restless.inbox.clear()
        with restless.one_segment():
            for port in range(first, first + 100):
                restless.put(GLOBAL_REQUEST, "tcpip-forward", True, b"restless", port)
                restless.put(GLOBAL_REQUEST, "cancel-tcpip-forward", True, b"restless", port)
        until(lambda: len(restless.seen(REQUEST_SUCCESS)) == 200, what="the answers")
    assert other.publish(b"out", 80) == 80
    faults.hold_sync(False)
    relay.add_tenant("new")
    assert faults.syncs - before <= 5
    assert {"restless", "out"} == stored_names(relay)


# ---- at the end


@pytest.mark.parametrize("mended", [True, False])
def test_what_could_not_be_written_is_tried_once_more_at_the_end(mended, make_faulty, faults, attach):  # noqa: F811
    relay = make_faulty()
    device = attach(relay.add_device("raspi"))
    faults.read_only(True)
    assert device.publish(b"raspi", 22) == 22
    refused(relay, "store_unavailable", "add-tenant", "new")
    since = relay.mark()
    faults.read_only(not mended)
    relay.stop()
    assert bool(relay.logged("lost [1-9][0-9]* rows", since)) is not mended
    assert stored_names(relay) == ({"raspi"} if mended else set())


# ---- damaged


@contextlib.contextmanager
def kept(relay):
    """Keeps a copy of the database as an orderly stop leaves it, and puts it back at the end; gives its bytes."""
    relay.stop()
    with open(database(relay), "rb") as f:
        good = f.read()
    yield good
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(database(relay) + suffix)
    with open(database(relay), "wb") as f:
        f.write(good)
    relay.start()


def test_a_file_that_is_damaged_while_relayd_runs(relay, traffic):
    busy = traffic(relay)
    with kept(relay):
        relay.start()
        busy.begin()
        for suffix, byte in (("", b"\xa5"), ("-wal", b"\x5a")):
            with open(database(relay) + suffix, "r+b") as f:
                f.write(byte * os.path.getsize(f.name))
        for number in range(3):
            done = relay.ctl("add-tenant", f"t{number}", check=False)  # from what is cached it may be possible
            assert done.returncode == 0 or done.json["error"]["code"] == "store_unavailable", done
            busy.late_client.run(command=["whoami"])
            busy.goes_on()
        status = relay.ctl("status", check=False)
        assert status.returncode == 1 or status.json["store"] != "ok" or done.returncode == 0, status
        relay.kill9()  # what an orderly stop would make of such a file is no matter
    assert busy.registry() == busy.before and sound(relay)


def test_each_page_that_is_damaged_before_the_start(relay, traffic):
    """relayd may find it at once, later or never: it does not crash, and tells what is wrong."""
    busy = traffic(relay)
    refusals = 0
    with kept(relay) as good:
        page_size = int.from_bytes(good[16:18], "big")
        for at in range(0, len(good), page_size):
            with open(database(relay), "r+b") as f:
                f.seek(at)
                f.write(b"\xa5" * page_size)
            since = relay.mark()
            relay.spawn()
            until(lambda: relay.logged(" ready$", since) or not relay.running, what="relayd is ready or ends")
            if relay.running:
                done = relay.ctl("add-tenant", "new", check=False)
                assert done.returncode == 0 or "malformed" in done.json["error"]["message"], done
                refusals += done.returncode
                busy.late_client.run(command=["whoami"])
                assert relay.running
                relay.kill9()
            else:
                assert 0 < relay.popen.wait() < 128
                relay.wait_log("cannot (open|read) the database .*(malformed|not a database)", since)
                refusals += 1
                relay.popen = None
            for suffix in ("-wal", "-shm"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(database(relay) + suffix)
            with open(database(relay), "wb") as f:
                f.write(good)
    assert refusals > 1
    assert busy.registry() == busy.before and sound(relay)
