"""What the network delivers, from wire space to plain space: the other direction of one flow.

Nothing reaches the socket but plaintext of records that verified, and segments without data. Whole records at the
start of a packet, the usual case, are opened and delivered at the place in the stream that they name, in order or
not; the kernel's own reassembly does the rest. Pieces wait in `Fragments` until a record is whole.

Sequence numbers are not authenticated, so what our socket refuses without us it must refuse with us. Two edges are
known in both spaces: the last acknowledgement that it sent, and the right edge of the window that it offered. Between
them numbers round to records. Outside, a number keeps its distance from the nearer edge, so that it stays outside, and
what it carries is neither opened nor kept.
"""

from __future__ import annotations

from typing import NamedTuple

from .fragments import Fragments, Pool
from .ledger import Ledger, Run, alike, unwrap
from .packet import Buffer
from .record import HEADER, LENGTH_MASK, OVERHEAD, Keys, Opened, open_run, whole_length

#: Bytes of kept pieces that are opened at once; the largest record fits.
_CHUNK = 1 << 16


class Delivery(NamedTuple):
    """Plaintext for the socket: chunks that follow one another from plain offset `plain` on."""

    plain: int
    plain_end: int
    chunks: list[bytes]


class Ingress:
    """Wire to plain: sequence numbers and data that we receive, acknowledgements that we send."""

    __slots__ = (
        "_repeated_at",
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
        "plain_right_edge",
        "promised",
        "right_edge",
    )

    def __init__(self, isn: int, origin: int, keys: Keys, pool: Pool | None = None) -> None:
        """`isn` is the far socket's initial sequence number, `origin` the length of its handshake message.

        `pool` bounds what all flows together leave waiting.
        """
        self.isn, self.keys = isn, keys
        self.ledger = Ledger(origin)
        self.fragments = Fragments(pool)
        #: Highest acknowledgement that our socket has sent (its rcv_wup): plain offset, and its wire counterpart.
        self.plain_acked, self.acked = 0, origin
        #: Right edge of the window that our socket offered, in both spaces; it never moves left.
        self.plain_right_edge, self.right_edge = 0, origin
        #: Where the stream ends, once a record with FINAL was opened.
        self.final_plain: int | None = None
        self.final_wire: int | None = None
        #: Wire offset at which a FIN flag was seen while its record was not yet whole.
        self.fin_claims: int | None = None
        self.auth_failures = 0
        #: Wire offset up to which we have acknowledged pieces of a record ourselves (`promise`); 0: never.
        self.promised = 0
        #: The acknowledgement, plain and wire, from which the last repeated data kept its distance.
        self._repeated_at: tuple[int, int] | None = None

    def offer(self, window: int) -> None:
        """Our socket's SYN or SYN-ACK offers `window` bytes."""
        self.plain_right_edge += window
        self.right_edge += window

    def offset(self, seq: int) -> int:
        """Wire offset of a sequence number on the network."""
        near = self.ledger.wire_edge
        return near + ((seq - self.isn - 1 - near + 0x80000000) & 0xFFFFFFFF) - 0x80000000  # unwrap, without a call

    def seq(self, plain: int) -> int:
        """The far socket's sequence number for a plain offset."""
        return self.isn + 1 + plain

    # -- data

    def keeps_until(self, wire: int, data: Buffer) -> int:
        """Where the window ends, as a wire offset, for `data` at `wire`, not below the acknowledgement.

        What lies behind is not looked at. The one record that may reach behind the right edge is the one at the left
        edge: with it a sender asks for the window, and if it is larger than the window ever gets, the stream would end
        with it.
        """
        acked, edge = self.acked, self.right_edge
        known = self.ledger.record_end(acked)
        if known > acked:
            return max(edge, known)
        if wire == acked:
            head = bytes(data[:HEADER])
        else:
            span = self.fragments.span(acked)
            head = self.fragments.read(acked, min(span[1], acked + HEADER)) if span else b""
        if not head:
            return edge
        return max(edge, acked + (whole_length(head) if len(head) == HEADER else HEADER))

    def receive(self, wire: int, data: Buffer, keep: bool = True) -> list[Delivery]:
        """Everything that `data` at wire offset `wire`, inside the window, lets us deliver.

        With `keep` pieces wait for the rest; without, our socket ignores what they came with, and so do we.
        Counts records that do not verify in `auth_failures`; they change nothing else.
        """
        deliveries: list[Delivery] = []
        if keep and self.fragments:
            done = self._finish(wire, data, deliveries)
            if done is None:
                return deliveries
            if done:
                data = memoryview(data)[done:]
                wire += done
        at, end = 0, len(data)
        while at < end:
            opened = open_run(self.keys, data[at:] if at else data, wire + at)
            if not opened.chunks:
                if keep and opened.forged and self.ledger.is_boundary(wire + at):
                    self.auth_failures += 1
                    return deliveries
                break
            if not self._accept(wire + at, opened, deliveries):
                return deliveries
            at += opened.consumed
            if opened.forged:
                self.auth_failures += 1
                return deliveries
            if opened.final:
                return deliveries
        if keep and at < end:
            self._keep(wire + at, data[at:], deliveries)
        elif keep and deliveries and self.fragments:
            self._open_kept(wire + at, deliveries)  # it waits there whole, and nobody would send it again
        return deliveries

    def _accept(self, wire: int, opened: Opened, deliveries: list[Delivery]) -> bool:
        """Enter authentic records into the ledger; False if they contradict what the sender said, or find no room."""
        plain = unwrap(opened.plain, self.ledger.plain_edge)
        end = plain + opened.plain_length
        if self.final_plain is not None and end > self.final_plain:
            return False
        chunks, ledger = opened.chunks, self.ledger
        first, at = plain, wire
        for size, length, count in alike(chunks):
            if not ledger.extend(first, at, length, size, count) and not ledger.insert(
                Run(first, at, length, size or 1)
            ):
                return False
            first, at = first + length, at + length + count * OVERHEAD
        self.keys.prove(wire)
        if self.fragments:
            self.fragments.drop(max(wire, self.promised), wire + opened.consumed)
        if opened.final:
            self.final_plain, self.final_wire = end, wire + opened.consumed
        if deliveries and deliveries[-1].plain_end == plain:
            last = deliveries[-1]
            deliveries[-1] = Delivery(last.plain, end, last.chunks + chunks)
        else:
            deliveries.append(Delivery(plain, end, chunks))
        return True

    # -- pieces

    def _finish(self, wire: int, data: Buffer, deliveries: list[Delivery]) -> int | None:
        """Mostly a packet goes on with the record that the one before it began.

        Returns how many bytes of `data` belonged to that record; None if nothing else is to be done with them.
        """
        ledger, fragments = self.ledger, self.fragments
        span = fragments.span(wire - 1)
        boundary = ledger.floor(wire - 1)[0]
        if span is None or boundary < span[0]:
            return 0
        known = ledger.record_end(boundary)
        if known == wire:
            return 0  # that record is whole, whatever lies there again
        head = fragments.read(boundary, min(wire, boundary + HEADER))
        head += bytes(data[: HEADER - len(head)])
        if known > boundary and len(head) == HEADER and whole_length(head) != known - boundary:
            fragments.drop(max(boundary, self.promised), known)
            return 0
        missing = boundary + whole_length(head) - wire if len(head) == HEADER else len(data) + 1
        if missing > len(data):
            self._keep(wire, data, deliveries)
            return None
        if missing <= 0:
            return 0
        record = b"".join((fragments.read(boundary, wire), data[:missing]))
        fragments.drop(max(boundary, self.promised), wire + missing)
        opened = open_run(self.keys, record, boundary)
        if not opened.chunks:
            self.auth_failures += 1
        elif self._accept(boundary, opened, deliveries) and not opened.final:
            return missing
        return None

    def _keep(self, wire: int, data: Buffer, deliveries: list[Delivery]) -> None:
        """Keep pieces, and open what they make whole.

        Of known records as well, which may have been lost on their way to our socket, or there: it drops what it was
        given out of order when it needs the room (tcp_prune_ofo_queue).
        """
        if self.fragments.add(wire, data):
            self._complete(wire, wire + len(data), deliveries)

    def _complete(self, start: int, end: int, deliveries: list[Delivery]) -> None:
        """Open what the new bytes [start, end) made whole: records that they touch, and what follows those."""
        ledger = self.ledger
        at: int | None = ledger.floor(start)[0]
        opened = False
        while at is not None and at < end:
            stop = self._open_kept(at, deliveries)
            if stop is None:
                return
            opened = opened or stop > at
            at = ledger.next_known(stop)
        if opened or ledger.at_wire(start) < 0:
            return
        # Records mostly come in one size: guess that those in the gap have the size of the last; a tag will tell.
        run = ledger.runs[ledger.at_wire(start)]
        stride = run.size + OVERHEAD
        first = run.wire_end + max(0, start - run.wire_end) // stride * stride
        for guess in (first, first + stride):
            if run.wire_end < guess < end and self._open_guess(guess, run.size, deliveries):
                self._open_kept(guess + stride, deliveries)
                return

    def _open_kept(self, wire: int, deliveries: list[Delivery]) -> int | None:
        """Open whole records that are kept from the boundary `wire` on.

        Returns where that ended; None if something did not verify, or nothing can follow.
        """
        fragments = self.fragments
        while True:
            span = fragments.span(wire)
            held = span[1] - wire if span else 0
            if held < OVERHEAD:
                return wire
            whole, known = whole_length(fragments.read(wire, wire + HEADER)), self.ledger.record_end(wire)
            if known > wire and whole != known - wire:
                # Junk, whose header must not say how much of what lies behind it is dropped with it.
                self.auth_failures += 1
                fragments.drop(wire, known)
                return None
            if held < whole:
                return wire
            opened = open_run(self.keys, fragments.read(wire, wire + min(held, _CHUNK)), wire)
            if not opened.chunks:
                self.auth_failures += 1
            elif self._accept(wire, opened, deliveries):
                if opened.final:
                    return None
                wire += opened.consumed
                continue
            fragments.drop(wire, wire + whole)
            return None

    def _open_guess(self, wire: int, size: int, deliveries: list[Delivery]) -> bool:
        """Open a record of `size` bytes that may begin at `wire`, if its bytes are there and its header says so."""
        fragments = self.fragments
        span = fragments.span(wire)
        if span is None or span[1] - wire < size + OVERHEAD:
            return False
        if whole_length(fragments.read(wire, wire + HEADER)) != size + OVERHEAD:
            return False
        opened = open_run(self.keys, fragments.read(wire, wire + size + OVERHEAD), wire)
        return bool(opened.chunks) and self._accept(wire, opened, deliveries)

    # -- pieces that we acknowledge ourselves

    def reach(self) -> int:
        """Wire offset up to which every byte is here, whether its record is whole or not."""
        edge = self.ledger.wire_edge
        return max(self.fragments.reach(edge), edge)

    def promise(self) -> int:
        """Wire offset up to which we may acknowledge: behind pieces that follow on what our socket has acknowledged.

        Nobody will send those again, so they are kept until the socket has acknowledged their record. The last byte of
        a record is for the socket alone to acknowledge: with it, it gets the record again that it did not take.
        """
        acked, fragments, promised = self.acked, self.fragments, self.promised
        edge = fragments.reach(acked)
        if edge > promised:
            end = self.ledger.record_end(acked)
            if end == acked and edge - acked >= OVERHEAD:
                end += OVERHEAD + (fragments.u16(acked) & LENGTH_MASK)
            if edge >= end > acked:
                edge = end - 1
            if edge > promised:
                self.promised = promised = edge
        return promised if promised > acked else acked

    def take_end(self) -> bool:
        """Whether all is here, and acknowledged, but for a FINAL record without data: from now on that is as well.

        Our socket cannot, before it hears of the FIN; and some relay sends that only behind what is acknowledged.
        """
        if self.final_wire is None or self.ledger.wire_edge != self.final_wire or self.plain_acked != self.final_plain:
            return False
        self.acknowledge(self.final_wire, self.plain_acked, 0)
        return True

    def is_broken(self) -> bool:
        """Whether pieces that were promised had to go for want of memory: then the stream cannot go on."""
        if self.promised <= self.acked:
            return False
        return self.fragments.reach(self.acked) < self.promised

    # -- numbers

    def bare_plain(self, wire: int) -> int:
        """Plain offset for a segment without data: what its sender means, in terms of what we know.

        Only a number at the left edge becomes one: the kernel believes what stands there, its timestamp above all
        (tcp_replace_ts_recent). And none becomes more than its sender can have meant: a segment with a number in the
        future would keep its window from being updated (tcp_may_update_window). Nor does one that lies in the window
        here lie behind the one that our socket offers, which may be closed: it would not look at it (tcp_sequence), and
        its own kernel says no more either (tcp_acceptable_seq). Then the edge is what is left, without its timestamp.
        """
        acked = self.acked
        if wire <= acked:
            return self.plain_acked + wire - acked
        if wire == self.final_wire:
            assert self.final_plain is not None
            return self.final_plain
        if wire > self.right_edge:
            return self.plain_right_edge + wire - self.right_edge
        if self.final_wire is not None and self.final_plain is not None and wire > self.final_wire:
            return self.final_plain + 1 + (wire > self.final_wire + 1)
        boundary, plain = self.ledger.floor(wire)
        return self._in_window(max(plain + (wire > boundary), self.plain_acked + 1))

    def piece_plain(self, wire: int, end: int) -> int:
        """Plain offset for a segment whose data [wire, end) is kept, or known, and not delivered with it.

        Its acknowledgement counts, its timestamp must not: older data, delivered later, would seem to be from before.
        """
        plain = self.bare_plain(wire)
        if end > self.ledger.wire_edge:
            plain = max(plain, self.ledger.plain_edge + 1)
        return self._in_window(plain)

    def _in_window(self, plain: int) -> int:
        """A plain offset, or the end of the window that our socket offers if it lies behind that."""
        return min(plain, max(self.plain_right_edge, self.plain_acked))

    def repeated_plain(self, wire: int) -> int:
        """Plain offset for data at `wire` that our socket has acknowledged, all of it."""
        self._repeated_at = self.plain_acked, self.acked
        return self.plain_acked + wire - self.acked

    def reset_plain(self, wire: int) -> tuple[int, bool]:
        """Plain offset for a reset, and whether it is exact: it is if the reset is (RFC 5961 section 3)."""
        ledger, acked = self.ledger, self.acked
        if wire <= acked:  # at the edge: what our socket says it has, even inside a record
            return self.plain_acked + wire - acked, wire == acked
        if wire == self.promised:
            return self.plain_acked, True  # what we said ourselves
        ended = self.final_wire is not None and self.final_plain is not None
        if self.final_wire is not None and self.final_plain is not None and wire == self.final_wire + 1:
            return self.final_plain + 1, True
        if ledger.is_boundary(wire):
            return ledger.plain_floor(wire), wire in (ledger.wire_edge, ledger.wire_top)
        # In the window, yet not where the socket is: the kernel answers with a challenge.
        beside = ledger.plain_top + 1 + ended
        if wire > self.right_edge:
            return max(beside, self.plain_right_edge) + wire - self.right_edge, False
        return beside, False

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
            if self.fragments.memory:
                self.fragments.drop(0, wire)
        elif plain > self.plain_acked:
            self.plain_acked = plain
        if wire + window > self.right_edge:
            self.right_edge = wire + window
        if plain + window > self.plain_right_edge:
            self.plain_right_edge = plain + window

    def wire_sack(self, left: int, right: int) -> tuple[int, int] | None:
        """Sequence numbers on the network of a SACK block of our socket, shrunk to whole records.

        A D-SACK block of data that was passed on at a distance from the left edge goes back by the same distance.
        """
        near = self.ledger.plain_edge
        start = unwrap(left - self.isn - 1 & 0xFFFFFFFF, near)
        end = unwrap(right - self.isn - 1 & 0xFFFFFFFF, near)
        if start >= end:
            return None
        if self._repeated_at is not None and end <= self._repeated_at[0]:
            shift = self._repeated_at[1] - self._repeated_at[0] + self.isn + 1
            return start + shift, end + shift
        block = self.ledger.wire_block(start, end)
        return None if block is None else (block[0] + self.isn + 1, block[1] + self.isn + 1)
