"""The common case: an established connection, in order, without loss; data and bare acknowledgements, both ways.

What is not common is left to `Flow`, which knows all cases: a function here either says that a packet is not for it,
and then nothing has changed, or makes the packet that leaves. Both work on the same objects, so that connections change
from one to the other packet by packet.

This is plain Python, and runs so. `fast.pxd` beside it gives the types with which it is compiled; `prim` has the
operations on bytes, one twin for either way. Hence no slices, no keywords and no closures here. After the first seal of
a packet there is no falling back, since no wire offset may be sealed twice; incoming data changes nothing before its
last tag has verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import mcencrypt.core.prim as prim

from .egress import SMALL, sizes
from .flow import Flow
from .ledger import MAX_RUNS, run_of, unwrap
from .verdict import Outcome

#: FIN, SYN, RST and URG (RFC 9293 section 3.1), and the two flags that a common segment has.
_RARE: Final = 0x27
_ACK: Final = 0x10
_PSH: Final = 0x08
_OVERHEAD: Final = 22
_TIMESTAMPS: Final = 0x0101080A  # two NOPs before the option (RFC 7323 appendix A)
_LARGEST_RECORD: Final = 0x7FFF
_SMALLEST_RECORD: Final = 64
#: The largest packet that a verdict can carry (packet.VERDICT_LIMIT).
_LIMIT: Final = 65531
#: The same for what the socket gets in one piece (receiving._batches).
_DELIVERED: Final = _LIMIT - 120
#: Payload bytes of a reply up to which it waits for more.
_GROWS: Final = 48 << 10
#: Payload bytes from which on a packet of a relay is a large one; seconds within which the next one follows on it, and
#: how many in a row are much.
_LARGE: Final = 4 << 10
_GAP: Final = 0.0005
_MUCH: Final = 4
#: Runs in a ledger up to which it has room for those of one packet (prim.MAX_BATCHES).
_RUNS: Final = MAX_RUNS - 32
#: Bits of NFQA_SKB_INFO (linux/netfilter/nfnetlink_queue.h).
_GSO: Final = 2
_NOT_VERIFIED: Final = 4


def tcp_header(packet: prim.Buffer, length: int) -> int:
    """Where the TCP header of a common packet stands: no IP options, no fragment, whole. 0 for any other."""
    if length < 40:
        return 0
    if packet[0] == 0x45:
        if prim.u16(packet, 2) != length or prim.u16(packet, 6) & 0x3FFF or packet[9] != 6:
            return 0
        return 20
    if packet[0] >> 4 == 6:
        if length < 60 or prim.u16(packet, 4) + 40 != length or packet[6] != 6:
            return 0
        return 40
    return 0


def payload_offset(packet: prim.Buffer, length: int, tcp_at: int) -> int:
    """Where the payload of a common segment begins: ACK, at most PSH, no option but timestamps. 0 for others."""
    if packet[tcp_at + 13] & (_RARE | _ACK) != _ACK:
        return 0
    size = packet[tcp_at + 12] >> 4
    if size == 8:
        if length < tcp_at + 32 or prim.u32(packet, tcp_at + 20) != _TIMESTAMPS:
            return 0
        return tcp_at + 32
    return tcp_at + 20 if size == 5 else 0


def egress(flow: Flow, packet: prim.Buffer, length: int, tcp_at: int, gso: bool, reply: prim.Reply) -> bool:
    """A packet of the local socket. Whether `reply` is what leaves in its place."""
    payload_at = payload_offset(packet, length, tcp_at)
    if not payload_at:
        return False
    sending, receiving = flow.egress, flow.ingress
    ledger, known = sending.ledger, receiving.ledger
    start = ledger.wire_top
    if (
        sending.final_plain is not None
        or receiving.final_plain is not None
        or sending.sent != start
        or sending.held
        or flow.withheld is not None
        or unwrap(prim.u32(packet, tcp_at + 4) - sending.isn - 1, ledger.plain_top) != ledger.plain_top
    ):
        return False
    plain_ack = unwrap(prim.u32(packet, tcp_at + 8) - receiving.isn - 1, known.plain_edge)
    if plain_ack > known.plain_edge or plain_ack < receiving.plain_acked:
        return False
    new = length - payload_at
    if new:
        if flow.paths_version != flow.paths.version:
            return False
        segment = flow.mss if flow.mss < flow.kernel_mtu - tcp_at - 20 else flow.kernel_mtu - tcp_at - 20
        calm = sending.bytes_sealed >= sending.calm_from and sending.has_room(new)
        size, unit = sizes(gso, new, 0, segment, payload_at - tcp_at - 20, calm)
        size = size if size < _LARGEST_RECORD else _LARGEST_RECORD
        size = size if size > _SMALLEST_RECORD else _SMALLEST_RECORD
        end = start + new + (new + size - 1) // size * _OVERHEAD
        if (
            end > sending.right_edge
            or end - start > (_LIMIT if gso else flow.kernel_mtu) - payload_at
            or end > sending.keys.until
            or (gso and new <= SMALL and not packet[tcp_at + 13] & _PSH)
            or (not gso and start + size + _OVERHEAD > sending.right_edge)
        ):
            return False
        # From here on there is no way back.
        blob = prim.seal(sending.keys.current, start, ledger.plain_top, packet, payload_at, new, size)
        run = run_of(ledger.plain_top, start, new, size, blob, unit)
        ledger.append(run)
        sending.bytes_sealed += new
        sending.records_sealed += run.count
        sending.sent = end
        prim.copy_head(reply, packet, payload_at)
        prim.take_blob(reply, blob)
    else:
        if ledger.plain_top != sending.plain_una and start > sending.right_edge:
            start = sending.right_edge if sending.right_edge > sending.una else sending.una
        elif ledger.plain_top == sending.plain_una:
            start = sending.una
        prim.copy_head(reply, packet, payload_at)
    wire_ack = known.wire_edge if plain_ack == known.plain_edge else known.wire_floor(plain_ack)
    if payload_at - tcp_at == 32:
        flow.ts_recent = prim.u32(packet, tcp_at + 28)
    receiving.acknowledge(wire_ack, plain_ack, prim.u16(packet, tcp_at + 14) << flow.local_scale)
    if flow.streamed and receiving.fragments.memory:
        wire_ack = flow.promise()
    prim.put32(reply.head, tcp_at + 4, sending.isn + 1 + start & 0xFFFFFFFF)
    prim.put32(reply.head, tcp_at + 8, receiving.isn + 1 + wire_ack & 0xFFFFFFFF)
    return True


def ingress(flow: Flow, packet: prim.Buffer, length: int, tcp_at: int, reply: prim.Reply) -> int:
    """A packet from the network. 0: it is left to the engine; 1: `reply` is what the local socket gets in its place.

    2: it brings no record to its end; nothing has changed, but `reply` has its headers and, as its lead, its data.
    """
    payload_at = payload_offset(packet, length, tcp_at)
    if not payload_at:
        return 0
    sending, receiving = flow.egress, flow.ingress
    ledger, sealed, pieces = receiving.ledger, sending.ledger, receiving.fragments
    wire = ledger.wire_edge
    got = length - payload_at
    # Bytes of a record that packets before this one began.
    lead = pieces.tail(wire) if pieces.memory else 0
    if (
        sending.final_plain is not None
        or receiving.final_plain is not None
        or ledger.wire_top != wire
        or lead < 0
        or (lead and not got)
        or flow.marked
        or flow.withheld is not None
        or sending.sacked
        or sending.sent != sealed.wire_top
        or unwrap(prim.u32(packet, tcp_at + 4) - receiving.isn - 1, wire) != wire + lead
        or wire < receiving.acked
        or wire + lead + got > receiving.right_edge
        or (receiving.promised > receiving.acked and receiving.is_broken())
    ):
        return 0
    wire_ack = unwrap(prim.u32(packet, tcp_at + 8) - sending.isn - 1, sending.una)
    if wire_ack > sending.sent or wire_ack < sending.una:
        return 0
    stamp = prim.u32(packet, tcp_at + 24) if payload_at - tcp_at == 32 else flow.ts_recent
    if flow.ts_recent and (stamp - flow.ts_recent) & 0xFFFFFFFF > 0x80000000:
        return 0
    prim.copy_head(reply, packet, payload_at)
    if got:
        opened = open_all(flow, wire, packet, payload_at, got, reply) if pieces.lead(reply, wire, wire + lead) else -1
        if opened < 0 or not (opened or flow.streamed):
            return 0
        if not opened:
            prim.go_on(reply, packet, payload_at, got)
            return 2
    come(flow, lead, wire_ack, stamp, packet, tcp_at, payload_at, got, reply)
    return 1


def come(
    flow: Flow, lead: int, wire_ack: int, stamp: int, packet: prim.Buffer, tcp_at: int, payload_at: int, got: int,
    reply: prim.Reply,
) -> int:  # fmt: skip
    """A packet that is taken changes what is known, and the reply gets its numbers; returns the window shown.

    `lead`: bytes in front of its data that have waited until now. `stamp`: its timestamp.
    """
    sending, receiving = flow.egress, flow.ingress
    ledger, sealed = receiving.ledger, sending.ledger
    wire, plain = ledger.wire_edge, ledger.plain_edge
    if got:
        enter(flow, wire, packet, payload_at, got, reply)
        if lead:
            receiving.fragments.drop(wire if wire > receiving.promised else receiving.promised, wire + lead)
    elif wire == receiving.acked:
        plain = receiving.plain_acked
        if flow.ts_recent:
            flow.ts_recent = stamp
    plain_ack = sending.plain_una if wire_ack == sending.una else sealed.plain_floor(wire_ack)
    right = wire_ack + (prim.u16(packet, tcp_at + 14) << flow.remote_scale)
    shown = sending.shown_window(right, plain_ack) >> flow.remote_scale
    shown = shown if shown < 0xFFFF else 0xFFFF
    if not shown and wire_ack >= sealed.wire_top:
        shown = 1 if prim.u16(packet, tcp_at + 14) else 0
    flow.heard(wire_ack, plain_ack, prim.u16(packet, tcp_at + 14), right, shown << flow.remote_scale)
    prim.put32(reply.head, tcp_at + 4, receiving.isn + 1 + plain & 0xFFFFFFFF)
    prim.put32(reply.head, tcp_at + 8, sending.isn + 1 + plain_ack & 0xFFFFFFFF)
    prim.put16(reply.head, tcp_at + 14, shown)
    return shown


def follows(
    flow: Flow, packet: prim.Buffer, length: int, tcp_at: int, payload_at: int, kept: int, reply: prim.Reply
) -> bool:
    """A packet from the network right behind the one that `reply` is made of, and like it but for what it carries.

    Whether `reply` has that now as well; nothing else of it has changed, but for PSH. `kept`: as in `Express`.
    """
    receiving, sending, got, lead = flow.ingress, flow.egress, length - payload_at, reply.lead_length
    wire, bare, opened = receiving.ledger.wire_edge, not reply.body_length, -1
    begin = unwrap(prim.u32(packet, tcp_at + 4) - receiving.isn - 1, wire)
    if got and begin == wire + lead and begin + got <= receiving.right_edge:
        opened = open_all(flow, wire, packet, payload_at, got, reply)
    if opened < 0:
        return False
    if not opened:
        prim.go_on(reply, packet, payload_at, got)
    elif bare:
        wire_ack = unwrap(prim.u32(packet, tcp_at + 8) - sending.isn - 1, sending.una)
        come(flow, kept, wire_ack, flow.ts_recent, packet, tcp_at, payload_at, got, reply)
    else:
        enter(flow, wire, packet, payload_at, got, reply)
    prim.add_flags(reply, tcp_at, packet)
    return True


def open_all(flow: Flow, wire: int, packet: prim.Buffer, payload_at: int, got: int, reply: prim.Reply) -> int:
    """Open what `got` bytes make whole, with the reply's lead, which begins at the edge at `wire`; plaintext bytes.

    It goes behind what `reply` has. -1, and nothing has changed, if it is not for the fast way.
    """
    receiving = flow.ingress
    ledger = receiving.ledger
    if not flow.confirmed or wire + reply.lead_length + got > receiving.keys.until or len(ledger.runs) > _RUNS:
        return -1
    limit = _DELIVERED - reply.head_length
    if flow.streamed and receiving.plain_right_edge - ledger.plain_edge + reply.body_length < limit:
        limit = receiving.plain_right_edge - ledger.plain_edge + reply.body_length
    return prim.open_records(receiving.keys.current, wire, ledger.plain_edge, packet, payload_at, got, reply, limit)


def enter(flow: Flow, wire: int, packet: prim.Buffer, payload_at: int, got: int, reply: prim.Reply) -> int:
    """What `open_all` has opened is known from now on; what it has left is the reply's lead. Returns the batches."""
    ledger = flow.ingress.ledger
    for batch in range(reply.batches):
        size, some = reply.sizes[batch], reply.lengths[batch]
        number = (some + size - 1) // size
        if not ledger.extend(ledger.plain_edge, wire, some, size, number):
            ledger.insert(run_of(ledger.plain_edge, wire, some, size, b"", 0))
        wire += some + number * _OVERHEAD
    prim.go_on(reply, packet, payload_at, got)
    return reply.batches


class Express:
    """The fast way for all connections of an engine."""

    __slots__ = ("_answering", "_by_local", "_by_remote", "_dialling", "_flow", "_kept", "_large_at", "_outcome",
                 "_streak", "underway")  # fmt: skip

    def __init__(
        self,
        by_local: dict[bytes, Flow],
        by_remote: dict[bytes, Flow],
        dialling: Mapping[bytes, object],
        answering: Mapping[bytes, object],
        outcome: Outcome,
    ) -> None:
        """Flows by key as packets of either direction show it, and attempts, ours first: the engine's own tables.

        While `outcome` has injections they go first, so no packet is for the fast way.
        """
        self._outcome = outcome
        #: Packets of our own that may come by, which are let through as they are.
        self.underway: dict[bytes, int] = {}
        self._by_local, self._by_remote = by_local, by_remote
        self._dialling, self._answering = dialling, answering
        #: Whose data the last reply has; None: it has none.
        self._flow: Flow | None = None
        #: While it has no record, but the beginning of one: how much of that was here before.
        self._kept = 0
        #: Large packets of relays, each soon after the one before, and when the last of them came.
        self._streak, self._large_at = 0, 0.0

    def take(
        self, packet: prim.Buffer, length: int, skb_info: int, outgoing: bool, now: float, reply: prim.Reply
    ) -> bool:
        """Whether `reply` is what goes in the place of this packet; else it is for the engine, and nothing has changed.

        `skb_info`: NFQA_SKB_INFO. `now`: seconds, monotonic. A reply is to be completed, unless it is `bare`.
        """
        tcp_at = tcp_header(packet, length)
        if not tcp_at:
            return False
        if self._outcome.injections or (outgoing and self.underway):
            return False
        flow = (self._by_local if outgoing else self._by_remote).get(prim.key_of(packet, tcp_at == 40))
        if flow is None or flow.key in self._dialling or flow.key in self._answering:
            return False
        if outgoing:
            taken = 1 if egress(flow, packet, length, tcp_at, skb_info & _GSO != 0, reply) else 0
        else:
            if skb_info & _NOT_VERIFIED and not prim.checksum_is_right(packet, length, tcp_at, tcp_at == 40):
                return False
            taken = ingress(flow, packet, length, tcp_at, reply)
        if taken:
            flow.seen = now
            flow.note_positions()
            prim.remember(reply, packet, tcp_at)
            self._flow = flow if taken == 2 or (reply.body_length and not outgoing) else None
            self._kept = reply.lead_length - (length - reply.head_length)
        return taken != 0

    def patience(self, reply: prim.Reply, alone: bool, now: float) -> int:
        """How long the last reply should wait for another packet of the same stream.

        0: not at all; 1: if one is here already; 2: for a moment, since a relay, which sends what it has read as soon
        as it has read it, is in the middle of much. `alone`: the packet came a while after the one before.
        """
        flow, length = self._flow, reply.body_length
        if flow is None:
            return 0
        if not length:
            return 2 if self._streak >= _MUCH and now - self._large_at < _GAP else 1
        if flow.streamed and length >= _LARGE:
            self._streak = self._streak + 1 if now - self._large_at < _GAP else 0
            self._large_at = now
            if self._streak >= _MUCH and length <= _GROWS:
                return 2
        return 0 if alone or length > _GROWS else 1

    def grow(self, packet: prim.Buffer, length: int, skb_info: int, outgoing: bool, reply: prim.Reply) -> bool:
        """Whether the last reply has what this packet carries as well: then nothing goes in the packet's place.

        So our socket, and this host's network, have less to do: it sees and answers one large segment, as if the device
        had merged them (tcp_gro_receive, which asks for the same: that only sequence number, length and PSH differ).
        """
        flow, tcp_at = self._flow, tcp_header(packet, length)
        if flow is None or outgoing or tcp_at != reply.tcp_at:
            return False
        payload_at = payload_offset(packet, length, tcp_at)
        if payload_at != reply.head_length or not prim.is_alike(reply, packet):
            return False
        if skb_info & _NOT_VERIFIED and not prim.checksum_is_right(packet, length, tcp_at, tcp_at == 40):
            return False
        if not follows(flow, packet, length, tcp_at, payload_at, self._kept, reply):
            return False
        flow.note_positions()
        return True

    def bare(self, reply: prim.Reply) -> bytes | None:
        """If the last reply has no record: one packet with what came, for the engine; else None: complete it."""
        if self._flow is None or reply.body_length:
            return None
        self._flow = None
        prim.take_lead(reply, self._kept)
        prim.finish(reply, reply.tcp_at, reply.tcp_at == 40)
        return reply.whole()

    def complete(self, reply: prim.Reply) -> int:
        """Give a reply its lengths and checksums, and keep what it leaves of a record; returns its length in bytes."""
        flow = self._flow
        if flow is not None and reply.lead_length:
            receiving = flow.ingress
            receiving.fragments.put(receiving.ledger.wire_edge, reply.lead, 0, reply.lead_length)
        self._flow = None
        prim.finish(reply, reply.tcp_at, reply.tcp_at == 40)
        return reply.head_length + reply.body_length

    def verdict(
        self, packet: bytes, skb_info: int, outgoing: bool, now: float, reply: prim.Reply | None = None
    ) -> bytes | None:
        """`take` for who wants one piece: what goes in the packet's place, or None."""
        if reply is None:
            reply = prim.Reply()
        if not self.take(packet, len(packet), skb_info, outgoing, now, reply) or self.bare(reply) is not None:
            return None
        self.complete(reply)
        return reply.whole()

    def joined(self, packets: list[bytes], now: float, reply: prim.Reply | None = None) -> tuple[int, bytes | None]:
        """How many of these packets from the network, from the first on, are taken as one; what goes there.

        `take` and `grow` for who wants one piece; `bare` has been asked.
        """
        if reply is None:
            reply = prim.Reply()
        count, packet = 1, packets[0]
        if not self.take(packet, len(packet), 0, False, now, reply):
            return 0, None
        while count < len(packets) and self.patience(reply, False, now):
            packet = packets[count]
            if not self.grow(packet, len(packet), 0, False, reply):
                break
            count += 1
        if self.bare(reply) is not None:
            return 0, None
        self.complete(reply)
        return count, reply.whole()
