"""relayctl --via: the same commands, tables and exit codes over a stock ssh."""

import os
import re
import shlex
import subprocess
from json import dumps

import pytest
from procs import SLOW, until
from relay import RELAYCTL


@pytest.fixture
def boss(relay):
    relay.add_tenant("acme")
    relay.add_device("pi", tenant="acme", allow=["web.*:80"])
    return relay.add_admin("boss", tenant="acme")


def relayctl(*args, input="", env=None):
    return subprocess.run([RELAYCTL, *args], input=input, capture_output=True, text=True, timeout=20 * SLOW,
                          env={**os.environ, **(env or {})})


@pytest.fixture
def fake(folder):
    """fake(script) makes an ssh that runs it."""

    def make(script):
        path = os.path.join(folder, "fake ssh")
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + script)
        os.chmod(path, 0o755)
        return shlex.quote(path)

    return make


@pytest.mark.parametrize("words", [["list", "devices"], ["list", "endpoints"], ["list", "bridges"],
                                   ["show", "pi"], ["host-key"]], ids=" ".join)
def test_the_same_tables(words, relay, boss):
    for json in (False, True):
        here = relay.ctl("--tenant", "acme", *words, check=False, json=json).stdout
        there = boss.via(*words, json=json).stdout
        if words == ["show", "pi"]:  # where else a key lives is not for a tenant to know
            assert "home" in here.lower() and "home" not in there.lower()
        else:
            assert here == there


def test_changes_and_keys_from_here(relay, keys, boss):
    """The file and the standard input are read on this side."""
    one, two, three = keys.new(), keys.new(), keys.new()
    done = boss.via("add-device", "--name", "one", one + ".pub")
    assert done.returncode == 0 and done.stdout.startswith("added device one SHA256:"), done
    assert "note: this key must log in as user acme" in done.stdout
    with open(two + ".pub") as f:
        key = f.read().split()
    done = boss.via("add-client", "--name", "two", "--allow", "*.pi:1-9", "--admin", "-",
                    input=f"{key[0]} {key[1]} it's \"my\" \\ key $HOME\n")
    assert done.returncode == 0 and "administrator: yes" in done.stdout, done
    with open(three + ".pub") as f:
        assert boss.via("add-key", "two", *f.read().split()).returncode == 0
    comments = [row["comment"] for row in relay.list("keys", "acme") if row["principal"] == "two"]
    assert comments[0] == "it's \"my\" \\ key $HOME" and len(comments) == 2
    shown = relay.ctl("show", "--tenant", "acme", "two")
    assert (shown["rules"], shown["admin"]) == (["*.pi:1-9"], True)
    assert boss.via("remove-client", "two").stdout == "removed two\n"
    private = boss.via("add-device", one)
    assert private.returncode == 2 and "private key" in private.stderr


def test_it_eats_no_input(boss):
    """In `while read` loops of scripts the ssh must leave the rest of the lines alone."""
    argv = shlex.join([RELAYCTL, "--via", "relay", "--ssh", shlex.join(["ssh", "-F", boss.config]), "list", "devices"])
    done = subprocess.run(["sh", "-c", f"{argv} >/dev/null && cat"], input=b"the rest", capture_output=True, check=True)
    assert done.stdout == b"the rest"


def test_refused_is_1(boss):
    done = boss.via("remove-device", "nosuch")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("relayctl: tenant acme has no device or client called \"nosuch\""), done.stderr
    done = boss.via("allow", "pi", "no rule", json=True)
    assert done.returncode == 1 and '"code": "bad_rule"' in done.stdout, done


def test_one_who_is_no_administrator(relay, boss):
    alice = relay.add_client("alice", tenant="acme")
    done = alice.via("list", "devices")
    assert done.returncode == 1 and "no such command" in done.stderr, done
    assert "name:      alice" in alice.via("whoami").stdout


@pytest.mark.parametrize("words,says", [
    (["list", "tenants"], "known are: devices, clients"), (["limit", "sessions", "1"], "unknown command limit"),
    (["rename", "pi"], "new-name is missing"), (["list", "devices", "x"], 'no use for "x"'), ([], "usage: relayctl"),
    (["--tenant", "acme", "list", "devices"], "the tenant is the one that the login selects")])
def test_a_wrong_line_is_2(words, says, boss):
    done = boss.via(*words)
    assert done.returncode == 2 and says in done.stderr, done


def test_help_shows_what_there_is_over_ssh(boss):
    there, here = boss.via("--help").stdout, relayctl("--help").stdout
    assert "add-device" in there and "whoami" in there and "add-tenant" not in there
    assert "add-tenant" in here and "--via DEST" in here
    assert "list devices" in boss.via("help").stdout


def test_no_relayd_is_3(relay, boss, net, fake):
    boss.write_config(first=f"Host nowhere\n  HostName 127.0.0.1\n  Port {net.free_port()}\n")
    done = relayctl("--via", "nowhere", "--ssh", f"ssh -F '{boss.config}'", "list", "devices")
    assert done.returncode == 3 and "could not reach relayd at nowhere" in done.stderr, done
    stranger = relay.stranger("mallory", tenant="acme")
    assert stranger.via("list", "devices").returncode == 3
    done = relayctl("--via", "x", "--ssh", "/no/such/ssh", "list", "devices")
    assert done.returncode == 3 and "cannot run /no/such/ssh: No such file" in done.stderr, done
    for script in ["echo '[]'; exit 255", "kill -9 $$", "exit 0", "echo hello", "echo '[] []'", "echo '[]'; exit 1",
                   "echo '{}'; exit 1", "printf '\\377'", "echo '[]'; exit 2", "exec cat /dev/zero"]:
        done = relayctl("--via", "x", "--ssh", fake(script), "list", "devices")
        assert done.returncode == 3 and done.stdout == "" and done.stderr.startswith("relayctl: "), (script, done)
    for ssh in ("", "  ", "ssh '"):
        done = relayctl("--via", "x", "--ssh", ssh, "list", "devices")
        assert done.returncode == 3 and done.stderr.startswith("relayctl: --ssh: "), done


def test_a_port_needs_a_url(fake):
    """ssh takes the rest for an address, or for a name that there is not."""
    ssh = fake("echo {}")
    for dest in ("acme@relay:22222", "relay:22", "acme@[::1]:22"):
        done = relayctl("--via", dest, "--ssh", ssh, "list", "devices")
        assert done.returncode == 2 and "for a port write ssh://USER@HOST:PORT" in done.stderr, (dest, done)
    for dest in ("acme@relay", "ssh://acme@relay:22222", "acme@::1", "fe80::1:22", "acme@relay:x", "relay:"):
        assert relayctl("--via", dest, "--ssh", ssh, "list", "devices").returncode == 0, dest


def test_what_ssh_is_given(fake):
    """One line that its remote end splits again, and a destination that cannot be an option."""
    ssh = fake('for word; do printf "%s|" "$word" >&2; done; echo "{}"')
    env = {"RELAYCTL_SSH": ssh + " -o 'A b'"}
    done = relayctl("--via", "-oProxyCommand=x", "show", "it's", env=env)
    assert done.stderr == "-o|A b|-T|--|-oProxyCommand=x|show --json 'it'\\''s'|", done
    done = relayctl("--via", "d", "--ssh", ssh, "set-admin", "a b", "on", env=env)
    assert done.stderr == "-T|--|d|set-admin --json 'a b' on|" and done.returncode == 0, done


@pytest.mark.parametrize("answer", [
    r'{"status":"%s","kind":"%s","name":"%s","fingerprint":"%s","note":"%s","closed":{"sessions":1},"changed":["%s"]}',
    r'{"known_hosts":"%s"}', r'{"a%s":"%s"}', r'[{"a%s":"%s"}]', '"%s"'])
def test_who_answers_does_not_reach_the_terminal(answer, fake):
    """It may be anybody."""
    words = r"\u001b[31m\u009b\u202e\u007f"
    ssh = fake("printf '%s\\n' '" + answer.replace("%s", words) + "'")
    for options in ([], ["--json"]):
        done = relayctl("--via", "x", "--ssh", ssh, *options, "show")
        assert done.returncode == 0 and "31m" in done.stdout and done.stdout.isascii(), done
        assert not set(done.stdout) & {"\x1b", "\x7f"} or options, done


@pytest.mark.parametrize("answer", [
    {key: f"\033]0;{key}\007\u009b31m\n" for key in ("status", "kind", "name", "fingerprint", "note", "limit", "value")},
    {"status": "\033", "added": 1, "kind": "\033c", "changed": ["\033c", 1], "restart": ["\u009b"]},
    {"known_hosts": "\033c"}, {"error": {"code": "\033", "message": "\033c\u009b"}},
    [{"\033a": "\u009b", "id": 1, "time": "\033", "object": "\033c\u009b"}]], ids=lambda answer: str(list(answer))[:30])
@pytest.mark.parametrize("json", [[], ["--json"]], ids=["", "json"])
def test_what_the_other_end_says_does_not_steer_the_terminal(answer, json, fake):
    ssh = fake(f"printf %s {shlex.quote(dumps(answer))}; exit {int('error' in answer)}")
    for words in (["list", "devices"], ["events"]):
        done = relayctl("--via", "x", "--ssh", ssh, *json, *words)
        assert done.returncode == int("error" in answer)
        assert not re.search("[^\n -~]", done.stdout + done.stderr), done


@pytest.mark.parametrize("words", [["events", "--follow"], ["list", "devices", "--watch"]], ids=lambda words: words[0])
def test_who_goes_on_looking_does_not_fill_the_trail_with_logins(words, folder, procs, fake):
    times = os.path.join(folder, "times")
    ssh = fake(f"date +%s >>'{times}'; echo '[]'\n")
    procs.spawn([RELAYCTL, "--via", "relay", "--ssh", ssh, *words])
    until(lambda: os.path.exists(times) and len(open(times).read().split()) == 2, 30, "a second look")
    first, second = map(int, open(times).read().split())
    assert second - first >= 9


def test_who_removes_himself_sees_it(boss):
    assert boss.via("remove-client", "boss").stdout == "removed boss; closed 1 session and 0 bridges\n"
    assert boss.via("list", "devices").returncode == 3
