"""What a run found, for people: a table on the terminal, docs/benchmarks.md and its charts."""

import datetime
import os
import platform
import re
import subprocess

import charts
from goals import floor, goals
from groups import CIPHERS
from results import Results, ratio, ratio_text, number

KEPT = "<!-- kept by the next run, for people to edit: {} -->"
COLUMNS = ("what", "goal", "relayd", "sshd", "ratio", "met")


def goal_rows(results, plan):
    return [(g.what, g.goal, g.relayd, g.sshd, g.ratio, g.verdict) for g in goals(results, plan)]


def table(samples, plan):
    """The goals as aligned text; only those of which something was measured."""
    rows = [row for row in goal_rows(Results(samples), plan) if re.search(r"\d", row[2] + row[3])]
    rows = [COLUMNS, *(tuple(cell.replace("**", "") for cell in row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


# ---- The machine and what runs on it


def output(*argv):
    """The first line that a program says, whichever way it says it."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    return (done.stdout.splitlines() or [""])[0].strip()


def file_value(path, key):
    with open(path) as f:
        found = re.search(rf"^{key}\s*[:=]\s*\"?([^\"\n]*)", f.read(), re.M)
    return found[1].strip() if found else "unknown"


def commit(top):
    done = subprocess.run(["git", "-C", top, "describe", "--always", "--dirty", "--exclude", "*"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip()


def facts(bench, top, rounds):
    """[(what, value)] of the machine, the versions and the day."""
    memory = int(file_value("/proc/meminfo", "MemTotal").split()[0]) / (1 << 20)
    status = bench.status
    relayd = status["version"] + (f", commit {commit(top)}" if commit(top) else "")
    return [
        ("date", datetime.date.today().isoformat()),
        ("processor", f"{file_value('/proc/cpuinfo', 'model name')}, {os.cpu_count()} cores, "
                      "shared by the server and the load"),
        ("memory", f"{memory:.0f} GiB"),
        ("system", f"{file_value('/etc/os-release', 'PRETTY_NAME')}, Linux {platform.release()}"),
        ("registry", "on " + output("findmnt", "-n", "-o", "FSTYPE", "-T", bench.folder)),
        ("relayd", relayd),
        ("libssh", status["libssh"]),
        ("libevent", output("pkg-config", "--modversion", "libevent")),
        ("OpenSSL", output("openssl", "version").removeprefix("OpenSSL ").partition(" (")[0]),
        ("OpenSSH", output("ssh", "-V")),
        ("HAProxy", output(bench.haproxy, "-v").removeprefix("HAProxy version ").partition(" ")[0]),
        ("rounds", f"{rounds}, {bench.plan.name} size"),
        ("runnable processes before the run", f"{bench.load_before:.1f} (average of the last minute)"),
    ]


# ---- The document


METHOD = """\
`make bench` starts each server anew on loopback for each group of measurements, relayd and sshd in turn, and does
all of it several times. A figure is the median of the rounds, with the lowest and the highest in parentheses; a
ratio is relayd's median over sshd's. All figures are of one run, whose command, defaults and binary are those that
`make install` installs.

* **relayd** runs in its default configuration: only its address, its folder, its socket and its user are given.
* **sshd** is the system's, as root with separated privileges and PAM as packaged, for an account made for the run,
  with `MaxStartups` and `MaxSessions` raised. Its `authorized_keys` holds one line, the quickest look-up there is;
  relayd looks each key up among all that are registered. A device's `-R` is there a TCP port on loopback, which sshd
  itself connects to. sshd sets `TCP_NODELAY` for a connection only when a shell or a command runs on it; without
  (`-N`) an answer may wait until an earlier one is acknowledged, which can take 40 ms. Opens side by side suffer from
  that, single round trips do not.
* **Equal for both**: curve25519-sha256, ed25519 host and user keys, aes128-gcm@openssh.com
  (chacha20-poly1305@openssh.com where named), the load generator (`tests/bench/load`, on libssh's client side; fleets
  come from many addresses), the limit of open files.
* **CPU** is that of all processes of the server, the ended ones too, until it is calm again. **Memory** is the growth
  of their PSS (`smaps_rollup`) from one idle session to that one and N more, over N. Only *from cold* nobody was
  there before. **ratio** beside *flat* goals is of two figures of relayd.
* **HAProxy** with one thread moves the same bytes without SSH; `openssl speed` says what one pass of the cipher
  costs. A relay must read, decrypt, encrypt and write: HAProxy + twice the cipher is the least that one can hope for.
* **Round trips** are made by one thread of the load, which is client and device. *Cores kept awake* means that a process
  of the lowest priority (`SCHED_IDLE`) spins on each core: in a virtual machine the wake-up of a core that has halted
  costs some 50 µs of the hypervisor's, more than the server does, and how often it happens is up to the scheduler.
* *A hostile tenant* is played by the attackers of the tests (`tests/e2e/attacks.py`), again and again; a core that
  only they use counts as idle (`SCHED_IDLE`). relayd has one worker for that, which both tenants share. The neighbour
  pauses for 2 ms after each round trip, and the cores are kept awake, calm or not. It has real-time priority, so that
  it waits for relayd and not for a processor that the attackers use.
* *up* is from the client to the device, *down* from the device to the client.
"""


def markdown(rows):
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *body]) + "\n"


def detail_sections(results, plan):
    """(title, chart or None, rows): label, and the name under which both servers' figures were recorded."""
    fleets = sorted({*plan.relayd_fleets, plan.sshd_fleet})
    cases = [(c, d, s) for c in CIPHERS for d in plan.directions for s in plan.streams]
    yield "A fleet that logs in and stays", "fleet", [
        *((f"PSS per device, {n:,} devices, KiB", ("pss_kib", n)) for n in fleets),
        *((f"descriptors per device, {n:,} devices", ("descriptors", n)) for n in fleets),
        *((f"{n:,} log in and publish at once, s", ("fleet_seconds", n)) for n in fleets),
        (f"{plan.relayd_fleets[-1]:,} log in and publish at once, from cold, s", "cold_seconds"),
        *((f"CPU per device that logs in and publishes, {n:,} devices, ms", ("fleet_cpu_ms", n)) for n in fleets),
        *((f"CPU with {n:,} idle devices, % of a core", ("idle_cpu_percent", n)) for n in fleets)]
    yield "Logins", "login", [("logins per second, 16 at a time", "logins_per_second"),
                              ("CPU per login and its end, ms", "login_cpu_ms")]
    yield "Opens", "open", [(f"{label}, {n} idle channels on the session", (name, n)) for label, name in (
        ("opens per second, 8 at a time", "opens_per_second"), ("p99 of open, echo and close, µs", "open_p99_us"),
        ("CPU per open, µs", "open_cpu_us")) for n in plan.channels]
    yield "Round trips", "echo", [
        *((f"{p}, {label}, µs", (f"echo_{p}_us", where)) for label, where in situations(plan) for p in ("p50", "p99")),
        ("the server's CPU meanwhile, while another tenant saturates the relay, % of a core", "neighbour_cpu_percent")]
    yield "Round trips beside a hostile tenant", None, [
        (f"{label}, {where.replace('_', ' ')}", (name, where)) for where in ("calm", *plan.attacks)
        for label, name in (("p50, µs", "echo_p50_us"), ("p99, µs", "echo_p99_us"),
                            ("relayd's CPU meanwhile, % of a core", "hostile_cpu_percent"))]
    yield "Bulk bytes", "bulk", [
        *((f"CPU per GiB, {c}, {d}, {s}, s", ("bulk_cpu", c, d, s)) for c, d, s in cases),
        *((f"throughput, {c}, {d}, {s}, MiB/s", ("bulk_mib_per_second", c, d, s)) for c, d, s in cases),
        *((f"heap left per session, {c}, {d}, {s}, KiB", ("left_heap_kib", c, d, s)) for c, d, s in cases),
        *((f"PSS left per session, {c}, {d}, {s}, KiB", ("left_pss_kib", c, d, s)) for c, d, s in cases)]


def situations(plan):
    return [("idle relay", "alone"), ("idle relay, cores kept awake", "awake"), ("another tenant saturates the relay", "neighbour"),
            *((f"bulk {d} on the same session", f"beside {d}") for d in plan.directions)]


def details(results, plan):
    for title, chart, rows in detail_sections(results, plan):
        cells = [("", "relayd", "sshd", "ratio")]
        for label, name in rows:
            relayd, sshd = results.median("relayd", name), results.median("sshd", name)
            if relayd is not None or sshd is not None:
                cells.append((label, results.cell("relayd", name), results.cell("sshd", name),
                              ratio_text(ratio(relayd, sshd))))
        picture = f"![{title}](benchmarks/{chart}.svg)\n\n" if chart else ""
        yield f"### {title}\n\n{picture}{markdown(cells)}"
    cells = [("the floor", "HAProxy", "one pass of the cipher", "HAProxy + twice the cipher")]
    for cipher in CIPHERS:
        for streams in plan.streams:
            cells.append((f"CPU per GiB, {cipher}, {streams}, s", results.cell("haproxy", ("bulk_cpu", streams)),
                          results.cell("openssl", ("cipher_cpu", cipher)), number(floor(results, cipher, streams))))
    yield markdown(cells)


def kept_text(path):
    """What people wrote into the document of an earlier run."""
    begin, end = KEPT.format("begin"), KEPT.format("end")
    if os.path.exists(path):
        with open(path) as f:
            _, found, rest = f.read().partition(begin)
        if found and end in rest:
            return begin + rest.partition(end)[0] + end
    return f"{begin}\n\n{end}"


def document(path, results, plan, machine):
    missed = sum(goal.met is False for goal in goals(results, plan))
    return "\n".join([
        "# Benchmarks\n",
        "Written by `make bench`, which needs root and what `scripts/deps.sh --bench` installs.\n",
        markdown([("", ""), *machine]),
        "## Goals\n",
        f"{missed or 'None'} of them {'is' if missed == 1 else 'are'} missed.\n",
        markdown([COLUMNS, *goal_rows(results, plan)]),
        kept_text(path) + "\n",
        "## Method\n",
        METHOD,
        "## Figures\n",
        *details(results, plan)])


def write(path, samples, plan, machine):
    """The document, and its charts in a folder beside it. Nothing is replaced before all of it is there."""
    results = Results(samples)
    text = document(path, results, plan, machine)
    charts.write(os.path.join(os.path.dirname(os.path.abspath(path)), "benchmarks"), results, plan)
    with open(path + ".new", "w") as f:
        f.write(text)
    os.replace(path + ".new", path)
