"""The benchmarks in small, so that they do not rot: each group against each server. No figure is judged here."""

import os
import pwd
import subprocess
import sys

import pytest

from net import Net
from relay import RELAYD, TOP

sys.path.insert(0, os.path.join(TOP, "tests", "bench"))

import groups  # noqa: E402
import measure  # noqa: E402
import report  # noqa: E402
import servers  # noqa: E402
from bench import Bench  # noqa: E402
from results import Results  # noqa: E402

USER = pwd.getpwuid(os.getuid()).pw_name
BUILD = os.path.dirname(os.path.dirname(os.path.abspath(RELAYD)))
TINY = groups.Plan("tiny", rounds=1, relayd_fleets=(2, 5), sshd_fleet=2, seconds=0.3, warm_up=0.1, idle_seconds=0.1,
                   stream_bytes=1 << 20, streams=(2,), channels=(1, 5),
                   attacks=("login_is_garbage", "flood_of_keepalives"))


@pytest.fixture
def bench(folder):
    made = Bench(TINY, BUILD, folder, [USER, USER])
    made.prepare()
    return made


@pytest.mark.parametrize("group, server", [(group, server) for group, (_, names) in groups.GROUPS.items()
                                           for server in names if server != "haproxy"])
def test_group(bench, group, server):
    """It runs, and every figure that it records is one, that of something that happened where there is no doubt."""
    run, _ = groups.GROUPS[group]
    found = {}
    run(bench, servers.SERVERS[server], found.__setitem__)
    assert found
    for name, value in found.items():
        assert isinstance(value, (int, float)), (name, value)
        if any(word in str(name) for word in ("per_second", "seconds", "p50", "bulk_cpu", "login_cpu", "cipher_cpu")):
            assert value > 0, (name, value)


def test_streams_through_a_plain_proxy(bench):
    """The load's own listener in the proxy's place."""
    port = Net.free_port()
    with bench.load("tcp-stream", port=port, listen_port=port, streams=2, bytes=1 << 20) as load:
        assert load.measure()["bytes"] == 1 << 20


def test_a_measurement_that_fails_says_why(bench):
    """Nobody listens there."""
    with pytest.raises(measure.Failed, match="load idle: 1 failed: .*session 0"):
        with bench.load("idle", port=Net.free_port(), count=1, keys=bench.keys(servers.CLIENT)) as load:
            load.measure()


FAMILY = """
import os, sys, time

def burn(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

def child(seconds, then=lambda: None):
    pid = os.fork()
    if pid == 0:
        burn(seconds)
        then()
        os._exit(0)
    return pid

def grandchild():
    os.waitpid(child(0.2), 0)

def stay():
    print("burnt", flush=True)
    sys.stdin.read()

burn(0.2)
os.waitpid(child(0.2, grandchild), 0)   # ended and waited for, with a child of its own
zombie = child(0.2)
child(0.2, stay)                        # alive
os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)  # ended, not waited for
sys.stdin.read()
"""


def test_cpu_of_a_family_is_counted_once(procs):
    """Five times 0.2 s of CPU: of the root, of a child and a grandchild that are gone, of a zombie, of one alive, each
    exactly once. Those that are gone are known to 10 ms, and starting Python costs some."""
    root = procs.spawn_pipes([sys.executable, "-c", FAMILY])
    assert root.stdout.readline() == b"burnt\n"
    used = measure.calm(root.pid)
    assert 1.0 - 0.03 <= used < 1.0 + 0.15, used


def test_the_document_keeps_what_people_wrote(folder):
    """A new run replaces figures, and nothing between the two marks."""
    path = os.path.join(folder, "benchmarks.md")
    results = Results({("relayd", "logins_per_second"): [900, 1000, 1100], ("sshd", "logins_per_second"): [50, 50, 50]})
    text = report.document(path, results, groups.FULL, [("date", "today")])
    assert "1,000 (900–1,100) | 50.0 | 20.00" in text
    end = report.KEPT.format("end")
    assert text.count(end) == 1
    with open(path, "w") as f:
        f.write(text.replace(end, "Why a goal is missed.\n\n" + end))
    again = report.document(path, Results({}), groups.FULL, [("date", "tomorrow")])
    assert "Why a goal is missed." in again and "today" not in again and "1,000 (900" not in again


def test_help():
    """The program itself starts."""
    done = subprocess.run([os.path.join(TOP, "tests", "bench", "run"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--only" in done.stdout
