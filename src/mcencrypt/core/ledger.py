"""The map between plain and wire offsets of one direction of a flow.

An offset counts bytes from the SYN: offset 0 is the first byte behind it, in plain space as the local kernel's
socket sees the stream, in wire space as the network does.  Offsets are unbounded integers; 32-bit sequence numbers are
unwrapped at the edge (`unwrap`).

A `Run` stands for consecutive records of one size (the last may be shorter), so that a GSO batch is one entry and the
rest is arithmetic.  Whole records are the unit of everything that crosses from one space to the other, hence
the two roundings: an acknowledgement rounds down to a record boundary, a SACK block shrinks to whole records.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import Final

from .record import OVERHEAD

_by_plain = attrgetter("plain")
_by_wire = attrgetter("wire")


def unwrap(number: int, near: int) -> int:
    """The offset congruent to the 32-bit `number` that is nearest to the offset `near`."""
    return near + ((number - near + 0x80000000) & 0xFFFFFFFF) - 0x80000000


class Run:
    """Consecutive records: `count` of them, `size` plaintext bytes each, the last possibly fewer.

    An empty FINAL record is a run without plaintext.
    """

    __slots__ = ("blob", "blob_at", "count", "plain", "plain_end", "size", "wire", "wire_end")

    def __init__(self, plain: int, wire: int, length: int, size: int, blob: bytes = b"", blob_at: int = 0) -> None:
        """`length` plaintext bytes from `plain`; `blob` holds the sealed records from `blob_at` on (egress)."""
        self.plain, self.wire, self.size = plain, wire, size
        self.count = -(-length // size) or 1
        self.plain_end = plain + length
        self.wire_end = wire + length + self.count * OVERHEAD
        self.blob, self.blob_at = blob, blob_at

    def wire_floor(self, plain: int) -> int:
        """Wire offset of the last record boundary at or before `plain`."""
        if plain >= self.plain_end:
            return self.wire_end
        return self.wire + (plain - self.plain) // self.size * (self.size + OVERHEAD)

    def plain_floor(self, wire: int) -> int:
        """Plain offset of the last record boundary at or before `wire`."""
        if wire >= self.wire_end:
            return self.plain_end
        return self.plain + (wire - self.wire) // (self.size + OVERHEAD) * self.size

    def plain_ceil(self, wire: int) -> int:
        """Plain offset of the first record boundary at or behind `wire`."""
        return min(self.plain_end, self.plain - (self.wire - wire) // (self.size + OVERHEAD) * self.size)

    def boundary(self, index: int) -> int:
        """Wire offset at which record `index` starts; the run's end for `count`."""
        return min(self.wire_end, self.wire + index * (self.size + OVERHEAD))

    def is_boundary(self, wire: int) -> bool:
        return wire == self.wire_end or (wire - self.wire) % (self.size + OVERHEAD) == 0


class Ledger:
    """Runs in stream order.  Egress ledgers have no holes; ingress ledgers may.

    `origin` is the wire offset of plain offset 0: the length of the handshake payload.  `plain_edge` and `wire_edge` are where
    the stream is known without a hole, `plain_top` and `wire_top` the end of the last run.
    """

    __slots__ = ("origin", "plain_edge", "plain_top", "runs", "wire_edge", "wire_top")

    #: Runs kept below the acknowledgement, for D-SACK blocks and late duplicates.
    RETIRED: Final = 256
    #: Runs above the hole-free edge that an ingress ledger remembers.
    MAX_RUNS: Final = 16384

    def __init__(self, origin: int) -> None:
        self.origin = self.wire_edge = self.wire_top = origin
        self.plain_edge = self.plain_top = 0
        self.runs: list[Run] = []

    def append(self, run: Run) -> None:
        """Add what directly follows the top."""
        assert run.wire == self.wire_top and run.plain == self.plain_top, "a wire offset is used once"
        self.runs.append(run)
        self.plain_edge = self.plain_top = run.plain_end
        self.wire_edge = self.wire_top = run.wire_end

    def insert(self, run: Run) -> bool:
        """Add records wherever they belong (ingress).  False, and no change, if they contradict what is known.

        Records that are known already are no contradiction; a sender seals each offset once, so
        what overlaps is the same.
        """
        if run.wire == self.wire_top and run.plain == self.plain_top:
            last = self.runs[-1] if self.runs else None
            if (
                last is not None
                and last.size == run.size
                and last.plain_end == run.plain
                and (last.plain_end - last.plain) % last.size == 0
                and last.plain_end > last.plain
            ):
                last.count += run.count
                last.plain_end, last.wire_end = run.plain_end, run.wire_end
            else:
                self.runs.append(run)
            if self.wire_edge == run.wire:
                self.plain_edge, self.wire_edge = run.plain_end, run.wire_end
            self.plain_top, self.wire_top = run.plain_end, run.wire_end
            return True
        if run.wire < self.origin or run.plain < 0:
            return False
        index = bisect_right(self.runs, run.wire, key=_by_wire)
        before = self.runs[index - 1] if index else None
        if before is not None and run.wire < before.wire_end:
            if not before.is_boundary(run.wire) or before.plain_floor(run.wire) != run.plain:
                return False
            if run.wire_end <= before.wire_end:
                return before.is_boundary(run.wire_end)
            # The part behind `before` may be new: cut there.
            return self._insert_tail(run, before)
        if before is not None and run.plain < before.plain_end:
            return False
        after = self.runs[index] if index < len(self.runs) else None
        if after is not None and run.wire_end > after.wire:
            if not run.is_boundary(after.wire) or run.plain_floor(after.wire) != after.plain:
                return False
            head = Run(run.plain, run.wire, after.plain - run.plain, run.size)
            fits = run.wire_end <= after.wire_end or self._insert_tail(run, after)
            return fits and (head.wire_end != after.wire or self.insert(head))
        if after is not None and run.plain_end > after.plain:
            return False
        if len(self.runs) >= self.MAX_RUNS:
            return False
        self.runs.insert(index, run)
        if run.wire_end > self.wire_top:
            self.plain_top, self.wire_top = run.plain_end, run.wire_end
        while index < len(self.runs) and self.runs[index].wire == self.wire_edge:
            self.plain_edge, self.wire_edge = self.runs[index].plain_end, self.runs[index].wire_end
            index += 1
        return True

    def _insert_tail(self, run: Run, known: Run) -> bool:
        """Insert the part of `run` that lies behind `known`, which it overlaps."""
        if not run.is_boundary(known.wire_end) or run.plain_floor(known.wire_end) != known.plain_end:
            return False
        tail = Run(known.plain_end, known.wire_end, run.plain_end - known.plain_end, run.size)
        return tail.wire_end == run.wire_end and self.insert(tail)

    def at_plain(self, plain: int) -> int:
        """Index of the last run that starts at or before `plain`; -1 if there is none."""
        return bisect_right(self.runs, plain, key=_by_plain) - 1

    def at_wire(self, wire: int) -> int:
        """Index of the last run that starts at or before `wire`; -1 if there is none."""
        return bisect_right(self.runs, wire, key=_by_wire) - 1

    def wire_floor(self, plain: int) -> int:
        """Wire offset of the last known record boundary at or before `plain`, the origin if all is later."""
        if plain == self.plain_edge and self.wire_edge == self.wire_top:
            return self.wire_edge
        index = self.at_plain(plain)
        return self.runs[index].wire_floor(plain) if index >= 0 else self.origin

    def plain_floor(self, wire: int) -> int:
        """Plain offset of the last known record boundary at or before `wire`; 0 if all is later."""
        if wire == self.wire_edge:
            return self.plain_edge
        index = self.at_wire(wire)
        return self.runs[index].plain_floor(wire) if index >= 0 else 0

    def is_boundary(self, wire: int) -> bool:
        """Whether a record is known to start or end at `wire`."""
        if wire == self.wire_edge or wire == self.origin:
            return True
        index = self.at_wire(wire)
        return index >= 0 and wire <= self.runs[index].wire_end and self.runs[index].is_boundary(wire)

    def plain_block(self, start: int, end: int) -> tuple[int, int] | None:
        """The whole records inside wire offsets [start, end), as plain offsets; None if none is."""
        index = self.at_wire(start)
        if index < 0 or self.runs[index].wire_end <= start:
            index += 1
        if index >= len(self.runs):
            return None
        left = max(self.runs[index].plain, self.runs[index].plain_ceil(start))
        right = self.plain_floor(end)
        return (left, right) if left < right else None

    def wire_block(self, start: int, end: int) -> tuple[int, int] | None:
        """The whole records inside plain offsets [start, end), as wire offsets; None if none is known."""
        index = self.at_plain(start)
        if index < 0 or self.runs[index].plain_end <= start:
            index += 1
        if index >= len(self.runs):
            return None
        run = self.runs[index]
        skip = -(-(start - run.plain) // run.size) if start > run.plain else 0
        left, right = run.boundary(skip), self.wire_floor(end)
        return (left, right) if left < right else None

    def forget(self, wire: int) -> None:
        """Everything before `wire` is acknowledged: drop its ciphertext, and all but the newest of its runs."""
        runs = self.runs
        done = 0
        while done < len(runs) and runs[done].wire_end <= wire:
            done += 1
        for run in runs[max(0, done - 2 * self.RETIRED) : done]:
            run.blob = b""
        if done >= 2 * self.RETIRED:
            del runs[: done - self.RETIRED]
