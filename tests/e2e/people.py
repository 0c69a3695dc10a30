"""People who use a relay as its README says: each at a shell of his own, where only what he types differs from real life.

The relay, its administrator and the clients are in one network, the devices in another, from where they can only connect out.
Everybody has a home folder with a key, knows relay.example.net, and finds an account called pi on every device.
"""

import os
import shutil
import subprocess

from net import Net
from procs import own_network, until
from relay import RELAYCTL, Relay

RELAY = "10.77.0.1"
INSIDE = "10.77.0.2"
PRINTER = "192.168.1.9"

# A shell whose home folder, hosts and accounts are these files; then $4 in it.
SHELL = 'mount --bind "$1" ~ && mount --bind "$2" /etc/hosts && mount --bind "$3" /etc/passwd && cd && exec bash -c "$4"'

# No question is asked: who is at a terminal answers yes to the first host key, and here nobody is.
SSH_CONFIG = """Host *
    BatchMode yes
    StrictHostKeyChecking accept-new
    IdentityAgent none
    ConnectTimeout 10
"""


class Person:
    """`run` and `start` take a command line as it is typed."""

    def __init__(self, world, name, device):
        self.world, self.name = world, name
        self.where = world.inside if device else []
        self.home = os.path.join(world.folder, name)
        os.makedirs(os.path.join(self.home, ".ssh"), mode=0o700)
        key = world.keys.new()
        for end in ("", ".pub"):
            shutil.copy(key + end, os.path.join(self.home, ".ssh", "id_ed25519" + end))
        self.write(".ssh/config", SSH_CONFIG)

    def write(self, path, text):
        with open(os.path.join(self.home, path), "w") as f:
            f.write(text)
        os.chmod(os.path.join(self.home, path), 0o600)

    def read(self, path):
        with open(os.path.join(self.home, path)) as f:
            return f.read()

    public_key = property(lambda self: self.read(".ssh/id_ed25519.pub"))

    def fingerprint(self):
        return self.run("ssh-keygen -l -f .ssh/id_ed25519.pub").stdout.split()[1]

    def argv(self, command):
        world = self.world
        return [*self.where, "unshare", "--mount", "bash", "-c", SHELL, "bash", self.home, world.hosts, world.accounts, command]

    def run(self, command, status=0, **options):
        """To its end, which must be this one; returns a CompletedProcess with texts. None: any end."""
        done = self.world.procs.run(self.argv(command), env=self.world.environment, **options)
        done.stdout = done.stdout.decode(errors="replace")
        assert status in (None, done.returncode), f"{self.name}: {command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    def start(self, command):
        """In the background."""
        return self.world.procs.spawn(self.argv(command), env=self.world.environment)

    def sees(self, url, text):
        """Waits until a page can be fetched, and checks what it says."""
        page = until(lambda: self.run(f"curl -sS --max-time 5 {url}", status=None).stdout, what=f"{self.name} sees {url}")
        assert text in page


class World:
    def __init__(self, procs, folder, keys):
        self.procs, self.folder, self.keys = procs, folder, keys
        self.people = {}
        self._make_networks()
        self.hosts = self._file("hosts", f"127.0.0.1 localhost\n{RELAY} relay.example.net\n")
        with open("/etc/passwd") as f:
            self.accounts = self._file("passwd", f.read() + "pi:x:0:0:pi:/root:/bin/bash\n")
        os.mkdir(os.path.join(folder, "relayd"))
        self.relay = Relay(procs, os.path.join(folder, "relayd"), keys, start=False, public_address="relay.example.net:2222")
        self.relay.listen = ["127.0.0.1:2222", f"{RELAY}:2222"]
        self.environment = {**os.environ, "RELAYD_CONTROL_SOCKET": self.relay.socket,
                            "PATH": os.path.dirname(RELAYCTL) + ":/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin"}
        for name in ("SSH_AUTH_SOCK", "DISPLAY"):
            self.environment.pop(name, None)

    def _file(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def _make_networks(self):
        own_network(self.procs)
        near = list(self.procs.prefix)
        holder = own_network(self.procs)
        self.inside = ["nsenter", "-t", str(holder.pid), "--net"]
        self.procs.prefix = near
        for where, command in (([], f"link add near type veth peer name far netns {holder.pid}"),
                               ([], f"addr add {RELAY}/24 dev near"), ([], "link set near up"),
                               (self.inside, f"addr add {INSIDE}/24 dev far"), (self.inside, "link set far up"),
                               (self.inside, f"addr add {PRINTER}/32 dev lo")):
            subprocess.run([*near, *where, "ip", *command.split()], check=True)

    def person(self, name, device=False):
        if name not in self.people:
            self.people[name] = Person(self, name, device)
        return self.people[name]

    def device(self, name):
        return self.person(name, device=True)

    def gives(self, person, path):
        """The administrator of the relay has been sent somebody's public key."""
        self.person("relay").write(path, person.public_key)

    def pages(self, text, port, host="127.0.0.1"):
        """A web server among the devices."""
        folder = os.path.join(self.folder, f"pages-{port}-{host}")
        os.mkdir(folder)
        self._file(os.path.join(folder, "index.html"), text)
        self.procs.spawn([*self.inside, "python3", "-m", "http.server", "--bind", host, "--directory", folder, str(port)])
        url = f"http://{host}:{port}/"
        until(lambda: self.procs.run([*self.inside, "curl", "-sS", url]).returncode == 0, what=f"{url} answers")

    def sshd(self, device, authorized):
        """The sshd of a device, on its port 22, which lets in whoever it knows."""
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd's own compiled-in need
        device.write(".ssh/authorized_keys", "".join(person.public_key for person in authorized))
        device.run("ssh-keygen -q -t ed25519 -N '' -f hostkey")
        device.write("sshd_config", "Port 22\nListenAddress 127.0.0.1\nHostKey ~/hostkey\nPidFile none\nUsePAM no\n"
                     "PermitRootLogin yes\nPasswordAuthentication no\nX11Forwarding yes\nSubsystem sftp internal-sftp\n"
                     .replace("~", os.path.expanduser("~")))
        server = device.start("exec /usr/sbin/sshd -D -e -f ~/sshd_config")
        server.wait_err("Server listening on")


def make_world(procs, folder, keys, request):
    """A generator, for a fixture: a world whose relay runs, and stops at the end."""
    world = World(procs, folder, keys)
    request.node.relays = [world.relay]
    world.relay.start()
    yield world
    for proc in procs.all:
        proc.kill()
    if world.relay.popen is not None:
        world.relay.stop()
