"""The open shell: a greeting that fits the terminal, and what happens to whom it concerns, as it happens."""

import re

import pytest

from hostile import CHANNEL_FAILURE, CLOSE, DATA, EXTENDED_DATA, REQUEST, WINDOW_ADJUST, attach  # noqa: F401
from procs import until


@pytest.fixture
def raspi(relay):
    return relay.add_device("raspi")


@pytest.fixture
def alice(relay):
    return relay.add_client("alice", allow=["raspi", "*.raspi:80"])


def shell(principal, *args, **options):
    """ssh relay on a terminal, once it is greeted and told what happens."""
    terminal = principal.ssh_pty(*args, **options)
    terminal.expect("Ctrl-C leaves")
    return terminal


def lines(terminal, since=0):
    """What the shell has said, without the times; what was wrapped is one line again."""
    text = re.sub(r"\r\n {11}(?! )", " ", terminal.output()[since:])
    return re.findall(r"^\d\d:\d\d:\d\dZ  (.*?)\r$", text, re.M)


def widest(terminal):
    text = terminal.output()
    return max(len(line) for line in text[text.index("This is relayd"):].split("\r\n"))


def publish(principal, net, *names, expect):
    return principal.publish(*(f"{name}:localhost:{net.echo().port}" for name in names), expect=expect)


# -- the greeting

@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_greeting_fits_the_terminal(relay, net, raspi, columns):
    rules = ["raspi", "*.raspi:80,443,8000-8099", "*.a-rather-long-name-of-some-device"]
    alice = relay.add_client("alice", allow=rules)
    publish(raspi, net, "22", "web.raspi:80", "a-service-with-a-long-name.raspi:8001",
            expect=["raspi:22", "web.raspi:80", "a-service-with-a-long-name.raspi:8001"])
    terminal = shell(alice, columns=columns)
    assert widest(terminal) <= columns
    said = re.sub(r"\s", "", terminal.output())
    for word in ("alice", "client", "default", alice.fingerprint, "127.0.0.1", "a-service-with-a-long-name.raspi:8001", *rules):
        assert word in said, f"{word} is lost in {columns} columns"


def test_a_fleet_does_not_flood_the_greeting(relay, net, alice):
    hub = relay.add_device("raspi")
    names = [f"n{i:03}.raspi:80" for i in range(60)]
    publish(hub, net, *names, expect=names[-1:])
    terminal = shell(alice)
    shown = {name for name in names if name in terminal.output()}
    assert shown == set(names[:50])
    assert re.search(r"more: +10, see ssh RELAY ls", terminal.output())
    assert set(names) <= set(alice.run(command=["ls"]).stdout.decode().split())


def test_without_a_terminal_it_is_quiet(relay, net, raspi, alice):
    """Plain lines, no hint for a keyboard: fit for a journal."""
    device = raspi.ssh_pipes("-R", f"22:localhost:{net.echo().port}")
    relay.wait_published("raspi:22")
    watcher = alice.ssh_pipes()
    text = b""
    while b"raspi:22" not in text:
        text += watcher.stdout.read1()
    device.kill()
    while b"offline" not in text:
        text += watcher.stdout.read1()
    assert b"\r" not in text and b"Ctrl-C" not in text
    assert re.search(rb"^\d\d:\d\d:\d\dZ  - raspi:22 offline$", text, re.M)


def test_what_was_refused_before_the_shell_was_open_is_shown(relay, net, raspi):
    """ssh asks for its forwards first."""
    terminal = shell(raspi, "-R", f"22:localhost:{net.echo().port}", "-R", "kiosk:80:localhost:80")
    terminal.expect("relayctl allow")
    assert lines(terminal) == ['refused publish "kiosk:80": not_allowed: no rule lets this device publish that: '
                               'see relayctl allow']


# -- what happens, to a device

def test_a_device_sees_who_connects(relay, net, raspi, alice):
    terminal = shell(raspi, "-R", f"22:localhost:{net.echo().port}", "-R", f"web.raspi:80:localhost:{net.free_port()}")
    relay.wait_published("web.raspi:80")
    assert alice.through_W("raspi:22").finish(b"hello") == (0, b"hello")
    terminal.expect("down")
    since = terminal.mark()
    assert alice.through_W("web.raspi:80").finish()[0] != 0
    terminal.expect("running", since)
    said = lines(terminal)
    assert said[0] == "client alice connected from 127.0.0.1 to raspi:22"
    assert re.fullmatch(r"client alice left raspi:22 \(5 bytes up, 5 bytes down, \d+\.\d s\)", said[1])
    assert said[2:] == ["client alice from 127.0.0.1 was refused web.raspi:80: open_refused: the device refused: is the "
                        "service behind it running?"]


def test_a_device_sees_its_sessions_take_turns(relay, net, raspi):
    first = shell(raspi, "-R", f"22:localhost:{net.echo().port}")
    second = publish(raspi, net, "22", "2200", expect=["raspi:22", "raspi:2200"])
    first.expect("2200")
    second.stop()
    first.expect("left")
    said = [line for line in lines(first) if "two hosts" not in line]  # if both live for long enough
    assert said == [
        "another session logged in from 127.0.0.1",
        "a newer session, from 127.0.0.1, serves raspi:22; this one is its standby",
        "another session, from 127.0.0.1, published raspi:2200",
        *sorted(["the session from 127.0.0.1 withdrew raspi:22", "this session serves raspi:22 again", "withdrew raspi:2200"],
                key=said.index),
        "the session from 127.0.0.1 left"]
    assert raspi.run(command=["ls"]).stdout.decode().split()[-4:] == ["session", "1", "from", "127.0.0.1"]


def test_a_device_sees_that_its_key_may_be_on_two_hosts(relay, net, raspi):
    terminal = shell(raspi, "-R", f"22:localhost:{net.echo().port}")
    publish(raspi, net, "22", expect="raspi:22")
    terminal.expect(r"have\s+one\s+key")
    assert ("raspi:22 is served by the newer of two live sessions, from 127.0.0.1: do two hosts have one key?"
            in lines(terminal))


def test_a_device_sees_what_it_publishes_and_takes_back(relay, net, raspi, attach):
    device = attach(raspi)
    stream = device.session()
    assert stream.request("pty-req", "xterm", 80, 24, 0, 0, "") and stream.request("shell")
    assert device.publish(b"", 22) == 22
    assert device.publish(b"kiosk", 80) is None
    assert device.ask("cancel-tcpip-forward", b"", 22)[0]
    text = read_until(stream, b"withdrew")
    said = [line[11:] for line in text.split("\r\n") if re.match(r"\d\d:", line)]
    assert said[0] == "published raspi:22" and said[1].startswith('refused publish "kiosk:80": not_allowed: no rule')


# -- what happens, to a client

def test_a_client_sees_endpoints_come_and_go(relay, net, raspi, alice):
    terminal = shell(alice)
    first = publish(raspi, net, "22", expect="raspi:22")
    terminal.expect(r"\+ raspi:22 online")
    second = publish(raspi, net, "22", "web.raspi:80", expect=["raspi:22", "web.raspi:80"])
    first.stop()
    relay.wait_published("raspi:22")
    second.stop()
    terminal.expect("- raspi:22 offline")
    terminal.expect("- web.raspi:80 offline")
    said = lines(terminal)
    assert said[:2] == ["+ raspi:22 online", "+ web.raspi:80 online"], "a standby neither comes nor goes"
    assert sorted(said[2:]) == ["- raspi:22 offline", "- web.raspi:80 offline"]


def test_a_client_sees_its_own_refusals_with_the_remedy(relay, alice):
    terminal = shell(alice)
    alice.through_W("nobody:22").finish()
    terminal.expect("RELAY ls")
    assert lines(terminal) == ['refused connect "nobody:22": not_reachable: no such endpoint is online for you: '
                               'see ssh RELAY ls']


def test_nothing_else_is_shown_to_a_client(relay, net, raspi, alice):
    """Neither names that it may not reach, nor others' connections and refusals, nor another tenant's life."""
    relay.add_tenant("acme")
    terminal = shell(alice)
    bob = relay.add_client("bob")
    secret = publish(relay.add_device("secret"), net, "22", expect="secret:22")
    hidden = publish(raspi, net, "hidden.raspi:443", expect="hidden.raspi:443")
    other = publish(relay.add_device("raspi", tenant="acme"), net, "22", expect="raspi:22")
    shell(relay.add_client("alice", tenant="acme"))
    assert bob.through_W("secret:22").finish(b"x") == (0, b"x")
    bob.through_W("nobody:22").finish()
    for proc in (secret, hidden, other):
        proc.stop()
    for name_port, tenant in (("secret:22", None), ("hidden.raspi:443", None), ("raspi:22", "acme")):
        relay.wait_withdrawn(name_port, tenant)
    publish(raspi, net, "22", expect="raspi:22")
    terminal.expect(r"\+ raspi:22 online")
    assert lines(terminal) == ["+ raspi:22 online"]
    assert not re.search("secret|hidden|bob|nobody|acme", terminal.output())


def test_a_device_sees_nothing_of_other_devices(relay, net, raspi, alice):
    terminal = shell(raspi, "-R", f"22:localhost:{net.echo().port}")
    bob = relay.add_client("bob")
    other = publish(relay.add_device("other"), net, "22", expect="other:22")
    assert bob.through_W("other:22").finish(b"x") == (0, b"x")
    bob.through_W("raspi:23").finish()
    other.stop()
    relay.wait_withdrawn("other:22")
    alice.through_W("raspi:22").finish(b"x")
    terminal.expect("alice left")
    assert [line.split("(")[0] for line in lines(terminal)] == [
        "client alice connected from 127.0.0.1 to raspi:22", "client alice left raspi:22 "]


def test_a_right_that_is_taken_hides_at_once(relay, net, raspi, alice):
    terminal = shell(alice)
    relay.ctl("disallow", "alice", "raspi")
    publish(raspi, net, "22", "web.raspi:80", expect=["raspi:22", "web.raspi:80"])
    terminal.expect(r"web.raspi:80 online")
    assert lines(terminal) == ["+ web.raspi:80 online"]


def test_names_of_others_never_reach_the_terminal_raw(relay, attach, alice):
    terminal = shell(alice)
    attach(alice).connect(b"a\x1b[2J\x07\r\nb\xe2\x80\xae", 22)
    terminal.expect("bad_name")
    assert r'refused connect "a\x1b[2J\x07\x0d\x0ab\xe2\x80\xae:22": bad_name: ' in lines(terminal)[0]
    said = terminal.output()[terminal.output().index("Z  refused"):]
    assert all(c in "\r\n" or " " <= c <= "~" for c in said)


# -- the terminal

def read_until(stream, text):
    """What the channel says, up to some text in it."""
    said = b""
    while text not in said:
        kind, message = stream.expect(DATA, EXTENDED_DATA)
        message.get_int()
        if kind == EXTENDED_DATA:
            message.get_int()
        said += message.get_string()
    return said.decode()


def test_lines_follow_the_size_of_the_window(relay, alice):
    """A real ssh tells of the new size, sooner or later."""
    terminal = shell(alice, columns=200)
    alice.through_W("nobody:22").finish()
    terminal.expect("nobody.*RELAY ls")
    terminal.resize(40)

    def narrow():
        since = terminal.mark()
        alice.through_W("somebody:22").finish()
        terminal.expect(r"RELAY\s+ls", since)
        return max(map(len, terminal.output()[since:].split("\r\n"))) <= 40

    until(narrow, what="lines of 40 columns")


@pytest.mark.parametrize("columns", [0, 1, 0xffffffff])
def test_no_size_of_a_window_does_harm(relay, alice, attach, columns):
    stream = attach(alice).session()
    assert stream.request("pty-req", "xterm", columns, columns, columns, columns, "")
    assert stream.request("shell")
    assert stream.request("window-change", columns, columns, 0, 0)
    stream.raw.connect(b"nobody", 22)
    read_until(stream, b"ls\r\n")
    stream.send(b"\x03")
    stream.expect(CLOSE)


def test_ctrl_c_cuts_off_what_a_command_says(relay, net, raspi, alice, attach):
    publish(raspi, net, *(f"n{i}.raspi:80" for i in range(100)), expect="n99.raspi:80")
    client = attach(alice)
    stream = client.opened(client.open("session", window=100))
    assert stream.request("pty-req", "xterm", 80, 24, 0, 0, "") and stream.request("exec", "ls")
    read_until(stream, b"ENDPOINT")
    stream.send(b"\x03")
    _, message = stream.expect(REQUEST)
    message.get_int()
    assert message.get_text() == "exit-status" and not message.get_boolean() and message.get_int() == 130
    stream.expect(CLOSE)


# -- who does not read

def test_a_shell_that_is_not_read_loses_lines_and_nobody_else_does(relay, alice, attach):
    client = attach(alice)
    stalled = client.opened(client.open("session", window=10))
    assert stalled.request("shell")
    terminal = shell(alice)
    for total in range(50, 1001, 50):  # fewer at a time than may wait, so that who reads loses none
        for _ in range(50):
            client.direct(b"nobody", 22)
        until(lambda total=total: len(lines(terminal)) == total, what=f"{total} lines on the shell that is read")
    client.put(WINDOW_ADJUST, stalled.peer, 1 << 20)
    text = read_until(stalled, b"were lost here")
    told = text.count("refused connect")
    lost = int(re.search(r"Z  (\d+) lines were lost here: they were not read in time", text)[1])
    assert told + lost == 1000 and 50 < told < 500
    assert client.connect(b"nobody", 23) is None
    assert '"nobody:23"' in read_until(stalled, b"RELAY ls"), "it goes on"


def test_shells_and_commands_of_one_session_are_bounded(relay, alice, attach):
    client = attach(alice)
    streams = [client.session() for _ in range(40)]
    assert sum(stream.request("shell") for stream in streams) == 32
    streams[0].close()
    streams[0].expect(CLOSE)
    assert streams[39].request("exec", "whoami"), "room was not made by closing"
    assert "alice" in read_until(streams[39], b"may_reach")
