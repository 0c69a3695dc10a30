"""What relayd refuses: each with its reason in the log and for `ssh -v`, and without harm to the connection."""

import os
import re
import subprocess
import time

import pytest
from hostile import CHANNEL_FAILURE, OPEN_FAILURE, attach, closed_log  # noqa: F401
from net import echoes, is_listening
from procs import SLOW, until


def wait_refused(relay, what, asked, code, principal=None, since=0):
    who = rf"principal={principal} session=\d+ " if principal else ""
    return relay.wait_log(rf'warn .*{who}refused {what} "{asked}": {code}: \w', since)


def reach(raw, host=b"raspi", port=7):
    stream = raw.connect(host, port)
    assert stream is not None, "an allowed open was refused"
    return stream.echoes(b"still here")


@pytest.fixture
def raspi(relay, net):
    """The device raspi with its echo service on raspi:7."""
    device = relay.add_device("raspi")
    device.echo = net.echo()
    device.publish(f"7:localhost:{device.echo.port}", expect="raspi:7")
    return device


def test_an_unknown_key_is_refused(relay):
    stranger = relay.stranger()
    done = stranger.run(command=["whoami"])
    assert (done.returncode, done.stdout) == (255, b"")
    assert "Permission denied (publickey)" in done.stderr
    wait_refused(relay, "login", rf"somebody@127\.0\.0\.1 {stranger.fingerprint.replace('+', '[+]')}", "unknown_key")


def test_a_device_that_connects_is_refused(relay, raspi, attach):
    other = relay.add_device("other")
    done = other.run("-W", "raspi:7", input=b"hello")
    assert (done.returncode, done.stdout) == (255, b"")
    wait_refused(relay, "connect", "raspi:7", "not_client", "other")
    raw = attach(other)
    assert raw.connect(b"raspi", 7) is None and raw.connect(b"other", 7) is None
    assert raw.publish(b"other", 7) == 7, "the connection did not survive"
    assert raspi.echo.accepted == 0


def test_a_device_may_not_connect_to_what_it_publishes_by_name(relay, raspi):
    done = raspi.run("-W", "raspi:7", input=b"hello")
    assert (done.returncode, done.stdout) == (255, b"")
    wait_refused(relay, "connect", "raspi:7", "not_client", "raspi")


def test_a_client_that_publishes_is_refused(relay, raspi, attach):
    alice = relay.add_client("alice")
    done = alice.run("-v", "-N", "-o", "ExitOnForwardFailure=yes", "-R", "22:localhost:22")
    assert done.returncode == 255 and "remote port forwarding failed for listen port 22" in done.stderr
    wait_refused(relay, "publish", "localhost:22", "not_device", "alice")
    raw = attach(alice)
    for name in (b"", b"localhost", b"alice", b"web.alice", b"raspi"):
        assert raw.publish(name, 80) is None, name
        assert raw.publish(name, 0) is None, name
    assert raw.alive() and reach(raw)
    assert [row["name"] for row in relay.list("endpoints")] == ["raspi"]


def test_ssh_goes_on_without_ExitOnForwardFailure(relay, raspi, net):
    port = net.free_port()
    alice = relay.add_client("alice")
    proc = alice.ssh("-N", "-R", "22:localhost:22", "-L", f"127.0.0.1:{port}:raspi:7")
    proc.wait_err("remote port forwarding failed for listen port 22")
    until(lambda: is_listening(port), what="ssh -L listening")
    assert echoes(net.connect(port)) and proc.running


@pytest.mark.parametrize("name", ["shared", "SHARED", "shared.default"])
def test_a_name_owned_by_another_device_is_refused(name, relay, net):
    first, second = relay.add_device("first", allow=["shared*"]), relay.add_device("second", allow=["*"])
    proc = first.publish(f"shared:80:localhost:{net.echo().port}", expect="shared:80")
    for attempt in ("while it is online", "after it has left"):
        for port in (80, 81):
            since = relay.mark()
            done = second.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{name}:{port}:localhost:1")
            assert done.returncode == 255, attempt
            wait_refused(relay, "publish", f"{name}:{port}", "not_owner", "second", since)
        proc.stop()
        relay.wait_withdrawn("shared:80")
    first.publish(f"shared:80:localhost:{net.echo().port}", expect="shared:80")


@pytest.mark.parametrize("name", ["first", "web.first", "a.b.first"])
def test_a_devices_own_name_is_no_others_whatever_the_rules(name, relay):
    relay.add_device("first")
    second = relay.add_device("second", allow=["*", name])
    done = second.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{name}:80:localhost:1")
    assert done.returncode == 255
    wait_refused(relay, "publish", f"{name}:80", "not_owner", "second")
    assert relay.list("endpoints") == []


def test_a_publish_outside_the_rules_is_refused(relay, attach):
    raw = attach(relay.add_device("raspi", allow=["web.*:80,8000-8099", "cam?:554"]))
    for name, port, accepted in [
            (b"web.shop", 80, True), (b"web.a.b", 8099, True), (b"cam1", 554, True), (b"CAM2", 554, True),
            (b"web.shop", 81, False), (b"web.shop", 8100, False), (b"web", 80, False), (b"xweb.shop", 80, False),
            (b"cam", 554, False), (b"cam10", 554, False), (b"rasp", 80, False), (b"raspi2", 80, False),
            (b"notraspi", 80, False), (b"raspi.web", 80, False)]:
        since = relay.mark()
        assert (raw.publish(name, port) == port) == accepted, (name, port)
        if not accepted:
            wait_refused(relay, "publish", f"{name.decode()}:{port}", "not_allowed", "raspi", since)
    assert raw.publish(b"web.raspi", 1) == 1


@pytest.mark.parametrize("name", ["raspi_", "-raspi", "ras pi", "raspi.", "10.0.0.1", "a" * 64, "ünï"])
def test_a_bad_name_is_not_published(name, relay, attach):
    raw = attach(relay.add_device("raspi"))
    expected = "not_allowed" if name == "raspi_" else "bad_name"
    assert raw.publish(name, 80) is None
    relay.wait_log(rf'principal=raspi session=\d+ refused publish ".*": {expected}: ')
    assert raw.publish(b"", 80) == 80


def test_a_device_is_closed_when_all_its_publishes_were_refused(relay, attach):
    """After 30 s, and nobody else: only a device that serves nothing is of no use, and only it tries again."""
    names = ["silent", "channel", "accepted", "withdrawn", "refused"]
    _, channel, accepted, withdrawn, refused = devices = [attach(relay.add_device(name)) for name in names]
    client = attach(relay.add_client("client"))
    channel.session()
    for peer in (client, *devices[1:]):  # the last is closed, when all have had their time
        assert peer.publish(b"elsewhere", 80) is None
    started = time.monotonic()
    assert accepted.publish(b"accepted", 80) == 80 and withdrawn.publish(b"withdrawn", 80) == 80
    assert withdrawn.ask("cancel-tcpip-forward", b"withdrawn", 80)[0]
    while time.monotonic() - started < 25:  # what is refused later is no respite
        assert refused.publish(b"elsewhere", 80) is None
        time.sleep(1)
    until(lambda: not refused.is_active(), 8, "the device whose publishes were refused is closed")
    assert 29.5 < time.monotonic() - started < 33 * SLOW
    closed_log(relay, "refused", sentence="none of the publishes of this device was accepted")
    assert all(peer.alive() for peer in (*devices[:-1], client))
    assert {row["principal"] for row in relay.list("sessions")} == {*names[:-1], "client"}


def test_the_same_endpoint_twice_in_one_session_is_refused(relay, net, attach):
    raw = attach(relay.add_device("raspi"))
    assert raw.publish(b"localhost", 22) == 22
    for again in (b"localhost", b"", b"raspi", b"RASPI", b"raspi.default"):
        since = relay.mark()
        assert raw.publish(again, 22) is None, again
        wait_refused(relay, "publish", f"{again.decode()}:22", "duplicate", "raspi", since)
    client = attach(relay.add_client("alice"))
    own = client.direct(b"raspi", 22)
    incoming = raw.incoming()
    assert (incoming.address, incoming.port) == (b"localhost", 22), "not the bytes of the publish that was accepted"
    back, stream = raw.confirm(incoming), client.opened(own)
    stream.send(b"hello")
    assert back.read(5) == b"hello"


def test_ssh_v_shows_the_reason(relay, raspi):
    proc = relay.add_device("second").ssh("-v", "-N", "-R", "web.raspi:80:localhost:1")
    proc.wait_err('Remote: refused publish "web.raspi:80": not_owner: that name belongs to another device')
    alice, bob = relay.add_client("alice"), relay.add_client("bob", allow=["nothing"])
    said = set()
    for principal, target in ((alice, "nosuch:22"), (alice, "raspi:8"), (bob, "raspi:7"), (bob, "nosuch:7")):
        done = principal.run("-v", "-W", target)
        told = re.search(f'Remote: refused connect "{target}": (not_reachable: .*)', done.stderr)
        said.add(told[1])
    assert len(said) == 1, "what the client is told must not tell absent from forbidden"


def test_a_device_whose_service_is_down_refuses_the_open(relay, net):
    relay.add_device("raspi").publish(f"7:localhost:{net.free_port()}", expect="raspi:7")
    done = relay.add_client("alice").run("-v", "-W", "raspi:7", input=b"hello")
    assert (done.returncode, done.stdout) == (255, b"")
    assert 'Remote: refused connect "raspi:7": open_refused: ' in done.stderr
    wait_refused(relay, "connect", "raspi:7", "open_refused", "alice")


@pytest.mark.parametrize("command", [
    "id", "sh", "ls; id", "scp -t /tmp", "rsync --server", "list devices", "remove-device raspi", "add-client x", "",
    "whoami\nhelp", "\x1b]0;x\x07"])
def test_exec_of_anything_else_is_refused(command, relay, raspi, attach):
    raw = attach(relay.add_client("alice"))
    session = raw.session()
    if session.request("exec", command):  # an accepted one must then fail, and say so
        while (message := session.expect(98, 94, 95, 96, 97)[1]) and b"exit-status" not in message.asbytes():
            pass
        assert message.asbytes()[-4:] != b"\0\0\0\0", "it ended with exit status 0"
    relay.wait_log(r'principal=alice session=\d+ refused exec ".*": unknown_command: ')
    assert raw.alive() and reach(raw)
    assert [row["name"] for row in relay.list("devices")] == ["raspi"]


def test_ssh_with_a_command_that_does_not_exist_fails(relay):
    done = relay.add_client("alice").run(command=["id"])
    assert done.returncode not in (0, None) and b"uid=" not in done.stdout
    wait_refused(relay, "exec", "id", "unknown_command", "alice")


def test_x11_forwarding_is_refused(relay, attach):
    alice = relay.add_client("alice")
    proc = relay.procs.spawn_pipes(alice.argv("-Y", command=["whoami"]), env={**os.environ, "DISPLAY": "127.0.0.1:7"})
    status, out = proc.finish()
    assert "X11 forwarding request failed on channel 0" in proc.err()
    assert status == 0 and b"alice" in out, "the rest of the session did not go on"
    wait_refused(relay, "request", "x11-req", "not_supported", "alice")
    raw = attach(alice)
    assert raw.opened(raw.open("x11", b"127.0.0.1", 6000)) is None
    wait_refused(relay, "channel", "x11", "not_supported", "alice")
    assert raw.alive()


def test_agent_forwarding_is_refused(relay, raspi, attach):
    alice = relay.add_client("alice")
    done = alice.run("-A", command=["whoami"])
    assert done.returncode == 0 and b"alice" in done.stdout
    raw = attach(alice)
    session = raw.session()
    session.raw.put(98, session.peer, "auth-agent-req@openssh.com", False)
    assert session.request("shell")
    assert raw.opened(raw.open("auth-agent@openssh.com")) is None
    assert raw.alive() and reach(raw)
    assert raw.seen(90) == [], "relayd opened an agent channel"


def test_subsystems_are_refused(relay, raspi, attach):
    alice = relay.add_client("alice")
    done = alice.run("-s", command=["sftp"])
    assert done.returncode == 255 and "subsystem request failed" in done.stderr
    wait_refused(relay, "request", "(subsystem )?sftp", "not_supported", "alice")
    sftp = relay.procs.run(["sftp", "-F", alice.config, "-b", "/dev/null", "relay"])
    assert sftp.returncode == 255
    raw = attach(alice)
    assert not raw.session().request("subsystem", "sftp")
    assert reach(raw)


def test_unix_sockets_are_refused(relay, raspi, attach, folder, net):
    path = os.path.join(folder, "unix")
    device = relay.add_device("other", allow=["*"])
    done = device.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", f"{path}:localhost:22")
    assert done.returncode == 255 and "remote port forwarding failed for listen path" in done.stderr
    assert not os.path.exists(path)
    alice, port = relay.add_client("alice"), net.free_port()
    alice.ssh("-N", "-L", f"127.0.0.1:{port}:{relay.socket}")
    until(lambda: is_listening(port), what="ssh -L listening")
    assert net.connect(port).recv(1) == b""
    wait_refused(relay, "channel", "[^\"]*", "not_supported", "alice")
    raw = attach(alice)
    assert raw.opened(raw.open("direct-streamlocal@openssh.com", relay.socket, "", 0)) is None
    assert reach(raw)
    publisher = attach(device)
    assert publisher.ask("streamlocal-forward@openssh.com", path)[0] is False
    assert publisher.publish(b"other", 1) == 1


@pytest.mark.parametrize("kind", [
    "forwarded-tcpip", "tun@openssh.com", "no-such-channel", "", "direct-tcpip\0x", "x" * 5000])
def test_other_channel_types_are_refused(kind, relay, raspi, attach):
    raw = attach(relay.add_client("alice"))
    own = raw.open(kind, b"raspi", 7, b"127.0.0.1", 1)
    answer, message = raw.expect(OPEN_FAILURE, 91, channel=own)
    if kind != "direct-tcpip\0x":  # which libssh cuts: then it is what the truncated value says
        assert answer == OPEN_FAILURE
    assert raw.alive() and reach(raw)


@pytest.mark.parametrize("request_name", ["env", "signal", "window-change", "xon-xoff", "break", "no-such-request"])
def test_other_channel_requests_do_not_end_the_session(request_name, relay, raspi, attach):
    raw = attach(relay.add_client("alice"))
    session = raw.session()
    raw.put(98, session.peer, request_name, False, b"LD_PRELOAD", b"x")
    raw.put(98, session.peer, "winadj@putty.projects.tartarus.org", True)
    session.expect(CHANNEL_FAILURE)
    assert session.request("shell") and reach(raw)


@pytest.mark.parametrize("login_grace", ["3s"])
def test_a_certificate_is_no_user_key(login_grace, make_relay, keys, folder):
    relay = make_relay(login_grace=login_grace)
    authority, unknown, known = keys.new(), relay.stranger("unknown"), relay.add_client("known")
    relay.add_client("authority", key=authority)
    for principal in (unknown, known):
        subprocess.run(["ssh-keygen", "-q", "-s", authority, "-I", "id", "-n", "somebody,default,known", "-V",
                       "-1d:+1d",
                        principal.pub], check=True)
        cert = principal.key + "-cert.pub"
        try:
            done = principal.run("-o", "PubkeyAcceptedAlgorithms=ssh-ed25519-cert-v01@openssh.com",
                                 "-o", f"CertificateFile={cert}", command=["whoami"])
        finally:
            os.replace(cert, os.path.join(folder, f"{principal.name}-cert.pub"))  # the pool's keys are shared
        assert (done.returncode, done.stdout) == (255, b""), done.stderr
        assert not relay.logged("logged in as")
    wait_refused(relay, "login", ".*ssh-ed25519-cert-v01@openssh.com.*", r"\w+")
    assert b"known" in known.run(command=["whoami"]).stdout
