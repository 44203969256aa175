"""Connections whose handshake travels in the stream: who gets one, and how far each is.

    dialling    our SYN was answered without message 2, where plaintext is not allowed or the path is one of relays
    answering   a relay's SYN came without message 1; or what seemed to be in plaintext begins with it

What is here is in no other table: `Table` has a connection once it has keys and, if a peer dialled, a record has
verified.  Both tables are bounded, in number, memory and time.
"""

from __future__ import annotations

from typing import Final

from .addresses import endpoints, peer_of
from .admission import Admission
from .flow import Flow
from .handshake import HELLO_LENGTH, Answer, Carrier, Dial, Refused, Session, named_ephemeral
from .hello import Phase, Stream, Turn
from .keyring import KeyRing
from .options import read_syn
from .packet import ACK, MASK32, RST, SYN, Segment, bare, rebuild
from .policy import Surroundings
from .receiving import SPOILT_AFTER
from .streamanswer import Answered
from .streamdial import Dialled
from .streamtable import MAX_DIALLING, NO_ANSWER, StreamTable
from .table import Table
from .verdict import DROP, Outcome, Verdict

_OTHER_STREAM: Final = "it answers with something else: no mcencrypt is running there"


class Streams(StreamTable):
    """All handshakes in streams of one engine."""

    def __init__(
        self,
        admission: Admission,
        ring: KeyRing,
        around: Surroundings,
        outcome: Outcome,
        table: Table,
    ) -> None:
        super().__init__(outcome, table)
        self._admission, self._ring, self._around = admission, ring, around

    # -- our socket

    def syn_out(self, segment: Segment, key: bytes, verdict: Verdict) -> Verdict:
        """Our socket dials, and `verdict` has message 1 in the SYN: whether it stays there is for the plan."""
        attempt, policy = self._admission.dialling.get(key), self._admission.policy
        if attempt is None or not isinstance(verdict, bytes):
            return verdict
        attempt.syns += 1
        relayed = policy.is_relayed(peer_of(key))
        if policy.plaintext_allowed(peer_of(key)) and not relayed:
            return verdict  # a peer would take a bare one for one in plaintext
        attempt.bare = self.plan.is_bare(key, attempt.isn, attempt.syns, relayed)
        return rebuild(segment, segment.seq, 0, options=read_syn(segment.options()).passed) if attempt.bare else verdict

    def from_socket(self, segment: Segment, key: bytes, now: float) -> Verdict | None:
        """A packet of our socket, no SYN.  None if no handshake in a stream is under way there."""
        dialled = self.dialling.get(key)
        if dialled is not None:
            if segment.flags & RST:
                self._part(dialled, dialled.reset_out())
                return DROP
            first = not dialled.has_asked
            verdict = dialled.from_socket(segment, now)
            if first:
                self._look_again(dialled)
            return verdict
        answered = self.answering.get(key)
        if answered is None:
            self.undecided.spoken(segment, key)
            return None
        if segment.flags & RST:
            if answered.phase is Phase.ASKED:  # nobody listens
                self._forget(answered)
                return rebuild(segment, segment.seq, segment.ack)
            self._part(answered, answered.reset_out())
        return DROP

    def syn_ack_out(self, segment: Segment, key: bytes, live: Flow | None, now: float) -> Verdict | None:
        """Our socket answers a SYN.  None if that did not come from a relay."""
        answered = self.answering.get(key)
        if answered is None or answered.remote_isn + 1 & MASK32 != segment.ack:
            # What our socket did not take of the first record it gets again from the relay, which has its SYN-ACK.
            if live is not None and live.streamed and live.egress.isn == segment.seq:
                return DROP
            attempt = self._admission.answering.get(key)
            if attempt is None or attempt.isn + 1 & MASK32 != segment.ack:
                self.undecided.syn_ack(segment, key, now)
            return None
        if answered.phase is Phase.PROVEN:
            self._release_all(answered, answered.take_answer(segment))
            return DROP
        options = read_syn(segment.options())
        if options.signed:
            self._forget(answered)
            return None
        if answered.phase is Phase.ASKED:
            self._table.make_way(key)  # our own kernel has shown that what was here is over
        verdict = answered.syn_ack(segment, options, now)
        return DROP if verdict is None else verdict

    # -- the network

    def syn_in(self, segment: Segment, key: bytes, now: float) -> Verdict | None:
        """A SYN from the network.  None if it is not a relay's for a handshake in the stream."""
        policy = self._admission.policy
        if not policy.enabled or (not policy.relayed and segment.end > segment.payload_at):
            return None
        address = peer_of(key)
        if not policy.is_relayed(address):
            if segment.end == segment.payload_at and policy.plaintext_allowed(address):
                self.undecided.syn(segment, key)
            return None
        if key in self._admission.dialling or key in self.dialling:
            return None
        answered, other = self.answering.get(key), self._admission.answering.get(key)
        # The first SYN of an attempt says how its handshake travels, whatever the others have.
        again = answered is not None and answered.remote_isn == segment.seq
        if segment.end > segment.payload_at and not again:
            return None
        options = read_syn(segment.options(), self._admission.mss_limit(segment, key), segment.ipv6)
        if options.signed:
            return None
        syn = rebuild(segment, segment.seq, 0, options=options.passed)
        if other is not None and other.isn == segment.seq:
            return syn
        if answered is not None and again:
            return syn if answered.reply is None else DROP
        if answered is not None and answered.phase is not Phase.ASKED:
            return syn  # our kernel knows whether it may take the place of the other, and its SYN-ACK will say so
        if answered is None and not self._has_room(False):
            return self._outcome.drop("too-many-attempts")
        self.answering[key] = Answered(key, segment, options, syn, now, self.deadline)
        self._look_again(self.answering[key])
        return syn

    def syn_ack_in(self, segment: Segment, key: bytes, now: float) -> Verdict | None:
        """A peer's SYN-ACK.  None if it is not for a handshake in the stream."""
        dialled = self.dialling.get(key)
        if dialled is not None:
            if dialled.remote_isn != segment.seq:
                return self._outcome.drop("stray-syn-ack")
            return dialled.syn_ack(segment)  # our socket acknowledges it once more
        attempt, policy = self._admission.dialling.get(key), self._admission.policy
        if attempt is not None:
            self.plan.answered(key)
            if segment.end > segment.payload_at:
                self.plan.prefer_data(key)
            elif segment.ack == attempt.isn + 1 + HELLO_LENGTH & MASK32:
                self.plan.prefer_bare(key)  # it takes what is in SYNs for the stream, or loses what is in SYN-ACKs
                self._outcome.to_network(bare(key, segment.ack, 0, RST))
        if attempt is None or segment.ack != attempt.isn + 1 & MASK32 or segment.end > segment.payload_at:
            return None
        address = peer_of(key)
        if policy.exempts(address) or (policy.plaintext_allowed(address) and not policy.is_relayed(address)):
            return None
        if len(self.dialling) >= MAX_DIALLING:
            return None
        options = read_syn(segment.options(), self._admission.mss_limit(segment, key), segment.ipv6)
        self._admission.dials.forget(key)  # and with it what message 1 in the SYN could have made
        self._table.make_way(key)
        dial = Dial(
            self._ring.offered, self._admission.static, self._admission.ephemerals.take(), self._around.unix_ms(),
            carrier=Carrier.STREAM,
        )  # fmt: skip
        self.dialling[key] = dialled = Dialled(
            key, dial, (attempt.isn, segment.seq), attempt.window, (attempt.scale, options.window_scale), options.mss,
            now, attempt.bare,
        )  # fmt: skip
        self._look_again(dialled)
        return dialled.syn_ack(segment, options)

    def from_network(self, segment: Segment, key: bytes, now: float) -> Verdict | None:
        """A packet from the network, no SYN.  None if no handshake in a stream is under way there."""
        stream: Dialled | Answered | None = self.dialling.get(key) or self.answering.get(key)
        if stream is None:
            return self._first_words(segment, key, now) if key in self.undecided else None
        if segment.flags & RST:
            seq, exact = stream.reset_in(segment)
            if exact:
                self._doubt(stream)
                self._forget(stream)
            return rebuild(segment, seq, 0, flags=RST)
        if not segment.flags & ACK or segment.flags & SYN or not stream.heard(segment, now):
            return self._outcome.drop("unknown-connection")
        if isinstance(stream, Answered) and stream.flow is not None:
            return self._record(stream, segment, now)
        return self._message(stream, segment, now)

    def _first_words(self, segment: Segment, key: bytes, now: float) -> Verdict | None:
        """A connection in plaintext may begin with message 1. None if this passes in plaintext."""
        if segment.flags & (RST | SYN | ACK) != ACK:
            return None
        found = self.undecided.first_words(segment, key, now)
        if not isinstance(found, Answered):
            return DROP if found else None
        if not self._has_room(True):
            return self._outcome.drop("too-many-attempts")
        if not found.is_accepted:  # plaintext would have been, and so its wait is no round trip
            found.is_accepted = True
            self._outcome.to_socket(found.bare(segment))
        found.mss = min(found.mss, self._admission.mss_limit(segment, key))
        found.expires = now + self.deadline
        self._table.make_way(key)
        self.answering[key] = found
        self._look_again(found)
        return self._message(found, segment, now)

    def _message(self, stream: Dialled | Answered, segment: Segment, now: float) -> Verdict:
        """What may be a part of the far side's message."""
        ended = stream.take(segment)
        if stream.collected.is_foreign():
            return self._fail(stream, "not-a-handshake", _OTHER_STREAM)
        if stream.collected.whole:
            self._finish(stream, segment, now)
        elif ended:
            # A relay whose other leg has come to nothing, or a health check.
            self._doubt(stream)
            return self._fail(stream, "no-answer", "" if isinstance(stream, Answered) else NO_ANSWER)
        elif segment.end > segment.payload_at and (isinstance(stream, Answered) or stream.has_asked):
            self._outcome.to_network(stream.acknowledgement())
        return DROP

    def _finish(self, stream: Dialled | Answered, segment: Segment, now: float) -> None:
        """The far side's message is whole."""
        try:
            if isinstance(stream, Dialled):
                self._keys(stream, segment, now)
            else:
                self._answer(stream, now)
        except Refused as refused:
            if refused.reason == "forged-handshake" and isinstance(stream, Dialled):
                # Anybody can have sent it, so it ends nothing; if the far side itself has, time will tell.
                self._outcome.refused[refused.reason] += 1
                stream.collected.clear()
                return
            if refused.key_id:
                self._admission.refused_keys.note(peer_of(stream.key), refused.key_id)
            if refused.reason == "own-key" and isinstance(stream, Answered):
                self._led_back(stream.collected.message(), now)
            self._fail(stream, refused.reason, refused.text)

    def _led_back(self, message: bytes, now: float) -> None:
        """Our own message 1 has come back: whichever dial it is of fails at once."""
        dialled = next((one for one in self.dialling.values() if one.dial.hello == message), None)
        if dialled is not None:
            self._admission.identities.led_back(dialled.key, now)
            self._part(dialled, dialled.reset_out())
            self._outcome.to_socket(dialled.reset_socket())

    def _keys(self, dialled: Dialled, segment: Segment, now: float) -> None:
        """Message 2: the connection is encrypted.  Raises Refused."""
        session = dialled.dial.finish(dialled.collected.message())
        policy, identities, identity = self._admission.policy, self._admission.identities, session.remote_static
        if policy.is_relayed(peer_of(dialled.key)) and policy.pinned_at(endpoints(dialled.key)[1]) is None:
            identities.check(policy, identity)  # behind one address there can be many
        else:
            identities.check_answer(policy, dialled.key, identity, self._around.unix_ms())
        window, scales = dialled.window, dialled.scales
        flow = self._flow(
            dialled, (dialled.isn, window, scales[0]), (dialled.remote_isn, 0, scales[1]),
            session, dialled.dial.secret.key_id, dialled.mss, True, now,
        )  # fmt: skip
        right, scale = HELLO_LENGTH + (segment.window << flow.remote_scale), flow.remote_scale
        shown = min(flow.egress.shown_window(right, 0) >> scale, 0xFFFF)
        flow.heard(HELLO_LENGTH, 0, segment.window, right, shown << scale)
        dialled.move(Turn.MESSAGE_2)
        self._forget(dialled)
        if not self._table.add(flow):
            self._fail(dialled, "too-many-connections", "the connection table is full")
            return
        if dialled.bare:
            self.plan.prefer_bare(dialled.key)
        if dialled.dial.peer_offers:
            self._admission.offers.note(flow.identity, flow.key_id, now, flow.path.peer)
        self._outcome.to_socket(dialled.opens(shown))
        self._owe(dialled, flow, now)

    def _answer(self, answered: Answered, now: float) -> None:
        """Message 1: it is answered.  Raises Refused."""
        unix_ms, hello = self._around.unix_ms(), answered.collected.message()
        secret, name = self._ring.named_by(hello), b"stream" + answered.key + answered.remote_isn.to_bytes(4, "big")
        noise = secret.check_named(hello, Carrier.STREAM.message_1)
        self._admission.replays.check(named_ephemeral(hello), name)
        answer = Answer(secret, self._admission.static, hello, unix_ms, Carrier.STREAM, noise)
        self._admission.identities.check(self._admission.policy, answer.remote_static)
        self._admission.replays.admit(answer.ephemeral, name, answer.timestamp_ms, unix_ms, now)
        message, session = answer.reply(
            self._admission.ephemerals.take(answer.remote_static), unix_ms, self._ring.offered is answer.secret
        )
        reply = answered.reply
        assert reply is not None
        flow = self._flow(
            answered, (reply.isn, reply.window, reply.scale), (answered.remote_isn, answered.window, answered.scale),
            session, answer.secret.key_id, answered.mss, False, now,
        )  # fmt: skip
        answered.move(Turn.MESSAGE_1)
        self._outcome.to_network(answered.answer(message, flow, now))
        self._look_again(answered)

    def _flow(
        self,
        stream: Stream,
        ours: tuple[int, int, int | None],
        theirs: tuple[int, int, int | None],
        session: Session,
        key_id: bytes,
        mss: int,
        confirmed: bool,
        now: float,
    ) -> Flow:
        return self._admission.making.flow(
            stream.key, ours, theirs, session, key_id, mss, b"", confirmed, now, Carrier.STREAM
        )

    # -- a peer's first record

    def _record(self, answered: Answered, segment: Segment, now: float) -> Verdict:
        """A segment behind message 1; the first one with a record that verifies makes the connection."""
        if segment.end - segment.payload_at and answered.is_repeated(segment):
            self._outcome.to_network(answered.again(now))
            return DROP
        flow = answered.flow
        assert flow is not None
        flow.seen = now
        leaving, arriving = answered.records(segment)
        for packet in leaving:
            self._outcome.to_network(packet)
        if answered.cut_off:
            return self._fail(answered, "cut-off", "")
        if not flow.confirmed:
            if answered.is_spoilt:
                answered.expires = min(answered.expires, now + SPOILT_AFTER)
                self._look_again(answered)
            return DROP
        answered.keep(arriving)
        if answered.phase is Phase.PROVEN:
            return DROP
        if answered.is_late(now):
            answered.move(Turn.RECORD)
            self._outcome.to_socket(answered.told(now))
            self._look_again(answered)
            return DROP
        answered.move(Turn.RECORD_SOON)
        first, *others = self._release(answered, None, segment)
        for packet in others:
            self._outcome.to_socket(packet)
        return first

    def _release_all(self, answered: Answered, echo: int | None) -> None:
        answered.move(Turn.SYN_ACK_AGAIN)
        for packet in self._release(answered, echo):
            self._outcome.to_socket(packet)

    def _release(self, answered: Answered, echo: int | None, segment: Segment | None = None) -> list[bytes]:
        """The connection is one like others from now on; what our socket gets of it."""
        flow = answered.flow
        assert flow is not None
        self._forget(answered)
        if not self._table.add(flow):
            self._fail(answered, "too-many-connections", "the connection table is full")
            return [answered.reset_socket()]
        self._admission.has_proven(flow, flow.created)
        outputs = answered.release(self._outcome, echo, segment)
        if flow.ingress.ledger.plain_edge == 0:
            # A record of nothing: our socket does not know that there is something to acknowledge.
            flow.ingress.acknowledge(flow.ingress.ledger.wire_edge, 0, 0)
            self._outcome.to_network(answered.acknowledges(flow))
        return outputs
