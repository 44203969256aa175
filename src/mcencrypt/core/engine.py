"""The engine: every packet on the P2P ports comes here and leaves with a verdict.

    packet + direction + now  ->  ACCEPT | DROP | replacement; what else follows gathers in `outcome`

It finds out whose packet it is and asks the right part: an encrypted `Flow`, an attempt in `Admission`, or what the
`Table` has in plaintext, or knows to have ended.  What belongs to nobody is dropped wherever the policy demands
encryption.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import mcencrypt.core.headers as headers

from .addresses import address_of, on_ports, peer_of, reversed_key
from .admission import Admission
from .ephemerals import Ephemerals
from .fast import Express
from .flow import Flow
from .handshake import HELLO_LENGTH
from .healthchecks import HealthChecks
from .icmp import checksum_is_right, is_icmp, read_error, rewrite
from .keyring import KeyRing
from .limits import Budget
from .noise import KeyPair
from .packet import ACK, MASK32, RST, SYN, Buffer, Segment, Unusable, bare, rebuild
from .policy import Policy, Surroundings
from .probing import Probing
from .record import EPOCH_BITS
from .status import Connection, State
from .streams import Streams
from .summary import Summary
from .table import Gone, Table, nobody
from .verdict import ACCEPT, DROP, FROM_BEFORE, Outcome, Verdict

#: Bits of NFQA_SKB_INFO (linux/netfilter/nfnetlink_queue.h).
CSUM_NOT_READY: Final = 1
GSO: Final = 2
CSUM_NOT_VERIFIED: Final = 4

#: Sockets that are looked up because a packet from the network named them: a second, and at once.  Whoever has such a
#: socket sends as well, and what it sends is always believed.  No more of these packets are answered, with a reset.
LOOK_UPS_PER_SECOND: Final = 64.0
LOOK_UPS_AT_ONCE: Final = 64

#: Peers that may be connected without having proven who they are.
MAX_UNCONFIRMED: Final = 4096


class Engine:
    """All connections of one network namespace on the P2P ports."""

    def __init__(
        self,
        policy: Policy,
        ring: KeyRing,
        static: X25519PrivateKey,
        surroundings: Surroundings,
        *,
        on_flow: Callable[[Flow, bool], None] = nobody,
        epoch_bits: int = EPOCH_BITS,
    ) -> None:
        """`on_flow` is told of each flow that comes (True) and goes, for a journal.

        `epoch_bits`: log2 of the wire bytes after which a direction's key changes; only tests have another.
        """
        #: What follows from packets and calls besides verdicts; whoever drives the engine carries it out.
        self.outcome = Outcome()
        self.ring = ring
        self.table = Table(self.outcome, on_flow)
        #: Keys of handshakes to come, to be made while nothing else is to be done.
        self.ephemerals = Ephemerals(surroundings.random)
        own = KeyPair(static)
        self.admission = Admission(
            policy, ring, own, self.ephemerals, surroundings, self.outcome, self.table, epoch_bits
        )
        self.streams = Streams(self.admission, ring, surroundings, self.outcome, self.table)
        self.health = HealthChecks(self.admission, self.outcome, self.table)
        self.probing = Probing(ring, own, self.ephemerals, surroundings, self.outcome)
        # Looked at for each packet:
        self._by_local, self._by_remote = self.table.by_local, self.table.by_remote
        self._plain, self._ghosts, self._unconfirmed = self.table.plain, self.table.ghosts, self.table.unconfirmed
        self._probes = self.probing.under_way
        self._dialling, self._answering = self.admission.dialling, self.admission.answering
        #: The ports that are not being given up; None if none is.
        self._staying: frozenset[int] | None = None
        self._look_ups = Budget(LOOK_UPS_PER_SECOND, LOOK_UPS_AT_ONCE)
        #: Handles what is common before `egress` and `ingress` are asked.
        self.express = Express(self._by_local, self._by_remote, self._dialling, self._answering, self.outcome)

    @property
    def policy(self) -> Policy:
        """What the operator allows."""
        return self.admission.policy

    def put_behind(self, behind: Callable[[Callable[[], None]], None]) -> None:
        """Have `behind` do what no verdict waits for; it must be done before the next packet is decided."""
        self.admission.behind = behind

    def look_ahead(self, key: bytes) -> None:
        """A packet has left whose connection is in `outcome.ahead`: be ready for the answer."""
        self.admission.look_ahead(key)

    # -- packets

    def egress(self, packet: Buffer, skb_info: int, now: float) -> Verdict:
        """The verdict for a packet of the local socket (raw OUTPUT).  `now`: seconds, monotonic."""
        try:
            segment = Segment(packet)
        except Unusable as unusable:
            return self.outcome.drop(unusable.reason)
        key = segment.source_first
        flow = self._by_local.get(key)
        if segment.flags & SYN:
            if self._leaves(key):
                return DROP
            if not segment.flags & ACK:
                return self.streams.syn_out(segment, key, self.admission.syn_out(segment, key, now))
            verdict = self.streams.syn_ack_out(segment, key, flow, now)
            if verdict is None:
                verdict = self.health.syn_ack_out(segment, key, flow, now)
            if verdict is None:
                verdict = self.admission.syn_ack_out(segment, key, flow, now)
            return verdict if verdict is not None else self._stray_out(segment, key, now)
        if flow is None or key in self._dialling:
            return self._stray_out(segment, key, now)
        flow.seen = now
        return flow.from_socket(segment, bool(skb_info & GSO))

    def ingress(self, packet: Buffer, skb_info: int, now: float) -> Verdict:
        """The verdict for a packet from the network (mangle INPUT).  `now`: seconds, monotonic."""
        try:
            segment = Segment(packet)
        except Unusable as unusable:
            if is_icmp(packet):
                return self._error_in(packet)
            return self.outcome.drop(unusable.reason)
        # We write a new checksum, which would launder a corrupted header into a valid one.
        if skb_info & CSUM_NOT_VERIFIED and not headers.checksum_is_right(packet, segment.tcp_at):
            return self.outcome.drop("bad-checksum")
        flow = self._by_remote.get(segment.source_first)
        if segment.flags & SYN or self._answering or self._dialling or flow is None:
            return self._rare_in(segment, flow, now)
        return self._flow_in(flow, segment, now)

    def _error_in(self, packet: Buffer) -> Verdict:
        """ICMP from the network.

        What quotes none of our encrypted connections is for the kernel as it is: of other programs, of plaintext, or of
        an attempt, whose numbers nobody has changed. Anything else is for the local socket if what it quotes is under
        way; whoever sends it has to know that much (RFC 5927).
        """
        quotation = read_error(packet)
        if quotation is None:
            return ACCEPT
        flow = self._by_local.get(quotation.key)
        if flow is None:
            return ACCEPT
        seq = flow.egress.quoted(quotation.seq)
        if seq is None:
            return self.outcome.drop("stray-icmp")
        if not checksum_is_right(packet, quotation):
            return self.outcome.drop("bad-checksum")
        mtu, paths = quotation.mtu, self.admission.paths
        return rewrite(packet, quotation, seq, None if mtu is None else paths.learn(paths.of(flow.key), mtu))

    def _flow_in(self, flow: Flow, segment: Segment, now: float) -> Verdict:
        flow.seen = now
        verdict = flow.from_network(segment)
        if self._unconfirmed and flow.confirmed and flow.key in self._unconfirmed:
            self.table.confirm(flow)
            self.admission.has_proven(flow, now)
        return verdict

    def _rare_in(self, segment: Segment, flow: Flow | None, now: float) -> Verdict:
        """A packet from the network that concerns an attempt, or no flow at all."""
        key = reversed_key(segment.source_first)
        if key in self._probes and self.probing.take(segment, key, now):
            return DROP
        if segment.flags & SYN:
            if self._leaves(key):
                return DROP
            if not segment.flags & ACK:
                if flow is None and len(self._unconfirmed) >= MAX_UNCONFIRMED:
                    return self.outcome.drop("too-many-attempts")
                verdict = self.streams.syn_in(segment, key, now)
                if verdict is None:
                    verdict = self.health.syn_in(segment, key, flow, now)
                return self.admission.syn_in(segment, key, flow, now) if verdict is None else verdict
            verdict = self.streams.syn_ack_in(segment, key, now)
            if verdict is None:
                verdict = self.admission.syn_ack_in(segment, key, flow, now)
            if verdict is None and flow is not None:
                return self.outcome.drop("stray-syn-ack")  # anybody can send one, so it must not harm a connection
            return verdict if verdict is not None else self._stray_in(segment, key, now)
        if key in self._answering:
            self.admission.first_ack_in(segment, key, now)
            flow = self._by_remote.get(segment.source_first)
        dialling = self._dialling.get(key)
        if dialling is not None:
            # Our socket is in SYN-SENT and knows wire space only: what answers it passes as it is, less any payload.
            ack = segment.ack
            if ack == dialling.isn + 1 + HELLO_LENGTH & MASK32:
                ack = dialling.isn + 1 & MASK32  # a kernel without mcencrypt counts our handshake message
            if segment.flags & (RST | ACK) == RST | ACK and ack == dialling.isn + 1 & MASK32:
                self.admission.dials.forget(key)  # refused (RFC 9293 section 3.10.7.3)
            return rebuild(segment, segment.seq, ack)
        if flow is not None:
            return self._flow_in(flow, segment, now)
        if key in self._answering:
            return rebuild(segment, self.admission.half_open_in(segment, key), segment.ack)
        return self._stray_in(segment, key, now)

    def _stray_out(self, segment: Segment, key: bytes, now: float) -> Verdict:
        """A packet of a local socket that belongs to no flow."""
        if self.streams:
            verdict = self.streams.from_socket(segment, key, now)
            if verdict is not None:
                return verdict
        if key in self._dialling or key in self._answering:
            peer = self._answering.get(key)
            if peer and segment.flags & (RST | ACK) == RST | ACK and segment.ack == peer.isn + 1 & MASK32:
                self.admission.forget_answering(key)  # nothing listens (RFC 9293 section 3.10.7.1)
            return rebuild(segment, segment.seq, segment.ack)
        if reversed_key(key) in self._by_local:
            # What we sent to our own socket has found the way out instead, because its address is not ours any more.
            return self.outcome.drop("unknown-connection")
        verdict = self.health.from_socket(segment, key, now)
        if verdict is not None:
            return verdict
        plain = self._plain.get(key)
        leave = self.policy.leave(peer_of(key)) if plain is None else None
        if leave is not None and self.table.stage(key) is Gone.UNKNOWN:
            if segment.flags & (SYN | RST):
                return ACCEPT  # what our kernel answers to anybody's packets shows no connection
            plain = self.table.pass_in_plaintext(key, now, leave)
        if plain is not None:
            plain.seen = now
            plain.bytes_out += segment.end - segment.payload_at
            return ACCEPT
        ghost = self._ghosts.get(key)
        if segment.flags & RST and not (ghost is not None and ghost.encrypted):
            return rebuild(segment, segment.seq, segment.ack)  # tells a far side of old to go, and nothing else
        if not segment.flags & RST:
            # Whatever socket this is, it must not go on: its own acknowledgement is an exact reset's number.
            self.outcome.end(key, FROM_BEFORE)
            if segment.flags & ACK:
                self.outcome.to_socket(bare(reversed_key(key), segment.ack, segment.seq, RST | ACK))
        return self.outcome.drop("unknown-connection")

    def _stray_in(self, segment: Segment, key: bytes, now: float) -> Verdict:
        """A packet from the network that belongs to no flow."""
        if self.streams:
            verdict = self.streams.from_network(segment, key, now)
            if verdict is not None:
                return verdict
        verdict = self.health.from_network(segment, key, now)
        if verdict is not None:
            return verdict
        if key in self._ghosts:
            if segment.flags & ACK and not segment.flags & RST:
                self.outcome.to_network(bare(key, segment.ack, 0, RST))
            return self.outcome.drop("ended-by-us")
        plain = self._plain.get(key)
        if plain is not None:
            plain.seen = now
            plain.bytes_in += segment.end - segment.payload_at
            return ACCEPT
        if self.policy.plaintext_allowed(address_of(segment.source_first)):
            return ACCEPT  # anybody can send it: whether there is a connection our own kernel's answer shows
        if not segment.flags & RST and self._look_ups.take(now):
            # Over IPv6 anybody can send from our own address: what that says is answered to no socket of ours.
            answered = segment.flags & ACK and address_of(key) != peer_of(key)
            self.outcome.suspects[key] = segment.ack if answered else None
        return self.outcome.drop("unknown-connection")

    # -- what others decide

    def take_policy(self, policy: Policy, now: float) -> list[bytes]:
        """Another policy, as a whole, from now on.  Returns the connections, ours first, whose sockets must go.

        Those are encrypted ones with peers that it does not trust, proven or not; their far sides are reset.  Plaintext
        connections that it does not allow do not pass any more; which of them have a socket only the kernel knows.
        """
        self.admission.take_policy(policy)
        self.streams.take_policy(policy)
        self.health.forget_asked()
        distrusted = [flow for flow in self._by_local.values() if not policy.trusts(flow.identity)]
        for flow in distrusted:
            self.table.abort(flow.key, now, "its peer is not listed any more")
            self.admission.offers.forget(flow.identity)
            self.ephemerals.forget(flow.identity)
        plain = [key for key in self._plain if not policy.plaintext_allowed(peer_of(key))]
        checks = self.table.check_keys()
        ended = [key for key in checks if not policy.is_probe(peer_of(key)) and policy.leave(peer_of(key)) is None]
        for key in plain + ended:
            self.table.disown(key, now)
        return [flow.key for flow in distrusted]

    def leave_all_but(self, ports: Collection[int], now: float) -> list[bytes]:
        """Packets come here for these ports only from now on.  Returns the connections whose sockets must go.

        What is encrypted on other ports is reset at the far side: nobody would translate it any more. For the same
        reason nothing begins there until `have_left`.
        """
        self.admission.forget_attempts(ports)
        self._staying = frozenset(ports)
        self.streams.leave_all_but(ports)
        self.health.forget_asked()
        for key in self.table.plaintext_keys() + self.table.check_keys():
            if not on_ports(key, ports):
                self.table.leave_alone(key)
        leaving = [key for key in self._by_local if not on_ports(key, ports)]
        for key in leaving:
            self.table.abort(key, now, "its port is not ours any more")
        return leaving

    def have_left(self) -> None:
        """The rules are for the ports that stay; or have not changed, and all ports stay."""
        self._staying = None

    def _leaves(self, key: bytes) -> bool:
        """Whether it is on a port that is being given up. SYNs are sent again, and by then that is done."""
        return self._staying is not None and not on_ports(key, self._staying)

    def routes_changed(self) -> None:
        """The route to a peer may be another one now."""
        self.admission.paths.routes_changed()

    def tick(self, now: float) -> list[bytes]:
        """Expire what has a deadline.  Returns the connections whose sockets the caller should look up.

        To be called about once a second; for each key without a socket the caller calls `table.forget`, for the others
        `table.touch`.
        """
        self.admission.expire(now)
        self.health.expire(now)
        self.admission.paths.tick(now)
        self.table.expire(now)
        return self.table.silent(now)

    # -- what is shown

    def connections(self, now: float) -> Iterator[Connection]:
        """Everything that is shown in a status."""
        return chain(self.table.connections(now), self.admission.connections(now), self.streams.connections(now))

    def summary(self) -> Summary:
        """All connections added up, those that are gone included in what only grows."""
        summary = self.table.summary()
        summary.plaintext_now = Counter(self.policy.leave(peer_of(key)) or "off" for key in self._plain)
        summary.states[State.HANDSHAKE] = len(self._dialling) + len(self._answering) + len(self.streams)
        return summary
