"""Whoever sits at one host and types `mcencrypt` commands there."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lab.host import Host
from lab.nursery import importable

from .screen import Screen

if TYPE_CHECKING:
    from mcencrypt.control.replies import Status


class Operator:
    """Drives the real command line on one host, with the files of that host alone.

    Hosts of the lab share the machine's file system, so what is /etc, /run and /var/lib elsewhere is a folder per host
    here, named by the environment.
    """

    def __init__(
        self, host: Host, ports: Sequence[int], screen: Screen, settings: Mapping[str, str] | None = None
    ) -> None:
        """`settings`: more of the environment."""
        self.host = host
        self._screen = screen
        self.directory = host.lab.directory / f"node-{host.name}"
        self.directory.mkdir()
        self.key = self.directory / "network.key"
        self._environment = importable() | {
            "MCENCRYPT_PORTS": ",".join(map(str, ports)),
            "MCENCRYPT_NETWORK_KEY_FILE": str(self.key),
            "MCENCRYPT_STATE_DIR": str(self.directory / "state"),
            "MCENCRYPT_RUN_DIR": str(self.directory / "run"),
            **(settings or {}),
        }

    def type(self, *words: str, show: int | None = None) -> None:
        """Run `mcencrypt WORDS` and show it as it would look in a terminal, with the last `show` lines of output.

        Raises LabError if it failed.
        """
        lines = self._run(*words).splitlines()
        kept = lines if show is None else lines[-show:]
        typed = " ".join(["mcencrypt", *words])
        self._screen.command(f"{self.host.name}#", self._shorten(typed), map(self._shorten, kept))

    def ask(self, *words: str) -> str:
        """Run `mcencrypt WORDS` without showing it; returns its output. Raises LabError if it failed."""
        return self._run(*words)

    def copy_key(self, other: Operator) -> None:
        """What `scp -p` does between two machines."""
        other.key.touch(0o600)
        other.key.write_bytes(self.key.read_bytes())
        self._screen.command(f"{self.host.name}#", f"scp -p network.key {other.host.name}:", [])

    def status(self) -> Status:
        """`mcencrypt status --json`."""
        found: Status = json.loads(self._run("status", "--json"))
        return found

    def rules(self) -> list[str]:
        """Every iptables and ip6tables line of this host that is mcencrypt's."""
        return [
            line
            for tables in ("iptables-save", "ip6tables-save")
            for line in self.host.run([tables]).stdout.splitlines()
            if "mcencrypt" in line.lower()
        ]

    def log(self) -> str:
        """What the daemon has logged; empty if it has not run."""
        path = self.directory / "state" / "daemon.log"
        return path.read_text() if path.exists() else ""

    def _run(self, *words: str) -> str:
        return self.host.run([*_program(), *words], env=self._environment).stdout

    def _shorten(self, line: str) -> str:
        """The folder of this host is nothing to look at."""
        return line.replace(f"{self.directory}/", "").replace(f"{self.host.lab.directory}/", "")


def _program() -> list[str]:
    """The installed command, or the same from a source tree."""
    script = Path(sys.executable).with_name("mcencrypt")
    return [str(script)] if script.exists() else [sys.executable, "-m", "mcencrypt"]
