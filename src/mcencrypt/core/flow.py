"""One encrypted TCP connection: both directions, and what one needs of the other.

Every packet crosses both halves: its data and sequence number belong to the direction it travels in, its
acknowledgement and SACK blocks to the opposite one. What comes from the network is in `receiving`.
"""

from __future__ import annotations

from struct import pack

from .addresses import Path, endpoints, reversed_key
from .egress import CALM_AFTER, SMALL, Egress, sizes
from .handshake import Carrier
from .icmp import too_big
from .ingress import Ingress
from .options import ONLY_TIMESTAMPS, timestamps, translate_sack
from .packet import ACK, CWR, FIN, PSH, RST, VERDICT_LIMIT, Segment, bare, read_word, rebuild, with_ecn
from .paths import Paths
from .receiving import DELIVERY_LIMIT, Receiving
from .record import OVERHEAD
from .status import Connection, Counters, State
from .verdict import DROP, Outcome, Verdict


class Flow(Receiving):
    """An established connection in both spaces."""

    __slots__ = (
        "_template",
        "carrier",
        "created",
        "hello",
        "kernel_mtu",
        "key_id",
        "local_scale",
        "mss",
        "outgoing",
        "path",
        "path_mtu",
        "paths",
        "paths_version",
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
        outgoing: bool,
        carrier: Carrier = Carrier.SYN,
        mss: int,
        scales: tuple[int, int],
        now: float,
        outcome: Outcome,
        paths: Paths,
    ) -> None:
        """`key`: addresses and ports, ours first.  `hello`: our handshake message, for retransmitted SYN-ACKs.
        `key_id`: of the network key of the handshake.  `outgoing`: our own socket dialled.  `carrier`: of the
        handshake.

        `mss`: what the local socket was told, in bytes.  `scales`: window scales (RFC 7323) of our and of the
        peer's window.  What follows from packets besides verdicts goes to `outcome`; `paths` knows the MTU.
        """
        super().__init__(key, egress, ingress, identity, confirmed, scales[1], outcome, carrier is Carrier.STREAM)
        self.outgoing, self.carrier = outgoing, carrier
        self.path = Path.of(key)
        self.hello, self.key_id, self.mss = hello, key_id, mss
        self.local_scale = scales[0]
        self.created = self.seen = now
        self.paths = paths
        #: What `paths` said when it had this version: its `Limits`.
        self.paths_version, self.kernel_mtu, self.path_mtu = -1, 0, 0
        #: Headers for records that wait for the window.
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
                if self.streamed and ingress.fragments:
                    ack = ingress.seq(self.promise())
                if self.withheld is not None:
                    self._give(segment)
        options = self._options_to_wire(segment)
        plain = egress.offset(segment.seq)
        length = segment.end - segment.payload_at
        if flags & RST:
            self.closing = True
            return rebuild(segment, egress.seq(egress.exact_wire(plain)), ack, flags=flags & ~FIN)
        if egress.waiting():
            self._set_template(segment, ack, options)
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
            self.look_at_path()
        head = segment.payload_at
        options_length = head - segment.tcp_at - 20
        mss = min(self.mss, self.kernel_mtu - segment.tcp_at - 20)
        if plain_end > top or (final and egress.final_plain is None):
            if egress.final_plain is not None:
                return self.outcome.drop("data-after-fin")
            start = ledger.wire_top
            new = max(0, plain_end - seen)
            size, unit = sizes(
                gso,
                new,
                seen - top,
                mss,
                options_length,
                egress.bytes_sealed >= egress.calm_from and egress.has_room(plain_end - top),
            )
            hold = plain == seen and length <= SMALL and not segment.flags & (PSH | FIN) and (gso or seen > top)
            if not gso and start + size + OVERHEAD > egress.right_edge:
                size = size + 1 >> 1  # a record as large as the whole window, and its overhead, could never leave
                hold = False
            data = segment.payload()
            sealed = egress.push(data[length - new :] if plain < seen else data, size, unit, final, hold)
            end = ledger.wire_top
            room = (VERDICT_LIMIT if gso else self.kernel_mtu) - head
            if plain == seen and end - start <= room and egress.sent == start and end <= egress.right_edge:
                # The usual case: all of it is new, fits and may go.
                egress.sent = end
                self.note_positions()
                return rebuild(segment, egress.seq(start), ack, sealed, options=options)
            if not gso and head + length + OVERHEAD > self.path_mtu:
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
        room = self.path_mtu - head
        if plain < top and not gso:
            room = min(room, egress.probed_size(plain, length))
        parts = egress.parts(start, end, VERDICT_LIMIT - head if gso else room, room, repeated)
        if repeated and not parts:
            # Nothing of it may leave.  If the news of an open window was lost, only a question brings it again.
            return self._nothing_left(segment, gso, False, ack, options)
        if egress.waiting():
            self._set_template(segment, ack, options)
        verdict: Verdict = DROP
        for number, part in enumerate(parts):
            flags = segment.flags & ~(FIN | PSH | CWR if number else FIN | PSH)
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
            # The kernel drops a GSO packet that is not longer than its segments are to be (tcp_gso_segment), and any
            # other that is longer than it holds the path for (ip_finish_output).
            if number == 0 and (
                part.end - part.start > mss - options_length if gso else len(packet) <= self.kernel_mtu
            ):
                verdict = packet
            else:
                self.outcome.to_network(packet)
        self.note_positions()
        return verdict

    def look_at_path(self) -> None:
        """Find out anew how long packets may be."""
        self.kernel_mtu, self.path_mtu = self.paths.limits(self.path)
        self.paths_version = self.paths.version

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

    def _set_template(self, segment: Segment, ack: int, options: bytes | None) -> None:
        """Keep the headers of our socket's newest segment for records that wait.

        They leave with the ECN bits of the data that they are of: acknowledgements and retransmissions carry none
        (RFC 3168 section 6.1.4 and 6.1.5), and a router would drop what it could have marked.
        """
        packet = rebuild(segment, 0, ack, flags=ACK, options=options)
        if self._template is not None and not segment.ecn():
            packet = with_ecn(packet, self._template.ecn())
        self._template = Segment(packet)

    def release(self) -> None:
        """Send records that waited for the far side's window, as far as it is open now."""
        egress, template = self.egress, self._template
        if template is None:
            return
        room = self.paths.limits(self.path).path - template.payload_at
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

    # -- pieces of records, where the path ends TCP

    def promise(self) -> int:
        """Wire offset behind all pieces that are here. The window that our socket offers begins there."""
        ingress = self.ingress
        edge = ingress.promise()
        ingress.right_edge = max(ingress.right_edge, edge + ingress.plain_right_edge - ingress.plain_acked)
        return edge

    def _give(self, segment: Segment) -> None:
        """Give our socket what was withheld, as far as the window goes that it offers with `segment`."""
        ingress, egress, held = self.ingress, self.egress, self.withheld
        assert held is not None
        plain, data = held.take(ingress.plain_acked, ingress.plain_right_edge)
        if not held:
            self.withheld = None
        if not data:
            return
        end, stamps = plain + len(data), timestamps(segment.options())
        options = b"" if stamps is None else ONLY_TIMESTAMPS + pack("!II", stamps[1], stamps[0])
        final = end == ingress.final_plain and ingress.fin_claims == ingress.final_wire
        window = max(egress.shown_edge - egress.plain_una, 0) >> self.remote_scale
        head = Segment(bare(reversed_key(self.key), 0, 0, ACK | PSH | (FIN if final else 0), min(window, 0xFFFF)))
        ack = egress.isn + 1 + egress.plain_una
        for at in range(0, len(data), DELIVERY_LIMIT):
            some = data[at : at + DELIVERY_LIMIT]
            flags = head.flags if at + len(some) == len(data) else ACK
            self.outcome.to_socket(rebuild(head, ingress.seq(plain + at), ack, some, flags=flags, options=options))

    def acknowledge_pieces(self, segment: Segment) -> None:
        """Answer `segment`, which has pieces of a record, ourselves: our socket hears of whole records only.

        Its timestamp says which of ours the far side knows: an older one it would not take (PAWS).
        """
        ingress, stamps = self.ingress, timestamps(segment.options())
        options = b"" if stamps is None else ONLY_TIMESTAMPS + pack("!II", stamps[1], stamps[0])
        window = max(ingress.plain_right_edge - ingress.plain_acked, 0) >> self.local_scale
        head = Segment(bare(self.key, 0, 0, ACK, min(window, 0xFFFF)))
        self.outcome.to_network(
            rebuild(head, self.egress.seq(self.egress.left), ingress.seq(self.promise()), options=options)
        )

    # -- options

    def _options_to_wire(self, segment: Segment) -> bytes | None:
        """Take note of the timestamp that our socket echoes, and translate its SACK blocks."""
        packet, at = segment.packet, segment.tcp_at + 20
        length = segment.payload_at - at
        if length == 12 and packet[at : at + 4] == ONLY_TIMESTAMPS:
            self.ts_recent = read_word(packet, at + 8)[0]
            return None
        if length < 10:
            return None
        stamps = timestamps(segment.options())
        if stamps is not None:
            self.ts_recent = stamps[1]
        return translate_sack(segment.options(), lambda left, right, first: self.ingress.wire_sack(left, right))

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
            self.outgoing,
            self.carrier.word,
        )
