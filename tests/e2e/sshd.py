"""A real OpenSSH server behind a device, for the tests."""

import os
import pwd
import subprocess

from net import is_listening
from procs import until

USER = pwd.getpwuid(os.getuid()).pw_name


class Sshd:
    """sshd on loopback with its own host key; lets in whoever holds a key in `authorized`."""

    def __init__(self, procs, folder, port, authorized, host="127.0.0.1"):
        self.port, self.host, self.user = port, host, USER
        os.makedirs("/run/sshd", mode=0o755, exist_ok=True)  # sshd's own compiled-in need
        self.hostkey = os.path.join(folder, f"sshd_{port}_key")
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "sshd", "-f", self.hostkey], check=True)
        self.authorized = os.path.join(folder, f"sshd_{port}_authorized")
        with open(self.authorized, "w") as f:
            for pub in authorized:
                with open(pub) as p:
                    f.write(p.read())
        config = os.path.join(folder, f"sshd_{port}_config")
        with open(config, "w") as f:
            f.write(f"""ListenAddress {host}
Port {port}
HostKey {self.hostkey}
PidFile none
AuthorizedKeysFile {self.authorized}
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 300
PrintMotd no
Subsystem sftp internal-sftp
""")
        self.proc = procs.spawn(["/usr/sbin/sshd", "-D", "-e", "-f", config])
        if procs.prefix:
            self.proc.wait_err("Server listening on")
        else:
            until(lambda: is_listening(port) or not self.proc.running, what="sshd listening")
        assert self.proc.running, self.proc.err()

    def known_host(self, name):
        """The known_hosts line for this server under the name a client calls it by."""
        with open(self.hostkey + ".pub") as f:
            return f"{name} {' '.join(f.read().split()[:2])}\n"
