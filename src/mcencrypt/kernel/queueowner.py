"""Who reads a netfilter queue: for whoever finds it taken."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_NETFILTER = "12"  # NETLINK_NETFILTER
_PROC = Path("/proc")


def owner(number: int, proc: Path = _PROC) -> str:
    """The program that reads a queue of this network namespace, with its process id; "" if that cannot be told.

    The queue names the port of a netlink socket, that its inode, and that the process which has it open.
    """
    try:
        inode = _inode(_port(number, proc), proc)
        pids = sorted((int(one) for one in os.listdir(proc) if one.isdigit()), reverse=True)
    except (OSError, LookupError, ValueError):
        return ""
    wanted = f"socket:[{inode}]"
    for pid in pids:
        with contextlib.suppress(OSError):
            folder = proc / str(pid) / "fd"
            for entry in os.listdir(folder):
                with contextlib.suppress(OSError):
                    if os.readlink(folder / entry) == wanted:
                        return f"{_name(proc / str(pid))} (pid {pid})"
    return ""


def _port(number: int, proc: Path) -> str:
    for line in (proc / "thread-self/net/netfilter/nfnetlink_queue").read_text().splitlines():
        words = line.split()
        if int(words[0]) == number:
            return words[1]
    raise LookupError(number)


def _inode(port: str, proc: Path) -> str:
    for line in (proc / "thread-self/net/netlink").read_text().splitlines()[1:]:
        words = line.split()
        if words[1] == _NETFILTER and words[2] == port:
            return words[-1]
    raise LookupError(port)


def _name(folder: Path) -> str:
    """What it is called: by its command line if an interpreter runs it."""
    words = (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
    clean = " ".join("".join(letter if letter.isprintable() else "?" for letter in word) for word in words)
    return clean[:120] or (folder / "comm").read_text().strip()
