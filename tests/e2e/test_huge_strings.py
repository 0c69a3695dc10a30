"""A string of 250 KB, nearly the most that a packet holds, in each string of each message that a peer may send."""

import contextlib
import socket

import paramiko
import pytest
from hostile import (  # noqa: F401
    DATA, EXTENDED_DATA, GLOBAL_REQUEST, OPEN, OPEN_FAILURE, PACKET, REQUEST, REQUEST_FAILURE,
    REQUEST_SUCCESS, WINDOW, Bystanders, attach, bystanders)
from paramiko.message import Message
from procs import SLOW, until
from relay import sanitized

HUGE = b"x" * 250000
DISCONNECT, IGNORE, DEBUG, SERVICE_REQUEST, EXT_INFO, KEXINIT, USERAUTH_REQUEST = 1, 2, 4, 5, 7, 20, 50
CHANNEL = object()  # relayd's number of the channel

# Sound but for what replaces their strings, one at a time.
TRANSPORT = [
    (DISCONNECT, 2, b"text", b"en"),
    (IGNORE, b"data"),
    (DEBUG, True, b"text", b"en"),
    (SERVICE_REQUEST, b"ssh-userauth"),
    (EXT_INFO, 1, b"name", b"value"),
    (KEXINIT, 1, 2, 3, 4, b"curve25519-sha256", b"ssh-ed25519", b"aes128-ctr", b"aes128-ctr", b"hmac-sha2-256",
     b"hmac-sha2-256", b"none", b"none", b"", b"", False, 0),
]
LOGIN = [
    (USERAUTH_REQUEST, b"user", b"ssh-connection", b"none"),
    (USERAUTH_REQUEST, b"user", b"ssh-connection", b"publickey", False, b"ssh-ed25519", b"blob"),
    (USERAUTH_REQUEST, b"user", b"ssh-connection", b"publickey", True, b"ssh-ed25519", b"blob", b"signature"),
    (USERAUTH_REQUEST, b"user", b"ssh-connection", b"password", False, b"password"),
    (USERAUTH_REQUEST, b"user", b"ssh-connection", b"keyboard-interactive", b"en", b"methods"),
    (USERAUTH_REQUEST, b"user", b"ssh-connection", b"hostbased", b"ssh-ed25519", b"blob", b"host", b"user", b"sig"),
]
GLOBAL_REQUESTS = [
    (GLOBAL_REQUEST, b"no-such@request", True),
    (GLOBAL_REQUEST, b"tcpip-forward", True, b"name", 80),
    (GLOBAL_REQUEST, b"cancel-tcpip-forward", True, b"name", 80),
    (GLOBAL_REQUEST, b"streamlocal-forward@openssh.com", True, b"/path"),
    (GLOBAL_REQUEST, b"cancel-streamlocal-forward@openssh.com", True, b"/path"),
    (GLOBAL_REQUEST, b"hostkeys-prove-00@openssh.com", True, b"blob"),
]
OPENS = [
    (OPEN, b"session", 900, WINDOW, PACKET),
    (OPEN, b"direct-tcpip", 900, WINDOW, PACKET, b"good", 7, b"127.0.0.1", 4321),
    (OPEN, b"forwarded-tcpip", 900, WINDOW, PACKET, b"good", 7, b"127.0.0.1", 4321),
    (OPEN, b"direct-streamlocal@openssh.com", 900, WINDOW, PACKET, b"/path", b"", 0),
    (OPEN, b"forwarded-streamlocal@openssh.com", 900, WINDOW, PACKET, b"/path", b""),
    (OPEN, b"x11", 900, WINDOW, PACKET, b"127.0.0.1", 4321),
]
ON_A_CHANNEL = [
    (REQUEST, CHANNEL, b"env", True, b"name", b"value"),
    (REQUEST, CHANNEL, b"pty-req", True, b"xterm", 80, 24, 0, 0, b"\0"),
    (REQUEST, CHANNEL, b"x11-req", True, False, b"MIT-MAGIC-COOKIE-1", b"cookie", 0),
    (REQUEST, CHANNEL, b"exec", True, b"whoami"),
    (REQUEST, CHANNEL, b"subsystem", True, b"sftp"),
    (REQUEST, CHANNEL, b"signal", False, b"TERM"),
    (REQUEST, CHANNEL, b"exit-signal", False, b"TERM", False, b"text", b"en"),
    (DATA, CHANNEL, b"data"),
    (EXTENDED_DATA, CHANNEL, 1, b"data"),
]


def packed(message):
    packet = Message()
    packet.add_byte(bytes([message[0]]))
    for field in message[1:]:
        add = {bool: packet.add_boolean, int: packet.add_int, bytes: packet.add_string}[type(field)]
        add(field)
    return packet


def spoiled(messages):
    """Each of them as often as it has strings."""
    for message in messages:
        for at, field in enumerate(message):
            if isinstance(field, bytes):
                yield message[:at] + (HUGE,) + message[at + 1:]


def named(message):
    return tuple("HUGE" if field is HUGE else field for field in message)


class Sender:
    """A principal who logs in anew whenever relayd has ended its session."""

    def __init__(self, attach, principal):  # noqa: F811
        self.attach, self.principal, self.raw, self.ended, self.sent = attach, principal, None, 0, 0

    def ready(self):
        if self.raw is None:
            self.raw = self.attach(self.principal)
            self.raw.packetizer.REKEY_BYTES = 1 << 40
        return self.raw

    def send(self, message, channel=None):
        """Afterwards it is either answered or rid of its session."""
        raw = self.ready()
        self.sent += 1
        with contextlib.suppress(EOFError, OSError):
            raw.put(*(channel.peer if field is CHANNEL else field for field in message))
            raw.put(GLOBAL_REQUEST, "keepalive@openssh.com", True)
            if message[0] == KEXINIT:
                raw.sock.shutdown(socket.SHUT_WR)  # where it takes a name list, it waits for the next step
        answers = 2 if message[0] == GLOBAL_REQUEST else 1
        until(lambda: not raw.is_active() or len(raw.seen(REQUEST_FAILURE) + raw.seen(REQUEST_SUCCESS)) == answers,
              what=lambda: f"an answer to {named(message)}")
        raw.inbox.clear()  # who asks next must not take it for his answer
        if not raw.is_active():
            self.raw, self.ended = None, self.ended + 1


@pytest.fixture
def unharmed(relay, bystanders):  # noqa: F811
    before = relay.rss()
    yield
    assert bystanders.fine()
    assert max(len(line) for line in relay.lines) < 2000
    assert sanitized() or relay.rss() - before < 16 << 10


@pytest.mark.parametrize("add", ["add_device", "add_client"])
def test_in_what_is_sent_after_the_login(add, relay, attach, unharmed):  # noqa: F811
    sender = Sender(attach, getattr(relay, add)("mallet"))
    for message in spoiled(TRANSPORT + LOGIN + GLOBAL_REQUESTS + OPENS):
        sender.send(message)
    assert 0 < sender.ended < sender.sent


@pytest.mark.parametrize("kind", ["session", "bridge"])
def test_in_what_is_sent_on_a_channel(kind, relay, attach, unharmed):  # noqa: F811
    """By either end of a bridge."""
    ends = [Sender(attach, relay.add_device("eve")), Sender(attach, relay.add_client("mallet"))]
    for message, which in ((message, which) for message in spoiled(ON_A_CHANNEL) for which in (0, 1)):
        if kind == "session":
            ends[which].send(message, ends[which].ready().session())
            continue
        device, client = (end.ready() for end in ends)
        device.publish(b"eve", 1)
        own = client.direct(b"eve", 1)
        streams = device.confirm(device.incoming()), client.opened(own)
        ends[which].send(message, streams[which])
    assert any(end.ended < end.sent for end in ends)


def test_in_a_refusal_of_a_device(relay, attach, unharmed):  # noqa: F811
    device, client = Sender(attach, relay.add_device("eve")), attach(relay.add_client("mallet"))
    for text, language in ((HUGE, b"en"), (b"text", HUGE)):
        device.ready().publish(b"eve", 1)
        own = client.direct(b"eve", 1)
        device.send((OPEN_FAILURE, device.raw.incoming().peer, 2, text, language))
        assert client.opened(own) is None


def test_in_a_login(relay, unharmed):
    """It is more than anybody may send before he is known."""
    for message in spoiled(LOGIN + TRANSPORT):
        transport = paramiko.Transport(("127.0.0.1", relay.port))
        transport.packetizer.REKEY_BYTES = 1 << 40
        transport.start_client(timeout=20 * SLOW)
        packet = Message()
        packet.add_byte(bytes([SERVICE_REQUEST]))
        packet.add_string(b"ssh-userauth")
        transport._send_message(packet)
        with contextlib.suppress(EOFError, OSError):
            transport._send_message(packed(message))
        until(lambda t=transport: not t.is_active(), what=lambda m=message: f"the end after {named(m)}")
        transport.close()


def test_before_there_are_keys(relay, unharmed):
    for message in spoiled(TRANSPORT + LOGIN):
        body = packed(message).asbytes()
        padding = 4 + -(len(body) + 1) % 8
        with socket.create_connection(("127.0.0.1", relay.port), 10 * SLOW) as sock:
            with contextlib.suppress(OSError):
                sock.sendall(b"SSH-2.0-x\r\n" + (len(body) + 1 + padding).to_bytes(4, "big") + bytes([padding]))
                sock.sendall(body + bytes(padding))
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
