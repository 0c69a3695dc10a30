"""How relayd stops: no new connection, time for what is open, exit 0."""

import signal
import time

import pytest
from net import echoes
from procs import SLOW, until


def open_bridge(relay, net):
    """A device with an echo service, and a client's socket to it."""
    echo = net.echo()
    device = relay.add_device("raspi").publish(f"7:localhost:{echo.port}", expect="raspi:7")
    client, (port,) = relay.add_client("alice").local("raspi:7")
    sock = net.connect(port)
    assert echoes(sock)
    return device, client, sock


def wait_end(relay, timeout):
    status = relay.popen.wait(timeout * SLOW)
    relay.popen = None
    assert status == 0 and relay.logged(" stopped$")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_in_good_order(number, relay, net):
    device, _, _ = open_bridge(relay, net)
    device.kill()
    relay.wait_bridges(0)
    relay.popen.send_signal(number)
    wait_end(relay, 2)  # nothing is open: nothing is waited for


def test_an_open_bridge_gets_its_time_and_may_use_it(make_relay, net):
    relay = make_relay(drain_timeout="30s")
    _, client, sock = open_bridge(relay, net)
    relay.popen.send_signal(signal.SIGTERM)
    relay.wait_log("stopping on signal 15")
    for _ in range(20):
        assert echoes(sock), "the bridge did not get its time"
    with pytest.raises(OSError):
        net.connect(relay.port)
    assert relay.popen.poll() is None
    sock.close()
    wait_end(relay, 10)
    assert client.wait() == 255


def test_a_bridge_that_goes_on_is_cut_when_its_time_is_up(make_relay, net):
    relay = make_relay(drain_timeout="1s")
    device, client, sock = open_bridge(relay, net)
    started = time.monotonic()
    relay.popen.send_signal(signal.SIGTERM)
    until(lambda: sock.recv(1) == b"", what="the end of the bridge")
    assert time.monotonic() - started > 0.9
    wait_end(relay, 5)
    assert device.wait() == 255 and client.wait() == 255
