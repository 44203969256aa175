"""One machine of the lab, in a network namespace of its own."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from . import namespace
from .namespace import PATIENCE, LabError, run, wait_for
from .nursery import importable
from .process import Process

_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
_LOCK = Path("/run/mcencrypt-lab.lock")


@dataclass(frozen=True)
class Offloads:
    """Offload settings of a network interface; None leaves the driver's default.

    With `tso` off and `gso` on the kernel still hands 64 KB batches to netfilter and cuts them at the very
    end, as a host with a simple network card does; the wire then carries single segments. `tx` off makes it
    finish every checksum before the wire (and turns tso off with it).
    """

    tso: bool | None = None
    gso: bool | None = None
    gro: bool | None = None
    tx: bool | None = None

    def arguments(self) -> list[str]:
        """As `ethtool -K` takes them. tx comes first, because setting it changes tso."""
        named = (("tx", self.tx), ("tso", self.tso), ("gso", self.gso), ("gro", self.gro))
        return [word for name, value in named if value is not None for word in (name, "on" if value else "off")]


class Keeper(Protocol):
    """What a host needs of the lab that it stands in."""

    name: str
    directory: Path
    hosts: list[Host]
    processes: list[Process]

    def log_file(self, *words: str) -> Path: ...


class Host:
    """One machine of the lab: a network namespace of its own."""

    def __init__(self, lab: Keeper, name: str) -> None:
        self.lab = lab
        self.name = name
        self.namespace = f"{namespace.owner()}-{lab.name}-{name}"
        #: Addresses with prefix length by interface, in the order in which they were made.
        self.interfaces: dict[str, list[str]] = {}
        lab.hosts.append(self)
        namespace.create(self.namespace)
        for area in ("all", "default"):
            self.quiet(area)
        self._choose_cubic()

    # ------------------------------------------------------------ programs

    def enter(self) -> contextlib.AbstractContextManager[None]:
        """The calling thread is inside this host's namespace while the context lasts."""
        return namespace.entered(self.namespace)

    def run(
        self,
        argv: Sequence[object],
        *,
        stdin: str | None = None,
        timeout: float = PATIENCE,
        check: bool = True,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on this host to its end. `env` is added to the environment.

        Raises LabError, with its stderr, if it failed (unless not `check`) or took longer than `timeout` seconds.
        """
        with self.enter():
            return run([str(word) for word in argv], stdin=stdin, timeout=timeout, check=check, env=_environment(env))

    def spawn(
        self,
        argv: Sequence[object],
        *,
        log: Path | None = None,
        env: dict[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> Process:
        """Start a program on this host; it ends, with all its children, when the lab does. `env` is added."""
        words = [str(word) for word in argv]
        with self.enter():
            process = Process(words, log or self.lab.log_file(self.name, Path(words[0]).name), _environment(env), cwd)
        self.lab.processes.append(process)
        return process

    def python(
        self, module: str, *arguments: object, log: Path | None = None, env: dict[str, str] | None = None
    ) -> Process:
        """Start `python -m module` on this host, with this very interpreter and package."""
        return self.spawn(
            [sys.executable, "-m", module, *arguments],
            env=importable() | (env or {}),
            log=log or self.lab.log_file(self.name, module.rpartition(".")[2]),
        )

    def socket(self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        """A socket of this host, for the calling program to use."""
        with self.enter():
            return socket.socket(family, kind, protocol)

    def listening(self, port: int) -> bool:
        """Whether a TCP socket of this host listens on that port, on whatever address."""
        with self.enter():
            rows = [
                row.split()
                for table in ("tcp", "tcp6")
                for row in Path("/proc/thread-self/net", table).read_text().splitlines()[1:]
            ]
        # local address:port in hexadecimal; state 0A is LISTEN
        return any(int(row[1].rpartition(":")[2], 16) == port and row[3] == "0A" for row in rows)

    def wait_listening(self, port: int, seconds: float = PATIENCE) -> None:
        """Wait until `listening(port)`. Raises LabError if it did not happen within `seconds`."""
        wait_for(lambda: self.listening(port), f"port {port} of host {self.name} to listen", seconds)

    # ------------------------------------------------------------ settings

    def sysctl(self, name: str, value: object | None = None) -> str:
        """Read a kernel setting of this host, such as `net.ipv4.tcp_sack`, after writing it if `value` is
        given.
        """
        path = Path("/proc/sys", *name.split("."))
        with self.enter():
            if value is not None:
                path.write_text(str(value))
            return path.read_text().strip()

    def tcp_counts(self) -> dict[str, int]:
        """What this host's TCP has counted so far, by the kernel's names (nstat(8)): TCPTimeouts, for instance, are
        the retransmission timers that have fired.
        """
        with self.enter():
            rows = [row.split() for row in Path("/proc/thread-self/net/netstat").read_text().splitlines()]
        found: dict[str, int] = {}
        for names, numbers in zip(rows[::2], rows[1::2], strict=True):
            found.update(zip(names[1:], map(int, numbers[1:]), strict=True))
        return found

    def received(self, interface: str = "eth0") -> int:
        """Bytes of the packets that have come in on an interface.

        What waits for a stream to be under way asks the kernel, not a daemon: a busy one answers late, and meanwhile
        the stream has carried many times as much as was awaited.
        """
        with self.enter():
            rows = Path("/proc/thread-self/net/dev").read_text().splitlines()
        (found,) = (row.split(":")[1].split()[0] for row in rows if row.split(":")[0].strip() == interface)
        return int(found)

    def ip(self, *words: object) -> str:
        """`ip WORDS...` on this host; returns its output."""
        return run(["ip", "-n", self.namespace, *map(str, words)]).stdout

    def batch(self, lines: Iterable[str]) -> None:
        """`ip LINE` on this host for each of the lines, in one process."""
        run(["ip", "-n", self.namespace, "-batch", "-"], stdin="".join(f"{line}\n" for line in lines))

    def address(self, version: int = 4, interface: str | None = None) -> str:
        """The first address of that IP version, on `interface` or any. Raises LabError if there is none."""
        for name, addresses in self.interfaces.items():
            for text in addresses:
                found = ipaddress.ip_interface(text)
                if found.version == version and interface in (None, name):
                    return str(found.ip)
        raise LabError(f"host {self.name} has no IPv{version} address on {interface or 'any interface'}")

    @property
    def v4(self) -> str:
        """The first IPv4 address."""
        return self.address(4)

    @property
    def v6(self) -> str:
        """The first IPv6 address."""
        return self.address(6)

    def offload(self, interface: str, offloads: Offloads) -> None:
        """Switch offloads of an interface."""
        if words := offloads.arguments():
            self.run(["ethtool", "-K", interface, *words])

    def route(self, destination: str, via: str, *words: object) -> None:
        """Route `destination` (a network or "default") by the neighbour `via`; `words` as `ip route` takes
        them.
        """
        family = "-6" if ":" in via else "-4"
        self.ip(family, "route", "replace", destination, "via", via, *words)

    def shape(self, interface: str, bits_per_second: float, queue: float = 0.02) -> None:
        """Let out no more than that on an interface (token bucket, tc-tbf).

        A packet may wait for `queue` seconds before the bucket drops; the bucket itself holds 2 ms.
        """
        burst = max(int(bits_per_second / 8 * 0.002), 16 * 1024)
        limit = burst + int(bits_per_second / 8 * queue)
        self.run(
            [
                "tc",
                "qdisc",
                "replace",
                "dev",
                interface,
                "root",
                "tbf",
                "rate",
                f"{int(bits_per_second)}bit",
                "burst",
                burst,
                "limit",
                limit,
            ]
        )

    def unshape(self, interface: str) -> None:
        """Take the limit of `shape` away."""
        self.run(["tc", "qdisc", "delete", "dev", interface, "root"])

    def lose(self, fraction: float, interface: str) -> None:
        """Lose that fraction of the packets that come in on an interface, before this host's conntrack
        sees them.

        Replaces what an earlier call for the same interface set; 0 takes it away.
        """
        self.set_loss("raw", "PREROUTING", ["-i", interface], fraction, f"lab loss in {interface}")

    def set_loss(self, table: str, chain: str, match: list[str], fraction: float, comment: str) -> None:
        """Put a rule that drops a random fraction, for IPv4 and IPv6, in the place of the one of that
        comment.
        """
        self.clear_rules(table, comment)
        if not fraction:
            return
        dice = ["-m", "statistic", "--mode", "random", "--probability", f"{fraction:.9f}"] if fraction < 1 else []
        for tables in ("iptables", "ip6tables"):
            self.run([tables, "-w", "-t", table, "-A", chain, *match, *dice, *comment_match(comment), "-j", "DROP"])

    def lost(self, interface: str) -> int:
        """Packets that `lose` has dropped on that interface since its last call."""
        return self.rule_packets("raw", f"lab loss in {interface}")

    def rule_packets(self, table: str, comment: str) -> int:
        """Packets counted by the iptables and ip6tables rules that bear that comment."""
        total = 0
        for tables in ("iptables-save", "ip6tables-save"):
            for line in self.run([tables, "-c", "-t", table]).stdout.splitlines():
                if f'"{comment}"' in line:
                    total += int(line[1 : line.index(":")])
        return total

    def clear_rules(self, table: str, comment: str) -> None:
        """Delete the iptables and ip6tables rules that bear that comment."""
        for tables in ("iptables", "ip6tables"):
            for line in self.run([f"{tables}-save", "-t", table]).stdout.splitlines():
                if f'"{comment}"' in line:
                    restored = f"*{table}\n-D{line.removeprefix('-A')}\nCOMMIT\n"
                    self.run([f"{tables}-restore", "--noflush", "-w"], stdin=restored)

    def quiet(self, area: str) -> None:
        """Make addresses of an interface (or "all", "default") usable at once, and keep the kernel's own
        talk down.
        """
        six = f"net.ipv6.conf.{area}."
        for name, value in (
            ("accept_dad", 0),
            ("dad_transmits", 0),
            ("accept_ra", 0),
            ("autoconf", 0),
            ("router_solicitations", 0),
        ):
            self.sysctl(six + name, value)
        # IPv4 settings are inherited from the machine, whatever they are there.
        four = f"net.ipv4.conf.{area}."
        for name, value in (
            ("rp_filter", 0),
            ("log_martians", 0),
            ("accept_redirects", 0),
            ("send_redirects", 0),
        ):
            self.sysctl(four + name, value)

    def _choose_cubic(self) -> None:
        """A namespace may only choose what the machine allows to all, at the moment of choosing
        (tcp_cong.c).
        """
        name = "net.ipv4.tcp_congestion_control"
        with contextlib.suppress(PermissionError):
            self.sysctl(name, "cubic")
            return
        with open(_LOCK, "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = _ALLOWED.read_text()
            try:
                if "cubic" not in before.split():
                    _ALLOWED.write_text(f"{before.strip()} cubic")
                self.sysctl(name, "cubic")
            except OSError as problem:
                raise LabError(f"{_ALLOWED}: cubic cannot be allowed here: {problem.strerror}") from None
            finally:
                _ALLOWED.write_text(before)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.interfaces}>"


def comment_match(text: str) -> list[str]:
    """The words that give an iptables rule a comment."""
    return ["-m", "comment", "--comment", text]


def _environment(extra: dict[str, str] | None) -> dict[str, str] | None:
    return None if extra is None else os.environ | extra
