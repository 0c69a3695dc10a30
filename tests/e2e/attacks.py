"""What hostile peers do to a relayd: ATTACKS by name, each a function of Attackers, to be done again and again.

The tests judge what others notice (test_neighbours.py), the benchmarks report it (tests/bench/attack)."""

import random
import socket
import threading
import time

import paramiko

from hostile import (
    CLOSE, CONFIRMATION, DATA, EOF, GLOBAL_REQUEST, OPEN_FAILURE, REQUEST, WINDOW_ADJUST, Raw, bridge)
from procs import SLOW, until

ATTACK = 1.5  # seconds that one of them lasts which would have no end
BROKEN = (AssertionError, EOFError, OSError, paramiko.SSHException)  # what it raises when relayd has had enough


class Attackers:
    """Eve, who publishes eve:1, and Mallet, who connects, as often as is asked (mallet, mallet1, mallet2): each is replaced
    when relayd has ended its session. The two principals are given."""

    def __init__(self, eve, mallet):
        self.port, self.principals = eve.relay.port, {"eve": eve, "mallet": mallet}
        self.raws, self.socks = {}, []

    def __getattr__(self, name):
        raw = self.raws.get(name)
        if raw is None or not raw.is_active():
            raw = self.raws[name] = Raw(self.principals[name.rstrip("0123456789")])
            if name == "eve":
                assert raw.publish(b"eve", 1) == 1
        return raw

    def stranger(self):
        self.socks.append(sock := socket.create_connection(("127.0.0.1", self.port), 10))
        if len(self.socks) > 200:
            self.socks.pop(0).close()
        return sock

    def bridge(self, **options):
        eve, mallet = self.eve, self.mallet
        eve.inbox.clear()
        return bridge(eve, mallet, **options)

    def close(self):
        for peer in (*self.raws.values(), *self.socks):
            peer.close()
        self.raws, self.socks = {}, []


ATTACKS = {}


def attack(job):
    ATTACKS[job.__name__] = job
    return job


# ---- before the login


@attack
def banner_never_ends(peers):
    peers.stranger().sendall(b"SSH-2.0-" + b"x" * 100)


@attack
def banner_is_garbage(peers):
    peers.stranger().sendall(random.Random(1).randbytes(70000))


@attack
def key_exchange_never_ends(peers):
    peers.stranger().sendall(b"SSH-2.0-x\r\n")


@attack
def key_exchange_is_garbage(peers):
    body = b"\x06" + bytes([20]) + random.Random(2).randbytes(500)
    peers.stranger().sendall(b"SSH-2.0-x\r\n" + len(body).to_bytes(4, "big") + body)


@attack
def login_never_ends(peers):
    transport = paramiko.Transport(peers.stranger())
    transport.start_client(timeout=20 * SLOW)


@attack
def login_is_garbage(peers):
    transport = paramiko.Transport(sock := peers.stranger())
    transport.start_client(timeout=20 * SLOW)
    for kind in (5, 50, 61, 80, 90, 94):
        message = paramiko.Message()
        message.add_bytes(bytes([kind]) + b"\xff" * 300)
        transport._send_message(message)
    sock.sendall(b"\0" * 4096)


# ---- packet sizes and windows


def tiny(packet):
    def job(peers):
        if packet == 0:  # a client's open is not answered then; a device's answer ends its session
            eve, mallet = peers.eve, peers.mallet
            mallet.direct(b"eve", 1, packet=0)
            mallet.direct(b"eve", 1)
            eve.confirm(eve.incoming(), packet=0)
            eve.wait_end()
            return
        _, stream = peers.bridge(packet=packet)
        for _ in range(8):
            stream.send(b"x" * 32000)
        peers.mallet.direct(b"eve", 1, packet=packet)
    job.__name__ = f"maximum_packet_{packet}"
    attack(job)


for size in (0, 1, 10, 777):
    tiny(size)


@attack
def window_ignored(peers):
    peers.close()
    _, stream = peers.bridge(window=0)
    for _ in range(300):
        stream.send(b"x" * 32000)


@attack
def window_overflows(peers):
    _, stream = peers.bridge()
    stream.raw.put(WINDOW_ADJUST, stream.peer, 0xffffffff)
    stream.raw.wait_end()


# ---- opens and closes


@attack
def ten_thousand_opens(peers):
    mallet = peers.mallet
    mallet.inbox.clear()
    for _ in range(20):
        with mallet.one_segment():
            for _ in range(500):
                mallet.direct(b"nowhere", 1)
    until(lambda: len(mallet.seen(OPEN_FAILURE)) >= 10000, 30, "all refused", every=0.2)


@attack
def opens_never_confirmed(peers):
    eve, mallet = peers.eve, peers.mallet
    mallet.inbox.clear()
    for _ in range(2000):
        mallet.direct(b"eve", 1)
    assert eve.is_active()


@attack
def opens_confirmed_late(peers):
    eve, mallet = peers.eve, peers.mallet
    eve.inbox.clear()
    for _ in range(100):
        mallet.direct(b"eve", 1)
    waiting = [eve.incoming() for _ in range(100)]
    until(lambda: len(mallet.seen(OPEN_FAILURE)) >= 100, 20, "the opens time out")
    mallet.inbox.clear()
    for incoming in waiting:
        eve.confirm(incoming).expect(CLOSE)


@attack
def opens_confirmed_twice(peers):
    back, _ = peers.bridge()
    peers.eve.put(CONFIRMATION, back.peer, back.own, 1 << 21, 1)
    peers.eve.put(DATA, back.peer, b"x" * 30000)


@attack
def data_after_eof_and_close(peers):
    _, stream = peers.bridge()
    with peers.mallet.one_segment():
        for end in (EOF, CLOSE):
            for _ in range(20):
                stream.send(b"x" * 30000)
            peers.mallet.put(end, stream.peer)
            peers.mallet.put(end, stream.peer)
        for _ in range(20):
            stream.send(b"x" * 30000)


@attack
def close_never_answered(peers):
    for _ in range(50):
        _, stream = peers.bridge()
        stream.close()


# ---- floods


def flood(name, *fields):
    def job(peers):
        mallet = peers.mallet
        mallet.inbox.clear()
        for _ in range(5):
            with mallet.one_segment():
                for _ in range(400):
                    mallet.put(*fields)
    job.__name__ = f"flood_of_{name}"
    attack(job)


flood("publishes", GLOBAL_REQUEST, "tcpip-forward", True, b"eve", 80)
flood("global_requests", GLOBAL_REQUEST, "no-such@request", True)
flood("keepalives", GLOBAL_REQUEST, "keepalive@openssh.com", True)
flood("ignored_messages", 2, b"x" * 1000)
flood("unknown_messages", 192)


@attack
def flood_of_rekeys(peers):
    mallet = peers.mallet
    for _ in range(20):
        mallet.renegotiate_keys()


@attack
def flood_of_channel_requests(peers):
    mallet = peers.mallet
    mallet.inbox.clear()
    session = mallet.session()
    for _ in range(5):
        with mallet.one_segment():
            for _ in range(400):
                mallet.put(REQUEST, session.peer, "env", True, b"A", b"B")
    session.close()


@attack
def huge_strings(peers):
    mallet, eve, huge = peers.mallet, peers.eve, b"x" * 250000
    mallet.inbox.clear()
    mallet.packetizer.REKEY_BYTES = 1 << 40
    for peer in (mallet, eve):
        peer.put(GLOBAL_REQUEST, huge, True)
        peer.put(GLOBAL_REQUEST, "tcpip-forward", True, huge, 80)
        peer.put(GLOBAL_REQUEST, "cancel-tcpip-forward", True, huge, 80)
    mallet.direct(huge, 1)
    mallet.open(huge)
    mallet.open("direct-tcpip", b"eve", 2, huge, 1)
    session = mallet.session()
    mallet.put(REQUEST, session.peer, huge, True)
    mallet.put(REQUEST, session.peer, "exec", True, huge)
    mallet.put(REQUEST, session.peer, "env", True, huge, b"")
    mallet.put(REQUEST, session.peer, "subsystem", True, huge)
    mallet.put(REQUEST, session.peer, "pty-req", True, huge, 80, 24, 0, 0, b"")
    mallet.put(2, huge)
    mallet.put(4, True, huge, b"")
    session.close()


@attack
def client_reads_nothing(peers):
    """Its device sends as much as it may."""
    mallet, eve = peers.mallet, peers.eve
    mallet.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20000)
    back, _ = peers.bridge()
    stop = threading.Event()
    mallet._arrived = lambda *_: stop.wait(20)
    try:
        end = time.monotonic() + ATTACK
        sent = 0
        while time.monotonic() < end and sent < 2 << 20:
            back.send(b"x" * 30000)
            sent += 30000
        until(lambda: time.monotonic() > end, ATTACK * 2)
    finally:
        stop.set()
        mallet.close()
    assert eve.is_active()
