"""One encrypted TCP connection: both directions, and what one needs of the other.

Every packet crosses both halves: its data and sequence number belong to the direction it travels in, its
acknowledgement and SACK blocks to the opposite one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .addresses import Path, endpoints
from .egress import CALM_AFTER, SMALL, Egress, sizes
from .icmp import too_big
from .ingress import Delivery, Ingress
from .options import ONLY_TIMESTAMPS, translate_sack
from .packet import ACK, FIN, PSH, RST, VERDICT_LIMIT, Segment, rebuild
from .paths import Paths
from .record import OVERHEAD
from .status import Connection, Counters, State
from .verdict import DROP, Outcome, Tampered, Verdict

#: Plaintext bytes of one packet toward the socket, when several records were completed at once.
DELIVERY_LIMIT: Final = 60000


class Flow:
    """An established connection in both spaces."""

    __slots__ = (
        "_last_ack",
        "_last_window",
        "_template",
        "closing",
        "confirmed",
        "created",
        "egress",
        "hello",
        "identity",
        "ingress",
        "key",
        "key_id",
        "local_scale",
        "mss",
        "outcome",
        "path",
        "path_mtu",
        "paths",
        "paths_version",
        "positions",
        "remote_scale",
        "seen",
        "shown_mtu",
    )

    def __init__(
        self,
        key: bytes,
        egress: Egress,
        ingress: Ingress,
        *,
        hello: bytes,
        identity: bytes,
        key_id: bytes = b"",
        confirmed: bool,
        mss: int,
        scales: tuple[int, int],
        now: float,
        outcome: Outcome,
        paths: Paths,
    ) -> None:
        """`key`: addresses and ports, ours first.  `hello`: our handshake message, for retransmitted SYN-ACKs.
        `key_id`: of the network key of the handshake.

        `mss`: what the local socket was told, in bytes.  `scales`: window scales (RFC 7323) of our and of the
        peer's window.  What follows from packets besides verdicts goes to `outcome`; `paths` knows the MTU.
        """
        self.key, self.egress, self.ingress = key, egress, ingress
        self.path = Path.of(key)
        self.hello, self.identity, self.key_id, self.confirmed = hello, identity, key_id, confirmed
        self.mss = mss
        self.local_scale, self.remote_scale = scales
        self.created = self.seen = now
        self.outcome = outcome
        self.paths = paths
        #: What `paths` said when it had this version: the MTU in bytes that the route shows, and the path's.
        self.paths_version, self.shown_mtu, self.path_mtu = -1, 0, 0
        self.closing = False
        #: Called after each packet that moved a position; set by whoever keeps the journal.
        self.positions: Callable[[Flow], None] | None = None
        self._last_ack = self._last_window = -1
        self._template: Segment | None = None

    # -- from the local socket to the network

    def from_socket(self, segment: Segment, gso: bool) -> Verdict:
        """Translate one packet of the local socket."""
        egress, ingress, flags = self.egress, self.ingress, segment.flags
        ack = 0
        if flags & ACK:
            ack_wire, ack_plain = ingress.wire_ack(segment.ack)
            ack = ingress.seq(ack_wire)
            if not flags & RST:
                ingress.acknowledge(ack_wire, ack_plain, segment.window << self.local_scale)
        options = self._sack_to_wire(segment)
        plain = egress.offset(segment.seq)
        length = segment.end - segment.payload_at
        if flags & RST:
            self.closing = True
            return rebuild(segment, egress.seq(egress.exact_wire(plain)), ack, flags=flags & ~FIN)
        if egress.waiting():
            self._template = Segment(rebuild(segment, 0, ack, flags=ACK, options=options))
        if not length and not flags & FIN:
            return rebuild(segment, egress.seq(egress.bare_wire(plain)), ack, options=options)
        return self._send(segment, plain, length, gso, ack, options)

    def _send(
        self,
        segment: Segment,
        plain: int,
        length: int,
        gso: bool,
        ack: int,
        options: bytes | None,
    ) -> Verdict:
        egress = self.egress
        ledger = egress.ledger
        final = bool(segment.flags & FIN)
        top, seen, plain_end = ledger.plain_top, egress.seen, plain + length
        if plain > seen:
            return self.outcome.drop("gap-before-us")  # TCP will send what is missing, in order
        if self.path.way is None or plain < top:
            # Before the first packet, and wherever one was lost: routes, and what they go by, can change.
            self.path, self.paths_version = self.paths.of(self.key), -1
        if self.paths_version != self.paths.version:
            self.shown_mtu, self.path_mtu = self.paths.shown(self.path), self.paths.mtu(self.path)
            self.paths_version = self.paths.version
        head, mtu = segment.payload_at, self.path_mtu
        largest = self.mss - (head - segment.tcp_at - 20)
        if plain_end > top or (final and egress.final_plain is None):
            if egress.final_plain is not None:
                return self.outcome.drop("data-after-fin")
            start = ledger.wire_top
            new = max(0, plain_end - seen)
            size, unit = sizes(
                gso,
                new,
                seen - top,
                min(self.mss, self.shown_mtu - segment.tcp_at - 20),
                head - segment.tcp_at - 20,
                egress.bytes_sealed >= egress.calm_from and egress.has_room(plain_end - top),
            )
            hold = plain == seen and length <= SMALL and not segment.flags & (PSH | FIN) and (gso or seen > top)
            if not gso and start + size + OVERHEAD > egress.right_edge:
                size = size + 1 >> 1  # a record as large as the whole window, and its overhead, could never leave
                hold = False
            data = segment.payload()
            sealed = egress.push(data[length - new :] if plain < seen else data, size, unit, final, hold)
            end = ledger.wire_top
            room = (VERDICT_LIMIT if gso else mtu) - head
            if plain == seen and end - start <= room and egress.sent == start and end <= egress.right_edge:
                # The usual case: all of it is new, fits and may go.
                egress.sent = end
                if self.positions is not None:
                    self.positions(self)
                return rebuild(segment, egress.seq(start), ack, sealed, options=options)
            if not gso and head + length + OVERHEAD > mtu:
                self._tell(segment)
            if plain < seen:
                start = min(start, egress.range_of(plain, plain_end, final)[0])
        else:
            egress.retransmissions += 1
            egress.calm_from = egress.bytes_sealed + CALM_AFTER
            start, end = egress.range_of(plain, plain_end, final)
        if start >= end:
            return self._nothing_left(segment, gso, final, ack, options)

        repeated = start < egress.sent or plain_end <= top
        parts = egress.parts(start, end, (VERDICT_LIMIT if gso else mtu) - head, mtu - head, repeated)
        if repeated and not parts:
            # Nothing of it may leave.  If the news of an open window was lost, only a question brings it again.
            return self._nothing_left(segment, gso, False, ack, options)
        if egress.waiting():
            self._template = Segment(rebuild(segment, 0, ack, flags=ACK, options=options))
        verdict: Verdict = DROP
        for number, part in enumerate(parts):
            flags = segment.flags & ~(FIN | PSH)
            if part.end == end:
                flags |= segment.flags & PSH
            if egress.is_final(part.end):
                flags |= FIN
            packet = rebuild(
                segment,
                egress.seq(part.start),
                ack,
                *ledger.between(part.start, part.end),
                flags=flags,
                options=options,
                identification_step=number,
            )
            # A GSO packet that is not longer than its segments are to be never reaches the wire (tcp_gso_segment).
            if number == 0 and not (gso and part.end - part.start <= largest):
                verdict = packet
            else:
                self.outcome.to_network(packet)
        if self.positions is not None:
            self.positions(self)
        return verdict

    def _nothing_left(self, segment: Segment, gso: bool, final: bool, ack: int, options: bytes | None) -> Verdict:
        """All that was retransmitted is acknowledged: repeat a bare FIN, or probe for the acknowledgement."""
        egress = self.egress
        if final and egress.una <= egress.ledger.wire_top:
            wire, flags = egress.ledger.wire_top, FIN | ACK
        else:
            wire, flags = egress.una - 1, ACK
        packet = rebuild(segment, egress.seq(wire), ack, flags=flags, options=options)
        if gso:
            self.outcome.to_network(packet)
            return DROP
        return packet

    def _tell(self, segment: Segment) -> None:
        """Tell the local socket, through the route that all connections to the peer share, to leave room for us."""
        lower = self.paths.lower(self.path)
        if lower is not None:
            self.outcome.to_socket(too_big(segment, lower))

    def release(self) -> None:
        """Send records that waited for the far side's window, as far as it is open now."""
        egress, template = self.egress, self._template
        if template is None:
            return
        room = self.paths.mtu(self.path) - template.payload_at
        for number, part in enumerate(egress.parts(egress.sent, egress.ledger.wire_top, room, room)):
            packet = rebuild(
                template,
                egress.seq(part.start),
                template.ack,
                *egress.ledger.between(part.start, part.end),
                flags=ACK | PSH | (FIN if egress.is_final(part.end) else 0),
                identification_step=number + 1,
            )
            self.outcome.to_network(packet)
        if not egress.waiting():
            self._template = None

    # -- from the network to the local socket

    def from_network(self, segment: Segment) -> Verdict:
        """Translate one packet from the network."""
        egress, ingress, flags = self.egress, self.ingress, segment.flags
        wire = ingress.offset(segment.seq)
        length = segment.end - segment.payload_at
        ack_wire = egress.acknowledged(segment.ack) if flags & ACK else None
        if flags & RST:
            return self._reset(segment, wire, ack_wire)
        if ack_wire is None:
            return self.outcome.drop("acknowledges-unsent" if flags & ACK else "without-ack")
        ack_plain = egress.plain_ack(ack_wire)
        window = segment.window << self.remote_scale
        options = self._sack_to_plain(segment, ack_wire)
        news = ack_wire > self._last_ack or segment.window != self._last_window or options is not None
        if ingress.acked <= wire + length and wire <= max(ingress.right_edge, ingress.ledger.wire_top + 1):
            self.heard(ack_wire, ack_plain, segment.window, ack_wire + window)
            if egress.waiting():
                self.release()
        ack = egress.isn + 1 + ack_plain
        shown = min(egress.shown_window(ack_wire + window, ack_plain) >> self.remote_scale, 0xFFFF)
        if not shown and ack_wire >= egress.ledger.wire_top:
            shown = min(segment.window, 1)  # nothing is under way that could open it later

        if not length:
            if flags & FIN and wire != ingress.final_wire:
                self.outcome.refused["unauthenticated-fin"] += 1
                flags &= ~FIN
            seq = ingress.seq(ingress.bare_plain(wire))
            return rebuild(segment, seq, ack, flags=flags, window=shown, options=options)

        if flags & FIN:
            ingress.fin_claims = wire + length
        failures = ingress.auth_failures
        deliveries = ingress.receive(wire, segment.payload())
        flags &= ~FIN
        if deliveries:
            self.confirmed = True
            verdict = self._deliver(segment, deliveries, ack, flags, shown, options)
            if self.positions is not None:
                self.positions(self)
            return verdict
        if ingress.auth_failures > failures:
            self.outcome.events.append(Tampered(self.key, self.identity if self.confirmed else b""))
            return self.outcome.drop("tampered")
        if wire + length <= ingress.acked:
            # A piece of what our socket has: one byte that it has, too, makes it say so at once.
            seq = ingress.seq(ingress.plain_acked - 1)
            return rebuild(segment, seq, ack, b"\0", flags=flags, window=shown, options=options)
        if news:
            plain = ingress.bare_plain(wire)
            return rebuild(segment, ingress.seq(plain), ack, flags=flags & ~PSH, window=shown, options=options)
        return self.outcome.drop("incomplete")

    def heard(self, ack_wire: int, ack_plain: int, shown: int, right: int) -> None:
        """The far side has everything before `ack_wire`, `ack_plain` in plain space, and offers room up to `right`.

        `shown` is the window as its packet shows it, unscaled.
        """
        if ack_wire > self._last_ack:
            self._last_ack = ack_wire
            self.egress.prune(ack_wire, ack_plain)
        self._last_window = shown
        if right > self.egress.right_edge:
            self.egress.right_edge = right

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
        for plain, _, chunks in deliveries:
            for start, some in _batches(plain, chunks):
                end = start + sum(map(len, some))
                fin = FIN if end == fin_at else 0
                if not fin and end == start:
                    continue  # an empty record whose FIN is still to come
                packet = rebuild(
                    segment, ingress.seq(start), ack, *some, flags=flags | fin, window=window, options=options
                )
                if verdict is DROP:
                    verdict = packet
                else:
                    self.outcome.to_socket(packet)
        return verdict

    def _reset(self, segment: Segment, wire: int, ack_wire: int | None) -> Verdict:
        plain = self.ingress.reset_plain(wire)
        if plain is None:
            return self.outcome.drop("old-reset")
        self.closing = True
        ack = 0 if ack_wire is None else self.egress.isn + 1 + self.egress.plain_ack(ack_wire)
        return rebuild(segment, self.ingress.seq(plain), ack)

    # -- SACK

    def _sack_to_wire(self, segment: Segment) -> bytes | None:
        length = segment.payload_at - segment.tcp_at - 20
        if length < 10 or (length == 12 and segment.options()[:4] == ONLY_TIMESTAMPS):
            return None
        return translate_sack(segment.options(), lambda left, right, first: self.ingress.wire_sack(left, right))

    def _sack_to_plain(self, segment: Segment, ack: int) -> bytes | None:
        self.egress.sacked.clear()
        length = segment.payload_at - segment.tcp_at - 20
        if length < 10 or (length == 12 and segment.options()[:4] == ONLY_TIMESTAMPS):
            return None
        return translate_sack(
            segment.options(), lambda left, right, first: self.egress.plain_sack(left, right, ack, first)
        )

    # -- what others ask

    def is_closing(self) -> bool:
        """Whether the connection has ended, or is about to, as far as packets tell."""
        return self.closing or (self.egress.final_plain is not None and self.ingress.final_plain is not None)

    @property
    def state(self) -> State:
        return State.CLOSING if self.is_closing() else State.ENCRYPTED if self.confirmed else State.UNCONFIRMED

    def counters(self) -> Counters:
        """What it carried so far."""
        egress, ingress = self.egress, self.ingress
        return Counters(
            egress.bytes_sealed,
            ingress.ledger.bytes_inserted,
            egress.records_sealed,
            ingress.ledger.records_inserted,
            egress.retransmissions,
            ingress.auth_failures,
        )

    def describe(self, now: float) -> Connection:
        """Its line of a status."""
        local, remote = endpoints(self.key)
        return Connection(
            local,
            remote,
            self.state,
            self.identity if self.confirmed else b"",
            now - self.created,
            self.counters(),
            self.key_id,
            not self.hello,
        )


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
