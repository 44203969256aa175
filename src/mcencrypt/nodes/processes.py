"""Processes and their TCP sockets, from /proc (proc(5))."""

from __future__ import annotations

import contextlib
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple, Protocol

LISTEN = 0x0A
SYN_SENT = 0x02
ESTABLISHED = 0x01
_SOCKET = re.compile(r"socket:\[(\d+)\]")


class Files(Protocol):
    """What is read of /proc; a `doctor.files.Machine` for instance."""

    def text(self, path: str) -> str:
        """A file's text. Raises OSError."""

    def names(self, path: str) -> list[str]:
        """A directory's entries. Raises OSError."""

    def target(self, path: str) -> str:
        """What a symbolic link points to. Raises OSError."""


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


def read_processes(files: Files) -> list[Process]:
    """All processes that /proc shows."""
    pids = (int(entry) for entry in files.names("/proc") if entry.isdigit())
    return [found for pid in pids if (found := read_process(files, pid)) is not None]


def read_process(files: Files, pid: int) -> Process | None:
    """That process, None if it has ended."""
    try:
        name = files.text(f"/proc/{pid}/comm").strip()
        words = tuple(files.text(f"/proc/{pid}/cmdline").rstrip("\0").split("\0"))
    except OSError:
        return None
    netns = ""
    with contextlib.suppress(OSError):
        netns = files.target(f"/proc/{pid}/ns/net")
    return Process(pid, name, words, netns)


def own_netns(files: Files) -> str:
    """The network namespace of this thread, as /proc names it."""
    try:
        return files.target("/proc/thread-self/ns/net")
    except OSError:
        return ""


def has_address(files: Files, address: str) -> bool:
    """Whether an IPv4 address is one of this network namespace's own."""
    try:
        table = files.text("/proc/thread-self/net/fib_trie")
    except OSError:
        return False
    return re.search(rf"\|-- {re.escape(address)}\n\s*/32 host LOCAL", table) is not None


def tcp_sockets(files: Files, pid: int | None = None) -> list[TcpSocket]:
    """The TCP sockets of a process's network namespace, or of ours."""
    found = []
    for table in ("tcp", "tcp6"):
        try:
            text = files.text(f"/proc/{pid or 'thread-self'}/net/{table}")
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


def socket_inodes(files: Files, pid: int) -> set[str] | None:
    """The sockets that a process has open, None if we may not see them."""
    try:
        descriptors = files.names(f"/proc/{pid}/fd")
    except OSError:
        return None
    found = set()
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if match := _SOCKET.fullmatch(files.target(f"/proc/{pid}/fd/{descriptor}")):
                found.add(match.group(1))
    return found


def text_of(packed: bytes) -> str:
    """An address, 4 or 16 bytes, as text."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def _endpoint(text: str) -> tuple[str, int]:
    """An address:port of /proc/net/tcp: 32-bit words in the machine's byte order, in hexadecimal."""
    words, _, port = text.partition(":")
    packed = b"".join(bytes.fromhex(words[at : at + 8])[::-1] for at in range(0, len(words), 8))
    if len(packed) == 16 and packed.startswith(bytes(10) + b"\xff\xff"):
        packed = packed[12:]
    return text_of(packed), int(port, 16)
