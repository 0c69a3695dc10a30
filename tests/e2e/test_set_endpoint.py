"""set-endpoint: notes, who sees them, and how long they stay. The PROXY protocol has a file of its own."""

import json

import pytest


def note(relay, endpoint, text, **options):
    return relay.ctl("set-endpoint", endpoint, "--note", text, **options)


def ls(principal, *pattern):
    done = principal.run(command=["ls", "--json", *pattern])
    assert done.returncode == 0, done.stderr
    return {row["endpoint"]: row["note"] for row in json.loads(done.stdout)}


def test_whoever_sees_the_endpoint_sees_its_note(relay, net, raspi, alice):
    """And nobody else: a client sees no note of what it may not reach."""
    port = net.echo().port
    raspi.publish(f"7:localhost:{port}", options=["-R", f"web.raspi:80:localhost:{port}"],
                  expect=["raspi:7", "web.raspi:80"])
    guest = relay.add_client("guest", allow=["web.raspi"])
    stranger = relay.add_client("stranger", allow=["nothing"])
    assert note(relay, "raspi:7", "an echo, for tests")["status"] == "set"
    assert relay.endpoint("raspi:7")["note"] == "an echo, for tests"
    (row,) = [row for row in relay.ctl("show", "raspi")["endpoints"] if row["name"] == "raspi"]
    assert row["note"] == "an echo, for tests"
    assert ls(alice) == ls(raspi) == {"raspi:7": "an echo, for tests", "web.raspi:80": ""}
    assert ls(guest) == {"web.raspi:80": ""} and ls(stranger) == {}
    assert "an echo, for tests" in relay.ctl("list", "endpoints", json=False)


def test_it_stays_while_the_device_is_away(relay, net, raspi, alice):
    options = f"7:localhost:{net.echo().port}"
    note(relay, "raspi:7", "an echo")
    device = raspi.publish(options, expect="raspi:7")
    assert ls(alice) == {"raspi:7": "an echo"}
    device.stop()
    relay.wait_withdrawn("raspi:7")
    assert relay.endpoint("raspi:7")["note"] == "an echo"
    relay.restart(kill=True)
    assert relay.endpoint("raspi:7")["note"] == "an echo"
    raspi.publish(options, expect="raspi:7")
    assert ls(alice) == {"raspi:7": "an echo"}


def test_it_is_there_before_the_device(relay, raspi):
    """What is set is listed, though nobody has published it."""
    note(relay, "web.raspi:80", "soon")
    row = relay.endpoint("web.raspi:80")
    assert (row["device"], row["online"], row["last_seen"], row["note"]) == ("raspi", False, None, "soon")
    assert note(relay, "web.raspi:80", "")["status"] == "set"
    assert relay.endpoint("web.raspi:80") is None


def test_what_relayctl_says(relay, raspi):
    said = relay.ctl("set-endpoint", "raspi:22", "--note", "a shell", "--proxy-protocol", "on", json=False)
    assert said == "set endpoint raspi:22: PROXY protocol on\nnote: a shell\n"
    assert relay.ctl("set-endpoint", "raspi:22", "--proxy-protocol", "on", json=False).startswith("unchanged endpoint")


@pytest.mark.parametrize("args, code, sentence", [
    (["raspi:22"], "bad_argument", "set what? Give --note or --proxy-protocol"),
    (["raspi", "--note", "x"], "bad_port", "is a name without a port: an endpoint is NAME:PORT"),
    (["raspi:0", "--note", "x"], "bad_port", "that is not a port"),
    (["nobody:22", "--note", "x"], "not_found", "no device of tenant default is called nobody"),
    (["raspi:22", "--note", "a\x1b[2J"], "bad_argument", "one line of printable text"),
    (["raspi:22", "--note", "n" * 201], "bad_argument", "at most 200 bytes, this has 201"),
    (["raspi:22", "--proxy-protocol", "v1"], "bad_argument", "expected on or off"),
])
def test_mistakes(relay, raspi, args, code, sentence):
    done = relay.ctl("set-endpoint", *args, check=False)
    assert (done.returncode, done.json["error"]["code"]) == (1, code)
    assert sentence in done.json["error"]["message"] and sentence in done.stderr


def test_notes_in_other_languages(relay, raspi):
    """They are kept as they are; a table shows of them what any terminal can."""
    note(relay, "raspi:22", "Küche \U0001f680")
    assert relay.endpoint("raspi:22")["note"] == "Küche \U0001f680"
    assert "K??che ????" in relay.ctl("list", "endpoints", json=False)


def test_a_tenants_administrator_sets_its_own(relay, net, procs):
    """Over SSH, in its tenant alone, with a note of several words; other clients may not."""
    relay.add_tenant("acme")
    relay.add_device("raspi")
    relay.add_device("raspi", tenant="acme")
    boss, bob = relay.add_client("boss", tenant="acme"), relay.add_client("bob", tenant="acme")
    relay.ctl("set-admin", "--tenant", "acme", "boss", "on")
    done = boss.run(command=["set-endpoint", "raspi:22", "--note", "'ours, not yours'"])
    assert done.returncode == 0, done.stderr
    assert relay.endpoint("raspi:22", "acme")["note"] == "ours, not yours"
    assert relay.endpoint("raspi:22") is None
    done = bob.run(command=["set-endpoint", "raspi:22", "--note", "x"])
    assert done.returncode != 0
    assert relay.endpoint("raspi:22", "acme")["note"] == "ours, not yours"
