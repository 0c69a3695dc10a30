"""What relayctl changes is so at once, for sessions and bridges that are up too; the reply counts what it closed."""

import base64
import calendar
import socket
import time

import keys as keylib
import paramiko
import pytest
from control import refused
from hostile import CLOSE, DATA, WINDOW_ADJUST, attach, bridge, eve, mallet  # noqa: F401
from net import echoes
from procs import SLOW, until


class Traffic:
    """raspi publishes raspi:7 and raspi:8; alice has a bridge to each, in one session."""

    def __init__(self, relay, net, tenant=None, allow=()):
        self.relay, self.tenant = relay, tenant
        self.echo = net.echo()
        self.raspi = relay.add_device("raspi", tenant=tenant)
        self.device = self.raspi.publish(f"7:localhost:{self.echo.port}", f"8:localhost:{self.echo.port}",
                                         expect=["raspi:7", "raspi:8"])
        self.alice = relay.add_client("alice", tenant=tenant, allow=allow)
        self.client, ports = self.alice.local("raspi:7", "raspi:8")
        self.ports = ports
        self.seven, self.eight = (net.connect(port) for port in ports)
        assert echoes(self.seven) and echoes(self.eight)

    def cut(self, *socks):
        """True if these are at their end and no byte more came."""
        return all(sock.recv(1) == b"" for sock in socks)


@pytest.fixture
def traffic(relay, net):
    return Traffic(relay, net)


def ended(proc, relay, principal, sentence="removed"):
    assert proc.wait() == 255
    relay.wait_log(rf"principal={principal} session=\d+ closed: .*{sentence}")


def counts(result):
    return result["closed"]["sessions"], result["closed"]["bridges"]


def test_remove_client(traffic, relay):
    gone = relay.ctl("remove-client", "alice")
    assert gone["status"] == "removed" and counts(gone) == (1, 2)
    assert traffic.cut(traffic.seven, traffic.eight)
    ended(traffic.client, relay, "alice")
    assert relay.list("bridges") == [] and relay.list("clients") == []
    assert [row["principal"] for row in relay.list("sessions")] == ["raspi"]
    assert traffic.device.running and relay.endpoint("raspi:7")["bridges"] == 0
    assert "Permission denied" in traffic.alice.run("-W", "raspi:7").stderr
    refused(relay, "not_found", "remove-client", "alice")


def test_remove_device(traffic, relay):
    gone = relay.ctl("remove-device", "raspi")
    assert gone["status"] == "removed" and counts(gone) == (1, 2)
    assert traffic.cut(traffic.seven, traffic.eight)
    ended(traffic.device, relay, "raspi")
    assert relay.list("endpoints") == [] and relay.list("devices") == []
    assert traffic.client.running, "the client was closed too"
    assert "Permission denied" in traffic.raspi.run("-N").stderr
    # the name is free again
    relay.add_device("raspi").publish(f"7:localhost:{traffic.echo.port}", expect="raspi:7")
    assert traffic.alice.run("-W", "raspi:7", input=b"x").stdout == b"x"


def test_remove_tenant(relay, net):
    relay.add_tenant("two")
    gone, stays = Traffic(relay, net, "two"), Traffic(relay, net)
    result = relay.ctl("remove-tenant", "two")
    assert result["status"] == "removed" and counts(result) == (2, 2)
    assert gone.cut(gone.seven, gone.eight)
    assert (gone.client.wait(), gone.device.wait()) == (255, 255)
    assert [row["name"] for row in relay.list("tenants")] == ["default"]
    refused(relay, "not_found", "list", "devices", "--tenant", "two")
    assert "Permission denied" in gone.alice.run("-W", "raspi:7").stderr
    assert echoes(stays.seven) and echoes(stays.eight)
    relay.add_tenant("two")
    assert relay.list("devices", "two") == [] and relay.list("endpoints", "two") == []


def test_there_is_always_the_tenant_default(relay):
    relay.add_client("alice")
    done = relay.ctl("remove-tenant", "default", check=False)
    assert done.returncode == 1 and "default" in done.stderr
    assert [row["name"] for row in relay.list("tenants")] == ["default"] and len(relay.list("clients")) == 1


def test_remove_key_closes_the_sessions_of_that_key_alone(relay, net, keys):
    echo = net.echo()
    relay.add_device("raspi").publish(f"7:localhost:{echo.port}", expect="raspi:7")
    first = relay.add_client("alice")
    second = relay.stranger("alice", key=keys.new())
    relay.ctl("add-key", "alice", second.pub)
    procs, socks = [], []
    for principal in (first, second):
        proc, (port,) = principal.local("raspi:7")
        procs.append(proc)
        socks.append(net.connect(port))
        assert echoes(socks[-1])
    assert counts(relay.ctl("remove-key", "alice", first.fingerprint)) == (1, 1)
    assert socks[0].recv(1) == b"" and procs[0].wait() == 255
    assert echoes(socks[1]) and procs[1].running
    assert [row["fingerprint"] for row in relay.list("keys") if row["principal"] == "alice"] == [second.fingerprint]
    assert "Permission denied" in first.run("-W", "raspi:7").stderr
    assert second.run("-W", "raspi:7", input=b"x").stdout == b"x"
    # the key may now belong to somebody else
    relay.ctl("add-client", "--name", "bob", first.pub)
    assert b"bob" in first.run(command=["whoami"]).stdout


def test_disallow_closes_the_bridges_that_are_no_longer_allowed(relay, net):
    traffic = Traffic(relay, net, allow=["raspi:7", "raspi:8"])
    result = relay.ctl("disallow", "alice", "raspi:7")
    assert result["status"] == "disallowed" and result["rules"] == ["raspi:8"] and counts(result) == (0, 1)
    assert traffic.cut(traffic.seven) and echoes(traffic.eight)
    assert traffic.client.running and [row["endpoint"] for row in relay.list("bridges")] == ["raspi:8"]
    since = relay.mark()
    assert net.connect(traffic.ports[0]).recv(1) == b"", "the live session still reaches raspi:7"
    relay.wait_log('refused connect "raspi:7": not_reachable: ', since)
    assert counts(relay.ctl("allow", "alice", "RASPI:7")) == (0, 0)
    assert echoes(net.connect(traffic.ports[0])), "allow did not reach the live session"


def test_a_bridge_that_another_rule_allows_stays(relay, net):
    traffic = Traffic(relay, net, allow=["raspi:7", "rasp*:7-8", "raspi"])
    for rule in ("raspi:7", "raspi"):
        assert counts(relay.ctl("disallow", "alice", rule)) == (0, 0)
    assert echoes(traffic.seven) and echoes(traffic.eight)
    assert counts(relay.ctl("disallow", "alice", "rasp*:7-8")) == (0, 2)
    assert traffic.cut(traffic.seven, traffic.eight)


def test_without_its_last_rule_a_client_reaches_nothing(traffic, relay):
    result = relay.ctl("disallow", "alice", "*")
    assert result["rules"] == [] and counts(result) == (0, 2)
    assert traffic.cut(traffic.seven, traffic.eight) and traffic.client.running
    assert traffic.alice.run("-W", "raspi:7").returncode == 255
    assert b"raspi" not in traffic.alice.run(command=["ls"]).stdout
    assert relay.ctl("show", "alice")["rules"] == []
    relay.ctl("allow", "alice", "raspi:8")
    assert traffic.alice.run("-W", "raspi:8", input=b"x").stdout == b"x"
    assert traffic.alice.run("-W", "raspi:7").returncode == 255


def test_disallow_closes_a_device_that_serves_what_it_no_longer_may(relay, net):
    echo = net.echo()
    raspi = relay.add_device("raspi", allow=["shared:80", "other"])
    alice = relay.add_client("alice")
    serving = raspi.publish(f"shared:80:localhost:{echo.port}", expect="shared:80")
    own = raspi.publish(f"7:localhost:{echo.port}", expect="raspi:7")
    _, (port, port7) = alice.local("shared:80", "raspi:7")
    sock, sock7 = net.connect(port), net.connect(port7)
    assert echoes(sock) and echoes(sock7)
    assert counts(relay.ctl("disallow", "raspi", "other")) == (0, 0)
    assert echoes(sock)
    assert counts(relay.ctl("disallow", "raspi", "shared:80")) == (1, 1)
    assert sock.recv(1) == b"" and serving.wait() == 255
    assert echoes(sock7) and own.running, "a session that serves nothing forbidden was closed"
    done = raspi.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", "shared:80:localhost:1")
    assert done.returncode == 255
    relay.wait_log('principal=raspi session=[0-9]+ refused publish "shared:80": not_allowed: ')


def test_move_endpoint(relay, net):
    one, two = net.http(b"one"), net.http(b"two")
    first, second = relay.add_device("first", allow=["shared"]), relay.add_device("second", allow=["shared"])
    alice = relay.add_client("alice")
    serving = first.publish(f"shared:80:localhost:{one.port}", f"shared:81:localhost:{one.port}",
                            expect=["shared:80", "shared:81"])
    refused(relay, "bad_argument", "move-endpoint", "shared", "alice", says="client")
    moved = relay.ctl("move-endpoint", "shared", "second")
    assert moved["status"] == "moved" and counts(moved) == (1, 0)
    assert serving.wait() == 255
    assert {row["device"] for row in relay.list("endpoints") if row["name"] == "shared"} == {"second"}
    done = first.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", "shared:80:localhost:1")
    assert done.returncode == 255
    second.publish(f"shared:80:localhost:{two.port}", expect="shared:80")
    assert alice.run("-W", "shared:80", input=b"GET / HTTP/1.0\r\n\r\n").stdout.endswith(b"two")
    assert relay.ctl("move-endpoint", "shared", "second")["status"] == "unchanged"


def test_a_devices_own_name_cannot_be_moved(relay, net):
    first = relay.add_device("first")
    relay.add_device("second")
    first.publish(f"web.first:80:localhost:{net.echo().port}", expect="web.first:80")
    refused(relay, "in_use", "move-endpoint", "web.first", "second", says="first")
    assert relay.endpoint("web.first:80")["online"]


def test_remove_endpoint_frees_the_name(relay, net):
    echo = net.echo()
    first, second = relay.add_device("first", allow=["shared"]), relay.add_device("second", allow=["shared"])
    first.publish(f"shared:80:localhost:{echo.port}", expect="shared:80").stop()
    relay.wait_withdrawn("shared:80")
    take = ("-N", "-o", "ExitOnForwardFailure=yes", "-R", "shared:80:localhost:1")
    assert second.run(*take).returncode == 255
    assert relay.ctl("remove-endpoint", "SHARED.default")["status"] == "removed"
    assert relay.endpoint("shared:80") is None
    second.publish(f"shared:80:localhost:{echo.port}", expect="shared:80")
    assert first.run(*take).returncode == 255
    assert relay.endpoint("shared:80")["device"] == "second"


def test_rename_withdraws_the_old_name(traffic, relay):
    renamed = relay.ctl("rename", "raspi", "berry")
    assert renamed["closed"]["sessions"] == 1, "the session goes on serving a name that is no longer its own"
    relay.wait_withdrawn("raspi:7")
    assert traffic.device.wait() == 255
    assert traffic.alice.run("-W", "raspi:7").returncode == 255
    assert traffic.client.running


def test_rename_of_a_client_cuts_nothing(traffic, relay):
    assert counts(relay.ctl("rename", "alice", "alicia")) == (0, 0)
    assert echoes(traffic.seven) and echoes(traffic.eight)
    assert {row["client"] for row in relay.list("bridges")} <= {"alice", "alicia"}
    assert "alicia" in {row["principal"] for row in relay.list("sessions")}


@pytest.mark.parametrize("by", ["id", "name"])
def test_disconnect(by, traffic, relay):
    (session,) = [row for row in relay.list("sessions") if row["principal"] == "alice"]
    gone = relay.ctl("disconnect", session["id"] if by == "id" else "alice")
    assert counts(gone) == (1, 2)
    assert traffic.cut(traffic.seven, traffic.eight)
    ended(traffic.client, relay, "alice", "disconnected by an administrator")
    assert "disconnected by an administrator" in traffic.client.err()
    assert traffic.device.running
    assert traffic.alice.run("-W", "raspi:7", input=b"x").stdout == b"x", "disconnect must not lock out"


def test_disconnect_stays_inside_the_tenant(traffic, relay):
    relay.add_tenant("two")
    relay.add_client("alice", tenant="two")
    for row in relay.list("sessions"):
        refused(relay, "not_found", "disconnect", "--tenant", "two", row["id"])
    done = relay.ctl("disconnect", "--tenant", "two", "alice", check=False)
    assert done.returncode == 1 or counts(done.json) == (0, 0)
    assert echoes(traffic.seven) and traffic.device.running


def seconds(text):
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


@pytest.mark.parametrize("kind", ["client", "device"])
def test_expiry_cuts_live_sessions(kind, relay, net, keys):
    """The client's is a time of the day, the device's a while from now."""
    echo, key, lifetime = net.echo(), keys.new(), int(3 + 2 * SLOW)
    end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + lifetime))
    if kind == "device":
        alice = relay.add_client("alice")
        relay.ctl("add-device", "--name", "raspi", "--expires", f"{lifetime}s", key + ".pub")
        expiring = relay.stranger("raspi", key=key)
        proc = expiring.publish(f"7:localhost:{echo.port}", expect="raspi:7")
    else:
        relay.add_device("raspi").publish(f"7:localhost:{echo.port}", expect="raspi:7")
        relay.ctl("add-client", "--name", "alice", "--expires", end, key + ".pub")
        assert relay.ctl("show", "alice")["expires"] == end
        expiring = alice = relay.stranger("alice", key=key)
    client, (port,) = alice.local("raspi:7")
    proc = client if kind == "client" else proc
    sock = net.connect(port)
    assert echoes(sock)
    shown = relay.ctl("show", expiring.name)["expires"]
    assert proc.wait(lifetime + 10) == 255
    assert -0.1 < time.time() - seconds(shown) < 1 + 0.5 * SLOW
    assert sock.recv(1) == b""
    relay.wait_log(rf"principal={expiring.name} session=\d+ closed: ")
    assert relay.list("bridges") == []
    since = relay.mark()
    done = expiring.run("-N")
    assert done.returncode == 255 and "expired" in done.stderr, "the banner must say why"
    relay.wait_log('refused login ".*": key_expired: ', since)


@pytest.mark.parametrize("what", ["remove-client", "remove-key", "remove-device", "disconnect", "expiry",
                                  "remove-client behind it", "remove-key behind it", "remove-device behind it",
                                  "expiry behind it"])
def test_what_is_queued_goes_with_the_right(what, relay, attach, eve, keys):  # noqa: F811
    """The receiver takes nothing for now; the sender may be away already."""
    what, left = what.removesuffix(" behind it"), what.endswith(" behind it")
    key, expires = keys.new(), ["--expires", f"{max(3, int(3 * SLOW))}s"] if what == "expiry" else []
    relay.ctl("add-client", "--name", "mallet", *expires, key + ".pub")
    relay.ctl("add-key", "mallet", keys.new() + ".pub")
    sender = attach(relay.stranger("mallet", key=key))
    receiver = eve
    if what == "remove-device":
        sender, receiver = receiver, sender
        there, back = bridge_from(receiver, sender)
    else:
        there, back = bridge(receiver, sender, window=0)
    back.send(b"x" * 20000)
    until(lambda: relay.list("bridges")[0]["held"] == 20000, what="all is queued")
    if left:
        sender.sock.shutdown(socket.SHUT_RDWR)
        until(lambda: len(relay.list("sessions")) == 1, what="the sender has left")
        assert len(relay.list("bridges")) == 1
    if what == "expiry":
        until(lambda: not relay.list("bridges"), 10, "the bridge is gone")
    else:
        argument = {"remove-device": "eve", "remove-key": keylib.fingerprint(key)}.get(what, "mallet")
        argv = [what, *(["mallet"] if what == "remove-key" else []), argument]
        assert counts(relay.ctl(*argv)) == (0 if left else 1, 1)
    assert relay.list("bridges") == []
    there.expect(CLOSE)
    receiver.put(WINDOW_ADJUST, there.peer, 1 << 20)
    assert receiver.alive() and not receiver.seen(DATA, there.own)


def bridge_from(client, device):
    """As bridge(), for a client that takes nothing."""
    own = client.direct(b"eve", 1, window=0)
    back = device.confirm(device.incoming())
    return client.opened(own), back


def test_who_has_not_proven_the_key_is_not_told_of_its_expiry(relay, keys):
    key = keys.new()
    relay.ctl("add-client", "--name", "alice", "--expires", "1s", key + ".pub")
    alice = relay.stranger("alice", key=key)
    until(lambda: "expired" in alice.run(command=["whoami"]).stderr, what="the expiry")
    with open(key + ".pub") as f:
        stolen = base64.b64decode(f.read().split()[1])

    class Impostor(paramiko.Ed25519Key):
        def asbytes(self):
            return stolen

    transport = paramiko.Transport(("127.0.0.1", relay.port))
    transport.start_client(timeout=20 * SLOW)
    transport.auth_timeout = 2 * SLOW
    with pytest.raises(paramiko.SSHException):
        transport.auth_publickey("somebody", Impostor.from_private_key_file(keys.new()))
    assert transport.get_banner() is None
    transport.close()


def test_a_change_is_applied_before_it_is_answered(relay, net):
    traffic = Traffic(relay, net, allow=["raspi:7", "raspi:8"])
    for _ in range(10):
        assert relay.ctl("disallow", "alice", "raspi:7")["rules"] == ["raspi:8"]
        assert traffic.alice.run("-W", "raspi:7", input=b"x").returncode == 255
        relay.ctl("allow", "alice", "raspi:7")
        assert traffic.alice.run("-W", "raspi:7", input=b"x").stdout == b"x"
    assert echoes(traffic.eight)
