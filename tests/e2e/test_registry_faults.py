"""A registry that cannot be written or read, and a control socket short of everything: relayd tells no lies."""

import contextlib
import json
import os
import re
import socket
import sqlite3
import subprocess
import threading
import time

import pytest
from control import ControlSocket
from hostile import attach  # noqa: F401
from procs import SLOW, until
from relay import RELAYCTL, RELAYD
from storage import disk, fill  # noqa: F401


def stored_names(relay):
    with contextlib.closing(sqlite3.connect(os.path.join(relay.state, "relayd.db"), timeout=5)) as db:
        return {name for name, in db.execute("SELECT name FROM endpoints")}


# ---- locked


@pytest.fixture
def lock(relay):
    """Holds the database like another program that writes to it, until rollback()."""
    with contextlib.closing(sqlite3.connect(os.path.join(relay.state, "relayd.db"), isolation_level=None, timeout=5,
                                            check_same_thread=False)) as db:
        yield db


def test_a_change_that_cannot_be_written_is_refused_and_not_made_later(relay, lock, attach):  # noqa: F811
    device = attach(relay.add_device("raspi", allow=["out*"]))
    alice = relay.add_client("alice")
    lock.execute("BEGIN IMMEDIATE")
    assert device.publish(b"raspi", 22) == 22  # its own name; now a row waits to be written, too
    commands = [["add-tenant", "t0"], ["add-tenant", "t1"], ["add-tenant", "t2"], ["remove-device", "raspi"]]
    done = {}
    threads = [threading.Thread(target=lambda n=n, args=args: done.update({n: relay.ctl(*args, check=False)}))
               for n, args in enumerate(commands)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # one behind the other they take longer than relayctl waits: none of them may be made when nobody waits any more
    assert [done[n].returncode for n in range(4)] == [1] * 4, done
    assert {done[n].json["error"]["code"] for n in range(4)} <= {"store_unavailable", "timeout"}, done
    # what needs no writing goes on, at the latest when the writer is done with the change that it had begun
    until(lambda: relay.ctl("status", check=False).returncode == 0, 15, "an answer")
    assert {row["name"] for row in relay.list("tenants")} == {"default"}
    assert [row["name"] for row in relay.list("devices")] == ["raspi"]
    assert relay.ctl("status")["store"] != "ok"
    assert b"alice" in alice.run(command=["whoami"]).stdout
    assert device.publish(b"out1", 80) is None, "a name was promised that cannot be written"
    lock.execute("ROLLBACK")
    until(lambda: relay.ctl("status")["store"] == "ok", 5, "status says ok again by itself")
    assert device.publish(b"out2", 80) == 80
    until(lambda: stored_names(relay) == {"raspi", "out2"}, what=lambda: f"the rows; have {stored_names(relay)}")
    assert {row["name"] for row in relay.list("tenants")} == {"default"}, "made, though it was refused"
    assert [row["name"] for row in relay.list("devices")] == ["raspi"] and device.alive()
    assert relay.add_tenant("t0")["status"] == "added"


def test_a_device_without_anything_to_write_finds_the_registry_well_again(relay, lock, attach):  # noqa: F811
    """Nobody changes anything: relayd must try by itself, or foreign names would be refused for ever."""
    device = attach(relay.add_device("raspi", allow=["out"]))
    assert device.publish(b"raspi", 22) == 22
    until(lambda: stored_names(relay) == {"raspi"}, what="the row of raspi:22")
    lock.execute("BEGIN IMMEDIATE")
    assert relay.ctl("add-tenant", "x", check=False).returncode == 1
    assert device.publish(b"out", 80) is None
    since = relay.mark()
    lock.execute("ROLLBACK")
    relay.wait_log("the registry can be written again", since, 6)
    assert device.publish(b"out", 80) == 80 and relay.ctl("status")["store"] == "ok"


def test_a_short_lock_only_delays_a_change(relay, lock):
    lock.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(1, lock.execute, ["ROLLBACK"])
    started = time.monotonic()
    timer.start()
    try:
        assert relay.add_tenant("late")["status"] == "added"
    finally:
        timer.join()
    assert time.monotonic() - started >= 1 and relay.ctl("status")["store"] == "ok"
    assert {row["name"] for row in relay.list("tenants")} == {"default", "late"}


# ---- damaged


def test_a_damaged_database_leaves_no_right_that_cannot_be_checked(make_relay, net, procs):
    relay, echo = make_relay(), net.echo()
    first, second = (relay.add_device(name, allow=["shared"]) for name in ("first", "second"))
    serving = first.publish(f"shared:80:localhost:{echo.port}", expect="shared:80")
    until(lambda: stored_names(relay) == {"shared"}, what="the row of shared:80")
    # The one thread that writes may go on from its cache; those that read for sessions see the damage.
    for suffix, byte in (("", b"\xa5"), ("-wal", b"\x5a")):
        with open(os.path.join(relay.state, "relayd.db" + suffix), "r+b") as f:
            f.write(byte * os.path.getsize(f.name))
    done = relay.ctl("move-endpoint", "shared", "second", check=False)
    if done.returncode == 0:
        assert done.json["closed"]["sessions"] == 1 and serving.wait() == 255, "moved, but the old publisher serves on"
    assert second.run(command=["whoami"]).returncode == 255
    relay.wait_log("refused login .*registry_unavailable")
    status = relay.ctl("status", check=False)
    assert "cannot be read" in status.stdout + status.stderr, status
    relay.kill9()  # what an orderly stop would make of such a file is no matter


# ---- full


@pytest.mark.parametrize("pages", [0, 1])
def test_a_disk_that_is_full_at_the_first_start_leaves_no_half_of_a_host_key(pages, disk, folder, procs):  # noqa: F811
    state = os.path.join(disk, "state")
    os.mkdir(state, 0o700)
    fill(disk, pages * 4096)
    argv = [RELAYD, "--listen", "127.0.0.1:0", "--state-dir", state, "--control-socket", os.path.join(folder, "sock")]
    first = procs.spawn(argv)
    assert 0 < first.wait() < 128, first.err()
    assert re.search("No space left|disk is full", first.err().splitlines()[-1]), first.err()
    left = {name: os.path.getsize(os.path.join(state, name)) for name in os.listdir(state) if "ssh_host" in name}
    assert left.get("ssh_host_ed25519_key", 400) >= 300 and not [name for name in left if name.endswith(".new")], left
    os.unlink(os.path.join(disk, "fill"))
    second = procs.spawn(argv)
    second.wait_err(" ready$")
    assert second.stop() == 0


# ---- the control socket


def test_many_short_pipelined_requests_are_all_answered_to_a_slow_reader(relay):
    """More than the longest line waits in the buffers, but no line is too long."""
    count = 20000
    line = json.dumps({"v": 1, "id": 1, "cmd": "no"}).encode() + b"\n"
    with ControlSocket(relay.socket) as control:
        feeder = threading.Thread(target=lambda: control.send(line * count) and control.sock.shutdown(socket.SHUT_WR))
        feeder.start()
        feeder.join(0.5)  # nothing is read until all is full
        answers = 0
        while (answer := control.answer()) is not None:
            assert answer["id"] == 1 and answer["error"]["code"] == "unknown_command", (answers, answer)
            answers += 1
        feeder.join()
    assert answers == count


def test_relayctl_says_so_if_its_answer_cannot_be_written(relay):
    with open("/dev/full", "w") as full:
        done = subprocess.run([RELAYCTL, "--control-socket", relay.socket, "add-tenant", "x"], stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=20 * SLOW)
    assert done.returncode == 1 and "No space left" in done.stderr and "it was done" in done.stderr, done
    assert "x" in {row["name"] for row in relay.list("tenants")}


def test_sessions_leave_descriptors_for_the_control_socket(make_relay, net, procs):
    procs.prefix = ["prlimit", "--nofile=256:256"]
    relay = make_relay(workers=16)  # each has some descriptors of its own
    procs.prefix = []
    since = relay.mark()
    for _ in range(300):
        net.connect(relay.port)
    until(lambda: relay.logged("new connections wait", since), what="the limit is felt")
    started = time.monotonic()
    for i in range(10):
        assert relay.add_tenant(f"t{i}")["status"] == "added"
    assert relay.ctl("status")["store"] == "ok" and time.monotonic() - started < 10 * SLOW
    assert len(relay.logged("new connections wait|libevent|Too many open files", since)) < 20 + 10 * SLOW
