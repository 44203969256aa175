"""A network in a box: hosts in network namespaces, joined by links, gone again afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

from . import namespace
from .namespace import LabError, run, wait_for
from .process import Process

TOOLS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "ethtool": "ethtool",
    "iptables": "iptables",
    "ip6tables": "iptables",
    "conntrack": "conntrack",
}
_ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
_LOCK = Path("/run/mcencrypt-lab.lock")


def missing() -> str | None:
    """Why no lab can be built here, or None if one can."""
    if os.geteuid():
        return "the lab needs root (network namespaces, iptables)"
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            return f"the lab needs {tool} (apt install {package})"
    return None


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
        return [
            word for name, value in named if value is not None for word in (name, "on" if value else "off")
        ]


class Host:
    """One machine of the lab: a network namespace of its own."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name
        self.namespace = namespace.unique(lab.name, name)
        self.interfaces: dict[str, list[str]] = {}
        """Addresses with prefix length by interface, in the order in which they were made."""
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
        timeout: float = 60,
        check: bool = True,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program on this host to its end. `env` is added to the environment.

        :raises LabError: it failed (unless not `check`), with its stderr; or took longer than `timeout`
            seconds.
        """
        with self.enter():
            return run(
                [str(word) for word in argv], stdin=stdin, timeout=timeout, check=check, env=_environment(env)
            )

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
            process = Process(
                words, log or self.lab.log_file(self.name, Path(words[0]).name), _environment(env), cwd
            )
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

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, protocol: int = 0
    ) -> socket.socket:
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

    def wait_listening(self, port: int, seconds: float = 10) -> None:
        """Wait until `listening(port)`.

        :raises LabError: it did not happen within `seconds`.
        """
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

    def ip(self, *words: object) -> str:
        """`ip WORDS...` on this host; returns its output."""
        return run(["ip", "-n", self.namespace, *map(str, words)]).stdout

    def address(self, version: int = 4, interface: str | None = None) -> str:
        """The first address of that IP version, on `interface` or any.

        :raises LabError: there is none.
        """
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

        :param queue: seconds that a packet may wait before the bucket drops; the bucket itself holds 2 ms.
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
        dice = (
            ["-m", "statistic", "--mode", "random", "--probability", f"{fraction:.9f}"]
            if fraction < 1
            else []
        )
        for tables in ("iptables", "ip6tables"):
            self.run(
                [tables, "-w", "-t", table, "-A", chain, *match, *dice, *comment_match(comment), "-j", "DROP"]
            )

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


AnyHost = TypeVar("AnyHost", bound=Host)


class Lab:
    """Makes hosts and links, and takes everything down when its context ends, however it ends.

    Several labs may exist at the same time, in one process or many.
    """

    def __init__(self) -> None:
        if reason := missing():
            raise LabError(reason)
        self.name = secrets.token_hex(3)
        self.hosts: list[Host] = []
        self.processes: list[Process] = []
        self._closers = contextlib.ExitStack()
        namespace.sweep()
        self.directory = Path(tempfile.mkdtemp(prefix="mcencrypt-lab-"))
        """Logs and captures; deleted with the lab."""

    def host(self, name: str) -> Host:
        """A new host, with lo only."""
        return self.add(Host, name)

    def add(self, kind: type[AnyHost], name: str) -> AnyHost:
        """A new host of that kind."""
        return kind(self, name)

    def link(
        self,
        one: Host,
        one_interface: str,
        other: Host,
        other_interface: str,
        *,
        mtu: int = 1500,
        one_offloads: Offloads | None = None,
        other_offloads: Offloads | None = None,
    ) -> None:
        """Join two hosts by a veth pair, up at both ends, without addresses."""
        run(
            [
                "ip",
                "link",
                "add",
                one_interface,
                "netns",
                one.namespace,
                "mtu",
                str(mtu),
                "type",
                "veth",
                "peer",
                "name",
                other_interface,
                "netns",
                other.namespace,
                "mtu",
                str(mtu),
            ]
        )
        for host, interface, offloads in (
            (one, one_interface, one_offloads),
            (other, other_interface, other_offloads),
        ):
            host.quiet(interface)
            host.offload(interface, offloads or Offloads())
            host.interfaces.setdefault(interface, [])
            host.ip("link", "set", "dev", interface, "up")

    def assign(self, host: Host, interface: str, *addresses: str) -> None:
        """Give addresses with prefix length, IPv4 or IPv6, to an interface; usable at once."""
        for address in addresses:
            host.ip("address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
            host.interfaces[interface].append(address)

    def on_close(self, closer: contextlib.AbstractContextManager[object]) -> None:
        """End that context when the lab ends, before the hosts go."""
        self._closers.push(closer)

    def log_file(self, *words: str) -> Path:
        """A new file name in the lab's directory."""
        return self.directory / f"{'-'.join(words)}-{secrets.token_hex(3)}.log"

    def close(self) -> None:
        """End all programs and take all namespaces down.

        Goes on when one step fails, and raises at the end.
        """
        with contextlib.ExitStack() as steps:
            steps.callback(shutil.rmtree, self.directory, ignore_errors=True)
            for host in self.hosts:
                steps.callback(namespace.delete, host.namespace)
            for process in self.processes:
                steps.callback(process.stop)
            steps.push(self._closers.pop_all())
        self.hosts.clear()
        self.processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def comment_match(text: str) -> list[str]:
    """The words that give an iptables rule a comment."""
    return ["-m", "comment", "--comment", text]


def importable() -> dict[str, str]:
    """PYTHONPATH with which a child imports the same mcencrypt as we did, installed or not."""
    here = str(Path(__file__).resolve().parents[2])
    return {"PYTHONPATH": os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))}


def _environment(extra: dict[str, str] | None) -> dict[str, str] | None:
    return None if extra is None else os.environ | extra
