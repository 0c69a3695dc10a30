"""Tunnels added and removed on a running connection with ControlMaster, -O forward and -O cancel."""

import os

from net import echoes, is_listening, read_all
from procs import until


class Master:
    """ssh -M -N in the foreground, and commands to it."""

    def __init__(self, principal, *options):
        self.principal = principal
        self.path = os.path.join(principal.folder, "mux")
        self.proc = principal.ssh("-M", "-N", "-S", self.path, *options)
        until(lambda: os.path.exists(self.path) or not self.proc.running, what="the master's socket")
        assert self.proc.running, self.proc.err()

    def do(self, *args, check=True):
        done = self.principal.run("-S", self.path, *args)
        if check:
            assert done.returncode == 0, done.stderr
        return done


def test_remote_forwards_come_and_go(relay, net, raspi, alice):
    master, echo = Master(raspi), net.echo()
    for _ in range(5):
        master.do("-O", "forward", "-R", f"7:localhost:{echo.port}")
        relay.wait_published("raspi:7")
        assert alice.through_W("raspi:7").finish(b"again") == (0, b"again")
        master.do("-O", "cancel", "-R", f"7:localhost:{echo.port}")
        relay.wait_withdrawn("raspi:7")
        done = alice.run("-W", "raspi:7")
        assert done.returncode == 255 and done.stdout == b""
    assert master.proc.running
    master.do("-O", "exit")
    master.proc.wait()


def test_cancel_withdraws_one_and_leaves_the_others(relay, net, raspi, alice):
    a, b = net.http(b"a"), net.echo()
    master = Master(raspi, "-R", f"80:localhost:{a.port}", "-R", f"7:localhost:{b.port}")
    relay.wait_published("raspi:80")
    relay.wait_published("raspi:7")
    master.do("-O", "cancel", "-R", f"80:localhost:{a.port}")
    relay.wait_withdrawn("raspi:80")
    assert relay.endpoint("raspi:7")["online"]
    assert alice.through_W("raspi:7").finish(b"still") == (0, b"still")


def test_an_open_bridge_survives_the_cancel(relay, net, raspi, alice):
    echo = net.echo()
    master = Master(raspi, "-R", f"web.raspi:7:localhost:{echo.port}")
    relay.wait_published("web.raspi:7")
    _, (port,) = alice.local("web.raspi:7")
    sock = net.connect(port)
    assert echoes(sock, b"before")
    master.do("-O", "cancel", "-R", f"web.raspi:7:localhost:{echo.port}")
    relay.wait_withdrawn("web.raspi:7")
    assert echoes(sock, b"after")
    assert read_all(net.connect(port)) == b""
    assert echoes(sock, b"at last")


def test_port_0_is_reported_and_cancelled(relay, net, raspi, alice):
    master, echo = Master(raspi), net.echo()
    ports = [int(master.do("-O", "forward", "-R", f"0:localhost:{net.echo().port}").stdout) for _ in range(3)]
    assert len(set(ports)) == 3 and all(p >= 49152 for p in ports)
    for port in ports:
        relay.wait_published(f"raspi:{port}")
        assert alice.through_W(f"raspi:{port}").finish(b"x") == (0, b"x")
    assert echo.accepted == 0
    master.do("-O", "cancel", "-R", f"{ports[1]}:localhost:1", check=False)
    for port in (ports[0], ports[2]):
        assert relay.endpoint(f"raspi:{port}")["online"]


def test_a_refused_forward_is_told_and_changes_nothing(relay, net, raspi, alice):
    """Replies are matched by order alone: a refusal between two grants must not shift them."""
    echo = net.echo()
    master = Master(raspi)
    master.do("-O", "forward", "-R", f"7:localhost:{echo.port}")
    for _ in range(3):
        done = master.do("-O", "forward", "-R", f"elsewhere:7:localhost:{echo.port}", check=False)
        assert done.returncode != 0 and "forward" in done.stderr
        master.do("-O", "forward", "-R", f"8:localhost:{echo.port}")
        relay.wait_published("raspi:8")
        master.do("-O", "cancel", "-R", f"8:localhost:{echo.port}")
        relay.wait_withdrawn("raspi:8")
    relay.wait_log(r' warn .*principal=raspi .*refused publish "elsewhere:7": not_allowed')
    assert alice.through_W("raspi:7").finish(b"fine") == (0, b"fine")


def test_local_forwards_come_and_go(relay, net, raspi, alice):
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    master, port = Master(alice), net.free_port()
    for _ in range(3):
        master.do("-O", "forward", "-L", f"127.0.0.1:{port}:raspi:7")
        assert echoes(net.connect(port))
        master.do("-O", "cancel", "-L", f"127.0.0.1:{port}:raspi:7")
        until(lambda: not is_listening(port), what="the local port closed")
    assert master.proc.running


def test_commands_and_W_through_a_master(relay, net, raspi, alice):
    """Sessions and -W that share one connection: each has its own channel, none disturbs the others."""
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    master = Master(alice)
    held = alice.ssh_pipes("-S", master.path, "-W", "raspi:7")
    held.stdin.write(b"one\n")
    held.stdin.flush()
    assert held.stdout.readline() == b"one\n"
    for _ in range(3):
        done = alice.run("-S", master.path, command=["whoami"])
        assert done.returncode == 0 and b"alice" in done.stdout
        assert alice.run("-S", master.path, "-W", "raspi:7", input=b"two").stdout == b"two"
    assert held.finish(b"three\n") == (0, b"three\n")
    assert len(relay.list("sessions")) == 2
