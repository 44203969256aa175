"""Stalls in a count that no busy machine changes: the rounds of TCP's timers instead of seconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Counting(Protocol):
    """A host of the lab, or a node on one."""

    def tcp_counts(self) -> dict[str, int]: ...


class TimerRounds:
    """How often TCP's timers fire on some hosts, from now on.

    A sender that nobody answers waits 0.2 s and more for its retransmission timer, one at a closed window for that of
    its probes, and each waits twice as long the next time. A connection that goes on without them has no stall that
    anybody notices; one that stalls for a second has fired three in a row.
    """

    def __init__(self, *hosts: Counting) -> None:
        self._hosts = hosts
        self._before = self._fired()

    def _fired(self) -> int:
        return sum(total(host.tcp_counts(), ("TCPTimeouts", "TCPWinProbe")) for host in self._hosts)

    @property
    def count(self) -> int:
        """Rounds so far."""
        return self._fired() - self._before


def total(counts: dict[str, int], names: Iterable[str]) -> int:
    """The sum of those counts; what an older kernel does not count is 0."""
    return sum(counts.get(name, 0) for name in names)
