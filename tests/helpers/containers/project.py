"""One of docker/'s compose files, running: what an operator does with it, and what the tests look at."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lab import Capture, wait_for
from tests.helpers.containers.engine import Docker

FILES = Path(__file__).resolve().parents[3] / "docker"
PORT = 7331
MARKERS = (b"INVOICE-4711", b"version\0", b"verack\0", b"getdata\0", b"MultiChain:")


class Project:
    """A compose project made from the project's own files."""

    def __init__(self, docker: Docker, file: str, environment: Mapping[str, str], override: Path | None = None) -> None:
        """`override`: a file of the operator's own, beside the project's."""
        self.docker = docker
        self.name = f"t{secrets.token_hex(3)}"
        self._file = FILES / file
        self._files = [self._file, *([override] if override else [])]
        self.environment = dict(environment)

    def compose(self, *words: object, check: bool = True, timeout: float = 180) -> str:
        """`docker compose WORDS...`; returns its output."""
        done = self.docker.compose(
            "--project-name",
            self.name,
            *(word for file in self._files for word in ("--file", file)),
            *words,
            directory=self._file.parent,
            env=self.environment,
            check=check,
            timeout=timeout,
        )
        return done.stdout

    def container(self, service: str) -> str:
        """The id of a service's container."""
        labels = (f"com.docker.compose.project={self.name}", f"com.docker.compose.service={service}")
        filters = [word for label in labels for word in ("--filter", f"label={label}")]
        (found,) = self.docker("ps", "-aq", *filters).stdout.split()
        return str(found)

    def exec(self, service: str, *words: object) -> str:
        """What an operator runs with `docker compose exec`."""
        return self.compose("exec", "-T", service, *words)

    def inside(self, service: str, *words: object) -> str:
        """The output of a program in a service's container, by the shorter way of `docker exec`."""
        return self.docker("exec", self.container(service), *words).stdout

    def status(self, service: str) -> dict[str, Any]:
        """`mcencrypt status --json` of a sidecar."""
        found: dict[str, Any] = json.loads(self.inside(service, "mcencrypt", "status", "--json"))
        return found

    def events(self, service: str, event: str, since: float = 0) -> list[dict[str, Any]]:
        """What a node has reported; `since`: seconds since the epoch."""
        written = self.docker("logs", "--since", f"{since:.6f}", self.container(service)).stdout
        found = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
        return [one for one in found if one["event"] == event]

    def await_items(self, *services: str, since: float) -> None:
        """Wait until each of these nodes has got items of others since then."""
        for service in services:
            wait_for(partial(self.events, service, "item", since), f"items at {service}")

    def namespace(self, service: str) -> str:
        """Which network namespace a service's container is in."""
        return os.readlink(f"/proc/{self.docker.pid(self.container(service))}/ns/net")

    def bridge(self, network: str) -> str:
        """The interface, on Docker's host, of one of the project's networks."""
        return f"br-{self.docker.inspect(f'{self.name}_{network}')['Id'][:12]}"

    def wire(self, network: str) -> Capture:
        """A capture of everything that crosses one of the project's networks."""
        bridge = self.bridge(network)
        # a bridge shows what it passes from port to port only if asked to
        self.docker.host.ip("link", "set", "dev", bridge, "promisc", "on", "up")
        return Capture(self.docker.host, bridge)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Down again, with its volumes, when the context ends."""
        try:
            yield
        finally:
            self.compose("down", "--volumes", "--timeout", "3", check=False)


def now() -> float:
    """Seconds since the epoch."""
    return time.time()
