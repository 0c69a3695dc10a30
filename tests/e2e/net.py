"""Local TCP services and sockets for the tests: every one on a free port, closed at teardown."""

import hashlib
import os
import socket
import struct
import threading

from procs import SLOW, until

BLOCK = hashlib.shake_256(b"relayd test data").digest(1 << 20)
CHUNK = 1 << 16


def pattern(size, seed=0):
    """`size` deterministic bytes, different for each seed."""
    shift = (seed * 7919) % len(BLOCK)
    unit = BLOCK[shift:] + BLOCK[:shift]
    whole, rest = divmod(size, len(unit))
    return unit * whole + unit[:rest]


def pattern_blocks(size, seed=0):
    """The same bytes as pattern(), in pieces of at most 1 MiB."""
    shift = (seed * 7919) % len(BLOCK)
    unit = BLOCK[shift:] + BLOCK[:shift]
    while size > 0:
        yield unit if size >= len(unit) else unit[:size]
        size -= len(unit)


def sha(data):
    return hashlib.sha256(data).hexdigest()


def pattern_sha(size, seed=0):
    digest = hashlib.sha256()
    for piece in pattern_blocks(size, seed):
        digest.update(piece)
    return digest.hexdigest()


def read_all(sock):
    """Bytes up to EOF."""
    parts = []
    while True:
        data = sock.recv(CHUNK)
        if not data:
            return b"".join(parts)
        parts.append(data)


def read_exact(sock, size):
    parts, left = [], size
    while left:
        data = sock.recv(min(left, CHUNK))
        if not data:
            raise AssertionError(f"EOF after {size - left} of {size} bytes")
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


def read_sha(sock, size=None):
    """(count, SHA-256) of what arrives up to EOF, or of `size` bytes."""
    digest, count = hashlib.sha256(), 0
    while size is None or count < size:
        data = sock.recv(CHUNK if size is None else min(CHUNK, size - count))
        if not data:
            break
        digest.update(data)
        count += len(data)
    return count, digest.hexdigest()


def echoes(sock, data=b"ping"):
    """One round trip; True if the bytes came back."""
    sock.sendall(data)
    return read_exact(sock, len(data)) == data


def connect(port, host="127.0.0.1", timeout=20):
    sock = socket.create_connection((host, port), timeout * SLOW)
    sock.settimeout(timeout * SLOW)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def listening_ports():
    """Set of (hex address, port) that anybody listens on in this network namespace."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as f:
                rows = f.read().splitlines()[1:]
        except FileNotFoundError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == "0A":
                addr, port = fields[1].split(":")
                found.add((addr, int(port, 16)))
    return found


def is_listening(port):
    return any(p == port for _, p in listening_ports())


class Server:
    """A TCP service that calls handler(sock, server) in a thread for each connection."""

    def __init__(self, handler, host="127.0.0.1", port=0, backlog=512):
        self.handler = handler
        self.results = []
        self.accepted = 0
        self.errors = []
        self._conns = set()
        self._lock = threading.Lock()
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((host, port))
        self.sock.listen(backlog)
        self.host, self.port = self.sock.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                conn, _ = self.sock.accept()
            except OSError:
                return
            with self._lock:
                self.accepted += 1
                self._conns.add(conn)
            conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(conn,), daemon=True).start()

    def _serve(self, conn):
        try:
            result = self.handler(conn, self)
            with self._lock:
                self.results.append(result)
        except (OSError, AssertionError) as e:
            self.errors.append(e)
        finally:
            with self._lock:
                self._conns.discard(conn)
            conn.close()

    def wait_results(self, count=1, timeout=20):
        """Wait until `count` handlers have returned; returns their results."""
        until(lambda: len(self.results) >= count, timeout,
              lambda: f"{count} finished connections, have {len(self.results)}; errors {self.errors}")
        return list(self.results)

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()
        with self._lock:
            for conn in self._conns:
                try:
                    conn.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class Net:
    """The services and sockets of one test."""

    _base = None

    def __init__(self):
        self.servers = []
        self.socks = []

    @classmethod
    def free_port(cls):
        """A port nobody listens on, outside the range the kernel gives out, distinct per xdist worker."""
        if cls._base is None:
            worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 8
            cls._base, cls._next = 10000 + worker * 2500, os.getpid() % 2500
        for _ in range(2500):
            cls._next = (cls._next + 1) % 2500
            port = cls._base + cls._next
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("0.0.0.0", port))
                except OSError:
                    continue
            if not is_listening(port):
                return port
        raise AssertionError("no free port")

    def serve(self, handler, **options):
        server = Server(handler, **options)
        self.servers.append(server)
        return server

    def connect(self, port, **options):
        sock = connect(port, **options)
        self.socks.append(sock)
        return sock

    def echo(self, **options):
        """Sends back what it gets; on EOF closes its side."""

        def handler(conn, _):
            while data := conn.recv(CHUNK):
                conn.sendall(data)

        return self.serve(handler, **options)

    def sink(self, **options):
        """Reads to EOF, then answers "COUNT SHA256" and closes; results are (count, hash)."""

        def handler(conn, _):
            count, digest = read_sha(conn)
            conn.sendall(f"{count} {digest}\n".encode())
            return count, digest

        return self.serve(handler, **options)

    def source(self, size, seed=0, **options):
        """Sends pattern(size, seed) at once and closes."""

        def handler(conn, _):
            for piece in pattern_blocks(size, seed):
                conn.sendall(piece)
            return size

        return self.serve(handler, **options)

    def sized_source(self, **options):
        """Reads 8 bytes (size, seed), sends pattern(size, seed), reads as many back; results: True if they match."""

        def handler(conn, _):
            size, seed = struct.unpack("!II", read_exact(conn, 8))
            for piece in pattern_blocks(size, seed):
                conn.sendall(piece)
            conn.shutdown(socket.SHUT_WR)
            return read_sha(conn) == (size, pattern_sha(size, seed))

        return self.serve(handler, **options)

    def http(self, body, **options):
        """Answers every request with `body`."""

        def handler(conn, _):
            request = b""
            while b"\r\n\r\n" not in request:
                data = conn.recv(CHUNK)
                if not data:
                    return request
                request += data
            conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                         b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
            return request

        return self.serve(handler, **options)

    def http_get(self, port):
        """The body that an HTTP service on this local port answers with."""
        with connect(port) as sock:
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            head, _, body = read_all(sock).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return body

    def close(self):
        for sock in self.socks:
            sock.close()
        for server in self.servers:
            server.close()
