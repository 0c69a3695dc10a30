"""The audit trail: who did what, or was refused it, and why; and that it costs nobody else anything."""

import contextlib
import json
import os
import re
import select
import signal
import sqlite3
import time

from control import refused
from faults import faults, make_faulty  # noqa: F401
from hostile import attach, bridge  # noqa: F401
from keys import fingerprint
from procs import SLOW, until
from relay import RELAYCTL
from storage import disk, fill  # noqa: F401


def events(relay, *args, tenant=None, **like):
    """The rows that have all of these fields, oldest first."""
    args = ["--since", "1d", *args] if "--count" not in args and "--after" not in args else args
    rows = relay.ctl("events", *args, *(["--tenant", tenant] if tenant else []))
    return [row for row in rows if all(row[key] == value for key, value in like.items())]


def event(relay, **like):
    """The one row like that; waits for it."""
    rows = until(lambda: events(relay, **like), what=lambda: f"{like} among {events(relay)}")
    assert len(rows) == 1, rows
    return rows[0]


def counted(relay, **like):
    return sum(row["count"] for row in events(relay, **like))


# ---- what is recorded


def test_what_devices_and_clients_do(relay, net):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    device = raspi.publish(f"80:localhost:{net.http(b'x' * 1000).port}", expect="raspi:80")
    status, _ = alice.through_W("raspi:80").finish(b"GET / HTTP/1.0\r\n\r\n")
    assert status == 0
    device.kill()
    client = {"tenant": "default", "principal": "alice", "address": "127.0.0.1", "reason": "", "cause": ""}
    event(relay, event="login", object=alice.fingerprint, **client)
    event(relay, event="connect", object="raspi:80", peer="raspi", **client)
    closed = event(relay, event="bridge_closed", object="raspi:80", peer="raspi", **client)
    assert closed["bytes_up"] == 18 and closed["bytes_down"] > 1000 and 0 <= closed["duration"] < 60000
    event(relay, event="logout", **client)
    event(relay, event="login", principal="raspi", object=raspi.fingerprint)
    event(relay, event="publish", principal="raspi", object="raspi:80", reason="")
    event(relay, event="withdraw", principal="raspi", object="raspi:80")
    event(relay, event="logout", principal="raspi")
    assert re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", closed["time"])
    ids = [row["id"] for row in events(relay)]
    assert ids == sorted(ids)


def test_what_is_refused_has_its_reason_and_for_administrators_its_cause(relay, attach):  # noqa: F811
    eve, alice = attach(relay.add_device("eve")), attach(relay.add_client("alice", allow=["eve:1-9", "web:1", "away:1"]))
    other = relay.add_device("other")
    relay.add_device("away")
    assert eve.publish(b"eve", 1) == 1 and eve.publish(b"elsewhere", 1) is None
    for host, port in ((b"eve", 22), (b"eve", 2), (b"web", 1), (b"wbe", 1), (b"away", 1), (b"", 1)):
        number = alice.direct(host, port)
        assert alice.opened(number) is None
    def cause(name_port):
        row = event(relay, event="connect", principal="alice", object=name_port)
        return row["reason"], row["cause"]
    event(relay, event="publish", principal="eve", object="elsewhere:1", reason="not_allowed", cause="not_allowed")
    assert cause("eve:22") == ("not_reachable", "no_rule")
    assert cause("eve:2") == ("not_reachable", "not_published")
    assert cause("away:1") == ("not_reachable", "offline")
    assert cause("wbe:1") == ("not_reachable", "no_such_name")
    assert cause("web:1") == ("not_reachable", "no_such_name")
    assert cause(":1") == ("loopback", "loopback")
    assert relay.stranger().run(command=["whoami"]).returncode == 255
    event(relay, event="login", tenant="", principal="", reason="unknown_key", address="127.0.0.1")
    relay.ctl("add-device", "--name", "other", "--expires", "1s", other.pub)
    until(lambda: other.run(command=["whoami"]).returncode == 255, what="its expiry")
    event(relay, event="login", tenant="default", principal="other", reason="key_expired")


def test_a_terminal_gets_a_header(relay, procs):
    relay.add_device("raspi")
    relay.ctl("events")  # once they are stored
    proc = procs.spawn_pty([RELAYCTL, "--control-socket", relay.socket, "events"])
    proc.expect("add-device --name raspi")
    lines = proc.output().replace("\r", "").split("\n")
    assert lines[0].split() == ["TIME", "TENANT", "PRINCIPAL", "ADDRESS", "EVENT", "OBJECT"]
    row = next(line for line in lines if "add-device --name raspi" in line)
    assert row[lines[0].index("EVENT"):].startswith("command ")
    assert "PRINCIPAL" not in relay.ctl("events", json=False)


def test_bytes_that_peers_choose_reach_no_terminal(relay):
    alice = relay.add_client("alice")
    alice.run(command=["a\x1b[2J\tb\xff"])
    text = relay.ctl("events", json=False)
    assert "a\\x1b[2J\\x09b" in text and re.fullmatch(r"[\n\x20-\x7e]*", text)
    assert event(relay, event="exec", reason="unknown_command")["object"].startswith("a\\x1b[2J\\x09b")


def test_what_administrators_change_with_all_arguments_but_no_key(relay, keys):
    key = keys.new()
    public = open(key + ".pub").read().split()
    relay.add_tenant("acme")
    relay.ctl("add-client", "--tenant", "acme", "--name", "bob", "--allow", "a:1", "--allow", "b*", " ".join(public))
    relay.ctl("limit", "--tenant", "acme", "--principal", "bob", "bridges", "10")
    relay.ctl("allow", "--tenant", "acme", "bob", "c:1-5")
    relay.ctl("allow", "--tenant", "acme", "bob", "c:1-5")  # changes nothing
    refused(relay, "not_found", "remove-client", "--tenant", "acme", "eve\x1b[2J")
    refused(relay, "not_found", "disconnect", "--tenant", "acme", "bob")
    relay.list("clients", "acme")
    relay.ctl("reload")
    by = {"principal": "control", "address": f"uid={os.getuid()}"}
    assert [(row["object"], row["peer"], row["reason"]) for row in events(relay, tenant="acme", event="command", **by)] == [
        (f"add-client --name bob --allow a:1 --allow b* {fingerprint(key)}", "bob", ""),
        ("limit --principal bob bridges 10", "bob", ""),
        ("allow bob c:1-5", "bob", ""),
        ('remove-client "eve\\x1b[2J"', "", "not_found"),
        ("disconnect bob", "", "not_found")]
    event(relay, tenant="", event="command", object="add-tenant acme", peer="acme", **by)
    event(relay, tenant="", event="reload", reason="", **by)
    assert public[1] not in relay.ctl("events", json=False)
    relay.wait_log("control: limit --principal bob bridges 10: set bob")
    relay.wait_log("control: allow bob c:1-5: allowed bob")


def test_what_is_cut_says_why(relay, attach):  # noqa: F811
    device, client = attach(relay.add_device("eve")), attach(relay.add_client("alice"))
    assert device.publish(b"eve", 1) == 1
    bridge(device, client)
    relay.ctl("remove-client", "alice")
    event(relay, event="bridge_closed", principal="alice", reason="revoked")
    event(relay, event="logout", principal="alice", reason="revoked")
    bob = relay.add_client("bob")
    with_bob = attach(bob)
    relay.ctl("add-client", "--name", "bob", "--expires", "2s", bob.pub)
    event(relay, event="expire", principal="bob")
    event(relay, event="logout", principal="bob", reason="key_expired")
    with_bob.wait_end()


def test_relayds_own_start_and_stop(relay):
    relay.restart()
    own = [row["event"] for row in events(relay, tenant="", principal="")]
    assert own == ["start", "stop", "start"]
    assert events(relay, tenant="default") == []


def test_status_counts_all_of_it_for_monitors(relay, net):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    raspi.publish(f"80:localhost:{net.http(b'x' * 1000).port}", expect="raspi:80")
    for _ in range(2):
        assert alice.through_W("raspi:80").finish(b"GET / HTTP/1.0\r\n\r\n")[0] == 0
    alice.through_W("raspi:81").finish(b"")
    assert relay.stranger().run(command=["whoami"]).returncode == 255

    def counts():
        return {(row["event"], row["reason"]): row["count"] for row in relay.ctl("status")["events"]}
    until(lambda: counts().get(("logout", "ok")) == 3, what="the logouts")
    status, have = relay.ctl("status"), counts()
    assert {key: have.get(key) for key in (("login", "ok"), ("login", "unknown_key"), ("publish", "ok"), ("connect", "ok"),
                                           ("connect", "not_reachable"), ("bridge_closed", "ok"), ("command", "ok"))} == {
        ("login", "ok"): 4, ("login", "unknown_key"): 1, ("publish", "ok"): 1, ("connect", "ok"): 2,
        ("connect", "not_reachable"): 1, ("bridge_closed", "ok"): 2, ("command", "ok"): 2}
    counters = status["counters"]
    assert counters["bytes_up"] == 2 * 18 and counters["bytes_down"] > 2000
    assert counters["events_dropped"] == counters["store_errors"] == 0
    assert set(status["queues"]) == {"keeper", "events", "log_bytes", "workers"}
    until(lambda: relay.ctl("status")["counters"]["events_written"] >= sum(counts().values()), what="all is written")
    assert re.search(r"^  login +unknown_key +1$", relay.ctl("status", json=False), re.M)


# ---- two hosts with one key


def test_two_hosts_with_one_key_are_noticed_when_both_live(relay, net):
    raspi = relay.add_device("raspi")
    raspi.publish(f"80:localhost:{net.echo().port}", expect="raspi:80")
    assert events(relay, event="duplicate_publisher") == []
    newer = raspi.publish(f"80:localhost:{net.echo().port}", expect="raspi:80")
    row = event(relay, event="duplicate_publisher")
    assert (row["principal"], row["object"], row["peer"]) == ("raspi", "raspi:80", "127.0.0.1")
    newer.kill()
    event(relay, event="standby_serves", principal="raspi", object="raspi:80")


def test_a_host_that_comes_back_beside_its_dead_session_is_no_second_host(make_relay, net):
    relay = make_relay(log_level="debug")
    raspi = relay.add_device("raspi")
    old = raspi.publish(f"80:localhost:{net.echo().port}", expect="raspi:80")
    old.freeze()
    raspi.publish(f"80:localhost:{net.echo().port}", expect="raspi:80")
    relay.wait_log("session=1 is asked whether it lives beside a newer session")
    assert events(relay, event="duplicate_publisher") == []
    old.thaw()
    event(relay, event="duplicate_publisher")


def test_hosts_that_throw_each_other_out_are_noticed(relay, attach):  # noqa: F811
    raspi = relay.add_device("raspi")
    relay.ctl("limit", "--principal", "raspi", "sessions", "1")
    sessions = [attach(raspi) for _ in range(4)]
    event(relay, event="duplicate_publisher", principal="raspi", peer="127.0.0.1")
    assert counted(relay, event="logout", principal="raspi", reason="superseded") == 3
    assert sessions[-1].alive()


# ---- floods, neighbours, full disks


def flood(peer, names, times=1):
    """Refused opens: each name `times` times."""
    for i in range(0, names, 100):
        with peer.one_segment():
            for n in range(i, min(i + 100, names)):
                for _ in range(times):
                    peer.direct(f"no{n}".encode(), 1)


def test_a_flood_becomes_few_rows_and_all_of_it_is_counted(relay, attach):  # noqa: F811
    mallet = attach(relay.add_client("mallet"))
    flood(mallet, 1, 3000)
    flood(mallet, 3000)
    until(lambda: {"event": "connect", "reason": "not_reachable", "count": 6000} in relay.ctl("status")["events"], 30,
          lambda: f"6000; have {relay.ctl('status')['events']}")
    assert counted(relay, event="connect", principal="mallet", reason="not_reachable") == 6000
    began, *_, ended = [row["time"] for row in events(relay, event="connect")]
    seconds = int(ended[-3:-1]) - int(began[-3:-1]) + (60 if ended[-6:-4] != began[-6:-4] else 0) + 1
    assert len(events(relay, event="connect")) <= (128 + 5) * (seconds + 1), "a second brings some 130 rows at most"
    assert mallet.alive()


def test_a_flood_washes_nobody_elses_trail_away(make_relay, attach):  # noqa: F811
    relay = make_relay(event_count=50)
    for tenant in ("mine", "theirs"):
        relay.add_tenant(tenant)
    alice = relay.add_client("alice", tenant="mine")
    assert alice.run(command=["whoami"]).returncode == 0
    mallet = attach(relay.add_client("mallet", tenant="theirs"))
    before = events(relay, tenant="mine")
    assert [row["event"] for row in before] == ["command", "login", "logout"]
    flood(mallet, 400)
    until(lambda: counted(relay, tenant="theirs", event="connect") > 0 and len(events(relay, tenant="theirs")) <= 50,
          what=lambda: f"50 rows; have {len(events(relay, tenant='theirs'))}")
    assert events(relay, tenant="mine") == before
    event(relay, tenant="", event="command", object="add-tenant mine")


def test_a_full_disk_delays_nobody_and_is_recorded(make_relay, disk, attach, keys):  # noqa: F811
    state = os.path.join(disk, "state")
    os.mkdir(state, 0o700)
    relay = make_relay(state_dir=state)
    relay.state = state
    device, client = attach(relay.add_device("eve")), attach(relay.add_client("alice"))
    mallet = attach(relay.add_client("mallet"))
    assert device.publish(b"eve", 1) == 1
    there, here = bridge(device, client)
    written = relay.ctl("status")["counters"]["events_written"]
    fill(disk)
    flood(mallet, 2000)
    relay.wait_log("the audit trail cannot be written, and waits")
    here.send(b"hello")
    assert there.read(5) == b"hello"
    bridge(device, client)
    status = relay.ctl("status")
    assert status["counters"]["store_errors"] > 0 and status["queues"]["events"] >= 0
    began = time.monotonic()
    relay.ctl("disconnect", "mallet")
    assert time.monotonic() - began < 3 * SLOW
    os.remove(os.path.join(disk, "fill"))
    relay.wait_log("the audit trail can be written again")
    until(lambda: counted(relay, event="connect", principal="mallet") == 2000, 30, "all that has waited")
    assert relay.ctl("status")["counters"]["events_written"] > written
    began = time.monotonic()
    relay.ctl("remove-client", "alice")
    assert time.monotonic() - began < 3 * SLOW
    client.wait_end()


def test_a_locked_database_is_waited_for(relay, attach):  # noqa: F811
    mallet, alice = attach(relay.add_client("mallet")), relay.add_client("alice")
    until(lambda: events(relay, event="login"), what="the login")
    with contextlib.closing(sqlite3.connect(os.path.join(relay.state, "relayd.db"), isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        flood(mallet, 1000)
        relay.wait_log("the audit trail cannot be written, and waits: database is locked")
        assert alice.run(command=["whoami"]).returncode == 0
        db.execute("ROLLBACK")
    until(lambda: counted(relay, event="connect") == 1000, 30, lambda: f"1000; have {counted(relay, event='connect')}")
    assert counted(relay, principal="alice", event="login") == 1


def test_what_finds_no_room_is_counted_and_recorded(make_faulty, faults, attach):  # noqa: F811
    """In this build there is room for 1000 rows: while nothing can be written, a tenant soon has its half of that."""
    relay = make_faulty()
    relay.add_tenant("theirs")
    floods = [attach(relay.add_client(f"mallet{i}", tenant="theirs")) for i in range(12)]
    alice = attach(relay.add_client("alice"))
    until(lambda: counted(relay, event="login") == 13, what="the logins")
    faults.read_only(True)
    for mallet in floods:
        flood(mallet, 120)
        mallet.alive()
    flood(alice, 3)
    until(lambda: relay.ctl("status")["counters"]["events_dropped"], what="some that were dropped")
    relay.wait_log("the audit trail cannot be written, and waits")
    faults.read_only(False)
    until(lambda: events(relay, event="events_dropped"), 20, "the number of what was lost")
    dropped = relay.ctl("status")["counters"]["events_dropped"]
    assert counted(relay, event="events_dropped") == counted(relay, event="events_dropped", tenant="theirs") == dropped
    assert counted(relay, event="connect", tenant="theirs") + dropped == 12 * 120
    assert counted(relay, event="connect", principal="alice") == 3


def test_nothing_is_lost_at_the_stop(relay, attach):  # noqa: F811
    mallet = attach(relay.add_client("mallet"))
    flood(mallet, 50)
    relay.restart()
    assert counted(relay, event="connect", principal="mallet") == 50
    event(relay, event="logout", principal="mallet", reason="shutdown")


# ---- how long


def test_what_is_too_old_goes(make_relay):
    relay = make_relay(event_age="3s")
    relay.add_tenant("acme")
    event(relay, event="command", object="add-tenant acme")
    until(lambda: events(relay, event="command") == [], 15, "it grows too old")


def test_a_lower_count_prunes(relay, attach):  # noqa: F811
    mallet = attach(relay.add_client("mallet"))
    flood(mallet, 60)
    until(lambda: counted(relay, event="connect") == 60, what="60 events")
    assert len(events(relay, tenant="default")) > 50
    relay.options["event_count"] = 10
    relay.restart()
    until(lambda: len(events(relay, tenant="default")) == 10, what=lambda: f"10; have {len(events(relay))}")


def test_a_tenant_of_an_old_name_reads_nothing_of_it(relay):
    relay.add_tenant("acme")
    relay.add_client("alice", tenant="acme")
    assert len(events(relay, tenant="acme")) == 1
    relay.ctl("remove-tenant", "acme")
    relay.add_tenant("acme")
    assert events(relay, tenant="acme") == []
    assert len(events(relay, principal="control")) == 4


def test_that_a_key_is_another_tenants_only_the_relay_learns(relay, keys):
    """The peer is told the same as anybody, and no tenant's administrator sees that it was tried."""
    relay.add_tenant("acme")
    boss, chief = relay.add_admin("boss"), relay.add_admin("chief", tenant="acme")
    key = keys.new()
    with open(key + ".pub") as f:
        assert chief.order("add-client", "--name", "visitor", *f.read().split())[0] == 0
    said = set()
    for asking in (relay.stranger(user="acme"), relay.stranger(key=boss.key, user="acme"),
                   relay.stranger(key=key, user="nobody")):
        done = asking.run("-o", "LogLevel=ERROR", command=["whoami"])
        said.add((done.returncode, done.stdout, re.sub(r"^\S+@", "", done.stderr)))
    assert len(said) == 1 and said.pop()[0] == 255
    rows = until(lambda: events(relay, event="login", reason="unknown_key", tenant=""), what="the refusals")
    told = {row["object"].split()[1]: row["cause"] for row in rows}
    assert told.pop(fingerprint(boss.key)) == told.pop(fingerprint(key)) == "other_tenant"
    assert list(told.values()) == ["unknown_key"]
    for admin in (boss, chief):
        status, rows = admin.order("events", "--since", "1d")
        assert status == 0 and rows and not {row["cause"] for row in rows} & {"unknown_key", "other_tenant"}


def test_a_tenants_administrator_reads_his_own_and_nothing_else(relay):
    relay.add_tenant("acme")
    boss = relay.add_admin("boss", tenant="acme")
    relay.add_client("alice")
    relay.add_client("mallory", tenant="acme")
    assert relay.stranger().run(command=["whoami"]).returncode == 255
    assert boss.order("remove-client", "mallory")[0] == 0
    assert boss.order("remove-client", "alice")[1]["error"]["code"] == "not_found"
    for args in ([], ["--after", "0"], ["--since", "1d"], ["--principal", "control"], ["--principal", "alice"]):
        status, rows = boss.order("events", *args)
        assert status == 0 and {row["tenant"] for row in rows} <= {"acme"}, (args, rows)
    status, rows = boss.order("events", "--principal", "boss")
    assert [(row["object"], row["reason"], row["address"]) for row in rows if row["principal"] == "boss" and
            row["event"] == "command"] == [("remove-client mallory", "", "127.0.0.1"),
                                           ("remove-client alice", "not_found", "127.0.0.1")]


# ---- relayctl events


def follow(relay, *args):
    return relay.procs.spawn_pipes([RELAYCTL, "--control-socket", relay.socket, *args, "events", "--follow"])


def line(proc, timeout=10):
    """The next one that it prints."""
    text = b""
    while not text.endswith(b"\n"):
        assert select.select([proc.stdout], [], [], timeout * SLOW)[0], f"no line; {text!r}, {proc.err()}"
        text += os.read(proc.stdout.fileno(), 1)
    return text.decode()


def test_the_latest_are_shown_and_pages_go_on(relay):
    for i in range(12):
        relay.ctl("limit", "bridges", i + 1)
    latest = relay.ctl("events", "--tenant", "default", "--count", 3)
    assert [row["object"] for row in latest] == [f"limit bridges {i}" for i in (10, 11, 12)]
    first = relay.ctl("events", "--tenant", "default", "--after", 0, "--count", 2)
    assert [row["object"] for row in first] == ["limit bridges 1", "limit bridges 2"]
    after = relay.ctl("events", "--tenant", "default", "--after", first[1]["id"])
    assert [row["object"] for row in after] == [f"limit bridges {i}" for i in range(3, 13)]
    assert relay.ctl("events", "--since", "2100-01-01") == []
    refused(relay, "bad_argument", "events", "--since", "soon", says="8h")
    refused(relay, "bad_argument", "events", "--count", "many", says="--count")
    refused(relay, "not_found", "events", "--tenant", "nobody")
    assert relay.ctl("status", "--follow", check=False).returncode == 2


def test_since_turns_pages_by_itself(relay, attach):  # noqa: F811
    for client in [relay.add_client(f"c{i}") for i in range(11)]:
        flood(attach(client), 100)
    until(lambda: relay.ctl("status")["counters"]["events_written"] > 1100, 20, "all is written")
    rows = events(relay)
    ids = [row["id"] for row in rows]
    assert len(rows) > 1000 and ids == sorted(set(ids)) and len(ids) == ids[-1] - ids[0] + 1
    assert len(relay.ctl("events", "--since", "1d", json=False).splitlines()) >= len(rows)


def test_follow_prints_what_comes_and_outlives_a_restart(relay):
    relay.ctl("limit", "bridges", 1)
    proc = follow(relay, "--json", "--tenant", "default")
    assert json.loads(line(proc))["object"] == "limit bridges 1"
    relay.ctl("limit", "bridges", 2)
    assert json.loads(line(proc))["object"] == "limit bridges 2"
    relay.stop()
    until(lambda: "waiting for relayd" in proc.err(), what="it waits")
    relay.start()
    relay.ctl("limit", "bridges", 3)
    assert json.loads(line(proc))["object"] == "limit bridges 3"
    proc.signal(signal.SIGINT)
    assert proc.wait() == 0
