"""Ready-made behaviours for the middlebox. Each looks at TCP only where its name says so, and lets the
rest through.

Random ones take a `random.Random`, so that a run can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .middlebox import Behaviour, Frames, Holding
from .packets import ETHERNET, FIN, PSH, RST, SYN, TcpFrame, locate, parse

Chooser = Callable[[TcpFrame], bool]


def with_data(segment: TcpFrame) -> bool:
    """Segments that carry payload, SYN or not."""
    return bool(segment.payload)


def data_only(segment: TcpFrame) -> bool:
    """Segments that carry payload and are no SYN."""
    return bool(segment.payload) and not segment.flags & SYN


class Chain:
    """One behaviour after the other; what one makes of a frame the next one gets."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = behaviours

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        return self._from(0, [(0.0, frame)], toward, now)

    def tick(self, now: float) -> list[tuple[str, bytes]]:
        """What the held-back frames of one became in those after it; their delays are not kept."""
        found = []
        for place, behaviour in enumerate(self.behaviours):
            if isinstance(behaviour, Holding):
                for toward, frame in behaviour.tick(now):
                    found += [(toward, out) for _, out in self._from(place + 1, [(0.0, frame)], toward, now)]
        return found

    def _from(self, place: int, frames: Frames, toward: str, now: float) -> Frames:
        for behaviour in self.behaviours[place:]:
            frames = [
                (before + delay, out)
                for before, frame in frames
                for delay, out in behaviour(frame, toward, now + before)
            ]
        return frames


class Delay:
    """Every frame takes `seconds`, plus up to `jitter` at random: more jitter than the gap between frames
    reorders.
    """

    def __init__(self, seconds: float, jitter: float = 0.0, dice: random.Random | None = None) -> None:
        self._seconds, self._jitter, self._dice = seconds, jitter, dice or random.Random(1)

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        return [(self._seconds + self._dice.random() * self._jitter, frame)]


class Sometimes:
    """Base of what happens to a random fraction of the TCP segments that `choose` picks.

    `count` says how often.
    """

    def __init__(self, fraction: float, choose: Chooser = with_data, dice: random.Random | None = None) -> None:
        self._fraction, self._choose, self._dice = fraction, choose, dice or random.Random(1)
        self.count = 0

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        if self._dice.random() >= self._fraction:
            return [(0.0, frame)]
        segment = parse(frame)
        if segment is None or not self._choose(segment):
            return [(0.0, frame)]
        self.count += 1
        return self.happen(frame, segment)

    def happen(self, frame: bytes, segment: TcpFrame) -> Frames:
        """What a picked segment becomes."""
        raise NotImplementedError


class Drop(Sometimes):
    """Lose it."""

    def happen(self, frame: bytes, segment: TcpFrame) -> Frames:
        """Nothing."""
        return []


class Reorder(Sometimes):
    """Hold it back, so that what follows overtakes it."""

    def __init__(self, fraction: float, seconds: float = 0.003, **more: Any) -> None:
        super().__init__(fraction, **more)
        self._seconds = seconds

    def happen(self, frame: bytes, segment: TcpFrame) -> Frames:
        """The same, later."""
        return [(self._seconds, frame)]


class Duplicate(Sometimes):
    """Send it twice, the second time after some seconds."""

    def __init__(self, fraction: float, seconds: float = 0.001, **more: Any) -> None:
        super().__init__(fraction, **more)
        self._seconds = seconds

    def happen(self, frame: bytes, segment: TcpFrame) -> Frames:
        """It, and it again."""
        return [(0.0, frame), (self._seconds, frame)]


class Corrupt(Sometimes):
    """Flip one random bit: of the payload with the checksum put right (an attacker), or anywhere in the
    TCP segment with the checksum left as it was (noise).
    """

    def __init__(self, fraction: float, fix_checksum: bool = True, **more: Any) -> None:
        super().__init__(fraction, **more)
        self._fix = fix_checksum

    def happen(self, frame: bytes, segment: TcpFrame) -> Frames:
        """It, with one bit flipped."""
        if self._fix:
            changed = flip(segment.payload, self._dice.randrange(len(segment.payload) * 8)) if segment.payload else b""
            return [(0.0, segment.with_payload(segment.sequence, changed, segment.flags).packed())]
        start = ETHERNET + len(segment.ip)
        return [(0.0, flip(frame, self._dice.randrange(start * 8, len(frame) * 8)))]


class Truncate(Sometimes):
    """Cut the end of the payload off, lengths and checksums put right: TCP has to send it again."""

    def happen(self, frame: bytes, segment: TcpFrame) -> Frames:
        """Its beginning. FIN goes with the end."""
        kept = segment.payload[: self._dice.randrange(len(segment.payload))] if segment.payload else b""
        return [(0.0, segment.with_payload(segment.sequence, kept, segment.flags & ~(FIN | PSH)).packed())]


class Split(Sometimes):
    """Cut its payload into pieces of random sizes up to `largest`: a path that resegments.

    SYNs stay whole.
    """

    def __init__(self, fraction: float = 1.0, largest: int = 700, **more: Any) -> None:
        super().__init__(fraction, **{"choose": data_only} | more)
        self._largest = largest

    def happen(self, frame: bytes, segment: TcpFrame) -> Frames:
        """The pieces in order; the last one has FIN and PSH."""
        return [(0.0, piece.packed()) for piece in split(segment, self._sizes(len(segment.payload)))]

    def _sizes(self, length: int) -> list[int]:
        sizes = []
        while length:
            sizes.append(min(length, self._dice.randint(1, self._largest)))
            length -= sizes[-1]
        return sizes


class Join:
    """Put segments of a flow that follow each other into one of up to `largest` payload bytes.

    What the link's MTU does not hold is lost. A segment waits up to `seconds` for the next one. `count`: how
    many were joined to the one before.
    """

    def __init__(self, largest: int = 1400, seconds: float = 0.002) -> None:
        self._largest, self._seconds = largest, seconds
        self._held: dict[tuple[bytes, int, bytes, int], tuple[float, str, TcpFrame]] = {}
        self.count = 0

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        segment = parse(frame)
        if segment is None:
            return [(0.0, frame)]
        out: Frames = []
        held = self._held.pop(segment.flow, None)
        if held:
            joined = join(held[2], segment) if data_only(segment) else None
            if joined and len(joined.payload) <= self._largest:
                self.count += 1
                segment = joined
            else:
                out.append((0.0, held[2].packed()))
        if data_only(segment) and len(segment.payload) < self._largest and not segment.flags & (FIN | RST):
            self._held[segment.flow] = (now, toward, segment)
            return out
        return [*out, (0.0, segment.packed())]

    def tick(self, now: float) -> list[tuple[str, bytes]]:
        """What has waited long enough."""
        due = [flow for flow, (since, _, _) in self._held.items() if now - since >= self._seconds]
        return [(toward, segment.packed()) for _, toward, segment in map(self._held.pop, due)]


class Record:
    """Lets everything through and keeps what `choose` picks, for `Middlebox.inject`."""

    def __init__(self, choose: Chooser = with_data, limit: int = 10_000) -> None:
        self._choose, self._limit = choose, limit
        #: Direction and frame, in the order they came.
        self.frames: list[tuple[str, bytes]] = []

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        if len(self.frames) < self._limit and locate(frame):
            segment = parse(frame)
            if segment and self._choose(segment):
                self.frames.append((toward, frame))
        return [(0.0, frame)]


def split(segment: TcpFrame, sizes: list[int]) -> list[TcpFrame]:
    """Cut a segment into pieces of these sizes, which together are its payload.

    The last one has FIN and PSH.
    """
    pieces, place = [], 0
    for size in sizes:
        last = place + size == len(segment.payload)
        flags = segment.flags if last else segment.flags & ~(FIN | PSH)
        pieces.append(segment.with_payload(segment.sequence + place, segment.payload[place : place + size], flags))
        place += size
    return pieces


def join(first: TcpFrame, second: TcpFrame) -> TcpFrame | None:
    """One segment in the place of two that follow each other, with the header of the second; None if they
    do not.
    """
    if first.flow != second.flow or (first.sequence + len(first.payload)) & 0xFFFFFFFF != second.sequence:
        return None
    if (first.flags | second.flags) & (SYN | RST) or first.flags & FIN:
        return None
    return second.with_payload(first.sequence, first.payload + second.payload, first.flags | second.flags)


def flip(data: bytes, bit: int) -> bytes:
    """The same bytes with one bit the other way."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
