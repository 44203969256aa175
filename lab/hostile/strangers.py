"""Who sends into connections: blind, with random numbers, or with numbers in the window.

They stand beside host b, behind the router, whose connection tracking would keep much of this away.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from lab.middlebox import TO_B
from lab.namespace import wait_for
from lab.packets import ACK, FIN, PSH, RST, SYN, TcpFrame
from lab.transfers import Running

from .frames import Newest
from .scenario import Act, Scenario, Stage, Traffic

_WORD = 0xFFFFFFFF
#: Forged segments that are under way to the middlebox at once.
_BATCH = 50

Forger = Callable[[Stage, TcpFrame], TcpFrame]


def forge(stage: Stage, running: Running, count: int, forger: Forger | None = None) -> None:
    """That many segments toward b, made from the newest true one, while the transfer runs."""
    box, newest = stage.network.box, stage.behaviour.segments

    def begun() -> bool:
        return TO_B in newest or running.client.exit_code is not None

    wait_for(begun, "the transfer to begin")
    for number in range(count if TO_B in newest else 0):
        if running.client.exit_code is not None:
            return
        if forger is not None:
            box.inject(forger(stage, newest[TO_B]).packed(), TO_B)
        if number % _BATCH == _BATCH - 1:
            wait_for(lambda: box.waiting < 10 * _BATCH, "the middlebox to catch up")


def _act(count: int, forger: Forger) -> Act:
    return lambda stage, running: forge(stage, running, count, forger)


def _blind(flags: int, length: int = 0) -> Forger:
    """Random numbers everywhere."""

    def make(stage: Stage, seen: TcpFrame) -> TcpFrame:
        dice = stage.dice
        stamp = b"\x01\x01\x08\x0a" + struct.pack(">II", dice.getrandbits(32), dice.getrandbits(32))
        return replace(
            seen,
            sequence=dice.getrandbits(32),
            acknowledgement=dice.getrandbits(32),
            flags=flags,
            options=dice.choice((b"", stamp)),
            payload=dice.randbytes(length),
        )

    return make


def _near(flags: int, length: int = 0) -> Forger:
    """A number in the window, which is not the next one, and what the true segment says otherwise."""

    def make(stage: Stage, seen: TcpFrame) -> TcpFrame:
        sequence = seen.sequence + len(seen.payload) + stage.dice.randrange(1, 50_000)
        return replace(seen, sequence=sequence & _WORD, flags=flags, payload=stage.dice.randbytes(length))

    return make


def _old_ack(stage: Stage, seen: TcpFrame) -> TcpFrame:
    """The next number, and an acknowledgement of a little less than the true one."""
    ack = seen.acknowledgement - stage.dice.randrange(1, 20_000)
    return replace(seen, sequence=seen.sequence + len(seen.payload) & _WORD, acknowledgement=ack & _WORD, payload=b"")


def _early_ack(stage: Stage, seen: TcpFrame) -> TcpFrame:
    """The next number, and an acknowledgement of what has not arrived, or was not sent."""
    ack = seen.acknowledgement + stage.dice.randrange(1, 200_000)
    return replace(seen, sequence=seen.sequence + len(seen.payload) & _WORD, acknowledgement=ack & _WORD, payload=b"")


def _exact_reset(stage: Stage, running: Running) -> None:
    """The number that any TCP believes."""
    wait_for(lambda: "a" in stage.behaviour.segments or running.client.exit_code is not None, "an acknowledgement")
    while running.client.exit_code is None and running.server.exit_code is None:
        answer = stage.behaviour.segments["a"]
        forged = replace(
            stage.behaviour.segments[TO_B], sequence=answer.acknowledgement, flags=RST, options=b"", payload=b""
        )
        stage.network.box.inject(forged.packed(), TO_B)
        wait_for(lambda: stage.network.box.waiting < 10 * _BATCH, "the middlebox to catch up")


_FLAGS = {"data": ACK | PSH, "reset": RST, "fin": FIN | ACK, "syn": SYN, "ack": ACK}
_TRAFFIC = Traffic(size=1e6, dialler="b", deadline=30)


def _path(dice: object) -> Newest:
    return Newest(0.002)


SCENARIOS = (
    *(
        Scenario(
            f"blind-{name}",
            f"3000 forged {name.upper() if name != 'data' else 'data'} segments with random numbers",
            _path,
            traffic=_TRAFFIC,
            act=_act(3000, _blind(flags, 700 if name == "data" else 0)),
            # one in 2^32 numbers hits
            may_end=name == "reset",
            tampers=name == "data",
        )
        for name, flags in _FLAGS.items()
    ),
    Scenario(
        "near-data",
        "1000 forged data segments in the window",
        _path,
        traffic=_TRAFFIC,
        act=_act(1000, _near(ACK | PSH, 700)),
        tampers=True,
    ),
    Scenario(
        "near-reset",
        "1000 forged resets in the window, not at its edge",
        _path,
        traffic=_TRAFFIC,
        act=_act(1000, _near(RST)),
        may_end=True,
    ),
    Scenario("near-syn", "1000 forged SYNs in the window", _path, traffic=_TRAFFIC, act=_act(1000, _near(SYN))),
    Scenario(
        "near-fin",
        "1000 forged FINs in the window: plain TCP may believe one",
        _path,
        traffic=_TRAFFIC,
        act=_act(1000, _near(FIN | ACK)),
        may_end=True,
    ),
    Scenario(
        "old-acknowledgements",
        "1000 forged acknowledgements of less than was acknowledged, with the next number",
        _path,
        traffic=_TRAFFIC,
        act=_act(1000, _old_ack),
    ),
    Scenario(
        "early-acknowledgements",
        "300 forged acknowledgements of what has not arrived, with the next number: any TCP believes some",
        _path,
        traffic=replace(_TRAFFIC, deadline=10),
        act=_act(300, _early_ack),
        may_end=True,
    ),
    Scenario(
        "exact-reset",
        "a forged reset at the very edge: any TCP believes it",
        _path,
        traffic=replace(_TRAFFIC, size=20e6, connections=1),
        act=_exact_reset,
        resets=True,
        may_end=True,
    ),
)
