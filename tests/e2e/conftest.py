"""Fixtures of the end-to-end tests. `make_relay(rekey_limit="1M")` starts a relayd with options; `relay` is a plain one."""

import contextlib
import fcntl
import os
import random
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import keys as keylib  # noqa: E402
import relay as relaylib  # noqa: E402
from net import Net  # noqa: E402
from procs import Procs  # noqa: E402
from sshd import Sshd  # noqa: E402


# The benchmarks judge nothing, and what they run beside relayd is not for the sanitizers.
collect_ignore = ["test_bench.py"] if relaylib.sanitized() else []


def pytest_configure(config):
    config.addinivalue_line("markers", "alone: no other test runs meanwhile, because it measures what relayd promises")


@contextlib.contextmanager
def locked(name, how):
    """Across all workers, and all runs of the tests on this machine."""
    with open(os.path.join(tempfile.gettempdir(), f"relayd-tests-{os.getuid()}.{name}"), "w") as file:
        fcntl.flock(file, how)
        yield


@pytest.fixture(autouse=True)
def room(request):
    """Shared by all tests but those that are marked: each of these waits for the others, and keeps new ones at the door."""
    with contextlib.ExitStack() as held:
        with locked("door", fcntl.LOCK_EX):
            alone = request.node.get_closest_marker("alone") is not None
            held.enter_context(locked("room", fcntl.LOCK_EX if alone else fcntl.LOCK_SH))
        yield


@pytest.fixture(scope="session")
def key_pool():
    folder = tempfile.mkdtemp(prefix="rk-", dir="/tmp")
    yield keylib.KeyPool(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def keys(key_pool):
    return keylib.Keys(key_pool)


@pytest.fixture
def chance():
    """A random.Random; RELAYD_TEST_SEED is its seed, which is printed."""
    seed = int(os.environ.get("RELAYD_TEST_SEED", "1"))
    print(f"RELAYD_TEST_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def folder():
    """A folder with a path short enough for UNIX sockets."""
    path = tempfile.mkdtemp(prefix="rt-", dir="/tmp")
    os.chmod(path, 0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def procs(folder):
    """Starts programs; all of them, and what they left behind, are killed at the end."""
    tracked = Procs(folder)
    yield tracked
    tracked.kill()


@pytest.fixture
def net():
    services = Net()
    yield services
    services.close()


@pytest.fixture
def make_relay(request, folder, procs, keys):
    """Starts relayds; at the end all clients are killed first, then each relayd must stop cleanly."""
    made = []
    request.node.relays = made

    def make(**options):
        place = os.path.join(folder, f"r{len(made)}")
        os.mkdir(place)
        relay = relaylib.Relay(procs, place, keys, start=False, **options)
        made.append(relay)
        relay.start()
        return relay

    yield make
    for proc in procs.all:
        proc.kill()
    for relay in made:
        if relay.popen is not None:
            relay.stop()


@pytest.fixture
def relay(make_relay):
    return make_relay()


@pytest.fixture
def raspi(relay):
    return relay.add_device("raspi")


@pytest.fixture
def alice(relay):
    return relay.add_client("alice")


@pytest.fixture
def make_sshd(procs, folder, net):
    """make_sshd(authorized=[public key files]) starts a real sshd on loopback."""

    def make(authorized, port=None, **options):
        return Sshd(procs, folder, port or net.free_port(), authorized, **options)

    return make


def pytest_collection_modifyitems(items):
    """First those that run alone, so that they need not wait; then the longest, for which the others would wait."""
    items.sort(key=lambda item: (item.get_closest_marker("alone") is None, "test_soak" not in item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hands tests out in that order, as many at a time as a worker needs. By default one worker would get all those that run
    alone, and the longest behind them, while the others run what these have to wait for."""
    from xdist.scheduler import LoadScheduling

    class InOrder(LoadScheduling):
        def _send_tests(self, node, num):
            super()._send_tests(node, max(0, min(num, 2 - len(self.node2pending[node]))))

    return InOrder(config, log) if config.getvalue("dist") == "load" else None


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if not report.failed:
        return
    for number, relay in enumerate(getattr(item, "relays", [])):
        report.sections.append((f"relayd {number} log", "\n".join(relay.lines[-200:])))
    procs = getattr(item, "funcargs", {}).get("procs")
    for proc in procs.all[-20:] if procs else []:
        try:
            text = proc.err()
        except OSError:
            continue
        if text:
            report.sections.append((f"stderr of {' '.join(proc.argv)}", text[-3000:]))
