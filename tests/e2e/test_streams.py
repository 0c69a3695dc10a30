"""What a bridge owes to the two programs at its ends: honest opens, half-close, order, completeness."""

import socket
import threading

import paramiko
import pytest

from net import CHUNK, echoes, pattern, pattern_blocks, pattern_sha, read_all, read_exact, read_sha, sha
from procs import SLOW

MIB = 1 << 20


def test_open_fails_while_the_local_service_is_down(relay, net, raspi, alice):
    """The client's open is refused, not accepted and closed; when the service is back the same session serves it."""
    port = net.free_port()
    device = raspi.publish(f"7:localhost:{port}", expect="raspi:7")
    since = relay.mark()
    done = alice.run("-W", "raspi:7", input=b"lost?")
    assert done.returncode == 255 and done.stdout == b""
    assert "open failed" in done.stderr and "stdio forwarding failed" in done.stderr
    relay.wait_log(r' warn .*principal=alice .*refused connect "raspi:7": open_refused', since)
    assert not relay.logged("bridge .* opened", since)

    transport = alice.paramiko()
    with pytest.raises(paramiko.ChannelException) as refused:
        transport.open_channel("direct-tcpip", ("raspi", 7), ("127.0.0.1", 1), timeout=20 * SLOW)
    assert refused.value.code != 0
    transport.close()

    net.echo(port=port)
    assert alice.through_W("raspi:7").finish(b"back") == (0, b"back")
    assert device.running


def test_L_survives_a_service_that_is_down(relay, net, raspi, alice):
    raspi.publish(f"9:localhost:{net.free_port()}", f"7:localhost:{net.echo().port}", expect=["raspi:9", "raspi:7"])
    client, (down, up) = alice.local("raspi:9", "raspi:7")
    held = net.connect(up)
    assert echoes(held)
    for _ in range(5):
        assert read_all(net.connect(down)) == b""
    client.wait_err("open failed: ")
    assert echoes(held) and client.running


def test_answer_after_the_clients_eof_through_W(relay, net, raspi, alice):
    """A request, EOF from the client, then the answer (8 MiB) still arrives whole."""

    def handler(conn, _):
        count, digest = read_sha(conn)
        conn.sendall(f"{count} {digest}\n".encode())
        for piece in pattern_blocks(8 * MIB, seed=2):
            conn.sendall(piece)

    raspi.publish(f"7:localhost:{net.serve(handler).port}", expect="raspi:7")
    request = pattern(3 * MIB, seed=1)
    status, answer = alice.through_W("raspi:7").finish(request)
    head, _, body = answer.partition(b"\n")
    assert status == 0
    assert head.decode() == f"{3 * MIB} {sha(request)}"
    assert (len(body), sha(body)) == (8 * MIB, pattern_sha(8 * MIB, seed=2))


def test_answer_after_the_clients_eof_through_L(relay, net, raspi, alice):
    raspi.publish(f"7:localhost:{net.sink().port}", expect="raspi:7")
    _, (port,) = alice.local("raspi:7")
    for size in (0, 1, 32768, 5 * MIB):
        sock = net.connect(port)
        for piece in pattern_blocks(size, seed=4):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).decode() == f"{size} {pattern_sha(size, seed=4)}\n"


def test_upload_goes_on_after_the_services_eof(relay, net, raspi, alice):
    """The mirror image: the service answers and ends its side; what the client sends after that arrives whole."""
    service = net.serve(_greet_and_count)
    raspi.publish(f"7:localhost:{service.port}", expect="raspi:7")
    _, (port,) = alice.local("raspi:7")
    sock = net.connect(port)
    assert read_all(sock) == b"go ahead"  # EOF seen: only now does the client begin
    for piece in pattern_blocks(8 * MIB, seed=6):
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)
    assert service.wait_results() == [(8 * MIB, pattern_sha(8 * MIB, seed=6))]


def test_upload_goes_on_after_the_services_eof_with_paramiko(relay, net, raspi, alice):
    """EOF and CLOSE are different things: after the service's EOF the channel is still open for writing."""
    service = net.serve(_greet_and_count)
    raspi.publish(f"7:localhost:{service.port}", expect="raspi:7")
    transport = alice.paramiko()
    channel = transport.open_channel("direct-tcpip", ("raspi", 7), ("127.0.0.1", 1), timeout=20 * SLOW)
    channel.settimeout(20 * SLOW)
    assert read_exact(channel, 8) == b"go ahead" and channel.recv(1) == b""
    assert not channel.closed
    channel.sendall(pattern(MIB, seed=6))
    channel.shutdown_write()
    assert service.wait_results() == [(MIB, pattern_sha(MIB, seed=6))]
    transport.close()


def _greet_and_count(conn, _):
    conn.sendall(b"go ahead")
    conn.shutdown(socket.SHUT_WR)
    return read_sha(conn)


def test_both_directions_at_once(relay, net, raspi, alice):
    """32 MiB each way at the same time through one bridge."""
    size = 32 * MIB

    def handler(conn, _):
        writer = threading.Thread(target=lambda: [conn.sendall(p) for p in pattern_blocks(size, seed=8)])
        writer.start()
        got = read_sha(conn, size)
        writer.join()
        return got

    service = net.serve(handler)
    raspi.publish(f"7:localhost:{service.port}", expect="raspi:7")
    _, (port,) = alice.local("raspi:7")
    sock = net.connect(port)
    writer = threading.Thread(target=lambda: [sock.sendall(p) for p in pattern_blocks(size, seed=9)])
    writer.start()
    assert read_sha(sock, size) == (size, pattern_sha(size, seed=8))
    writer.join()
    assert service.wait_results() == [(size, pattern_sha(size, seed=9))]


def test_single_bytes_are_not_held_back(relay, net, raspi, alice):
    """500 round trips of one byte: no side waits for more data before it passes on what it has."""
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    _, (port,) = alice.local("raspi:7")
    sock = net.connect(port)
    for n in range(500):
        assert echoes(sock, bytes([n & 255]))


def test_a_client_that_breaks_off_frees_the_service(relay, net, raspi, alice):
    """ssh killed in mid transfer: the service sees the end, the bridge is gone, the device session stays."""
    blocked = net.source(256 * MIB)
    device = raspi.publish(f"19:localhost:{blocked.port}", expect="raspi:19")
    proc = alice.through_W("raspi:19")
    assert len(proc.stdout.read(CHUNK)) == CHUNK
    proc.kill()
    relay.wait_bridges(0)
    assert device.running
    status, data = alice.through_W("raspi:19").finish(timeout=60)
    assert status == 0 and len(data) == 256 * MIB


def test_a_device_that_breaks_off_ends_the_client(relay, net, raspi, alice):
    device = raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    client, (port,) = alice.local("raspi:7")
    sock = net.connect(port)
    assert echoes(sock)
    device.kill()
    assert read_all(sock) == b""
    relay.wait_withdrawn("raspi:7")
    assert client.running
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    assert echoes(net.connect(port), b"again")
