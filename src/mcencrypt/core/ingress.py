"""What the network delivers, from wire space to plain space: the other direction of one flow.

Nothing reaches the socket but plaintext of records that verified, and segments without data.  Whole records at the
start of a packet, the usual case, are opened and delivered at the place in the stream that they name, in order or
not; the kernel's own reassembly does the rest.  Pieces wait in `Fragments` until a record is whole.
"""

from __future__ import annotations

from typing import NamedTuple

from .fragments import Fragments, Pool
from .ledger import Ledger, Run, unwrap
from .packet import Buffer
from .record import OVERHEAD, Keys, Opened, open_run, whole_length


class Delivery(NamedTuple):
    """Plaintext for the socket: chunks that follow one another from plain offset `plain` on."""

    plain: int
    plain_end: int
    chunks: list[bytes]


class Ingress:
    """Wire to plain: sequence numbers and data that we receive, acknowledgements that we send."""

    __slots__ = (
        "acked",
        "auth_failures",
        "fin_claims",
        "final_plain",
        "final_wire",
        "fragments",
        "isn",
        "keys",
        "ledger",
        "plain_acked",
        "right_edge",
    )

    def __init__(self, isn: int, origin: int, keys: Keys, pool: Pool | None = None) -> None:
        """`isn` is the far socket's initial sequence number, `origin` the length of its handshake message.

        `pool` bounds what all flows together leave waiting.
        """
        self.isn, self.keys = isn, keys
        self.ledger = Ledger(origin)
        self.fragments = Fragments(pool)
        #: Highest acknowledgement that our socket has sent: plain offset, and its wire counterpart.
        self.plain_acked, self.acked = 0, origin
        #: Right edge of the window that our socket offered, as a wire offset.
        self.right_edge = origin
        #: Where the stream ends, once a record with FINAL was opened.
        self.final_plain: int | None = None
        self.final_wire: int | None = None
        #: Wire offset at which a FIN flag was seen while its record was not yet whole.
        self.fin_claims: int | None = None
        self.auth_failures = 0

    def offset(self, seq: int) -> int:
        """Wire offset of a sequence number on the network."""
        return unwrap(seq - self.isn - 1 & 0xFFFFFFFF, self.ledger.wire_edge)

    def seq(self, plain: int) -> int:
        """The far socket's sequence number for a plain offset."""
        return self.isn + 1 + plain

    # -- data

    def receive(self, wire: int, data: Buffer) -> list[Delivery]:
        """Everything that `data` at wire offset `wire` lets us deliver; what is not whole yet is kept.

        Counts records that do not verify in `auth_failures`; they change nothing else.
        """
        if self.fragments:
            # Mostly the next piece of a record that began in the packet before this one.
            piece = self.fragments.extend(wire, data)
            if piece is not None:
                start, held = piece
                if len(held) < whole_length(held) and self.ledger.is_boundary(start):
                    return []
                self.fragments.drop(start, start + len(held))
                wire, data = start, memoryview(held)
        deliveries: list[Delivery] = []
        at, end = 0, len(data)
        while at < end:
            opened = open_run(self.keys, data[at:] if at else data, wire + at)
            if opened.chunks:
                delivery = self._accept(wire + at, opened)
                if delivery is None:
                    return deliveries
                deliveries.append(delivery)
                at += opened.consumed
                if opened.forged:
                    self.auth_failures += 1
                    return deliveries
                if not opened.final:
                    continue
                return deliveries
            if opened.forged and self.ledger.is_boundary(wire + at):
                self.auth_failures += 1
                return deliveries
            break
        if at < end and self.fragments.add(wire + at, data[at:]):
            deliveries += self._complete(wire + at, wire + end)
        return deliveries

    def _accept(self, wire: int, opened: Opened) -> Delivery | None:
        """Enter authentic records into the ledger; None if they contradict what the sender said before."""
        plain = unwrap(opened.plain, self.ledger.plain_edge)
        end = plain + opened.plain_length
        if self.final_plain is not None and end > self.final_plain:
            return None
        chunks, ledger = opened.chunks, self.ledger
        size = len(chunks[0])
        if len(chunks) == 1 or (len(chunks[-1]) <= size and size and all(len(chunk) == size for chunk in chunks[1:-1])):
            runs = [(plain, wire, opened.plain_length, size, len(chunks))]
        else:
            runs, at, stop = [], wire, plain
            for chunk in chunks:
                runs.append((stop, at, len(chunk), len(chunk), 1))
                at, stop = at + len(chunk) + OVERHEAD, stop + len(chunk)
        for first, at, length, size, count in runs:
            if not ledger.extend(first, at, length, size, count) and not ledger.insert(
                Run(first, at, length, size or 1)
            ):
                return None
        self.keys.prove(wire)
        if opened.final:
            self.final_plain, self.final_wire = end, wire + opened.consumed
        return Delivery(plain, end, chunks)

    def _complete(self, start: int, end: int) -> list[Delivery]:
        """Open what the new bytes [start, end) made whole."""
        deliveries: list[Delivery] = []
        tried: set[int] = set()
        progress = True
        while progress:
            progress = False
            piece = self.fragments.around(start) or self.fragments.around(end - 1)
            if piece is None:
                break
            at, held = piece
            for boundary, known in self._boundaries(at, at + len(held)):
                if boundary in tried:
                    continue
                tried.add(boundary)
                opened = open_run(self.keys, memoryview(bytes(held))[boundary - at :], boundary)
                if opened.chunks:
                    delivery = self._accept(boundary, opened)
                    self.fragments.drop(boundary, boundary + opened.consumed)
                    if delivery is not None:
                        deliveries.append(delivery)
                    progress = True
                if opened.forged and (known or opened.chunks):
                    self.auth_failures += 1
                    self.fragments.drop(boundary + opened.consumed, at + len(held))
                    progress = True
                if progress:
                    break
        return deliveries

    def _boundaries(self, start: int, end: int) -> list[tuple[int, bool]]:
        """(wire offset, whether known for sure) of record starts in [start, end)."""
        ledger = self.ledger
        found: list[tuple[int, bool]] = []
        if start <= ledger.wire_edge < end:
            found.append((ledger.wire_edge, True))
        index = max(0, ledger.at_wire(start))
        for run in ledger.runs[index:]:
            if run.wire >= end:
                break
            first = run.boundary(max(0, -(-(start - run.wire) // (run.size + OVERHEAD))))
            found += [(boundary, True) for boundary in (first, run.wire_end) if start <= boundary < end]
        if not found and ledger.runs:
            # Records mostly come in one size: guess that those in the gap have the size of the last; a tag will tell.
            run = ledger.runs[min(max(0, ledger.at_wire(start)), len(ledger.runs) - 1)]
            stride = run.size + OVERHEAD
            guess = run.wire_end + max(0, -(-(start - run.wire_end) // stride)) * stride
            if start <= guess < end - OVERHEAD:
                found.append((guess, False))
        return found

    # -- numbers

    def bare_plain(self, wire: int) -> int:
        """Plain offset for a segment without data: what its sender means, in terms of what we know."""
        ledger = self.ledger
        if self.final_wire is not None and self.final_plain is not None and wire > self.final_wire:
            return self.final_plain + 1
        if wire < self.acked:  # a keepalive or a zero-window probe, which only ask for an acknowledgement
            return self.plain_acked - 1
        if wire >= ledger.wire_top:
            return ledger.plain_top
        return ledger.plain_floor(wire)

    def reset_plain(self, wire: int) -> int | None:
        """Plain offset for a reset, exact only if the reset is (RFC 5961 section 3); None for one that is old."""
        if wire < self.acked:
            return None
        if self.final_wire is not None and self.final_plain is not None and wire == self.final_wire + 1:
            return self.final_plain + 1
        if wire == self.acked:
            return self.plain_acked  # what our socket says it has, even inside a record
        if self.ledger.is_boundary(wire):
            return self.ledger.plain_floor(wire)
        # In the window, yet not where the socket is: the kernel answers with a challenge.
        return self.ledger.plain_top + 1

    def wire_ack(self, number: int) -> tuple[int, int]:
        """(wire offset, plain offset) of an acknowledgement number that our socket sends."""
        ledger = self.ledger
        plain = unwrap(number - self.isn - 1 & 0xFFFFFFFF, ledger.plain_edge)
        if self.final_plain is not None and self.final_wire is not None and plain > self.final_plain:
            return self.final_wire + 1, plain
        return (ledger.wire_edge if plain >= ledger.plain_edge else ledger.wire_floor(plain)), plain

    def acknowledge(self, wire: int, plain: int, window: int) -> None:
        """Our socket has acknowledged everything before these offsets and offers `window` bytes more."""
        if wire > self.acked:
            self.acked, self.plain_acked = wire, plain
            self.ledger.forget(wire)
            if self.fragments:
                self.fragments.drop(0, wire)
        elif plain > self.plain_acked:
            self.plain_acked = plain
        if wire + window > self.right_edge:
            self.right_edge = wire + window

    def wire_sack(self, left: int, right: int) -> tuple[int, int] | None:
        """Sequence numbers on the network of a SACK block of our socket, shrunk to whole records."""
        near = self.ledger.plain_edge
        start = unwrap(left - self.isn - 1 & 0xFFFFFFFF, near)
        end = unwrap(right - self.isn - 1 & 0xFFFFFFFF, near)
        if start >= end:
            return None
        block = self.ledger.wire_block(start, end)
        return None if block is None else (block[0] + self.isn + 1, block[1] + self.isn + 1)
