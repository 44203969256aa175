"""Hosts of the lab with a daemon each: what every test of encryption on the real kernel starts from.

Sizes: by default what a build server has time for, times MCENCRYPT_TEST_SCALE; with MCENCRYPT_FULL=1 those that
mcencrypt promises to hold (1 GB on one connection, and so on).
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lab import Host, missing, wait_for
from lab.nursery import importable
from mcencrypt.control.client import NoDaemonError, request
from mcencrypt.control.replies import Connection, Status
from mcencrypt.errors import OperatorError

PORTS = (7331, 7332, 7333)
PORT = PORTS[0]
#: A port that the daemons have nothing to do with.
PLAIN_PORT = 9999
FULL = os.environ.get("MCENCRYPT_FULL", "") not in ("", "0")
#: Bytes per second on each connection that is only there to be disturbed: its send buffer is full all the same.
PACING = 4e6
SCALE = float(os.environ.get("MCENCRYPT_TEST_SCALE") or 1)


def cannot_run() -> str | None:
    """Why no daemon can run here, or None."""
    if reason := missing():
        return reason
    if importlib.util.find_spec("netfilterqueue") is None:
        return "the daemon needs the Python package NetfilterQueue"
    return None


needs_lab = pytest.mark.skipif(cannot_run() is not None, reason=str(cannot_run()))


def sized(moderate: float, full: float) -> int:
    """Bytes, connections or rounds: the acceptance size when it was asked for, else a moderate one."""
    return int(full) if FULL else max(1, int(moderate * SCALE))


class Node:
    """A host of the lab and its daemon, with files of its own. What a `Host` can do, it can do as well."""

    def __init__(
        self, host: Host, network_key: Path, *, mode: str = "require", interpreted: bool = False, **settings: Any
    ) -> None:
        """`settings`: more lines of the configuration file, such as `allow_plaintext=["10.0.0.0/8"]`.

        `interpreted`: its daemon runs the sources, and nothing that was compiled.
        """
        self.host = host
        self.directory = host.lab.directory / f"node-{host.name}"
        self.directory.mkdir()
        self.run_dir, self.state_dir = self.directory / "run", self.directory / "state"
        self.config = self.directory / "config.toml"
        self.log_file = self.directory / "log"
        given: dict[str, Any] = {
            "ports": list(PORTS),
            "network_key_file": str(network_key),
            "mode": mode,
            "run_dir": str(self.run_dir),
            "state_dir": str(self.state_dir),
            "log_level": "debug",
        }
        self.configure(**given | settings)
        # what this process was told by the environment is not meant for the daemon
        self._env = {name: "" for name in os.environ if name.startswith("MCENCRYPT_")} | importable()
        self._env["MCENCRYPT_INTERPRETED"] = "1" if interpreted else ""
        self.pid = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)

    def configure(self, **settings: Any) -> None:
        """Write the configuration file."""
        # TOML's strings, numbers and lists of them are JSON's
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))

    def rewrite(self, **settings: Any) -> None:
        """Change lines of the configuration file."""
        lines = dict(line.split(" = ", 1) for line in self.config.read_text().splitlines())
        lines |= {key: json.dumps(value) for key, value in settings.items()}
        self.config.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))

    # ------------------------------------------------------------ the daemon

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self.begin()
        self.ready()

    def begin(self) -> None:
        """Start the daemon."""
        self._process = self.host.spawn(self._words("daemon"), log=self.log_file, env=self._env)
        self.pid = self._process.pid

    def ready(self) -> None:
        """Wait until the daemon that was started answers."""

        def answering() -> bool:
            if self._process.exit_code is not None:
                self._process.failed("the daemon did not start")
            return self.answers()

        wait_for(answering, f"the daemon of {self.host.name} to answer")

    def answers(self) -> bool:
        """Whether a daemon answers."""
        try:
            request(self.run_dir, "ping")
        except NoDaemonError:
            return False
        except OperatorError as problem:
            if "reset by peer" in str(problem):  # one that is just ending
                return False
            raise
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the daemon with that signal, and wait for its end."""
        os.kill(self.pid, number)
        if self.pid == self._process.pid:
            self._process.wait()
        else:
            # one that `mcencrypt on` had started: somebody else's child
            wait_for(lambda: not Path(f"/proc/{self.pid}").exists(), "the daemon to end")

    def restart(self, number: int = signal.SIGKILL) -> None:
        """End the daemon with that signal and start it again."""
        self.kill(number)
        self.start()

    def log(self) -> str:
        """All that the daemons of this node have logged."""
        logs = (self.log_file, self.state_dir / "daemon.log")
        return "".join(log.read_text(errors="replace") for log in logs if log.exists())

    def adopt(self) -> None:
        """The daemon that runs now, started by `mcencrypt on`, is the one to kill."""
        self.pid = self.status()["pid"]

    # ------------------------------------------------------------ commands

    def mcencrypt(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the command line with this node's configuration. Raises LabError if it failed, unless not `check`."""
        return self.host.run(self._words(*words), check=check, env=self._env)

    def status(self) -> Status:
        """What the daemon says, without the detour by the command line."""
        return request(self.run_dir, "status")

    def connections(self, state: str) -> list[Connection]:
        """The connections of the status that are in that state."""
        return [one for one in self.status()["connections"] if one["state"] == state]

    def rules(self) -> list[str]:
        """Everything of mcencrypt's in iptables and ip6tables."""
        return [
            line
            for tables in ("iptables-save", "ip6tables-save")
            for line in self.host.run([tables]).stdout.splitlines()
            if "mcencrypt" in line.lower()
        ]

    def _words(self, *words: object) -> list[object]:
        return [sys.executable, "-m", "mcencrypt", "--config", self.config, *words]

    def __repr__(self) -> str:
        return f"<Node {self.host.name}>"


def start_all(nodes: Iterable[Node]) -> None:
    """Start the daemons of all these nodes beside each other, and wait until each answers."""
    started = list(nodes)
    for node in started:
        node.begin()
    for node in started:
        node.ready()
