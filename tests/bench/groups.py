"""What is measured. A group measures one server that was started for it, and records its figures under names such
as ("pss_kib", 500); run them in turn against each server."""

import contextlib
import dataclasses
import itertools
import subprocess
import time

from measure import Failed, cores_awake, cpu_seconds
from servers import OneWorker

ATTACKS = ("key_exchange_never_ends", "maximum_packet_1", "window_ignored", "ten_thousand_opens", "opens_never_confirmed",
           "flood_of_global_requests", "flood_of_rekeys", "huge_strings", "client_reads_nothing")
CIPHERS = {"aes128-gcm": "aes128-gcm@openssh.com", "chacha20-poly1305": "chacha20-poly1305@openssh.com"}
MANY_STREAMS = 8
PARALLEL_LOGINS = 16
PARALLEL_OPENS = 8
GIB = 1 << 30
ENDLESS = 1 << 44  # bytes: no run moves that many


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much of everything."""
    name: str
    rounds: int
    relayd_fleets: tuple  # numbers of devices; the last one is that of the cold start
    sshd_fleet: int
    seconds: float        # of a measurement that lasts a fixed time
    warm_up: float
    idle_seconds: float
    stream_bytes: int
    directions: tuple = ("up", "down")
    streams: tuple = (1, MANY_STREAMS)
    channels: tuple = (1, 480)  # idle ones; relayd gives one client half of the 1,000 of a device's session
    attacks: tuple = ATTACKS


FULL = Plan("full", 3, (100, 500, 2000, 10000), 500, 4, 1, 10, GIB)
QUICK = Plan("quick", 1, (100, 500, 1000), 100, 1, 0.3, 2, GIB // 8, directions=("up",),
             attacks=("ten_thousand_opens", "flood_of_global_requests"))


def fleet(bench, make, record):
    """Devices that log in at once and stay: time, CPU, memory, descriptors, and CPU while nothing happens. One other
    device is there before them: what the first session costs once is not a device's share."""
    fleets = bench.plan.relayd_fleets if make.name == "relayd" else (bench.plan.sshd_fleet,)
    for count in fleets:
        with make(bench) as server, server.load("idle", count=1, **server.first()) as first:
            first.measure()
            with server.load("idle", count=count, spread=True, **server.fleet()) as load:
                empty = server.read()
                result = load.measure()
                full = server.read()
                record(("fleet_seconds", count), result["seconds"])
                record(("pss_kib", count), (full.pss - empty.pss) / count)
                record(("descriptors", count), (full.descriptors - empty.descriptors) / count)
                if make.name == "relayd":  # a process a session hides too much of it: see cpu_seconds()
                    record(("fleet_cpu_ms", count), (full.cpu - empty.cpu) * 1000 / count)
                if count == fleets[-1]:
                    began = time.monotonic()
                    before = cpu_seconds(server.process.pid)
                    time.sleep(bench.plan.idle_seconds)
                    used = cpu_seconds(server.process.pid) - before
                    record(("idle_cpu_percent", count), 100 * used / (time.monotonic() - began))


def cold(bench, make, record):
    """The largest fleet, all at once, to a server that has just started."""
    with make(bench) as server, \
            server.load("idle", count=bench.plan.relayd_fleets[-1], spread=True, **server.fleet()) as load:
        record("cold_seconds", load.measure()["seconds"])


def login(bench, make, record):
    """Log in and leave, several at a time."""
    with make(bench) as server:
        def run(seconds):
            options = {k: v for k, v in server.fleet().items() if k != "publish"}
            before = server.read()
            with server.load("login", parallel=PARALLEL_LOGINS, seconds=seconds, spread=True, **options) as load:
                result = load.measure()
            return result, server.read().cpu - before.cpu

        run(bench.plan.warm_up)
        result, cpu = run(bench.plan.seconds)
        record("logins_per_second", result["per_second"])
        record("login_cpu_ms", cpu * 1000 / result["logins"])


def opens(bench, make, record):
    """Fresh channels on one session that has few or many others open."""
    with make(bench) as server:
        for channels in bench.plan.channels:
            with server.load("open", parallel=PARALLEL_OPENS, channels=channels, seconds=bench.plan.seconds,
                             **server.pair()) as load:
                before = server.read()
                result = load.measure()
                cpu = server.read().cpu - before.cpu
            record(("opens_per_second", channels), result["per_second"])
            record(("open_cpu_us", channels), cpu * 1e6 / result["opens"])
            record(("open_p99_us", channels), result["p99"])


def echo(bench, make, record):
    """One-byte round trips through a relay that does nothing else, on a machine that does, and does not, go to sleep."""
    for where, condition in (("alone", contextlib.nullcontext), ("awake", cores_awake)):
        with make(bench) as server, condition(), \
                server.load("echo", seconds=bench.plan.seconds, threads=1, **server.pair()) as load:
            record_echo(record, where, load.measure())


def busy_session(bench, make, record):
    """The same beside a bulk stream of the same two sessions."""
    for direction in bench.plan.directions:
        with make(bench) as server, \
                server.load("echo", seconds=bench.plan.seconds, bulk=1, direction=direction, **server.pair()) as load:
            record_echo(record, f"beside {direction}", load.measure())


def busy_neighbour(bench, make, record):
    """The same while another tenant (with sshd, another account) moves all that it can."""
    with make(bench) as server, \
            server.load("stream", streams=MANY_STREAMS, bytes=ENDLESS, **server.pair(1)) as neighbour, \
            server.load("echo", seconds=bench.plan.seconds, **server.pair(0)) as load:
        neighbour.start()
        began, before = time.monotonic(), cpu_seconds(server.process.pid)
        result = load.measure()
        used = cpu_seconds(server.process.pid) - before
        record_echo(record, "neighbour", result)
        record("neighbour_cpu_percent", 100 * used / (time.monotonic() - began))
        if not neighbour.still_measuring():
            raise Failed(f"the neighbour's streams ended early: {neighbour.process.said()}")


def hostile(bench, _, record):
    """The same while another tenant's peers do their worst, on the one worker that there is. The round trips pause, so that
    attackers, who get what is left of the processor, have it most of the time. Who measures has it at once: it waits for
    relayd, not for a processor that is in use."""
    for attack in (None, *bench.plan.attacks):
        with OneWorker(bench) as server, cores_awake(), \
                server.load("echo", seconds=bench.plan.seconds, threads=1, pause=2, **server.pair(0)) as load, \
                server.attack(attack) if attack else contextlib.nullcontext() as attackers:
            load.at_once()
            if attack:
                attackers.start()
            began, before = time.monotonic(), cpu_seconds(server.process.pid)
            record_echo(record, attack or "calm", load.measure())
            used = cpu_seconds(server.process.pid) - before
            record(("hostile_cpu_percent", attack or "calm"), 100 * used / (time.monotonic() - began))
            if attack and not attackers.still_measuring():
                raise Failed(f"{attack} ended early: {attackers.process.said()}")


def record_echo(record, where, result):
    record(("echo_p50_us", where), result["p50"])
    record(("echo_p99_us", where), result["p99"])


def bulk(bench, make, record):
    """Bytes through fresh sessions: what they cost the server, how quick they are, what they leave behind."""
    for cipher, direction, streams in itertools.product(CIPHERS, bench.plan.directions, bench.plan.streams):
        with make(bench) as server, \
                server.load("stream", streams=streams, bytes=bench.plan.stream_bytes, direction=direction,
                            **{**server.pair(), "cipher": CIPHERS[cipher]}) as load:
            before, heap = server.read(), heap_kib(server)
            result = load.measure()
            after = server.read()
            what = cipher, direction, streams
            record(("bulk_cpu", *what), (after.cpu - before.cpu) * GIB / result["bytes"])
            record(("bulk_mib_per_second", *what), result["mib_per_second"])
            record(("left_pss_kib", *what), (after.pss - before.pss) / 2)
            if heap is not None:
                record(("left_heap_kib", *what), (heap_kib(server) - heap) / 2)


def heap_kib(server):
    return server.heap_kib() if server.name == "relayd" else None


def floor(bench, make, record):
    """What moving the bytes without SSH costs: they are relayed by a plain TCP proxy."""
    for streams in bench.plan.streams:
        with make(bench) as server, \
                server.load("tcp-stream", streams=streams, bytes=bench.plan.stream_bytes) as load:
            before = server.read()
            result = load.measure()
            after = server.read()
            record(("bulk_cpu", streams), (after.cpu - before.cpu) * GIB / result["bytes"])
            record(("bulk_mib_per_second", streams), result["mib_per_second"])


def cipher_cost(bench, _, record):
    """CPU seconds to encrypt a GiB once, with the OpenSSL that both servers use."""
    for name in CIPHERS:
        evp = "aes-128-gcm" if name == "aes128-gcm" else name
        done = subprocess.run(["openssl", "speed", "-mr", "-seconds", "1", "-bytes", "16384", "-evp", evp],
                              capture_output=True, text=True)
        rates = [line.split(":") for line in done.stdout.splitlines() if line.startswith("+F:")]
        if done.returncode != 0 or not rates:
            raise Failed(f"openssl speed {evp}: {done.stderr.strip()[-200:]}")
        record(("cipher_cpu", name), GIB / float(rates[0][-1]))


# name: (what it does, servers)
GROUPS = {
    "fleet": (fleet, ("relayd", "sshd")),
    "cold": (cold, ("relayd",)),
    "login": (login, ("relayd", "sshd")),
    "open": (opens, ("relayd", "sshd")),
    "echo": (echo, ("relayd", "sshd")),
    "busy-session": (busy_session, ("relayd", "sshd")),
    "busy-neighbour": (busy_neighbour, ("relayd", "sshd")),
    "hostile": (hostile, ("relayd",)),
    "bulk": (bulk, ("relayd", "sshd")),
    "floor": (floor, ("haproxy",)),
    "cipher": (cipher_cost, ("openssl",)),
}
