"""kill -9 a hundred times at random moments, while several write."""

import base64
import contextlib
import os
import random
import sqlite3
import struct
import threading
import time

from control import ControlSocket
from procs import until

KILLS, WRITERS = 100, 4


class Writer:
    """Changes clients of its own. `clients` is what must be there: name -> rules; `pending` what it would be after the
    command that has no answer yet."""

    def __init__(self, number, seed):
        self.number, self.chance = number, random.Random(seed)
        self.clients, self.pending, self.made, self.answers = {}, None, 0, 0
        self.refused = None

    def choose(self):
        """A command, its arguments, and what is there after it."""
        after, name = dict(self.clients), self.chance.choice([*self.clients, None])
        what = self.chance.choice(["allow", "rename", "remove-client"])
        if name is None or len(after) < 3:
            self.made += 1
            name, rules = f"w{self.number}-{self.made}", [f"a{i}" for i in range(self.chance.randint(1, 5))]
            blob = struct.pack(">I11sI", 11, b"ssh-ed25519", 32) + self.chance.randbytes(32)
            after[name] = set(rules)
            return "add-client", {"name": name, "allow": rules,
                                  "key": "ssh-ed25519 " + base64.b64encode(blob).decode()}, after
        if what == "allow":
            rule = f"r{self.chance.randrange(1000)}"
            after[name] = after[name] | {rule}
            return what, {"name": name, "rule": rule}, after
        rules = after.pop(name)
        if what == "remove-client":
            return what, {"name": name}, after
        self.made += 1
        after[f"w{self.number}-{self.made}"] = rules
        return what, {"name": name, "new-name": f"w{self.number}-{self.made}"}, after

    def run(self, path):
        """Writes until relayd is gone."""
        with contextlib.suppress(OSError), ControlSocket(path) as control:
            while True:
                command, arguments, self.pending = self.choose()
                try:
                    answer = control.call(command, arguments)
                except (OSError, AssertionError):  # it was cut off; half an answer is none
                    return
                if answer is None:
                    return
                if not answer["ok"]:
                    self.refused = answer
                    return
                self.clients, self.pending = self.pending, None
                self.answers += 1

    def check(self, stored):
        """What is stored of its clients is what it was told, or what it was about to be told."""
        assert self.refused is None, self.refused
        found = {name: rules for name, rules in stored.items() if name.startswith(f"w{self.number}-")}
        assert found in (self.clients, self.pending), (found, self.clients, self.pending)
        self.clients, self.pending = found, None


def read(relay):
    """The clients with their rules; the file must be sound, and each client whole."""
    with contextlib.closing(sqlite3.connect(os.path.join(relay.state, "relayd.db"), timeout=5)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        assert db.execute("SELECT count(*) FROM principals p WHERE"
                          " (SELECT count(*) FROM keys WHERE principal_id = p.id) <> 1").fetchone() == (0,)
        stored = {name: set() for name, in db.execute("SELECT name FROM principals")}
        for name, rule in db.execute("SELECT p.name, r.rule FROM principals p JOIN rules r ON r.principal_id = p.id"):
            stored[name].add(rule)
    return stored


def relayctl(relay, number, told):
    """One relayctl, which is cut off like everybody else."""
    done = relay.ctl("add-tenant", f"t{number}", check=False)
    if done.returncode == 0:
        told.add(f"t{number}")


def test_a_hundred_times(relay, chance):
    writers = [Writer(number, chance.random()) for number in range(WRITERS)]
    told = set()
    for number in range(KILLS):
        threads = [threading.Thread(target=writer.run, args=(relay.socket,)) for writer in writers]
        threads.append(threading.Thread(target=relayctl, args=(relay, number, told)))
        answers = sum(writer.answers for writer in writers)
        for thread in threads:
            thread.start()
        until(lambda: sum(writer.answers for writer in writers) > answers, what="an answer")
        time.sleep(chance.uniform(0, 0.05))
        relay.kill9()
        for thread in threads:
            thread.join()
        if number % 10 == 0:  # and while it starts
            relay.spawn()
            time.sleep(chance.uniform(0, 0.05))
            relay.kill9()
        relay.start()
        stored = read(relay)
        for writer in writers:
            writer.check(stored)
        assert told <= {row["name"] for row in relay.list("tenants")}
    assert sum(writer.answers for writer in writers) >= KILLS and len(told) > 0
    assert {row["name"] for row in relay.list("clients")} == {name for writer in writers for name in writer.clients}
