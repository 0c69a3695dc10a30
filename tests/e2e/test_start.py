"""How relayd starts, and how it says that it cannot."""

import json
import os
import pwd
import re
import shutil
import socket
import sqlite3
import stat
import subprocess

import paramiko
import pytest
from control import ControlSocket
from procs import SLOW
from relay import RELAYD, Relay

NOBODY = pwd.getpwnam("nobody")


class Place:
    """Where one relayd may live."""

    def __init__(self, folder, name="place"):
        self.folder = os.path.join(folder, name)
        os.mkdir(self.folder)
        os.chmod(self.folder, 0o755)
        self.state = os.path.join(self.folder, "state")
        os.mkdir(self.state, 0o700)
        self.socket = os.path.join(self.folder, "sock")
        self.config = os.path.join(self.folder, "relayd.conf")

    def argv(self, **options):
        options = {"listen": "127.0.0.1:0", "state_dir": self.state, "control_socket": self.socket, **options}
        argv = [RELAYD]
        for key, value in options.items():
            if value is not None:
                argv += ["--" + key.replace("_", "-"), value]
        return argv


@pytest.fixture
def place(folder):
    return Place(folder)


def run(argv, **options):
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20 * SLOW, **options)


def fails(argv, *says, **options):
    """relayd must end by itself, not by a signal, and end its stderr with one line that has these words."""
    done = run(argv, **options)
    assert 0 < done.returncode < 128, done
    assert not re.search(r" ready$", done.stderr, re.M)
    complaints = [line for line in done.stderr.splitlines() if re.match(r"(\S*/)?relayd: |\S+ error ", line)]
    assert len(complaints) == 1 and done.stderr.splitlines()[-1] == complaints[0], done.stderr
    for word in says:
        assert word in complaints[0], (word, complaints[0])
    return complaints[0]


# ---- the configuration


@pytest.mark.parametrize("line,says", [
    ("listne = 127.0.0.1:0", ["listne"]), ("login-grace = soon", ["login-grace", "soon", "30s"]),
    ("login-grace = -1s", ["login-grace", "30s"]), ("login-grace =", ["login-grace", "30s"]),
    ("workers = many", ["workers", "number"]), ("workers = 1000", ["workers", "256"]),
    ("log-level = loud", ["loud", "debug"]), ("log-format = xml", ["xml", "json"]),
    ("rekey-limit = 1X", ["rekey-limit", "2M"]), ("listen = here", ["here", "ADDR:PORT"]),
    ("listen = 127.0.0.1", ["ADDR:PORT"]), ("listen = 127.0.0.1:70000", ["ADDR:PORT"]),
    ("listen = host.example:22", ["ADDR:PORT"]), ("state-dir =", ["state-dir", "path"]),
    ("what is this", ["KEY = VALUE"]), ("[other]", None), ("[relayd", ["[relayd]"]),
    ("login-grace = 99999999999999999999s", ["login-grace"]), ("user = LONG", ["too long"]),
    ("\x1b[31m = 1", ["\\x1b"])])
def test_a_bad_line_is_named_by_file_line_and_what_was_expected(line, says, place):
    with open(place.config, "w") as f:
        line = line.replace("LONG", "x" * 300)
        f.write(f"# a comment\n[relayd]\ndrain-timeout = 3s\n{line}\ndead-peer-timeout = 45s\n")
    number = 5 if says is None else 4  # a key is judged where it stands
    for argv in (place.argv(config=place.config), [RELAYD, "--check-config", "--config", place.config]):
        fails(argv, f"{place.config}:{number}: ", *(says or ["other", "[relayd]"]))
    assert os.listdir(place.state) == [], "it began to work before it knew the configuration"


def test_a_key_twice_or_outside_the_section_is_refused(place):
    with open(place.config, "w") as f:
        f.write("[relayd]\nworkers = 1\nworkers = 2\n")
    fails([RELAYD, "--check-config", "--config", place.config], f"{place.config}:3: ", "workers")
    with open(place.config, "w") as f:
        f.write("workers = 1\n")
    fails([RELAYD, "--check-config", "--config", place.config], f"{place.config}:1: ", "[relayd]")


def test_a_config_file_that_cannot_be_read_is_named(place):
    fails(place.argv(config=place.config), place.config, "No such file")
    fails(place.argv(config=place.folder), place.folder)


@pytest.mark.parametrize("args,says", [
    (["--nosuch"], ["--nosuch"]), (["--login-grace", "soon"], ["--login-grace", "soon", "30s"]),
    (["--login-grace"], ["login-grace"]), (["--workers", "-1"], ["--workers"]), (["extra"], ["extra"]),
    (["--listen", "nowhere"], ["ADDR:PORT"]), (["-x"], ["x"])])
def test_a_bad_option_is_named(args, says, place):
    fails(place.argv() + args, *says)
    fails([RELAYD, "--check-config", *args], *says)


def test_check_config_says_nothing_of_a_good_one_and_starts_nothing(place):
    with open(place.config, "w") as f:
        f.write(f"""; every key
[relayd]
listen = 127.0.0.1:0
listen = [::1]:0
state-dir = {place.state}
control-socket = {place.socket}
workers = 2
user =
log-level = debug
log-format = json
login-grace = 5s
open-timeout = 500ms
drain-timeout = 1m
dead-peer-timeout = 1h
rekey-limit = 64K
public-address = relay.example.net:2222
""")
    done = run([RELAYD, "--check-config", "--config", place.config])
    assert done.returncode == 0 and "error" not in done.stderr, done
    assert os.listdir(place.state) == [] and not os.path.exists(place.socket)


def test_an_option_wins_over_the_file(procs, place):
    with open(place.config, "w") as f:
        f.write("[relayd]\nlisten = 127.0.0.1:1\nlisten = 127.0.0.1:2\nlog-format = json\nlog-level = error\n")
    daemon = procs.spawn(place.argv(config=place.config, log_format="text", log_level="info"))
    daemon.wait_err(r"^\S+ info ready$")
    ports = re.findall(r"listening on 127\.0\.0\.1:(\d+)$", daemon.err(), re.M)
    assert len(ports) == 1 and ports[0] not in ("1", "2")
    assert daemon.stop() == 0


def test_version_and_help():
    done = run([RELAYD, "--version"])
    assert done.returncode == 0 and re.match(r"relayd \d+\.\d+", done.stdout)
    assert re.search(r"libssh (0\.1[2-9]|[1-9])\S*", done.stdout), done.stdout
    done = run([RELAYD, "--help"])
    assert done.returncode == 0
    for key in ("config", "listen", "state-dir", "control-socket", "workers", "user", "log-level", "log-format",
                "login-grace", "open-timeout", "drain-timeout", "dead-peer-timeout", "rekey-limit", "public-address",
                "check-config", "version"):
        assert f"--{key}" in done.stdout


# ---- what stands in the way


def test_a_port_in_use_is_named(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = "127.0.0.1:%d" % taken.getsockname()[1]
        fails(place.argv(listen=address), address, "in use")
    assert not os.path.exists(place.socket)


def test_an_address_that_is_not_ours_is_named(place):
    fails(place.argv(listen="192.0.2.1:2222"), "192.0.2.1:2222")


def test_a_socket_path_that_is_taken_is_left_alone(relay, place):
    fails(place.argv(control_socket=relay.socket), relay.socket)
    assert relay.ctl("status")["store"] == "ok"


def test_a_stale_socket_is_replaced(relay):
    relay.kill9()
    assert os.path.exists(relay.socket)
    relay.start()
    assert relay.ctl("status")["store"] == "ok"


def test_a_file_at_the_sockets_path_is_not_removed(place):
    with open(place.socket, "w") as f:
        f.write("precious")
    fails(place.argv(), place.socket)
    with open(place.socket) as f:
        assert f.read() == "precious"


def test_a_socket_path_that_cannot_be_made_is_named(place):
    fails(place.argv(control_socket=place.folder + "/no/such/sock"), place.folder + "/no/such")
    fails(place.argv(control_socket="/" + "s" * 150), "s" * 150)


def test_a_state_directory_that_is_none_is_named(place):
    path = os.path.join(place.folder, "file")
    with open(path, "w"):
        pass
    fails(place.argv(state_dir=path), path)
    fails(place.argv(state_dir=path + "/below"), path + "/below")
    fails(place.argv(state_dir="/proc/relayd"), "/proc/relayd")


def test_a_state_directory_that_cannot_be_written_is_named(place):
    program = shutil.copy(RELAYD, place.folder)  # where nobody may run it
    os.chmod(program, 0o755)
    os.chmod(place.state, 0o555)
    run_dir = os.path.join(place.folder, "run")
    os.mkdir(run_dir)
    os.chown(run_dir, NOBODY.pw_uid, NOBODY.pw_gid)
    argv = [program, *place.argv(control_socket=run_dir + "/sock")[1:]]
    fails(argv, place.state, user=NOBODY.pw_uid, group=NOBODY.pw_gid, extra_groups=[])


def test_two_relayds_do_not_share_a_state_directory(relay, place):
    fails(place.argv(state_dir=relay.state), relay.state)
    relay.add_client("alice")
    assert relay.ctl("status")["store"] == "ok"
    relay.kill9()
    relay.start()  # the lock of a dead one holds up nobody
    assert [row["name"] for row in relay.list("clients")] == ["alice"]


def test_a_database_of_a_newer_schema_is_refused_and_left_alone(relay, place):
    relay.stop()
    path = os.path.join(relay.state, "relayd.db")
    with sqlite3.connect(path) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        db.execute("PRAGMA user_version = 9999")
    fails(place.argv(state_dir=relay.state), path, "newer", "9999")
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (9999,)
        db.execute(f"PRAGMA user_version = {version}")
    relay.start()


def test_a_damaged_database_is_refused_and_left_alone(place):
    path = os.path.join(place.state, "relayd.db")
    garbage = b"this is not a database\n" * 1000
    with open(path, "wb") as f:
        f.write(garbage)
    fails(place.argv(), path)
    with open(path, "rb") as f:
        assert f.read() == garbage


def test_an_empty_database_file_is_filled(procs, place):
    with open(os.path.join(place.state, "relayd.db"), "wb"):
        pass
    daemon = procs.spawn(place.argv())
    daemon.wait_err(" ready$")
    with ControlSocket(place.socket) as control:
        assert [row["name"] for row in control.call("list tenants")["result"]] == ["default"]


def test_an_unknown_user_is_named(place):
    fails(place.argv(user="no-such-user"), "no-such-user")


# ---- the host key


def key_fingerprint(path):
    return subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout.split()[1]


def test_the_host_key_is_made_once_for_its_owner_alone(relay):
    path = os.path.join(relay.state, "ssh_host_ed25519_key")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    printed = relay.wait_log(r"host key (SHA256:\S+) (\S+)$")
    assert printed[1] == key_fingerprint(path + ".pub") and printed[2] == path
    with open(path) as f:
        key = f.read()
    assert key.startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    for kill in (False, True):
        since = relay.mark()
        relay.restart(kill)
        assert relay.wait_log(r"host key (SHA256:\S+) ", since)[1] == printed[1]
        with open(path) as f:
            assert f.read() == key
    assert {stat.S_IMODE(os.stat(os.path.join(relay.state, name)).st_mode) & 0o007 for name in os.listdir(relay.state)
            if not name.endswith(".pub")} == {0}, "others may read something"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_host_key_that_others_may_read_is_refused(mode, relay, place):
    relay.stop()
    path = os.path.join(relay.state, "ssh_host_ed25519_key")
    os.chmod(path, mode)
    fails(place.argv(state_dir=relay.state), path, "chmod 600")
    os.chmod(path, 0o600)
    relay.start()


def test_a_damaged_host_key_is_refused_and_left_alone(place):
    path = os.path.join(place.state, "ssh_host_ed25519_key")
    with open(path, "w") as f:
        f.write("not a key\n")
    os.chmod(path, 0o600)
    fails(place.argv(), path)
    with open(path) as f:
        assert f.read() == "not a key\n"


# ---- addresses, users, formats


def test_ipv6_and_several_addresses(procs, folder, keys):
    relay = Relay(procs, folder, keys, start=False)
    relay.listen = ["127.0.0.1:0", "[::1]:0", "127.0.0.2:0", "127.0.0.1:0"]
    relay.start()
    listening = [re.search(r"listening on (\S+)$", line)[1] for line in relay.logged("listening on ")]
    assert [address.rpartition(":")[0] for address in listening] == ["127.0.0.1", "[::1]", "127.0.0.2", "127.0.0.1"]
    assert len(set(listening)) == 4
    alice = relay.add_client("alice")
    for address in listening:
        host, _, port = address.rpartition(":")
        done = alice.run("-o", f"HostName={host.strip('[]')}", "-p", port, command=["whoami"])
        assert b"alice" in done.stdout, (address, done.stderr)
    relay.wait_log(r"principal=alice session=\d+ logged in as client from ::1 port \d+")
    relay.stop()


def test_root_is_dropped_for_the_configured_user(procs, folder, keys):
    relay = Relay(procs, folder, keys, start=False, user="nobody")
    relay.socket = os.path.join(relay.state, "ctl.sock")
    os.chown(relay.state, NOBODY.pw_uid, NOBODY.pw_gid)
    relay.start()
    with open(f"/proc/{relay.pid}/status") as f:
        status = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
    assert status["Uid"].split() == [str(NOBODY.pw_uid)] * 4
    assert status["Gid"].split() == [str(NOBODY.pw_gid)] * 4
    assert "0" not in status["Groups"].split()
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    tasks = os.listdir(f"/proc/{relay.pid}/task")
    assert len(tasks) > 2
    for task in tasks:
        assert os.stat(f"/proc/{relay.pid}/task/{task}").st_uid == NOBODY.pw_uid
    owners = {name: os.lstat(os.path.join(relay.state, name)).st_uid for name in os.listdir(relay.state)}
    assert {"relayd.db", "ssh_host_ed25519_key"} <= set(owners)
    owners.pop("ctl.sock")  # its group and mode decide who may use it, not its owner
    assert set(owners.values()) == {NOBODY.pw_uid}, owners
    alice = relay.add_client("alice")
    assert b"alice" in alice.run(command=["whoami"]).stdout
    relay.restart()
    assert b"alice" in alice.run(command=["whoami"]).stdout
    relay.stop()


def test_the_log_as_json(procs, place, keys):
    daemon = procs.spawn(place.argv(log_format="json"))
    daemon.wait_err('"message":"ready"')
    port = int(re.search(r"listening on 127\.0\.0\.1:(\d+)", daemon.err())[1])
    transport = paramiko.Transport(("127.0.0.1", port))
    transport.start_client(timeout=20 * SLOW)
    with pytest.raises(paramiko.AuthenticationException):
        transport.auth_publickey('we"ird\t\x1b', paramiko.Ed25519Key.from_private_key_file(keys.new()))
    daemon.wait_err("unknown_key")
    transport.close()
    assert daemon.stop() == 0
    rows = [json.loads(line) for line in daemon.err().splitlines()]
    for row in rows:
        assert re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", row["time"]) and row["level"] in ("info", "warn")
    (row,) = [row for row in rows if "unknown_key" in row["message"]]
    assert row["level"] == "warn" and row["session"] >= 1
    assert row["message"].startswith('refused login "we\\x22ird\\x09\\x1b@127.0.0.1 SHA256:')
