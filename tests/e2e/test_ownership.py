"""Who owns a name: what an administrator takes away stays away, and what was promised is stored whatever others do."""

import contextlib
import os
import re
import sqlite3
import threading
import time

import pytest
from hostile import GLOBAL_REQUEST, REQUEST_FAILURE, REQUEST_SUCCESS, attach  # noqa: F401
from procs import SLOW, until


def stored(relay):
    """{(name, port, device)} as the database has it."""
    with contextlib.closing(sqlite3.connect(os.path.join(relay.state, "relayd.db"), timeout=5)) as db:
        return set(db.execute("SELECT e.name, e.port, p.name FROM endpoints e"
                              " JOIN principals p ON p.id = e.principal_id"))


def wait_stored(relay, *rows, timeout=10):
    until(lambda: stored(relay) >= set(rows), timeout, lambda: f"{rows} stored; have {stored(relay)}")


def stored_names(relay):
    return {name for name, _, _ in stored(relay)}


def wait_caught_up(relay, raw, name):
    """Rows are written behind, in order: when this one is there, so is all that sessions saw before."""
    assert raw.publish(name.encode(), 4711) == 4711
    until(lambda: (name, 4711) in {row[:2] for row in stored(relay)}, what=f"{name}:4711 stored")


def counts(result):
    return result["closed"]["sessions"], result["closed"]["bridges"]


@pytest.fixture
def probe(relay, attach):  # noqa: F811
    """A device of another tenant, to see how far the writing behind is."""
    relay.add_tenant("elsewhere")
    return attach(relay.add_device("probe", tenant="elsewhere"))


# ---- names that are taken away while they are served


def test_a_removed_endpoint_does_not_come_back_with_its_publishers_end(relay, net, probe, keys):
    echo = net.echo()
    first, second = (relay.add_device(name, allow=["shared*"]) for name in ("first", "second"))
    serving = first.publish(f"shared:80:localhost:{echo.port}", expect="shared:80")
    wait_stored(relay, ("shared", 80, "first"))
    since = relay.mark()
    assert counts(relay.ctl("remove-endpoint", "shared")) == (1, 0)
    assert serving.wait() == 255
    # the end of the session notes when the endpoint was seen last: that must not make the row again
    relay.wait_log(r"principal=first session=\d+ closed: ", since)
    wait_caught_up(relay, probe, "probe")
    assert "shared" not in stored_names(relay)
    second.publish(f"shared:80:localhost:{echo.port}", expect="shared:80")
    wait_stored(relay, ("shared", 80, "second"))
    relay.restart(kill=True)
    assert first.run("-N", "-o", "ExitOnForwardFailure=yes", "-R", "shared:80:localhost:1").returncode == 255
    relay.wait_log(r'principal=first session=\d+ refused publish "shared:80": not_owner: ')
    second.publish(f"shared:80:localhost:{echo.port}", expect="shared:80")


def test_a_device_may_be_added_with_the_name_of_a_removed_endpoint(relay, net, probe):
    echo = net.echo()
    serving = relay.add_device("first", allow=["shared"]).publish(f"shared:80:localhost:{echo.port}",
                                                                  expect="shared:80")
    wait_stored(relay, ("shared", 80, "first"))
    relay.ctl("remove-endpoint", "shared")
    assert serving.wait() == 255
    wait_caught_up(relay, probe, "probe")
    relay.add_device("shared").publish(f"22:localhost:{echo.port}", expect="shared:22")


def test_renaming_a_live_device_frees_its_old_name(relay, net, probe):
    echo = net.echo()
    raspi = relay.add_device("raspi")
    serving = raspi.publish(f"22:localhost:{echo.port}", f"web.raspi:80:localhost:{echo.port}",
                            expect=["raspi:22", "web.raspi:80"])
    wait_stored(relay, ("raspi", 22, "raspi"), ("web.raspi", 80, "raspi"))
    since = relay.mark()
    assert counts(relay.ctl("rename", "raspi", "pi")) == (1, 0)
    assert serving.wait() == 255
    relay.wait_log(r"principal=\S+ session=\d+ closed: ", since)
    wait_caught_up(relay, probe, "probe")
    assert stored_names(relay) == {"probe"}, "something of the old name is left"
    relay.add_device("raspi").publish(f"22:localhost:{echo.port}", expect="raspi:22")
    raspi.publish(f"22:localhost:{echo.port}", expect="pi:22")
    wait_stored(relay, ("raspi", 22, "raspi"), ("pi", 22, "pi"))
    relay.restart(kill=True)
    assert {row["name"]: row["device"] for row in relay.list("endpoints")} == {"raspi": "raspi", "pi": "pi"}


def test_a_name_below_the_new_name_that_it_owned_by_rule_is_its_own(relay, attach):  # noqa: F811
    raspi = relay.add_device("raspi", allow=["web.*"])
    session = attach(raspi)
    assert session.publish(b"web.pi", 80) == 80
    wait_stored(relay, ("web.pi", 80, "raspi"))
    relay.ctl("rename", "raspi", "pi")
    relay.ctl("disallow", "pi", "web.*")
    session.close()
    again = attach(raspi)
    assert again.publish(b"web.pi", 81) == 81, "the device does not own what is below its own name"
    again.close()
    relay.restart()
    assert attach(raspi).publish(b"web.pi", 80) == 80, "after a restart it does not"


# ---- bridges whose endpoint is no longer published


@pytest.mark.parametrize("name,change", [
    ("shared", ["disallow", "first", "shared"]), ("shared", ["move-endpoint", "shared", "second"]),
    ("first", ["rename", "first", "other"])], ids=["disallow", "move-endpoint", "rename"])
def test_a_bridge_that_outlived_its_publish_is_cut_with_the_right_to_it(name, change, relay, attach):  # noqa: F811
    relay.add_device("second")
    device = attach(relay.add_device("first", allow=["shared"]))
    client = attach(relay.add_client("alice"))
    assert device.publish(name.encode(), 80) == 80
    wait_stored(relay, (name, 80, "first"))
    own = client.direct(name.encode(), 80)
    back = device.confirm(device.incoming())
    stream = client.opened(own)
    assert device.ask("cancel-tcpip-forward", name.encode(), 80)[0]
    stream.send(b"ping")
    assert back.read(4) == b"ping", "a cancel must not cut what is open"
    assert counts(relay.ctl(*change)) == (0, 1)
    assert relay.list("bridges") == [] and device.alive() and client.alive()


# ---- many publishes


def test_a_flood_of_publishes_loses_no_name_of_another_tenant(relay, attach):  # noqa: F811
    """The flood is of a device's own name, so no limit of names stops it, and the database's writer sees all of it."""
    relay.add_tenant("other")
    good = attach(relay.add_device("good", tenant="other", allow=["w*"]))
    eve = attach(relay.add_device("eve"))
    eve._arrived = lambda *_: None
    stop, sent = threading.Event(), [0]

    def flood():
        with contextlib.suppress(EOFError, OSError):
            while not stop.is_set():
                with eve.one_segment():
                    for kind in ["tcpip-forward", "cancel-tcpip-forward"] * 50:
                        eve.put(GLOBAL_REQUEST, kind, False, b"eve", 80)
                sent[0] += 100

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        until(lambda: sent[0] >= 20000, 60, lambda: f"a flood; sent {sent[0]}")
        for i in range(100):
            assert good.publish(b"w%d" % i, 80) == 80
            if i % 20 == 0:
                started = time.monotonic()
                assert relay.ctl("status")["store"] == "ok"
                assert time.monotonic() - started < 5 * SLOW
        wait_stored(relay, *((f"w{i}", 80, "good") for i in range(100)))
    finally:
        stop.set()
        thread.join()
    # the backlog of the writer must not hold up the end either: stop() bounds it
    relay.stop()
    assert {row for row in stored(relay) if row[2] == "good"} == {(f"w{i}", 80, "good") for i in range(100)}
    relay.start()


def test_foreign_names_of_one_device_are_bounded(relay, attach):  # noqa: F811
    """Also those that nobody serves any more, or a device could take all names there are."""
    device = attach(relay.add_device("raspi", allow=["*"]))
    for i in range(256):
        device.put(GLOBAL_REQUEST, "tcpip-forward", True, b"n%d" % i, 80)
        device.put(GLOBAL_REQUEST, "cancel-tcpip-forward", True, b"n%d" % i, 80)
    assert {device.expect(REQUEST_SUCCESS, REQUEST_FAILURE)[0] for _ in range(512)} == {REQUEST_SUCCESS}
    assert device.publish(b"n256", 80) is None
    relay.wait_log(r'principal=raspi session=\d+ refused publish "n256:80": too_many_endpoints: ')
    assert device.publish(b"n7", 81) == 81, "one of its names was refused"
    assert device.publish(b"raspi", 80) == 80 and device.publish(b"web.raspi", 80) == 80
    wait_stored(relay, *((f"n{i}", 80, "raspi") for i in range(256)))
    relay.restart(kill=True)
    device = attach(relay.principals[-1])
    assert device.publish(b"n256", 80) is None, "forgotten by a restart"
    relay.ctl("remove-endpoint", "n0")
    assert device.publish(b"n256", 80) == 80, "removing one makes no room"


# ---- tenants


def test_a_tenant_may_be_named_like_a_principal_of_another(relay, net, keys):
    """Or the administrator of one tenant would see, and could take, the names of others."""
    relay.add_tenant("first")
    relay.add_device("acme", tenant="first")
    relay.add_client("zulu", tenant="first")
    for name in ("acme", "zulu"):
        assert relay.add_tenant(name)["status"] == "added"
    key = keys.new()
    for tenant in ("first", "acme"):
        relay.ctl("add-client", "--tenant", tenant, "--name", "both", key + ".pub")
    for tenant in ("first", "acme"):
        out = relay.stranger(key=key, user=tenant).run(command=["whoami"]).stdout.decode()
        assert re.search(rf"\b{tenant}\b", out), out
