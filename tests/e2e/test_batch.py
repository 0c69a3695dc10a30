"""A whole fleet from a file: all of it or nothing."""

import base64
import json
import os
import struct
import subprocess
import threading

import pytest
from control import ControlSocket, refused
from net import echoes
from procs import SLOW


def make_key():
    """A public key that nobody has the private one of."""
    blob = struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 32) + os.urandom(32)
    return "ssh-ed25519 " + base64.b64encode(blob).decode()


def line(name, **more):
    return json.dumps({"name": name, "key": make_key(), **more})


def add(relay, lines, *options, command="add-device", **how):
    return relay.ctl(command, *options, "--batch", "-", input="\n".join(lines) + "\n", **how)


def names(relay, what="devices", tenant=None):
    return [row["name"] for row in relay.list(what, tenant)]


def test_both_kinds_of_lines_and_options_for_all(relay, folder):
    path = os.path.join(folder, "fleet")
    with open(path, "w") as f:
        f.write("# the fleet\n\n" + line("Pi1.shop", allow=["web.*:80"], expires="2099-01-01") + "\r\n"
                f"{make_key()} pi2@shop\n  {make_key()}\n\t{line('pi3')}\n" + make_key() + " Pi 4 (kitchen)")
    added = relay.ctl("add-device", "--allow", "common", "--expires", "2098-01-01", "--batch", path)
    assert (added["kind"], added["added"], added["unchanged"], added["updated"]) == ("device", 5, 0, 0)
    devices = {row["name"]: row for row in relay.list("devices")}
    unnamed = next(name for name in devices if name.startswith("key-"))
    assert sorted(devices) == sorted(["pi1.shop", "pi2-shop", "pi3", "pi-4-kitchen", unnamed])
    assert devices["pi1.shop"]["rules"] == ["web.*:80"] and devices["pi1.shop"]["expires"] == "2099-01-01T00:00:00Z"
    assert all(devices[name]["rules"] == ["common"] and devices[name]["expires"] == "2098-01-01T00:00:00Z"
               for name in devices if name != "pi1.shop")
    text = relay.ctl("add-device", "--batch", path, "--allow", "common", json=False)
    assert text == "0 devices added, 5 unchanged, 0 updated\n"
    relay.wait_log('control: add-device --expires 2098-01-01 --allow common --batch "7 lines": added ')


def test_clients_in_a_tenant(relay):
    relay.add_tenant("acme")
    assert add(relay, [line("alice"), line("bob", allow=["raspi:22"])], "--tenant", "acme", command="add-client")["added"] == 2
    assert names(relay, "clients", "acme") == ["alice", "bob"] and names(relay, "clients") == []
    assert [row["rules"] for row in relay.list("clients", "acme")] == [["*"], ["raspi:22"]]


def test_a_small_one_over_ssh(relay, folder):
    relay.add_tenant("acme")
    boss, path = relay.add_admin("boss", tenant="acme"), os.path.join(folder, "fleet")

    def batch(lines):
        with open(path, "w") as f:
            f.writelines(text + "\n" for text in lines)
        return boss.via("add-device", "--batch", path)

    done = batch([f"{make_key()} pi{n}" for n in range(256)])
    assert done.returncode == 0 and done.stdout.startswith("256 devices added"), done
    assert len(names(relay, "devices", "acme")) == 256 and names(relay) == []
    done = batch(["#"] * 257)
    assert done.returncode == 2 and "over SSH a batch has at most 256 lines" in done.stderr
    done = batch([line("x"), "bad"])
    assert done.returncode == 1 and "line 2: " in done.stderr


@pytest.mark.parametrize("bad, code, says", [
    ('{"name": "x"}', "bad_argument", 'line 4: argument "key" is missing'),
    ('{"name": "x", "key": 7}', "bad_argument", "line 4: "),
    ('{"name": "x", "key": "k", "role": "admin"}', "bad_argument", "line 4: there are arguments"),
    ('{"name": "x", "admin": true, "key": "k"}', "bad_argument", "line 4: there are arguments"),
    ('{"name": "x", "name": "y", "key": "k"}', "bad_argument", "line 4: duplicate"),
    ('{"name": "x", ', "bad_argument", "line 4: "),
    ("[]", "bad_key", 'line 4: "[]" does not begin a public key'),
    ("ssh-ed25519 AAAA", "bad_key", "line 4: the ssh-ed25519 key"),
    ('from="10.0.0.1" ssh-ed25519 AAAA', "bad_key", "line 4: "),
    ('{"name": "raspi", KEY}', "exists", "line 4: there is a device called raspi"),
    ('{"name": "Pi2", KEY}', "exists", "line 4: there is a device called pi2"),
    ('{"name": "a b", KEY}', "bad_name", 'line 4: "a b"'),
    ('{"name": "default", KEY}', "bad_name", "line 4: "),
    ('{"name": "x", "expires": "yesterday", KEY}', "bad_argument", "line 4: --expires yesterday"),
    ('{"name": "x", "allow": ["a:0"], KEY}', "bad_rule", 'line 4: "a:0"'),
    ('{"name": "web.raspi", KEY}', "in_use", "line 4: the name web.raspi, or one below it, belongs to device raspi"),
    ('{"name": "eu.pi2", KEY}', "in_use", "line 4: the name eu.pi2, or one below it, belongs to device pi2"),
    ('{"name": "zone", KEY}', "in_use", "line 4: the name zone, or one below it, belongs to device eu.zone"),
    ('{"name": "shop", KEY}', "in_use", "line 4: the name shop, or one below it, belongs to device raspi"),
])
def test_a_bad_line_at_the_end_undoes_all(bad, code, says, relay, net):
    raspi = relay.add_device("raspi", allow=["*.shop"])
    raspi.publish(f"www.shop:7:localhost:{net.echo().port}", expect="www.shop:7")
    relay.add_device("eu.zone")
    lines = [line("pi1"), "", line("pi2"), bad.replace("KEY", f'"key": "{make_key()}"')]
    refused(relay, code, "add-device", "--batch", "-", says=says, input="\n".join(lines))
    assert names(relay) == ["eu.zone", "raspi"]
    assert add(relay, [line("pi1"), line("pi2")])["added"] == 2


def test_a_key_that_another_has(relay):
    raspi = relay.add_device("raspi")
    again = json.dumps({"name": "raspi", "key": raspi.public})
    assert add(relay, [again, line("pi1")])["unchanged"] == 1
    other = json.dumps({"name": "pi2", "key": raspi.public})
    refused(relay, "in_use", "add-device", "--batch", "-", says="line 1: that key belongs to device raspi", input=other)
    refused(relay, "in_use", "add-client", "--batch", "-", says="line 1: that key belongs to device raspi", input=again)


def test_what_relayctl_refuses_itself(relay, folder):
    path = os.path.join(folder, "fleet")
    for content, says in [(b"", "there is nothing in it"), (b"\n\xff\n", "line 2: that is no UTF-8 text"),
                          (b"a\0b\n", "line 1: that is no UTF-8 text"), (b"x" * 20000, "line 1: it is too long"),
                          (b"\n\n-----BEGIN OPENSSH PRIVATE KEY-----\n", "line 3: that is a private key")]:
        with open(path, "wb") as f:
            f.write(content)
        done = relay.ctl("add-device", "--batch", path, check=False)
        assert done.returncode == 2 and says in done.stderr, done.stderr
    for words, says in [(["--batch", "/nosuch"], "/nosuch: No such file"), (["--batch", path, "--batch", path], "one --batch"),
                        (["--batch", path, path], "give one file at a time"),
                        (["--batch", path, make_key()], "no key beside it"),
                        (["--batch", path, "--pending", "SHA256:x"], "only one of key, --pending and --batch can be given"),
                        ([], "key, --pending or --batch is missing")]:
        done = relay.ctl("add-device", *words, check=False)
        assert done.returncode == 2 and says in done.stderr, done.stderr
    for option in (["--name", "x"], ["--admin"]):
        refused(relay, "bad_argument", "add-client", *option, "--batch", "-", says=option[0], input=line("x"))


def test_devices_of_a_batch_are_there_at_once(relay, net):
    """Whoever serves a name that is one's own now has to go; an expiry that is moved holds for who is there."""
    squatter = relay.add_device("squatter", allow=["pi1.*", "other"])
    squatting = squatter.publish(f"other:7:localhost:{net.echo().port}", expect="other:7")
    pi1, pi2, alice = relay.stranger("pi1"), relay.stranger("pi2"), relay.add_client("alice")
    lines = [json.dumps({"name": who.name, "key": who.public, "expires": "8h"}) for who in (pi1, pi2)]
    lines[1:1] = [line(f"d{n}") for n in range(1000)]  # more than follow in one pass
    assert add(relay, lines)["closed"] == {"sessions": 0, "bridges": 0}
    for who in (pi1, pi2):
        who.publish(f"7:localhost:{net.echo().port}", expect=f"{who.name}:7")
        assert alice.through_W(f"{who.name}:7").finish(b"hello") == (0, b"hello")
    assert squatting.running
    assert add(relay, [lines[0].replace("8h", "9h")])["updated"] == 1
    expires = {row["name"]: row["expires"] for row in relay.list("devices")}
    assert expires["pi1"] > expires["pi2"] > ""
    relay.ctl("rename", "pi1", "pi9")
    refused(relay, "in_use", "add-device", "--batch", "-", says="belongs to device pi9", input=line("web.pi9"))


def test_ten_thousand_while_others_go_on(relay, net):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    _, (port,) = alice.local("raspi:7")
    sock, trips, over = net.connect(port), [], threading.Event()

    def ping():
        while not over.is_set():
            assert echoes(sock)
            trips.append(len(relay.lines))

    pinging = threading.Thread(target=ping)
    pinging.start()
    try:
        lines = [line(f"d{n}.shop{n % 100}") for n in range(10000)]
        before = len(trips)
        assert add(relay, lines, timeout=60)["added"] == 10000
        during = len(trips) - before
    finally:
        over.set()
        pinging.join()
    assert during > 20, "the echo had to wait"
    assert add(relay, lines, timeout=60)["unchanged"] == 10000
    assert len(relay.list("devices")) == 10001


def test_progress_is_shown_on_a_terminal_alone(relay, procs, folder):
    path = os.path.join(folder, "fleet")
    with open(path, "w") as f:
        f.writelines(line(f"d{n}") + "\n" for n in range(600))
    argv = [os.environ.get("RELAYCTL", "relayctl"), "--control-socket", relay.socket, "add-device", "--batch", path]
    pty = procs.spawn_pty(argv)
    assert pty.wait() == 0
    for text in ("256 of 600 lines", "600 of 600 lines", "600 devices added"):
        pty.expect(text)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=20 * SLOW)
    assert (done.stdout, done.stderr) == ("0 devices added, 600 unchanged, 0 updated\n", "")


# ---- the protocol


def test_a_batch_in_parts(relay):
    with ControlSocket(relay.socket) as control:
        for n in range(3):
            answer = control.call("add-device", {"batch": [line(f"d{n}")]}, id=n, more=True)
            assert answer == {"id": n, "ok": True, "result": {"status": "more", "lines": n + 1}}
        assert names(relay) == []
        answer = control.call("add-device", {"batch": [line("d3")], "allow": ["x"]})
        assert answer["ok"] and answer["result"]["added"] == 4
        assert control.call("list devices")["ok"]
    assert all(row["rules"] == ["x"] for row in relay.list("devices"))


@pytest.mark.parametrize("cmd, args, code", [
    ("list devices", {}, "bad_request"), ("add-client", {"batch": ["x"]}, "bad_request"),
    ("add-device", {"key": "x"}, "bad_request"), ("nosuch", {}, "unknown_command"),
    ("add-device", {"batch": "x"}, "bad_argument"), ("add-device", {"batch": ["x"] * 257}, "bad_argument")])
def test_what_breaks_a_batch_off_drops_it(cmd, args, code, relay):
    with ControlSocket(relay.socket) as control:
        assert control.call("add-device", {"batch": [line("d1")]}, more=True)["ok"]
        assert control.call(cmd, args)["error"]["code"] == code
        assert control.call("add-device", {"batch": [line("d2")]})["result"]["added"] == 1
        assert control.call("list devices", more=True)["error"]["code"] == "bad_request"
        assert control.call("list devices", more=1)["error"]["code"] == "bad_request"
        assert control.call("add-device", {"batch": [line("d3")]}, more=True)["ok"]
    assert names(relay) == ["d2"]


def test_a_batch_is_bounded(relay):
    with ControlSocket(relay.socket) as control:
        part = ["#"] * 256
        answers = [control.call("add-device", {"batch": part}, more=True) for _ in range(100000 // 256)]
        assert all(answer["ok"] for answer in answers)
        assert "100000 lines" in control.call("add-device", {"batch": part}, more=True)["error"]["message"]
        assert control.call("add-device", {"batch": [line("d1")]})["result"]["added"] == 1
        long = ["#" * 12000] * 5
        refusal = next(answer for answer in iter(lambda: control.call("add-device", {"batch": long}, more=True), None)
                       if not answer["ok"])
        assert "32 MiB" in refusal["error"]["message"]
    assert names(relay) == ["d1"]
