"""A handshake in the stream, on the side that is dialled: by a relay, for a peer.

TCP is established with the relay before anybody has proven anything.  So our socket gets no acknowledgement of its
SYN-ACK until a record has verified: whoever only connects, or replays what it has recorded, never makes accept()
return.  Until then the relay is answered from here.  Then our socket must not count all that time as its round trip: if
it was long, the socket is told of the SYN once more, and the time of its new answer is what the far side seems to echo.
"""

from __future__ import annotations

from typing import Final

from .addresses import reversed_key
from .flow import Flow
from .handshake import HELLO_LENGTH
from .hello import KEPT, Phase, Resend, Stream, Turn, offset_of, ours, stamp_of, with_echo
from .options import SynOptions
from .packet import ACK, MASK32, RST, Segment, rebuild
from .packet import bare as bare_segment
from .verdict import Outcome, Verdict

#: Seconds of waiting from which on they must not become a part of our socket's round trip.
LONG: Final = 0.005
#: Seconds that our socket has to answer the SYN that it is told of again.
ANSWER_WITHIN: Final = 0.05
#: SYN-ACKs with different sequence numbers that one SYN may get (SYN cookies).
MAX_REPLIES: Final = 4


class SynAck:
    """One answer of our socket's."""

    __slots__ = ("at", "isn", "packet", "scale", "stamp", "window")

    def __init__(self, segment: Segment, options: SynOptions, packet: bytes, now: float) -> None:
        """`packet`: as it leaves."""
        self.isn, self.window, self.scale, self.packet = segment.seq, segment.window, options.window_scale, packet
        self.stamp, self.at = stamp_of(segment), now


class Answered(Stream):
    """A peer's connection attempt without message 1, from an address of a relay."""

    __slots__ = (
        "_outside",
        "_replies",
        "_told",
        "flow",
        "is_accepted",
        "message",
        "mss",
        "outputs",
        "reply",
        "round_trip",
        "scale",
        "syn",
        "window",
    )

    def __init__(
        self, key: bytes, segment: Segment, options: SynOptions, syn: bytes, now: float, deadline: float
    ) -> None:
        """`syn`: as our socket gets it."""
        super().__init__(key, segment.seq, Phase.ASKED, now, deadline)
        self.syn, self.mss, self.window, self.scale = syn, options.mss, segment.window, options.window_scale
        self._replies: dict[int, SynAck] = {}
        #: The answer that the relay has acknowledged.
        self.reply: SynAck | None = None
        #: Seconds that this took: what our socket would have measured.
        self.round_trip = 0.0
        #: Message 2 and what it makes, once there is one; until then nothing of the flow is known outside.
        self.message, self.flow = b"", None  # type: tuple[bytes, Flow | None]
        self._outside = Outcome()
        #: What our socket is to get once it is told of the connection, and when it was told of the SYN again.
        self.outputs: list[bytes] = []
        self._told = 0.0
        #: Whether our socket is connected already, for it was in plaintext until now.
        self.is_accepted = False

    @property
    def next_at(self) -> float:
        at = super().next_at
        return min(at, self._told + ANSWER_WITHIN) if self.phase is Phase.PROVEN else at

    # -- our socket

    def syn_ack(self, segment: Segment, options: SynOptions, now: float) -> Verdict | None:
        """Our socket's SYN-ACK as it leaves; None if the far side has one, and needs no other."""
        if self.reply is not None:
            return None
        packet = rebuild(segment, segment.seq, segment.ack, options=options.passed)
        if segment.seq in self._replies or len(self._replies) < MAX_REPLIES:
            self._replies[segment.seq] = SynAck(segment, options, packet, now)
        if self.phase is Phase.ASKED:
            self.move(Turn.SYN_ACK)
        return packet

    def reset_out(self) -> list[bytes]:
        """Resets of ours for the far side: one of them is exact, whether it has message 2 or not."""
        if self.reply is None:
            return [bare_segment(self.key, isn + 1, 0, RST) for isn in self._replies]
        numbers = [self.reply.isn + 1, self.reply.isn + 1 + HELLO_LENGTH]
        return [bare_segment(self.key, seq, 0, RST) for seq in numbers[: 1 + bool(self.message)]]

    def reset_socket(self) -> bytes:
        """An exact reset for our socket, which has only heard of a SYN."""
        return bare_segment(reversed_key(self.key), self.remote_isn + 1, 0, RST)

    # -- the far side

    def heard(self, segment: Segment, now: float) -> bool:
        """Whether a segment with ACK can be the far side's; takes note of which SYN-ACK it acknowledges, and what."""
        limit = HELLO_LENGTH if self.message else 0
        if self.reply is None:
            self.reply = self._replies.get(segment.ack - 1 & MASK32)
            if self.reply is not None:
                self.round_trip = now - self.reply.at
            return self.reply is not None
        acked = segment.ack - self.reply.isn - 1 & MASK32
        if acked == HELLO_LENGTH and self.message:
            self.resend = None
        return bool(acked <= limit)

    def _segment(self, seq: int, payload: bytes) -> bytes:
        return self._segment_at(seq, self.edge, payload)

    def _segment_at(self, seq: int, ack: int, payload: bytes) -> bytes:
        assert self.reply is not None
        reply = self.reply
        window = reply.window >> (reply.scale or 0) if self.scale is not None else reply.window
        # Our socket's clock has gone on, but a segment of its own will be newer than this in any case.
        stamps = (None, None) if self.echo is None else (reply.stamp, self.echo)
        return ours(reply.packet, seq, ack, payload, max(window, 1), stamps)

    def acknowledgement(self) -> bytes:
        """An acknowledgement of what there is of message 1."""
        assert self.reply is not None
        return self._segment(self.reply.isn + 1 + (HELLO_LENGTH if self.message else 0), b"")

    def answer(self, message: bytes, flow: Flow, now: float) -> bytes:
        """Message 2 is made: the packet with it."""
        self.message, self.flow, self.resend = message, flow, Resend(now)
        flow.outcome = self._outside
        return self._message()

    def _message(self) -> bytes:
        assert self.reply is not None
        return self._segment(self.reply.isn + 1, self.message)

    def again(self, now: float) -> bytes:
        """Message 2 once more."""
        if self.resend is not None:
            self.resend.again(now)
        return self._message()

    def is_repeated(self, segment: Segment) -> bool:
        """Whether it repeats message 1 and nothing else."""
        end = offset_of(segment.seq, self.remote_isn) + segment.end - segment.payload_at
        return bool(end <= HELLO_LENGTH)

    def acknowledges(self, flow: Flow) -> bytes:
        """An acknowledgement of all that has come."""
        assert self.reply is not None
        return self._segment_at(flow.egress.seq(flow.egress.left), flow.ingress.isn + 1 + flow.ingress.acked, b"")

    def records(self, segment: Segment) -> tuple[list[bytes], list[bytes]]:
        """What follows from a segment behind message 1: packets for the network, and for our socket."""
        assert self.flow is not None
        verdict = self.flow.from_network(segment)
        toward = [one.packet for one in self._outside.injections if one.toward == "socket"]
        leaving = [one.packet for one in self._outside.injections if one.toward == "network"]
        self._outside.injections.clear()
        arriving = [verdict, *toward] if isinstance(verdict, bytes) else toward
        if not self.flow.confirmed:
            return leaving, []
        return leaving, arriving

    @property
    def cut_off(self) -> bool:
        """Whether the stream has ended before a record has verified."""
        return bool(self._outside.sockets)

    @property
    def is_spoilt(self) -> bool:
        """Whether something has come behind message 1 that did not verify, and nothing that did."""
        return self.flow is not None and not self.flow.confirmed and self.flow.ingress.auth_failures > 0

    def keep(self, arriving: list[bytes]) -> None:
        """What our socket is to get later; what finds no room the far side sends again."""
        for packet in arriving:
            if sum(map(len, self.outputs)) + len(packet) <= KEPT * 4:
                self.outputs.append(packet)

    # -- a record has verified

    def is_late(self, now: float) -> bool:
        """Whether our socket would take the time since its SYN-ACK for a round trip, and be much mistaken."""
        assert self.reply is not None
        return not self.is_accepted and now - self.reply.at - self.round_trip > LONG

    def told(self, now: float) -> bytes:
        """The SYN for our socket, again."""
        self._told = now
        return self.syn

    def take_answer(self, segment: Segment) -> int | None:
        """Our socket's answer to that: the timestamp that makes now the end of the round trip, in milliseconds.

        None if there is none, or if it is another connection to our socket.
        """
        assert self.reply is not None
        stamp = stamp_of(segment)
        if stamp is None or segment.seq != self.reply.isn:
            return None
        return stamp - round(self.round_trip * 1000) & MASK32

    def release(self, outcome: Outcome, echo: int | None, segment: Segment | None = None) -> list[bytes]:
        """What our socket gets now, first of all an acknowledgement of its SYN-ACK.

        `echo`: the timestamp that it is to find echoed.  `segment`: the one of the far side's that is just here.
        """
        assert self.flow is not None and self.reply is not None
        self.flow.outcome = outcome
        outputs, self.outputs = self.outputs, []
        if not outputs:
            outputs = [self.bare(segment)]
        return outputs if echo is None else [with_echo(packet, echo) for packet in outputs]

    def bare(self, segment: Segment | None) -> bytes:
        """A bare acknowledgement of our SYN-ACK, as the far side's TCP has sent one."""
        assert self.reply is not None
        if segment is not None:
            return rebuild(segment, self.remote_isn + 1, self.reply.isn + 1, flags=ACK)
        head = Segment(self.syn)
        stamps = (self.echo if self.reply.stamp is not None else None, self.reply.stamp)
        return ours(self.syn, self.remote_isn + 1, self.reply.isn + 1, b"", head.window, stamps)
