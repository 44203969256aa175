"""Checked transfers and measurements between two hosts, in one call each."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import streams
from .host import Host
from .namespace import PATIENCE
from .process import Process

_APPS = "lab.apps"


@dataclass(frozen=True)
class Result:
    """Both ends' reports of a checked transfer."""

    client: dict[str, Any]
    server: dict[str, Any]

    @property
    def differences(self) -> list[str]:
        """What was lost, changed or broken off, a line each; empty if all streams are identical."""
        return streams.differences(self.client, self.server)

    @property
    def identical(self) -> bool:
        """Every connection delivered, in both directions, what was sent."""
        return not self.differences

    @property
    def longest_stall(self) -> float:
        """The longest time, in seconds, that any reader waited between two reads."""
        return float(max(self.client["longest_stall"], self.server["longest_stall"]))

    @property
    def received_gbps(self) -> tuple[float, float]:
        """Gbit/s that the client and the server received."""
        return self.client["received_gbps"], self.server["received_gbps"]


class Running:
    """A checked transfer under way, for those who want to disturb it."""

    def __init__(self, client: Process, server: Process, deadline: float) -> None:
        self.client = client
        self.server = server
        self._deadline = deadline

    def end(self) -> None:
        """What was started as endless ends where it is."""
        for process in (self.client, self.server):
            if process.exit_code is None:
                os.kill(process.pid, signal.SIGUSR1)

    def result(self) -> Result:
        """Wait for both ends' reports. Broken transfers have reports too: look at `Result.differences`.

        Raises LabError if an end gave no report.
        """
        # the programs keep the deadline themselves and report what is missing; they must start before and end after it
        reports = []
        for process in (self.client, self.server):
            process.wait(self._deadline + PATIENCE)
            events = [event for event in process.events() if event.get("event") == "report"]
            reports.append(events[-1] if events else process.failed("no report"))
        return Result(*reports)


def start(
    client: Host,
    server: Host,
    port: int,
    *,
    address: str | None = None,
    version: int = 4,
    mode: str = "both",
    size: float = 1_000_000,
    server_size: float | None = None,
    mixed: bool = False,
    endless: bool = False,
    connections: int = 1,
    seed: int = 1,
    hashing: bool = True,
    comparing: bool = False,
    nodelay: bool = False,
    rcvbuf: int = 0,
    sndbuf: int = 0,
    pacing: float = 0,
    deadline: float = PATIENCE,
    dialling: Sequence[object] = (),
) -> Running:
    """Start a transfer on `connections` connections that `client` dials; returns when the server listens.

    `address` is what it dials, the server's first address of that IP `version` if None; `mode` is one of
    `streams.MODES`. Each side sends `size` bytes on each connection, the server `server_size` if that is given, and
    with `mixed` each sends 1 B to 8 MB instead; `endless` goes on until `Running.end`, so that what disturbs it finds
    it under way however slow or quick the machine is. `comparing` counts, at each end, bytes that the other did not
    send. `rcvbuf` is SO_RCVBUF of both ends and `sndbuf` SO_SNDBUF, in
    bytes, 0 for the kernel's default. `pacing`: bytes that each end sends in a second on each connection at most
    (SO_MAX_PACING_RATE), 0 for no limit: what only has to be under way while something happens to it need not be as
    fast as the machine. All of it may take `deadline` seconds. `dialling` is more of the command line of
    the end that dials, such as `"--source", "10.0.0.1"`.
    """
    words: list[object] = [
        "--mode",
        mode,
        "--connections",
        connections,
        "--seed",
        seed,
        "--deadline",
        deadline,
        "--rcvbuf",
        rcvbuf,
        "--sndbuf",
        sndbuf,
        "--pacing",
        pacing,
    ]
    flags = {"--mixed": mixed, "--endless": endless, "--no-hash": not hashing, "--compare": comparing}
    words += [flag for flag, wanted in (flags | {"--nodelay": nodelay}).items() if wanted]
    assert not (mixed and mode == "closing"), "the server would have to know what the client is to send"
    sends = ("--bytes", size if server_size is None else server_size, "--awaited", size)
    serving = server.python(_APPS, "serve", port, *words, *sends)
    serving.wait_for('"listening"')
    dialler = client.python(_APPS, "dial", address or server.address(version), port, *words, "--bytes", size, *dialling)
    return Running(dialler, serving, deadline)


def transfer(client: Host, server: Host, port: int, **how: Any) -> Result:
    """`start` and wait for the result."""
    return start(client, server, port, **how).result()


def measure(
    client: Host,
    server: Host,
    port: int,
    what: str,
    *words: object,
    address: str | None = None,
    version: int = 4,
    deadline: float = PATIENCE,
) -> dict[str, Any]:
    """Run "blast", "ping", "connect" or "messages" of `apps` against its server; returns what it printed.

    `words` are more of its command line, such as `"--seconds", 3`. Raises LabError if it failed.
    """
    serving = server.python(_APPS, "sink" if what == "blast" else "echo", port)
    try:
        serving.wait_for('"listening"')
        return client.python(
            _APPS, what, address or server.address(version), port, "--deadline", deadline, *words
        ).result(deadline + PATIENCE)
    finally:
        serving.stop()
