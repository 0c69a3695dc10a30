"""relayctl's commands: what they add, change, list and refuse. For live sessions see test_revocation.py."""

import base64
import os
import re
import struct
import subprocess

import pytest
from control import ControlSocket, refused
from keys import fingerprint, public
from net import echoes
from procs import until
from relay import sanitized

TIME = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$"


def keygen(folder, name, *args):
    path = os.path.join(folder, name)
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", "", "-f", path, *args], check=True)
    return path


def ssh_string(data):
    return struct.pack(">I", len(data)) + data


def security_key(kind):
    """The public half of a FIDO key, by hand."""
    if kind == "ed25519":
        name, rest = b"sk-ssh-ed25519@openssh.com", ssh_string(bytes(range(32)))
    else:  # the point must lie on the curve: the generator of P-256 does
        name = b"sk-ecdsa-sha2-nistp256@openssh.com"
        rest = ssh_string(b"nistp256") + ssh_string(bytes.fromhex(
            "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
            "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"))
    return name.decode() + " " + base64.b64encode(ssh_string(name) + rest + ssh_string(b"ssh:")).decode()


# ---- keys


def test_a_key_is_taken_as_words_as_one_word_from_a_file_and_from_standard_input(relay, keys):
    key = keys.new()
    with open(key + ".pub") as f:
        line = f.read().strip()
    ways = [(line.split(), None), ([line], None), ([key + ".pub"], None), (["-"], line + "\n"), (["-"], line + "\r\n"),
            (line.split()[:2], None)]
    for i, (args, stdin) in enumerate(ways):
        tenant = relay.add_tenant(f"t{i}")["name"]
        added = relay.ctl("add-client", "--tenant", tenant, "--name", "alice", *args, input=stdin)
        note = added.pop("note", "")
        assert added.pop("closed") == {"sessions": 0, "bridges": 0}
        assert added == {"status": "added", "tenant": tenant, "name": "alice", "kind": "client", "rules": ["*"],
                         "fingerprint": fingerprint(key)}
        assert ("t0" in note) == (i > 0), "it must say that the key's home is another tenant"


@pytest.mark.parametrize("comment,name", [
    ("pi@raspi", "pi-raspi"), ("Alice's Laptop 3", "alice-s-laptop-3"), ("raspi", "raspi"),
    ("web.raspi", "web-raspi"), ("--x--", "x"), ("ünï", "n"), ("a" * 100, "a" * 63), ("", None), ("123", None),
    ("!!!", None), ("localhost", None)])
def test_the_name_defaults_to_the_keys_comment_made_a_label(comment, name, relay, keys):
    key = keys.new()
    added = relay.ctl("add-client", f"{public(key)} {comment}")
    if name is not None:
        assert added["name"] == name
    else:
        assert re.match(r"^key-[0-9a-f]{8}$", added["name"])
        assert relay.ctl("add-client", f"{public(key)} {comment}")["name"] == added["name"]
    assert relay.list("keys")[0]["fingerprint"] == fingerprint(key)


@pytest.mark.parametrize("kind", [
    "ed25519", "rsa -b 2048", "rsa -b 4096", "ecdsa -b 256", "ecdsa -b 384", "ecdsa -b 521"])
def test_kinds_of_keys_that_are_taken_and_let_in(kind, relay, folder):
    key = keygen(folder, "key", "-t", *kind.split())
    alice = relay.add_client("alice", key=key)
    assert relay.list("keys")[0]["fingerprint"] == alice.fingerprint
    assert b"alice" in alice.run(command=["whoami"]).stdout


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_security_keys_are_taken(kind, relay, folder):
    line = security_key(kind)
    with open(os.path.join(folder, "sk.pub"), "w") as f:
        f.write(line + "\n")
    expected = subprocess.run(["ssh-keygen", "-lf", f.name], capture_output=True, text=True,
        check=True).stdout.split()[1]
    assert relay.ctl("add-client", "--name", "alice", line)["fingerprint"] == expected


def test_a_private_key_is_refused_and_not_repeated(relay, keys):
    key = keys.new()
    with open(key) as f:
        private = f.read()
    secret = private.splitlines()[1]
    for args, stdin in [([key], None), (["-"], private), ([private], None)]:
        done = relay.ctl("add-client", "--name", "x", *args, input=stdin, check=False)
        assert done.returncode in (1, 2) and "private key" in done.stderr and "public" in done.stderr
        assert secret not in done.stderr + done.stdout
    with ControlSocket(relay.socket) as control:
        error = control.call("add-client", {"name": "x", "key": private})["error"]
    assert error["code"] == "bad_key" and "private key" in error["message"] and secret not in error["message"]
    assert relay.list("clients") == [] and not relay.logged(re.escape(secret))


@pytest.mark.parametrize("kind,says", [("dsa", ["DSA", "ssh-keygen -t ed25519"]), ("rsa -b 1024", ["1024", "2048"])])
def test_weak_keys_are_refused(kind, says, relay, folder):
    key = keygen(folder, "key", "-t", *kind.split())
    refused(relay, "bad_key", "add-device", "--name", "x", key + ".pub", says=says)
    assert relay.list("devices") == []


def test_a_certificate_is_refused(relay, keys, folder):
    authority, key = keygen(folder, "ca", "-t", "ed25519"), keygen(folder, "key", "-t", "ed25519")
    subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "id", key + ".pub"], check=True)
    refused(relay, "bad_key", "add-client", "--name", "x", key + "-cert.pub", says="certificate")


def garbage(line):
    kind, blob = line.split()[:2]
    raw = base64.b64decode(blob)
    yield from (kind, f"{kind} {blob[:-8]}", f"{kind} {blob[:40]} {blob[40:]}", f"{kind} !!!!", f"ssh-rsa {blob}",
                "AAAA " + blob, f"{kind} {base64.b64encode(raw[:-1]).decode()}", f'from="10.0.0.1" {line}',
                "ssh-foo AAAA", "no such file.pub", "", " ", "\0x", "-----BEGIN CERTIFICATE-----",
                f"{kind} {'A' * 14000}", "A" * 20000)


def test_what_is_not_a_key_is_refused(relay, keys):
    with open(keys.new() + ".pub") as f:
        line = f.read().strip()
    for text in garbage(line):
        done = relay.ctl("add-client", "--name", "x", "-", input=text, check=False)
        assert done.returncode in (1, 2) and len(done.stderr) > 20, (text, done)
        assert done.returncode == 2 or done.json["error"]["code"] in ("bad_key", "bad_argument"), (text, done)
        assert "\x1b" not in done.stderr
    assert relay.list("clients") == []
    done = relay.ctl("add-client", "--name", "x", "/nonexistent/alice.pub", check=False)
    assert done.returncode in (1, 2) and "alice.pub" in done.stderr


def test_a_key_that_the_tenant_has_is_refused_elsewhere(relay, keys):
    alice = relay.add_client("alice")
    bob = relay.add_client("bob")
    for args in (["add-client", "--name", "carol"], ["add-device", "--name", "carol"], ["add-device", "--name",
                 "alice"],
                 ["add-key", "bob"]):
        refused(relay, "in_use", *args, alice.pub, says=["alice", "default"])
    refused(relay, "exists", "add-client", "--name", "alice", keys.new() + ".pub", says=["alice", "add-key"])
    refused(relay, "exists", "add-device", "--name", "bob", keys.new() + ".pub", says=["bob", "client"])
    assert {row["name"]: row["keys"] for row in relay.list("clients")} == {"alice": 1, "bob": 1}
    assert bob.run(command=["whoami"]).returncode == 0


def test_adding_what_is_there_exactly_so_is_success(relay, keys):
    a, b = keys.new() + ".pub", keys.new() + ".pub"
    for args, first, second in [
            (["add-tenant", "acme"], "added", "unchanged"),
            (["add-device", "--name", "raspi", "--allow", "web.*:80", "--allow", "cam", a], "added", "unchanged"),
            (["add-device", "--name", "raspi", "--allow", "CAM", "--allow", "web.*:80", a], "unchanged", "unchanged"),
            (["add-client", "--name", "alice", b], "added", "unchanged"),
            (["add-client", "--name", "ALICE", "--allow", "*", b], "unchanged", "unchanged"),
            (["add-key", "alice", keys.new() + ".pub"], "added", "unchanged"),
            (["allow", "alice", "raspi:22"], "allowed", "unchanged"),
            (["disallow", "alice", "raspi:22"], "disallowed", "unchanged"),
            (["rename", "alice", "alice2"], "renamed", None), (["rename", "alice2", "alice2"], "unchanged", None)]:
        assert relay.ctl(*args)["status"] == first, args
        if second is not None:
            assert relay.ctl(*args)["status"] == second, args
    assert relay.ctl("show", "raspi")["rules"] == ["cam", "web.*:80"]
    refused(relay, "exists", "add-device", "--name", "raspi", "--allow", "other", a, says=["raspi", "rules"])
    assert relay.ctl("add-device", "--name", "twice", "--allow", "x", "--allow", "X", keys.new() + ".pub")["rules"] == ["x"]
    assert relay.ctl("allow", "alice2", "web:080")["rules"] == ["*", "web:80"], "a port has one spelling"
    assert relay.ctl("disallow", "Alice2.Default", "WEB:80")["status"] == "disallowed", "a name has no case"


def test_what_was_changed_is_named(relay, keys):
    alice = relay.add_client("alice")
    assert relay.ctl("allow", "alice", "RASPI:022", json=False) == "allowed alice raspi:22\n"
    assert relay.ctl("disallow", "alice", "raspi:22", json=False) == "disallowed alice raspi:22\n"
    again = ["add-client", "--name", "alice", alice.pub]
    assert ", expires 2099-12-31T00:00:00Z\n" in relay.ctl(*again, "--expires", "2099-12-31", json=False)
    changed = relay.ctl(*again, "--expires", "2098-12-31")
    assert (changed["status"], changed["expires"]) == ("updated", "2098-12-31T00:00:00Z")
    assert "expires" not in relay.ctl(*again)


def test_adding_again_prolongs_an_expiry(relay, keys):
    key = keys.new() + ".pub"
    args = ["add-client", "--name", "alice", key, "--expires"]
    assert relay.ctl(*args, "2099-12-31")["status"] == "added"
    assert relay.ctl(*args, "2099-12-31")["status"] == "unchanged"
    assert relay.ctl(*args, "2098-12-31")["status"] == "updated"
    assert relay.ctl("show", "alice")["expires"] == "2098-12-31T00:00:00Z"
    assert relay.ctl(*args[:-1])["status"] == "unchanged", "without --expires nothing is asked of it"
    assert relay.ctl("show", "alice")["expires"] == "2098-12-31T00:00:00Z"


@pytest.mark.parametrize("text,ok", [
    ("8h", True), ("90s", True), ("30d", True), ("2099-12-31", True), ("2099-12-31T18:00:00Z", True),
    ("2020-01-01", False), ("0h", False), ("-1h", False), ("8", False), ("8y", False), ("tomorrow", False),
    ("2099-13-01", False), ("2099-02-30", False), ("", False), ("2099-12-31T25:00:00Z", False),
    ("99999999999h", False)])
def test_expiry(text, ok, relay, keys):
    args = ["add-client", "--name", "alice", "--expires", text, keys.new() + ".pub"]
    if ok:
        relay.ctl(*args)
        assert re.match(TIME, relay.ctl("show", "alice")["expires"])
    else:
        refused(relay, "bad_argument", *args, says="--expires")
        assert relay.list("clients") == []


@pytest.mark.parametrize("name", [
    "", ".", "a..b", "-x", "x-", "a b", "ä", "a" * 64, "1", "10.0.0.1", "localhost", "default", "a.localhost", "a/b",
    "*", "x\n", "default.default", "\x1b[2J"])
def test_names_of_principals(name, relay, keys):
    args = ["add-device", "--name", name, keys.new() + ".pub"]
    if name == "x-":
        assert relay.ctl(*args)["name"] == "x-"
    else:
        refused(relay, "bad_name", *args)
        assert relay.list("devices") == []


@pytest.mark.parametrize("name", ["", "a.b", "UPPER", "-x", "a b", "1", "localhost", "a" * 64, "../x", "x\n"])
def test_names_of_tenants(name, relay):
    refused(relay, "bad_name", "add-tenant", name)
    assert [row["name"] for row in relay.list("tenants")] == ["default"]


def test_a_principal_never_bears_its_tenants_name(relay, keys):
    relay.add_tenant("acme")
    alice = relay.add_client("alice", tenant="acme")
    refused(relay, "bad_name", "add-client", "--tenant", "acme", "--name", "acme", keys.new() + ".pub", says="acme")
    refused(relay, "bad_name", "rename", "--tenant", "acme", "alice", "acme", says="acme")
    assert relay.ctl("show", "--tenant", "acme", "alice")["keys"][0]["fingerprint"] == alice.fingerprint


def test_a_device_cannot_be_added_over_a_name_that_another_owns(relay, net, keys):
    raspi = relay.add_device("raspi", allow=["*"])
    raspi.publish(f"printer:80:localhost:{net.echo().port}", f"cam.hall:80:localhost:{net.echo().port}",
                  expect=["printer:80", "cam.hall:80"]).stop()
    relay.wait_withdrawn("printer:80")
    key = keys.new() + ".pub"
    for name in ("printer", "cam.hall", "hall", "web.raspi"):
        refused(relay, "in_use", "add-device", "--name", name, key, says=["raspi"])
    relay.add_device("web.kiosk")
    refused(relay, "in_use", "add-device", "--name", "kiosk", key, says=["web.kiosk"])
    relay.ctl("remove-endpoint", "printer")
    assert relay.ctl("add-device", "--name", "printer", key)["status"] == "added"


@pytest.mark.parametrize("rule", [
    "", ":80", "a:", "a:0", "a:65536", "a:90-80", "a:x", "a:80,", "a b", "a:1:2", "ä", "a:80-", "!a", "a" * 300,
    "[a]", "a:" + ",".join("123456789012345678")])
def test_what_is_not_a_rule_is_refused(rule, relay, keys):
    relay.add_client("alice", allow=["raspi"])
    refused(relay, "bad_rule", "allow", "alice", rule)
    refused(relay, "bad_rule", "disallow", "alice", rule)
    refused(relay, "bad_rule", "add-client", "--name", "bob", "--allow", rule, keys.new() + ".pub")
    assert relay.ctl("show", "alice")["rules"] == ["raspi"] and len(relay.list("clients")) == 1


@pytest.mark.parametrize("args", [
    ["show", "nosuch"], ["remove-device", "nosuch"], ["remove-client", "nosuch"], ["remove-client", "raspi"],
    ["remove-device", "alice"], ["add-key", "nosuch", "KEY"], ["remove-key", "alice", "SHA256:nosuch"],
    ["remove-key", "nosuch", "SHA256:x"], ["rename", "nosuch", "x"], ["allow", "nosuch", "x"],
    ["disallow", "nosuch", "x"], ["remove-endpoint", "nosuch"], ["move-endpoint", "nosuch", "raspi"],
    ["disconnect", "nosuch"], ["disconnect", "999999"], ["remove-tenant", "nosuch"],
    ["list", "devices", "--tenant", "nosuch"], ["show", "raspi", "--tenant", "two"]])
def test_what_is_not_there_is_not_found(args, relay, keys):
    relay.add_tenant("two")
    relay.add_device("raspi")
    relay.add_client("alice")
    refused(relay, "not_found", *[keys.new() + ".pub" if arg == "KEY" else arg for arg in args])


def test_rename(relay, net):
    raspi, alice = relay.add_device("raspi", allow=["shared"]), relay.add_client("alice")
    echo = net.echo()
    raspi.publish(f"7:localhost:{echo.port}", f"shared:7:localhost:{echo.port}", expect=["raspi:7", "shared:7"]).stop()
    relay.wait_withdrawn("shared:7")
    refused(relay, "exists", "rename", "raspi", "alice", says="alice")
    refused(relay, "bad_name", "rename", "raspi", "a b")
    renamed = relay.ctl("rename", "raspi", "berry")
    assert (renamed["status"], renamed["name"]) == ("renamed", "berry")
    refused(relay, "not_found", "show", "raspi")
    assert relay.ctl("show", "berry")["keys"][0]["fingerprint"] == raspi.fingerprint
    assert relay.endpoint("shared:7")["device"] == "berry", "a name outside its own was lost"
    raspi.publish(f"7:localhost:{echo.port}", expect="berry:7")
    assert alice.run("-W", "berry:7", input=b"x").stdout == b"x"
    assert alice.run("-W", "raspi:7").returncode == 255
    relay.add_device("raspi")


# ---- lists


def test_lists(relay, net):
    echo = net.echo()
    raspi = relay.add_device("raspi", allow=["web.*:80"])
    alice = relay.add_client("alice")
    (device,), (client,) = relay.list("devices"), relay.list("clients")
    for row in (device, client):
        assert (row["online"], row["sessions"], row["last_seen"], row["keys"], row["expires"]) == (False, 0, None, 1,
            None)
    assert (device["name"], device["rules"], client["name"], client["rules"]) == ("raspi", ["web.*:80"], "alice", ["*"])
    for what in ("endpoints", "sessions", "bridges"):
        assert relay.list(what) == []

    proc = raspi.publish(f"7:localhost:{echo.port}", expect="raspi:7")
    client_proc, (port,) = alice.local("raspi:7")
    sock = net.connect(port)
    assert echoes(sock, b"x" * 1000)
    device, client = relay.list("devices")[0], relay.list("clients")[0]
    for row in (device, client):
        assert (row["online"], row["sessions"], row["address"]) == (True, 1, "127.0.0.1")
        assert re.match(TIME, row["last_seen"])
    endpoint = relay.endpoint("raspi:7")
    assert (endpoint["device"], endpoint["online"]) == ("raspi", True)
    assert (endpoint["publishers"], endpoint["bridges"]) == (1, 1)
    assert re.match(TIME, endpoint["last_seen"])
    sessions = {row["principal"]: row for row in relay.list("sessions")}
    for name, kind, endpoints in (("raspi", "device", 1), ("alice", "client", 0)):
        row = sessions[name]
        assert (row["kind"], row["endpoints"], row["bridges"]) == (kind, endpoints, 1)
        assert row["address"].startswith("127.0.0.1") and "OpenSSH" in row["client"] and re.match(TIME, row["since"])
    (bridge,) = relay.list("bridges")
    assert (bridge["endpoint"], bridge["client"], bridge["device"]) == ("raspi:7", "alice", "raspi")
    assert bridge["client_session"] == sessions["alice"]["id"] and bridge["device_session"] == sessions["raspi"]["id"]
    assert (bridge["bytes_up"], bridge["bytes_down"], bridge["held"]) == (1000, 1000, 0)
    keys = {row["principal"]: row for row in relay.list("keys")}
    assert keys["alice"]["fingerprint"] == alice.fingerprint and keys["alice"]["type"] == "ssh-ed25519"
    assert keys["alice"]["home"] is True and keys["alice"]["comment"].endswith("@test")
    assert re.match(TIME, keys["alice"]["last_seen"])
    shown = relay.ctl("show", "raspi")
    assert (shown["name"], shown["kind"], len(shown["sessions"]), len(shown["endpoints"])) == ("raspi", "device", 1, 1)
    tenants = relay.list("tenants")
    assert [(row["name"], row["devices"], row["clients"]) for row in tenants] == [("default", 1, 1)]

    sock.close()
    relay.wait_bridges(0)
    client_proc.stop()
    proc.stop()
    until(lambda: not relay.list("sessions"), what="the sessions ended")
    for row in (relay.list("devices")[0], relay.list("clients")[0]):
        assert (row["online"], row["sessions"]) == (False, 0) and re.match(TIME, row["last_seen"])
    endpoint = relay.endpoint("raspi:7")
    assert (endpoint["online"], endpoint["publishers"], endpoint["bridges"]) == (False, 0, 0)


def test_tables_for_people_say_the_same(relay, net):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice", allow=["raspi:7"])
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    for args, words in [(["list", "devices"], ["raspi", "127.0.0.1"]), (["list", "clients"], ["alice", "raspi:7"]),
                        (["list", "keys"], [alice.fingerprint, "ssh-ed25519"]), (["list", "endpoints"], ["raspi", "7"]),
                        (["list", "sessions"], ["raspi", "OpenSSH"]), (["list", "tenants"], ["default"]),
                        (["show", "alice"], ["alice", "client", "raspi:7", alice.fingerprint]),
                        (["status"], ["libssh", "version", "heap_used"])]:
        out = relay.ctl(*args, json=False)
        for word in words:
            assert word in out, (args, word, out)


def test_status(relay, net):
    status = relay.ctl("status")
    assert re.match(r"^\d+\.\d+", status["version"]) and "0.1" in status["libssh"]
    counts = {key: status[key] for key in ("tenants", "sessions", "waiting", "endpoints", "bridges", "store")}
    assert counts == {"tenants": 1, "sessions": 0, "waiting": 0, "endpoints": 0, "bridges": 0, "store": "ok"}
    assert status["workers"] >= 1 and 0 <= status["uptime"] < 600
    assert sanitized() or 100_000 < status["memory"]["heap_used"] < 100_000_000
    relay.add_device("raspi").publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    _, (port,) = relay.add_client("alice").local("raspi:7")
    sock = net.connect(port)
    assert echoes(sock)
    net.connect(relay.port)
    status = until(lambda: (s := relay.ctl("status"))["waiting"] == 1 and s, what="one waiting connection")
    assert (status["sessions"], status["endpoints"], status["bridges"]) == (2, 1, 1)


def test_the_host_key_line_is_a_known_hosts_line(relay, folder):
    with open(os.path.join(relay.state, "ssh_host_ed25519_key.pub")) as f:
        key = f.read().split()[1]
    assert relay.ctl("host-key", json=False).split()[1:3] == ["ssh-ed25519", key]
    relay.options["public_address"] = f"127.0.0.1:{relay.port}"
    relay.restart()
    line = relay.ctl("host-key", json=False)
    assert line.startswith(f"[127.0.0.1]:{relay.port} ssh-ed25519 {key}")
    known = os.path.join(folder, "known")
    with open(known, "w") as f:
        f.write(line)
    alice = relay.add_client("alice")
    options = ["-o", f"UserKnownHostsFile={known}", "-p", str(relay.port)]
    assert b"alice" in alice.run(*options, host="127.0.0.1", command=["whoami"]).stdout
