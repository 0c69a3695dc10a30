"""A small file system, and how to fill it."""

import contextlib
import os
import subprocess

import pytest


@pytest.fixture
def disk(folder):
    """A file system of 1 MiB."""
    place = os.path.join(folder, "disk")
    os.mkdir(place)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(disk, but=0):
    """Fill it but so many bytes."""
    with open(os.path.join(disk, "fill"), "wb", buffering=0) as f, contextlib.suppress(OSError):
        while True:
            f.write(bytes(4096))
    os.truncate(f.name, os.path.getsize(f.name) - but)
