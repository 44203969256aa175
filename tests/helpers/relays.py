"""Which of the lab's relays can run here, and a way with a host for them on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from lab import Host, Lab, Middlebox, Process
from lab.middlebox import Behaviour, insert, passing
from lab.relays import RELAYS, TUNNELS, Leg, absent, start_relay

__all__ = ["RELAYS", "TUNNELS", "Leg", "absent", "both_ways", "needs_relays", "skip_without", "start_relay", "way"]

MISSING: Final = [kind for kind in RELAYS if absent(kind)]
needs_relays = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


def skip_without(kind: str) -> None:
    """Skip the test where a program that it is about is not installed."""
    if lacking := absent(kind):
        pytest.skip(f"not installed: {', '.join(lacking)}")


@dataclass(frozen=True)
class Way:
    """Host a -- middlebox -- relay -- host b: 10.66.1.0/24 and fd66:1::/64 before the relay, .2 and :2 behind it."""

    lab: Lab
    a: Host
    box: Middlebox
    relay: Host
    b: Host


@contextlib.contextmanager
def way(behaviour: Behaviour = passing) -> Iterator[Way]:
    """A path with a host for relays on it, and a middlebox before that."""
    with Lab() as lab:
        a, relay, b = lab.host("a"), lab.host("relay"), lab.host("b")
        box = insert(lab, a, relay)
        lab.link(relay, "inner", b, "eth0")
        for host, interface, net, last in (
            (a, "eth0", 1, 2),
            (relay, "eth0", 1, 1),
            (relay, "inner", 2, 1),
            (b, "eth0", 2, 2),
        ):
            lab.assign(host, interface, f"10.66.{net}.{last}/24", f"fd66:{net}::{last}/64")
        with Middlebox(box, behaviour) as running:
            yield Way(lab, a, running, relay, b)


@dataclass(frozen=True)
class BothWays:
    """Host a - relay ra - middlebox - relay rb - host b: 10.66.1.0/24, 10.66.9.0/24 and 10.66.2.0/24.

    a and b know only the relay beside them, which each dials, and by which each is dialled.
    """

    lab: Lab
    a: Host
    ra: Host
    rb: Host
    b: Host
    #: Where a, and where b, finds its relay.
    entrance_a: str = "10.66.1.1"
    entrance_b: str = "10.66.2.1"

    def lose(self, probability: float) -> None:
        """That share of the packets on the legs beside a and b is lost, both ways."""
        for relay in (self.ra, self.rb):
            for chain, interface in (("INPUT", "-i"), ("OUTPUT", "-o")):
                relay.run(
                    ["iptables", "-t", "filter", "-A", chain, interface, "inner", "-p", "tcp", "-m", "statistic",
                     "--mode", "random", "--probability", probability, "-j", "DROP"]
                )  # fmt: skip

    def start(self, kinds: tuple[str, str], port: int) -> list[Process]:
        """Relays of these kinds at ra and rb, for both directions."""
        return [
            start_relay(kinds[0], self.ra, Leg("10.66.1.1", port), Leg("10.66.9.2", port)),
            start_relay(kinds[1], self.rb, Leg("10.66.9.2", port), Leg("10.66.2.2", port)),
            start_relay(kinds[1], self.rb, Leg("10.66.2.1", port), Leg("10.66.9.1", port)),
            start_relay(kinds[0], self.ra, Leg("10.66.9.1", port), Leg("10.66.1.2", port)),
        ]


@contextlib.contextmanager
def both_ways(behaviour: Behaviour = passing) -> Iterator[BothWays]:
    """Two nodes with a relay beside each."""
    with Lab() as lab:
        a, ra, rb, b = (lab.host(name) for name in ("a", "ra", "rb", "b"))
        lab.link(a, "eth0", ra, "inner")
        box = insert(lab, ra, rb)
        lab.link(rb, "inner", b, "eth0")
        for host, interface, address in (
            (a, "eth0", "10.66.1.2"),
            (ra, "inner", "10.66.1.1"),
            (ra, "eth0", "10.66.9.1"),
            (rb, "eth0", "10.66.9.2"),
            (rb, "inner", "10.66.2.1"),
            (b, "eth0", "10.66.2.2"),
        ):
            lab.assign(host, interface, f"{address}/24")
        with Middlebox(box, behaviour):
            yield BothWays(lab, a, ra, rb, b)
