"""Behaviours of a path that `lab.behaviours` has not got: what firewalls and bad links do to frames."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lab.behaviours import Chooser, Sometimes
from lab.middlebox import Frames
from lab.packets import ACK, ETHERNET, FIN, RST, SYN, TcpFrame, ones_complement_sum, parse

_WORD = 0xFFFFFFFF
_END, _NOTHING, _MSS, _SACK = 0, 1, 2, 5


def bare_ack(segment: TcpFrame) -> bool:
    """Acknowledgements without data."""
    return not segment.payload and segment.flags & (ACK | SYN | FIN | RST) == ACK


def syn(segment: TcpFrame) -> bool:
    """SYN and SYN-ACK."""
    return bool(segment.flags & SYN)


def fin(segment: TcpFrame) -> bool:
    """The end of a direction."""
    return bool(segment.flags & FIN)


class Bursts(Sometimes):
    """Lose a segment and those that come behind it: as many as a geometric distribution of mean `length` says."""

    def __init__(self, fraction: float, length: float, **more: Any) -> None:
        super().__init__(fraction, **more)
        self._length, self._left = length, 0

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        if self._left and parse(frame):
            self._left -= 1
            return []
        return super().__call__(frame, toward, now)

    def happen(self, frame: bytes, segment: TcpFrame) -> Frames:
        """Nothing; nor will be what follows."""
        self._left = int(self._dice.expovariate(1 / self._length))
        return []


class Outage:
    """Nothing passes for some seconds, once, when that many segments with data have passed."""

    def __init__(self, after: int, seconds: float) -> None:
        self._left, self._seconds = after, seconds
        self._until: float | None = None

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        if self._until is None:
            segment = parse(frame)
            self._left -= bool(segment and segment.payload)
            if self._left > 0:
                return [(0.0, frame)]
            self._until = now + self._seconds
        return [] if now < self._until else [(0.0, frame)]


class First:
    """Lose the first `count` segments of each direction of each connection that `choose` picks."""

    def __init__(self, choose: Chooser, count: int = 1) -> None:
        self._choose, self._count = choose, count
        self._seen: dict[tuple[bytes, int, bytes, int], int] = {}

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        segment = parse(frame)
        if segment is None or not self._choose(segment):
            return [(0.0, frame)]
        seen = self._seen[segment.flow] = self._seen.get(segment.flow, 0) + 1
        return [] if seen <= self._count else [(0.0, frame)]


class Swap:
    """Every so many segments with data, two change places."""

    def __init__(self, every: int) -> None:
        self._every, self._count = every, 0
        self._held: dict[str, bytes] = {}

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        held = self._held.pop(toward, None)
        if held is not None:
            return [(0.0, frame), (0.0, held)]
        segment = parse(frame)
        self._count += bool(segment and segment.payload)
        if segment and segment.payload and self._count % self._every == 0 and not segment.flags & SYN:
            self._held[toward] = frame
            return []
        return [(0.0, frame)]

    def tick(self, now: float) -> list[tuple[str, bytes]]:
        """What no second one came for."""
        due, self._held = list(self._held.items()), {}
        return due


class Stepped:
    """The path takes another while every so many seconds: what left later arrives earlier."""

    def __init__(self, seconds: tuple[float, ...], every: float) -> None:
        self._seconds, self._every = seconds, every

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        return [(self._seconds[int(now / self._every) % len(self._seconds)], frame)]


def options_of(segment: TcpFrame) -> list[tuple[int, int, int]]:
    """Kind, begin and end of each TCP option."""
    found, at, raw = [], 0, segment.options
    while at < len(raw) and raw[at] != _END:
        size = 1 if raw[at] == _NOTHING else raw[at + 1] if at + 1 < len(raw) else 0
        if size < 1 or at + size > len(raw):
            break
        if raw[at] != _NOTHING:
            found.append((raw[at], at, at + size))
        at += size
    return found


class Changed:
    """Put another segment in the place of each that `change` has something for."""

    def __init__(self, change: Callable[[TcpFrame], TcpFrame | None]) -> None:
        self._change = change

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        segment = parse(frame)
        changed = self._change(segment) if segment else None
        return [(0.0, changed.packed() if changed else frame)]


def clamped(mss: int) -> Changed:
    """MSS of SYNs is at most that (TCPMSS --set-mss)."""

    def change(segment: TcpFrame) -> TcpFrame | None:
        if not segment.flags & SYN:
            return None
        raw = bytearray(segment.options)
        for kind, begin, end in options_of(segment):
            if kind == _MSS and int.from_bytes(raw[begin + 2 : end], "big") > mss:
                raw[begin + 2 : end] = mss.to_bytes(2, "big")
        return replace(segment, options=bytes(raw))

    return Changed(change)


def blanked(*kinds: int) -> Changed:
    """These options of SYNs are overwritten (TCPOPTSTRIP)."""

    def change(segment: TcpFrame) -> TcpFrame | None:
        if not segment.flags & SYN:
            return None
        raw = bytearray(segment.options)
        for kind, begin, end in options_of(segment):
            if kind in kinds:
                raw[begin:end] = bytes([_NOTHING]) * (end - begin)
        return replace(segment, options=bytes(raw))

    return Changed(change)


def without_syn_data() -> Changed:
    """SYNs lose their data, as behind a proxy that completes handshakes."""
    return Changed(lambda segment: replace(segment, payload=b"") if segment.flags & SYN and segment.payload else None)


class Renumbered:
    """Sequence numbers of each direction are shifted by a random amount, as some firewalls do.

    Those of connections whose SYN came by: what an earlier one still sends passes as it is.
    `sack`: whether they think of the numbers in SACK blocks; those that do not are old, and known for it.
    """

    def __init__(self, dice: random.Random, sack: bool = True) -> None:
        self._dice, self._sack = dice, sack
        self._shifts: dict[tuple[bytes, int, bytes, int], int] = {}

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        segment = parse(frame)
        if segment is None:
            return [(0.0, frame)]
        there, back = segment.flow, segment.flow[2:] + segment.flow[:2]
        if there not in self._shifts and not segment.flags & SYN:
            return [(0.0, frame)]
        shift = self._shifts.setdefault(there, self._dice.getrandbits(32))
        other = self._shifts.setdefault(back, self._dice.getrandbits(32))
        options = bytearray(segment.options)
        if self._sack:
            for kind, begin, end in options_of(segment):
                for at in range(begin + 2, end if kind == _SACK else 0, 4):
                    number = int.from_bytes(options[at : at + 4], "big") - other & _WORD
                    options[at : at + 4] = number.to_bytes(4, "big")
        ack = segment.acknowledgement - other & _WORD if segment.flags & ACK else 0
        changed = replace(
            segment, sequence=segment.sequence + shift & _WORD, acknowledgement=ack, options=bytes(options)
        )
        return [(0.0, changed.packed())]


class Marked(Sometimes):
    """Mark packets that may be marked (ECT) as having met congestion (RFC 3168)."""

    def happen(self, frame: bytes, segment: TcpFrame) -> Frames:
        """It, with CE where there was ECT."""
        ip = bytearray(segment.ip)
        if segment.version == 4 and ip[1] & 3:
            ip[1] |= 3
            ip[10:12] = b"\0\0"
            ip[10:12] = (0xFFFF - ones_complement_sum(bytes(ip))).to_bytes(2, "big")
        elif segment.version == 6 and ip[1] & 0x30:
            ip[1] |= 0x30
        return [(0.0, frame[:ETHERNET] + bytes(ip) + frame[ETHERNET + len(ip) :])]


class Ahead(Sometimes):
    """A forged copy runs ahead: the same numbers, other data, a right checksum."""

    def happen(self, frame: bytes, segment: TcpFrame) -> Frames:
        """The forged one, then the true one."""
        forged = self._dice.randbytes(len(segment.payload))
        return [(0.0, segment.with_payload(segment.sequence, forged, segment.flags).packed()), (0.0, frame)]


class Newest:
    """Lets everything through after a while, and remembers the newest segment of each direction."""

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay
        #: By the side that it went to.
        self.segments: dict[str, TcpFrame] = {}
        #: The frames with data, up to a thousand.
        self.data: list[tuple[str, bytes]] = []

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        segment = parse(frame)
        if segment and not segment.flags & (SYN | RST):
            self.segments[toward] = segment
            if segment.payload and len(self.data) < 1000:
                self.data.append((toward, frame))
        return [(self._delay, frame)]
