"""A device gets a new key while it is in use, as relayctl(8) says: nobody who connects notices."""

import threading

from net import echoes
from procs import until


class Visitors:
    """They come one after the other and leave, until stop()."""

    def __init__(self, alice, target):
        self.alice, self.target = alice, target
        self.came, self.failed, self.over = 0, [], False
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.over:
            outcome = self.alice.through_W(self.target).finish(b"hello")
            self.came += 1
            if outcome != (0, b"hello"):
                self.failed.append(outcome)

    def wait_more(self, count=3):
        seen = self.came
        until(lambda: self.came >= seen + count, 20, "more visitors")

    def stop(self):
        self.over = True
        self.thread.join()


def test_a_device_changes_its_key_and_nobody_notices(relay, net, keys):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    service = f"7:localhost:{net.echo().port}"
    old = raspi.publish(service, expect="raspi:7")
    _, (port,) = alice.local("raspi:7")
    staying = net.connect(port)
    assert echoes(staying)
    visitors = Visitors(alice, "raspi:7")
    try:
        renewed = relay.stranger("raspi", key=keys.new())
        relay.ctl("add-key", "raspi", renewed.pub)
        new = renewed.publish(service, expect="raspi:7")
        visitors.wait_more()
        assert echoes(staying), "what was open stays with the old session"
        staying.close()
        until(lambda: all(row["device_session"] != oldest(relay) for row in relay.list("bridges")), what="the last one")
        old.stop()
        visitors.wait_more()
        assert relay.ctl("remove-key", "raspi", raspi.fingerprint)["closed"] == {"sessions": 0, "bridges": 0}
        visitors.wait_more()
    finally:
        visitors.stop()
    assert visitors.failed == []
    assert new.running and raspi.run(command=["whoami"]).returncode == 255


def oldest(relay):
    return min(row["id"] for row in relay.list("sessions") if row["principal"] == "raspi")


def test_removing_the_old_key_ends_what_still_uses_it(relay, net, keys):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    service = f"7:localhost:{net.echo().port}"
    old = raspi.publish(service, expect="raspi:7")
    _, (port,) = alice.local("raspi:7")
    through_old = net.connect(port)
    assert echoes(through_old)
    renewed = relay.stranger("raspi", key=keys.new())
    relay.ctl("add-key", "raspi", renewed.pub)
    renewed.publish(service, expect="raspi:7")
    through_new = net.connect(port)
    assert echoes(through_new)
    assert relay.ctl("remove-key", "raspi", raspi.fingerprint)["closed"] == {"sessions": 1, "bridges": 1}
    assert through_old.recv(1) == b"" and old.wait() == 255
    assert echoes(through_new)
