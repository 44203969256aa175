"""Processes and their TCP sockets, from /proc (proc(5))."""

from __future__ import annotations

import contextlib
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from mcencrypt.doctor.machine import Machine

LISTEN = 0x0A
ESTABLISHED = 0x01
_SOCKET = re.compile(r"socket:\[(\d+)\]")


class TcpSocket(NamedTuple):
    """A line of /proc/net/tcp or tcp6; addresses as text, IPv4 ones in the IPv4 form."""

    local: str
    lport: int
    remote: str
    rport: int
    state: int
    inode: str
    ipv6: bool

    @property
    def loopback(self) -> bool:
        """Whether no packet of it leaves the host by another interface."""
        own = self.state != LISTEN and self.remote == self.local
        return own or ip_address(self.local).is_loopback


@dataclass(frozen=True, slots=True)
class Process:
    """One process; `netns` is its network namespace as /proc names it, "" if that may not be seen."""

    pid: int
    name: str
    words: tuple[str, ...]
    netns: str


def read_processes(machine: Machine) -> list[Process]:
    """All processes that /proc shows."""
    found = []
    for entry in machine.names("/proc"):
        if not entry.isdigit():
            continue
        try:
            name = machine.text(f"/proc/{entry}/comm").strip()
            words = tuple(machine.text(f"/proc/{entry}/cmdline").rstrip("\0").split("\0"))
        except OSError:
            continue  # it ended
        netns = ""
        with contextlib.suppress(OSError):
            netns = machine.target(f"/proc/{entry}/ns/net")
        found.append(Process(int(entry), name, words, netns))
    return found


def own_netns(machine: Machine) -> str:
    """The network namespace of this thread, as /proc names it."""
    try:
        return machine.target("/proc/thread-self/ns/net")
    except OSError:
        return ""


def tcp_sockets(machine: Machine, pid: int | None = None) -> list[TcpSocket]:
    """The TCP sockets of a process's network namespace, or of ours."""
    found = []
    for table in ("tcp", "tcp6"):
        try:
            text = machine.text(f"/proc/{pid or 'thread-self'}/net/{table}")
        except OSError:
            continue
        for line in text.splitlines()[1:]:
            columns = line.split()
            if len(columns) >= 10:
                local, lport = _endpoint(columns[1])
                remote, rport = _endpoint(columns[2])
                state = int(columns[3], 16)
                found.append(TcpSocket(local, lport, remote, rport, state, columns[9], table == "tcp6"))
    return found


def socket_inodes(machine: Machine, pid: int) -> set[str] | None:
    """The sockets that a process has open, None if we may not see them."""
    try:
        descriptors = machine.names(f"/proc/{pid}/fd")
    except OSError:
        return None
    found = set()
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if match := _SOCKET.fullmatch(machine.target(f"/proc/{pid}/fd/{descriptor}")):
                found.add(match.group(1))
    return found


def _endpoint(text: str) -> tuple[str, int]:
    """An address:port of /proc/net/tcp: 32-bit words in the machine's byte order, in hexadecimal."""
    words, _, port = text.partition(":")
    packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    if len(packed) == 16 and packed.startswith(bytes(10) + b"\xff\xff"):
        packed = packed[12:]
    family = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, packed), int(port, 16)
