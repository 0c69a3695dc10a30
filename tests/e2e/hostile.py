"""A peer that sends and sees every SSH message itself: paramiko does the key exchange, the login and the ciphers only.

    eve = attach(relay.add_client("eve"))
    assert eve.connect(b"raspi", 7) is None         # CHANNEL_OPEN "direct-tcpip", refused
    ok, answer = eve.ask("tcpip-forward", b"x", 80) # GLOBAL_REQUEST with want_reply
"""

import contextlib
import socket
import threading
import time

import paramiko
import pytest
from paramiko.message import Message

from net import echoes
from procs import SLOW, until

GLOBAL_REQUEST, REQUEST_SUCCESS, REQUEST_FAILURE = 80, 81, 82
(OPEN, CONFIRMATION, OPEN_FAILURE, WINDOW_ADJUST, DATA, EXTENDED_DATA, EOF, CLOSE, REQUEST, CHANNEL_SUCCESS,
 CHANNEL_FAILURE) = range(90, 101)
WINDOW, PACKET = 1 << 21, 1 << 15


class Raw(paramiko.Transport):
    """A logged-in connection. What relayd sends above the transport layer waits in `inbox` as (type, bytes)."""

    def __init__(self, principal, user=None, at=None):
        super().__init__(at or ("127.0.0.1", principal.relay.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.banner_timeout = self.auth_timeout = self.handshake_timeout = 20 * SLOW
        self.inbox, self.arrival = [], threading.Condition()
        self.debug_texts, self.goodbye = [], None
        self.answers_requests = True
        self.numbers = 0
        self.start_client(timeout=20 * SLOW)
        with open(principal.relay.known_hosts) as f:
            assert self.get_remote_server_key().get_base64() in f.read()
        self.auth_publickey(user or principal.user, paramiko.Ed25519Key.from_private_key_file(principal.key))

    # -- what arrives (called on paramiko's thread)

    def _arrived(self, kind, message):
        body = message.asbytes()
        with self.arrival:
            self.inbox.append((kind, body))
            self.arrival.notify_all()
        if kind == GLOBAL_REQUEST and self.answers_requests:
            message.get_text()
            if message.get_boolean():
                answer = Message()
                answer.add_byte(bytes([REQUEST_FAILURE]))
                self._send_message(answer)

    def _parse_debug(self, message):
        message.get_boolean()
        self.debug_texts.append(message.get_string().decode())

    def _parse_disconnect(self, message):
        message.get_int()
        self.goodbye = message.get_string().decode()

    # -- messages

    def put(self, kind, *fields):
        """Send one message; bytes and text become strings, int uint32, bool a byte."""
        message = Message()
        message.add_byte(bytes([kind]))
        for field in fields:
            if isinstance(field, bool):
                message.add_boolean(field)
            elif isinstance(field, int):
                message.add_int(field)
            else:
                message.add_string(field)
        self._send_user_message(message)

    @contextlib.contextmanager
    def kept(self):
        """All that is put inside stays in the list that it gives."""
        parts = []
        self.packetizer.write_all = parts.append
        try:
            yield parts
        finally:
            del self.packetizer.write_all

    @contextlib.contextmanager
    def one_segment(self):
        """All that is put inside goes out by one write."""
        with self.kept() as parts:
            yield
        self.packetizer.write_all(b"".join(parts))

    def expect(self, *kinds, channel=None, timeout=10):
        """Take the first message of these types (for our channel number) out of the inbox; (type, Message)."""
        deadline = time.monotonic() + timeout * SLOW
        while True:
            with self.arrival:
                alive = self.is_active()
                for i, (kind, body) in enumerate(self.inbox):
                    if kind in kinds and channel in (None, int.from_bytes(body[:4], "big")):
                        del self.inbox[i]
                        return kind, Message(body)
                assert alive, f"the connection ended ({self.goodbye}) before a message of type {kinds}"
                left = deadline - time.monotonic()
                assert left > 0, f"no message of type {kinds} within {timeout * SLOW:g} s; have {self.inbox[-20:]}"
                self.arrival.wait(min(left, 0.1))

    def seen(self, kind, channel=None):
        """The bodies of such messages that are in the inbox now."""
        with self.arrival:
            return [body for k, body in self.inbox if k == kind and channel in (None, int.from_bytes(body[:4], "big"))]

    def ask(self, kind, *fields):
        """A global request; returns (accepted, Message behind it). The replies before it must have been taken."""
        self.put(GLOBAL_REQUEST, kind, True, *fields)
        answer, message = self.expect(REQUEST_SUCCESS, REQUEST_FAILURE)
        return answer == REQUEST_SUCCESS, message

    def alive(self):
        """True if relayd still answers on this connection."""
        self.ask("keepalive@openssh.com")
        return True

    def wait_end(self, timeout=10):
        """Wait until relayd has ended the connection; returns its last words, if any."""
        until(lambda: not self.is_active(), timeout, "the end of the connection")
        return self.goodbye

    # -- as a client

    def open(self, kind, *fields, window=WINDOW, packet=PACKET):
        """CHANNEL_OPEN; returns our number of the channel at once."""
        self.numbers += 1
        self.put(OPEN, kind, self.numbers, window, packet, *fields)
        return self.numbers

    def direct(self, host, port, **options):
        return self.open("direct-tcpip", host, port, b"127.0.0.1", 4321, **options)

    def opened(self, own, timeout=10):
        """Wait for the answer to open(); a Stream, or None if it was refused."""
        answer, message = self.expect(CONFIRMATION, OPEN_FAILURE, channel=own, timeout=timeout)
        message.get_int()
        return Stream(self, own, message.get_int()) if answer == CONFIRMATION else None

    def connect(self, host, port, **options):
        return self.opened(self.direct(host, port, **options))

    def session(self):
        stream = self.opened(self.open("session"))
        assert stream is not None, "a session channel was refused"
        return stream

    # -- as a device

    def publish(self, address, port):
        """tcpip-forward; returns the port if it was accepted, else None."""
        accepted, message = self.ask("tcpip-forward", address, port)
        return (port or message.get_int()) if accepted else None

    def incoming(self, timeout=10):
        """The next CHANNEL_OPEN from relayd."""
        _, message = self.expect(OPEN, timeout=timeout)
        return Incoming(message)

    def confirm(self, incoming, window=WINDOW, packet=PACKET):
        """Accept it; returns the Stream."""
        self.numbers += 1
        self.put(CONFIRMATION, incoming.peer, self.numbers, window, packet)
        return Stream(self, self.numbers, incoming.peer)


class Incoming:
    def __init__(self, message):
        self.kind, self.peer = message.get_text(), message.get_int()
        self.window, self.packet = message.get_int(), message.get_int()
        self.address, self.port = message.get_string(), message.get_int()
        self.originator, self.originator_port = message.get_text(), message.get_int()


class Stream:
    """An open channel: `own` is our number, `peer` relayd's."""

    def __init__(self, raw, own, peer):
        self.raw, self.own, self.peer = raw, own, peer

    def send(self, data):
        self.raw.put(DATA, self.peer, data)

    def eof(self):
        self.raw.put(EOF, self.peer)

    def close(self):
        self.raw.put(CLOSE, self.peer)

    def request(self, kind, *fields):
        """A channel request; True if it was accepted."""
        self.raw.put(REQUEST, self.peer, kind, True, *fields)
        answer, _ = self.expect(CHANNEL_SUCCESS, CHANNEL_FAILURE)
        return answer == CHANNEL_SUCCESS

    def expect(self, *kinds, timeout=10):
        return self.raw.expect(*kinds, channel=self.own, timeout=timeout)

    def read(self, size):
        """Exactly so many bytes of data."""
        data = b""
        while len(data) < size:
            _, message = self.expect(DATA)
            message.get_int()
            data += message.get_string()
        assert len(data) == size, data
        return data

    def echoes(self, data=b"ping"):
        self.send(data)
        return self.read(len(data)) == data


for number in (GLOBAL_REQUEST, REQUEST_SUCCESS, REQUEST_FAILURE, *range(OPEN, CHANNEL_FAILURE + 1)):
    Raw._handler_table = {**Raw._handler_table, number: lambda raw, message, kind=number: raw._arrived(kind, message)}


def escaped(data):
    """How relayd logs bytes that others chose."""
    return "".join(chr(byte) if 0x20 <= byte < 0x7f else f"\\x{byte:02x}" for byte in data)


@pytest.fixture
def attach(make_relay):
    """attach(principal) logs in, at=(host, port) elsewhere than on 127.0.0.1; all that is attached is closed before
    relayd is stopped."""
    made = []

    def make(principal, user=None, at=None):
        made.append(Raw(principal, user, at))
        return made[-1]

    yield make
    for raw in made:
        raw.close()


class Bystanders:
    """A device and a client who mind their own business in the same tenant; they must not notice anything."""

    def __init__(self, relay, net):
        self.relay, self.net = relay, net
        self.device = relay.add_device("good").publish(f"7:localhost:{net.echo().port}", expect="good:7")
        self.client, (self.port,) = relay.add_client("goody").local("good:7")
        self.sock = net.connect(self.port)
        assert echoes(self.sock)

    def fine(self, within=3):
        """Old and new bridges answer promptly."""
        started = time.monotonic()
        assert echoes(self.sock, b"old") and echoes(self.net.connect(self.port), b"new")
        assert time.monotonic() - started < within * SLOW, "relayd was held up"
        assert self.relay.running and self.device.running and self.client.running
        assert self.relay.ctl("status")["store"] == "ok"
        return True


@pytest.fixture
def bystanders(relay, net):
    return Bystanders(relay, net)


@pytest.fixture
def eve(relay, attach):
    """A hostile device that publishes eve:1."""
    device = attach(relay.add_device("eve"))
    assert device.publish(b"eve", 1) == 1
    return device


@pytest.fixture
def mallet(relay, attach):
    """A hostile client."""
    return attach(relay.add_client("mallet"))


def bridge(device, client, **options):
    """A bridge from client to device:1; (the device's stream, the client's)."""
    own = client.direct(b"eve", 1)
    until(lambda: device.seen(OPEN) or client.seen(OPEN_FAILURE, own) or not client.is_active(), every=0.001)
    back = device.confirm(device.incoming(timeout=0), **options)
    stream = client.opened(own)
    assert stream is not None
    return back, stream


def bridged(relay, endpoint="eve:1"):
    """How many bridges to the endpoint there are."""
    return sum(row["endpoint"] == endpoint for row in relay.list("bridges"))


def closed_log(relay, principal, since=0, sentence=""):
    return relay.wait_log(rf"principal={principal} session=\d+ closed: .*{sentence}", since)
