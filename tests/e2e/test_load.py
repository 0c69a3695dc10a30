"""Many connections at once, every byte accounted for."""

import random
import struct
import threading
from concurrent.futures import ThreadPoolExecutor

from net import pattern, pattern_blocks, pattern_sha, read_sha
from procs import SLOW, until


def exchange(sock, size, seed):
    """Ask a sized_source for size bytes, check them, send as many back; returns True if they were right."""
    sock.sendall(struct.pack("!II", size, seed))
    right = read_sha(sock) == (size, pattern_sha(size, seed))
    for piece in pattern_blocks(size, seed):
        sock.sendall(piece)
    sock.close()
    return right


def test_200_connections_through_one_device_session(relay, net):
    """200 bridges open at the same time between one client session and one device session."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    service = net.sized_source()
    device = raspi.publish(f"7:localhost:{service.port}", expect="raspi:7")
    client, (port,) = alice.local("raspi:7")
    rng = random.Random(200)
    socks = [net.connect(port, timeout=60) for _ in range(200)]
    until(lambda: service.accepted == 200, 20, lambda: f"200 connections at the service, have {service.accepted}")
    relay.wait_bridges(200)

    jobs = [(sock, rng.choice((0, 1, rng.randrange(1000), rng.randrange(1 << 20))), seed)
            for seed, sock in enumerate(socks)]
    with ThreadPoolExecutor(200) as pool:
        assert all(pool.map(lambda job: exchange(*job), jobs))
    results = service.wait_results(200, timeout=60)
    assert len(results) == 200 and all(results) and not service.errors
    relay.wait_bridges(0)
    assert device.running and client.running
    assert len(relay.list("sessions")) == 2


def test_2000_short_connections_leave_nothing_behind(relay, net):
    """Opened and closed by 20 threads: descriptors and bridges of relayd are back where they were."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    raspi.publish(f"7:localhost:{net.sized_source().port}", expect="raspi:7")
    _, (port,) = alice.local("raspi:7")

    def some(worker):
        return all(exchange(net.connect(port), 100 + worker, n) for n in range(int(100 / SLOW)))

    assert some(0)
    relay.wait_bridges(0)
    fds = relay.fds()
    with ThreadPoolExecutor(20) as pool:
        assert all(pool.map(some, range(20)))
    relay.wait_bridges(0, timeout=20)
    assert relay.fds() <= fds + 1


def test_50_devices_with_4_clients_each(relay, net):
    """50 device sessions, 200 client sessions, 200 bridges at the same time, random sizes, compared byte for byte."""
    devices = [relay.add_device(f"d{n}") for n in range(50)]
    clients = [relay.add_client(f"c{n}") for n in range(20)]
    echo = net.echo()
    for device in devices:
        device.ssh("-N", "-T", "-o", "ExitOnForwardFailure=yes", "-R", f"7:localhost:{echo.port}")
    until(lambda: sum(row["online"] for row in relay.list("endpoints")) == 50, 60, "50 devices online", every=0.1)

    rng = random.Random(50)
    lock = threading.Lock()
    ready = threading.Barrier(201)

    def talk(n):
        with lock:
            size = rng.choice((1, rng.randrange(1, 4096), rng.randrange(1, 1 << 20)))
        with slots:
            proc = clients[n % 20].through_W(f"d{n % 50}:7")
            proc.stdin.write(b"up")
            proc.stdin.flush()
            assert proc.stdout.read(2) == b"up", proc.err()
        ready.wait(60 * SLOW)
        data = pattern(size, seed=n)
        return proc.finish(data, 60) == (0, data)

    slots = threading.Semaphore(12)  # logins at the same time: what two cores like
    with ThreadPoolExecutor(200) as pool:
        talks = [pool.submit(talk, n) for n in range(200)]
        until(lambda: ready.n_waiting == 200 or any(t.done() for t in talks), 60,
              lambda: f"200 bridges up, have {ready.n_waiting}", every=0.1)
        failed = [t for t in talks if t.done()]
        if failed:
            ready.abort()
            failed[0].result()
        assert len(relay.list("bridges")) == 200
        assert len(relay.list("sessions")) == 250
        ready.wait(60 * SLOW)
        assert all(t.result() for t in talks)
    relay.wait_bridges(0)
