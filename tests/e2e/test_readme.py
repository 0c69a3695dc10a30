"""README.md, as a new user follows it: each command that it shows is run as it stands there, by the person or on the machine that
its prompt names."""

import glob
import os
import re

import pytest
from people import PRINTER, make_world
from procs import until
from relay import TOP

PROMPT = re.compile(r"^(\w+) +[#$] (.*?)(?: {2,}# .*)?$", re.M)
BLOCK = re.compile(r"^```\n(.*?)^```$", re.M | re.S)

with open(os.path.join(TOP, "README.md")) as f:
    README = f.read()
SHOWN = [found for block in BLOCK.findall(README) for found in PROMPT.findall(block)]
FINGERPRINT = "SHA256:..."  # stands for one


class Reader:
    """Does what README shows, and nothing that it does not."""

    def __init__(self, world):
        self.world = world
        self.relay = world.relay

    def _checked(self, name, command):
        assert (name, command) in SHOWN or f"`{command}`" in README, f"README shows no {command!r} of {name}"
        return self.world.person(name)

    def run(self, name, command, fingerprint=FINGERPRINT, **options):
        return self._checked(name, command).run(command.replace(FINGERPRINT, fingerprint), **options)

    def start(self, name, command, to=None):
        """to: a file at home for what it prints."""
        person = self._checked(name, command)
        if to:
            person.write(to, "")
        return person.start(command + (f" >{to}" if to else ""))

    def sets_up(self):
        """A relay that knows a device and a client."""
        self.world.gives(self.world.device("raspi"), "pi.pub")
        self.world.gives(self.world.person("alice"), "alice.pub")
        assert "added device raspi" in self.run("relay", "relayctl add-device --name raspi pi.pub").stdout
        assert "added client alice" in self.run("relay", "relayctl add-client --name alice alice.pub").stdout

    def publishes_web(self):
        self.world.pages("the web page of raspi", 8080)
        self.start("raspi", "ssh -N -R web.raspi:80:localhost:8080 -p 2222 relay.example.net")
        self.relay.wait_published("web.raspi:80")


@pytest.fixture
def reader(procs, folder, keys, request):
    for world in make_world(procs, folder, keys, request):
        yield Reader(world)


def test_every_command_is_run_by_a_test():
    tests = ""
    for path in [__file__, *glob.glob(os.path.join(TOP, "tests", "packaging", "*"))]:
        with open(path) as f:
            tests += f.read()
    tests = re.sub(r'"\n +"', "", tests).replace("\\'", "'")  # strings that go over two lines
    parts = {part for _, command in SHOWN for part in command.split(" && ")}
    assert len(parts) > 20
    assert not {part for part in parts if part not in tests}


def test_the_pictures_and_pages_that_it_names_are_there():
    for path in re.findall(r"\]\(([^)]+)\)|`((?:docs|scripts)/[\w./-]+)`|`(\./\w+\.sh)`", README):
        assert os.path.exists(os.path.join(TOP, "".join(path))), path


# ---- five minutes


def test_the_two_commands(reader):
    reader.sets_up()
    raspi, alice = reader.world.person("raspi"), reader.world.person("alice")
    reader.world.pages("the web page of raspi", 8080)
    reader.world.sshd(raspi, [alice])
    reader.start("raspi", "ssh -N -R 22:localhost:22 -R web.raspi:80:localhost:8080 -p 2222 relay.example.net")
    reader.relay.wait_published("raspi:22")
    assert reader.run("alice", "ssh -J relay.example.net:2222 pi@raspi", input=b"hostname; echo $HOME; exit 7\n",
                      status=7).stdout.endswith("/root\n")


def test_five_minutes(reader):
    reader.sets_up()
    raspi, alice = reader.world.person("raspi"), reader.world.person("alice")
    line = reader.run("relay", "relayctl host-key").stdout
    assert line.startswith("[relay.example.net]:2222 ssh-ed25519 ")
    for person in (raspi, alice):
        person.write(".ssh/known_hosts", line)
    assert "store" in reader.run("relay", "relayctl status").stdout
    reader.world.sshd(raspi, [alice])
    device = reader.start("raspi", "ssh -N -o ExitOnForwardFailure=yes -o ServerAliveInterval=15 -R 22:localhost:22 -p 2222 "
                          "relay.example.net")
    reader.relay.wait_published("raspi:22")
    assert "raspi:22" in reader.run("alice", "ssh -p 2222 relay.example.net ls").stdout
    assert "/root" in reader.run("alice", "ssh -J relay.example.net:2222 pi@raspi", input=b"echo $HOME\n").stdout

    setup = reader.run("raspi", "ssh -p 2222 relay.example.net config").stdout
    device.stop()
    reader.relay.wait_withdrawn("raspi:22")
    command = re.search(r"^ExecStart=/usr/bin/(ssh .*)$", setup, re.M)[1]
    raspi.start(command)
    reader.relay.wait_published("raspi:22")

    reader.run("alice", "ssh -p 2222 relay.example.net config >>~/.ssh/config")
    assert "/root" in reader.run("alice", "ssh pi@raspi.default", input=b"echo $HOME\n").stdout
    reader.run("alice", "scp -J relay.example.net:2222 pi@raspi:/etc/hostname .")
    assert alice.read("hostname")


# ---- recipes


def test_a_devices_web_page(reader):
    reader.sets_up()
    reader.publishes_web()
    reader.start("alice", "ssh -N -L 8080:web.raspi:80 -p 2222 relay.example.net")
    reader.world.person("alice").sees("http://localhost:8080/", "the web page of raspi")


def test_a_database_for_one_client(reader):
    reader.sets_up()
    world = reader.world
    alice, carol = world.person("alice"), world.person("carol")
    world.gives(world.device("db"), "db.pub")
    world.gives(carol, "carol.pub")
    reader.run("relay", "relayctl add-device --name db db.pub")
    reader.run("relay", "relayctl add-client --name carol --allow db:5432 carol.pub")
    reader.run("relay", "relayctl allow alice raspi && relayctl allow alice '*.raspi' && relayctl disallow alice '*'")
    world.pages("the database", 5432)
    reader.start("db", "ssh -N -R 5432:localhost:5432 -p 2222 relay.example.net")
    reader.relay.wait_published("db:5432")
    reader.start("carol", "ssh -N -L 5432:db:5432 -p 2222 relay.example.net")
    carol.sees("http://localhost:5432/", "the database")
    refused = alice.run("ssh -W db:5432 -p 2222 relay.example.net", status=255)
    assert "open failed" in refused.stderr
    reader.publishes_web()
    assert "web.raspi:80" in reader.run("alice", "ssh -p 2222 relay.example.net ls").stdout


def test_a_second_host_behind_a_device(reader):
    reader.sets_up()
    reader.world.pages("the printer", 80, PRINTER)
    reader.start("raspi", "ssh -N -R printer.raspi:80:192.168.1.9:80 -p 2222 relay.example.net")
    reader.relay.wait_published("printer.raspi:80")
    reader.start("alice", "ssh -N -L 8081:printer.raspi:80 -p 2222 relay.example.net")
    reader.world.person("alice").sees("http://localhost:8081/", "the printer")


def test_a_browser_through_socks(reader):
    reader.sets_up()
    reader.publishes_web()
    reader.start("alice", "ssh -N -D 1080 -p 2222 relay.example.net")
    page = until(lambda: reader.run("alice", "curl --proxy socks5h://localhost:1080 http://web.raspi/", status=None).stdout,
                 what="a page through the SOCKS proxy")
    assert "the web page of raspi" in page


def test_two_customers(reader):
    world = reader.world
    wile = world.person("wile")
    acme, globex = world.device("acmepi"), world.device("globexpi")
    world.gives(wile, "wile.pub")
    world.gives(globex, "globex.pub")
    wile.write("acme.pub", acme.public_key)
    reader.run("relay", "relayctl add-tenant acme && relayctl add-tenant globex")
    reader.run("relay", "relayctl --tenant acme add-client --name wile --admin wile.pub")
    reader.run("relay", "relayctl --tenant globex add-device --name raspi globex.pub")
    reader.run("wile", 'ssh -p 2222 acme@relay.example.net add-device --name raspi "$(cat acme.pub)"')
    reader.start("acmepi", "ssh -N -R 22:localhost:22 -p 2222 acme@relay.example.net")
    globex.start("ssh -N -R 23:localhost:22 -p 2222 globex@relay.example.net")
    reader.relay.wait_published("raspi:22", tenant="acme")
    reader.relay.wait_published("raspi:23", tenant="globex")
    seen = wile.run("ssh -p 2222 acme@relay.example.net ls").stdout
    assert "raspi:22" in seen and "raspi:23" not in seen
    listed = reader.run("wile", "relayctl --via ssh://acme@relay.example.net:2222 list devices").stdout
    assert len(re.findall(r"\braspi\b", listed)) == 1


def test_enrolment(reader):
    attic = reader.world.device("attic")
    fingerprint = attic.fingerprint()
    banner = reader.run("attic", "ssh -p 2222 enrol@relay.example.net", status=255).stderr
    assert "not registered yet" in banner and fingerprint in banner
    assert fingerprint in until(lambda: reader.run("relay", "relayctl list pending").stdout, what="a pending key")
    reader.run("relay", "relayctl add-device --pending SHA256:... --name attic", fingerprint)
    assert "attic" in attic.run("ssh -p 2222 relay.example.net whoami").stdout


def test_a_fleet(reader):
    people = [reader.world.device(f"pi{n}") for n in range(3)]
    fleet = "".join(" ".join(person.public_key.split()[:2]) + f" {person.name}\n" for person in people)
    reader.world.person("relay").write("fleet.keys", fleet)
    reader.run("relay", "relayctl add-device --batch fleet.keys")
    for person in people:
        person.start("ssh -N -R 22:localhost:22 -p 2222 relay.example.net")
    for person in people:
        reader.relay.wait_published(f"{person.name}:22")


def test_the_service_sees_its_user(reader):
    reader.sets_up()
    reader.publishes_web()
    reader.run("relay", 'relayctl set-endpoint --note "the shop\'s web page" --proxy-protocol on web.raspi:80')
    assert "the shop's web page" in reader.run("alice", "ssh -p 2222 relay.example.net ls").stdout


def test_what_else(reader):
    reader.sets_up()
    world = reader.world
    raspi, alice, guest = world.person("raspi"), world.person("alice"), world.person("guest")
    world.gives(guest, "guest.pub")
    world.sshd(raspi, [])
    raspi.start("ssh -N -R 22:localhost:22 -p 2222 relay.example.net")
    reader.relay.wait_published("raspi:22")
    pipe = "ssh -W raspi:22 -p 2222 relay.example.net"
    assert "SSH-2.0-OpenSSH" in reader.run("alice", pipe, input=b"bye\r\n").stdout
    assert re.search(r"Allocated port \d+", raspi.start("ssh -N -R 0:localhost:5900 -p 2222 relay.example.net")
                     .wait_err("Allocated port .*")[0])
    assert "-R 0:localhost:5900" in README
    reader.run("relay", "relayctl add-client --name guest --expires 1d --allow raspi:22 guest.pub")
    assert "SSH-2.0-OpenSSH" in guest.run(pipe, input=b"bye\r\n").stdout
    reader.run("relay", "relayctl remove-client guest")
    assert "Permission denied" in guest.run(pipe, status=255).stderr
    new, old = world.device("newpi"), raspi.fingerprint()
    world.gives(new, "new.pub")
    reader.run("relay", "relayctl add-key raspi new.pub")
    new.start("ssh -N -R 22:localhost:22 -p 2222 relay.example.net")
    reader.relay.wait_published("raspi:22", publishers=2)
    reader.run("relay", "relayctl remove-key raspi SHA256:...", old)
    assert "SSH-2.0-OpenSSH" in reader.run("alice", pipe, input=b"bye\r\n").stdout
    reader.start("relay", "relayctl events --follow", to="events")
    until(lambda: "guest" in world.person("relay").read("events"), what="events")
    alice.start("sleep 60 | ssh -W raspi:22 -p 2222 relay.example.net")
    reader.start("relay", "relayctl list bridges --watch", to="bridges")
    until(lambda: "alice" in world.person("relay").read("bridges"), what="bridges")


# ---- what is safe from whom


def test_what_goes_through_j_is_end_to_end(reader):
    reader.sets_up()
    raspi, alice = reader.world.person("raspi"), reader.world.person("alice")
    reader.world.sshd(raspi, [alice])
    raspi.start("ssh -N -R 22:localhost:22 -p 2222 relay.example.net")
    reader.relay.wait_published("raspi:22")
    jump = "ssh -J relay.example.net:2222"
    agent = alice.run(f'eval "$(ssh-agent)" && ssh-add -q && {jump} -A -o IdentityAgent=SSH_AUTH_SOCK pi@raspi ssh-add -l; '
                      "ssh-agent -k").stdout
    assert alice.fingerprint() in agent
    assert "localhost:1" in alice.run(f"DISPLAY=:99 {jump} -Y pi@raspi 'echo $DISPLAY'").stdout
    assert "/root" in alice.run("echo pwd | sftp -b - -J relay.example.net:2222 pi@raspi").stdout
    reader.world.pages("inside the device", 8088)
    alice.start(f"{jump} -N -L 8082:localhost:8088 pi@raspi")
    alice.sees("http://localhost:8082/", "inside the device")


def test_the_device_has_a_lock_of_its_own(reader):
    reader.sets_up()
    reader.world.sshd(reader.world.person("raspi"), [])
    reader.world.person("raspi").start("ssh -N -R 22:localhost:22 -p 2222 relay.example.net")
    reader.relay.wait_published("raspi:22")
    assert "pi@raspi: Permission denied" in reader.run("alice", "ssh -J relay.example.net:2222 pi@raspi", status=255).stderr
