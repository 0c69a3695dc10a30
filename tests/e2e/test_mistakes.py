"""The ten mistakes that people make most: whoever makes one, or looks after who does, reads the reason after one command. The words
that are looked for are those that a person reads."""

import pytest
from people import make_world
from procs import until


@pytest.fixture
def world(procs, folder, keys, request):
    for made in make_world(procs, folder, keys, request):
        made.gives(made.device("raspi"), "pi.pub")
        made.gives(made.person("alice"), "alice.pub")
        made.person("relay").run("relayctl add-device --name raspi pi.pub && relayctl add-client --name alice alice.pub")
        yield made


def publish(world, what="22:localhost:22"):
    name, _, rest = what.rpartition(":localhost:")[0].rpartition(":")
    proc = world.person("raspi").start(f"ssh -N -R {what} -p 2222 relay.example.net")
    world.relay.wait_published(f"{name or 'raspi'}:{rest}")
    return proc


def mistake(person, command):
    """What ssh says by itself."""
    return person.run(command, status=255).stderr


def why(person):
    return person.run("ssh -p 2222 relay.example.net why").stdout


def told(text, *words):
    text = " ".join(text.split())
    for word in words:
        assert word in text


def test_a_key_that_nobody_knows(world):
    stranger = world.person("stranger")
    told(mistake(stranger, "ssh -p 2222 relay.example.net ls"), "Permission denied (publickey)")
    told(world.person("relay").run("relayctl events").stdout, stranger.fingerprint(), "unknown_key")


def test_a_name_that_is_not_there(world):
    publish(world)
    alice = world.person("alice")
    told(mistake(alice, "ssh -J relay.example.net:2222 pi@rapsi"), "open failed")
    told(why(alice), "rapsi:22", "no such endpoint is online for you", "ssh RELAY ls")
    told(world.person("relay").run("relayctl events").stdout, "rapsi:22", "no_such_name")


def test_a_port_that_is_not_published(world):
    publish(world)
    alice = world.person("alice")
    told(mistake(alice, "ssh -W raspi:23 -p 2222 relay.example.net"), "open failed")
    told(why(alice), "raspi:23", "no such endpoint is online for you")
    told(world.person("relay").run("relayctl events").stdout, "raspi:23", "not_published")


def test_a_device_that_is_away(world):
    publish(world).stop()
    world.relay.wait_withdrawn("raspi:22")
    alice = world.person("alice")
    told(mistake(alice, "ssh -J relay.example.net:2222 pi@raspi"), "open failed")
    told(why(alice), "raspi:22", "no such endpoint is online")
    told(world.person("relay").run("relayctl events").stdout, "raspi:22", "offline")


def test_nothing_listens_behind_the_device(world):
    publish(world, "web.raspi:80:localhost:8080")
    alice = world.person("alice")
    told(mistake(alice, "ssh -W web.raspi:80 -p 2222 relay.example.net"), "open failed")
    told(why(alice), "web.raspi:80", "is the service behind it running?")


def test_a_rule_that_is_missing(world):
    raspi = world.person("raspi")
    raspi.run("ssh -N -o ExitOnForwardFailure=yes -R shop:80:localhost:8080 -p 2222 relay.example.net", status=255)
    told(why(raspi), "shop:80", "no rule lets this device publish that", "relayctl allow")


def test_an_access_that_has_expired(world):
    world.gives(world.person("guest"), "guest.pub")
    world.person("relay").run("relayctl add-client --name guest --expires 1s guest.pub")
    guest = world.person("guest")
    until(lambda: guest.run("ssh -p 2222 relay.example.net ls", status=None).returncode == 255, what="the end of an access")
    told(mistake(guest, "ssh -p 2222 relay.example.net ls"), "the access of this device or client has expired")


def test_a_key_that_waits_to_be_approved(world):
    attic = world.device("attic")
    told(mistake(attic, "ssh -p 2222 enrol@relay.example.net"), attic.fingerprint(), "not registered yet", "approve it")


def test_the_tenant_of_somebody_else(world):
    relay, alice = world.person("relay"), world.person("alice")
    relay.run("relayctl add-tenant acme")
    told(mistake(alice, "ssh -p 2222 acme@relay.example.net ls"), "Permission denied (publickey)")
    told(relay.run("relayctl events").stdout, "acme@", alice.fingerprint(), "unknown_key (other_tenant)")


def test_a_relay_that_is_not_running(world):
    world.relay.stop()
    told(mistake(world.person("alice"), "ssh -p 2222 relay.example.net ls"), "Connection refused")
    told(world.person("relay").run("relayctl status", status=3).stderr, "is relayd running")
