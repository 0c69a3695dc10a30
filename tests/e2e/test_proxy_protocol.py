"""The device and its service see the client: the originator of an open, and the header of the PROXY protocol."""

import ipaddress
import struct

import pytest
from faults import faults, make_faulty  # noqa: F401
from hostile import CLOSE, CONFIRMATION, DATA, EOF, OPEN, OPEN_FAILURE, WINDOW_ADJUST, attach  # noqa: F401
from net import Net, echoes, is_listening, pattern, read_all, read_exact
from procs import until
from test_systemd import manager  # noqa: F401

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
AUTHORITY, PRINCIPAL, TENANT = 0x02, 0xE0, 0xE1


class Header:
    """One header, read as HAProxy's proxy-protocol.txt says in 2.2; whatever is not as it must be is an error."""

    def __init__(self, head, read):
        assert head[:12] == SIGNATURE
        assert head[12] == 0x21, "not version 2, or not PROXY"
        size = {0x11: 4, 0x21: 16}[head[13]]  # TCP over IPv4, over IPv6
        body = read(int.from_bytes(head[14:16], "big"))
        self.text = head + body
        self.source = str(ipaddress.ip_address(body[:size]))
        self.destination = str(ipaddress.ip_address(body[size:2 * size]))
        self.source_port, self.destination_port = struct.unpack_from("!HH", body, 2 * size)
        self.tlvs, at = [], 2 * size + 4
        while at < len(body):
            kind, length = struct.unpack_from("!BH", body, at)
            assert at + 3 + length <= len(body), "a TLV is longer than the header"
            self.tlvs.append((kind, body[at + 3:at + 3 + length]))
            at += 3 + length


def header_of(sock):
    return Header(read_exact(sock, 16), lambda size: read_exact(sock, size))


class Reader:
    """The bytes of a raw channel, in pieces of any size."""

    def __init__(self, stream):
        self.stream, self.ahead = stream, b""

    def __call__(self, size):
        while len(self.ahead) < size:
            _, message = self.stream.expect(DATA)
            message.get_int()
            self.ahead += message.get_string()
        data, self.ahead = self.ahead[:size], self.ahead[size:]
        return data

    def header(self):
        return Header(self(16), self)


def tlvs(endpoint, principal, tenant="default"):
    return [(AUTHORITY, endpoint.encode()), (PRINCIPAL, principal.encode()), (TENANT, tenant.encode())]


def switch(relay, endpoint, value="on", tenant="default"):
    return relay.ctl("set-endpoint", endpoint, "--proxy-protocol", value, "--tenant", tenant)


@pytest.fixture
def service(net):
    """Reads a header, then sends back "NAMES " and all that comes."""

    def handler(conn, _):
        header = header_of(conn)
        conn.sendall(b" ".join(value for _, value in header.tlvs) + b" " + read_all(conn))
        return header

    return net.serve(handler)


def meet(relay, attach, at=None):  # noqa: F811
    """A raw device that publishes eve:1 with the header, and a raw client that is being connected to it."""
    device, client = attach(relay.add_device("eve")), attach(relay.add_client("mallet"), at=at)
    assert device.publish(b"eve", 1) == 1
    switch(relay, "eve:1")
    own = client.direct(b"eve", 1)
    return device, client, own, device.incoming()


# ---- Who it is


def expect_seen(client, incoming, header, address):
    """Both tell the two ends of the client's own connection to the relay."""
    (_, port), (there, _) = client.sock.getsockname()[:2], client.sock.getpeername()[:2]
    assert (incoming.originator, incoming.originator_port) == (address, port)
    assert (header.source, header.source_port) == (address, port)
    assert (header.destination, header.destination_port) == (there.removeprefix("::ffff:"), 1)
    assert header.tlvs == tlvs("eve", "mallet")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_address_and_port_are_those_of_the_clients_socket(relay, attach, host):  # noqa: F811
    at = (host, relay.ports[f"[{host}]" if ":" in host else host])
    device, client, own, incoming = meet(relay, attach, at)
    stream = device.confirm(incoming)
    client.opened(own).send(b"hello")
    read = Reader(stream)
    expect_seen(client, incoming, read.header(), host)
    assert read(5) == b"hello"


def test_an_ipv4_client_of_a_socket_for_both_families(manager, attach):  # noqa: F811
    """::ffff:127.0.0.1 is told as 127.0.0.1."""
    relay = manager.relay
    both, _ = manager.listen("::", dualstack_ipv6=True), manager.listen()
    manager.pass_sockets()
    relay.start()
    device, client, own, incoming = meet(relay, attach, ("127.0.0.1", both))
    stream = device.confirm(incoming)
    client.opened(own)
    expect_seen(client, incoming, Reader(stream).header(), "127.0.0.1")


def test_a_real_parser_understands_it(relay, net, procs, folder, raspi, alice):
    """HAProxy, told to accept-proxy, answers with what it has read."""
    port, config = Net.free_port(), f"{folder}/haproxy.cfg"
    with open(config, "w") as f:
        f.write(f"""defaults
    mode http
    timeout client 60s
frontend web
    bind 127.0.0.1:{port} accept-proxy
    http-request return status 200 content-type text/plain lf-string "%[src] %[src_port] %[dst_port] %[fc_pp_authority]"
""")
    haproxy = procs.spawn(["haproxy", "-db", "-f", config])
    until(lambda: is_listening(port) or not haproxy.running, what="haproxy listens")
    raspi.publish(f"web.raspi:80:localhost:{port}", expect="web.raspi:80")
    switch(relay, "web.raspi:80")
    _, (local,) = alice.local("web.raspi:80")
    answer = net.http_get(local).decode()
    session = next(row for row in relay.list("sessions") if row["principal"] == "alice")
    address, _, source_port = session["address"].partition(" port ")
    assert answer == f"{address} {source_port} 80 web.raspi"


def test_principals_and_tenants_are_told_apart(relay, service):
    """Two tenants with the same names; one has the header, the other's service gets bytes alone."""
    relay.add_tenant("acme")
    relay.add_device("raspi", tenant="acme").publish(f"7:localhost:{service.port}", expect="raspi:7")
    bob, alice = (relay.add_client(name, tenant="acme") for name in ("bob", "alice"))
    switch(relay, "raspi:7", tenant="acme")
    for client in (bob, alice):
        status, out = client.through_W("raspi:7").finish(b"hello")
        assert (status, out) == (0, b"raspi %s acme hello" % client.name.encode())
    assert relay.endpoint("raspi:7") is None
    assert relay.endpoint("raspi:7", "acme")["proxy_protocol"] is True


# ---- When


def test_it_holds_for_new_connections(relay, net, raspi, alice):
    """What is open goes on as it began; the next one is as it is set then, also after a restart."""
    first = net.serve(lambda conn, _: conn.sendall(b"header" if conn.recv(6)[:4] == SIGNATURE[:4] else b"plain"))
    echo = net.echo()
    options = ["-R", f"7:localhost:{echo.port}"]
    raspi.publish(f"8:localhost:{first.port}", options=options, expect=["raspi:8", "raspi:7"])

    def what_comes():
        return alice.through_W("raspi:8").finish(b"hello!")[1]

    assert what_comes() == b"plain"
    _, (local,) = alice.local("raspi:7")
    sock = net.connect(local)
    assert echoes(sock)
    for endpoint in ("raspi:7", "raspi:8"):
        assert switch(relay, endpoint)["status"] == "set"
    assert echoes(sock) and what_comes() == b"header"
    relay.restart()
    raspi.publish(f"8:localhost:{first.port}", expect="raspi:8")
    assert what_comes() == b"header"
    assert switch(relay, "raspi:8", "off")["status"] == "set"
    assert what_comes() == b"plain"


def test_it_is_set_before_the_device_has_ever_been_there(relay, service, raspi, alice):
    assert switch(relay, "web.raspi:80")["status"] == "set"
    row = relay.endpoint("web.raspi:80")
    assert row["proxy_protocol"] and not row["online"] and row["last_seen"] is None and row["device"] == "raspi"
    raspi.publish(f"web.raspi:80:localhost:{service.port}", expect="web.raspi:80")
    assert alice.through_W("web.raspi:80").finish(b"x")[1] == b"web.raspi alice default x"


def test_it_goes_where_the_name_goes(relay, net, service, raspi, alice):
    """A renamed device keeps it under its new name, another owner inherits it, and with the name it is gone."""
    plain = net.echo()
    switch(relay, "web.raspi:80")
    relay.ctl("rename", "raspi", "berry")
    raspi.publish(f"web.berry:80:localhost:{service.port}", expect="web.berry:80")
    assert alice.through_W("web.berry:80").finish(b"x")[1] == b"web.berry alice default x"
    for device in (raspi, other := relay.add_device("other")):
        relay.ctl("allow", "berry" if device is raspi else "other", "shop")
    publisher = raspi.publish(f"shop:80:localhost:{service.port}", expect="shop:80")
    switch(relay, "shop:80")
    relay.ctl("move-endpoint", "shop", "other")
    publisher.wait()
    other.publish(f"shop:80:localhost:{service.port}", expect="shop:80")
    assert alice.through_W("shop:80").finish(b"x")[1] == b"shop alice default x"
    relay.ctl("remove-endpoint", "shop")
    until(lambda: relay.endpoint("shop:80") is None, what="shop is forgotten")
    other.publish(f"shop:80:localhost:{plain.port}", expect="shop:80")
    assert relay.endpoint("shop:80")["proxy_protocol"] is False
    assert alice.through_W("shop:80").finish(b"x")[1] == b"x"
    relay.ctl("remove-device", "berry")
    again = relay.add_device("berry")
    again.publish(f"web.berry:80:localhost:{plain.port}", expect="web.berry:80")
    assert alice.through_W("web.berry:80").finish(b"x")[1] == b"x"


# ---- Under back-pressure, and with ends that come early


def test_it_waits_for_the_devices_window(relay, attach):  # noqa: F811
    """A window of 0: the header waits in relayd, is counted there, and comes first, however slowly."""
    device, client, own, incoming = meet(relay, attach)
    stream = device.confirm(incoming, window=0)
    at_client = client.opened(own)
    at_client.send(b"hello")

    def held():
        (row,) = relay.list("bridges")
        return row["held"] if row["bytes_up"] == 5 else None

    waiting = until(held, what="hello has come")
    assert waiting > 5 and not device.seen(DATA, stream.own)
    read, got = Reader(stream), b""
    for size in (1, 15, 3):
        device.put(WINDOW_ADJUST, stream.peer, size)
        got += read(size)
    assert not device.seen(DATA, stream.own)
    device.put(WINDOW_ADJUST, stream.peer, 1 << 20)
    got += read(waiting - len(got))
    header = Header(got[:16], lambda size: got[16:16 + size])
    assert len(header.text) == waiting - 5 and header.tlvs == tlvs("eve", "mallet") and got.endswith(b"hello")
    until(lambda: relay.list("bridges")[0]["held"] == 0, what="nothing is held any more")


@pytest.mark.parametrize("how", ["eof", "close"])
def test_a_client_that_says_nothing_is_announced_all_the_same(relay, attach, how):  # noqa: F811
    device, client, own, incoming = meet(relay, attach)
    stream = device.confirm(incoming, window=0)
    getattr(client.opened(own), how)()
    device.put(WINDOW_ADJUST, stream.peer, 1 << 20)
    header = Reader(stream).header()
    assert header.tlvs == tlvs("eve", "mallet")
    stream.expect(EOF)
    stream.close()
    stream.expect(CLOSE)
    until(lambda: not relay.list("bridges"), what="the bridge is over")
    assert not device.seen(DATA, stream.own) and device.alive() and client.alive()


def test_a_service_that_speaks_first_and_a_client_that_half_closes(relay, net, raspi, alice):
    def handler(conn, _):
        conn.sendall(b"220 hello\r\n")
        header = header_of(conn)
        data = read_all(conn)
        conn.sendall(b"got %d bytes" % len(data))
        return header.tlvs

    server = net.serve(handler)
    raspi.publish(f"25:localhost:{server.port}", expect="raspi:25")
    switch(relay, "raspi:25")
    big = pattern(3 << 20)
    status, out = alice.through_W("raspi:25").finish(big, timeout=60)
    assert (status, out) == (0, b"220 hello\r\ngot %d bytes" % len(big))
    assert server.wait_results() == [tlvs("raspi", "alice")]


def test_many_at_once(relay, service, raspi, alice):
    raspi.publish(f"7:localhost:{service.port}", expect="raspi:7")
    switch(relay, "raspi:7")
    alices = [alice.through_W("raspi:7") for _ in range(8)]
    answers = [proc.finish(b"%d" % i) for i, proc in enumerate(alices)]
    assert answers == [(0, b"raspi alice default %d" % i) for i in range(8)]
    assert len({header.source_port for header in service.wait_results(8)}) == 8


def test_the_header_is_no_byte_of_the_client(relay, net, raspi, alice):
    """bytes_up counts what the client has sent."""
    done = net.serve(lambda conn, _: (header_of(conn), read_exact(conn, 5), conn.recv(1)))
    raspi.publish(f"7:localhost:{done.port}", expect="raspi:7")
    switch(relay, "raspi:7")
    _, (local,) = alice.local("raspi:7")
    sock = net.connect(local)
    sock.sendall(b"hello")
    until(lambda: [row["bytes_up"] for row in relay.list("bridges")] == [5], what="5 bytes up")
    assert relay.endpoint("raspi:7")["bytes_up"] == 5
    sock.close()
    until(lambda: not relay.list("bridges"), what="the bridge is over")
    assert relay.endpoint("raspi:7")["bytes_up"] == 5


# ---- Out of memory


class Pair:
    """A raw device that serves eve:1, and a raw client; whoever has lost his connection logs in again."""

    def __init__(self, relay, attach):  # noqa: F811
        self.attach, self.principals = attach, [relay.add_device("eve"), relay.add_client("mallet")]
        self.sessions = [None, None]

    def here(self):
        for i, session in enumerate(self.sessions):
            if session is None or not session.is_active():
                self.sessions[i] = self.attach(self.principals[i])
                assert i == 1 or self.sessions[0].publish(b"eve", 1) == 1
        return self.sessions

    def first_bytes(self):
        """What the device gets first when the client says hello; None if there is no bridge."""
        device, client = self.sessions
        own = client.direct(b"eve", 1)

        def decided():
            return (device.seen(OPEN) or client.seen(OPEN_FAILURE, own) or not device.is_active()
                    or not client.is_active())

        until(decided, what="an answer to the open")
        if not device.seen(OPEN):
            client.is_active() and client.expect(OPEN_FAILURE, channel=own)
            return None
        stream = device.confirm(device.incoming())
        until(lambda: client.seen(CONFIRMATION, own) or client.seen(OPEN_FAILURE, own) or not client.is_active(),
              what="an answer to the client")
        if client.seen(CONFIRMATION, own):
            client.opened(own).send(b"hello")
        until(lambda: device.seen(DATA, stream.own) or device.seen(CLOSE, stream.own) or not device.is_active(),
              what="bytes, or the end")
        if not device.seen(DATA, stream.own):
            return None
        first = Reader(stream)(5)
        stream.close()
        return first


def test_without_memory_no_byte_comes_before_the_header(make_faulty, faults, attach):  # noqa: F811
    """Whichever allocation fails on the way of an open: the service gets the header, or nothing."""
    relay = make_faulty()
    pair = Pair(relay, attach)
    switch(relay, "eve:1")
    number, struck, refused = 0, True, 0
    while struck:
        number += 1
        pair.here()
        faults.fail_allocation(number)
        first = pair.first_bytes()
        struck = faults.struck
        faults.fail_allocation(0)
        assert relay.running and first in (None, SIGNATURE[:5]), number
        assert first is not None or struck, number
        refused += first is None
        until(lambda: not relay.list("bridges"), what=f"no bridge is left of {number}")
    assert number > 5 and refused > 2


def test_it_is_set_or_not(make_faulty, faults, attach):  # noqa: F811
    """What relayctl is told holds for the next connection, whichever allocation fails."""
    relay = make_faulty()
    pair = Pair(relay, attach)
    number, struck, is_on = 0, True, False
    while struck:
        number += 1
        pair.here()
        faults.fail_allocation(number, own_only=True)
        done = relay.ctl("set-endpoint", "eve:1", "--proxy-protocol", "off" if is_on else "on", check=False)
        struck = faults.struck
        faults.fail_allocation(0)
        assert relay.running and (struck or done.returncode == 0), (number, done)
        now_on = relay.endpoint("eve:1")["proxy_protocol"]
        assert done.returncode != 0 or now_on is not is_on, (number, done)
        is_on = now_on
        pair.here()
        assert pair.first_bytes() == (SIGNATURE[:5] if is_on else b"hello"), (number, done)
    assert number > 5
