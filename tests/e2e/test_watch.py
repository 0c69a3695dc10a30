"""relayctl --watch: looks again and again, in place on a terminal, and tells the bytes a second."""

import fcntl
import json
import os
import re
import signal
import struct
import termios

import pytest
from net import echoes, pattern, read_exact
from procs import until
from relay import RELAYCTL

HOME, CLEAR_REST = "\x1b[H", "\x1b[J"


@pytest.fixture
def watch(relay, procs):
    """Starts relayctl --watch; pty=True on a terminal of its own."""

    def start(*args, pty=False, interval="0.2"):
        argv = [RELAYCTL, "--control-socket", relay.socket, *args, "--watch", "--interval", interval]
        return procs.spawn_pty(argv) if pty else procs.spawn_pipes(argv)

    return start


def screens(proc):
    """What the terminal has shown so far, frame by frame, without the codes."""
    whole = proc.output().split(HOME)[1:]
    return [re.sub(r"\x1b\[[KJ]", "", frame).replace("\r", "") for frame in whole if CLEAR_REST in frame]


def wait_screen(proc, regex, since=0):
    """The first frame from number `since` on that matches."""
    def found():
        return next((frame for frame in screens(proc)[since:] if re.search(regex, frame, re.M)), None)
    return until(found, what=lambda: f"/{regex}/ on the screen, which shows {screens(proc)[-1:]}")


def resize(proc, rows, columns):
    fcntl.ioctl(proc.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def lines(proc, count):
    """So many lines of its output, as text."""
    return [proc.stdout.readline().decode().rstrip("\n") for _ in range(count)]


def documents(proc):
    """Its output, one JSON document after the other."""
    while True:
        yield json.loads(proc.stdout.readline())


# ---- Bytes a second


@pytest.mark.parametrize("what, number", [("bridges", 1), ("sessions", 2), ("endpoints", 1)])
def test_rates_are_the_bytes_of_an_interval(relay, net, raspi, alice, watch, what, number):
    """Each two looks tell the same as the counters themselves: what came between them."""
    raspi.publish(f"7:localhost:{net.sized_source().port}", expect="raspi:7")
    _, (port,) = alice.local("raspi:7")
    sock = net.connect(port)
    relay.wait_bridges(1)
    looks = documents(watch("--json", "list", what))
    first = next(looks)
    assert len(first) == number and all(row["up_rate"] is None and row["down_rate"] is None for row in first)
    size = 1 << 20
    sock.sendall(struct.pack("!II", size, 1))
    assert read_exact(sock, size) == pattern(size, 1)
    up = down = 0
    for rows in looks:
        row = rows[0]
        up, down = up + row["up_rate"], down + row["down_rate"]
        if row["bytes_down"] >= size and row["down_rate"] == 0:
            break
    assert row["bytes_up"] >= 8 and up > 0
    # An interval is 0.2 s or, on a busy machine, longer: the rates add up to at most five times the bytes.
    assert 0 < down * 0.2 <= 1.02 * (row["bytes_down"] - first[0]["bytes_down"])


def test_bytes_of_bridges_that_are_over_stay_with_the_endpoint(relay, net, raspi, alice):
    """And begin at 0 when it comes to be served again."""
    echo = net.echo()
    device = raspi.publish(f"7:localhost:{echo.port}", expect="raspi:7")
    for _ in range(2):
        assert alice.through_W("raspi:7").finish(b"x" * 1000) == (0, b"x" * 1000)
    _, (port,) = alice.local("raspi:7")
    sock = net.connect(port)
    assert echoes(sock, b"y" * 500)
    relay.wait_bridges(1)
    row = relay.endpoint("raspi:7")
    assert (row["bytes_up"], row["bytes_down"], row["bridges"]) == (2500, 2500, 1)
    device.stop()
    relay.wait_withdrawn("raspi:7")
    row = relay.endpoint("raspi:7")
    assert (row["bytes_up"], row["bytes_down"], row["bridges"]) == (0, 0, 0)
    raspi.publish(f"7:localhost:{echo.port}", expect="raspi:7")
    assert alice.through_W("raspi:7").finish(b"z" * 10)[0] == 0
    until(lambda: not relay.list("bridges"), what="the bridge is over")
    assert relay.endpoint("raspi:7")["bytes_up"] == 10


def test_up_is_towards_the_device_for_both_ends(relay, net, raspi, alice):
    raspi.publish(f"9:localhost:{net.sink().port}", expect="raspi:9")
    _, (port,) = alice.local("raspi:9")
    sock = net.connect(port)
    sock.sendall(pattern(1 << 20))

    def sums():
        rows = {row["principal"]: row for row in relay.list("sessions")}
        return [rows[name]["bytes_up"] > 1 << 20 > rows[name]["bytes_down"] for name in ("raspi", "alice")]

    until(lambda: sums() == [True, True], what=lambda: f"a MiB up: {relay.list('sessions')}")


# ---- On a terminal


def test_a_terminal_shows_one_look_in_place_of_the_last(relay, net, raspi, alice, watch):
    proc = watch("list", "endpoints", pty=True)
    wait_screen(proc, "^none$")
    raspi.publish(f"7:localhost:{net.echo().port}", expect="raspi:7")
    frame = wait_screen(proc, "^raspi +7 ")
    assert re.match(r"\d\d:\d\d:\d\d  list endpoints, every 0.2 s\nNAME ", frame)
    assert "none" not in frame and max(map(len, frame.split("\n"))) <= 80
    assert proc.output().startswith(HOME)


def test_a_table_is_cut_to_the_screen_whatever_its_size(relay, watch):
    """Resized while it waits for a long interval, it is drawn anew at once."""
    for i in range(30):
        relay.add_device(f"device-with-a-long-name-{i:02}")
    proc = watch("list", "devices", pty=True, interval="3600")
    frame = wait_screen(proc, "more lines$")
    assert "and 10 more lines" in frame and frame.count("\n") == 23
    for rows, columns in ((60, 200), (10, 30), (3, 20), (24, 41)):
        before = len(screens(proc))
        resize(proc, rows, columns)
        frame = wait_screen(proc, "^(NAME|and )", since=before)
        shown = frame.rstrip("\n").split("\n")
        assert len(shown) < rows and max(map(len, shown)) <= columns
    assert "…" in frame


def test_ctrl_c_leaves(relay, watch):
    proc = watch("list", "sessions", pty=True)
    wait_screen(proc, "^none$")
    proc.send("\x03")
    assert proc.wait() == 0


# ---- Elsewhere


def test_without_a_terminal_tables_follow_each_other(relay, raspi, watch):
    proc = watch("list", "devices")
    shown = lines(proc, 8)
    for table in (shown[:4], shown[4:]):
        assert re.fullmatch(r"\d\d:\d\d:\d\d  list devices, every 0.2 s", table[0])
        assert table[1].startswith("NAME   ONLINE") and table[2].startswith("raspi  no ") and table[3] == ""
    assert "\x1b" not in "".join(shown)
    proc.signal(signal.SIGINT)
    assert proc.wait() == 0


def test_ctrl_c_leaves_while_relayd_does_not_answer(relay, watch, procs):
    proc = watch("--json", "status")
    looks = documents(proc)
    next(looks)
    os.kill(relay.pid, signal.SIGSTOP)
    try:
        until(lambda: asks(proc), what="it waits for an answer")
        proc.signal(signal.SIGINT)
        assert proc.wait() == 0
    finally:
        os.kill(relay.pid, signal.SIGCONT)


def asks(proc):
    """True if it has the control socket open."""
    links = [os.readlink(f"/proc/{proc.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{proc.pid}/fd")]
    return any(link.startswith("socket:") for link in links)


# ---- When relayd is not there


@pytest.mark.parametrize("pty", [False, True])
def test_it_outlives_a_restart(relay, watch, pty):
    proc = watch("list", "devices", pty=pty)
    wait_screen(proc, "^none$") if pty else lines(proc, 2)
    relay.stop()
    (proc.expect if pty else proc.wait_err)("cannot reach relayd at")
    assert proc.running
    relay.listen = [f"{addr}:{port}" for addr, port in relay.ports.items()]
    relay.start()
    relay.add_device("raspi")
    if pty:
        wait_screen(proc, "^raspi +no")
    else:
        until(lambda: b"raspi" in proc.stdout.readline(), what="the device is listed")
    assert proc.running


def test_the_first_look_must_work(relay, watch, procs):
    proc = watch("list", "devices", "--tenant", "acme")
    assert proc.finish() == (1, b"") and "no tenant" in proc.err()
    relay.stop()
    proc = watch("list", "devices")
    assert proc.finish() == (3, b"") and "cannot reach relayd" in proc.err()
    relay.start()


@pytest.mark.parametrize("args, sentence", [
    (["list", "devices", "--watch", "--interval", "0"], "--interval takes seconds"),
    (["list", "devices", "--watch", "--interval", "1s"], "--interval takes seconds"),
    (["list", "devices", "--watch", "--interval", "nan"], "--interval takes seconds"),
    (["list", "devices", "--watch", "--interval", "-3"], "--interval takes seconds"),
    (["list", "devices", "--watch", "--interval", "1e9"], "--interval takes seconds"),
    (["list", "devices", "--interval", "1"], "--interval goes with --watch"),
    (["add-tenant", "x", "--watch"], "--watch works with list, show and status"),
    (["disconnect", "x", "--watch"], "--watch works with list, show and status"),
])
def test_what_makes_no_sense_is_an_error_of_usage(relay, args, sentence):
    done = relay.ctl(*args, check=False, json=False)
    assert done.returncode == 2 and sentence in done.stderr


def test_a_reader_that_has_gone_ends_it(relay, watch):
    proc = watch("list", "devices")
    lines(proc, 1)
    proc.stdout.close()
    assert proc.wait() in (1, -signal.SIGPIPE)


def test_show_and_status_too(relay, raspi, watch):
    assert next(documents(watch("--json", "show", "raspi")))["name"] == "raspi"
    shown = "\n".join(lines(watch("status"), 4))
    assert re.match(r"\S+  status, every 0.2 s\nversion: ", shown)
