"""A log that nobody reads holds nobody up."""

import json
import re
import signal

from control import refused
from hostile import GLOBAL_REQUEST, REQUEST_SUCCESS, attach, bridge, bystanders, eve  # noqa: F401
from procs import SLOW, until

LINES = 12000  # of about 100 bytes: more than the pipe and relayd's queue hold


def flood_the_log(device):
    """Withdraws and publishes, each with a line in the log; returns when all have been answered."""
    answers = [0]
    device._arrived = lambda kind, _: answers.__setitem__(0, answers[0] + (kind == REQUEST_SUCCESS))
    for _ in range(LINES // 500):
        with device.one_segment():
            for _ in range(250):
                device.put(GLOBAL_REQUEST, "cancel-tcpip-forward", True, "eve", 1)
                device.put(GLOBAL_REQUEST, "tcpip-forward", True, "eve", 1)
    until(lambda: answers[0] == LINES, 60, lambda: f"{LINES} answers; have {answers[0]}")


def test_a_log_that_nobody_reads_stalls_nothing_and_what_is_lost_is_counted(relay, bystanders, eve):  # noqa: F811
    since = relay.mark()
    relay.log_is_read.clear()
    try:
        flood_the_log(eve)
        assert bystanders.fine()
        other = relay.add_client("late", tenant=relay.add_tenant("other")["name"])
        assert other.run(command=["whoami"]).returncode == 0
    finally:
        relay.log_is_read.set()
    flood, gap = r"principal=eve .* (published|withdrew) eve:1", r" warn tenant=default log: (\d+) lines were lost here"
    relay.wait_log(gap, since)
    relay.wait_log("info tenant=other .*logged in as client", since)  # its lines have room of their own,
    relay.wait_log("info tenant=other control: add-client .*: added late", since)  # as has what administrators do

    def kept():
        return len(relay.logged(flood, since))

    def lost():
        return sum(int(re.search(gap, line)[1]) for line in relay.logged(gap, since))
    until(lambda: kept() + lost() >= LINES, what=lambda: f"{LINES} lines; {kept()} logged, {lost()} lost")
    assert 1000 < kept() < LINES
    at = relay.mark()
    eve.put(GLOBAL_REQUEST, "cancel-tcpip-forward", True, "eve", 1)
    relay.wait_log(flood, at)  # what comes later is logged again
    assert not [line for line in relay.lines[since:] if not re.match(r"20\d\d-\S+Z (error|warn|info) ", line)]


def test_relayd_ends_though_nobody_reads_its_log(relay, eve):  # noqa: F811
    relay.log_is_read.clear()
    try:
        flood_the_log(eve)
        relay.popen.send_signal(signal.SIGTERM)
        assert relay.popen.wait(10 * SLOW) == 0
        relay.popen = None
    finally:
        relay.log_is_read.set()


def test_lines_as_json_say_what_they_are_about(make_relay, attach):  # noqa: F811
    relay = make_relay(log_format="json")
    device, client = attach(relay.add_device("eve")), attach(relay.add_client("alice"))
    assert device.publish(b"eve", 1) == 1
    here = bridge(device, client)[1]
    assert client.opened(client.direct(b"no\x1b\"such", 22)) is None
    assert client.opened(client.direct(b"nobody", 22)) is None
    here.close()
    relay.wait_log("bridge_closed")
    refused(relay, "not_found", "remove-client", "nobody")
    client.close()
    assert relay.stranger().run(command=["whoami"]).returncode == 255
    relay.wait_log('"logout"')
    relay.ctl("reload")
    rows = [json.loads(line) for line in relay.lines]
    keys = {"time": str, "level": str, "message": str, "tenant": str, "principal": str, "session": int, "address": str,
            "event": str, "reason": str}
    for row in rows:
        assert {"time", "level", "message"} <= set(row) and all(type(row[key]) is keys[key] for key in row), row

    def one(**like):
        found = [row for row in rows if all(row.get(key) == value for key, value in like.items())]
        assert len(found) == 1, (like, found)
        return found[0]
    alice = {"tenant": "default", "principal": "alice", "address": "127.0.0.1"}
    login = one(event="login", **alice)
    assert "reason" not in login and login["message"].startswith("logged in as client")
    assert one(event="publish", principal="eve")["message"] == "published eve:1"
    assert one(event="connect", session=login["session"], reason="not_reachable", **alice)["level"] == "warn"
    one(event="connect", reason="bad_name", **alice)
    assert one(event="bridge_closed", **alice)["message"].startswith("bridge 1 closed")
    one(event="logout", session=login["session"], **alice)
    assert "tenant" not in one(event="login", reason="unknown_key", address="127.0.0.1")
    one(event="command", reason="not_found", tenant="default")
