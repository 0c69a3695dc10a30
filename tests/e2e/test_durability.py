"""kill -9 at any moment loses nothing that relayctl was told."""

import os
import shutil
import sqlite3

from control import refused
from keys import public
from procs import until


def everything(relay):
    """All that relayctl can tell of the registry, without what changes by itself."""
    world = {}
    for tenant in [row["name"] for row in relay.list("tenants")]:
        for what in ("devices", "clients"):
            for row in relay.list(what, tenant):
                world[tenant, what, row["name"]] = (sorted(row["rules"]), row["expires"], row["keys"])
        for row in relay.list("keys", tenant):
            world[tenant, "key", row["fingerprint"]] = (row["principal"], row["kind"], row["type"], row["comment"],
                                                        row["home"])
        for row in relay.list("endpoints", tenant):
            world[tenant, "endpoint", row["name"], row["port"]] = row["device"]
        world[tenant] = "tenant"
    return world


def wait_stored(relay, name):
    """Wait until the row of a published name is on disk: it is written behind."""
    path = os.path.join(relay.state, "relayd.db")

    def stored():
        db = sqlite3.connect(path, timeout=5)
        try:
            return db.execute("SELECT count(*) FROM endpoints WHERE name = ?", (name,)).fetchone()[0] > 0
        finally:
            db.close()
    until(stored, what=f"{name} stored")


def test_all_that_relayctl_was_told_is_there_after_kill_9(relay, keys, net):
    relay.add_tenant("acme")
    relay.add_tenant("gone")
    raspi = relay.add_device("raspi", allow=["web.*:80,443", "cam"])
    pub = [keys.new() + ".pub" for _ in range(6)]
    relay.ctl("add-client", "--name", "alice", "--expires", "2099-12-31T18:00:00Z", pub[0])
    relay.ctl("add-key", "alice", pub[1])
    relay.ctl("add-key", "alice", pub[2])
    relay.ctl("remove-key", "alice", relay.ctl("show", "alice")["keys"][2]["fingerprint"])
    relay.ctl("allow", "alice", "printer:9100")
    relay.ctl("disallow", "alice", "*")
    relay.ctl("add-device", "--tenant", "acme", "--name", "raspi", pub[3])
    relay.ctl("add-client", "--tenant", "acme", "--name", "alice", pub[0])
    relay.ctl("add-client", "--name", "removed", pub[4])
    relay.ctl("remove-client", "removed")
    relay.ctl("add-client", "--name", "before", pub[5])
    relay.ctl("rename", "before", "after")
    other = relay.add_device("other", allow=["cam"])
    raspi.publish(f"cam:554:localhost:{net.echo().port}", expect="cam:554").stop()
    relay.wait_withdrawn("cam:554")
    relay.ctl("move-endpoint", "cam", "other")
    relay.ctl("remove-tenant", "gone")
    before = everything(relay)
    assert before["default", "clients", "alice"] == (["printer:9100"], "2099-12-31T18:00:00Z", 2)
    assert before["default", "endpoint", "cam", 554] == "other" and ("default", "clients", "after") in before

    relay.restart(kill=True)
    assert everything(relay) == before
    refused(relay, "not_found", "show", "removed")
    refused(relay, "not_found", "list", "devices", "--tenant", "gone")
    assert "Permission denied" in relay.stranger(key=pub[4][:-4]).run(command=["whoami"]).stderr
    assert b"after" in relay.stranger(key=pub[5][:-4]).run(command=["whoami"]).stdout
    other.publish(f"cam:554:localhost:{net.echo().port}", expect="cam:554")
    assert raspi.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", "cam:554:localhost:1").returncode == 255


def test_each_answer_is_durable_when_it_comes(relay, keys):
    for i in range(8):
        name = f"client{i}"
        relay.ctl("add-client", "--name", name, "--allow", f"n{i}", keys.new() + ".pub")
        relay.restart(kill=True)
        assert relay.ctl("show", name)["rules"] == [f"n{i}"]
        relay.ctl("allow", name, "more")
        relay.restart(kill=True)
        assert relay.ctl("show", name)["rules"] == ["more", f"n{i}"]
    for i in range(0, 8, 2):
        relay.ctl("remove-client", f"client{i}")
        relay.restart(kill=True)
        assert [row["name"] for row in relay.list("clients")] == [f"client{n}" for n in range(8) if n % 2 or n > i]


def test_devices_that_reconnect_have_their_names(relay, net):
    echo = net.echo()
    raspi, alice = relay.add_device("raspi", allow=["shared"]), relay.add_client("alice")
    forwards = [f"7:localhost:{echo.port}", f"web.raspi:80:localhost:{echo.port}", f"shared:443:localhost:{echo.port}"]
    expect = ["raspi:7", "web.raspi:80", "shared:443"]
    proc = raspi.publish(*forwards, expect=expect)
    for target in expect:
        wait_stored(relay, target.split(":")[0])
    client, (port,) = alice.local("raspi:7")
    relay.restart(kill=True)
    assert proc.wait() == 255 and client.wait() == 255, "the clients did not notice"
    rows = {f"{row['name']}:{row['port']}": row for row in relay.list("endpoints")}
    assert set(rows) == set(expect) and not any(row["online"] or row["publishers"] for row in rows.values())
    raspi.publish(*forwards, expect=expect)
    for target in expect:
        assert alice.run("-W", target, input=b"hello").stdout == b"hello"


def test_a_name_outside_its_own_stays_the_devices(relay, net):
    echo = net.echo()
    first, second = relay.add_device("first", allow=["shared"]), relay.add_device("second", allow=["*"])
    first.publish(f"shared:80:localhost:{echo.port}", expect="shared:80")
    wait_stored(relay, "shared")
    relay.restart(kill=True)
    for name in ("shared:80", "SHARED:81", "shared.default:80", "first:1", "web.first:1"):
        since = relay.mark()
        done = second.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{name}:localhost:1")
        assert done.returncode == 255, f"{name} was taken over while its owner was away"
        relay.wait_log(rf'principal=second session=\d+ refused publish "{name}": not_owner: ', since)
    first.publish(f"shared:80:localhost:{echo.port}", expect="shared:80")


def test_the_host_key_and_last_seen_survive(relay):
    alice = relay.add_client("alice")
    alice.run(command=["whoami"])
    seen = until(lambda: relay.list("clients")[0]["last_seen"], what="last_seen")
    line = relay.ctl("host-key", json=False)
    relay.restart(kill=True)
    assert relay.ctl("host-key", json=False) == line
    assert relay.list("clients")[0]["last_seen"] == seen
    assert b"alice" in alice.run(command=["whoami"]).stdout


def test_an_orderly_stop_leaves_a_database_that_stands_alone(relay, keys, folder):
    key = keys.new()
    relay.ctl("add-client", "--name", "alice", key + ".pub")
    relay.stop()
    copy = shutil.copy(os.path.join(relay.state, "relayd.db"), folder)
    db = sqlite3.connect(copy)
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    kind, blob = public(key).split()
    assert db.execute("SELECT type, blob FROM keys").fetchall() == [(kind, blob)]
    db.close()
    relay.start()


def test_a_rolled_back_change_leaves_no_trace(relay, keys):
    """A refused command changes nothing, in the store or in memory."""
    alice = relay.add_client("alice")
    before = everything(relay)
    refused(relay, "bad_rule", "add-device", "--name", "raspi", "--allow", "ok", "--allow", "a:b:c",
            keys.new() + ".pub")
    refused(relay, "in_use", "add-device", "--name", "raspi", "--allow", "ok", alice.pub)
    refused(relay, "bad_name", "rename", "alice", "a b")
    assert everything(relay) == before
    relay.restart(kill=True)
    assert everything(relay) == before


def test_restarts_by_turns_orderly_and_not(relay):
    names = set()
    for i in range(10):
        names.add(relay.add_tenant(f"t{i}")["name"])
        relay.restart(kill=i % 2 == 0)
        assert {row["name"] for row in relay.list("tenants")} == names | {"default"}
    assert not [name for name in os.listdir(relay.state) if name.endswith((".new", ".tmp"))]
