"""What the project was made for: publish with ssh -R, reach with ssh -J and ssh -L."""

import os

from net import echoes, is_listening, pattern_blocks, pattern_sha, sha
from procs import own_network, until
from sshd import USER

MIB = 1 << 20


def test_the_seed_literally(make_relay, procs, make_sshd):
    """ssh -fNT -R 22:localhost:22 relay; ssh -J relay user@raspi: on the real ports, in a network of its own."""
    own_network(procs)
    relay = make_relay()
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    sshd = make_sshd([alice.pub], port=22)
    alice.trust(sshd.known_host("raspi"))

    assert raspi.ssh("-fNT", "-R", "22:localhost:22").wait() == 0
    relay.wait_published("raspi:22")

    done = alice.run("-J", "relay", host=f"{USER}@raspi", command=["echo from $SSH_CONNECTION; exit 7"])
    assert (done.returncode, done.stdout.split()[0]) == (7, b"from"), done.stderr
    assert not relay.logged("refused")


def test_jump_is_strict_about_both_host_keys(relay, make_sshd):
    """Without the device's key, or with another one for the relay, ssh -J does not get in."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    sshd = make_sshd([alice.pub])
    raspi.publish(f"22:localhost:{sshd.port}", expect="raspi:22")

    done = alice.run("-J", "relay", host=f"{USER}@raspi", command=["true"])
    assert done.returncode == 255 and "Host key verification failed" in done.stderr
    alice.trust(sshd.known_host("raspi"))
    done = alice.run("-J", "relay", host=f"{USER}@raspi", command=["echo in"])
    assert (done.returncode, done.stdout) == (0, b"in\n"), done.stderr

    with open(relay.known_hosts, "w") as f:
        f.write(sshd.known_host("relay") + sshd.known_host("raspi"))
    done = alice.run("-J", "relay", host=f"{USER}@raspi", command=["true"])
    assert done.returncode == 255 and "Host key verification failed" in done.stderr


def test_100_mib_copied_both_ways(relay, make_sshd, folder):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    sshd = make_sshd([alice.pub])
    alice.trust(sshd.known_host("raspi"))
    raspi.publish(f"22:localhost:{sshd.port}", expect="raspi:22")
    here, there, back = (os.path.join(folder, name) for name in ("here", "there", "back"))
    with open(here, "wb") as f:
        for piece in pattern_blocks(100 * MIB, seed=1):
            f.write(piece)

    def scp(source, target):
        done = relay.procs.run(alice.argv("-q", "-J", "relay", source, target, program="scp", host=None), timeout=60)
        assert done.returncode == 0, done.stderr

    def digest(path):
        with open(path, "rb") as f:
            return sha(f.read())

    scp(here, f"{USER}@raspi:{there}")
    assert digest(there) == pattern_sha(100 * MIB, seed=1)
    scp(f"{USER}@raspi:{there}", back)
    assert digest(back) == pattern_sha(100 * MIB, seed=1)


def test_several_local_forwards_in_one_session(relay, net):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    bodies = [f"service {n}\n".encode() for n in range(4)]
    raspi.publish(*[f"{8000 + n}:localhost:{net.http(body).port}" for n, body in enumerate(bodies)],
                  expect=[f"raspi:{8000 + n}" for n in range(4)])
    proc, ports = alice.local(*[f"raspi:{8000 + n}" for n in range(4)])
    for _ in range(3):
        assert [net.http_get(port) for port in ports] == bodies
    assert len(relay.list("sessions")) == 2
    assert proc.running


def test_local_forward_without_N(relay, net):
    """A shell is asked for too; with its stdin at EOF the session stays, and so does the tunnel."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    raspi.publish(f"80:localhost:{net.http(b'page').port}", expect="raspi:80")
    port = net.free_port()
    proc = alice.ssh("-L", f"127.0.0.1:{port}:raspi:80")
    until(lambda: is_listening(port), what="ssh -L listening")
    for _ in range(5):
        assert net.http_get(port) == b"page"
    relay.wait_bridges(0)
    assert net.http_get(port) == b"page"
    assert proc.running, proc.err()


def test_forwards_in_an_ssh_config(relay, net):
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    web, echo, port = net.http(b"from the config"), net.echo(), net.free_port()
    raspi.write_config(first=f"""Host relay
  RemoteForward 80 localhost:{web.port}
  RemoteForward web.raspi:7 localhost:{echo.port}
  ExitOnForwardFailure yes
  ServerAliveInterval 5
""")
    alice.write_config(first=f"Host relay\n  LocalForward 127.0.0.1:{port} raspi:80\n  ExitOnForwardFailure yes\n")
    raspi.ssh("-N")
    relay.wait_published("raspi:80")
    relay.wait_published("web.raspi:7")
    alice.ssh("-N")
    until(lambda: is_listening(port), what="LocalForward listening")
    assert net.http_get(port) == b"from the config"
    assert alice.through_W("web.raspi:7").finish(b"both") == (0, b"both")


def test_second_host_behind_the_device(relay, net):
    """-R printer.raspi:80:OTHERHOST:80 publishes what the device can reach, under the device's name."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    own, printer = net.http(b"raspi's page"), net.http(b"printer's page", host="127.0.0.2")
    raspi.publish(f"80:localhost:{own.port}", f"printer.raspi:80:127.0.0.2:{printer.port}",
                  expect=["raspi:80", "printer.raspi:80"])
    _, (a, b) = alice.local("raspi:80", "printer.raspi:80")
    assert net.http_get(a) == b"raspi's page"
    assert net.http_get(b) == b"printer's page"


def test_second_connection_with_the_same_forwards(relay, net):
    """The same device logs in twice with the same -R, the same client twice with the same -L: nothing breaks."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    forwards = f"80:localhost:{net.http(b'page').port}", f"7:localhost:{net.echo().port}"
    first = raspi.publish(*forwards, expect=["raspi:80", "raspi:7"])
    _, (a, e) = alice.local("raspi:80", "raspi:7")
    held = net.connect(e)
    assert echoes(held)

    second = raspi.publish(*forwards, expect=["raspi:80", "raspi:7"])
    assert relay.endpoint("raspi:80")["publishers"] == 2
    _, (b, _) = alice.local("raspi:80", "raspi:7")
    assert net.http_get(a) == net.http_get(b) == b"page"
    assert echoes(held), "the bridge of the first connection"
    assert first.running and second.running

    second.stop()
    until(lambda: relay.endpoint("raspi:80")["publishers"] == 1, what="one publisher left")
    assert net.http_get(a) == net.http_get(b) == b"page"
    assert echoes(held)
    first.stop()
    relay.wait_withdrawn("raspi:80")
    assert not relay.logged("refused"), relay.logged("refused")


def test_ipv4_and_ipv6_listeners_lead_to_one_relay(relay, net):
    """A device over IPv6, a client over IPv4, and the other way round."""
    raspi, alice = relay.add_device("raspi"), relay.add_client("alice")
    over6 = ["-o", "HostName=::1", "-p", str(relay.ports["[::1]"])]
    raspi.publish(f"6:localhost:{net.echo().port}", options=over6, expect="raspi:6")
    raspi.publish(f"4:localhost:{net.echo().port}", expect="raspi:4")
    assert alice.through_W("raspi:6").finish(b"4 to 6") == (0, b"4 to 6")
    assert alice.through_W("raspi:4", *over6).finish(b"6 to 4") == (0, b"6 to 4")
    until(lambda: sorted(row["address"].split()[0] for row in relay.list("sessions")) == ["127.0.0.1", "::1"],
          what="the two device sessions, one of each family")


def test_no_port_is_bound_for_an_endpoint(procs, make_relay):
    """In a network of its own, relayd's two SSH listeners are all that listens."""
    holder = own_network(procs)
    relay = make_relay()
    raspi = relay.add_device("raspi")
    raspi.publish("22:localhost:22", "web.raspi:80:localhost:80", "0:localhost:1", expect=["raspi:22", "web.raspi:80"])
    rows = []
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{holder.pid}/net/{table}") as f:
            rows += [line.split() for line in f.read().splitlines()[1:]]
    bound = sorted(int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A")
    assert bound == sorted(relay.ports.values())
