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

from .record import OVERHEAD

#: Runs kept below the acknowledgement, for D-SACK blocks.
RETIRED = 256
#: Runs that an ingress ledger remembers, however they come; about 300 bytes of memory each.  Half of them are for
#: what lies behind a hole, so that what fills it always finds its place.
MAX_RUNS = 8192

_by_plain = attrgetter("plain")
_by_wire = attrgetter("wire")


def unwrap(number: int, near: int) -> int:
    """The offset congruent to the 32-bit `number` that is nearest to the offset `near`."""
    return near + ((number - near + 0x80000000) & 0xFFFFFFFF) - 0x80000000


def _may_follow(wire: int, plain: int, next_wire: int, next_plain: int) -> bool:
    """Whether a record may begin at the second pair of offsets when one ended at the first."""
    gap, plain_gap = next_wire - wire, next_plain - plain
    return gap == plain_gap == 0 or (gap >= OVERHEAD and 0 <= plain_gap <= gap - OVERHEAD)


class Run:
    """Consecutive records: `count` of them, `size` plaintext bytes each, the last possibly fewer.

    An empty FINAL record is a run without plaintext.
    """

    __slots__ = ("blob", "count", "lead", "plain", "plain_end", "segment", "size", "wire", "wire_end")

    def __init__(
        self, plain: int, wire: int, length: int, size: int, blob: bytes = b"", segment: int = 0, lead: int = 0
    ) -> None:
        """`length` plaintext bytes from `plain` on.

        On egress `blob` holds the sealed records, and the socket counts the run in segments of `segment` bytes, but for
        the first `lead` bytes, which end a segment that began before.
        """
        self.plain, self.wire, self.size = plain, wire, size
        self.count = -(-length // size) or 1
        self.plain_end = plain + length
        self.wire_end = wire + length + self.count * OVERHEAD
        self.blob, self.segment, self.lead = blob, segment or size, lead

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

    def takes(self, length: int) -> bool:
        """Whether `length` more bytes in records of `size` could follow: the last record is full, none empty."""
        have = self.plain_end - self.plain
        return length > 0 and have > 0 and have % self.size == 0

    def boundary(self, index: int) -> int:
        """Wire offset at which record `index` starts; the run's end for `count`."""
        return min(self.wire_end, self.wire + index * (self.size + OVERHEAD))

    def is_boundary(self, wire: int) -> bool:
        return wire == self.wire_end or (wire - self.wire) % (self.size + OVERHEAD) == 0


def run_of(plain: int, wire: int, length: int, size: int, blob: bytes, segment: int) -> Run:
    """A run, for callers that have numbers and no objects: what `Run` makes of the same, in a third of the time."""
    run: Run = Run.__new__(Run)
    run.plain, run.wire, run.size = plain, wire, size
    run.count = (length + size - 1) // size if length else 1
    run.plain_end = plain + length
    run.wire_end = wire + length + run.count * OVERHEAD
    run.blob, run.segment, run.lead = blob, segment if segment else size, 0
    return run


def alike(chunks: list[bytes]) -> list[tuple[int, int, int]]:
    """Chunks in batches of one size, of which the last may be shorter: size, length of all together, and how many."""
    batches: list[tuple[int, int, int]] = []
    size, length, count = len(chunks[0]), 0, 0
    for chunk in chunks:
        more = len(chunk)
        if count and (not 0 < more <= size or length != count * size):
            batches.append((size, length, count))
            size, length, count = more, 0, 0
        length, count = length + more, count + 1
    batches.append((size, length, count))
    return batches


class Ledger:
    """Runs in stream order.  Egress ledgers have no holes; ingress ledgers may.

    `origin` is the wire offset of plain offset 0: the length of the handshake payload.  `plain_edge` and `wire_edge`
    are where the stream is known without a hole, `plain_top` and `wire_top` the end of the last run, `plain_base` and
    `wire_base` where the runs that are still kept begin.  `bytes_inserted` and `records_inserted` count plaintext and
    records that `insert` did not know yet, each once.
    """

    __slots__ = (
        "_acked",
        "bytes_inserted",
        "origin",
        "plain_base",
        "plain_edge",
        "plain_top",
        "records_inserted",
        "runs",
        "wire_base",
        "wire_edge",
        "wire_top",
    )

    def __init__(self, origin: int) -> None:
        self.origin = self.wire_base = self.wire_edge = self.wire_top = origin
        self.plain_base = self.plain_edge = self.plain_top = 0
        self.runs: list[Run] = []
        self._acked = 0
        self.bytes_inserted = self.records_inserted = 0

    def append(self, run: Run) -> None:
        """Add what directly follows the top."""
        assert run.wire == self.wire_top and run.plain == self.plain_top, "a wire offset is used once"
        self.runs.append(run)
        self.plain_edge = self.plain_top = run.plain_end
        self.wire_edge = self.wire_top = run.wire_end

    def insert(self, run: Run) -> bool:
        """Add records wherever they belong (ingress).  False if one contradicts what is known, or finds no room.

        Records that are known already are no contradiction; a sender seals each offset once, so
        what overlaps is the same.
        """
        if run.wire == self.wire_top and run.plain == self.plain_top:
            if not self._has_room(run.wire):
                return False
            self.runs.append(run)
            if self.wire_edge == run.wire:
                self.plain_edge, self.wire_edge = run.plain_end, run.wire_end
            self.bytes_inserted += run.plain_end - run.plain
            self.records_inserted += run.count
            self.plain_top, self.wire_top = run.plain_end, run.wire_end
            return True
        for index in range(run.count):
            wire = run.boundary(index)
            plain = run.plain + index * run.size
            if not self._place(plain, wire, min(run.size, run.plain_end - plain)):
                return False
        return True

    def extend(self, plain: int, wire: int, length: int, size: int, count: int) -> bool:
        """Add `count` records to the last run (ingress).  False, and no change, if they do not continue it."""
        if wire != self.wire_top or plain != self.plain_top or not self.runs:
            return False
        last = self.runs[-1]
        if last.size != size or not last.takes(length):
            return False
        last.count += count
        last.plain_end = self.plain_top = plain + length
        last.wire_end = self.wire_top = wire + length + count * OVERHEAD
        if self.wire_edge == wire:
            self.plain_edge, self.wire_edge = self.plain_top, self.wire_top
        self.bytes_inserted += length
        self.records_inserted += count
        return True

    def _place(self, plain: int, wire: int, length: int) -> bool:
        """Insert one record that does not extend the top."""
        if wire < self.origin or plain < 0:
            return False
        runs = self.runs
        index = bisect_right(runs, wire, key=_by_wire)
        before = runs[index - 1] if index else None
        if before is not None and wire < before.wire_end:
            return before.is_boundary(wire) and before.plain_floor(wire) == plain
        end, plain_end = wire + length + OVERHEAD, plain + length
        after = runs[index] if index < len(runs) else None
        # Bytes between two records are records, too, and have their overhead.
        from_wire, from_plain = (
            (before.wire_end, before.plain_end) if before is not None else (self.wire_base, self.plain_base)
        )
        if wire >= from_wire and not _may_follow(from_wire, from_plain, wire, plain):
            return False
        if after is not None and not _may_follow(end, plain_end, after.wire, after.plain):
            return False
        if before is not None and before.wire_end == wire and length <= before.size and before.takes(length):
            before.count += 1
            before.plain_end, before.wire_end = plain_end, end
        elif not self._has_room(wire):
            return False
        else:
            runs.insert(index, Run(plain, wire, length, max(length, 1)))
            index += 1
        if wire >= self.wire_base:  # below it everything was here before, and is forgotten
            self.bytes_inserted += length
            self.records_inserted += 1
        if end > self.wire_top:
            self.plain_top, self.wire_top = plain_end, end
        if wire == self.wire_edge:
            self.plain_edge, self.wire_edge = plain_end, end
            while index < len(runs) and runs[index].wire == self.wire_edge:
                self.plain_edge, self.wire_edge = runs[index].plain_end, runs[index].wire_end
                index += 1
        return True

    def _has_room(self, wire: int) -> bool:
        """Whether a run may be added that begins at `wire`."""
        return len(self.runs) < (MAX_RUNS if wire == self.wire_edge else MAX_RUNS // 2)

    def at_plain(self, plain: int) -> int:
        """Index of the last run that starts at or before `plain`; -1 if there is none."""
        return bisect_right(self.runs, plain, key=_by_plain) - 1

    def at_wire(self, wire: int) -> int:
        """Index of the last run that starts at or before `wire`; -1 if there is none."""
        return bisect_right(self.runs, wire, key=_by_wire) - 1

    def wire_floor(self, plain: int) -> int:
        """Wire offset of the last known record boundary at or before `plain`; the base if all is later."""
        if plain == self.plain_edge and self.wire_edge == self.wire_top:
            return self.wire_edge
        index = self.at_plain(plain)
        return self.runs[index].wire_floor(plain) if index >= 0 else self.wire_base

    def plain_floor(self, wire: int) -> int:
        """Plain offset of the last known record boundary at or before `wire`; the base if all is later.

        Never less: 2^31 bytes on, a number from the start of the stream would look like one from the future.
        """
        if wire == self.wire_edge:
            return self.plain_edge
        index = self.at_wire(wire)
        return self.runs[index].plain_floor(wire) if index >= 0 else self.plain_base

    def floor(self, wire: int) -> tuple[int, int]:
        """The last known record boundary at or before `wire`: its wire and plain offset; the base if all is later."""
        index = self.at_wire(wire)
        if index < 0:
            return self.wire_base, self.plain_base
        run = self.runs[index]
        if wire >= run.wire_end:
            return run.wire_end, run.plain_end
        number = (wire - run.wire) // (run.size + OVERHEAD)
        return run.wire + number * (run.size + OVERHEAD), run.plain + number * run.size

    def record_end(self, wire: int) -> int:
        """Where the record ends that begins at the boundary `wire`, if it is known; else `wire`."""
        if wire >= self.wire_top:
            return wire
        index = self.at_wire(wire)
        if index < 0 or wire >= self.runs[index].wire_end:
            return wire
        run = self.runs[index]
        return run.boundary((wire - run.wire) // (run.size + OVERHEAD) + 1)

    def next_known(self, wire: int) -> int | None:
        """The first known record boundary behind `wire`; None if there is none."""
        index = self.at_wire(wire)
        if index >= 0 and wire < self.runs[index].wire_end:
            run = self.runs[index]
            return run.boundary((wire - run.wire) // (run.size + OVERHEAD) + 1)
        index += 1
        return self.runs[index].wire if index < len(self.runs) else None

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

    def segment_end(self, wire: int) -> int:
        """Where the socket's segment ends that holds the first byte of the record around `wire` (egress), plain."""
        run = self.runs[max(self.at_wire(wire), 0)]
        first = run.plain + run.lead
        return first + max(0, (run.plain_floor(wire) - first) // run.segment + 1) * run.segment

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
        runs, acked, count = self.runs, self._acked, len(self.runs)
        while acked < count:
            run = runs[acked]
            if run.wire_end > wire:
                break
            run.blob = b""
            acked += 1
        if acked >= 2 * RETIRED:
            last = runs[acked - RETIRED - 1]
            self.plain_base, self.wire_base = last.plain_end, last.wire_end
            del runs[: acked - RETIRED]
            acked = RETIRED
        self._acked = acked

    def between(self, start: int, end: int) -> list[memoryview]:
        """The sealed bytes of wire offsets [start, end), which must not have been forgotten (egress)."""
        pieces: list[memoryview] = []
        index = self.at_wire(start)
        while start < end:
            run = self.runs[index]
            stop = min(end, run.wire_end)
            pieces.append(memoryview(run.blob)[start - run.wire : stop - run.wire])
            start, index = stop, index + 1
        return pieces

    def records_of(self, plain: int, plain_end: int) -> tuple[int, int]:
        """Wire range of the records whose first byte lies in [plain, plain_end), or of the one that holds `plain`.

        For retransmissions: a socket cuts its stream anew each time, a record stays what it is.  Ledger without holes,
        non-empty range of known bytes.
        """
        index = max(self.at_plain(plain), 0)
        run = self.runs[index]
        start = run.boundary(max(0, -(-(plain - run.plain) // run.size)))
        last = self.runs[max(self.at_plain(plain_end - 1), 0)]
        end = last.boundary(max(0, -(-(plain_end - last.plain) // last.size)))
        if start >= end:
            start = run.wire_floor(plain)
            end = self.next_boundary(start)
        return start, end

    def next_boundary(self, wire: int) -> int:
        """The first record boundary behind `wire` (ledger without holes); the top at most."""
        run = self.runs[max(self.at_wire(wire), 0)]
        return run.boundary((wire - run.wire) // (run.size + OVERHEAD) + 1)

    def last_boundary(self, wire: int) -> int:
        """The last record boundary at or before `wire` (ledger without holes)."""
        index = self.at_wire(wire)
        if index < 0:
            return self.origin
        run = self.runs[index]
        return run.wire_end if wire >= run.wire_end else run.boundary((wire - run.wire) // (run.size + OVERHEAD))
