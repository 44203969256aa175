"""A throwaway network namespace that this thread enters: what it runs and opens meanwhile is inside."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_CLONE_NEWNET = 0x40000000
_numbers = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def namespace() -> Iterator[str]:
    """A new namespace with lo up, deleted afterwards. Gives its name."""
    name = f"mck-{os.getpid()}-{next(_numbers)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """Work in that namespace, then come back."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{name}") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns failed")


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("ip"), reason="needs root and iproute2: makes network namespaces"
)


def shell(*commands: str) -> str:
    """What these commands of a shell write, one after the other."""
    return subprocess.run(["sh", "-ec", "\n".join(commands)], check=True, capture_output=True, text=True).stdout


def pack(address: str) -> bytes:
    """An address of either family, in binary."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
