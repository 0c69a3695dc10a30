"""What relayd wants to reach, and whether it did."""

import dataclasses
import itertools

from groups import CIPHERS
from results import number, ratio, ratio_text

FLAT = 1.1  # "does not grow": at most a tenth more
OPENS = 5000
HOSTILE = 10  # times as long as without, at most


@dataclasses.dataclass(frozen=True)
class Goal:
    what: str
    goal: str
    relayd: str
    sshd: str
    ratio: str
    met: object  # True, False, None: not measured or only to be stated

    verdict = property(lambda self: {True: "yes", False: "**no**", None: "–"}[self.met])


def at_most(value, bound):
    return None if value is None else value <= bound


def at_least(value, bound):
    return None if value is None else value >= bound


def both(*verdicts):
    return None if None in verdicts else all(verdicts)


def unit(value, name):
    return "–" if value is None else f"{number(value)} {name}"


def compare(what, goal, relayd, sshd, name, met):
    """met: a function of relayd / sshd, which may be None."""
    times = ratio(relayd, sshd)
    return Goal(what, goal, unit(relayd, name), unit(sshd, name), ratio_text(times), met(times))


def flat(what, results, name, few, many, unit_name):
    """A cost does not grow from few to many."""
    a, b = results.median("relayd", (name, few)), results.median("relayd", (name, many))
    times = ratio(b, a)
    return Goal(f"{what}: with {many:,} over with {few:,}", f"≤ {FLAT}", f"{unit(b, unit_name)} / {unit(a, unit_name)}",
                "", ratio_text(times), at_most(times, FLAT))


def goals(results, plan):
    kinds = fleet_goals, rate_goals, latency_goals, hostile_goals, bulk_goals
    return [goal for some in kinds for goal in some(results, plan)]


def fleet_goals(results, plan):
    few, many = plan.relayd_fleets[0], plan.relayd_fleets[-1]
    sshd = results.median("sshd", ("pss_kib", plan.sshd_fleet))
    for count in (500, many):
        pss = results.median("relayd", ("pss_kib", count))
        yield compare(f"memory (PSS) per idle device, {count:,} devices (sshd: {plan.sshd_fleet:,})",
                      "≤ 28 KiB, ≤ 1/60 of sshd", pss, sshd, "KiB",
                      lambda times, pss=pss: both(at_most(pss, 28), at_most(times, 1 / 60)))
    yield flat("memory per idle device", results, "pss_kib", few, many, "KiB")
    seconds = results.median("relayd", "cold_seconds")
    yield Goal(f"{many:,} devices log in and publish, all at once, from cold, none failed", "≤ 8 s",
               unit(seconds, "s"), "", "", at_most(seconds, 8))
    yield flat("CPU per login", results, "fleet_cpu_ms", few, many, "ms")
    idle = results.median("relayd", ("idle_cpu_percent", many))
    yield Goal(f"CPU with {many:,} idle devices", "< 2 % of a core", unit(idle, "%"), "", "",
               None if idle is None else idle < 2)


def rate_goals(results, plan):
    def medians(name):
        return results.median("relayd", name), results.median("sshd", name)

    yield compare("logins, 16 at a time", "≥ 15 × sshd", *medians("logins_per_second"), "/s",
                  lambda times: at_least(times, 15))
    few, many = plan.channels
    rate = results.median("relayd", ("opens_per_second", few))
    yield compare("opens, 8 at a time on one session", f"≥ {OPENS:,} /s, ≥ 20 × sshd",
                  *medians(("opens_per_second", few)), "/s",
                  lambda times: both(at_least(rate, OPENS), at_least(times, 20)))
    yield flat("CPU per open, idle channels on the session", results, "open_cpu_us", few, many, "µs")


def latency_goals(results, plan):
    for what, where, name, part, bound in [
            ("one-byte round trip, idle relay, p50", "alone", "echo_p50_us", "≤ 0.45 of sshd", 0.45),
            ("one-byte round trip, idle relay, p99", "alone", "echo_p99_us", "≤ 0.6 of sshd", 0.6),
            ("one-byte round trip, idle relay, cores kept awake, p50", "awake", "echo_p50_us", "≤ 0.45 of sshd", 0.45),
            ("one-byte round trip, idle relay, cores kept awake, p99", "awake", "echo_p99_us", "≤ 0.6 of sshd", 0.6),
            ("round trip p99 while another tenant saturates the relay", "neighbour", "echo_p99_us", "≤ sshd", 1),
            *((f"round trip p99 beside a bulk stream of the same session, {d}", f"beside {d}", "echo_p99_us",
               "≤ sshd", 1) for d in plan.directions)]:
        yield compare(what, part, results.median("relayd", (name, where)), results.median("sshd", (name, where)),
                      "µs", lambda times, bound=bound: at_most(times, bound))


def hostile_goals(results, plan):
    calm = results.median("relayd", ("echo_p99_us", "calm"))
    times = {attack: ratio(results.median("relayd", ("echo_p99_us", attack)), calm) for attack in plan.attacks}
    attack = max(plan.attacks, key=lambda attack: times[attack] or 0)
    yield Goal(f"round trip p99 beside a hostile tenant on the same worker (worst of {len(times)}: "
               f"{attack.replace('_', ' ')}), over a calm one", f"≤ {HOSTILE}",
               f"{unit(results.median('relayd', ('echo_p99_us', attack)), 'µs')} / {unit(calm, 'µs')}", "",
               ratio_text(times[attack]), None if None in times.values() else at_most(times[attack], HOSTILE))


def worst(results, name, cases, is_worse):
    """The case with the worst ratio to sshd; None if there is none."""
    rated = [(ratio(results.median("relayd", (name, *case)), results.median("sshd", (name, *case))), case)
             for case in cases]
    rated = [pair for pair in rated if pair[0] is not None]
    return is_worse(rated)[1] if rated else None


def compare_worst(results, what, goal, name, cases, is_worse, unit_name, met):
    cases = list(cases)
    case = worst(results, name, cases, is_worse) or cases[0]
    cipher, direction, streams = case
    return compare(f"{what} (worst of {len(cases)}: {cipher}, {direction}, {streams})", goal,
                   results.median("relayd", (name, *case)), results.median("sshd", (name, *case)), unit_name, met)


def floor(results, cipher, streams):
    """CPU seconds per GiB of a relay that moves bytes like HAProxy and decrypts and encrypts them once each."""
    moving, once = results.median("haproxy", ("bulk_cpu", streams)), results.median("openssl", ("cipher_cpu", cipher))
    return None if moving is None or once is None else moving + 2 * once


def bulk_goals(results, plan):
    for cipher, bound in zip(CIPHERS, (0.70, 0.5)):
        yield compare_worst(results, f"bulk, CPU per GiB, {cipher}", f"≤ {bound:.2f} of sshd", "bulk_cpu",
                            itertools.product([cipher], plan.directions, plan.streams), max, "s",
                            lambda times, bound=bound: at_most(times, bound))
    for cipher, streams in itertools.product(CIPHERS, plan.streams):
        used = results.median("relayd", ("bulk_cpu", cipher, "up", streams))
        least = floor(results, cipher, streams)
        yield Goal(f"the same over HAProxy + twice the cipher, {cipher}, up, {streams}", "stated",
                   f"{unit(used, 's')} / {unit(least, 's')}", "", ratio_text(ratio(used, least)), None)
    for streams in plan.streams:
        yield compare_worst(results, f"bulk, throughput, {streams} stream{'s' * (streams > 1)}", "≥ sshd",
                            "bulk_mib_per_second", itertools.product(CIPHERS, plan.directions, [streams]), min, "MiB/s",
                            lambda times: at_least(times, 1))
    left = [results.median("relayd", ("left_heap_kib", *case))
            for case in itertools.product(CIPHERS, plan.directions, plan.streams)]
    left = max((value for value in left if value is not None), default=None)
    yield Goal("heap in use per session after bulk, above idle (worst)", "≤ 256 KiB", unit(left, "KiB"), "", "",
               at_most(left, 256))
