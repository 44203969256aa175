"""Hosts of the lab with a daemon each: what every test of encryption on the real kernel starts from.

Sizes: by default what a build server has time for, times MCENCRYPT_TEST_SCALE; with MCENCRYPT_FULL=1 those that
mcencrypt promises to hold (1 GB on one connection, and so on).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lab import (
    Capture,
    Host,
    LabError,
    Pair,
    Process,
    Recording,
    Router,
    TwoHosts,
    interrupted_pair,
    missing,
    two_hosts,
    wait_for,
)
from lab.host import importable
from lab.middlebox import passing
from mcencrypt.control.client import NoDaemonError, request
from mcencrypt.store.keys import create_network_key

PORTS = (7331, 7332, 7333)
PORT = PORTS[0]
PLAIN_PORT = 9999
"""A port that the daemons have nothing to do with."""
FULL = os.environ.get("MCENCRYPT_FULL", "") not in ("", "0")
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

    def __init__(self, host: Host, network_key: Path, *, mode: str = "require", **settings: Any) -> None:
        """`settings`: more lines of the configuration file, such as `allow_plaintext=["10.0.0.0/8"]`."""
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
        self.pid = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)

    def configure(self, **settings: Any) -> None:
        """Write the configuration file."""
        # TOML's strings, numbers and lists of them are JSON's
        self.config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))

    # ------------------------------------------------------------ the daemon

    def start(self) -> None:
        """Start the daemon and wait until it answers."""
        self._process = self.host.spawn(self._words("daemon"), log=self.log_file, env=self._env)
        self.pid = self._process.pid

        def ready() -> bool:
            if self._process.exit_code is not None:
                self._process.failed("the daemon did not start")
            return self.answers()

        wait_for(ready, f"the daemon of {self.host.name} to answer", 20)

    def answers(self) -> bool:
        """Whether a daemon answers."""
        try:
            request(self.run_dir, "ping")
        except NoDaemonError:
            return False
        return True

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the daemon with that signal, and wait for its end."""
        os.kill(self.pid, number)
        if self.pid == self._process.pid:
            self._process.wait(10)
        else:
            # one that `mcencrypt on` had started: somebody else's child
            wait_for(lambda: not Path(f"/proc/{self.pid}").exists(), "the daemon to end", 10)

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
        """Run the command line with this node's configuration.

        :raises LabError: it failed, unless not `check`.
        """
        return self.host.run(self._words(*words), check=check, env=self._env)

    def status(self) -> dict[str, Any]:
        """What the daemon says, without the detour by the command line."""
        return request(self.run_dir, "status")

    def connections(self, state: str) -> list[dict[str, Any]]:
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


class EncryptedPair:
    """Two nodes, and the network between them."""

    def __init__(self, net: TwoHosts | Pair, a: Node, b: Node) -> None:
        self.net, self.a, self.b = net, a, b
        self.lab = net.lab

    @property
    def router(self) -> Router:
        """The router between them, where there is one."""
        assert isinstance(self.net, TwoHosts)
        return self.net.router

    def wire(self) -> Capture:
        """A capture of what passes between them."""
        if isinstance(self.net, TwoHosts):
            return Capture(self.net.router, "b")
        return Capture(self.b.host, "eth0")

    def settle(self) -> None:
        """Wait until no connection is left in either daemon's table."""
        for node in (self.a, self.b):
            wait_for(lambda node=node: not node.connections("encrypted"), "all connections to end", 10)

    def check(self) -> None:
        """Nothing happened that never may: errors inside a daemon, verdicts it could not give."""
        for node in (self.a, self.b):
            assert "internal error" not in node.log(), node.log()[-3000:]
            assert "Traceback" not in node.log(), node.log()[-3000:]
            if node.answers():
                assert node.status()["queue"]["bad_verdicts"] == 0


@contextlib.contextmanager
def encrypted(
    net: TwoHosts | Pair, a: dict[str, Any] | None = None, b: dict[str, Any] | None = None, **both: Any
) -> Iterator[EncryptedPair]:
    """Daemons on both hosts of a network, with one network key. Settings for `a`, for `b` and for `both`."""
    key = net.lab.directory / "network.key"
    create_network_key(key)
    nodes = [Node(host, **{"network_key": key} | both | (own or {})) for host, own in ((net.a, a), (net.b, b))]
    pair = EncryptedPair(net, *nodes)
    try:
        for node in (pair.a, pair.b):
            node.start()
        yield pair
    except BaseException:
        for node in (pair.a, pair.b):
            print(f"--- log of {node.host.name}\n{node.log()[-4000:]}")
        raise
    pair.check()


@pytest.fixture(scope="module")
def encrypted_pair() -> Iterator[EncryptedPair]:
    """Two nodes under `require`, a strict NAT router between them. One for all tests of a module."""
    with two_hosts() as net, encrypted(net) as pair:
        yield pair


@contextlib.contextmanager
def talking(pair: EncryptedPair, version: int = 4, *, items_every: float = 0.05) -> Iterator[tuple[Process, Process]]:
    """Two nodes that speak MultiChain's framing and redial, a dialling b; with `items_every` 0 an idle connection."""
    b = pair.b.python("lab.node", "--name", "b", "--listen", PORT, "--items-every", items_every)
    b.wait_for('"listening"')
    address = f"[{pair.b.v6}]" if version == 6 else pair.b.v4
    words = ("--connect", f"{address}:{PORT}", "--items-every", items_every)
    a = pair.a.python("lab.node", "--name", "a", *words)
    try:
        for process in (a, b):
            process.wait_for('"ready"')
        yield a, b
    finally:
        a.stop()
        b.stop()


def await_again(pair: EncryptedPair, process: Process, ready: int, seconds: float) -> float:
    """Wait until a talking node is ready once more than `ready` times and both daemons call that encrypted.

    Returns how many seconds it took.
    """
    begun = time.monotonic()
    wait_for(lambda: event_count(process, "ready") > ready, "the nodes to talk again", seconds)
    for node in (pair.a, pair.b):
        wait_for(lambda node=node: node.connections("encrypted"), f"{node} to call it encrypted", seconds)
    return time.monotonic() - begun


def assert_encrypted(wire: Recording, port: int = PORT, markers: Sequence[bytes] = ()) -> None:
    """Every byte of data in a capture is handshake or record, there is some, and no marker shows."""
    from mcencrypt.reading.report import decode

    report = decode(str(wire.path), [port])
    dirty = [
        (one.verdict.value, one.client.name, one.server.name, one.notes)
        for one in report.conversations
        if one.verdict.value not in ("encrypted", "no data")
    ]
    assert not dirty and report.clean, (dirty, report.oddities)
    found = wire.search(markers) if markers else {}
    assert not any(found.values()), found


def plaintext_segments(wire: Recording, port: int, after: float = 0) -> int:
    """Segments with the first bytes of MultiChain's framing in them, captured `after` (seconds since the epoch)."""
    from lab.messages import MAGIC

    return sum(MAGIC in segment.payload for segment in wire.segments(port) if segment.time > after)


def event_count(process: Any, event: str) -> int:
    """How many events of that name a `lab.node` has printed."""
    return sum(one.get("event") == event for one in process.events())


__all__ = [
    "FULL",
    "PLAIN_PORT",
    "PORT",
    "PORTS",
    "EncryptedPair",
    "LabError",
    "Node",
    "assert_encrypted",
    "await_again",
    "encrypted",
    "event_count",
    "needs_lab",
    "plaintext_segments",
    "sized",
    "talking",
]


@pytest.fixture(scope="module")
def module_boxed() -> Iterator[EncryptedPair]:
    with interrupted_pair() as net, encrypted(net) as pair:
        yield pair


@pytest.fixture
def boxed(module_boxed: EncryptedPair) -> Iterator[EncryptedPair]:
    """Two hosts with a daemon each and a middlebox between them, which passes everything until a test wants more."""
    running = list(module_boxed.lab.processes)
    yield module_boxed
    module_boxed.net.box.behaviour = passing
    for process in module_boxed.lab.processes:
        if process not in running:
            process.stop()
    for node in (module_boxed.a, module_boxed.b):
        assert node.answers()
