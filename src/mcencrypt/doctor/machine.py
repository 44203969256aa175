"""What checks may ask of the machine, and the real one. Tests have another, made of recorded answers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import time
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mcencrypt.doctor import path
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import perform
from mcencrypt.kernel.fence import Fence
from mcencrypt.kernel.iptables import V4, V6, backends, encode, kind_shown
from mcencrypt.kernel.links import Link, read_links
from mcencrypt.kernel.routes import Routes
from mcencrypt.nodes.proc import Proc

if TYPE_CHECKING:
    from mcencrypt.doctor.routingrules import RoutingRule

_COMMAND_TIMEOUT = 10.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEX_SIZE = 208  # struct timex of linux/timex.h on 64-bit machines
_TIMEX_STATUS_AT = 40  # its `status`, behind modes, offset, freq, maxerror and esterror


class Output(NamedTuple):
    """What a program wrote, and its exit status; 127 if it is not installed, 124 if it took too long."""

    status: int
    text: str


class Saved(NamedTuple):
    """The rules that one iptables backend holds for one IP version, as iptables-save shows them."""

    #: Its iptables-save.
    command: str
    #: "nft" or "legacy".
    kind: str
    #: "ipv4" or "ipv6".
    family: str
    text: str
    #: Why there is no text.
    error: str


class Machine(Protocol):
    """The machine, as seen from the network namespace of this process. Nothing in here changes it."""

    def text(self, path: str) -> str:
        """A file's text. Raises OSError."""

    def names(self, path: str) -> list[str]:
        """A directory's entries. Raises OSError."""

    def target(self, path: str) -> str:
        """What a symbolic link points to. Raises OSError."""

    def mode(self, path: str) -> tuple[int, int]:
        """Permission bits and owner of a file. Raises OSError."""

    def run(self, *words: str) -> Output:
        """Run a program that only looks."""

    def rules(self) -> list[Saved]:
        """All iptables rules: first those of the backend that mcencrypt uses. Raises OperatorError without iptables."""

    def has_fence(self) -> bool:
        """Whether there is a fence, whole or not. Raises OperatorError if that cannot be seen."""

    def links(self) -> list[Link]:
        """The network interfaces. Raises OperatorError."""

    def routing_rules(self) -> list[RoutingRule]:
        """Policy routing's rules. Raises OSError."""

    def clock_status(self) -> int | None:
        """The kernel's clock status bits (adjtimex(2)), None if they cannot be had."""

    def now(self) -> float:
        """Seconds since 1970."""

    def scheduler(self, pid: int) -> int | None:
        """The scheduling policy of a process (sched(7)), None if there is no such process."""

    def addresses(self, host: str) -> list[str]:
        """IP addresses of a host's name. Raises OSError."""

    def echo(self, address: str, size: int) -> float | None:
        """See `path.echo`."""

    def syn_data(self, address: str, avoid: Collection[int]) -> str:
        """See `path.syn_data`."""

    def route_mtu(self, address: str) -> int:
        """The MTU of the route to an address."""

    def uid(self) -> int:
        """The effective user id."""

    def pid(self) -> int:
        """The process id."""


class ThisMachine(Proc):
    """The machine that this process runs on."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._environ = environ

    def mode(self, path: str) -> tuple[int, int]:
        found = os.stat(path)
        return found.st_mode & 0o7777, found.st_uid

    def run(self, *words: str) -> Output:
        places = ":".join(filter(None, (self._environ.get("PATH"), _PATH)))
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                errors="replace",
                timeout=_COMMAND_TIMEOUT,
                check=False,
                env={"PATH": places, "LC_ALL": "C"},
            )
        except subprocess.TimeoutExpired:
            return Output(124, "")
        except OSError:
            return Output(127, "")
        return Output(done.returncode, done.stdout)

    def rules(self) -> list[Saved]:
        found = []
        for backend in backends(self._environ):
            for family in (V4, V6):
                if not backend.has(family):
                    continue
                command, text, problem = backend.command(family, "save"), "", ""
                try:
                    # for people and for JSON: bytes that are no UTF-8 are shown as such
                    text = encode(perform(backend.save(family), _COMMAND_TIMEOUT)).decode(errors="replace")
                except OperatorError as error:
                    problem = str(error)
                found.append(Saved(command, backend.kind or kind_shown(text), family, text, problem))
        return found

    def has_fence(self) -> bool:
        fence = Fence(())
        try:
            return fence.is_there()
        finally:
            fence.close()

    def links(self) -> list[Link]:
        return read_links()

    def routing_rules(self) -> list[RoutingRule]:
        from mcencrypt.doctor.routingrules import read_rules

        return read_rules()

    def clock_status(self) -> int | None:
        buffer = ctypes.create_string_buffer(_TIMEX_SIZE * 2)
        with contextlib.suppress(AttributeError):
            if ctypes.CDLL(None).adjtimex(buffer) >= 0:
                return int.from_bytes(buffer.raw[_TIMEX_STATUS_AT : _TIMEX_STATUS_AT + 4], "little")
        return None

    def now(self) -> float:
        return time.time()

    def scheduler(self, pid: int) -> int | None:
        try:
            return os.sched_getscheduler(pid)
        except OSError:
            return None

    def addresses(self, host: str) -> list[str]:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(one[4][0]) for one in found))

    def echo(self, address: str, size: int) -> float | None:
        return path.echo(address, size)

    def syn_data(self, address: str, avoid: Collection[int]) -> str:
        return path.syn_data(address, avoid)

    def route_mtu(self, address: str) -> int:
        routes = Routes()
        try:
            return routes.mtu(ip_address(address).packed)
        finally:
            routes.close()

    def uid(self) -> int:
        return os.geteuid()

    def pid(self) -> int:
        return os.getpid()
