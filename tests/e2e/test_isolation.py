"""Nobody reaches what they may not reach: other tenants, missing rules, and every odd spelling of a name."""

import os
import re

import pytest
from hostile import CONFIRMATION, OPEN_FAILURE, attach, escaped  # noqa: F401
from net import echoes
from procs import until

STRANGERS = ["client without the rule", "client of another tenant"]


@pytest.fixture
def world(relay, net):
    """Tenant `default` has raspi:7 and printer:7, `two` has zebra:7; bob may reach printer, mallory all of `two`."""
    relay.add_tenant("two")
    world = World()
    world.secret, world.open = net.echo(), net.echo()
    world.raspi = relay.add_device("raspi")
    world.raspi.publish(f"7:localhost:{world.secret.port}", expect="raspi:7")
    relay.add_device("printer").publish(f"7:localhost:{world.open.port}", expect="printer:7")
    relay.add_device("zebra", tenant="two").publish(f"7:localhost:{world.open.port}", expect="zebra:7")
    world.strangers = {
        STRANGERS[0]: (relay.add_client("bob", allow=["printer:7"]), "printer"),
        STRANGERS[1]: (relay.add_client("mallory", tenant="two"), "zebra"),
    }
    return world


class World:
    pass


def odd_spellings(relay, echo_port):
    """(name as sent, port, reason) of opens that must all be refused."""
    ssh4, ssh6 = relay.ports["127.0.0.1"], relay.ports["[::1]"]
    yield from ((name, port, "loopback") for name, port in [
        (b"localhost", 7), (b"LocalHost", 7), (b"localhost", ssh4), (b"localhost", echo_port), (b"127.0.0.1", ssh4),
        (b"127.0.0.1", echo_port), (b"::1", ssh6), (b"::1", 7), (b"0.0.0.0", ssh4), (b"::", ssh6), (b"", 7), (b"*", 7)])
    yield from ((name, 7, "bad_name") for name in [
        b"127.0.0.2", b"127.1", b"2130706433", b"0x7f.1", b"::ffff:127.0.0.1", b"[::1]", b"[raspi]", b"localhost.",
        b"x.localhost", b"raspi.", b".raspi", b"raspi..two", b"raspi.two.", b"-raspi", b"raspi:7", b"raspi/..",
        b"ra spi", b" raspi", b"raspi\n", b"raspi\r\nINFO ready", b"\x1b[31mraspi", b"\x7fraspi", b"r\xc3\xa4spi",
        b"\xff\xfe", b"raspi%00", b"raspi;id", b"a" * 64, b"a" * 300, b".".join([b"raspi"] * 50), b"x" * 70000,
        b"\x00raspi"])
    yield from ((name, 7, "not_reachable") for name in [
        b"raspi", b"RASPI", b"rAsPi", b"raspi.default", b"raspi.two", b"RASPI.DEFAULT", b"web.raspi", b"default",
        b"two", b"relay", b"raspi.default.two", b"nosuch", b"a" * 63, b"raspi\x00.printer", b"raspi\x00.zebra"])
    yield (b"raspi", 0, "bad_port")
    yield from ((b"raspi", port, "not_reachable") for port in (65535, 1, 22, ssh4, ssh6, echo_port))
    yield from ((b"raspi", port, "not_reachable") for port in (65536 + 7, (1 << 31) + 7, (1 << 32) - 1))


@pytest.mark.parametrize("who", STRANGERS)
def test_every_spelling_of_what_is_not_theirs_is_refused_and_logged(who, world, relay, attach):
    stranger, allowed = world.strangers[who]
    raw = attach(stranger)
    for name, port, reason in odd_spellings(relay, world.secret.port):
        if name == b"\x00raspi":
            reason = "(loopback|bad_name)"  # libssh cuts it to the empty name
        since = relay.mark()
        answer, message = raw.expect(CONFIRMATION, OPEN_FAILURE, channel=raw.direct(name, port))
        assert answer == OPEN_FAILURE, (name, port)
        assert message.get_int() and message.get_int() in (1, 2), (name, port)
        line = relay.wait_log(rf'principal={stranger.name} session=\d+ refused connect "(.*)": {reason}: ', since)
        shown = escaped(name.split(b"\0")[0])
        assert line[1].lower().startswith(shown[:100].lower()), (name, line[1])
    assert raw.alive()
    stream = raw.connect(allowed.encode(), 7)
    assert stream is not None and stream.echoes(b"still here"), "the connection did not survive"
    assert world.secret.accepted == 0
    assert not [line for line in relay.lines if re.search(r"[^\x20-\x7e]", line)], "raw bytes in the log"


@pytest.mark.parametrize("who", STRANGERS)
def test_ssh_W_is_refused_over_a_connection_that_goes_on(who, world, relay, folder):
    stranger, allowed = world.strangers[who]
    mux = os.path.join(folder, "mux")
    master = stranger.ssh("-N", "-M", "-S", mux)
    until(lambda: os.path.exists(mux) or not master.running, what="the master's socket")
    ssh_port = relay.port
    for target in ["localhost:7", f"localhost:{ssh_port}", f"127.0.0.1:{ssh_port}", f"127.0.0.1:{world.secret.port}",
                   f"[::1]:{relay.ports['[::1]']}", "raspi:7", "RASPI:7", "raspi.default:7", "raspi.two:7", "raspi.:7",
                   "raspi:65535", "nosuch:7"]:
        done = stranger.run("-S", mux, "-W", target, input=b"hello")
        assert (done.returncode, done.stdout) == (255, b""), (target, done.stderr)
    assert stranger.run("-S", mux, "-W", f"{allowed}:7", input=b"hello").stdout == b"hello"
    assert master.running and world.secret.accepted == 0
    assert master.err().count("administratively prohibited") == 12, master.err()


@pytest.mark.parametrize("target", ["raspi:7", "raspi.default:7", "localhost:7"])
def test_ssh_W_to_what_is_not_theirs_fails(target, world):
    for stranger, _ in world.strangers.values():
        done = stranger.run("-W", target, input=b"hello")
        assert (done.returncode, done.stdout) == (255, b"")
        assert "administratively prohibited" in done.stderr and "stdio forwarding failed" in done.stderr


def test_equal_names_in_two_tenants_are_two_endpoints(relay, net):
    relay.add_tenant("two")
    one, two = net.http(b"one"), net.http(b"two")
    relay.add_device("raspi").publish(f"80:localhost:{one.port}", expect="raspi:80")
    relay.add_device("raspi", tenant="two").publish(f"80:localhost:{two.port}", expect="raspi:80")
    alice, mallory = relay.add_client("alice"), relay.add_client("mallory", tenant="two")
    request = b"GET / HTTP/1.0\r\n\r\n"
    for target in ("raspi:80", "raspi.default:80", "RASPI.Default:80"):
        assert alice.run("-W", target, input=request).stdout.endswith(b"one")
    for target in ("raspi:80", "raspi.two:80", "RASPI.Two:80"):
        assert mallory.run("-W", target, input=request).stdout.endswith(b"two")
    assert alice.run("-W", "raspi.two:80", input=request).returncode == 255
    assert mallory.run("-W", "raspi.default:80", input=request).returncode == 255
    assert (one.accepted, two.accepted) == (3, 3)


def test_lists_show_nothing_of_another_tenant(world, relay):
    mallory, _ = world.strangers[STRANGERS[1]]
    for command in ("ls", "whoami", "ls *"):
        out = mallory.run(command=[command]).stdout
        assert b"raspi" not in out and b"printer" not in out, out
    assert b"zebra" in mallory.run(command=["ls"]).stdout
    bob, _ = world.strangers[STRANGERS[0]]
    shown = bob.run(command=["ls"]).stdout
    assert b"printer" in shown and b"raspi" not in shown
    assert {row["name"] for row in relay.list("endpoints", "two")} == {"zebra"}
    assert {row["name"] for row in relay.list("devices", "two")} == {"zebra"}
    assert {row["principal"] for row in relay.list("keys", "two")} == {"zebra", "mallory"}


def test_what_libssh_truncates_grants_no_more_than_the_rest(relay, net, attach):
    near, far = net.echo(), net.echo()
    raspi = relay.add_device("raspi")
    raspi.publish(f"7:localhost:{near.port}", f"8:localhost:{far.port}", expect=["raspi:7", "raspi:8"])
    raw = attach(relay.add_client("alice", allow=["raspi:7"]))
    for name, port in [(b"raspi\0x", 8), (b"raspi", 65536 + 8), (b"raspi", 0x80000008), (b"raspi\0.raspi", 8),
                       (b"x\0raspi", 7), (b"ras\0pi", 7)]:
        assert raw.connect(name, port) is None, (name, port)
    for name, port in [(b"raspi\0:8", 7), (b"raspi", 65536 + 7)]:
        stream = raw.connect(name, port)
        if stream is not None:  # then it is what the truncated value says
            assert stream.echoes()
    assert raw.alive() and far.accepted == 0

    device = attach(relay.add_device("other"))
    for name, port in [(b"raspi\0.other", 80), (b"raspi\0", 80), (b"shared\0.other", 80), (b"shared", 65536 + 80)]:
        assert device.publish(name, port) is None, (name, port)
    for name, port in [(b"web.other\0x", 80), (b"other", 65536 + 80), (b"other", 65536)]:
        device.publish(name, port)
    published = {(row["name"], row["port"]) for row in relay.list("endpoints") if row["device"] == "other"}
    assert all(name in ("other", "web.other") and (port == 80 or port >= 49152) for name, port in published), published
    assert device.alive()


def test_published_endpoints_bind_no_port(relay, net):
    echo = net.echo()
    raspi = relay.add_device("raspi", allow=["*"])
    names = [f"n{i}.raspi:{1000 + i}" for i in range(16)] + ["*:80", "shared:443", "localhost:8080", "0"]
    expect = [*names[:16], "raspi:80", "shared:443", "raspi:8080"]
    device = raspi.publish(*(f"{name}:localhost:{echo.port}" for name in names), expect=expect)
    allocated = int(device.wait_err(r"Allocated port (\d+) for remote forward")[1])
    assert len([row for row in relay.list("endpoints") if row["online"]]) == 20
    alice = relay.add_client("alice")
    for target in ("n3.raspi:1003", "shared:443", f"raspi:{allocated}"):
        assert alice.run("-W", target, input=b"x").stdout == b"x"
    assert listeners(relay.pid) == {("127.0.0.1", relay.ports["127.0.0.1"]), ("::1", relay.ports["[::1]"])}


def listeners(pid):
    """(address, port) of all internet sockets of a process that have no peer: TCP in LISTEN, and any UDP."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{fd}")
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    spelled = {"0100007F": "127.0.0.1", "00000000000000000000000001000000": "::1"}
    found = set()
    for table in ("tcp", "tcp6", "udp", "udp6", "raw", "raw6"):
        with open(f"/proc/{pid}/net/{table}") as f:
            for row in f.read().splitlines()[1:]:
                fields = row.split()
                if fields[9] in inodes and (fields[3] == "0A" or not table.startswith("tcp")):
                    address, port = fields[1].split(":")
                    found.add((spelled.get(address, address), int(port, 16)))
    return found


def test_the_user_name_selects_the_tenant_of_a_shared_key(relay, keys, net):
    relay.add_tenant("two")
    relay.add_tenant("three")
    one, two = net.http(b"one"), net.http(b"two")
    relay.add_device("raspi").publish(f"80:localhost:{one.port}", expect="raspi:80")
    relay.add_device("raspi", tenant="two").publish(f"80:localhost:{two.port}", expect="raspi:80")
    shared = keys.new()
    relay.add_client("alice", key=shared)
    relay.add_client("mallory", tenant="two", key=shared)
    homes = {row["principal"]: row["home"] for tenant in ("default", "two") for row in relay.list("keys", tenant)
             if row["principal"] in ("alice", "mallory")}
    assert homes == {"alice": True, "mallory": False}

    home, other = ("default", "alice", b"one"), ("two", "mallory", b"two")
    for user, (tenant, principal, body) in [("default", home), ("somebody", home), ("alice", home), ("mallory", home),
                                            ("two", other)]:
        since = relay.mark()
        done = relay.stranger(key=shared, user=user).run("-W", "raspi:80", input=b"GET / HTTP/1.0\r\n\r\n")
        assert done.stdout.endswith(body), (user, done)
        relay.wait_log(rf"tenant={tenant} principal={principal} session=\d+ logged in as client", since)
    assert relay.stranger(key=shared, user="three").run("-W", "raspi:80").returncode == 255
    relay.wait_log(r'refused login ".*": unknown_key: ')


def test_an_unknown_tenant_and_an_unknown_key_fail_alike(relay):
    relay.add_tenant("two")
    alice = relay.add_client("alice")
    said = set()
    for principal in (relay.stranger(user="two"), relay.stranger(user="nosuch"),
                      relay.stranger(key=alice.key, user="two")):
        done = principal.run("-o", "LogLevel=ERROR", command=["whoami"])
        assert (done.returncode, done.stdout) == (255, b"")
        said.add(re.sub(r"^\S+@", "USER@", done.stderr, flags=re.M))
    assert len(said) == 1 and "Permission denied (publickey)" in said.pop()


@pytest.mark.parametrize("removed,kept", [("default", "two"), ("two", "default")])
def test_a_tenant_cannot_disturb_anothers_key(removed, kept, relay, keys, net):
    relay.add_tenant("two")
    echo, shared = net.echo(), keys.new()
    relay.add_client("alice", key=shared)
    relay.add_client("alice", tenant="two", key=shared)
    sockets = {}
    for tenant in ("default", "two"):
        relay.add_device("raspi", tenant=tenant).publish(f"7:localhost:{echo.port}", expect="raspi:7")
        _, (port,) = relay.stranger(key=shared, user=tenant).local("raspi:7")
        sockets[tenant] = net.connect(port)
        assert echoes(sockets[tenant])

    gone = relay.ctl("remove-client", "alice", "--tenant", removed)
    assert gone["closed"] == {"sessions": 1, "bridges": 1}
    assert sockets[removed].recv(1) == b""
    assert echoes(sockets[kept]), "the other tenant's bridge was cut"
    assert relay.stranger(key=shared, user=kept).run("-W", "raspi:7", input=b"hi").stdout == b"hi"
    assert relay.stranger(key=shared, user=removed).run("-W", "raspi:7").returncode == 255
    # nobody's home is taken away for good: any other user name now finds the tenant that is left
    since = relay.mark()
    assert relay.stranger(key=shared, user="anybody").run("-W", "raspi:7", input=b"hi").stdout == b"hi"
    relay.wait_log(rf"tenant={kept} principal=alice session=\d+ logged in as client", since)


def test_a_loopback_open_of_a_device_reaches_its_own_session_only(relay, net, attach):
    echo = net.echo()
    raspi = relay.add_device("raspi")
    raspi.publish(f"9:localhost:{echo.port}", expect="raspi:9")
    other = attach(raspi)
    assert other.publish(b"localhost", 10) == 10
    for port in (9, relay.port, echo.port):
        since = relay.mark()
        assert other.connect(b"127.0.0.1", port) is None
        relay.wait_log(rf'principal=raspi session=\d+ refused connect "127.0.0.1:{port}": (loopback|not_client): ',
                       since)
    own = other.direct(b"127.0.0.1", 10)
    back = other.confirm(other.incoming())
    stream = other.opened(own)
    stream.send(b"monitor")
    assert back.read(7) == b"monitor"
    assert echo.accepted == 0
