"""Key exchanges in the middle of transfers, asked for by either side."""

import socket
import threading

import pytest

from net import pattern_blocks, pattern_sha, read_sha
from procs import SLOW

MIB = 1 << 20


def exchanges(proc):
    """How many key exchanges this ssh -v has completed, the first one included."""
    return proc.err().count("SSH2_MSG_NEWKEYS received")


def both_ways(net, port, service, size):
    """`size` bytes each way at once, compared."""
    sock = net.connect(port, timeout=60)

    def send():
        for piece in pattern_blocks(size, seed=3):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)

    writer = threading.Thread(target=send)
    writer.start()
    assert read_sha(sock) == (size, pattern_sha(size, seed=4))
    writer.join()
    assert service.wait_results(timeout=60)[-1] == (size, pattern_sha(size, seed=3))


def duplex(net, size):
    def handler(conn, _):
        writer = threading.Thread(target=lambda: [conn.sendall(p) for p in pattern_blocks(size, seed=4)]
                                  + [conn.shutdown(socket.SHUT_WR)])
        writer.start()
        got = read_sha(conn)
        writer.join()
        return got

    return net.serve(handler)


@pytest.mark.parametrize("who", ["device", "client", "both"])
def test_rekey_by_openssh(relay, net, who):
    size, limit = 24 * MIB, ["-v", "-o", "RekeyLimit=1M"]
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    service = duplex(net, size)
    device = raspi.publish(f"7:localhost:{service.port}", options=limit if who != "client" else ["-v"], expect="raspi:7")
    client, (port,) = alice.local("raspi:7", options=limit if who != "device" else ["-v"])
    both_ways(net, port, service, size)
    assert exchanges(device) > (8 if who != "client" else 0)
    assert exchanges(client) > (8 if who != "device" else 0)
    if who == "client":
        assert exchanges(device) == 1
    assert device.running and client.running


def test_rekey_by_relayd(make_relay, net):
    size = 24 * MIB
    relay = make_relay(rekey_limit="1M")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    service = duplex(net, size)
    device = raspi.publish(f"7:localhost:{service.port}", options=["-v"], expect="raspi:7")
    client, (port,) = alice.local("raspi:7", options=["-v"])
    both_ways(net, port, service, size)
    assert exchanges(device) > 8 and exchanges(client) > 8
    assert device.running and client.running


@pytest.mark.parametrize("mac", ["hmac-sha2-256", "hmac-sha2-512", "hmac-sha2-256-etm@openssh.com",
                                 "hmac-sha2-512-etm@openssh.com"])
def test_rekey_changes_the_mac(make_relay, net, mac):
    """A MAC that is not the cipher's own is kept ready for each direction, as long as its key."""
    size = 8 * MIB
    relay = make_relay(rekey_limit="1M")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    service = duplex(net, size)
    options = ["-v", "-o", "Ciphers=aes256-ctr", "-o", f"MACs={mac}", "-o", "RekeyLimit=1M"]
    device = raspi.publish(f"7:localhost:{service.port}", options=options, expect="raspi:7")
    client, (port,) = alice.local("raspi:7", options=options)
    both_ways(net, port, service, size)
    assert exchanges(device) > 4 and exchanges(client) > 4
    assert f"MAC: {mac}" in client.err() and device.running and client.running


def test_rekey_from_both_sides_with_many_bridges(make_relay, net):
    """Relay and both clients ask for keys every megabyte while ten bridges carry data and new ones open."""
    size = 4 * MIB
    relay = make_relay(rekey_limit="1M")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    service = duplex(net, size)
    limit = ["-v", "-o", "RekeyLimit=1M"]
    device = raspi.publish(f"7:localhost:{service.port}", f"8:localhost:{net.echo().port}", options=limit,
                           expect=["raspi:7", "raspi:8"])
    client, (port, echo) = alice.local("raspi:7", "raspi:8", options=limit)
    outcomes = []

    def one():
        sock = net.connect(port, timeout=60)
        writer = threading.Thread(target=lambda: [sock.sendall(p) for p in pattern_blocks(size, seed=3)]
                                  + [sock.shutdown(socket.SHUT_WR)])
        writer.start()
        outcomes.append(read_sha(sock) == (size, pattern_sha(size, seed=4)))
        writer.join()

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        sock = net.connect(echo, timeout=60)
        sock.sendall(b"in between")
        sock.shutdown(socket.SHUT_WR)
        assert read_sha(sock)[0] == 10
    assert outcomes == [True] * 10
    assert all(result == (size, pattern_sha(size, seed=3)) for result in service.wait_results(10))
    assert exchanges(device) > 8 and exchanges(client) > 8


def test_publishes_and_opens_right_after_a_rekey(make_relay, net):
    """Global requests and opens that arrive during a key exchange are answered after it, in order."""
    relay = make_relay(rekey_limit="64K")
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    transport = raspi.paramiko()

    def serve(channel, origin, server):
        def echo():
            while data := channel.recv(65536):
                channel.sendall(data)
            channel.close()
        threading.Thread(target=echo, daemon=True).start()

    assert transport.request_port_forward("", 7, serve) == 7
    client, (port,) = alice.local("raspi:7", options=["-v", "-o", "RekeyLimit=64K"])
    for n in range(20):
        assert transport.request_port_forward("", 100 + n, serve) == 100 + n
        sock = net.connect(port, timeout=30)
        sock.settimeout(30 * SLOW)
        for _ in range(4):
            sock.sendall(bytes(30000))
            count = 0
            while count < 30000:
                count += len(sock.recv(30000))
        transport.cancel_port_forward("", 100 + n)
    assert exchanges(client) > 8 and client.running
    transport.close()
