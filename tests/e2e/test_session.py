"""The session channel: no shell behind it, yet it greets, answers commands, and stays as long as it is wanted."""

import fcntl
import struct
import termios

import pytest

from net import echoes, is_listening
from procs import until


@pytest.fixture
def raspi(relay):
    return relay.add_device("raspi", allow=["kiosk"])


@pytest.fixture
def alice(relay):
    return relay.add_client("alice", allow=["raspi:7", "*.raspi"])


def said(principal, *command, status=0):
    done = principal.run(command=command)
    assert done.returncode == status, done.stderr
    return done.stdout.decode()


def test_whoami(relay, raspi, alice):
    text = said(raspi, "whoami")
    assert "raspi" in text and "device" in text and "default" in text and raspi.fingerprint in text
    text = said(alice, "whoami")
    assert "alice" in text and "client" in text and "default" in text and alice.fingerprint in text


def test_whoami_in_another_tenant(relay):
    relay.add_tenant("acme")
    bob = relay.add_client("bob", tenant="acme")
    text = said(bob, "whoami")
    assert "bob" in text and "acme" in text and "default" not in text


def test_help_names_every_command(relay, raspi, alice):
    for principal in (raspi, alice):
        text = said(principal, "help")
        for word in ("help", "whoami", "ls"):
            assert word in text.split() or f" {word}" in text
        assert "add-client" not in text, "what only an administrator may do is not offered"


def test_ls_shows_what_the_client_may_reach(relay, net, raspi, alice):
    echo = net.echo()
    assert "raspi" not in said(alice, "ls")
    device = raspi.publish(f"7:localhost:{echo.port}", f"8:localhost:{echo.port}", f"web.raspi:80:localhost:{echo.port}",
                           f"kiosk:7:localhost:{echo.port}",
                           expect=["raspi:7", "raspi:8", "web.raspi:80", "kiosk:7"])
    everything = {"raspi:7", "raspi:8", "web.raspi:80", "kiosk:7"}
    assert everything & set(said(alice, "ls").split()) == {"raspi:7", "web.raspi:80"}
    assert everything & set(said(raspi, "ls").split()) == everything
    device.stop()
    relay.wait_withdrawn("raspi:7")


def test_unknown_command_says_so(relay, raspi, alice):
    for principal in (raspi, alice):
        done = principal.run(command=["reboot now"])
        assert done.returncode not in (0, 255) and "help" in done.stderr + done.stdout.decode()
    relay.wait_log(r'refused exec "reboot now": unknown_command')


@pytest.mark.parametrize("key", ["\x03", "\x04"], ids=["ctrl-c", "ctrl-d"])
@pytest.mark.parametrize("who", ["raspi", "alice"])
def test_shell_is_greeted_and_held_until(relay, request, who, key):
    """ssh relay on a terminal: told who one is, kept, let go with Ctrl-C or Ctrl-D."""
    principal = request.getfixturevalue(who)
    terminal = principal.ssh_pty()
    terminal.expect(who)
    terminal.send("whoami\r\nexit\r\nq")  # nobody listens to that
    assert said(principal, "whoami")  # a whole other login later
    assert terminal.running
    terminal.send(key)
    assert terminal.wait() in (0, 130)
    until(lambda: not relay.list("sessions"), what="the session gone")


def test_greeting_says_what_one_may_do(relay, raspi, alice):
    terminal = raspi.ssh_pty()
    terminal.expect("kiosk")
    terminal.expect("device")
    terminal = alice.ssh_pty()
    terminal.expect(r"raspi:7")
    terminal.expect("client")


def test_eof_without_a_pty_changes_nothing(relay, net, raspi, alice):
    """ssh -R ... relay </dev/null, as a cron job starts it: it stays published."""
    device = raspi.ssh("-R", f"7:localhost:{net.echo().port}")
    relay.wait_published("raspi:7")
    for _ in range(5):
        assert alice.through_W("raspi:7").finish(b"still") == (0, b"still")
    relay.wait_bridges(0)
    assert alice.through_W("raspi:7").finish(b"there") == (0, b"there")
    assert device.running, device.err()


def test_ctrl_d_byte_without_a_pty_is_just_input(relay, net, raspi, alice):
    device = raspi.ssh_pipes("-R", f"7:localhost:{net.echo().port}")
    relay.wait_published("raspi:7")
    device.stdin.write(b"\x04\x03\n" * 1000)
    device.stdin.close()
    for _ in range(3):
        assert alice.through_W("raspi:7").finish(b"x") == (0, b"x")
    assert device.running, device.err()


def test_shell_with_a_pty_carries_tunnels(relay, net, raspi, alice):
    """ssh -tt -R and ssh -t -L without -N, both ended from the keyboard."""
    port = net.free_port()
    device = raspi.ssh_pty("-R", f"7:localhost:{net.echo().port}")
    relay.wait_published("raspi:7")
    client = alice.ssh_pty("-L", f"127.0.0.1:{port}:raspi:7")
    until(lambda: is_listening(port), what="-L listening")
    sock = net.connect(port)
    assert echoes(sock)
    sock.close()
    client.send("\x04")
    assert client.wait() in (0, 130)
    assert relay.endpoint("raspi:7")["online"]
    device.send("\x03")
    assert device.wait() in (0, 130)
    relay.wait_withdrawn("raspi:7")


def test_window_change_signal_and_env_are_harmless(relay, raspi):
    """What terminals send besides: sizes, environment, signals."""
    terminal = raspi.ssh_pty("-o", "SetEnv=LC_TEST=1", "-o", "SendEnv=LANG")
    terminal.expect("raspi")
    for n in range(10):
        fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24 + n, 80 + n, 0, 0))
    terminal.send("\x04")
    assert terminal.wait() in (0, 130)


def test_input_into_a_held_shell_is_swallowed(relay, net, raspi, alice):
    """Megabytes into a session that reads nothing useful: neither stuck nor kept."""
    device = raspi.ssh_pipes("-R", f"7:localhost:{net.echo().port}")
    relay.wait_published("raspi:7")
    for _ in range(8):
        device.stdin.write(bytes(1 << 20))
    device.stdin.close()
    assert alice.through_W("raspi:7").finish(b"x") == (0, b"x")
    assert device.running
