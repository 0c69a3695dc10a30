"""What all measurements of a run share: programs, a folder, keys, relayd's registry."""

import os
import shutil
import subprocess

import servers
from groups import CIPHERS
from measure import Failed, Load

ATTACK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "attack")
PINNED = {"kex": "curve25519-sha256", "cipher": CIPHERS["aes128-gcm"]}


def find(program):
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


class Bench:
    def __init__(self, plan, build, folder, accounts):
        """accounts: two that sshd lets in, and of which the first runs relayd."""
        self.plan, self.folder, self.accounts = plan, folder, accounts
        self.relayd = os.path.join(build, "relayd", "relayd")
        self.loader = os.path.join(build, "tests", "bench", "load")
        self.sshd, self.haproxy = find("sshd"), find("haproxy")
        self.loads = 0
        self.load_before = os.getloadavg()[0]

    def path(self, name):
        return os.path.join(self.folder, name)

    def keys(self, name):
        return self.path(f"{name}/keys")

    def public_keys(self, name):
        with open(self.keys(name) + ".pub") as f:
            return f.read().splitlines()

    def make_keys(self, name, count):
        os.mkdir(self.path(name), 0o700)
        done = subprocess.run([self.loader, "keys", "--count", str(count), "--out", self.path(name)],
                              stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise Failed(f"load keys: {done.stderr.strip()}")

    def host_key(self):
        path = self.path("host_key")
        if not os.path.exists(path):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        return path

    def load(self, mode, **options):
        self.loads += 1
        if mode != "tcp-stream":
            options = {**PINNED, **options}
        return Load(self.loader, self.path(f"load.{self.loads}.log"), mode, **options)

    def attack(self, name, **options):
        self.loads += 1
        return Load(ATTACK, self.path(f"attack.{self.loads}.log"), name, **options)

    def prepare(self):
        """What is not measured: keys, and relayd's registry."""
        self.make_keys(servers.FLEET, self.plan.relayd_fleets[-1])
        for name in servers.SINGLE:
            self.make_keys(name, 1)
        with servers.Relayd(self) as relayd:
            relayd.register(self.plan.relayd_fleets[-1])
            self.status = relayd.status()
