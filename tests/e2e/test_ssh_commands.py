"""What every key may ask over SSH: why, config, and how any command ends."""

import json
import os
import re
import subprocess

import pytest

from hostile import attach  # noqa: F401
from net import echoes, is_listening
from procs import until


def run(principal, *command, status=0, options=()):
    """The outcome of ssh relay COMMAND; errors are on the second stream, and nothing else is."""
    done = principal.run(*options, command=list(command))
    assert done.returncode == status, done.stderr
    done.text = done.stdout.decode()
    return done


def parsed(principal, *command):
    return json.loads(run(principal, *command, "--json").text)


# -- how commands end

def test_exit_codes_and_streams(relay, alice):
    boss = relay.add_client("boss")
    relay.ctl("set-admin", "boss", "on")
    done = run(alice, "whoami")
    assert "alice" in done.text and done.stderr == ""
    for wrong in (["nonsense"], ["ls", "a", "b"], ["why", "now"], ["add-client", "x"]):
        done = run(alice, *wrong, status=2)
        assert done.text == "" and done.stderr.startswith("relayd: ")
    done = run(boss, "remove-device", "nobody", status=1)
    assert done.text == "" and done.stderr.startswith("relayd: ")


def test_errors_as_json_are_documents_too(relay, alice):
    done = run(alice, "nonsense", "--json", status=2)
    error = json.loads(done.text)["error"]
    assert error["code"] == "unknown_command" and error["message"].startswith("there is no such command")
    assert done.stderr == ""


def test_on_a_terminal_all_is_one_stream(relay, alice):
    terminal = alice.ssh_pty("-tt", command=["nonsense"])
    assert terminal.wait() == 2
    assert "relayd: there is no such command: try ssh RELAY help\r\n" in terminal.output()


def test_json_of_every_command(relay, net, raspi, alice):
    raspi.publish(f"22:localhost:{net.echo().port}", expect="raspi:22")
    assert {row["command"].split()[0] for row in parsed(alice, "help")} == {"help", "whoami", "ls", "why", "config"}
    assert parsed(alice, "whoami")["name"] == "alice"
    assert [row["endpoint"] for row in parsed(alice, "ls")] == ["raspi:22"]
    assert parsed(alice, "ls", "r*")[0]["device"] == "raspi"
    assert parsed(alice, "ls", "x*") == []
    assert parsed(raspi, "ls")[0]["served_by"].startswith("session ")
    assert parsed(alice, "why") == []
    assert parsed(alice, "config")["kind"] == "client" and parsed(raspi, "config")["kind"] == "device"


# -- why

def test_why_says_so_if_nothing_was_refused(relay, alice):
    assert run(alice, "why").text == "Nothing was refused, as far back as the relay remembers.\n"


def test_why_has_the_latest_first_with_reason_and_remedy(relay, alice):
    for target in ("nobody:22", "127.0.0.1:22", "a..b:1"):
        alice.through_W(target).finish()
    rows = parsed(alice, "why")
    assert [(row["what"], row["asked"], row["reason"]) for row in rows] == [
        ("connect", "a..b:1", "bad_name"), ("connect", "127.0.0.1:22", "loopback"), ("connect", "nobody:22", "not_reachable")]
    assert all(row["times"] == 1 and 0 <= row["seconds_ago"] < 60 for row in rows)
    text = run(alice, "why").text
    assert re.match(r"\d+ seconds? ago, \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ: connect a\.\.b:1\n    bad_name: that is not a name", text)
    assert "name the device, as in raspi:22" in text and max(map(len, text.split("\n"))) <= 80


def test_why_counts_what_was_refused_again_and_again(relay, alice, attach):
    client = attach(alice)
    for own in [client.direct(b"nobody", 22) for _ in range(25)]:
        assert client.opened(own) is None
    rows = parsed(alice, "why")
    assert sum(row["times"] for row in rows) == 25 and len(rows) <= 3, "equal ones of a second are one"
    assert re.search(r", \d+ times\n", run(alice, "why").text)


def test_why_shows_the_last_twenty(relay, alice, attach):
    client = attach(alice)
    for n in range(30):
        assert client.connect(b"nobody", 1000 + n) is None
    assert [row["asked"] for row in parsed(alice, "why")] == [f"nobody:{1029 - n}" for n in range(20)]


def test_why_never_tells_what_is_true(relay, net, raspi):
    """A name that is forbidden, one that is away and one that does not exist are refused alike, here too."""
    eve = relay.add_client("eve", allow=["kiosk", "gone"])
    gone = relay.add_device("gone").publish(f"22:localhost:{net.echo().port}", expect="gone:22")
    raspi.publish(f"22:localhost:{net.echo().port}", expect="raspi:22")
    gone.stop()
    relay.wait_withdrawn("gone:22")
    for target in ("raspi:22", "gone:22", "nobody:22"):
        eve.through_W(target).finish()
    rows = parsed(eve, "why")
    assert {row["asked"] for row in rows} == {"raspi:22", "gone:22", "nobody:22"}
    for row in rows:
        for key in ("time", "seconds_ago", "asked"):
            del row[key]
    assert rows[0] == rows[1] == rows[2] and rows[0]["reason"] == "not_reachable"


def test_why_shows_nothing_of_others(relay, alice):
    relay.add_tenant("acme")
    bob, stranger = relay.add_client("bob"), relay.add_client("alice", tenant="acme")
    for principal in (bob, stranger):
        principal.through_W("nobody:22").finish()
        assert len(parsed(principal, "why")) == 1
    assert parsed(alice, "why") == []


def test_who_takes_a_name_over_inherits_no_refusals(relay, alice):
    alice.through_W("nobody:22").finish()
    assert len(parsed(alice, "why")) == 1
    relay.ctl("remove-client", "alice")
    assert parsed(relay.add_client("alice"), "why") == []


def test_a_device_asks_why_its_publish_was_refused(relay, raspi):
    raspi.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", "kiosk:80:localhost:80")
    row, = parsed(raspi, "why")
    assert (row["what"], row["asked"], row["reason"]) == ("publish", "kiosk:80", "not_allowed")
    assert "relayctl allow" in row["remedy"]


def test_why_shows_hostile_bytes_escaped(relay, alice, attach):
    attach(alice).connect(b"a\x1b[2J\x07\n", 22)
    text = run(alice, "why").text
    assert r"a\x1b[2J\x07\x0a:22" in text and all(c == "\n" or " " <= c <= "~" for c in text)


# -- config

def write_config(principal, folder, text, *hosts):
    """An ssh_config of its own: what `config` has printed, the principal's key, and known hosts."""
    known_hosts = os.path.join(folder, "known")
    with open(known_hosts, "w") as f:
        f.writelines([parsed(principal, "config")["known_hosts"] + "\n", *hosts])
    path = os.path.join(folder, "ssh_config")
    with open(path, "w") as f:
        f.write(f"{text}\nHost *\n  IdentityFile {principal.key}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
                f"  BatchMode yes\n  StrictHostKeyChecking yes\n  UserKnownHostsFile {known_hosts}\n"
                "  GlobalKnownHostsFile /dev/null\n")
    return path


@pytest.mark.parametrize("tenant", [None, "acme"])
@pytest.mark.parametrize("rules", [["*"], ["raspi:22", "web.raspi:80"]], ids=["everything", "rules"])
def test_what_config_prints_reaches_a_device(relay, procs, folder, make_sshd, net, tenant, rules):
    """As it is, with nothing but the key and the host keys added. The key's home may be elsewhere."""
    key = relay.keys.new()
    if tenant:
        relay.add_client("visitor", key=key)
        relay.add_tenant(tenant)
    raspi = relay.add_device("raspi", tenant=tenant)
    alice = relay.add_client("alice", tenant=tenant, allow=rules, key=key)
    sshd = make_sshd([alice.pub])
    raspi.publish(f"22:localhost:{sshd.port}", f"web.raspi:80:localhost:{net.echo().port}",
                  expect=["raspi:22", "web.raspi:80"])
    text = run(alice, "config").text
    name = f"raspi.{tenant or 'default'}"
    assert (f"Host *.{tenant or 'default'}\n" in text) == (rules == ["*"])
    config = write_config(alice, folder, text, sshd.known_host(name))
    done = procs.run(["ssh", "-F", config, f"{sshd.user}@{name}", "echo there $SSH_CONNECTION"])
    assert done.returncode == 0 and done.stdout.startswith(b"there "), done.stderr
    forward, = parsed(alice, "config")["forwards"]
    assert f"# {forward}\n" in text
    port = net.free_port()
    assert forward.startswith("ssh -N -L 8080:web.raspi:80 relay-")
    procs.spawn(["ssh", "-F", config, *forward.replace("8080", str(port), 1).split()[1:]])
    until(lambda: is_listening(port), what="-L listening")
    assert echoes(net.connect(port))


def test_what_config_prints_publishes(relay, procs, folder, raspi):
    text = run(raspi, "config").text
    line = re.search(r"^ssh -N .*$", text, re.M)[0]
    assert line == parsed(raspi, "config")["command"]
    config = write_config(raspi, folder, "")
    proc = procs.spawn(["ssh", "-F", config, *line.split()[1:]])
    relay.wait_published("raspi:22")
    assert parsed(raspi, "config")["command"] == line, "what is published now is what is told to be published"
    proc.stop()
    relay.wait_withdrawn("raspi:22")
    autossh = parsed(raspi, "config")["autossh"].split()
    procs.spawn(["env", autossh[0], *autossh[1:2], "-F", config, *autossh[2:]])
    relay.wait_published("raspi:22")


def test_config_of_a_device_names_what_it_publishes(relay, net, raspi):
    relay.ctl("allow", "raspi", "kiosk:80")
    raspi.publish(*(f"{name}:localhost:{net.echo().port}" for name in ("22", "web.raspi:80", "kiosk:80")),
                  expect=["raspi:22", "web.raspi:80", "kiosk:80"])
    assert " -R kiosk:80:localhost:80 -R 22:localhost:22 -R web.raspi:80:localhost:80 " in parsed(raspi, "config")["command"]


def test_the_unit_that_config_prints_is_one(relay, folder, raspi):
    unit = os.path.join(folder, "relay.service")
    with open(unit, "w") as f:
        f.write(parsed(raspi, "config")["systemd_unit"])
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert done.returncode == 0 and "relay.service" not in done.stderr, done.stderr


def test_config_says_where_users_reach_the_relay(make_relay):
    relay = make_relay(public_address="relay.example.net:2022")
    alice, raspi = relay.add_client("alice"), relay.add_device("raspi")
    text = run(alice, "config").text
    assert "    HostName relay.example.net\n    Port 2022\n" in text
    assert "\n# [relay.example.net]:2022 ssh-ed25519 AAAA" in text and "public-address" not in text
    assert parsed(raspi, "config")["command"].endswith(" -p 2022 default@relay.example.net")


def test_config_guesses_from_the_connection(relay):
    alice = relay.add_client("alice")
    assert parsed(alice, "config")["relay"] == {"host": "127.0.0.1", "port": relay.port, "user": "default", "guessed": True}
    assert "# public-address is not set in relayd.conf" in run(alice, "config").text
    options = ["-o", "HostName=::1", "-o", f"Port={relay.ports['[::1]']}"]
    text = run(alice, "config", options=options).text
    assert "    HostName ::1\n" in text and f"# [::1]:{relay.ports['[::1]']} ssh-ed25519" in text


def test_config_of_a_client_who_reaches_nothing_now(relay, raspi):
    alice = relay.add_client("alice", allow=["raspi"])
    assert "# No SSH server that you may reach is online now" in run(alice, "config").text
    assert "raspi" not in run(relay.add_client("bob", allow=["kiosk"]), "config").text
