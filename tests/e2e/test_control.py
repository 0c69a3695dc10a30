"""The control socket against bad input, and relayctl's exit codes."""

import json
import os
import random
import socket
import stat
import subprocess
import threading

import pytest
from control import ControlSocket
from procs import SLOW, until
from relay import RELAYCTL, sanitized


def rejected(answer, code="bad_request", id=None):
    """The answer must be an error object of PROTOCOL.md and nothing else."""
    assert set(answer) == {"id", "ok", "error"} and answer["ok"] is False, answer
    assert set(answer["error"]) == {"code", "message"}, answer
    assert answer["error"]["code"] == code and len(answer["error"]["message"]) > 10, answer
    assert id is None or answer["id"] == id, answer
    return answer["error"]["message"]


def lives(relay):
    status = relay.ctl("status")
    assert status["store"] == "ok" and relay.running


MALFORMED = [
    b"{", b"}", b"[]", b"null", b"true", b"1", b'"status"', b"{}", b"status", b"{'v':1}", b'{"v":1,}', b'{"v":1} x',
    b'{"v":1,"id":1,"cmd":"status","cmd":"status"}', b'{"v":1,"id":1,"cmd":"st\xff\xfe"}',
    b'{"v":1,"id":1,"cmd":"a\x01"}', b'{"v":1,"id":1,"cmd":"\\ud800"}', b'{"v":1,"id":1,"cmd":"status\\u0000"}',
    b'{"v":1,"id":1e999,"cmd":"status"}', b'{"v":1,"id":99999999999999999999,"cmd":"status"}',
    b'{"v":1,"id":1,"cmd":"status"', b"\xef\xbb\xbf{}", b"GET / HTTP/1.1", b'{"v":1,"id":"1","cmd":"status"}',
    b'{"v":1,"cmd":"status"}', b'{"v":1,"id":1}', b'{"v":1,"id":1,"cmd":7}', b'{"v":1,"id":1,"cmd":null}',
    b'{"v":1,"id":1,"cmd":"status","args":[]}', b'{"v":1,"id":1,"cmd":"status","args":"x"}',
    b'{"v":1,"id":1,"cmd":"status","tenant":5}', b'{"v":1,"id":1.5,"cmd":"status"}',
    b'{"v":true,"id":1,"cmd":"status"}']


def test_malformed_requests_get_an_error_object(relay):
    for line in MALFORMED:
        with ControlSocket(relay.socket) as control:
            control.send(line + b"\n")
            answer = control.answer()
            assert answer is not None, f"no answer to {line}"
            rejected(answer)
    lives(relay)


def test_an_error_leaves_the_connection_usable(relay):
    with ControlSocket(relay.socket) as control:
        for line in MALFORMED:
            control.send(line + b"\n")
            rejected(control.answer())
            answer = control.call("status", id=77)
            assert answer["ok"] is True and answer["id"] == 77 and answer["result"]["store"] == "ok"


@pytest.mark.parametrize("version", [0, 2, -1, "1", None, 1.0, [1]])
def test_another_version_is_refused_by_name(version, relay):
    with ControlSocket(relay.socket) as control:
        control.send(json.dumps({"v": version, "id": 5, "cmd": "status", "args": {}}).encode() + b"\n")
        assert "version 1" in rejected(control.answer(), id=5)
        assert control.call("status")["ok"] is True


@pytest.mark.parametrize("command", [
    "", "nosuch", "STATUS", "status ", "list", "list nosuch", "whoami", "ls", "help", "add_client", "x" * 60000,
    "status\n", "; status", "../status"])
def test_unknown_commands_get_an_error_object(command, relay):
    with ControlSocket(relay.socket) as control:
        rejected(control.call(command, id=9), "unknown_command", 9)
        assert control.call("status")["ok"] is True


@pytest.mark.parametrize("cmd,args", [
    ("add-tenant", {}), ("add-tenant", {"name": 5}), ("add-tenant", {"name": None}), ("add-tenant", {"name": ["x"]}),
    ("add-tenant", {"name": {"x": 1}}), ("add-tenant", {"name": True}), ("add-tenant", {"name": "x", "extra": "y"}),
    ("add-tenant", {"name": "x" * 20000}), ("add-client", {"key": 1}), ("add-client", {"name": "x"}),
    ("add-client", {"key": "k", "allow": "x"}), ("add-client", {"key": "k", "allow": [1]}),
    ("add-client", {"key": "k", "allow": {"0": "x"}}), ("add-client", {"key": "k", "allow": ["x"] * 300}),
    ("add-client", {"key": "k", "expires": 1}), ("allow", {"name": "x"}), ("status", {"x": "y"}),
    ("show", {"NAME": "x"}), ("disconnect", {"session": 1}), ("list devices", {"name": "x"}),
    ("remove-key", {"name": "x", "fingerprint": []})])
def test_wrong_arguments_are_refused(cmd, args, relay):
    with ControlSocket(relay.socket) as control:
        rejected(control.call(cmd, args, id=3), "bad_argument", 3)
        assert control.call("list tenants")["result"][0]["name"] == "default"
    assert [row["name"] for row in relay.list("tenants")] == ["default"]


@pytest.mark.parametrize("tenant", [
    "nosuch", "", "DEFAULT", "default.", "x" * 10000, "default'; DROP TABLE tenants; --"])
def test_an_unknown_tenant_is_an_error(tenant, relay):
    with ControlSocket(relay.socket) as control:
        rejected(control.call("list devices", tenant=tenant), "not_found")
        assert control.call("list devices", tenant="default")["ok"] is True


@pytest.mark.parametrize("line", [
    b"[" * 60000, b"[" * 30000 + b"]" * 30000, b'{"a":' * 10000 + b"1" + b"}" * 10000,
    b'{"v":1,"id":1,"cmd":"status","args":' + b'{"a":' * 9000 + b"1" + b"}" * 9001])
def test_deep_nesting_is_refused(line, relay):
    with ControlSocket(relay.socket) as control:
        control.send(line + b"\n")
        answer = control.answer()
        assert answer["ok"] is False and answer["error"]["code"] in ("bad_request", "bad_argument")
    lives(relay)


@pytest.mark.parametrize("piece", [b"x", b'{"v":1,"id":1,"cmd":"', b"\0", b" "], ids=["text", "json", "nul", "blank"])
def test_a_line_without_end_is_cut_off(piece, relay):
    before = relay.rss()
    for _ in range(8):
        with ControlSocket(relay.socket) as control:
            control.sock.settimeout(5 * SLOW)
            control.send(piece + b"x" * (1 << 20))  # must not hang, whether all of it is read or not
            answer = control.answer()
            if answer is not None:
                rejected(answer)
                assert control.answer() is None, "the connection was not closed"
    lives(relay)
    assert sanitized() or relay.rss() - before < 2048


def test_lines_without_end_do_not_use_up_the_connections(relay):
    fds = relay.fds()
    for _ in range(100):
        with ControlSocket(relay.socket) as control:
            control.send(b"x" * 70000)
            answer = control.answer()
            assert answer is None or rejected(answer)
    until(lambda: relay.fds() <= fds, what="the connections closed")
    lives(relay)


def test_an_oversized_line_with_an_end_is_an_error(relay):
    with ControlSocket(relay.socket) as control:
        control.send(json.dumps({"v": 1, "id": 1, "cmd": "add-tenant", "args": {"name": "x" * 70000}}).encode() + b"\n")
        answer = control.answer()
        assert answer is None or rejected(answer, answer["error"]["code"])
    lives(relay)
    assert [row["name"] for row in relay.list("tenants")] == ["default"]


def test_binary_garbage_does_no_harm(relay):
    chance = random.Random(7)
    for size in (1, 2, 64, 1000, 60000):
        for _ in range(5):
            with ControlSocket(relay.socket) as control:
                control.send(chance.randbytes(size) + b"\n")
                while (answer := control.answer()) is not None:
                    rejected(answer)
                    control.sock.shutdown(socket.SHUT_WR)
                    break
    lives(relay)


def test_half_a_line_and_then_nothing_does_no_harm(relay):
    whole = json.dumps({"v": 1, "id": 1, "cmd": "add-tenant", "args": {"name": "half"}}).encode()
    fds = relay.fds()
    for cut in range(0, len(whole), 7):
        with ControlSocket(relay.socket) as control:
            control.send(whole[:cut])
    until(lambda: relay.fds() <= fds, what="the connections closed")
    lives(relay)
    assert [row["name"] for row in relay.list("tenants")] == ["default"], "half a request was obeyed"


def test_a_request_in_single_bytes_is_answered(relay):
    with ControlSocket(relay.socket) as control:
        for byte in b'{"v":1,"id":12,"cmd":"status","args":{}}\n':
            control.send(bytes([byte]))
        assert control.answer()["id"] == 12


def test_pipelined_requests_are_all_answered(relay):
    names = [f"t{i}" for i in range(100)]
    with ControlSocket(relay.socket) as control:
        for i, name in enumerate(names):
            control.request("add-tenant", {"name": name}, id=1000 + i)
            control.request("nosuch", id=2000 + i)
            control.send(b"garbage\n")
            control.request("host-key", id=3000 + i)
        answers = [control.answer() for _ in range(400)]
    by_id = {answer["id"]: answer for answer in answers}
    for i, name in enumerate(names):
        assert by_id[1000 + i]["result"] == {"status": "added", "name": name}
        rejected(by_id[2000 + i], "unknown_command")
        assert by_id[3000 + i]["ok"] is True
    assert sum(answer["id"] == 0 for answer in answers) == 100
    assert {row["name"] for row in relay.list("tenants")} == {"default", *names}


def test_requests_of_a_client_that_is_gone_do_no_harm(relay):
    fds = relay.fds()
    for _ in range(20):
        with ControlSocket(relay.socket) as control:
            for i in range(50):
                control.request("list tenants", id=i)
    until(lambda: relay.fds() <= fds, what="the connections closed")
    lives(relay)


def test_a_client_that_does_not_read_costs_no_memory(relay):
    for i in range(30):
        relay.add_tenant(f"{'t' * 50}{i}")
    before = relay.rss()
    with ControlSocket(relay.socket) as control:
        control.sock.settimeout(2 * SLOW)
        with pytest.raises(TimeoutError):  # its requests wait: relayd has stopped reading
            for i in range(30000):
                control.request("list tenants", id=i)
        lives(relay)
        assert sanitized() or relay.rss() - before < 8 * 1024


def test_many_connections_do_not_lock_the_socket_for_ever(relay):
    held = []
    for _ in range(300):
        try:
            held.append(ControlSocket(relay.socket))
        except (BlockingIOError, ConnectionRefusedError):
            break
    for control in held:
        control.close()
    until(lambda: relay.ctl("status", check=False).returncode == 0, what="relayctl served again")
    lives(relay)
    assert relay.fds() < 100


def test_changes_by_many_at_once_are_all_made(relay):
    results = []

    def add(i):
        with ControlSocket(relay.socket) as control:
            results.append(control.call("add-tenant", {"name": f"t{i % 10}"})["result"]["status"])

    threads = [threading.Thread(target=add, args=(i,)) for i in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == ["added"] * 10 + ["unchanged"] * 30


def test_the_socket_is_for_its_owner_and_group(relay):
    mode = os.stat(relay.socket).st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o660
    relay.stop()
    assert not os.path.exists(relay.socket), "the socket file stayed behind"


# ---- relayctl


def relayctl(*args, socket=None, env=None):
    argv = [RELAYCTL, *(["--control-socket", socket] if socket else []), *args]
    env = {key: value for key, value in os.environ.items() if key != "RELAYD_CONTROL_SOCKET"} | (env or {})
    return subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=20 * SLOW, env=env)


def test_exit_0_when_done(relay):
    for args in (["status"], ["list", "tenants"], ["add-tenant", "x"], ["host-key"], ["--help"]):
        done = relayctl(*args, socket=relay.socket)
        assert done.returncode == 0 and done.stdout.strip() and done.stderr == "", (args, done)


def test_exit_1_when_refused(relay):
    done = relayctl("show", "nosuch", socket=relay.socket)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("relayctl: ") and "nosuch" in done.stderr and done.stderr.count("\n") == 1
    done = relayctl("--json", "show", "nosuch", socket=relay.socket)
    assert done.returncode == 1 and json.loads(done.stdout)["error"]["code"] == "not_found"
    assert json.loads(done.stdout)["error"]["message"] in done.stderr


@pytest.mark.parametrize("args,words", [
    ([], ["add-device", "list", "status"]), (["nosuch"], ["nosuch", "add-device", "add-client", "list", "host-key"]),
    (["list"], ["tenants", "devices", "clients", "keys", "endpoints", "sessions", "bridges"]),
    (["list", "nosuch"], ["nosuch", "tenants", "devices", "clients", "keys", "endpoints", "sessions", "bridges"]),
    (["add-tenant"], ["NAME"]), (["add-tenant", "a", "b"], ["b"]), (["--nosuch", "status"], ["--nosuch"]),
    (["status", "--nosuch"], ["--nosuch"]), (["add-client", "--name"], ["--name"]), (["add-client"], ["KEY"]),
    (["allow", "raspi"], ["RULE"]), (["status", "--tenant"], ["--tenant"]), (["remove-key", "x"], ["FINGERPRINT"])])
def test_exit_2_on_usage_with_the_words_that_are_valid(args, words, relay):
    done = relayctl(*args, socket=relay.socket)
    assert (done.returncode, done.stdout) == (2, ""), done
    for word in words:
        assert word.lower() in done.stderr.lower(), (word, done.stderr)
    assert [row["name"] for row in relay.list("tenants")] == ["default"]


def test_usage_is_checked_without_a_relayd(folder):
    assert relayctl("nosuch", socket=os.path.join(folder, "none")).returncode == 2
    assert relayctl("--help").returncode == 0


def answering(path, reply):
    """A server at path that answers whoever connects with these bytes and closes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()

    def serve():
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            conn.recv(65536)
            conn.sendall(reply)
            conn.close()

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_exit_3_when_relayd_cannot_be_reached(folder):
    path = os.path.join(folder, "sock")
    for prepare in (lambda: None, lambda: socket.socket(socket.AF_UNIX).bind(path), lambda: os.replace(plain, path)):
        plain = os.path.join(folder, "plain")
        with open(plain, "w"):
            pass
        prepare()
        done = relayctl("status", socket=path)
        assert (done.returncode, done.stdout) == (3, ""), done
        assert done.stderr.startswith("relayctl: ") and path in done.stderr and done.stderr.count("\n") == 1
    assert relayctl("status", socket="/" + "x" * 200).returncode == 3


@pytest.mark.parametrize("reply", [
    b"", b"garbage\n", b"{}\n", b'{"id":1,"ok":true', b'{"id":1,"ok":false}\n', b"\0\n",
    b'{"id":1,"ok":false,"error":"x"}\n', b'{"id":2,"ok":7,"result":[]}\n', b"[" * 100000 + b"\n"])
def test_answers_that_are_not_relayds_are_an_error(reply, folder):
    path = os.path.join(folder, "sock")
    listener = answering(path, reply)
    for args in (["status"], ["list", "devices"], ["--json", "status"]):
        done = relayctl(*args, socket=path)
        assert done.returncode in (1, 3) and done.stderr.startswith("relayctl: "), (args, done)
    listener.close()


def test_control_characters_of_an_answer_do_not_reach_the_terminal(folder):
    path = os.path.join(folder, "sock")
    error = {"code": "x", "message": "a\x1b]0;b\x07c"}
    listener = answering(path, json.dumps({"id": 1, "ok": False, "error": error}).encode() + b"\n")
    done = relayctl("status", socket=path)
    assert done.returncode == 1 and "\x1b" not in done.stderr and "\x07" not in done.stderr
    listener.close()


def test_global_options_stand_anywhere_and_the_environment_names_the_socket(relay):
    relay.add_tenant("two")
    relay.add_client("alice", tenant="two")
    for args in (["--tenant", "two", "--json", "list", "clients"], ["list", "--json", "clients", "--tenant", "two"],
                 ["list", "clients", "--tenant", "two", "--json"]):
        done = relayctl(*args, env={"RELAYD_CONTROL_SOCKET": relay.socket})
        assert done.returncode == 0, done
        assert [row["name"] for row in json.loads(done.stdout)] == ["alice"]
    done = relayctl("status", "--control-socket", relay.socket, env={"RELAYD_CONTROL_SOCKET": "/nonexistent"})
    assert done.returncode == 0, "the option must win over the environment"
