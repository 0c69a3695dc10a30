"""Enrolment: a machine whose key nobody has typed in asks for approval by `ssh enrol@relay`."""

import contextlib
import json
import os
import re
import shutil
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import paramiko
import pytest
from control import refused
from procs import SLOW, until

REGISTERED = "relayd: this key is registered in tenant"


def pending(relay, tenant=None):
    return relay.list("pending", tenant)


def wait_pending(relay, who, tenant=None):
    """The row of this principal's key, once it is there: it is written behind."""
    def row():
        return next((row for row in pending(relay, tenant) if row["fingerprint"] == who.fingerprint), None)
    return until(row, what=lambda: f"{who.fingerprint} in {pending(relay, tenant)}")


def ask(principal):
    """Logs in to enrol; what ssh shows."""
    done = principal.run("-N")
    assert done.returncode == 255, done.stderr
    return done.stderr


def ask_raw(relay, user="enrol", source="127.0.0.1", key=None):
    """The same by paramiko, with a new key; the banner."""
    sock = socket.create_connection(("127.0.0.1", relay.port), 20 * SLOW, source_address=(source, 0))
    transport = paramiko.Transport(sock)
    transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = 20 * SLOW
    try:
        transport.start_client(timeout=20 * SLOW)
        with pytest.raises((paramiko.SSHException, EOFError)):
            transport.auth_publickey(user, key or paramiko.ECDSAKey.generate())
        return (transport.auth_handler.banner or b"").decode()  # get_banner() forgets it at the end
    finally:
        transport.close()


def database(relay):
    return contextlib.closing(sqlite3.connect(os.path.join(relay.state, "relayd.db"), 5, isolation_level=None))


# ---- a machine's way in


def test_a_key_waits_is_approved_and_the_same_command_works(relay, net):
    raspi, alice = relay.stranger("raspi", user="enrol"), relay.add_client("alice")
    shown = ask(raspi)
    assert "this key is not registered yet" in shown and shown.count(raspi.fingerprint) == 2, shown
    command = re.search(r"relayctl (add-device --pending SHA256:\S+ --name) NAME", shown)[1].split()
    row = wait_pending(relay, raspi)
    assert row["type"] == "ssh-ed25519" and row["address"] == "127.0.0.1" and row["unverified_hint"] == "", row
    assert ask(raspi) == shown and len(pending(relay)) == 1

    added = relay.ctl(*command, "raspi")
    assert (added["status"], added["name"], added["fingerprint"]) == ("added", "raspi", raspi.fingerprint)
    assert pending(relay) == []
    assert relay.ctl(*command, "raspi")["status"] == "unchanged", "scripts may repeat themselves"
    session = raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    assert alice.through_W("raspi:7").finish(b"hello") == (0, b"hello")
    assert f"{REGISTERED} default already" in session.err() and raspi.fingerprint not in session.err()


def test_a_tenants_administrator_approves_over_ssh(relay):
    relay.add_tenant("acme")
    boss = relay.add_admin("boss", tenant="acme")
    ours, theirs = relay.stranger(user="acme+enrol+pi"), relay.stranger(user="enrol")
    for who in (ours, theirs):
        ask(who)
    wait_pending(relay, ours, "acme")
    wait_pending(relay, theirs)
    rows = json.loads(boss.via("list", "pending", json=True).stdout)
    assert [row["fingerprint"] for row in rows] == [ours.fingerprint]
    assert boss.via("add-device", "--pending", theirs.fingerprint).returncode == 1
    assert boss.via("remove-pending", theirs.fingerprint).returncode == 1
    assert boss.via("add-device", "--pending", ours.fingerprint, "--name", "pi").returncode == 0
    done = ours.run(command=["whoami"])
    assert done.returncode == 0 and b"acme" in done.stdout, "the key has no home, and needs none here"
    wait_pending(relay, theirs)


def test_it_is_in_the_audit_trail(relay):
    relay.add_tenant("acme")
    raspi = relay.stranger(user="acme+enrol")
    ask(raspi)
    ask(raspi)
    wait_pending(relay, raspi, "acme")
    relay.ctl("--tenant", "acme", "add-device", "--pending", raspi.fingerprint, "--name", "raspi")
    rows = [(row["event"], row["object"], row["reason"], row["address"], row["count"])
            for row in relay.ctl("--tenant", "acme", "events")]
    assert ("enrol", raspi.fingerprint, "", "127.0.0.1", 1) in rows
    assert sum(event == "enrol" for event, *_ in rows) == 1, "asking again changes nothing"
    assert any(event == "command" and what == f"add-device --name raspi --pending {raspi.fingerprint}"
               for event, what, *_ in rows), rows


@pytest.mark.parametrize("user, tenant, hint", [
    ("enrol", "default", ""), ("enrol+kitchen", "default", "kitchen"), ("acme+enrol", "acme", ""),
    ("acme+enrol+pi 4+\x1b[31mr\u00e9d", "acme", "pi 4+?[31mr??d"), ("enrol+" + "x" * 100, "default", "x" * 64),
    ("default+enrol", "default", ""), ("enrol+enrol", "default", "enrol")])
def test_tenants_and_hints(user, tenant, hint, relay):
    relay.add_tenant("acme")
    banner = ask_raw(relay, user)
    until(lambda: pending(relay, tenant), what="the key")
    (row,) = pending(relay, tenant)
    assert row["unverified_hint"] == hint and f"--pending {row['fingerprint']} " in banner
    assert ("--tenant acme" in banner) == (tenant == "acme")
    assert pending(relay, "acme" if tenant == "default" else "default") == []
    text = relay.ctl("list", "pending", "--tenant", tenant, json=False)
    assert "UNVERIFIED HINT" in text and "\x1b" not in text


@pytest.mark.parametrize("user", ["enrol2", "xenrol", "ENROL", "acme+enrol2", "ACME+enrol", "a.b+enrol", "+enrol", "acme+"])
def test_other_user_names_ask_for_nothing(user, relay):
    relay.add_tenant("acme")
    assert ask_raw(relay, user) == ""
    relay.wait_log("refused login .*: unknown_key: ")
    assert pending(relay) == pending(relay, "acme") == []


def test_clients_further_keys_and_tenants(relay):
    relay.add_tenant("acme")
    alice, spare, bob = (relay.stranger(user=user) for user in ("acme+enrol", "acme+enrol", "enrol"))
    for who in (alice, spare, bob):
        ask(who)
    wait_pending(relay, alice, "acme")
    wait_pending(relay, spare, "acme")
    wait_pending(relay, bob)
    refused(relay, "not_found", "add-client", "--pending", alice.fingerprint, says="list pending")
    added = relay.ctl("--tenant", "acme", "add-client", "--pending", alice.fingerprint, "--allow", "raspi:22")
    assert re.fullmatch("key-[0-9a-f]{8}", added["name"]) and added["rules"] == ["raspi:22"]
    relay.ctl("--tenant", "acme", "rename", added["name"], "alice")
    assert relay.ctl("--tenant", "acme", "add-key", "alice", "--pending", spare.fingerprint)["status"] == "added"
    assert pending(relay, "acme") == []
    for who in (alice, spare):
        done = who.run(command=["whoami"])
        assert done.returncode == 0 and b"alice" in done.stdout and f"{REGISTERED} acme" in done.stderr
    relay.ctl("add-client", "--name", "bob", bob.pub)  # typed in after all
    assert pending(relay) == []


def test_what_is_forgotten(relay):
    for _ in range(3):
        ask_raw(relay)
    until(lambda: len(pending(relay)) == 3, what="three keys")
    first = pending(relay)[0]["fingerprint"]
    assert relay.ctl("remove-pending", first)["status"] == "removed"
    refused(relay, "not_found", "remove-pending", first, says=first)
    refused(relay, "not_found", "add-device", "--pending", first)
    assert len(pending(relay)) == 2
    assert relay.ctl("remove-pending", "all")["status"] == "removed"
    assert pending(relay) == [] and relay.ctl("remove-pending", "all")["status"] == "unchanged"


def test_a_key_waits_over_a_restart_and_not_for_ever(relay):
    raspi = relay.stranger(user="enrol")
    ask(raspi)
    wait_pending(relay, raspi)
    relay.restart(kill=True)
    wait_pending(relay, raspi)
    with database(relay) as db:
        db.execute("UPDATE pending_keys SET expires = unixepoch() - 1")
    assert pending(relay) == []
    refused(relay, "not_found", "add-device", "--pending", raspi.fingerprint, says="7 days")
    ask_raw(relay)
    until(lambda: len(pending(relay)) == 1, what="the other key")
    with database(relay) as db:
        assert db.execute("SELECT count(*) FROM pending_keys").fetchone() == (1,), "what has expired is deleted"
    ask(raspi)
    wait_pending(relay, raspi)


# ---- what must not be had that way


def test_a_key_that_is_not_proven_is_not_kept(relay, keys):
    victim = relay.stranger(user="enrol")

    class Impostor(paramiko.Ed25519Key):
        def asbytes(self):
            return paramiko.Ed25519Key.from_private_key_file(victim.key).asbytes()

    transport = paramiko.Transport(("127.0.0.1", relay.port))
    transport.start_client(timeout=20 * SLOW)
    transport.auth_timeout = 2 * SLOW
    with pytest.raises(paramiko.SSHException):
        transport.auth_publickey("enrol", Impostor.from_private_key_file(keys.new()))
    assert transport.auth_handler.banner is None
    transport.close()
    ask_raw(relay)
    until(lambda: pending(relay), what="the other key")
    assert [row["type"] for row in pending(relay)] == ["ecdsa-sha2-nistp256"]


def test_a_key_that_is_only_offered_is_not_kept(relay, folder):
    """As ssh does that has the public half alone: it learns that the key would do, and gets no further."""
    raspi, public = relay.stranger(user="enrol"), os.path.join(folder, "half")
    shutil.copy(raspi.pub, public + ".pub")
    raspi.write_config(first=f"Host relay\nIdentityFile {public}\n")
    with open(raspi.config) as f:
        config = f.read().replace(f"  IdentityFile {raspi.key}\n", "")
    with open(raspi.config, "w") as f:
        f.write(config)
    done = raspi.run("-v", "-N")
    assert done.returncode == 255 and "Server accepts key: " in done.stderr, done.stderr
    assert "not registered" not in done.stderr
    other = relay.stranger(user="enrol")
    ask(other)
    wait_pending(relay, other)
    assert len(pending(relay)) == 1


@pytest.mark.parametrize("registered", [False, True], ids=["unknown", "at home elsewhere"])
def test_nobody_learns_which_tenants_there_are(registered, relay):
    relay.add_tenant("acme")
    shown = {}
    for tenant in ("acme", "nosuch"):
        who = relay.add_client("alice-" + tenant) if registered else relay.stranger()
        who.user = f"{tenant}+enrol"
        who.write_config()
        shown[tenant] = ask(who).replace(who.fingerprint, "FINGERPRINT").replace(tenant, "TENANT")
    assert re.sub(r"port \d+", "", shown["acme"]) == re.sub(r"port \d+", "", shown["nosuch"])
    until(lambda: pending(relay, "acme"), what="the key in acme")
    with database(relay) as db:
        assert db.execute("SELECT count(*) FROM pending_keys").fetchone() == (1,)


def test_of_an_agents_keys_one_is_kept(relay, keys, procs, folder):
    agent = os.path.join(folder, "agent")
    procs.spawn(["ssh-agent", "-D", "-a", agent])
    until(lambda: os.path.exists(agent), what="the agent")
    procs.run(["ssh-add", *(keys.new() for _ in range(4))], env={**os.environ, "SSH_AUTH_SOCK": agent})
    raspi = relay.stranger(user="enrol")
    assert raspi.run("-N", "-o", f"IdentityAgent={agent}", "-o", "IdentitiesOnly=no").returncode == 255
    until(lambda: pending(relay), what="a key")
    assert len(pending(relay)) == 1


def test_a_flood_from_one_source_takes_nothing_from_others(relay):
    early, late = relay.stranger(user="enrol"), relay.stranger(user="enrol")
    late.write_config(first="Host relay\nBindAddress 127.0.0.3\n")
    early.write_config(first="Host relay\nBindAddress 127.0.0.2\n")
    ask(early)
    wait_pending(relay, early)
    with ThreadPoolExecutor(8) as pool:
        banners = list(pool.map(lambda _: ask_raw(relay), range(110)))
    assert all("not registered yet" in banner for banner in banners), "nobody is told how many wait"
    until(lambda: len(relay.logged("key SHA256:.* from 127.0.0.1 is not kept: ")) == 10, what="ten not kept")
    rows = [row for row in relay.ctl("--tenant", "default", "events", "--count", "1000")
            if (row["event"], row["reason"]) == ("enrol", "too_many_pending")]
    assert sum(row["count"] for row in rows) == 10 and all(row["object"] == row["address"] == "" for row in rows), rows
    ask(late)
    wait_pending(relay, late)
    wait_pending(relay, early)
    assert len(pending(relay)) == 102


def test_many_sources_at_once_are_all_kept(relay):
    relay.add_tenant("acme")
    users = ("enrol", "acme+enrol", "nosuch+enrol")
    asked = [(users[n % 3], f"127.0.0.{n // 3 + 1}") for n in range(48)]
    with ThreadPoolExecutor(8) as pool:
        banners = list(pool.map(lambda who: ask_raw(relay, *who), asked))
    assert all("not registered yet" in banner for banner in banners)
    for tenant in ("default", "acme"):
        until(lambda: len(pending(relay, tenant)) == 16, what=lambda: f"16 keys: {pending(relay, tenant)}")  # noqa: B023
        assert len({row["address"] for row in pending(relay, tenant)}) == 16


def test_who_retries_is_not_held_back_and_a_flood_is(make_relay):
    relay = make_relay(penalty_exempt="")
    for times in range(1, 40):
        ask_raw(relay)
        if relay.ctl("status")["sources_held"] == 1:
            break
    assert 14 <= times < 40, times
    relay.wait_log("connections from 127.0.0.1 are held back for 15 s: it asked to be enrolled")


def test_it_can_be_switched_off(make_relay):
    relay = make_relay(enrolment="off")
    stranger, alice = relay.stranger(user="enrol"), relay.add_client("alice", user="enrol")
    assert "relayd:" not in ask(stranger)
    relay.wait_log("refused login .*: unknown_key: ")
    assert pending(relay) == []
    done = alice.run(command=["whoami"])
    assert done.returncode == 0 and REGISTERED not in done.stderr


def test_when_the_registry_cannot_be_written_the_machine_is_told_to_try_again(relay):
    raspi = relay.stranger(user="enrol")
    with database(relay) as db:
        db.execute("BEGIN IMMEDIATE")
        ask(raspi)
        relay.wait_log("lost keys that asked to be approved: ")
        assert "the registry cannot be written just now: try again later" in ask(raspi)
        db.execute("ROLLBACK")
    until(lambda: relay.ctl("status")["store"] == "ok", what="the store")
    ask(raspi)
    wait_pending(relay, raspi)
