"""What the local socket sends, from plain space to wire space: one direction of one flow.

Each byte is sealed once, when it is first seen, and the sealed records are kept until the far side
acknowledges them.  Whatever the socket does afterwards - retransmit, join, split, probe - the wire sees
these same records, whole: a retransmission sends every record that starts in the retransmitted range, and what
does not fit one packet follows in packets of its own.

A small batch mostly ends a few bytes past its last full segment, because of our overhead.  While the socket has more to
send (no PSH), those bytes are held and open the next batch: otherwise every batch would add a short packet of its own,
which on a path with loss costs a fifth of the goodput.  Whatever repeats, pushes or ends the stream brings them out.

What travels is a `Part`: a wire range and whether it goes in place of the socket's own packet.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from .ledger import Ledger, Run, unwrap
from .packet import Buffer
from .record import MAX_PLAIN, OVERHEAD, Keys, seal

#: Plaintext bytes sealed without a retransmission after which a path counts as calm.
CALM_AFTER: Final = 4 << 20
#: Segments that one record of a GSO batch spans on a calm path.
SEGMENTS_WHEN_CALM: Final = 6
#: Payload bytes up to which a packet counts as small, so that its last bytes may be held.
SMALL: Final = 24 << 10
#: Payload bytes down to which a record is cut for a socket that tries smaller segments: all hosts take packets of 576.
SMALLEST_SLICE: Final = 512
#: The smallest record worth cutting a GSO batch for, in plaintext bytes.
SMALLEST_RECORD: Final = 64


class Part(NamedTuple):
    """Wire offsets [start, end) to be sent in one packet."""

    start: int
    end: int


class Egress:
    """Plain to wire: sequence numbers and data that we send, acknowledgements that we receive."""

    __slots__ = (
        "bytes_sealed",
        "calm_from",
        "final_plain",
        "forced",
        "held",
        "isn",
        "keys",
        "largest_window",
        "ledger",
        "plain_una",
        "records_sealed",
        "retransmissions",
        "right_edge",
        "sacked",
        "sent",
        "shown_edge",
        "una",
    )

    def __init__(self, isn: int, origin: int, keys: Keys) -> None:
        """`isn` is the local socket's initial sequence number, `origin` the length of our handshake message."""
        self.isn, self.keys = isn, keys
        self.ledger = Ledger(origin)
        #: Highest acknowledgement that was passed on in a segment that our socket takes: wire offset, and its plain
        #: counterpart.
        self.una, self.plain_una = origin, 0
        #: The right edge of the window that the far side offers, as a wire offset; it never moves left.
        self.right_edge = origin
        #: The same as our socket was shown it, as a plain offset; and the largest window that it was shown.
        self.shown_edge = self.largest_window = 0
        #: Wire offset up to which records have left; what lies beyond waits for the window.
        self.sent = origin
        #: End of the last record that left although it had to wait.
        self.forced = origin
        #: Wire ranges that the newest acknowledgement reports as received beyond it.
        self.sacked: list[tuple[int, int]] = []
        #: Bytes from the plain top on that the socket has sent and that are not sealed yet.
        self.held = b""
        #: Plain offset of the FIN, once it was sealed.
        self.final_plain: int | None = None
        self.bytes_sealed = self.records_sealed = self.retransmissions = 0
        #: The path counts as calm once `bytes_sealed` has got this far.
        self.calm_from = CALM_AFTER

    def offered(self, window: int) -> None:
        """The far side's SYN or SYN-ACK offers `window` bytes."""
        self.right_edge += window
        self.shown_edge += window
        self.largest_window = window

    def offset(self, seq: int) -> int:
        """Plain offset of a sequence number of the local socket."""
        near = self.ledger.plain_top
        return near + ((seq - self.isn - 1 - near + 0x80000000) & 0xFFFFFFFF) - 0x80000000  # unwrap, without a call

    def seq(self, wire: int) -> int:
        """Sequence number on the network of a wire offset."""
        return self.isn + 1 + wire

    # -- what we send

    def bare_wire(self, plain: int) -> int:
        """Wire offset for a segment without data: the edge, or something below it for probes.

        Never behind the far side's window, although the last record may end there: a router would refuse the
        acknowledgement (the kernel's tcp_acceptable_seq does the same).
        """
        return min(self.exact_wire(plain), max(self.right_edge, self.una))

    def exact_wire(self, plain: int) -> int:
        """Wire offset at which the far side expects a reset that the socket sends at `plain`.

        A host without such a socket answers with the number that the far side acknowledged, so what `plain_ack` made
        of that goes back the same way.
        """
        ledger = self.ledger
        if plain <= self.plain_una:
            return self.una + plain - self.plain_una  # what the far side said itself; an empty FINAL can stand behind
        if plain > self.beyond:
            return self.left + plain - self.beyond
        left = max(self.sent, self.forced)
        if left < ledger.wire_top and plain >= ledger.plain_top:
            # What waits for the window has not been sent: a number behind it would lie behind the window as well.
            return left
        if self.final_plain is not None and plain > self.final_plain:
            return ledger.wire_top + 1
        if plain >= ledger.plain_top:
            return ledger.wire_top
        return max(self.una, ledger.wire_floor(plain))

    @property
    def seen(self) -> int:
        """Plain offset up to which the socket has sent."""
        return self.ledger.plain_top + len(self.held)

    def push(self, data: Buffer, size: int, segment: int, final: bool, hold: bool = False) -> Buffer:
        """Seal what is held and `data`, which follows it, into records of `size` bytes.

        The socket counts them in segments of `segment` bytes.  With `hold` the bytes behind the last full packet are
        kept for the next one.  Returns what goes on the wire.
        """
        lead, plain, wire = len(self.held), self.ledger.plain_top, self.ledger.wire_top
        if lead:
            data = memoryview(self.held + data)
            self.held = b""
        size = max(SMALLEST_RECORD, min(size, MAX_PLAIN))
        if hold:
            full = _full(len(data), size, segment)
            # Never less than came: a GSO packet must be longer than its segments are to be (tcp_gso_segment).
            if full + -(-full // size) * OVERHEAD >= len(data) - lead:
                self.held = bytes(data[full:])
                data = data[:full]
        sealed = b"".join(seal(self.keys, data, plain, wire, size, final))
        run = Run(plain, wire, len(data), size, sealed, segment, lead)
        self.ledger.append(run)
        if final:
            self.final_plain = run.plain_end
        self.bytes_sealed += len(data)
        self.records_sealed += run.count
        return sealed

    def range_of(self, plain: int, plain_end: int, final: bool) -> tuple[int, int]:
        """The wire range that stands for plain [plain, plain_end).

        Left out are records that were acknowledged, which may be all of them, and records at the end that the far
        side reports to have, for segments are longer than records and their ends reach into the next.
        """
        ledger = self.ledger
        end = ledger.wire_top if final else 0
        if plain_end > plain:
            start, stop = ledger.records_of(plain, plain_end)
            end = max(end, stop)
        else:
            start = ledger.last_boundary(ledger.wire_top - 1)
        start = max(start, ledger.last_boundary(self.una))
        for left, right in self.sacked:
            if start < left < end <= right and ledger.is_boundary(left):
                end = left
        return start, end

    def parts(self, start: int, end: int, first_limit: int, next_limit: int, again: bool = False) -> list[Part]:
        """Cut a wire range into packets that carry whole records, as far as the far side's window reaches.

        The limits are payload bytes of the first and of each further packet.  Only a record that is larger
        than a packet is cut.

        With `again`, for a retransmission, the first record that is not acknowledged may leave in any case: it asks for
        the window, and if it is larger than the window ever gets, the stream would end with it.
        """
        ledger = self.ledger
        if end > self.right_edge:
            # No record may end behind the right edge: the next segment would start there, and a router that tracks
            # windows refuses it (tcp_in_window in nf_conntrack_proto_tcp.c, "bytes more than expected").
            end = ledger.last_boundary(self.right_edge)
        if again and end <= start <= self.una:
            self.forced = ledger.next_boundary(start)
            return self._cut(start, self.forced, first_limit, next_limit)
        parts = self._cut(start, end, first_limit, next_limit)
        if parts and parts[-1].end > self.sent:
            self.sent = parts[-1].end
        return parts

    def _cut(self, start: int, end: int, first_limit: int, next_limit: int) -> list[Part]:
        """[start, end) in packets of whole records, in slices where a record is larger than a packet."""
        ledger = self.ledger
        parts: list[Part] = []
        room = first_limit
        while start < end:
            stop = end
            if end - start > room:
                stop = ledger.last_boundary(start + room)
                if stop <= start:  # a record larger than the packet, or the rest of one
                    stop = min(start + room, ledger.next_boundary(start))
            parts.append(Part(start, stop))
            start, room = stop, next_limit
        return parts

    def probed_size(self, plain: int, length: int) -> int:
        """Payload bytes of a packet that `length` bytes, sent again from plain offset `plain` on, say will arrive.

        A socket that hears nothing of its full segments and nothing from routers tries smaller ones (RFC 4821): then it
        repeats less than the record that starts there, and the record must not travel in one piece either.
        """
        ledger = self.ledger
        start, end = ledger.records_of(plain, plain + 1)
        if end - start - OVERHEAD <= length or ledger.plain_floor(start) != plain:
            return MAX_PLAIN
        return max(length + OVERHEAD, SMALLEST_SLICE)

    def quoted(self, number: int) -> int | None:
        """The local socket's sequence number for one that an ICMP error quotes; None if nothing like it is under way.

        RFC 5927 section 4.1, with both edges, as the kernel has it (tcp_v4_err).
        """
        wire = unwrap(number - self.isn - 1 & 0xFFFFFFFF, self.una)
        if not self.una <= wire <= self.left:
            return None
        if wire == self.una:
            plain = self.plain_una
        elif self.final_plain is not None and wire > self.ledger.wire_top:
            plain = self.final_plain + 1
        else:
            plain = max(self.plain_una, self.ledger.plain_floor(wire))
        return self.isn + 1 + plain & 0xFFFFFFFF

    def has_room(self, length: int) -> bool:
        """Whether the far side's window has room for `length` new plaintext bytes in records of any size.

        Where it has not, records must be small: one that is larger than the window would never leave.
        """
        return self.ledger.wire_top + length + length // SMALLEST_RECORD * OVERHEAD <= self.right_edge

    def waiting(self) -> bool:
        """Whether sealed records wait for the window to open."""
        return self.sent < self.ledger.wire_top

    def is_final(self, wire: int) -> bool:
        """Whether the FIN belongs right behind wire offset `wire`."""
        return self.final_plain is not None and wire == self.ledger.wire_top

    # -- what the far side says it has

    @property
    def left(self) -> int:
        """Wire offset behind all that has left, a FIN included: no honest acknowledgement is higher."""
        left = self.sent if self.sent > self.forced else self.forced
        return left + 1 if self.final_plain is not None and left == self.ledger.wire_top else left

    @property
    def beyond(self) -> int:
        """Plain offset behind everything that our socket can have sent, seen here or not yet."""
        return max(self.seen + (self.final_plain is not None), self.shown_edge)

    def plain_ack(self, number: int) -> tuple[int, int, bool]:
        """What an acknowledgement number says: its wire offset, its plain offset, and whether it can be true.

        It rounds down to whole records. One below what is acknowledged, or beyond what has left, keeps its distance
        from there, so that the socket ignores it or objects to it as it does without us. An old one can be true if it
        is not older than a window (RFC 5961 section 5.2).
        """
        una = self.una
        wire = una + ((number - self.isn - 1 - una + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        if wire == una:
            return wire, self.plain_una, True
        if wire < una:
            plain = self.plain_una + wire - una
            if una - wire > min(self.largest_window, una - self.ledger.origin):
                return wire, plain, False
            # Distances are longer on the wire: by that alone none may be older than the stream.
            return wire, plain if plain > 0 else 0, True
        left = self.left
        if wire > left:
            return wire, self.beyond + wire - left, False
        ledger = self.ledger
        if wire > ledger.wire_top:
            assert self.final_plain is not None
            return wire, self.final_plain + 1, True
        return wire, ledger.plain_floor(wire), True

    def shown_window(self, right: int, plain: int) -> int:
        """What the socket may see of a window that ends at wire offset `right`: bytes from plain offset `plain` on.

        What it sends must find room together with our overhead, or records would have to wait here, and the socket
        would take them for lost.  Of the room that nothing was sealed for, a sixteenth and one record's overhead are
        kept back; only where records are small (below 350 bytes) is that too little.
        """
        ledger = self.ledger
        room = right - ledger.wire_top
        top = ledger.plain_floor(right) if room < 0 else ledger.plain_top + max(0, room - (room >> 4) - OVERHEAD)
        return max(0, top - plain)

    def prune(self, wire: int, plain: int) -> None:
        """The far side has everything before wire offset `wire`, which is `plain` in plain space."""
        if wire > self.una:
            self.una, self.plain_una = wire, plain
            self.ledger.forget(wire)
            if wire > self.sent:
                self.sent = min(wire, self.ledger.wire_top)

    def plain_sack(self, left: int, right: int, ack: int, first: bool, newest: bool) -> tuple[int, int] | None:
        """Sequence numbers in plain space of a SACK block, or None if it holds no whole record.

        A block shrinks to whole records, with one exception.  Of the lost record before it, only the socket's segment
        that holds its first byte must stay open, for that one's retransmission brings the whole record.  Were the
        rest left open too, the socket would resend a second segment for it, since its segments and our
        records do not end at the same places.

        A D-SACK block (RFC 2883: the first one, below the acknowledgement) needs records that may be forgotten. With
        `newest` retransmissions leave out what the blocks show.
        """
        start = unwrap(left - self.isn - 1 & 0xFFFFFFFF, ack)
        end = unwrap(right - self.isn - 1 & 0xFFFFFFFF, ack)
        ledger = self.ledger
        if not start < end <= self.left or (start < ack and not first):
            return None
        block = ledger.plain_block(start, min(end, ledger.wire_top))
        if block is None:
            return None
        plain, plain_end = block
        if start > ack:
            if newest:
                self.sacked.append((start, end))
            plain = min(plain, ledger.segment_end(start - 1))
        return plain + self.isn + 1, plain_end + self.isn + 1


def sizes(gso: bool, payload: int, held: int, mss: int, options: int, calm: bool) -> tuple[int, int]:
    """Plaintext bytes per record, and per segment, for `payload` new bytes behind `held` ones.

    A single segment is one record.  In a GSO batch a record, overhead included, is as long as the segments that
    the kernel will cut the batch into, so that each segment is one record and a loss costs one; their size is not
    shown to us, and guessed from the `mss` in force and the length of the TCP `options`.  On a `calm` path, where
    nothing was lost lately, a record spans several segments, because AES-GCM costs by the call.  A wrong guess costs
    speed alone.
    """
    segment = mss - options
    if not gso or segment - OVERHEAD < SMALLEST_RECORD:
        size = min(held + payload, max(payload, segment)) or 1
        return size, size
    return segment * (SEGMENTS_WHEN_CALM if calm else 1) - OVERHEAD, segment


def _full(length: int, size: int, segment: int) -> int:
    """How many of `length` bytes in records of `size` fill packets.  A single segment (`size` is its own) fills one."""
    if size == segment:
        return length // size * size
    span = max(1, (size + OVERHEAD) // segment)
    packets = length // segment
    while (packets + 1) * segment - -(-(packets + 1) // span) * OVERHEAD <= length:
        packets += 1
    return packets * segment - -(-packets // span) * OVERHEAD
