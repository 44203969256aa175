"""Who reads a netfilter queue: for whoever finds it taken."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

_NETFILTER = "12"  # NETLINK_NETFILTER
_PROC = Path("/proc")
#: A daemon of ours, by its command line.
_OURS = re.compile(r"\bmcencrypt\b.* daemon\b")


def why_not(number: int, problem: str, proc: Path = _PROC) -> str:
    """Why a queue cannot be bound, where the kernel's own words are `problem`, and what to do; one line."""
    cannot = f"cannot bind netfilter queue {number}"
    queues = proc / "thread-self/net/netfilter/nfnetlink_queue"
    if (proc / "thread-self/net").is_dir() and not queues.exists():
        return (
            f"{cannot}: the kernel has no netfilter queues: load their module on the host (modprobe nfnetlink_queue; "
            "after an update of the kernel reboot first), or use a kernel with CONFIG_NETFILTER_NETLINK_QUEUE"
        )
    who = owner(number, proc)
    if _OURS.search(who):
        return (
            f"{cannot}: another mcencrypt ({who}) serves this network already, and one does for all its nodes: stop "
            "one of the two"
        )
    if who:
        return f"{cannot}: {who} reads it: set queue_number to another number, or stop that program"
    with contextlib.suppress(OSError, LookupError, ValueError):
        _port(number, proc)
        return (
            f"{cannot}: a program that cannot be seen from here reads it: if that is another sidecar or daemon of this "
            "network, one is enough: remove one of the two; else set queue_number to another number"
        )
    return (
        f"{cannot}: {problem}; run as root (CAP_NET_ADMIN), and see whether another program uses it (set queue_number, "
        "or stop the other daemon)"
    )


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
