"""Administrators of a tenant: what they may do over SSH, and that it ends at their tenant."""

import json
import os
import re
import sqlite3
import threading

import paramiko
import pytest
from control import ControlSocket
from faults import faults, make_faulty  # noqa: F401
from hostile import WINDOW_ADJUST, attach  # noqa: F401
from net import echoes
from procs import until
from relay import TOP
from test_batch import make_key
from test_control_master import Master
from test_shell import read_until


def roles():
    """Who may run what, as the table says: {"add-device": {"ADMIN", "TENANT"}}."""
    with open(os.path.join(TOP, "schema", "commands.def")) as f:
        rows = re.findall(r'^COMMAND\(\w+, "([^"]*)",(?:\s*"[^"]*")+,\s*([A-Z| ]+),', f.read(), re.M)
    return {words: set(mask.split(" | ")) for words, mask in rows}


OF_THE_RELAY = {"add-tenant", "remove-tenant", "list tenants", "limit", "status", "reload"}
OF_TENANTS = {
    "add-device", "add-client", "add-key", "set-admin", "remove-device", "remove-client", "remove-key", "remove-pending",
    "remove-endpoint", "rename", "allow", "disallow", "move-endpoint", "set-endpoint", "list devices", "list clients",
    "list keys", "list pending", "list endpoints", "list sessions", "list bridges", "show", "events", "disconnect",
    "host-key"}


@pytest.fixture
def acme(relay):
    """A tenant with an administrator, beside another with a device, a client and a session."""
    relay.add_tenant("acme")
    relay.add_tenant("other")
    return relay.add_admin("boss", tenant="acme")


def refused(principal, code, *words):
    status, answer = principal.order(*words)
    assert set(answer) == {"error"}, (words, status, answer)
    assert status == (2 if code in ("unknown_command", "bad_argument") else 1), (words, status, answer)
    assert answer["error"]["code"] == code and len(answer["error"]["message"]) > 10, (words, answer)
    return answer["error"]["message"]


def done(principal, *words):
    status, answer = principal.order(*words)
    assert status == 0, (words, status, answer)
    return answer


def line_of(key):
    with open(key + ".pub") as f:
        return f.read().strip()


# ---- what they may do


def test_a_change_is_told_in_the_words_of_relayctl(relay, keys, acme):
    """Without --json it is a sentence, not the document."""
    told = acme.run(command=["add-device", "--name", "pi", line_of(keys.new())]).stdout
    assert re.fullmatch(rb"added device pi SHA256:\S{43}\nnote: this key must log in as user acme\n", told), told
    assert acme.run(command=["rename", "pi", "raspi"]).stdout == b"renamed raspi\n"
    for words in (["allow", "raspi", "web:80"], ["set-endpoint", "raspi:22", "--note", "here"], ["host-key"]):
        told = [relay.ctl("--tenant", "acme", *words, json=False), acme.run(command=words).stdout.decode(),
                relay.ctl("--tenant", "acme", *words, json=False)]
        assert told[1] == told[2], words


def test_a_list_has_a_line_for_each_row_but_on_a_terminal(relay, acme):
    """grep needs that; whoever reads it in a narrow window needs the other."""
    name = "a-device-with-quite-a-long-name-" + "x" * 31
    relay.add_device(name, tenant="acme", allow=["web:80,443", "shop:80,443"])
    _, row = acme.run(command=["list", "devices"]).stdout.decode().splitlines()
    assert row.startswith(name) and "shop:80,443" in row and len(row) > 80
    terminal = acme.ssh_pty("-tt", command=["list", "devices"], columns=80)
    assert terminal.wait() == 0
    assert re.search(rf"^name: +{name}\r\n", terminal.output(), re.M), terminal.output()


def test_a_tenant_runs_itself(relay, net, keys, acme):
    """Every one of its commands, with plain ssh, and a tunnel between what it has registered."""
    pi, alice, spare = keys.new(), keys.new(), keys.new()
    added = done(acme, "add-device", "--name", "pi", "--allow", "web", line_of(pi))
    assert (added["status"], added["tenant"], added["kind"]) == ("added", "acme", "device")
    assert done(acme, "add-client", "--name", "alice", *line_of(alice).split())["rules"] == ["*"]
    device = relay.stranger("pi", key=pi, tenant="acme")
    client = relay.stranger("alice", key=alice, tenant="acme")
    echo = net.echo()
    device.publish(f"7:localhost:{echo.port}", f"web:80:localhost:{echo.port}", expect=["pi:7", "web:80"])
    assert client.through_W("pi:7").finish(b"hello") == (0, b"hello")

    assert [row["name"] for row in done(acme, "list", "devices")] == ["pi"]
    assert {row["name"]: row["admin"] for row in done(acme, "list", "clients")} == {"alice": False, "boss": True}
    assert {row["principal"] for row in done(acme, "list", "keys")} == {"alice", "boss", "pi"}
    assert {f"{row['name']}:{row['port']}" for row in done(acme, "list", "endpoints")} == {"pi:7", "web:80"}
    assert {row["principal"] for row in done(acme, "list", "sessions")} == {"boss", "pi"}
    assert done(acme, "list", "bridges") == []
    assert done(acme, "show", "pi")["rules"] == ["web"] and done(acme, "show")["tenant"] == "acme"
    assert done(acme, "host-key")["fingerprint"].startswith("SHA256:")

    assert done(acme, "add-key", "alice", line_of(spare))["status"] == "added"
    fingerprint = done(acme, "show", "alice")["keys"][1]["fingerprint"]
    assert done(acme, "remove-key", "alice", fingerprint)["status"] == "removed"
    assert done(acme, "allow", "alice", "web:80")["rules"] == ["*", "web:80"]
    assert done(acme, "disallow", "alice", "*")["rules"] == ["web:80"]
    assert client.run("-W", "pi:7").returncode == 255
    assert client.through_W("web:80").finish(b"still") == (0, b"still")
    assert done(acme, "rename", "alice", "bob")["name"] == "bob"

    done(acme, "add-device", "--name", "pi2", "--allow", "web", line_of(spare))
    assert done(acme, "set-endpoint", "web:80", "--note", "it's the \"shop\"")["note"] == "it's the \"shop\""
    assert done(acme, "move-endpoint", "web", "pi2")["closed"]["sessions"] == 1
    assert done(acme, "remove-endpoint", "web")["status"] == "removed"
    device.publish(f"7:localhost:{echo.port}", expect="pi:7")
    session = next(row["id"] for row in done(acme, "list", "sessions") if row["principal"] == "pi")
    assert done(acme, "disconnect", session)["closed"]["sessions"] == 1
    assert "connect" in [row["event"] for row in done(acme, "events")]

    asking = [relay.stranger(user="acme+enrol") for _ in range(2)]
    for stranger in asking:
        stranger.run("-N")
    until(lambda: len(done(acme, "list", "pending")) == 2, what="both ask")
    assert done(acme, "remove-pending", asking[0].fingerprint)["status"] == "removed"
    assert done(acme, "add-client", "--name", "carol", "--pending", asking[1].fingerprint)["status"] == "added"
    assert done(relay.stranger(key=asking[1].key, tenant="acme"), "whoami")["name"] == "carol"

    assert done(acme, "set-admin", "bob", "on")["admin"] is True
    assert done(client, "list", "devices") and done(client, "whoami")["admin"] is True
    assert done(acme, "set-admin", "bob", "off")["admin"] is False
    assert done(acme, "remove-device", "pi")["status"] == "removed"
    assert done(acme, "remove-client", "bob")["status"] == "removed"
    assert [row["name"] for row in relay.list("devices", "acme")] == ["pi2"]


def test_the_log_says_who_did_it(relay, keys, acme):
    since = relay.mark()
    done(acme, "add-device", "--name", "pi", line_of(keys.new()))
    refused(acme, "not_found", "remove-device", "nosuch")
    relay.wait_log(r"tenant=acme principal=boss session=\d+ control: add-device --name pi SHA256:\S+: added pi", since)
    relay.wait_log(r"tenant=acme principal=boss session=\d+ control: remove-device refused: not_found", since)


def test_everything_else_is_unknown(relay, raspi, alice, acme):
    """To a tenant's administrator what is the relay's; to a client and a device what is the administrators'."""
    table = roles()
    assert OF_THE_RELAY == {words for words, who in table.items() if who == {"ADMIN"}}
    assert OF_TENANTS == {words for words, who in table.items() if "TENANT" in who}
    for words, who in table.items():
        for principal, role in ((acme, "TENANT"), (alice, "CLIENT"), (raspi, "DEVICE")):
            if role in who or (role == "TENANT" and "CLIENT" in who):
                continue
            assert "no such command" in refused(principal, "unknown_command", *words.split(), "x")
    assert [row["name"] for row in relay.list("tenants")] == ["acme", "default", "other"]


def test_help_shows_what_one_may(relay, alice, acme):
    mine, plain = ({row["command"].split(" [")[0].strip() for row in done(who, "help")} for who in (acme, alice))
    assert "list devices" in mine and "help" in plain and "list devices" not in plain
    assert not OF_THE_RELAY & {" ".join(words.split()[:2]) for words in mine}


def test_the_rules_of_a_command_line(relay, keys, acme):
    key = line_of(keys.new()).rsplit(" ", 1)[0]
    done(acme, "add-device", "--name", "pi", f"{key} it's \"mine\" \\ here")
    assert done(acme, "list", "keys")[1]["comment"] == "it's \"mine\" \\ here"
    for line in ["", " ", "''", "list", "list 'devices ", "LIST DEVICES", "list devices x", "show --tenant other",
                 "add-client --admin=yes k", "set-admin boss ON", "x" * 70000, "show " + "y" * 20000]:
        answer = acme.run(command=[line]) if line else None
        assert answer is None or (answer.returncode in (1, 2) and answer.stderr.startswith("relayd: ")), (line, answer)


def test_an_error_in_text_and_in_json(acme):
    text = acme.run(command=["remove-device nosuch"])
    assert (text.returncode, text.stdout) == (1, b""), text
    assert text.stderr.startswith("relayd: tenant acme has no device"), text.stderr
    assert "nosuch" in refused(acme, "not_found", "remove-device", "nosuch")


# ---- the wall between tenants


def test_a_key_of_another_tenant_looks_like_any_other(relay, keys, acme):
    """Whether it is added to a new device, or to one that is there: word by word the same answers."""
    fresh, theirs = keys.new(), relay.add_device("victim", tenant="other", user="pi").key
    answers = []
    for key in (fresh, theirs):
        key = line_of(key).rsplit(" ", 1)[0]
        mine = [done(acme, "add-device", "--name", "mine", key), done(acme, "add-device", "--name", "mine", key),
                done(acme, "list", "keys"), done(acme, "show", "mine"), done(acme, "remove-device", "mine"),
                done(acme, "add-key", "boss", key), done(acme, "show", "boss")["keys"][1]]
        done(acme, "remove-key", "boss", mine[-1]["fingerprint"])
        answers.append(re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "NOW",
                              json.dumps(mine).replace(mine[0]["fingerprint"], "FINGERPRINT")))
    assert answers[0] == answers[1] and "home" not in answers[0]


def test_registering_another_tenants_key_takes_nothing_from_it(relay, net, acme):
    """Neither its login, nor its name, nor its sessions."""
    echo = net.echo()
    victim = relay.add_device("victim", tenant="other", user="pi")
    friend = relay.add_client("friend", tenant="other", user="pi")
    serving = victim.publish(f"7:localhost:{echo.port}", expect="victim:7")
    for who in (victim, friend):
        done(acme, "add-device", "--name", who.name, line_of(who.key))
    assert done(victim, "whoami")["tenant"] == "other" and done(friend, "whoami")["kind"] == "client"
    assert friend.through_W("victim:7").finish(b"mine") == (0, b"mine")
    for who in (victim, friend):
        done(acme, "rename", who.name, "taken-" + who.name)
        done(acme, "remove-device", "taken-" + who.name)
    assert serving.running and done(victim, "whoami")["tenant"] == "other"
    again = victim.publish(f"8:localhost:{echo.port}", expect="victim:8")
    assert again.running and friend.through_W("victim:8").finish(b"x") == (0, b"x")


def test_a_key_that_was_registered_first_by_a_tenant_takes_nothing_either(relay, acme, keys):
    """The trap is set before the victim is known at all."""
    key = keys.new()
    done(acme, "add-device", "--name", "trap", line_of(key))
    nobody = relay.stranger("victim", key=key, user="pi")
    assert nobody.run(command=["whoami"]).returncode == 255
    victim = relay.add_device("victim", tenant="other", key=key, user="pi")
    assert done(victim, "whoami")["tenant"] == "other"
    done(acme, "remove-device", "trap")
    assert done(victim, "whoami")["tenant"] == "other"


def test_a_key_without_a_home_logs_in_as_its_tenant(relay, keys, acme):
    key = keys.new()
    assert "user acme" in done(acme, "add-client", "--name", "alice", line_of(key))["note"]
    assert done(relay.stranger(key=key, user="acme"), "whoami")["name"] == "alice"
    for user in ("alice", "default", "other", "Acme"):
        assert relay.stranger(key=key, user=user).run(command=["whoami"]).returncode == 255
    again = relay.ctl("add-client", "--tenant", "acme", "--name", "alice", key + ".pub")
    assert again["status"] == "unchanged" and "no home" in again["note"]


def test_sessions_and_names_of_others_are_not_there(relay, net, keys, acme):
    victim = relay.add_device("victim", tenant="other")
    serving = victim.publish(f"7:localhost:{net.echo().port}", expect="victim:7")
    happened = str(done(acme, "events"))
    assert "boss" in happened and "victim" not in happened and "other" not in happened
    (row,) = relay.list("sessions", "other")
    nowhere = refused(acme, "not_found", "disconnect", 999999)
    assert refused(acme, "not_found", "disconnect", row["id"]) == nowhere.replace("999999", str(row["id"]))
    for words in (["disconnect", "victim"], ["show", "victim"], ["remove-device", "victim"], ["rename", "victim", "x"],
                  ["allow", "victim", "*"], ["remove-key", "victim", victim.fingerprint], ["remove-endpoint", "victim"],
                  ["set-admin", "victim", "on"], ["add-key", "victim", line_of(keys.new())]):
        assert "other" not in refused(acme, "not_found", *words)
    for tenant in ("other", "acme"):
        assert "unknown option" in refused(acme, "bad_argument", "list", "devices", "--tenant", tenant)
    done(acme, "add-device", "--name", "victim", line_of(keys.new()))  # the name is free here
    relay.stranger(user="other+enrol").run("-N")
    until(lambda: relay.list("pending", "other"), what="it asks the other")
    assert done(acme, "list", "pending") == []
    seen = str([done(acme, "list", what) for what in ("devices", "clients", "keys", "endpoints", "sessions", "bridges")])
    assert "other" not in seen and victim.fingerprint not in seen and serving.running


def test_a_tenant_of_the_same_name_is_another(relay, acme):
    """Who is logged in when its tenant is removed and made anew has no part in the new one."""
    master = Master(acme)
    relay.ctl("remove-tenant", "acme")
    master.proc.wait()
    relay.add_tenant("acme")
    assert acme.run(command=["list", "devices"]).returncode == 255


# ---- losing the right


def test_demotion_holds_at_once_for_sessions_that_are_up(relay, acme):
    master = Master(acme)
    mux = ("-S", master.path)
    assert acme.order("list", "devices", options=mux) == (0, [])
    assert relay.ctl("set-admin", "--tenant", "acme", "boss", "off")["closed"] == {"sessions": 0, "bridges": 0}
    status, answer = acme.order("list", "devices", options=mux)
    assert status == 2 and answer["error"]["code"] == "unknown_command"
    relay.ctl("set-admin", "--tenant", "acme", "boss", "on")
    assert acme.order("list", "devices", options=mux) == (0, [])
    assert master.proc.running


@pytest.mark.parametrize("words", [["remove-client", "boss"], ["set-admin", "boss", "off"], ["disconnect", "boss"],
                                   ["remove-key", "boss", "KEY"]], ids=lambda words: words[0])
def test_who_ends_itself_gets_the_answer_and_is_closed(words, relay, net, acme):
    """Its bridges go at once, its session when the answer has arrived."""
    device = relay.add_device("pi", tenant="acme")
    device.publish(f"7:localhost:{net.echo().port}", expect="pi:7")
    master = Master(acme)
    bridge = acme.ssh_pipes("-S", master.path, "-W", "pi:7")
    bridge.stdin.write(b"here")
    bridge.stdin.flush()
    assert bridge.stdout.read(4) == b"here"
    since = relay.mark()
    words = [acme.fingerprint if word == "KEY" else word for word in words]
    status, answer = acme.order(*words, options=("-S", master.path))
    assert status == 0 and answer["closed"] == {"sessions": 1, "bridges": 1}, answer
    assert bridge.stdout.read() == b""
    master.proc.wait()
    why = "disconnected by" if words[0] == "disconnect" else "removed or narrowed"
    relay.wait_log(rf"principal=boss session=\d+ closed: .*{why}", since)


def test_who_leaves_may_do_nothing_any_more(relay, net, acme):
    """Even if it keeps its connection: a shell holds it open for as long as relayd lets it."""
    device = relay.add_device("pi", tenant="acme")
    device.publish(f"7:localhost:{net.echo().port}", expect="pi:7")
    transport = acme.paramiko()
    try:
        shell, other = transport.open_session(), transport.open_session()
        shell.invoke_shell()
        order = transport.open_session()
        order.exec_command("--json remove-client boss")
        assert order.recv_exit_status() == 0
        with pytest.raises((paramiko.SSHException, EOFError)):
            transport.open_channel("direct-tcpip", ("pi", 7), ("localhost", 1))
        with pytest.raises((paramiko.SSHException, EOFError)):
            other.exec_command("list devices")
            assert other.recv_exit_status() == 0
            raise AssertionError("it still runs commands")
        until(lambda: not transport.is_active(), what="the end of the connection")
    finally:
        transport.close()


def test_renaming_oneself_ends_nothing(relay, acme):
    master = Master(acme)
    status, answer = acme.order("rename", "boss", "chief", options=("-S", master.path))
    assert status == 0 and answer["closed"] == {"sessions": 0, "bridges": 0}
    status, answer = acme.order("whoami", options=("-S", master.path))
    assert (status, answer["name"]) == (0, "chief") and master.proc.running


def test_the_last_administrator_may_go(relay, acme):
    assert done(acme, "remove-client", "boss")["status"] == "removed"
    assert relay.list("clients", "acme") == []
    relay.ctl("add-client", "--tenant", "acme", "--name", "boss", "--admin", acme.pub)
    assert done(acme, "list", "devices") == []


def test_two_administrators_remove_each_other(relay, keys, acme):
    """One of them is first, and the other can do nothing any more: never do both succeed."""
    for _ in range(10):
        pair = [relay.add_admin(f"a{i}", tenant="acme") for i in range(2)]
        masters = [Master(who) for who in pair]
        outcomes = [None, None]
        start = threading.Barrier(2)

        def order(i, pair=pair, masters=masters, outcomes=outcomes, start=start):
            start.wait()
            outcomes[i] = pair[i].run("-S", masters[i].path, command=[f"remove-client a{1 - i} --json"])

        threads = [threading.Thread(target=order, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        left = [row["name"] for row in relay.list("clients", "acme") if row["name"] != "boss"]
        assert len(left) == 1, outcomes
        winner = int(left[0][1])
        assert [outcome.returncode == 0 for outcome in outcomes] == [winner == 0, winner == 1], outcomes
        relay.ctl("remove-client", "--tenant", "acme", left[0])


# ---- a slow registry


@pytest.fixture
def slow(make_faulty, faults):  # noqa: F811
    """(relay, administrator, hold): from hold(True) on the keeper waits for the disk, without end."""
    relay = make_faulty()
    relay.add_tenant("acme")
    boss = relay.add_admin("boss", tenant="acme")
    yield relay, boss, faults
    faults.hold_sync(False)


def held(faults, principal, *words):  # noqa: F811
    """Start an order, and wait until the keeper is at it."""
    before = faults.syncs
    faults.hold_sync(True)
    order = principal.ssh_pipes(command=[" ".join(words) + " --json"])
    until(lambda: faults.syncs > before, what="the disk is waited for")
    return order


def test_traffic_goes_on_while_a_command_waits(slow, net, keys):
    relay, boss, disk = slow
    pi, alice = relay.add_device("pi", tenant="acme"), relay.add_client("alice", tenant="acme")
    pi.publish(f"7:localhost:{net.echo().port}", expect="pi:7")
    _, (port,) = alice.local("pi:7")
    sock = net.connect(port)
    assert echoes(sock, b"before")
    order = held(disk, boss, "add-device", "--name", "new", *line_of(keys.new()).split())
    for _ in range(20):
        assert echoes(sock, b"meanwhile")
    assert alice.through_W("pi:7").finish(b"a login too") == (0, b"a login too")
    assert done(alice, "whoami")["name"] == "alice" and order.running
    disk.hold_sync(False)
    assert order.wait() == 0
    assert "new" in [row["name"] for row in relay.list("devices", "acme")]


def test_who_leaves_before_the_answer_changes_nothing_of_it(slow, keys):
    relay, boss, disk = slow
    since = relay.mark()
    disk.hold_sync(True)
    transport = boss.paramiko()
    transport.open_session().exec_command("add-device --name new " + line_of(keys.new()))  # it is under way then
    transport.close()
    relay.wait_log(r"principal=boss session=\d+ closed", since)
    disk.hold_sync(False)
    until(lambda: "new" in [row["name"] for row in relay.list("devices", "acme")], what="what was begun")
    relay.wait_log(r"principal=boss session=\d+ control: add-device --name new SHA256:\S+: added new", since)


def test_a_command_that_takes_too_long_is_answered(slow, keys):
    relay, boss, disk = slow
    orders = [held(disk, boss, "add-device", "--name", "new", *line_of(keys.new()).split()),
              boss.ssh_pipes(command=["add-device --json --name late " + line_of(keys.new())])]
    answers = [(proc.wait(), json.loads(proc.stdout.read())["error"]["code"]) for proc in orders]
    assert [status for status, _ in answers] == [1, 1] and answers[1][1] == "store_unavailable", answers
    assert answers[0][1] in ("timeout", "store_unavailable"), answers
    disk.hold_sync(False)
    begun = ["new"] if answers[0][1] == "timeout" else []  # or the keeper was still at what came before it
    until(lambda: [row["name"] for row in relay.list("devices", "acme")] == begun, what="only what was begun")


def test_commands_under_way_are_bounded(slow, keys):
    """Those of one administrator, however many sessions he has; others have their own."""
    relay, boss, disk = slow
    other = relay.add_admin("other", tenant="acme")
    transports = [boss.paramiko() for _ in range(2)]
    try:
        order = held(disk, other, "add-device", "--name", "new", *line_of(keys.new()).split())
        channels = []
        for i in range(10):
            channels.append(transports[i % 2].open_session())
            channels[-1].exec_command("--json list devices")
        refusals = [channel for channel in channels[8:] if channel.recv_exit_status() == 1]
        assert len(refusals) == 2
        assert all(b"too_many_requests" in channel.recv(65536) for channel in refusals)
        assert not any(channel.exit_status_ready() for channel in channels[:8])
        disk.hold_sync(False)
        assert [channel.recv_exit_status() for channel in channels[:8]] == [0] * 8 and order.wait() == 0
        again = transports[0].open_session()
        again.exec_command("--json list devices")
        assert again.recv_exit_status() == 0
    finally:
        for transport in transports:
            transport.close()


def test_others_leave_an_administrator_room(slow):
    """Half of what a tenant may have under way."""
    relay, boss, disk = slow
    relay.add_device("old", tenant="acme")
    people = [relay.add_client(f"c{i}", tenant="acme") for i in range(3)]
    transports = [person.paramiko() for person in people]
    try:
        order = held(disk, boss, "remove-device", "old")
        asked = [transport.open_session() for transport in transports for _ in range(8)]
        for channel in asked:
            channel.exec_command("--json why")
        until(lambda: sum(channel.exit_status_ready() for channel in asked) >= 8, what="what is too much is refused")
        for channel in [channel for channel in asked if channel.exit_status_ready()]:
            assert channel.recv_exit_status() == 1 and b"too_many_requests" in channel.recv(65536)
        late = boss.ssh_pipes(command=["remove-client c1 --json"])
        until(lambda: len(relay.logged(r"principal=boss session=\d+ logged in")) == 2, what="the administrator's login")
        disk.hold_sync(False)
        assert (order.wait(), late.wait()) == (0, 0)
    finally:
        for transport in transports:
            transport.close()


def test_a_busy_tenant_holds_up_no_other(slow, keys):
    """Of all that it has under way, others wait for one."""
    relay, boss, disk = slow
    transport = boss.paramiko()
    try:
        before = disk.syncs
        disk.hold_sync(True)
        orders = [transport.open_session() for _ in range(9)]
        for i, order in enumerate(orders):
            order.exec_command(f"add-device --name d{i} {line_of(keys.new())}")
        assert orders[8].recv_exit_status() == 1, "all before it are under way"
        until(lambda: disk.syncs > before, what="the disk is waited for")
        with ControlSocket(relay.socket) as relays, ControlSocket(relay.socket) as probe:
            relays.request("add-tenant", {"name": "other"})
            probe.send(b"?\n")
            assert probe.answer()["ok"] is False, "what came before it is under way as well"
            since = relay.mark()
            disk.hold_sync(False)
            assert relays.answer()["ok"] is True
        assert [order.recv_exit_status() for order in orders[:8]] == [0] * 8
        relay.wait_log("control: add-device --name d7 ", since)
        order = [re.search(r"add-(?:tenant|device --name) (\w+)", text)[1] for text in relay.logged("control: add-", since)]
        # It is behind one of them, and those may be logged earlier that have gone through meanwhile.
        assert order.index("other") < 4 and len(order) == 9, order
    finally:
        transport.close()


def test_the_lists_of_a_tenant_are_bounded(relay, keys, acme):
    """Their length is the time that the keeper has for nobody else."""
    with sqlite3.connect(os.path.join(relay.state, "relayd.db")) as db:
        (tenant,) = db.execute("SELECT id FROM tenants WHERE name = 'acme'").fetchone()
        db.executemany("INSERT INTO principals (tenant_id, kind, name, created) VALUES (?, 'client', ?, 0)",
                       ((tenant, f"c{i}") for i in range(2000)))
        rule = "x" * 60 + ".x" * 90
        db.executemany("INSERT INTO rules SELECT id, ? || id FROM principals WHERE name LIKE 'c%'",
                       ((f"{i}.{rule}",) for i in range(20)))
    assert "8 MiB" in refused(acme, "too_many_registered", "list", "clients")
    assert len(done(acme, "list", "keys")) == 1 and len(done(acme, "show", "c7")["rules"]) == 20
    assert len(relay.list("clients", "acme")) == 2001


def test_answers_that_nobody_reads_are_bounded(relay, acme, attach):  # noqa: F811
    """No command is begun for one who has let 16 MiB pile up, until that is read or gone, and his shells hold no more."""
    client = attach(acme)
    shell = client.opened(client.open("session", window=10))
    assert shell.request("shell")
    for first in range(0, 8000, 2000):  # with a sanitizer, all at once would take longer than relayctl waits
        fleet = "\n".join(json.dumps({"name": f"d{i}", "key": make_key()}) for i in range(first, first + 2000)) + "\n"
        relay.ctl("add-device", "--tenant", "acme", "--batch", "-", input=fleet, timeout=60)
    size = len(acme.run(command=["list devices --json"]).stdout)
    room = -(-(16 << 20) // size)
    transport = acme.paramiko()
    try:
        channels = []
        with pytest.raises(paramiko.SSHException):
            while len(channels) <= room + 1:
                channels.append(transport.open_session(window_size=1 << 15))
                channels[-1].exec_command("list devices --json")
                until(channels[-1].recv_ready, what="its first bytes")
        assert room <= len(channels) - 1 <= room + 1, (len(channels), room)
        relay.wait_log(r"principal=boss session=\d+ refused exec .*too_many_requests")
        assert acme.run(command=["whoami"]).returncode == 255, "in another session too"
        for _ in range(3):
            assert client.connect(b"nobody", 22) is None
        client.put(WINDOW_ADJUST, shell.peer, 1 << 20)
        text = read_until(shell, b"were lost here")
        assert "nobody:22" not in text and re.search(r"[345] lines were lost here", text)
    finally:
        transport.close()
    until(lambda: acme.run(command=["whoami"]).returncode == 0, what="room again")


def test_relayd_stops_with_commands_under_way(slow, keys):
    relay, boss, disk = slow
    order = held(disk, boss, "add-device", "--name", "new", *line_of(keys.new()).split())
    waiting = boss.ssh_pipes(command=["add-device --json --name late " + line_of(keys.new())])
    since = relay.mark()
    relay.popen.terminate()
    relay.wait_log("stopping on signal", since)
    disk.hold_sync(False)
    relay.stop()
    order.wait()
    waiting.wait()
