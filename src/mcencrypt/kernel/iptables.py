"""iptables-save and iptables-restore, of whichever backend the host has, as commands for `kernel.commands`."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Command, Steps
from mcencrypt.kernel.ruleset import INCOMPATIBLE

V4 = "ipv4"
V6 = "ipv6"

#: Seconds for all that one change of the rules takes, another program's lock included.
SECONDS = 20.0
_LOCK_TIMEOUT = "15"
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"
# Parts of programs' names; the last one is that of iptables before 1.8.
_KINDS = {"nft": "nft", "legacy": "legacy", "xtables-multi": "legacy"}
_VARIANTS = ("iptables", "iptables-nft", "iptables-legacy")


@dataclass(frozen=True)
class Backend:
    """One set of iptables commands, named by its IPv4 one (``iptables``, ``iptables-legacy``, or a path)."""

    name: str
    path: str

    def has(self, family: str) -> bool:
        """True if this family's commands are there."""
        return all(shutil.which(self._name(family, verb), path=self.path) for verb in ("save", "restore"))

    def command(self, family: str, verb: str) -> str:
        """The absolute path of the command for "save" or "restore". Raises OperatorError without it."""
        name = self._name(family, verb)
        found = shutil.which(name, path=self.path)
        if not found:
            raise OperatorError(
                f"{name} was not found in {self.path}: install iptables, or set MCENCRYPT_IPTABLES to its command"
            )
        return found

    @property
    def kind(self) -> str:
        """ "nft" or "legacy", by what its commands are links to; "" if that does not tell: a script, for instance.

        Raises OperatorError without it.
        """
        program = os.path.basename(os.path.realpath(self.command(V4, "save")))
        return next((kind for word, kind in _KINDS.items() if word in program), "")

    def save(self, family: str, *tables: str) -> Steps[str]:
        """These tables as text, or all that exist; naming one makes iptables-legacy create it. Raises OperatorError."""
        if not tables:
            return (yield from self._run(family, "save", []))
        text = ""
        for table in tables:
            text += yield from self._run(family, "save", ["-t", table])
        return text

    def restore(self, family: str, text: str) -> Steps[str]:
        """Apply `text` on top of what is there. Raises OperatorError."""
        return (yield from self._run(family, "restore", ["--noflush", "-w", _LOCK_TIMEOUT], text))

    @property
    def environ(self) -> dict[str, str]:
        """What its commands are run with."""
        return {"PATH": self.path, "LC_ALL": "C"}

    def _name(self, family: str, verb: str) -> str:
        directory, _, name = self.name.rpartition("/")
        if family == V6:
            name = "ip6" + name.removeprefix("ip")
        return f"{directory}/{name}-{verb}" if directory else f"{name}-{verb}"

    def _run(self, family: str, verb: str, arguments: list[str], text: str = "") -> Steps[str]:
        command = self.command(family, verb)
        done = yield Command((command, *arguments), encode(text), self.environ)
        if done.status:
            said = done.errors.decode(errors="replace")
            reason = _one_line(said) or f"exit status {done.status}"
            raise OperatorError(f"{command} failed: {reason}: {_advice(said)}")
        return decode(done.out)


def kind_shown(text: str) -> str:
    """The same by what a backend's iptables-save has shown."""
    return "nft" if "(nf_tables)" in text.partition("\n")[0] or INCOMPATIBLE.search(text) else "legacy"


def decode(text: bytes) -> str:
    """What iptables-save shows, which holds comments in whatever encoding; `encode` gives the same bytes back."""
    return text.decode(errors="surrogateescape")


def encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def backends(environ: Mapping[str, str]) -> list[Backend]:
    """The backend to use, followed by every other one on this host that may hold rules of ours.

    MCENCRYPT_IPTABLES names the first; otherwise it is ``iptables`` of PATH and the system directories.
    """
    path = f"{environ['PATH']}:{_SBIN}" if environ.get("PATH") else _SBIN
    chosen = Backend(environ.get("MCENCRYPT_IPTABLES") or "iptables", path)
    found = [chosen]
    programs = {os.path.realpath(chosen.command(V4, "save"))}
    for name in _VARIANTS:
        backend = Backend(name, path)
        if not backend.has(V4):
            continue
        program = os.path.realpath(backend.command(V4, "save"))
        if program not in programs:
            programs.add(program)
            found.append(backend)
    return found


def ipv6_in_kernel() -> bool:
    """True if the running kernel speaks IPv6, be it disabled by sysctl or not.

    False with the module not loaded and not loadable, or with ``ipv6.disable=1``. Two signs are asked, since
    a sandbox can hide the socket family (systemd's RestrictAddressFamilies) but not the file.
    """
    if Path("/proc/thread-self/net/if_inet6").exists():
        return True
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return True


def _one_line(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    # one missing part is told of once for each rule that needs it
    said = dict.fromkeys(line for line in lines if line and not line.startswith(("#", "Try `", "Error occurred")))
    return "; ".join([*said][:_TOLD]) + ("; ..." if len(said) > _TOLD else "")


#: Lines of iptables' that are repeated; those that follow speak of the same.
_TOLD = 4

#: What iptables says where a part of the kernel is missing.
_NO_MODULE = (
    "does not exist", "No such file", "Couldn't load", "missing kernel module", "Protocol not supported",
    "No chain/target/match", "Operation not supported", "unable to initialize table",
)  # fmt: skip


def _advice(stderr: str) -> str:
    if "ermission denied" in stderr or "must be root" in stderr:
        return "run as root, or with CAP_NET_ADMIN and CAP_NET_RAW"
    if "xtables lock" in stderr:
        return "another program holds the xtables lock; try again"
    if any(words in stderr for words in _NO_MODULE):
        return (
            "the kernel lacks a part that is needed (tables raw and mangle; multiport, comment, NFQUEUE); "
            "load its module, or set MCENCRYPT_IPTABLES to iptables-legacy or iptables-nft"
        )
    return "see whether the same command works by hand"
