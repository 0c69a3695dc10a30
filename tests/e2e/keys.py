"""A pool of key pairs, made once per test run and handed out anew to each test."""

import os
import subprocess


class KeyPool:
    def __init__(self, folder):
        self.folder = folder
        self.made = 0

    def path(self, index):
        """Private key file number `index`; FILE.pub stands beside it."""
        while self.made <= index:
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"key{self.made}@test",
                            "-f", os.path.join(self.folder, f"key{self.made}")], check=True)
            self.made += 1
        return os.path.join(self.folder, f"key{index}")


class Keys:
    """The keys of one test: each call of new() gives one that this test has not had."""

    def __init__(self, pool):
        self.pool = pool
        self.used = 0

    def new(self):
        self.used += 1
        return self.pool.path(self.used - 1)


def public(key):
    """Type and base64 of KEY.pub, without the comment."""
    with open(key + ".pub") as f:
        return " ".join(f.read().split()[:2])


def fingerprint(key):
    out = subprocess.run(["ssh-keygen", "-l", "-f", key + ".pub"], check=True, capture_output=True, text=True)
    return out.stdout.split()[1]
