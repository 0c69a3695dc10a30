"""The control socket as programs see it, and what a refused relayctl must look like."""

import json
import socket

from procs import SLOW


def refused(relay, code, *args, says=(), input=None):
    """relayctl ARGS must be refused by relayd with this code and a sentence that has these words; returns it."""
    done = relay.ctl(*args, check=False, input=input)
    assert done.returncode == 1, (args, done.returncode, done.stdout, done.stderr)
    assert done.json is not None and set(done.json) == {"error"}, done.stdout
    error = done.json["error"]
    assert error["code"] == code, error
    assert done.stderr.startswith("relayctl: ") and error["message"] in done.stderr, (error, done.stderr)
    for word in [says] if isinstance(says, str) else says:
        assert word in error["message"], (word, error["message"])
    return error["message"]


class ControlSocket:
    """A connection to the control socket, byte by byte."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20 * SLOW)
        self.sock.connect(path)
        self.buffer = b""

    def send(self, data):
        """False if relayd has closed the connection."""
        try:
            self.sock.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def request(self, cmd, args=None, id=1, **fields):
        return self.send(json.dumps({"v": 1, "id": id, "cmd": cmd, "args": args or {}, **fields}).encode() + b"\n")

    def answer(self):
        """The next answer, or None at the end of the connection."""
        while b"\n" not in self.buffer:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                assert self.buffer == b"", f"half a line: {self.buffer!r}"
                return None
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def call(self, cmd, args=None, id=1, **fields):
        self.request(cmd, args, id, **fields)
        return self.answer()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
