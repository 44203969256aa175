"""The two programs whose conversation is to be encrypted, as the demo needs them."""

from __future__ import annotations

from collections import Counter
from typing import Any, Protocol

from lab import TwoHosts, messages, wait_for
from lab.process import Process
from mcencrypt.cli.text import plural

P2P_PORT = 7331
MARKER = "INVOICE-4711"
#: Seconds that anything the nodes do may take before the demo gives up.
PATIENCE = 20.0


class Nodes(Protocol):
    """Two nodes that are connected, or connect again by themselves."""

    #: P2P ports.
    ports: tuple[int, ...]
    #: What the wire shows of their conversation in plaintext. Long enough never to appear by chance.
    markers: tuple[bytes, ...]
    #: How soon they must be connected after encryption is on at both ends.
    seconds_to_reconnect: float

    def start(self) -> list[str]:
        """Start both and connect them; returns lines about it. Raises LabError."""
        ...

    def exchange(self) -> list[str]:
        """Wait until something new has crossed in both directions, unharmed; returns lines. Raises LabError."""
        ...

    def expect_reset(self) -> None:
        """From now on only a new connection counts for `wait_connected`."""
        ...

    def wait_connected(self) -> list[str]:
        """Until both have a connection on which they have shaken hands; returns lines about the one before, if that
        was expected to end. Raises LabError."""
        ...


class LabNodes:
    """Two `lab.node` programs: node a dials node b, both publish items and blocks of 2 MB."""

    ports: tuple[int, ...] = (P2P_PORT,)
    markers: tuple[bytes, ...] = (
        MARKER.encode(),
        *(messages.MAGIC + name for name in (b"version\0", b"ping\0", b"tx\0", b"block\0")),
    )
    seconds_to_reconnect = 2.0

    def __init__(self, net: TwoHosts) -> None:
        self._net = net
        self._programs: dict[str, Process] = {}
        self._before: dict[str, int] = {}

    def start(self) -> list[str]:
        net = self._net
        for host, words in ((net.b, ["--listen", P2P_PORT]), (net.a, ["--connect", f"{net.b.v4}:{P2P_PORT}"])):
            self._programs[host.name] = host.python(
                "lab.node",
                *("--name", host.name, "--marker", MARKER, "--ping-every", 1),
                *("--items-every", 0.4, "--blocks-every", 1.5),
                *words,
            )
        self.wait_connected()
        return [
            f"b listens on port {P2P_PORT}, a dials it: version, verack, pings, items, blocks of 2 MB,",
            "in the message framing that MultiChain has from Bitcoin",
        ]

    def exchange(self) -> list[str]:
        before = {name: len(program.events()) for name, program in self._programs.items()}
        news: dict[str, Counter[str]] = {}

        def enough() -> bool:
            for name, program in self._programs.items():
                news[name] = Counter(event["event"] for event in program.events()[before[name] :])
            return all(count["item"] >= 2 and count["block"] >= 1 for count in news.values())

        wait_for(enough, "items and blocks to cross in both directions", PATIENCE)
        self._compare()
        return [
            f"{name} received {count['item']} items and {plural(count['block'], 'block')} of 2 MB, as they were sent"
            for name, count in sorted(news.items())
        ]

    def expect_reset(self) -> None:
        self._before = {name: len(program.events()) for name, program in self._programs.items()}

    def wait_connected(self) -> list[str]:
        wait_for(lambda: all(map(self._connected, self._programs)), "the nodes to shake hands", PATIENCE)
        lines = []
        for name in sorted(self._programs):
            ends = [event for event in self._since(name) if event["event"] in ("reset", "closed")]
            if ends:
                lines.append(f"node {name} says: {ends[0]['event']} ({ends[0].get('error', 'end of stream')})")
        return lines

    def _since(self, name: str) -> list[dict[str, Any]]:
        return self._programs[name].events()[self._before.get(name, 0) :]

    def _connected(self, name: str) -> bool:
        """Whether the node has shaken hands on a connection that still lasts, and is a new one if it must be."""
        last = ""
        for event in self._since(name):
            if event["event"] in ("ready", "reset", "closed", "timeout", "garbage"):
                last = event["event"]
        return last == "ready"

    def _compare(self) -> None:
        """What one received the other has published, by SHA-256."""
        published: set[Any] = set()
        received: set[Any] = set()

        def complete() -> bool:
            events = [event for program in self._programs.values() for event in program.events()]
            published.update(event["sha256"] for event in events if event["event"] == "published")
            return received <= published

        for program in self._programs.values():
            received.update(event["sha256"] for event in program.events() if event["event"] in ("item", "block"))
        wait_for(complete, "every item and block received to be one that was sent", 2)
