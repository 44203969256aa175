"""The engine: every packet on the P2P ports comes here and leaves with a verdict.

    packet + direction + now  ->  ACCEPT | DROP | replacement, and packets to inject, and events

It finds out whose packet it is and asks the right part: an encrypted `Flow`, an attempt in `Admission`, the list of
plaintext connections, or the ghosts of connections that an earlier process left behind.  What belongs to nobody
is dropped wherever the policy demands encryption.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import chain
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .addresses import address_of, endpoints, on_ports, peer_of, reversed_key
from .admission import Admission, Answering, Dialling
from .checksum import tcp_checksum_is_right
from .flow import Flow
from .handshake import HELLO_LENGTH
from .keyring import KeyRing
from .packet import ACK, MASK32, RST, SYN, Buffer, Segment, Unusable, bare, rebuild
from .policy import Policy, Surroundings
from .probing import Probing
from .status import Connection, Counters, State, Totals
from .summary import Summary, summarize_flows
from .verdict import ACCEPT, DROP, Closed, Encrypted, Ended, InPlaintext, Outcome, Verdict

#: Bits of NFQA_SKB_INFO (linux/netfilter/nfnetlink_queue.h).
CSUM_NOT_READY: Final = 1
GSO: Final = 2
CSUM_NOT_VERIFIED: Final = 4

MAX_FLOWS: Final = 16384
MAX_UNCONFIRMED: Final = 4096
#: Seconds for which a connection that was ended here is answered with resets.
GHOST_LIFETIME: Final = 120.0
#: Seconds without a packet after which a connection's socket is looked up again.
LOOK_AFTER: Final = 30.0
#: The same once a connection has ended.  A far side that missed our last acknowledgement repeats its FIN meanwhile, and
#: our kernel's answer, a reset, needs the flow to be translated.
LINGER: Final = 5.0


def _nobody(flow: Flow, present: bool) -> None:
    """The journal of an engine that keeps none."""


class Plaintext:
    """A connection that runs in plaintext, with the policy's leave."""

    __slots__ = ("bytes_in", "bytes_out", "created", "key", "seen")

    def __init__(self, key: bytes, now: float) -> None:
        self.key, self.created, self.seen = key, now, now
        self.bytes_in = self.bytes_out = 0

    def counters(self) -> Counters:
        return Counters(self.bytes_out, self.bytes_in)


class Engine:
    """All connections of one network namespace on the P2P ports."""

    def __init__(self, policy: Policy, ring: KeyRing, static: X25519PrivateKey, surroundings: Surroundings) -> None:
        self.policy = policy
        #: What follows from packets and calls besides verdicts; whoever drives the engine carries it out.
        self.outcome = Outcome()
        self.ring = ring
        self.admission = Admission(
            policy,
            ring,
            static,
            surroundings,
            self.outcome,
            self._establish,
            self._run_in_plaintext,
            self._begin_plaintext,
        )
        self.probing = Probing(ring, static, surroundings, self.outcome)
        #: Flows by key as packets of each direction show it: ours first, theirs first.
        self._by_local: dict[bytes, Flow] = {}
        self._by_remote: dict[bytes, Flow] = {}
        self._plain: dict[bytes, Plaintext] = {}
        #: Connections that must end, and whether they were encrypted; by key, with the time to forget them.
        self._ghosts: dict[bytes, tuple[float, bool]] = {}
        self._unconfirmed: set[bytes] = set()
        self._dialling = self.admission.dialling
        self._answering = self.admission.answering
        #: Connections that are gone: encrypted ones, and those in plaintext.
        self.gone, self.gone_plaintext = Totals(), Totals()
        #: Told of each flow that comes and goes; the shell's journal.
        self.on_flow: Callable[[Flow, bool], None] = _nobody

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
            if not segment.flags & ACK:
                return self.admission.syn_out(segment, key, now)
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
            return self.outcome.drop(unusable.reason)
        if skb_info & CSUM_NOT_VERIFIED:
            # We write a new checksum, which would launder a corrupted header into a valid one.
            whole = packet if isinstance(packet, memoryview) and not packet.readonly else bytearray(packet)
            if not tcp_checksum_is_right(whole, segment.tcp_at, segment.ipv6):
                return self.outcome.drop("bad-checksum")
        flow = self._by_remote.get(segment.source_first)
        if segment.flags & SYN or self._answering or self._dialling or flow is None:
            return self._rare_in(segment, flow, now)
        return self._flow_in(flow, segment, now)

    def _flow_in(self, flow: Flow, segment: Segment, now: float) -> Verdict:
        flow.seen = now
        verdict = flow.from_network(segment)
        if self._unconfirmed and flow.confirmed and flow.key in self._unconfirmed:
            self._unconfirmed.discard(flow.key)
            self.admission.offers.note(flow.identity, flow.key_id, now, flow.path.peer)
            self.outcome.events.append(Encrypted(flow.key, flow.identity))
        return verdict

    def _rare_in(self, segment: Segment, flow: Flow | None, now: float) -> Verdict:
        """A packet from the network that concerns an attempt, or no flow at all."""
        key = reversed_key(segment.source_first)
        if self.probing and self.probing.take(segment, key, now):
            return DROP
        if segment.flags & SYN:
            if not segment.flags & ACK:
                if flow is None and len(self._unconfirmed) >= MAX_UNCONFIRMED:
                    return self.outcome.drop("too-many-attempts")
                return self.admission.syn_in(segment, key, flow, now)
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
                ack = dialling.isn + 1  # a kernel without mcencrypt counts our handshake message
            return rebuild(segment, segment.seq, ack)
        if flow is not None:
            return self._flow_in(flow, segment, now)
        if key in self._answering:
            return rebuild(segment, self.admission.half_open_in(segment, key), segment.ack)
        return self._stray_in(segment, key, now)

    def _stray_out(self, segment: Segment, key: bytes, now: float) -> Verdict:
        """A packet of a local socket that belongs to no flow."""
        if key in self._dialling or key in self._answering:
            return rebuild(segment, segment.seq, segment.ack)
        plain = self._plain.get(key)
        if plain is None and key not in self._ghosts and self.policy.plaintext_allowed(peer_of(key)):
            plain = self._run_in_plaintext(key, now)
        if plain is not None:
            plain.seen = now
            plain.bytes_out += segment.end - segment.payload_at
            return ACCEPT
        if segment.flags & RST and not self._ghosts.get(key, (0.0, False))[1]:
            return rebuild(segment, segment.seq, segment.ack)  # tells a far side of old to go, and nothing else
        if not segment.flags & RST:
            # Whatever socket this is, it must not go on: its own acknowledgement is an exact reset's number.
            self.outcome.end(key, "a connection from before encryption")
            if segment.flags & ACK:
                self.outcome.to_socket(bare(reversed_key(key), segment.ack, segment.seq, RST | ACK))
        return self.outcome.drop("unknown-connection")

    def _stray_in(self, segment: Segment, key: bytes, now: float) -> Verdict:
        """A packet from the network that belongs to no flow."""
        if key in self._ghosts:
            if segment.flags & ACK and not segment.flags & RST:
                self.outcome.to_network(bare(key, segment.ack, 0, RST))
            return self.outcome.drop("ended-by-us")
        plain = self._plain.get(key)
        if plain is None and self.policy.plaintext_allowed(address_of(segment.source_first)):
            plain = self._run_in_plaintext(key, now)
        if plain is not None:
            plain.seen = now
            plain.bytes_in += segment.end - segment.payload_at
            return ACCEPT
        if not segment.flags & RST:
            self.outcome.end(key, "a connection from before encryption")
        return self.outcome.drop("unknown-connection")

    # -- connections

    def _establish(self, flow: Flow) -> bool:
        key = flow.key
        old = self._by_local.get(key)
        if old is None and len(self._by_local) >= MAX_FLOWS:
            return False
        if old is not None:
            self._remove(old)
        self._remove_plaintext(key)
        self._ghosts.pop(key, None)
        self._by_local[key] = self._by_remote[reversed_key(key)] = flow
        self.on_flow(flow, True)
        if flow.confirmed:
            self.outcome.events.append(Encrypted(key, flow.identity))
        else:
            self._unconfirmed.add(key)
        return True

    def _remove(self, flow: Flow) -> None:
        self._by_local.pop(flow.key, None)
        self._by_remote.pop(reversed_key(flow.key), None)
        self._unconfirmed.discard(flow.key)
        flow.ingress.fragments.clear()
        self.gone.add(flow.counters())
        self.on_flow(flow, False)

    def _remove_plaintext(self, key: bytes) -> None:
        plain = self._plain.pop(key, None)
        if plain is not None:
            self.gone_plaintext.add(plain.counters())

    def _run_in_plaintext(self, key: bytes, now: float) -> Plaintext | None:
        if key not in self._plain:
            # Anybody can send a SYN for an encrypted connection: what its socket sends later must not leave as it is.
            encrypted = key in self._by_local or self._ghosts.get(key, (0.0, False))[1]
            if encrypted or len(self._plain) >= MAX_FLOWS:
                return None
            self._plain[key] = Plaintext(key, now)
            if self.policy.enabled:
                self.outcome.events.append(InPlaintext(key))
        return self._plain[key]

    def _begin_plaintext(self, key: bytes, now: float) -> None:
        """Our own kernel has shown that a new connection begins in plaintext: what was here before is over.

        It has one socket for these addresses and ports at most, and answers a SYN that does not belong to that one only
        when it is gone (RFC 9293 section 3.10.7.4, and its own TIME-WAIT).
        """
        flow = self._by_local.get(key)
        if flow is not None:
            self._remove(flow)
        self._ghosts.pop(key, None)
        self._run_in_plaintext(key, now)

    def haunt(
        self, key: bytes, seq: int, ack: int, now: float, why: str = "its keys went with the process that held them"
    ) -> None:
        """A connection that an earlier process encrypted: reset it at the far side, and our socket too.

        `seq` and `ack` are its last known sequence numbers on the network.  If the far side disagrees it says so, and
        is answered exactly for `GHOST_LIFETIME` seconds.  `why` is for the log.
        """
        self._haunt(key, seq, ack, now)
        self.outcome.end(key, why)

    def _haunt(self, key: bytes, seq: int, ack: int, now: float) -> None:
        self._ghosts[key] = (now + GHOST_LIFETIME, True)
        self.outcome.to_network(bare(key, seq, ack, RST | ACK))

    def abort(self, key: bytes, now: float, why: str = "its rules were removed") -> None:
        """End an encrypted connection: the far side is reset, with exact numbers.

        The caller ends our socket, for only it knows what has to wait until that is done.
        """
        flow = self._by_local.get(key)
        if flow is not None:
            egress, ingress = flow.egress, flow.ingress
            self._remove(flow)
            self._haunt(key, egress.seq(egress.sent), ingress.isn + 1 + ingress.ledger.wire_edge, now)
            self.outcome.events.append(Ended(key, why))

    def keeps_plaintext(self, key: bytes) -> bool:
        """Whether a connection that is not encrypted may stay as it is."""
        return self.policy.plaintext_allowed(peer_of(key))

    def disown(self, key: bytes, now: float) -> None:
        """A plaintext connection is being ended: the socket's own reset may leave.

        It can miss what the far side expects, if data was on its way; the far side then says so, and is answered
        exactly.
        """
        self._remove_plaintext(key)
        self._ghosts.setdefault(key, (now + GHOST_LIFETIME, False))

    def leave_all_but(self, ports: Collection[int], now: float) -> list[bytes]:
        """Packets come here for these ports only from now on.  Returns the connections whose sockets must go.

        What is encrypted on other ports is reset at the far side: nobody would translate it any more.  Attempts
        are forgotten, so that none becomes a connection by a packet that was on its way.
        """
        for key in [key for key in self._dialling if not on_ports(key, ports)]:
            del self._dialling[key]
        for key in [key for key in self._plain if not on_ports(key, ports)]:
            self._remove_plaintext(key)
        for key in [key for key in self._answering if not on_ports(key, ports)]:
            self.admission.forget_answering(key)
        leaving = [key for key in self._by_local if not on_ports(key, ports)]
        for key in leaving:
            self.abort(key, now, "its port is not ours any more")
        return leaving

    def end_distrusted(self, now: float) -> list[bytes]:
        """End whatever is encrypted with peers that the policy does not trust (any more), proven or not.

        Returns the connections whose sockets must go.
        """
        self.admission.forget_distrusted()
        ended = [flow for flow in self._by_local.values() if not self.policy.trusts(flow.identity)]
        for flow in ended:
            self.abort(flow.key, now, "its peer is not listed any more")
            self.admission.offers.forget(flow.identity)
        return [flow.key for flow in ended]

    def attempts(self) -> list[bytes]:
        """The connections whose handshake is under way, ours first."""
        return [*self._dialling, *self._answering]

    def forget_plaintext(self) -> None:
        """Packets do not come here any more: forget everything that was counted in passing."""
        for key in self.plaintext_keys():
            self._remove_plaintext(key)

    def tick(self, now: float) -> list[bytes]:
        """Expire what has a deadline.  Returns the connections whose sockets the caller should look up.

        To be called about once a second; for each key without a socket the caller calls `forget`.
        """
        self.admission.expire(now)
        for key in [key for key, (expires, _) in self._ghosts.items() if expires <= now]:
            del self._ghosts[key]
        return [
            key
            for table in (self._by_local, self._plain)
            for key, entry in table.items()
            if entry.seen < now - (LINGER if isinstance(entry, Flow) and entry.is_closing() else LOOK_AFTER)
        ]

    def forget(self, key: bytes) -> None:
        """The kernel has no socket for this connection any more."""
        flow = self._by_local.get(key)
        if flow is not None:
            self._remove(flow)
            self.outcome.events.append(Closed(key, flow.identity if flow.confirmed else b"", flow.counters()))
        self._remove_plaintext(key)

    def touch(self, key: bytes, now: float) -> None:
        """The kernel still has a socket for this connection."""
        entry = self._by_local.get(key) or self._plain.get(key)
        if entry is not None:
            entry.seen = now

    def encrypted_keys(self) -> list[bytes]:
        """The connections that are encrypted, ours first."""
        return list(self._by_local)

    def plaintext_keys(self) -> list[bytes]:
        """The connections that run in plaintext, ours first."""
        return list(self._plain)

    def summary(self) -> Summary:
        """All connections added up, those that are gone included in what only grows."""
        attempts, plain = len(self._dialling) + len(self._answering), self._plain.values()
        summary = Summary({State.HANDSHAKE: attempts, State.PLAINTEXT: len(plain)})
        summary.encrypted = self.gone.connections
        summary.carried.add(self.gone.counters)
        summarize_flows(self._by_local.values(), summary)
        summary.plaintext = self.gone_plaintext.connections + len(plain)
        summary.plaintext_carried.add(self.gone_plaintext.counters)
        passed = Counters(sum(one.bytes_out for one in plain), sum(one.bytes_in for one in plain))
        summary.plaintext_carried.add(passed)
        return summary

    def connections(self, now: float) -> Iterable[Connection]:
        """Everything that is shown in a status."""
        for flow in self._by_local.values():
            yield flow.describe(now)
        for plain in self._plain.values():
            local, remote = endpoints(plain.key)
            yield Connection(local, remote, State.PLAINTEXT, b"", now - plain.created, plain.counters())
        attempts: Iterable[tuple[bytes, Dialling | Answering]]
        attempts = chain(self._dialling.items(), self._answering.items())
        for key, attempt in attempts:
            local, remote = endpoints(key)
            yield Connection(local, remote, State.HANDSHAKE, b"", now - attempt.begun)
