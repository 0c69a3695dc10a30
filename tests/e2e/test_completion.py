"""The completion for bash: what it offers for a line that is being typed."""

import os
import re
import shlex
import signal
import subprocess

import pytest
from procs import SLOW, until
from relay import RELAYCTL, TOP
from test_enrol import ask, wait_pending

COMPLETION = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(RELAYCTL))), "completion", "relayctl")
OWN = {"--control-socket", "--tenant", "--json", "--via", "--ssh"}

# What readline does: sets the line, calls the function, and puts what is offered behind the last break of a word.
DRIVER = r"""
source "$1"
COMP_WORDBREAKS=$' \t\n"\'><=;|&(:'
COMP_LINE=$2 COMP_POINT=${#2}
_relayctl
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def offered(relay, folder):
    """offered("remove-device ") is the set of words that bash offers then."""

    def offer(typed, socket=None):
        line = f"{RELAYCTL} --control-socket {socket or relay.socket} {typed}"
        done = subprocess.run(["bash", "--norc", "-u", "-c", DRIVER, "bash", COMPLETION, line], cwd=folder,
                              capture_output=True, text=True, timeout=20 * SLOW, stdin=subprocess.DEVNULL)
        assert done.returncode == 0 and done.stderr == "", done.stderr
        words = done.stdout.split("\n")[:-1]
        assert len(words) == len(set(words)), words
        return set(words) - {""}

    return offer


def rows(macro, file):
    """The texts of a table's rows; neighbours are one text."""
    with open(os.path.join(TOP, file)) as f:
        table = re.sub(r'/\*.*?\*/|"\s+"', "", f.read(), flags=re.S)
    return [re.findall(r'"((?:[^"\\]|\\.)*)"', row) + [row] for row in re.split(rf"^{macro}\(", table, flags=re.M)[1:]]


def admin_commands():
    return {row[0]: row for row in rows("COMMAND", "schema/commands.def") if "ADMIN" in row[-1]}


# ---- Commands and options, from the table


def test_commands(offered):
    firsts = {words.split()[0] for words in admin_commands()}
    assert offered("") == firsts and "whoami" not in firsts
    assert offered("l") == {"list", "limit"}
    assert offered("remove-d") == {"remove-device"}
    assert offered("list ") == {words.split()[1] for words in admin_commands() if words.startswith("list ")}
    assert offered("list e") == {"endpoints"}
    assert offered("--json --tenant acme list de") == {"devices"}
    assert offered("list nothing ") == offered("nothing ") == offered("status ") == set()


@pytest.mark.parametrize("words", sorted(admin_commands()))
def test_every_option_of_every_command(offered, words):
    options = set(re.findall(r"--[a-z-]+", admin_commands()[words][1]))
    if words.startswith("list ") or words in ("show", "status"):
        options |= {"--watch", "--interval"}
    elif words == "events":
        options |= {"--follow"}
    assert offered(f"{words} -") == options | OWN


def test_own_options(offered):
    assert offered("-") == OWN | {"--help", "--version"}
    assert offered("--ver") == {"--version"}


def test_they_are_those_that_relayctl_takes():
    """Its tables of them hold these, and no other."""
    with open(os.path.join(TOP, "relayctl", "main.c")) as f:
        taken = set(re.findall(r'\{ "(--[a-z-]+)", &options->', f.read()))
    assert taken == OWN | {"--watch", "--interval", "--follow"}


def test_over_ssh_others(offered):
    assert "ls" in offered("--via alice@relay ") and "add-tenant" not in offered("--via alice@relay ")
    assert "add-device" in offered("--via alice@relay add-")


def test_values_that_stand_in_the_table(offered):
    assert offered("set-endpoint --proxy-protocol ") == {"on", "off"}
    limits = {row[0] for row in rows("LIMIT", "relayd/limits.def")}
    assert offered("limit ") == limits and offered("limit --principal x by") == {"bytes-up", "bytes-down"}
    assert offered("limit bridges ") == {"none", "default"}
    assert offered("limit bridges 3 ") == set()


# ---- Names, from relayd


def test_names(relay, offered):
    for name in ("raspi", "berry"):
        relay.add_device(name)
    relay.add_client("alice")
    relay.add_tenant("acme")
    relay.add_device("other", tenant="acme")
    everybody = {"raspi", "berry", "alice"}
    assert offered("remove-device ") == {"raspi", "berry"}
    assert offered("remove-device r") == {"raspi"}
    assert offered("remove-device raspi ") == set()
    assert offered("remove-client ") == offered("set-admin ") == {"alice"}
    for line in ("show ", "add-key ", "rename ", "allow ", "limit --principal "):
        assert offered(line) == everybody, line
    assert offered("show --tenant acme ") == offered("--tenant acme show ") == {"other"}
    assert offered("--tenant ") == offered("remove-tenant ") == {"default", "acme"}
    assert offered("add-tenant ") == offered("add-device --name ") == offered("allow raspi ") == set()
    assert offered("move-endpoint x ") == {"raspi", "berry"}


def test_endpoints_and_sessions(relay, net, raspi, offered):
    """A colon ends a word for readline: what stands before it is not said again."""
    port = net.echo().port
    raspi.publish(f"7:localhost:{port}", options=["-R", f"web.raspi:80:localhost:{port}"],
                  expect=["raspi:7", "web.raspi:80"])
    assert offered("remove-endpoint ") == {"raspi", "web.raspi"}
    assert offered("set-endpoint ") == {"raspi:7", "web.raspi:80"}
    assert offered("set-endpoint --note x w") == {"web.raspi:80"}
    assert offered("set-endpoint raspi:") == {"7"}
    (session,) = relay.list("sessions")
    assert offered("disconnect ") == {str(session["id"]), "raspi"}


def test_fingerprints(relay, raspi, alice, offered):
    assert offered("remove-key raspi ") == {raspi.fingerprint}
    assert offered("remove-key raspi SHA256:") == {raspi.fingerprint.removeprefix("SHA256:")}
    assert offered("remove-key alice SHA") == {alice.fingerprint}
    assert offered("remove-key nobody ") == set()


def test_keys_that_wait(relay, offered):
    who = relay.stranger(user="enrol")
    ask(who)
    wait_pending(relay, who)
    assert offered("remove-pending ") == offered("add-client --name x --pending ") == {who.fingerprint}


def test_files(folder, offered):
    for name in ("alice.pub", "a b.pub"):
        open(os.path.join(folder, name), "w").close()
    assert offered("add-client al") == {"alice.pub"}
    assert {"alice.pub", "a b.pub"} <= offered("add-key alice ")
    assert {"alice.pub", "a b.pub"} <= offered("add-device --batch ")
    assert offered("--control-socket al") == {"alice.pub"}


# ---- What goes wrong, quietly


def test_without_relayd_commands_remain(folder, offered):
    nowhere = os.path.join(folder, "nowhere.sock")
    assert offered("remove-device ", socket=nowhere) == set()
    assert offered("remove-d", socket=nowhere) == {"remove-device"}


def test_a_relayd_that_does_not_answer_holds_nobody_up(relay, offered):
    os.kill(relay.pid, signal.SIGSTOP)
    try:
        assert offered("remove-device ") == set()
    finally:
        os.kill(relay.pid, signal.SIGCONT)


def test_what_is_typed_is_not_evaluated(folder, offered):
    for typed in ("show $(touch hit) ", "--tenant `touch hit` show ", "show '; touch hit; ' ", 'set-endpoint "$(touch hit)"'):
        offered(typed)
    assert not os.path.exists(os.path.join(folder, "hit"))


def test_nothing_of_the_relays_is_evaluated(folder, procs, offered):
    """A program in relayctl's place that answers with what a shell would run."""
    evil = os.path.join(folder, "relayctl")
    with open(evil, "w") as f:
        f.write("#!/bin/sh\ncat <<'E'\n[\n  {\n    \"name\": \"$(touch hit)`touch hit`;touch hit\"\n  }\n]\nE\n")
    os.chmod(evil, 0o755)
    line = f"{evil} remove-device "
    done = subprocess.run(["bash", "--norc", "-c", DRIVER, "bash", COMPLETION, line], cwd=folder, capture_output=True,
                          text=True, timeout=20 * SLOW)
    assert done.stdout == "$(touch hit)`touch hit`;touch hit\n"
    assert not os.path.exists(os.path.join(folder, "hit"))


# ---- A real bash, at a terminal


def test_tab(relay, raspi, procs, folder, net):
    """Keys as a person types them."""
    raspi.publish(f"web.raspi:80:localhost:{net.echo().port}", expect="web.raspi:80")
    bash = procs.spawn_pty(["bash", "--norc", "--noprofile", "-i"], env={**os.environ, "PS1": "READY> ", "TERM": "dumb",
                                                                         "INPUTRC": "/dev/null"})
    bash.expect("READY> ")
    bash.send(f"bind 'set enable-bracketed-paste off'; PATH={os.path.dirname(RELAYCTL)}:$PATH; "
              f"export RELAYD_CONTROL_SOCKET={relay.socket}; source {shlex.quote(COMPLETION)}; clear; echo so$((1+1))\n")
    bash.expect("so2")
    before = bash.mark()
    bash.send("relayctl set-e\t")
    bash.expect("set-endpoint ", before)
    bash.send("web.raspi:\t")
    bash.expect(r"web\.raspi:80 ", before)
    bash.send("--no\t'the shop'\n")
    until(lambda: (relay.endpoint("web.raspi:80") or {}).get("note") == "the shop", what=lambda: bash.output()[before:])
