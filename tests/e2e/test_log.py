"""A log that nobody reads holds nobody up."""

import re
import signal

from hostile import OPEN_FAILURE, attach, bystanders, mallet  # noqa: F401
from procs import SLOW, until

REFUSED = 12000  # lines of more than 100 bytes: more than the pipe and relayd's queue hold


def flood_the_log(client):
    """Opens that are refused, each with a line in the log; returns when all have been answered."""
    answers = [0]
    client._arrived = lambda kind, _: answers.__setitem__(0, answers[0] + (kind == OPEN_FAILURE))
    for _ in range(REFUSED // 500):
        with client.one_segment():
            for _ in range(500):
                client.direct(b"no", 1)
    until(lambda: answers[0] == REFUSED, 60, lambda: f"{REFUSED} refusals; have {answers[0]}")


def test_a_log_that_nobody_reads_stalls_nothing_and_what_is_lost_is_counted(relay, bystanders, mallet):  # noqa: F811
    since = relay.mark()
    relay.log_is_read.clear()
    try:
        flood_the_log(mallet)
        assert bystanders.fine()
        assert relay.add_client("late").run(command=["whoami"]).returncode == 0
    finally:
        relay.log_is_read.set()
    refused, gap = r'principal=mallet .* refused connect "no:1"', r" warn log: (\d+) lines were lost here"
    relay.wait_log(gap, since)

    def kept():
        return len(relay.logged(refused, since))

    def lost():
        return sum(int(re.search(gap, line)[1]) for line in relay.logged(gap, since))
    until(lambda: kept() + lost() >= REFUSED, what=lambda: f"{REFUSED} refusals; {kept()} logged, {lost()} lost")
    assert 1000 < kept() < REFUSED
    at = relay.mark()
    mallet.direct(b"no", 1)
    relay.wait_log(refused, at)  # what comes later is logged again
    assert not [line for line in relay.lines[since:] if not re.match(r"20\d\d-\S+Z (error|warn|info) ", line)]


def test_relayd_ends_though_nobody_reads_its_log(relay, mallet):  # noqa: F811
    relay.log_is_read.clear()
    try:
        flood_the_log(mallet)
        relay.popen.send_signal(signal.SIGTERM)
        assert relay.popen.wait(10 * SLOW) == 0
        relay.popen = None
    finally:
        relay.log_is_read.set()
