"""What a scenario is: data, and functions of a seeded `random.Random`."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from lab.middlebox import Behaviour
from lab.transfers import Running

from .network import Network


@dataclass(frozen=True)
class Traffic:
    """A checked transfer: `connections` connections, on each of which both sides send `size` bytes at once."""

    size: float = 5e5
    connections: int = 2
    #: SO_RCVBUF and SO_SNDBUF in bytes, 0 for the kernel's own choice.
    rcvbuf: int = 0
    sndbuf: int = 0
    #: Seconds for all of it.
    deadline: float = 60
    #: Who dials: "a", behind the strict router, or "b", beside the attacker.
    dialler: str = "a"


#: Where goodput counts: so long that the last timeout of a connection does not decide.
MEASURED = Traffic(size=2.5e6, connections=4, deadline=120)


@dataclass(frozen=True)
class Stage:
    """What a scenario's act sees: a transfer under way, or two hosts on which it may play something of its own."""

    network: Network
    port: int
    #: IP version.
    version: int
    dice: random.Random
    #: What the middlebox does; the instance that `Scenario.behaviour` made.
    behaviour: Any
    #: Forgets all that the daemons of host b know, as a reboot does; does nothing on a plain port.
    reboot: Callable[[], None]


#: What one connection came to: `Connection` in `judge`, or an act's own.
Act = Callable[[Stage, Running], None]
Play = Callable[[Stage], list[dict[str, Any]]]


@dataclass(frozen=True)
class Scenario:
    """One way in which a path, an attacker or an end behaves."""

    #: Lower case, with hyphens; also the seed of its dice.
    name: str
    #: What happens, for the table.
    what: str
    #: Makes what the middlebox does to frames.
    behaviour: Callable[[random.Random], Behaviour] | None = None
    #: Changes hosts or router while it lasts.
    setting: Callable[[Network], AbstractContextManager[None]] | None = None
    traffic: Traffic = field(default_factory=Traffic)
    #: Done while the transfer runs.
    act: Act | None = None
    #: Played instead of a transfer; returns a report of each connection as `lab.streams` writes it.
    play: Play | None = None
    #: Goodput beside plain TCP that is the target; None where time is not what it is about.
    target: float | None = None
    #: How often plain and encrypted take their turn; the median counts.
    rounds: int = 1
    #: Whether a connection may end by an error that its application sees.
    may_end: bool = False
    #: Whether plain TCP, which believes every byte, may be seen to deliver false ones.
    tampers: bool = False
    #: Whether a connection is reset: what was still under way then is INVALID to whoever tracks connections.
    resets: bool = False
    #: Seconds long: it is played in two of the four variants.
    slow: bool = False
