"""dropbear's dbclient and paramiko, each as device and as client, towards OpenSSH and towards each other."""

import os
import socket
import subprocess
import threading

import paramiko
import pytest

from net import echoes, is_listening, pattern, sha
from procs import until


class Dbclient:
    """dbclient with the principal's key and strict host-key checking (dropbear knows no ssh_config)."""

    def __init__(self, principal):
        self.principal, self.relay = principal, principal.relay
        self.home = os.path.join(principal.folder, "home")
        os.makedirs(os.path.join(self.home, ".ssh"), mode=0o700)
        with open(self.relay.known_hosts) as f, open(os.path.join(self.home, ".ssh", "known_hosts"), "w") as out:
            for line in f:
                out.write("127.0.0.1 " + line.split(" ", 1)[1])
        self.key = os.path.join(self.home, "key")
        subprocess.run(["dropbearconvert", "openssh", "dropbear", principal.key, self.key], check=True,
                       capture_output=True)

    def argv(self, *args, command=()):
        return ["dbclient", "-i", self.key, "-l", self.principal.user, "-p", str(self.relay.port), *args,
                "127.0.0.1", *command]

    def env(self):
        return {**os.environ, "HOME": self.home}

    def start(self, *args, command=()):
        return self.relay.procs.spawn(self.argv(*args, command=command), env=self.env())

    def run(self, *args, command=(), input=b"", timeout=30):
        return self.relay.procs.run(self.argv(*args, command=command), input, timeout, env=self.env())


# -- dbclient

def test_dbclient_checks_the_relays_key(relay, raspi):
    db = Dbclient(raspi)
    with open(os.path.join(db.home, ".ssh", "known_hosts"), "w") as f:
        f.write(f"127.0.0.1 {raspi.public}\n")
    done = db.run("-T", command=["whoami"])
    assert done.returncode != 0 and b"raspi" not in done.stdout and "mismatch" in done.stderr


def test_dbclient_asks_to_be_enrolled_and_is_let_in(relay):
    raspi = relay.stranger(user="enrol+raspi")
    db = Dbclient(raspi)
    done = db.run("-T", command=["whoami"])
    assert done.returncode != 0 and f"relayctl add-device --pending {raspi.fingerprint}" in done.stderr, done.stderr
    until(lambda: relay.list("pending"), what="the key")
    relay.ctl("add-device", "--pending", raspi.fingerprint, "--name", "raspi")
    done = db.run("-T", command=["whoami"])
    assert done.returncode == 0 and b"raspi" in done.stdout


def test_dbclient_as_device(relay, net, raspi, alice):
    db = Dbclient(raspi)
    device = db.start("-N", "-T", "-R", f"7:localhost:{net.echo().port}",
                      "-R", f"Web.Raspi:80:localhost:{net.http(b'dropbear').port}")
    relay.wait_published("raspi:7")
    relay.wait_published("web.raspi:80")
    data = pattern(2 << 20)
    assert alice.through_W("raspi:7").finish(data) == (0, data)
    _, (port,) = alice.local("web.raspi:80")
    for _ in range(3):
        assert net.http_get(port) == b"dropbear"
    [row] = [row for row in relay.list("sessions") if row["principal"] == "raspi"]
    assert "dropbear" in row["client"]
    device.stop()
    relay.wait_withdrawn("raspi:7")


def test_dbclient_as_device_with_g(relay, net, raspi, alice):
    """-g makes dropbear send an empty address; it still means the device's own name."""
    Dbclient(raspi).start("-N", "-T", "-g", "-R", f"7:localhost:{net.echo().port}")
    relay.wait_published("raspi:7")
    assert alice.through_W("raspi:7").finish(b"x") == (0, b"x")


def test_dbclient_as_device_without_N(relay, net, raspi, alice):
    """dropbear leaves when no channel is left: the held session keeps it, with stdin at EOF."""
    device = Dbclient(raspi).start("-T", "-R", f"7:localhost:{net.echo().port}")
    relay.wait_published("raspi:7")
    for _ in range(3):
        assert alice.through_W("raspi:7").finish(b"x") == (0, b"x")
    assert device.running, device.err()


def test_dbclient_with_port_0(relay, net, raspi, alice):
    db = Dbclient(raspi)
    device = db.start("-N", "-T", "-R", f"0:localhost:{net.echo().port}")
    port = relay.wait_log(r"published raspi:(\d+)$")[1]
    assert int(port) >= 49152
    assert alice.through_W(f"raspi:{port}").finish(b"x") == (0, b"x")
    assert device.running


def test_dbclient_tells_grants_and_refusals_apart(relay, net, raspi, alice):
    device = Dbclient(raspi).start("-N", "-T", "-R", f"7:localhost:{net.echo().port}", "-R", "elsewhere:9:localhost:9",
                                   "-R", f"8:localhost:{net.echo().port}")
    relay.wait_published("raspi:7")
    relay.wait_published("raspi:8")
    device.wait_err(r"Remote TCP forward request failed \(port 9 ")
    assert device.err().count("request failed") == 1, device.err()
    assert alice.through_W("raspi:8").finish(b"x") == (0, b"x")


def test_dbclient_as_client(relay, net, raspi, alice):
    raspi.publish(f"7:localhost:{net.echo().port}", f"19:localhost:{net.source(4 << 20).port}",
                  expect=["raspi:7", "raspi:19"])
    db, data = Dbclient(alice), pattern(2 << 20, seed=3)
    port = net.free_port()
    client = db.start("-N", "-T", "-L", f"127.0.0.1:{port}:RASPI:7")
    until(lambda: is_listening(port), what="dbclient -L listening")
    for _ in range(3):
        assert echoes(net.connect(port), b"dropbear")
    done = db.run("-B", "raspi:19")
    assert done.returncode == 0 and done.stdout == pattern(4 << 20)
    done = db.run("-B", "raspi:7", input=data)
    assert done.returncode == 0 and sha(done.stdout) == sha(data)
    assert client.running


def test_dbclient_runs_a_command(relay, alice):
    done = Dbclient(alice).run("-T", command=["whoami"])
    assert done.returncode == 0 and b"alice" in done.stdout, done.stderr


def test_dbclient_B_to_nowhere_ends(relay, alice):
    """dropbear's exit status does not tell (it is 0); it must not hang, and the log must tell."""
    done = Dbclient(alice).run("-B", "nowhere:7")
    assert done.stdout == b""
    relay.wait_log(r'refused connect "nowhere:7": not_reachable')
    assert not relay.logged("bridge .* opened")


def test_dbclient_on_both_ends(relay, net, raspi, alice):
    Dbclient(raspi).start("-N", "-T", "-K", "1", "-R", f"7:localhost:{net.echo().port}")
    relay.wait_published("raspi:7")
    data = pattern(1 << 20, seed=9)
    done = Dbclient(alice).run("-K", "1", "-B", "raspi:7", input=data)
    assert done.returncode == 0 and done.stdout == data


# -- paramiko

def paramiko_echo(channel, origin, server):
    def echo():
        while data := channel.recv(65536):
            channel.sendall(data)
        channel.close()

    threading.Thread(target=echo, daemon=True).start()


def channel_to(transport, name, port):
    channel = transport.open_channel("direct-tcpip", (name, port), ("127.0.0.1", 4711), timeout=20)
    channel.settimeout(30)
    return channel


def test_paramiko_as_device(relay, raspi, alice):
    transport = raspi.paramiko()
    assert transport.request_port_forward("", 7, paramiko_echo) == 7
    assert transport.request_port_forward("Web.Raspi", 8, paramiko_echo) == 8
    port = transport.request_port_forward("", 0, paramiko_echo)
    assert port >= 49152
    data = pattern(1 << 20)
    for target in ("raspi:7", "web.raspi:8", f"raspi:{port}"):
        relay.wait_published(target)
        assert alice.through_W(target).finish(data) == (0, data)
    with pytest.raises(paramiko.SSHException):
        transport.request_port_forward("elsewhere", 7, paramiko_echo)
    transport.cancel_port_forward("", 7)
    relay.wait_withdrawn("raspi:7")
    assert relay.endpoint("web.raspi:8")["online"]
    transport.request_port_forward("", 7, paramiko_echo)
    relay.wait_published("raspi:7")
    assert alice.through_W("web.raspi:8").finish(b"x") == (0, b"x")
    transport.close()
    relay.wait_withdrawn("web.raspi:8")


def test_paramiko_as_client(relay, net, raspi, alice):
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    transport = alice.paramiko()
    channels = [channel_to(transport, name, 7) for name in ("raspi", "RASPI", "raspi.default")]
    for channel in channels:
        assert echoes(channel, b"paramiko")
    with pytest.raises(paramiko.ChannelException) as refused:
        channel_to(transport, "nowhere", 7)
    assert refused.value.code != 0
    channels[0].shutdown_write()
    assert channels[0].recv(1) == b""
    assert echoes(channels[1], b"the others go on")
    session = transport.open_session()
    session.exec_command("whoami")
    assert b"alice" in session.makefile().read() and session.recv_exit_status() == 0
    transport.close()
    relay.wait_bridges(0)


def test_paramiko_on_both_ends(relay, raspi, alice):
    device, client = raspi.paramiko(), alice.paramiko()
    device.request_port_forward("", 7, paramiko_echo)
    data = pattern(300_000, seed=5)
    channel = channel_to(client, "raspi", 7)
    threading.Thread(target=lambda: (channel.sendall(data), channel.shutdown_write()), daemon=True).start()
    got = b""
    while piece := channel.recv(65536):
        got += piece
    assert sha(got) == sha(data)
    device.close()
    client.close()


def test_paramiko_device_that_refuses_the_open(relay, raspi, alice):
    """A device program that turns the channel down: the client's open fails, nothing is accepted."""
    transport = raspi.paramiko()
    transport.request_port_forward("", 7, paramiko_echo)
    transport._tcp_handler = None
    relay.wait_published("raspi:7")
    done = alice.run("-W", "raspi:7")
    assert done.returncode == 255 and "open failed" in done.stderr
    relay.wait_log(r'refused connect "raspi:7": open_refused')
    assert transport.is_active()
    transport.close()


def test_paramiko_device_whose_socket_dies(relay, raspi, alice):
    transport = raspi.paramiko()
    transport.request_port_forward("", 7, paramiko_echo)
    relay.wait_published("raspi:7")
    proc = alice.through_W("raspi:7")
    proc.stdin.write(b"x")
    proc.stdin.flush()
    assert proc.stdout.read(1) == b"x"
    transport.sock.shutdown(socket.SHUT_RDWR)
    relay.wait_withdrawn("raspi:7")
    assert proc.stdout.read() == b""
    proc.wait()
    relay.wait_bridges(0)
    transport.close()
