"""The configuration is read again while relayd runs: all of it or nothing, and no session notices."""

import os
import signal
import time

import pytest
from control import refused
from hostile import OPEN_FAILURE, attach  # noqa: F401
from procs import SLOW, until


class File:
    """A relayd.conf and the relayd that was started with it."""

    def __init__(self, make_relay, folder, text="", **options):
        self.path = os.path.join(folder, "relayd.conf")
        self.write(text)
        self.relay = make_relay(args=["--config", self.path], **options)

    def write(self, text):
        """All at once, as an editor does."""
        with open(self.path + ".new", "w") as f:
            f.write("[relayd]\n" + text)
        os.rename(self.path + ".new", self.path)

    def reload(self, text=None):
        if text is not None:
            self.write(text)
        return self.relay.ctl("reload")


@pytest.fixture
def conf(make_relay, folder):
    return lambda text="", **options: File(make_relay, folder, text, **options)


def seconds_to_log_in(relay, net):
    """How long a silent peer is waited for."""
    started = time.monotonic()
    sock = net.connect(relay.port)
    while sock.recv(4096):
        pass
    return time.monotonic() - started


def test_sighup_changes_what_can_change_and_names_it(conf, net):
    file = conf("login-grace = 30s\n")
    relay, since = file.relay, file.relay.mark()
    file.write("login-grace = 300ms\nlog-level = debug\n")
    relay.popen.send_signal(signal.SIGHUP)
    relay.wait_log("info changed now: log-level login-grace$", since)
    assert seconds_to_log_in(relay, net) < 20 * SLOW
    relay.wait_log("debug session=.* login -> dead", since)


def test_log_format_changes_from_one_line_to_the_next(conf):
    file = conf()
    since = file.relay.mark()
    file.reload("log-format = json\n")
    file.relay.wait_log(r'^{"time":.*"message":"changed now: log-format"}$', since)


def test_an_open_timeout_holds_for_the_next_open_of_sessions_that_are_up(conf, attach):  # noqa: F811
    file = conf("open-timeout = 60s\n")
    device, client = (attach(p) for p in (file.relay.add_device("eve"), file.relay.add_client("mallet")))
    assert device.publish(b"eve", 1) == 1
    old = client.direct(b"eve", 1)
    device.incoming()
    file.reload("open-timeout = 200ms\n")
    assert client.connect(b"eve", 1) is None  # though the device does not answer
    device.confirm(device.incoming())
    assert not [body for body in client.seen(OPEN_FAILURE) if int.from_bytes(body[:4], "big") == old]


def test_relayctl_says_what_changed_and_what_needs_a_restart(conf):
    file = conf("workers = 2\n")
    assert file.reload() == {"status": "reloaded", "changed": [], "restart": []}
    done = file.reload("workers = 3\nuser = root\npublic-address = relay.example.net:22\n")
    assert done == {"status": "reloaded", "changed": ["public-address"], "restart": ["user", "workers"]}
    assert file.relay.ctl("host-key")["known_hosts"].startswith("relay.example.net ssh-ed25519 ")
    assert file.relay.ctl("status")["workers"] == 2
    file.relay.wait_log("changed at the next start only: user workers$")
    done = file.reload("workers = 2\n")
    assert done == {"status": "reloaded", "changed": ["public-address"], "restart": []}
    file.write("workers = 3\nlogin-grace = 7s\n")
    said = file.relay.ctl("reload", json=False)
    assert said == "reloaded; changed now: login-grace; at the next start: workers\n"


@pytest.mark.parametrize("line, says", [
    ("login-grace = soon", [":3: ", "login-grace = soon", "expected a duration"]),
    ("colour = red", [":3: ", 'unknown key "colour"']),
    ("log-level = debug", [":3: ", "log-level stands there twice"]),
    ("nonsense", [":3: ", "expected KEY = VALUE"]),
], ids=["value", "key", "twice", "line"])
def test_a_bad_file_changes_nothing_and_says_why(line, says, conf):
    file = conf("log-level = info\n")
    relay, since = file.relay, file.relay.mark()
    file.write(f"log-level = debug\n{line}\npublic-address = relay.example.net\n")
    message = refused(relay, "bad_config", "reload", says=[file.path, *says])
    relay.wait_log(f"error the configuration stays as it was: {file.path}:3: ", since)
    relay.popen.send_signal(signal.SIGHUP)
    until(lambda: len(relay.logged("error the configuration stays as it was", since)) == 2, what="the answer to SIGHUP")
    assert not relay.logged(" debug |was read again", since), message
    assert not relay.ctl("host-key")["known_hosts"].startswith("relay.example.net")
    assert file.reload("log-level = info\n")["changed"] == []


def test_a_file_that_cannot_be_read_changes_nothing(conf):
    file = conf("public-address = relay.example.net\n")
    os.unlink(file.path)
    refused(file.relay, "bad_config", "reload", says=[file.path, "No such file"])
    os.mkfifo(file.path)  # to open it would wait for a writer
    refused(file.relay, "bad_config", "reload", says=[file.path, "not a plain file"])
    assert file.relay.ctl("host-key")["known_hosts"].startswith("relay.example.net ")


def test_options_win_over_a_file_that_is_read_again(conf, net):
    file = conf("login-grace = 30s\n", login_grace="300ms")
    assert file.reload("login-grace = 1h\n")["changed"] == []
    assert seconds_to_log_in(file.relay, net) < 20 * SLOW


def test_without_a_file_there_is_nothing_to_change(relay):
    assert relay.ctl("reload") == {"status": "reloaded", "changed": [], "restart": []}


def test_reloads_without_end_disturb_nobody(conf, net, attach):  # noqa: F811
    """Each session reads the configuration while it is swapped."""
    file = conf()
    relay = file.relay
    device = relay.add_device("good").publish(f"7:localhost:{net.echo().port}", expect="good:7")
    client = relay.add_client("goody")
    reloads = int(200 / SLOW)
    for n in range(reloads):
        file.write(f"open-timeout = {5 + n % 2}s\nlogin-grace = {20 + n % 2}s\n")
        relay.popen.send_signal(signal.SIGHUP)
        if n % 20 == 0:
            assert client.through_W("good:7").finish(b"hello") == (0, b"hello")
            assert relay.ctl("reload")["status"] == "reloaded"
    assert device.running
    relay.popen.send_signal(signal.SIGHUP)
    assert relay.ctl("status")["sessions"] == 1
