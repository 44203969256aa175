"""Which connection attempt each message 1 belongs to: a recorded one opens no other."""

from __future__ import annotations

import heapq
from typing import Final, NamedTuple

from .handshake import MAX_SKEW_MS, Refused

#: Messages that are remembered.
LIMIT: Final = 65536
#: Seconds for which each is remembered at least, so that a clock that jumps forward and back forgets none: as long as
#: one can be accepted whose sender's clock is as far ahead of ours as it may be.
REMEMBERED: Final = 2 * MAX_SKEW_MS / 1000
#: Milliseconds by which clocks differ that are set.
CLOSE_MS: Final = 2000


class _Known(NamedTuple):
    """In the order in which they go: the sender's clock, in ms since 1970, and when it came, in seconds, monotonic."""

    stamp_ms: int
    arrived: float
    ephemeral: bytes


class ReplayCache:
    """The messages of the last minutes, by the initiator's ephemeral key.

    Bounded.  What is stamped earliest goes first, and then nothing that is stamped as early is accepted any more: the
    floor.  It must not rise to what right clocks show, or whoever has the network key could shut out all others with
    messages from a clock ahead.  So the second half of the places is only for messages whose clock is not ahead, and
    while all that is remembered is later than a message it is that one that is refused.

    What is refused changes nothing.
    """

    __slots__ = ("_attempts", "_by_stamp", "_floor_ms", "limit")

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self._attempts: dict[bytes, bytes] = {}
        self._by_stamp: list[_Known] = []
        self._floor_ms = 0

    def __len__(self) -> int:
        return len(self._attempts)

    def check(self, ephemeral: bytes, attempt: bytes) -> bool:
        """Whether `ephemeral` is known to belong to this attempt (addresses, ports, initial sequence number).

        Raises Refused if it belongs to another.
        """
        seen = self._attempts.get(ephemeral)
        if seen is not None and seen != attempt:
            raise Refused("replayed", "its handshake message was used before")
        return seen is not None

    def admit(self, ephemeral: bytes, attempt: bytes, timestamp_ms: int, unix_ms: int, now: float) -> None:
        """Remember a message that its sender has stamped so, or raise Refused.

        `unix_ms` is our clock, `now` seconds, monotonic.
        """
        if self.check(ephemeral, attempt):
            return
        if timestamp_ms <= self._floor_ms:
            raise Refused("replayed", "its handshake message is older than what we can tell from a replay")
        by_stamp = self._by_stamp
        while by_stamp and by_stamp[0].stamp_ms < unix_ms - MAX_SKEW_MS and by_stamp[0].arrived <= now - REMEMBERED:
            self._forget_earliest()
        if 2 * len(by_stamp) >= self.limit and timestamp_ms > unix_ms + CLOSE_MS:
            raise Refused(
                "clock-skew",
                f"its clock is {(timestamp_ms - unix_ms) / 1000:.1f} s ahead of ours, and too many handshakes came "
                "in the last minutes to tolerate that: set both clocks",
            )
        if len(by_stamp) >= self.limit:
            if by_stamp[0].stamp_ms >= timestamp_ms:
                raise Refused("replayed", "its handshake message is older than what we can tell from a replay")
            self._forget_earliest()
        heapq.heappush(by_stamp, _Known(timestamp_ms, now, ephemeral))
        self._attempts[ephemeral] = attempt

    def _forget_earliest(self) -> None:
        known = heapq.heappop(self._by_stamp)
        del self._attempts[known.ephemeral]
        self._floor_ms = max(self._floor_ms, known.stamp_ms)
