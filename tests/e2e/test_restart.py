"""relayd restarts under load: whoever retries gets the right answer or none."""

import contextlib
import os
import random
import subprocess
import threading
import time

import paramiko
import pytest

from control import ControlSocket
from hostile import CLOSE, DATA, Raw
from procs import SLOW, until
from relay import RELAYD

LOAD = os.path.join(os.path.dirname(os.path.dirname(RELAYD)), "tests", "bench", "load")
DEVICES, RETIRED, CLIENTS = 50, 10, 10
FLEET, FLEET_BACK = 2000, 5  # devices, seconds
FAILED = (AssertionError, EOFError, OSError, paramiko.SSHException)


class Swarm:
    """Devices that serve their own name, and clients that ask for them, all of which come back until they are stopped."""

    def __init__(self, relay, devices=DEVICES, clients=CLIENTS):
        self.relay, self.stop, self.wrong, self.right = relay, threading.Event(), [], 0
        self.devices = [relay.add_device(f"d{i}") for i in range(devices)]
        self.clients = [relay.add_client(f"c{i}") for i in range(clients)]
        self.retired = threading.Event()
        self.threads = [threading.Thread(target=self.again, args=(self.serve, device)) for device in self.devices]
        self.threads += [threading.Thread(target=self.again, args=(self.ask, client)) for client in self.clients]
        for thread in self.threads:
            thread.start()

    def again(self, job, principal):
        while not self.stop.is_set():
            raw = None
            with contextlib.suppress(FAILED):
                raw = Raw(principal)
                job(principal, raw)
            if raw is not None:
                raw.close()
            if self.retired.is_set() and principal in self.devices[:RETIRED]:
                return
            self.stop.wait(0.2)

    def serve(self, device, raw):
        assert raw.publish(device.name.encode(), 7) == 7
        while not self.stop.is_set():
            try:
                incoming = raw.incoming(timeout=0.3)
            except AssertionError:
                if not raw.is_active():
                    return
                continue
            stream = raw.confirm(incoming)
            stream.send(device.name.encode())
            stream.close()

    def ask(self, client, raw):
        chance = random.Random(client.name)
        while not self.stop.is_set():
            name = chance.choice(self.devices).name
            stream = raw.connect(name.encode(), 7)
            if stream is not None:
                got = b""
                while (message := stream.expect(DATA, CLOSE))[0] == DATA:
                    message[1].get_int()
                    got += message[1].get_string()
                stream.close()
                self.right += got == name.encode()
                if got != name.encode():
                    self.wrong.append((name, got))

    def online(self):
        return {row["name"] for row in self.relay.list("endpoints") if row["online"]}

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join(30 * SLOW)


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("wait", ["0s", "2s"])
def test_clients_that_retry_see_no_wrong_answer(wait, kill, make_relay):
    relay = make_relay(wait_for_device=wait)
    swarm = Swarm(relay)
    try:
        names = {device.name for device in swarm.devices}
        until(lambda: swarm.online() == names, 60, lambda: f"all published; {names - swarm.online()} are not", every=0.2)
        for round_ in range(2):
            if round_ == 1:
                swarm.retired.set()  # from now on ten of them do not come back
                names -= {device.name for device in swarm.devices[:RETIRED]}
            before = swarm.right
            until(lambda: swarm.right > before + 50, 30, "clients are served")
            started = relay.restart(kill=kill)
            until(lambda: swarm.online() == names, 60, lambda: f"published: {swarm.online() ^ names} is wrong", every=0.1)
            print(f"all published {time.monotonic() - started:.1f} s after the start")
        before = swarm.right
        until(lambda: swarm.right > before + 50, 30, "clients are served")
        assert swarm.wrong == []
        assert all(row["publishers"] == int(row["name"] in names) for row in relay.list("endpoints"))
    finally:
        swarm.end()


@pytest.fixture
def fleet(make_relay, folder, procs):
    """A relayd, and FLEET devices of the load generator that have logged in and try again every 200 ms."""
    relay = make_relay()
    subprocess.run([LOAD, "keys", "--count", str(FLEET), "--out", folder], check=True)
    with open(os.path.join(folder, "keys.pub")) as f, ControlSocket(relay.socket) as control:
        for number, key in enumerate(f):
            assert control.call("add-device", {"name": f"f{number}", "key": key.strip()})["ok"]
    with subprocess.Popen([LOAD, "idle", "--port", str(relay.port), "--count", str(FLEET), "--retry", "200",
                           "--keys", os.path.join(folder, "keys")],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        try:
            for sent, expected in ("", "ready"), ("\n", f'"count": {FLEET}, "failed": 0'):
                load.stdin.write(sent)
                load.stdin.flush()
                assert expected in load.stdout.readline()
            yield relay
        finally:
            load.kill()


@pytest.mark.alone
@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
def test_a_fleet_is_back_in_seconds(kill, fleet):
    swarm = Swarm(fleet, devices=3, clients=2)
    everything = FLEET + len(swarm.devices)

    def published():
        return fleet.ctl("status")["endpoints"]
    try:
        until(lambda: published() == everything and swarm.right > 10, 60, "the fleet is there, and clients are served")
        names, before = swarm.online(), swarm.right
        started = fleet.restart(kill=kill)
        until(lambda: published() == everything, FLEET_BACK - (time.monotonic() - started) / SLOW,
              lambda: f"all are back; {published()} of {everything}")
        print(f"{everything} devices published {time.monotonic() - started:.1f} s after the start")
        assert len(names) == everything and swarm.online() == names
        until(lambda: swarm.right > before + 10, 30, "clients are served")
        assert swarm.wrong == []
    finally:
        swarm.end()
