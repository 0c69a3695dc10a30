"""Every way to write a publish or a connect on OpenSSH's command line."""

import re
import struct

import pytest

from net import echoes, is_listening, pattern, read_exact
from procs import until
from sshd import USER


@pytest.fixture
def raspi(relay):
    return relay.add_device("raspi", allow=["kiosk", "*.shop:80-89"])


def served_as(alice, target, data=b"round trip"):
    return alice.through_W(target).finish(data) == (0, data)


@pytest.mark.parametrize("listen, endpoint", [
    ("7", "raspi:7"),
    ("*:7", "raspi:7"),
    (":7", "raspi:7"),
    ("localhost:7", "raspi:7"),
    ("127.0.0.1:7", "raspi:7"),
    ("[::1]:7", "raspi:7"),
    ("0.0.0.0:7", "raspi:7"),
    ("[::]:7", "raspi:7"),
    ("raspi:7", "raspi:7"),
    ("RASPI:7", "raspi:7"),
    ("web.raspi:7", "web.raspi:7"),
    ("Web.Front.Raspi:65535", "web.front.raspi:65535"),
    ("raspi.default:7", "raspi:7"),
    ("web.raspi.DEFAULT:7", "web.raspi:7"),
    ("kiosk:7", "kiosk:7"),
    ("till_1.shop:80", "till_1.shop:80"),
])
def test_publish_form(relay, net, raspi, alice, listen, endpoint):
    """The device's ssh compares what it sent byte for byte when the relay opens, so a round trip proves the echo."""
    device = raspi.publish(f"{listen}:localhost:{net.echo().port}", expect=endpoint)
    assert served_as(alice, endpoint)
    assert [f"{row['name']}:{row['port']}" for row in relay.list("endpoints")] == [endpoint]
    assert relay.endpoint(endpoint)["device"] == "raspi"
    assert "WARNING" not in device.err()


def test_publish_with_bind_to_all(relay, net, raspi, alice):
    """-g does not matter for -R; GatewayPorts on the client's side neither."""
    raspi.publish(f"7:localhost:{net.echo().port}", options=["-g", "-o", "GatewayPorts=yes"], expect="raspi:7")
    assert served_as(alice, "raspi:7")


def test_port_0_is_allocated_reported_and_usable(relay, net, raspi, alice):
    services = [net.http(b"first"), net.http(b"second"), net.http(b"third")]
    forwards = [f"0:localhost:{services[0].port}", f"0:localhost:{services[1].port}",
                f"web.raspi:0:localhost:{services[2].port}"]
    device = raspi.publish(*forwards)
    ports = []
    for service in services:
        line = device.wait_err(rf"^Allocated port (\d+) for remote forward to localhost:{service.port}")
        ports.append(int(line[1]))
    assert ports[0] != ports[1] and all(49152 <= port <= 65535 for port in ports)
    for name, port, body in zip(("raspi", "raspi", "web.raspi"), ports, (b"first", b"second", b"third")):
        relay.wait_published(f"{name}:{port}")
        status, answer = alice.through_W(f"{name}:{port}").finish(b"GET / HTTP/1.0\r\n\r\n")
        assert status == 0 and answer.endswith(body)


def test_port_0_is_free_again_after_the_device_left(relay, net, raspi):
    """Ten devices' worth of allocations one after the other do not pile up."""
    for _ in range(5):
        device = raspi.publish(f"0:localhost:{net.echo().port}")
        port = device.wait_err(r"^Allocated port (\d+)")[1]
        relay.wait_published(f"raspi:{port}")
        device.stop()
        relay.wait_withdrawn(f"raspi:{port}")


def test_many_R_in_one_session(relay, net, raspi, alice):
    services = [net.http(f"service {n}".encode()) for n in range(20)]
    expect = [f"raspi:{100 + n}" for n in range(10)] + [f"s{n}.raspi:80" for n in range(10, 20)]
    listens = [f"{100 + n}" for n in range(10)] + [f"s{n}.raspi:80" for n in range(10, 20)]
    raspi.publish(*[f"{a}:localhost:{s.port}" for a, s in zip(listens, services)], expect=expect)
    assert len(relay.list("sessions")) == 1
    _, ports = alice.local(*expect)
    for n, port in enumerate(ports):
        assert net.http_get(port) == f"service {n}".encode()


def test_one_of_several_R_is_refused(relay, net, raspi, alice):
    """Without ExitOnForwardFailure ssh warns about the one and serves the others."""
    a, b = net.http(b"a"), net.http(b"b")
    device = raspi.ssh("-N", "-R", f"80:localhost:{a.port}", "-R", "elsewhere:80:localhost:1",
                       "-R", f"81:localhost:{b.port}")
    relay.wait_published("raspi:80")
    relay.wait_published("raspi:81")
    device.wait_err("remote port forwarding failed for listen port 80")
    for port, body in ((80, b"a"), (81, b"b")):
        assert alice.through_W(f"raspi:{port}").finish(b"GET / HTTP/1.0\r\n\r\n")[1].endswith(body)
    assert device.running


def test_the_same_endpoint_twice_in_one_session(relay, net, raspi, alice):
    a, b = net.http(b"a"), net.http(b"b")
    device = raspi.ssh("-N", "-R", f"80:localhost:{a.port}", "-R", f"RASPI:80:localhost:{b.port}")
    relay.wait_log(r'refused publish "\S*:80": duplicate')
    device.wait_err("remote port forwarding failed")
    assert alice.through_W("raspi:80").finish(b"GET / HTTP/1.0\r\n\r\n")[1].endswith(b"a")
    assert device.running


@pytest.mark.parametrize("target", ["raspi:7", "RASPI:7", "rAsPi:7", "raspi.default:7", "RASPI.Default:7"])
def test_connect_form(relay, net, raspi, alice, target):
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    assert served_as(alice, target)
    _, (port,) = alice.local(target)
    assert echoes(net.connect(port))


def test_names_in_a_named_tenant(relay, net, make_sshd):
    """raspi.acme is raspi in acme, for its devices and its clients; also for ssh -J, which lower-cases."""
    relay.add_tenant("acme")
    raspi, bob = relay.add_device("raspi", tenant="acme"), relay.add_client("bob", tenant="acme")
    sshd = make_sshd([bob.pub])
    for name in ("raspi", "raspi.acme"):
        bob.trust(sshd.known_host(name))
    raspi.publish(f"22:localhost:{sshd.port}", f"web.raspi.acme:7:localhost:{net.echo().port}",
                  expect=["raspi:22", "web.raspi:7"])
    assert served_as(bob, "web.raspi:7") and served_as(bob, "web.raspi.acme:7")
    for host in ("raspi", "raspi.acme", "RASPI.Acme"):
        done = bob.run("-J", "relay", host=f"{USER}@{host}", command=["echo ok"])
        assert (done.returncode, done.stdout) == (0, b"ok\n"), done.stderr


def test_W_carries_binary_both_ways(relay, net, raspi, alice):
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    data = bytes(range(256)) * 16 + pattern(3 << 20)
    assert alice.through_W("raspi:7").finish(data) == (0, data)


def test_W_ends_when_the_service_closes(relay, net, raspi, alice):
    raspi.publish(f"19:localhost:{net.source(1 << 20).port}", expect="raspi:19")
    proc = alice.through_W("raspi:19")
    assert proc.stdout.read() == pattern(1 << 20)
    assert proc.finish() == (0, b"")


def curl(procs, proxy, url):
    return procs.run(["curl", "-sS", "--max-time", "20", "--socks5-hostname", f"127.0.0.1:{proxy}", url])


def test_D_with_remote_name_resolution(relay, net, procs, raspi, alice):
    raspi.publish(f"80:localhost:{net.http(b'own').port}", f"web.raspi:8080:localhost:{net.http(b'web').port}",
                  expect=["raspi:80", "web.raspi:8080"])
    port = net.free_port()
    proxy = alice.ssh("-N", "-D", f"127.0.0.1:{port}")
    until(lambda: is_listening(port), what="-D listening")
    assert curl(procs, port, "http://raspi/").stdout == b"own"
    assert curl(procs, port, "http://web.raspi:8080/").stdout == b"web"
    assert curl(procs, port, "http://RASPI.default/").stdout == b"own"
    nowhere = curl(procs, port, "http://nowhere/")
    assert nowhere.returncode != 0 and nowhere.stdout == b""
    assert curl(procs, port, "http://raspi/").stdout == b"own"
    assert proxy.running


def test_R_without_target_is_a_proxy_into_the_device(relay, net, procs, raspi, alice):
    """OpenSSH's -R port alone: the device's ssh speaks SOCKS on each channel; the relay only carries it."""
    inside = net.http(b"inside", host="127.0.0.3")
    raspi.publish("1080", expect="raspi:1080")
    _, (port,) = alice.local("raspi:1080")
    assert curl(procs, port, f"http://127.0.0.3:{inside.port}/").stdout == b"inside"


def test_the_service_learns_nothing_but_bytes(relay, net, raspi, alice):
    """What a service gets first is what the client sent first: no header, no greeting."""
    first = net.serve(lambda conn, _: struct.unpack("!I", read_exact(conn, 4)))
    raspi.publish(f"9:localhost:{first.port}", expect="raspi:9")
    assert alice.through_W("raspi:9").finish(struct.pack("!I", 0xDEADBEEF))[0] == 0
    assert first.wait_results() == [(0xDEADBEEF,)]


def test_clients_address_reaches_the_device(relay, net, raspi, alice):
    """The originator fields carry the client's real address."""
    device = raspi.publish(f"7:localhost:{net.echo().port}", options=["-v"], expect="raspi:7")
    assert served_as(alice, "raspi:7")
    origin = device.wait_err(r"client_request_forwarded_tcpip: .*originator (\S+) port (\d+)")
    assert origin[1] == "127.0.0.1" and re.fullmatch(r"\d+", origin[2]) and int(origin[2]) not in (0, 65535)

