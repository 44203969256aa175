"""Which of the lab's relays can run here, and a way with a host for them on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from lab import Host, Lab, Middlebox
from lab.middlebox import Behaviour, insert, passing
from lab.relays import RELAYS, TUNNELS, Leg, absent, start_relay

__all__ = ["RELAYS", "TUNNELS", "Leg", "absent", "needs_relays", "skip_without", "start_relay", "way"]

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
