"""Faults of the machine inside relayd: a build of it (tests/fault) whose memory and storage fail when a test says so."""

import mmap
import os
import struct

import pytest
from relay import RELAYD

FAULTY = os.path.join(os.path.dirname(RELAYD), "..", "tests", "fault", "relayd")
COUNTDOWN, STRUCK, READ_ONLY, OWN_ONLY, SYNCS, HOLD_SYNC = range(6)  # struct faults in tests/fault/faults.c


class Faults:
    """What that relayd shares with us."""

    def __init__(self, path):
        self.path = path
        with open(path, "w+b") as f:
            f.truncate(mmap.PAGESIZE)
            self.map = mmap.mmap(f.fileno(), mmap.PAGESIZE)

    def _get(self, field):
        return struct.unpack_from("q", self.map, field * 8)[0]

    def _set(self, field, value):
        struct.pack_into("q", self.map, field * 8, value)

    def fail_allocation(self, number, own_only=False):
        """From now on the allocation of this number fails, that one alone; 0: none. libevent's count unless own_only."""
        self._set(STRUCK, 0)
        self._set(OWN_ONLY, int(own_only))
        self._set(COUNTDOWN, number)

    struck = property(lambda self: self._get(STRUCK) > 0)

    def read_only(self, now):
        self._set(READ_ONLY, int(now))

    syncs = property(lambda self: self._get(SYNCS), doc="how often relayd has waited for the disk")

    def hold_sync(self, now):
        """From now on such a wait has no end."""
        self._set(HOLD_SYNC, int(now))


@pytest.fixture
def faults(folder):
    return Faults(os.path.join(folder, "faults"))


@pytest.fixture
def make_faulty(make_relay, faults):
    """make_faulty(**options) starts a relayd that has those faults."""

    def make(**options):
        assert os.path.exists(FAULTY), f"{FAULTY} is missing: make check TESTS="
        return make_relay(program=FAULTY, env={"RELAYD_FAULTS": faults.path}, **options)

    return make
