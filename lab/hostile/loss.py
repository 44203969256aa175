"""Frames that do not arrive."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lab.behaviours import Chain, Delay, Drop

from .frames import Bursts, First, Outage, bare_ack, fin, syn
from .network import Network
from .scenario import MEASURED, Scenario, Traffic

#: Goodput that up to 3 % of loss must leave, beside plain TCP.
_TARGET = 0.9
_BULK = Traffic(size=6e5, connections=4)


def _lossy(percent: float, target: float | None, traffic: Traffic = MEASURED) -> Scenario:
    return Scenario(
        f"loss-{percent:g}",
        f"{percent:g} % of all segments with data are lost",
        lambda dice: Drop(percent / 100, dice=dice),
        traffic=traffic,
        target=target,
        rounds=3,
    )


@contextlib.contextmanager
def _statistic(network: Network) -> Iterator[None]:
    network.router.loss(0.01)
    try:
        yield
    finally:
        network.router.loss(0)


SCENARIOS = (
    Scenario("quiet", "nothing happens", traffic=MEASURED, target=_TARGET, rounds=3),
    _lossy(0.1, _TARGET),
    _lossy(0.5, _TARGET),
    _lossy(1, _TARGET),
    _lossy(3, _TARGET),
    _lossy(10, None, Traffic(size=3e5, connections=4)),
    Scenario(
        "loss-in-the-router",
        "1 % of all packets are lost, acknowledgements too (iptables -m statistic)",
        setting=_statistic,
        traffic=MEASURED,
        target=_TARGET,
        rounds=3,
    ),
    Scenario(
        "bursts-of-8",
        "0.1 % of the segments with data are lost, each with about 8 that follow",
        lambda dice: Bursts(0.001, 8, dice=dice),
        traffic=_BULK,
    ),
    Scenario(
        "bursts-of-40",
        "0.05 % of the segments with data are lost, each with about 40 that follow",
        lambda dice: Bursts(0.0005, 40, dice=dice),
        traffic=_BULK,
    ),
    Scenario(
        "lost-acknowledgements",
        "30 % of the acknowledgements without data are lost",
        lambda dice: Drop(0.3, choose=bare_ack, dice=dice),
        traffic=_BULK,
    ),
    Scenario(
        "lost-handshakes",
        "the first SYN and the first SYN-ACK of each connection are lost",
        lambda dice: First(syn),
        traffic=Traffic(size=1e6),
    ),
    Scenario(
        "lost-ends",
        "the first two FINs of each direction are lost",
        lambda dice: First(fin, 2),
        traffic=Traffic(size=1e5, connections=8),
    ),
    Scenario("outage", "nothing passes for 2 s, once", lambda dice: Outage(300, 2.0), traffic=Traffic(size=1e6)),
    Scenario(
        "loss-and-distance",
        "1 % of the segments with data are lost on a path of 20 ms",
        lambda dice: Chain(Delay(0.01), Drop(0.01, dice=dice)),
        traffic=MEASURED,
        target=_TARGET,
        rounds=3,
    ),
)
