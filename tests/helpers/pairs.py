"""Two nodes with a network between them, and programs that talk across it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from lab import Capture, Interrupted, Middlebox, Pair, Process, Router, TwoHosts, wait_for
from mcencrypt.store.keys import create_network_key
from tests.helpers.nodes import PORT, Node, start_all


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

    @property
    def box(self) -> Middlebox:
        """The middlebox between them, where there is one."""
        assert isinstance(self.net, Interrupted)
        return self.net.box

    def wire(self) -> Capture:
        """A capture of what passes between them."""
        if isinstance(self.net, TwoHosts):
            return Capture(self.net.router, "b")
        return Capture(self.b.host, "eth0")

    def settle(self) -> None:
        """Wait until no connection is left in either daemon's table."""
        wait_for(lambda: not any(node.connections("encrypted") for node in (self.a, self.b)), "all to end")

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
        start_all(nodes)
        yield pair
    except BaseException:
        for node in (pair.a, pair.b):
            print(f"--- log of {node.host.name}\n{node.log()[-4000:]}")
        raise
    pair.check()


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


def await_again(pair: EncryptedPair, process: Process, ready: int) -> int:
    """Wait until a talking node is ready once more than `ready` times and both daemons call that encrypted.

    Returns how many attempts to dial have failed meanwhile.
    """
    refused = event_count(process, "refused")
    wait_for(lambda: event_count(process, "ready") > ready, "the nodes to talk again")
    wait_for(lambda: pair.a.connections("encrypted"), f"{pair.a} to call it encrypted")
    wait_for(lambda: pair.b.connections("encrypted"), f"{pair.b} to call it encrypted")
    return event_count(process, "refused") - refused


def event_count(process: Any, event: str) -> int:
    """How many events of that name a `lab.node` has printed."""
    return sum(one.get("event") == event for one in process.events())
