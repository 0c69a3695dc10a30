"""Long-lived devices: keepalives, autossh with its monitor ports, and opens that race a cancel."""

import os
import re
import threading

import pytest

from net import connect, echoes
from procs import SLOW, descendants, own_network, until
from test_control_master import Master

REQUEST, SUCCESS, FAILURE = 80, 81, 82  # SSH_MSG_GLOBAL_REQUEST and its two replies


def packets(proc, direction, number):
    return len(re.findall(rf"debug3: {direction} packet: type {number}\b", proc.err()))


def test_keepalives_between_publishes_and_cancels(relay, net):
    """A keepalive is a global request as well: every reply must go to the request it belongs to."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    echo = net.echo()
    master = Master(raspi, "-vvv", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=3",
                    "-R", f"7:localhost:{echo.port}")
    relay.wait_published("raspi:7")

    def replies():
        return packets(master.proc, "receive", SUCCESS) + packets(master.proc, "receive", FAILURE)

    for round in range(3):
        seen = packets(master.proc, "send", REQUEST)
        until(lambda: packets(master.proc, "send", REQUEST) > seen, what="a keepalive sent", every=0.1)
        master.do("-O", "forward", "-R", f"8:localhost:{echo.port}")
        refused = master.do("-O", "forward", "-R", f"elsewhere:8:localhost:{echo.port}", check=False)
        assert refused.returncode != 0
        relay.wait_published("raspi:8")
        assert alice.through_W("raspi:8").finish(b"alive") == (0, b"alive")
        master.do("-O", "cancel", "-R", f"8:localhost:{echo.port}")
        relay.wait_withdrawn("raspi:8")
    asked = packets(master.proc, "send", REQUEST)
    # no-more-sessions is not sent by a master; the three cancels want no reply
    until(lambda: replies() >= asked - 3, what=lambda: f"{asked - 3} replies, have {replies()}")
    assert master.proc.running and alice.through_W("raspi:7").finish(b"x") == (0, b"x")


def test_keepalives_through_an_idle_connection(relay, net):
    """Three unanswered keepalives would end either ssh; an idle pair with an open bridge outlives five."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    alive = ["-vvv", "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2"]
    device = raspi.publish(f"7:localhost:{net.echo().port}", options=alive, expect="raspi:7")
    client, (port,) = alice.local("raspi:7", options=alive)
    sock = net.connect(port)
    assert echoes(sock)
    before = [packets(proc, "send", REQUEST) for proc in (device, client)]
    until(lambda: packets(device, "send", REQUEST) >= before[0] + 5
          and packets(client, "send", REQUEST) >= before[1] + 5, 20, "five keepalives from each", every=0.1)
    assert echoes(sock)
    assert device.running and client.running


def test_autossh_with_its_monitor_ports(make_relay, procs, net):
    """autossh sends a line through -R 20000 and back through -L 20000 and restarts ssh if it does not arrive."""
    own_network(procs)
    relay = make_relay()
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    env = {**os.environ, "AUTOSSH_LOGLEVEL": "7", "AUTOSSH_DEBUG": "1", "AUTOSSH_GATETIME": "0",
           "AUTOSSH_POLL": str(int(4 * SLOW)), "AUTOSSH_FIRST_POLL": str(int(2 * SLOW))}
    auto = procs.spawn(raspi.argv("-M", "20000", "-N", "-R", "22:localhost:22", program="autossh"), env=env)
    relay.wait_published("raspi:22")
    auto.wait_err("connection ok", 20)
    first = descendants(auto.pid)
    assert "restarting" not in auto.err()

    # what the session published as a loopback port is for itself alone
    done = alice.run("-W", "localhost:20000")
    assert done.returncode == 255
    relay.wait_log(r'refused connect "localhost:20000": loopback')

    since = relay.mark()
    relay.ctl("disconnect", "raspi")
    relay.wait_log(r"principal=raspi .*published raspi:22$", since, 20)
    until(lambda: len(re.findall("connection ok", auto.err())) >= 2, 20, "the monitor of the second ssh", every=0.1)
    assert descendants(auto.pid) != first
    assert auto.running


def test_monitor_ports_serve_each_session_its_own(relay, net):
    """Two sessions of one device publish the same loopback port; each reaches its own, as autossh needs."""
    raspi = relay.add_device("raspi")
    transports = []
    for n in range(2):
        http, port = net.http(f"session {n}".encode()), net.free_port()
        raspi.publish(f"20000:127.0.0.1:{http.port}", options=["-L", f"127.0.0.1:{port}:127.0.0.1:20000"],
                      expect="raspi:20000")
        transports.append(port)
    for _ in range(3):
        assert [net.http_get(port) for port in transports] == [b"session 0", b"session 1"]


def open_until(stop, port, outcomes):
    """Open again and again: each time the echo answers, or the connection ends without a byte."""
    while not stop.is_set():
        try:
            with connect(port) as sock:
                sock.sendall(b"race")
                outcomes.append(sock.recv(4))
        except ConnectionError:
            outcomes.append(b"")


@pytest.mark.parametrize("listen", ["7", "web.raspi:7"])
def test_opens_race_cancels(relay, net, listen):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    echo, master = net.echo(), Master(raspi)
    name = "web.raspi:7" if ":" in listen else "raspi:7"
    client, (port,) = alice.local(name)
    stop, outcomes = threading.Event(), []
    threads = [threading.Thread(target=open_until, args=(stop, port, outcomes)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(25):
            master.do("-O", "forward", "-R", f"{listen}:localhost:{echo.port}")
            master.do("-O", "cancel", "-R", f"{listen}:localhost:{echo.port}")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30 * SLOW)
    assert set(outcomes) <= {b"race", b""} and b"" in outcomes
    assert master.proc.running and client.running

    relay.wait_bridges(0)
    master.do("-O", "forward", "-R", f"{listen}:localhost:{echo.port}")
    relay.wait_published(name)
    assert echoes(net.connect(port), b"after all")


def test_opens_race_fast_cancels(relay, net):
    """The same without a pause between publish and cancel, hundreds of times, from one connection."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    client, (port,) = alice.local("raspi:7")
    transport = raspi.paramiko()

    def serve(channel, origin, server):
        def echo():
            while data := channel.recv(4096):
                channel.sendall(data)
            channel.close()
        threading.Thread(target=echo, daemon=True).start()

    stop, outcomes = threading.Event(), []
    threads = [threading.Thread(target=open_until, args=(stop, port, outcomes)) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(200):
            assert transport.request_port_forward("", 7, serve) == 7
            transport.cancel_port_forward("", 7)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30 * SLOW)
    assert set(outcomes) <= {b"race", b""}
    relay.wait_withdrawn("raspi:7")
    transport.request_port_forward("", 7, serve)
    relay.wait_published("raspi:7")
    assert echoes(net.connect(port), b"after all")
    assert client.running and transport.is_active()
    transport.close()
