"""Devices and clients that come, go, are killed, stall and are revoked at random, for a long time.

Each stream says who is at its ends and carries a pattern; whoever reads it checks all of it. When all have left, relayd
holds what it held before. RELAYD_TEST_SOAK is how many seconds that takes (./test.sh --soak 30m); RELAYD_TEST_SEED decides
what happens, as far as threads let it.
"""

import contextlib
import os
import random
import signal
import socket
import struct
import threading
import traceback

import paramiko
from net import pattern
from procs import SLOW, Proc, until
from relay import sanitized

SECONDS = float(os.environ.get("RELAYD_TEST_SOAK") or (30 if sanitized() else 180))
TENANTS, DEVICES, CLIENTS = 3, 3, 4  # in each tenant the first device and the first client are OpenSSH
PORT = 7
HEADER = struct.Struct("!8s16s16sII")  # of each direction: magic, tenant, name, seed and size of the pattern behind it
TROUBLE = (paramiko.SSHException, EOFError, OSError)  # that a peer has when it is disturbed


class Wrong(Exception):
    """What no disturbance explains."""


class Person:
    """A device or a client. Whatever disturbs it happens inside disturbed()."""

    def __init__(self, world, kind, tenant, name, by_openssh):
        self.world, self.kind, self.tenant, self.name, self.by_openssh = world, kind, tenant, name, by_openssh
        self.chance = random.Random(f"{world.seed} {tenant} {name}")
        self.principal = getattr(world.relay, f"add_{kind}")(name, tenant=tenant)
        self.links, self.started = [], 0
        self.lock, self.disturbances, self.disturbing = threading.Lock(), 0, 0

    @contextlib.contextmanager
    def disturbed(self):
        with self.lock:
            self.disturbances += 1
            self.disturbing += 1
        try:
            yield
        finally:
            with self.lock:
                self.disturbing -= 1

    def calm(self):
        """A question: has it been left alone from now on?"""
        with self.lock:
            then, calm = self.disturbances, self.disturbing == 0
        return lambda: calm and self.disturbances == then

    def ssh(self, *args, **options):
        self.started += 1
        return Proc(self.principal.argv(*args), os.path.join(self.principal.folder, f"err{self.started % 8}"), **options)

    def end(self, link):
        with self.disturbed():
            link.end()
            self.links.remove(link)

    # -- what is said over a stream

    def message(self):
        """Header and pattern; short ones mostly."""
        size = self.chance.choice([0, 1, self.chance.randrange(4096), self.chance.randrange(4096),
                                   self.chance.randrange(1 << 19)])
        seed = self.chance.randrange(1 << 20)
        return HEADER.pack(b"soakdata", self.tenant.encode(), self.name.encode(), seed, size) + pattern(size, seed)

    def check(self, data, name=None):
        """It must be a message of somebody of this tenant (of that name), or the beginning of one; True if it is whole."""
        if len(data) < HEADER.size:
            return False
        magic, tenant, sender, seed, size = HEADER.unpack_from(data)
        tenant, sender = tenant.rstrip(b"\0").decode(), sender.rstrip(b"\0").decode()
        if (magic, tenant) != (b"soakdata", self.tenant) or name not in (None, sender):
            raise Wrong(f"{self.tenant}/{self.name} got bytes of {tenant}/{sender} instead of {name}'s")
        if pattern(size, seed)[:len(data) - HEADER.size] != data[HEADER.size:]:
            raise Wrong(f"{self.tenant}/{self.name} got other bytes than {sender} sent")
        return len(data) == HEADER.size + size

    def say(self, stream, message, hung):
        """Sends it all, at times with a break, and its end."""
        try:
            if self.world.soaking and self.chance.random() < 0.2:
                stream.sendall(message[:len(message) // 2])
                self.world.pause(self.chance.uniform(0, 1))
                message = message[len(message) // 2:]
            stream.sendall(message)
            stream.shutdown(socket.SHUT_WR)
        except TimeoutError:
            hung.append("what it sends")
        except TROUBLE:
            pass

    def hear(self, stream, hung):
        """All that comes until the end; a connection that breaks is an end, too."""
        data = b""
        with contextlib.suppress(*TROUBLE):
            try:
                while piece := stream.recv(65536):
                    data += piece
            except TimeoutError:
                hung.append("what it waits for")
        return data

    def exchange(self, stream, hears_all=True):
        """Speaks and listens at once; returns what came. Not hears_all: ssh -W ends when the other side has said all."""
        hung = []
        stream.settimeout(30 * SLOW)
        speaker = threading.Thread(target=self.say, args=(stream, self.message(), hung), daemon=True)
        speaker.start()
        data = self.hear(stream, hung)
        if hears_all:
            speaker.join()
        # paramiko forgets a channel that comes while its connection goes
        forgotten = isinstance(stream, paramiko.Channel) and not stream.transport.is_active()
        with contextlib.suppress(*TROUBLE):
            stream.shutdown(socket.SHUT_RDWR)
        speaker.join()
        with contextlib.suppress(*TROUBLE):
            stream.close()
        if hung and not forgotten:
            raise Wrong(f"{self.tenant}/{self.name}: a stream hangs: {hung}; {len(data)} bytes came")
        return data


class Paramiko:
    """A session of paramiko's: streams by the dozen, an end with or without a goodbye."""

    def __init__(self, person):
        self.person, self.transport = person, person.principal.paramiko()
        person.links.append(self)

    alive = property(lambda self: self.transport.is_active())

    def publish(self):
        self.transport.request_port_forward(
            "", PORT, lambda channel, *_: self.person.world.spawn(self.person.answer, channel))

    def open(self, target):
        return self.transport.open_channel("direct-tcpip", (target, PORT), ("127.0.0.1", 1), timeout=30 * SLOW)

    def end(self):
        if self.person.chance.random() < 0.5:
            with contextlib.suppress(OSError):
                self.transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.close()


def harass(proc, chance, pause):
    """Stops an ssh for a while, terminates it or kills it."""
    if chance.random() < 0.5 and proc.running:
        proc.signal(signal.SIGSTOP)
        pause(chance.uniform(0, 2))
        if chance.random() < 0.7:
            proc.thaw()
    if chance.random() < 0.3:
        proc.thaw()
        proc.signal(signal.SIGTERM)
        pause(chance.uniform(0, 0.2))
    proc.kill()


class Publisher:
    """ssh -R."""

    def __init__(self, device):
        self.device = device
        self.proc = device.ssh("-N", "-T", "-o", "ExitOnForwardFailure=yes", "-R",
                               f"{PORT}:127.0.0.1:{device.service.port}")
        device.links.append(self)

    alive = property(lambda self: self.proc.running)

    def publish(self):
        pass

    def end(self):
        harass(self.proc, self.device.chance, self.device.world.pause)


class Visitor:
    """ssh -W, one for each stream; some are harassed meanwhile."""

    def __init__(self, client):
        self.client, self.procs = client, []
        client.links.append(self)

    alive = property(lambda self: any(proc.running for proc in self.procs))

    def open(self, target):
        ours, theirs = socket.socketpair()
        with theirs:
            proc = self.client.ssh("-W", f"{target}:{PORT}", stdin=theirs, stdout=theirs)
        self.procs.append(proc)
        if self.client.chance.random() < 0.3 and self.client.world.soaking:
            self.client.world.spawn(self.harass, proc)
        return ours

    def harass(self, proc):
        with self.client.disturbed():
            self.client.world.pause(self.client.chance.uniform(0, 0.3))
            harass(proc, self.client.chance, self.client.world.pause)

    def end(self):
        for proc in self.procs:
            proc.kill()


class Device(Person):
    def __init__(self, world, tenant, name, by_openssh):
        super().__init__(world, "device", tenant, name, by_openssh)
        self.service = world.net.serve(lambda conn, _: world.guard(self.answer, conn)) if by_openssh else None

    def answer(self, stream):
        self.check(self.exchange(stream))

    def come(self):
        link = (Publisher if self.by_openssh else Paramiko)(self)
        link.publish()

    def live(self):
        """Now and then the next session is there before the last one has gone."""
        while not self.world.over.is_set():
            with contextlib.suppress(*TROUBLE):
                self.come()
            self.world.pause(self.chance.uniform(0.1, 3))
            while len(self.links) > self.chance.randrange(2):
                self.end(self.links[0])
        while self.links:
            self.end(self.links[0])


class Client(Person):
    def __init__(self, world, tenant, name, by_openssh):
        super().__init__(world, "client", tenant, name, by_openssh)

    def come(self):
        return (Visitor if self.by_openssh else Paramiko)(self)

    def live(self):
        while not self.world.over.is_set():
            with contextlib.suppress(*TROUBLE):
                link = self.come()
                for _ in range(self.chance.randrange(8)):
                    self.visit(link, self.chance.choice(self.world.devices[self.tenant]))
                    self.world.pause(self.chance.uniform(0, 0.3))
            while self.links:
                self.end(self.links[0])
            self.world.pause(self.chance.uniform(0, 0.5))

    def visit(self, link, device):
        """One stream; returns what became of it."""
        calm = [device.calm(), self.calm()]
        if not self.by_openssh and self.chance.random() < 0.1:
            self.intrude(link)
        try:
            stream = link.open(device.name)
        except paramiko.ChannelException:
            return self.world.count("refused")
        except paramiko.SSHException as e:
            if "Timeout" in str(e):
                raise Wrong(f"{self.tenant}/{self.name}: no answer to an open of {device.name}") from None
            raise
        if self.chance.random() < 0.1 and self.world.soaking:
            stream.close()
            return self.world.count("left at once")
        data = self.exchange(stream, hears_all=not self.by_openssh)
        if self.check(data, device.name):
            return self.world.count("whole")
        if self.by_openssh and data == b"":
            return self.world.count("refused")
        if all(is_calm() for is_calm in calm):
            raise Wrong(f"{self.tenant}/{self.name}: {device.name} was cut after {len(data)} bytes, undisturbed")
        return self.world.count("cut")

    def intrude(self, link):
        """Tries a name that only another tenant has."""
        foreign = self.chance.choice([tenant for tenant in self.world.tenants if tenant != self.tenant])
        try:
            link.open(f"only-{foreign}")
        except paramiko.ChannelException:
            return
        raise Wrong(f"{self.tenant}/{self.name} reached into {foreign}")


class Admin:
    """Disconnects and revokes people of a tenant, and lets them in again."""

    def __init__(self, world, tenant):
        self.world, self.tenant = world, tenant
        self.chance = random.Random(f"{world.seed} {tenant} admin")

    def live(self):
        while not self.world.over.is_set():
            self.world.pause(self.chance.uniform(0.2, 2))
            person = self.chance.choice(self.world.devices[self.tenant] + self.world.clients[self.tenant])
            with person.disturbed():
                self.chance.choice([self.disconnect, self.revoke, self.narrow])(person)

    def ctl(self, *args):
        return self.world.relay.ctl(*args, "--tenant", self.tenant)

    def disconnect(self, person):
        self.world.relay.ctl("disconnect", person.name, "--tenant", self.tenant, check=False)  # it may be away

    def revoke(self, person):
        """What was up when the key went must end."""
        links = [link for link in person.links if link.alive]
        self.ctl(f"remove-{person.kind}", person.name)
        until(lambda: not any(link.alive for link in links), 10, f"the end of {person.name}'s sessions")
        self.ctl(f"add-{person.kind}", "--name", person.name, person.principal.pub)
        self.world.count("revoked")

    def narrow(self, person):
        """A client loses its right, its session stays; a device has no rule to lose."""
        if person.kind == "client":
            self.ctl("disallow", person.name, "*")
            self.ctl("allow", person.name, "*")


class World:
    def __init__(self, relay, net, seed):
        self.relay, self.net, self.seed = relay, net, seed
        self.over, self.soaking = threading.Event(), False
        self.lock, self.counts, self.wrongs, self.threads = threading.Lock(), {}, [], []
        self.tenants = [f"tenant{number}" for number in range(TENANTS)]
        self.devices, self.clients = {}, {}
        for tenant in self.tenants:
            relay.add_tenant(tenant)
            # the same names in all tenants, but one
            names = [*(f"device{number}" for number in range(DEVICES - 1)), f"only-{tenant}"]
            self.devices[tenant] = [Device(self, tenant, name, name == names[0]) for name in names]
            self.clients[tenant] = [Client(self, tenant, f"client{number}", number == 0) for number in range(CLIENTS)]

    def count(self, what):
        with self.lock:
            self.counts[what] = self.counts.get(what, 0) + 1
        return what

    def pause(self, seconds):
        self.over.wait(seconds)

    def guard(self, call, *args):
        """What is wrong in any thread ends the soak."""
        try:
            call(*args)
        except Exception:  # noqa: BLE001
            self.wrongs.append(traceback.format_exc())
            self.over.set()

    def spawn(self, call, *args):
        thread = threading.Thread(target=self.guard, args=(call, *args), daemon=True)
        with self.lock:
            self.threads = [other for other in self.threads if other.is_alive()]
            thread.start()
            self.threads.append(thread)

    def cycle(self):
        """Everybody comes, every client visits every device of its tenant, all leave."""
        for tenant in self.tenants:
            for device in self.devices[tenant]:
                device.come()
                self.relay.wait_published(f"{device.name}:{PORT}", tenant=tenant)
            for client in self.clients[tenant]:
                link = client.come()
                for device in self.devices[tenant]:
                    assert client.visit(link, device) == "whole"
        for person in self.people():
            while person.links:
                person.end(person.links[0])
        self.wait_quiet()

    def people(self):
        return [person for tenant in self.tenants for person in self.devices[tenant] + self.clients[tenant]]

    def soak(self):
        self.soaking = True
        for somebody in [*self.people(), *(Admin(self, tenant) for tenant in self.tenants)]:
            self.spawn(somebody.live)
        self.over.wait(SECONDS)
        self.over.set()
        while self.threads:
            self.threads.pop().join(60 * SLOW)
        print(self.counts)
        assert not self.wrongs, "\n".join(self.wrongs)
        self.wait_quiet()

    def wait_quiet(self):
        def quiet():
            status = self.relay.ctl("status")
            return status["sessions"] == status["waiting"] == status["bridges"] == 0

        def left():
            counts = self.relay.ctl("status")
            rows = [(tenant, row) for tenant in self.tenants for what in ("sessions", "bridges")
                    for row in self.relay.list(what, tenant)]
            return f"all have left; waiting {counts['waiting']}, bridges {counts['bridges']}; {rows}"
        until(quiet, 20, left)

    def holds(self):
        """Descriptors, and bytes of heap."""
        return self.relay.fds(), self.relay.ctl("status")["memory"]["heap_used"]


def test_soak(make_relay, net, chance):
    # Each thread's cache of freed memory would count as in use.
    relay = make_relay(workers=3, open_timeout="3s", env={"GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"})
    world = World(relay, net, chance.random())
    for _ in range(2):
        world.cycle()
    before = world.holds()
    world.soak()
    assert relay.running and min(world.counts.get(what, 0) for what in ("whole", "cut", "refused", "revoked")) > 0
    world.over.clear()
    world.soaking = False
    world.cycle()  # all is well for everybody

    def as_before():
        now = world.holds()
        return now[0] <= before[0] * 1.05 and (sanitized() or now[1] <= before[1] * 1.05)
    print(before, world.holds())
    until(as_before, 10, lambda: f"descriptors and heap as before, {before}; now {world.holds()}")
