"""Plays a scenario on one port, and says what came of it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lab.middlebox import passing
from lab.namespace import LabError, wait_for
from lab.transfers import start

from .network import Network
from .scenario import Scenario, Stage


class Verdict(StrEnum):
    """What became of the streams, the worst of all connections."""

    IDENTICAL = "identical"
    #: Some connection ended, both applications' sockets said so, and all that was read before is true.
    ENDED = "ended"
    #: Something was neither delivered nor ended within the deadline.
    STALLED = "stalled"
    #: An end of stream came before the true one, and looked like it.
    CUT = "cut short"
    #: An application read bytes that nobody wrote there.
    TAMPERED = "tampered"


_ORDER = list(Verdict)
_NOT_IN_TIME = "not done in time"
#: Seconds for the kernel to finish what applications have closed: two repetitions of a FIN that was lost.
_CLOSING_S = 3.0


@dataclass(frozen=True)
class Judgement:
    """What one run of a scenario came to."""

    verdict: Verdict
    #: Bytes that applications read and nobody wrote there.
    tampered: int
    #: Packets that the router's connection tracking called INVALID.
    invalid: int
    #: Bytes that arrived, both ways, in a second.
    goodput: float
    #: What ended connections: names of errors.
    errors: tuple[str, ...]


def play(
    network: Network,
    scenario: Scenario,
    port: int,
    version: int,
    seed: int = 1,
    reboot: Callable[[], None] = lambda: None,
) -> Judgement:
    """Play it once on that port. The same seed gives the same dice."""
    dice = random.Random(f"{seed} {scenario.name}")
    behaviour = scenario.behaviour(dice) if scenario.behaviour else passing
    stage = Stage(network, port, version, dice, behaviour, reboot)
    before = network.router.invalid_count()
    with scenario.setting(network) if scenario.setting else contextlib.nullcontext():
        network.box.behaviour = behaviour
        try:
            reports = scenario.play(stage) if scenario.play else _transfer(scenario, stage, seed)
        finally:
            network.box.behaviour = passing
        _over(network, port)
        invalid = network.router.invalid_count() - before
        _ended(network, port)
    return judged(reports, invalid)


def _sockets(network: Network, port: int, *words: str) -> str:
    """What ss(8) says, with such words, of the sockets on that port that may still send by themselves."""
    which = ("state", "connected", "exclude", "time-wait", f"( sport = :{port} or dport = :{port} )")
    return "".join(host.run(["ss", "-Htn", *words, *which]).stdout for host in (network.a, network.b))


def _over(network: Network, port: int) -> None:
    """Wait until no packet is under way, and none will come of the run's sockets, if that comes about."""
    with contextlib.suppress(LabError):
        wait_for(lambda: not _sockets(network, port), "the sockets to be gone", _CLOSING_S)
    wait_for(lambda: network.box.waiting == 0, "the middlebox to be empty")


def _ended(network: Network, port: int) -> None:
    """End the sockets that are left, which nobody has open: what they would say later is not the next run's."""
    wait_for(lambda: not _sockets(network, port, "-K"), "the sockets to be ended")
    wait_for(lambda: network.box.waiting == 0, "the middlebox to be empty")


def _transfer(scenario: Scenario, stage: Stage, seed: int) -> list[dict[str, Any]]:
    traffic, network = scenario.traffic, stage.network
    client = network.host(traffic.dialler)
    server = network.b if client is network.a else network.a
    running = start(
        client,
        server,
        stage.port,
        version=stage.version,
        size=traffic.size,
        connections=traffic.connections,
        seed=seed,
        hashing=False,
        comparing=True,
        rcvbuf=traffic.rcvbuf,
        sndbuf=traffic.sndbuf,
        deadline=traffic.deadline,
    )
    try:
        if scenario.act:
            scenario.act(stage, running)
        result = running.result()
    except LabError:
        # one that could not even dial has no report, but says why
        errors = [event for event in running.client.events() if event.get("event") == "error"]
        if not errors:
            raise
        running.server.stop()
        return [{"error": errors[-1]["error"], "received": 0, "expected": traffic.size, "tampered": 0, "seconds": 0}]
    return [one | {"expected": traffic.size} for side in (result.client, result.server) for one in side["connections"]]


def judged(reports: list[dict[str, Any]], invalid: int) -> Judgement:
    """What reports of connections, and that many packets called INVALID, come to."""
    verdict = max((_verdict(one) for one in reports), key=_ORDER.index)
    seconds = max(one["seconds"] for one in reports)
    return Judgement(
        verdict,
        sum(one["tampered"] for one in reports),
        invalid,
        sum(one["received"] for one in reports) / seconds if seconds else 0.0,
        tuple(sorted({one["error"] for one in reports if one["error"]})),
    )


def _verdict(report: dict[str, Any]) -> Verdict:
    if report["tampered"]:
        return Verdict.TAMPERED
    if report["error"] == _NOT_IN_TIME:
        return Verdict.STALLED
    if report["error"]:
        return Verdict.ENDED
    return Verdict.IDENTICAL if report["received"] == report["expected"] else Verdict.CUT
