"""What the network sends to one connection, on its way to the local socket.

None of a segment's numbers is authenticated. What our socket ignores without us (RFC 9293 section 3.10.7.4, RFC 5961,
RFC 7323 section 5) must change nothing here, and must look to it as it does without us; so each number is first judged
in wire space, and one that is refused stays refusable (`Ingress`, `Egress.plain_ack`).
"""

from __future__ import annotations

from typing import Final

import mcencrypt.core.prim as prim

from .addresses import reversed_key
from .egress import Egress
from .ingress import Delivery, Ingress
from .options import ONLY_TIMESTAMPS, timestamps, translate_sack, with_stamp
from .packet import ACK, CE, CWR, FIN, PSH, RST, VERDICT_LIMIT, Buffer, Segment, bare, read_word, rebuild, with_ecn
from .verdict import DROP, Outcome, Tampered, Verdict
from .withheld import Withheld

#: Plaintext bytes of one packet toward the socket, when several records were completed at once.
DELIVERY_LIMIT: Final = 60000
#: Why a socket is reset whose stream ends without a FINAL record.
CUT_OFF: Final = "its stream was cut off on the way, without the peer's word that this is the end"
#: Why a socket is reset for which a relay has something that its peer has not sent; and seconds until that is sure.
SPOILT: Final = "its stream was changed on the way, and cannot go on"
SPOILT_AFTER: Final = 3.0
#: In the place of data that the socket has: it looks at where that lies, never at what it is.
_ZEROS: Final = memoryview(bytes(1 << 16))


class Receiving:
    """The part of a `Flow` that takes packets from the network."""

    __slots__ = (
        "_last_ack",
        "_last_window",
        "_spoilt_edge",
        "_spoilt_since",
        "closing",
        "confirmed",
        "egress",
        "identity",
        "ingress",
        "key",
        "marked",
        "outcome",
        "positions",
        "remote_scale",
        "seen",
        "streamed",
        "ts_recent",
        "withheld",
    )

    def __init__(
        self,
        key: bytes,
        egress: Egress,
        ingress: Ingress,
        identity: bytes,
        confirmed: bool,
        remote_scale: int,
        outcome: Outcome,
        streamed: bool,
    ) -> None:
        """What these mean: see `Flow`."""
        self.key, self.egress, self.ingress, self.outcome = key, egress, ingress, outcome
        #: Whose key the handshake named, and whether a record has proven it.
        self.identity, self.confirmed = identity, confirmed
        self.remote_scale = remote_scale
        #: Whether the path ends TCP on its way, or may: it cuts the stream as it likes, and waits for our word itself.
        self.streamed = streamed
        #: What our socket has no room for, on such a path; None: nothing.
        self.withheld: Withheld | None = None
        #: A reset passed, and its number was exact.
        self.closing = False
        #: Where the journal, if one is kept, has both streams' positions.
        self.positions: prim.Slot | None = None
        #: The newest timestamp of the far side that our socket has taken, as it echoes it (RFC 7323); 0: none known.
        self.ts_recent = 0
        self._last_ack = self._last_window = -1
        #: When the last packet came or went; seconds, monotonic.
        self.seen = 0.0
        #: Where the stream goes on, when something there did not verify, and since when.
        self._spoilt_edge, self._spoilt_since = -1, 0.0
        #: Marks of pieces that are kept, for what is delivered next: 1 for congestion experienced, and the CWR flag.
        self.marked = 0

    def release(self) -> None:
        """Send records that waited for the far side's window, as far as it is open now."""
        raise NotImplementedError

    def acknowledge_pieces(self, segment: Segment) -> None:
        """Answer `segment`, which has pieces of a record, ourselves: our socket hears of whole records only.

        A relay that waits for its first acknowledgement after a loss would wait for ever.
        """
        raise NotImplementedError

    def from_network(self, segment: Segment) -> Verdict:
        """Translate one packet from the network."""
        egress, ingress, flags = self.egress, self.ingress, segment.flags
        if flags & (RST | ACK) != ACK:
            return self._without_ack(segment)
        wire = ingress.offset(segment.seq)
        packet, tcp_at, payload_at = segment.packet, segment.tcp_at, segment.payload_at
        end = wire + segment.end - payload_at
        ack_wire, ack_plain, credible = egress.plain_ack(segment.ack)
        window = segment.window << self.remote_scale
        options = None
        if payload_at - tcp_at == 32 and packet[tcp_at + 20 : tcp_at + 24] == ONLY_TIMESTAMPS:
            stamp, others = read_word(packet, tcp_at + 24)[0], False
        else:
            stamp, others = self._stamp(segment), payload_at - tcp_at - 20 >= 10
        ack = egress.isn + 1 + ack_plain
        shown = min(egress.shown_window(ack_wire + window, ack_plain) >> self.remote_scale, 0xFFFF)
        if not shown and ack_wire >= egress.ledger.wire_top:
            shown = min(segment.window, 1)  # nothing is under way that could open it later
        # Whether our socket takes it: RFC 9293 section 3.10.7.4 and RFC 7323 section 5.3, as tcp_validate_incoming and
        # tcp_ack have them. What it ignores must not change anything here.
        if self.ts_recent and (stamp - self.ts_recent) & 0xFFFFFFFF > 0x80000000:
            credible = False
        news = False
        if credible and wire <= ingress.right_edge and end + (segment.flags & FIN) >= ingress.acked:
            newest = ack_wire >= egress.una
            if newest and egress.sacked:
                egress.sacked.clear()
            if others:
                options = self._options_to_plain(segment, ack_wire, newest)
            news = ack_wire > self._last_ack or segment.window != self._last_window or options is not None
            if newest:
                if end == wire <= ingress.acked and self.ts_recent:
                    self.ts_recent = stamp  # tcp_replace_ts_recent; with data our socket's answer shows it
                self.heard(ack_wire, ack_plain, segment.window, ack_wire + window, shown << self.remote_scale)
                if egress.sent < egress.ledger.wire_top:
                    self.release()
        elif others:
            options = translate_sack(segment.options(), _no_block)
        if end > wire:
            return self._data_in(segment, wire, end, ack, shown, options, credible, news)
        flags = segment.flags
        if flags & FIN and wire >= ingress.acked and wire != ingress.final_wire:
            self.outcome.refused["unauthenticated-fin"] += 1
            flags &= ~FIN
            if self.streamed and credible and (wire == ingress.reach() or ingress.is_broken()):
                self.cut_off()
        plain = ingress.bare_plain(wire)
        if wire > ingress.acked:
            options = self._without_stamp(segment, plain, options)
        return rebuild(segment, ingress.seq(plain), ack, flags=flags, window=shown, options=options)

    def note_positions(self) -> None:
        """Let the journal, if there is one, know where both streams stand on the network."""
        if self.positions is not None:
            self.positions.write(
                self.egress.isn + 1 + self.egress.sent, self.ingress.isn + 1 + self.ingress.ledger.wire_edge
            )

    def heard(self, ack_wire: int, ack_plain: int, window: int, right: int, shown: int) -> None:
        """The far side, believed, has everything before `ack_wire` (`ack_plain`) and offers room up to `right`, wire.

        `window` is its window as the segment has it, unscaled, `shown` in bytes what our socket is shown of it.
        """
        egress = self.egress
        self._last_ack, self._last_window = ack_wire, window
        if ack_wire > egress.una:
            egress.prune(ack_wire, ack_plain)
        if right > egress.right_edge:
            egress.right_edge = right
        if ack_plain + shown > egress.shown_edge:
            egress.shown_edge = ack_plain + shown
        if shown > egress.largest_window:
            egress.largest_window = shown

    def _data_in(
        self,
        segment: Segment,
        wire: int,
        end: int,
        ack: int,
        shown: int,
        options: bytes | None,
        credible: bool,
        news: bool,
    ) -> Verdict:
        """A segment with data at wire offsets [wire, end); `ack` and `shown` (its window) as our socket is to see them.

        `credible`: its acknowledgement and timestamp can be true.  `news`: what they say is news.
        """
        ingress, data, flags = self.ingress, segment.payload(), segment.flags
        if wire < ingress.acked:
            if end <= ingress.acked:
                return self._repeated(segment, wire, end, ack, shown, options)
            data, wire = data[ingress.acked - wire :], ingress.acked
        if end > ingress.right_edge:
            until = ingress.keeps_until(wire, data)
            if wire >= until:
                # No byte of it may come near the stream, but it is answered: so something older is, and with it nothing
                # counts, as nothing would that lies behind the window.
                seq = ingress.seq(ingress.plain_acked - 2)
                return rebuild(segment, seq, ack, b"\0", flags=flags & ~(FIN | PSH), window=shown, options=options)
            if end > until:
                data, end, flags = data[: until - wire], until, flags & ~FIN
        if self.streamed and ingress.is_broken():
            self.cut_off("pieces of a record had to be given up for want of memory")
            return self.outcome.drop("incomplete")
        if flags & FIN and credible:
            ingress.fin_claims = end
        failures = ingress.auth_failures
        deliveries = ingress.receive(wire, data, credible)
        if self.streamed and credible:
            if ingress.auth_failures > failures and self._is_spoilt(wire, end):
                self.outcome.events.append(Tampered(self.key, self.identity if self.confirmed else b""))
                self.cut_off(SPOILT)
                return self.outcome.drop("tampered")
            if flags & FIN and end != ingress.final_wire and end == ingress.reach():
                self.cut_off()
            elif not deliveries:
                self.acknowledge_pieces(segment)
        flags &= ~FIN
        if deliveries:
            self.confirmed = True
            if self.streamed:
                deliveries = self._fitting(deliveries)
        if deliveries:
            verdict = self._deliver(segment, deliveries, ack, flags, shown, options)
            if verdict is DROP and self.streamed and ingress.take_end():
                self.acknowledge_pieces(segment)
            self.note_positions()
            return verdict
        if ingress.auth_failures > failures:
            self.outcome.events.append(Tampered(self.key, self.identity if self.confirmed else b""))
            return self.outcome.drop("tampered")
        if credible:
            self.marked |= (segment.ecn() == CE) | flags & CWR
        if news:
            plain = ingress.piece_plain(wire, end)
            options = self._without_stamp(segment, plain, options)
            return rebuild(segment, ingress.seq(plain), ack, flags=flags & ~PSH, window=shown, options=options)
        return self.outcome.drop("incomplete")

    def _is_spoilt(self, wire: int, end: int) -> bool:
        """Whether the stream cannot go on: bytes [wire, end) of it have just failed to verify.

        A stranger's segment changes nothing, for the far side's own follows. What a relay has sent it sends again for
        ever, and never anything else.
        """
        ingress = self.ingress
        if ingress.is_broken():
            return True
        edge = ingress.ledger.wire_edge
        if not wire <= max(edge, ingress.promised) < end:
            return False
        if edge != self._spoilt_edge:
            self._spoilt_edge, self._spoilt_since = edge, self.seen
        return self.seen - self._spoilt_since >= SPOILT_AFTER

    def _repeated(self, segment: Segment, wire: int, end: int, ack: int, shown: int, options: bytes | None) -> Verdict:
        """Data that our socket has acknowledged: it sees that something was repeated, where, and how much."""
        ingress, flags = self.ingress, segment.flags
        data: Buffer = _ZEROS[: end - wire]
        plain = ingress.repeated_plain(wire)
        if flags & FIN and end == ingress.acked:
            # Only the FIN is new.
            if end == ingress.final_wire:
                data, plain = b"", ingress.plain_acked
            else:
                self.outcome.refused["unauthenticated-fin"] += 1
                flags &= ~FIN
        return rebuild(segment, ingress.seq(plain), ack, data, flags=flags, window=shown, options=options)

    def _deliver(
        self,
        segment: Segment,
        deliveries: list[Delivery],
        ack: int,
        flags: int,
        window: int,
        options: bytes | None,
    ) -> Verdict:
        ingress = self.ingress
        verdict: Verdict = DROP
        # The FIN flag counts only where a FINAL record ends, and the other way round.
        fin_at = ingress.final_plain if ingress.fin_claims == ingress.final_wire else None
        marked, self.marked = self.marked, 0
        for plain, _, chunks in deliveries:
            for start, some in _batches(plain, chunks):
                end = start + sum(map(len, some))
                fin = FIN if end == fin_at else 0
                if not fin and end == start:
                    continue  # an empty record whose FIN is still to come
                packet = rebuild(
                    segment, ingress.seq(start), ack, *some, flags=flags | fin | marked & CWR, window=window,
                    options=options,
                )  # fmt: skip
                if marked & 1:
                    packet = with_ecn(packet, CE)
                if verdict is DROP:
                    verdict = packet
                else:
                    self.outcome.to_socket(packet)
        return verdict

    def _without_ack(self, segment: Segment) -> Verdict:
        """A reset, or what no socket takes after the handshake."""
        if not segment.flags & RST:
            return self.outcome.drop("without-ack")
        egress, ingress = self.egress, self.ingress
        plain, exact = ingress.reset_plain(ingress.offset(segment.seq))
        self.closing = self.closing or exact
        ack = egress.isn + 1 + egress.plain_ack(segment.ack)[1] if segment.flags & ACK else 0
        return rebuild(segment, ingress.seq(plain), ack)

    def _fitting(self, deliveries: list[Delivery]) -> list[Delivery]:
        """What of these our socket has room for; the rest is withheld."""
        edge = self.ingress.plain_right_edge
        if self.withheld is None and deliveries[-1].plain_end <= edge:
            return deliveries
        held = self.withheld or Withheld(edge)
        fitting = held.fit(deliveries, min(edge, held.plain) if held else edge)
        self.withheld = held if held else None
        return fitting

    def cut_off(self, why: str = CUT_OFF) -> None:
        """The stream has ended, and not by the peer's word: our socket must not take that for its end."""
        ingress, egress = self.ingress, self.egress
        self.closing = True
        self.outcome.refused["cut-off"] += 1
        self.outcome.end(self.key, why)
        ack = egress.isn + 1 + egress.plain_una
        self.outcome.to_socket(bare(reversed_key(self.key), ingress.seq(ingress.ledger.plain_edge), ack, RST | ACK))
        self.outcome.to_network(bare(self.key, egress.seq(egress.left), 0, RST))

    def _stamp(self, segment: Segment) -> int:
        """The timestamp of a segment whose options are not the usual ones; without one it counts as new."""
        stamps = timestamps(segment.options()) if self.ts_recent else None
        return self.ts_recent if stamps is None else stamps[0]

    def _without_stamp(self, segment: Segment, plain: int, options: bytes | None) -> bytes | None:
        """Options for a segment that is shown at `plain` and lies further on: at the edge its timestamp would count."""
        if plain > self.ingress.plain_acked or not self.ts_recent:
            return options
        return with_stamp(segment.options() if options is None else options, self.ts_recent)

    def _options_to_plain(self, segment: Segment, ack: int, newest: bool) -> bytes | None:
        """Translate SACK blocks; `ack` is the wire offset that the segment acknowledges, `newest` if none is higher."""
        egress = self.egress
        return translate_sack(
            segment.options(), lambda left, right, first: egress.plain_sack(left, right, ack, first, newest)
        )


def _no_block(left: int, right: int, first: bool) -> None:
    """What becomes of a SACK block that counts for nothing."""


def _batches(plain: int, chunks: list[bytes]) -> list[tuple[int, list[bytes]]]:
    """Chunks grouped into packets of at most DELIVERY_LIMIT bytes (a single batch fits as it came)."""
    if len(chunks) == 1 or sum(map(len, chunks)) <= VERDICT_LIMIT - 120:
        return [(plain, chunks)]
    batches: list[tuple[int, list[bytes]]] = []
    some: list[bytes] = []
    size, start = 0, plain
    for chunk in chunks:
        if size + len(chunk) > DELIVERY_LIMIT and some:
            batches.append((start, some))
            start, some, size = start + size, [], 0
        some.append(chunk)
        size += len(chunk)
    batches.append((start, some))
    return batches
