"""Health checks: bare TCP connections from addresses in `probes`, which come about and never carry a byte.

A kubelet or a load balancer connects, and that is its whole question. So where the policy names its address, a SYN
without message 1 reaches our socket, and what has no payload passes in both directions. The first byte, whoever sends
it, is dropped and ends the connection at both ends; where the policy allows plaintext it makes a plaintext connection
of it. What a health check is shows from our own kernel's SYN-ACK on, as with all that anybody can send.

Few at a time: who may connect could otherwise fill the backlog of the socket that peers need. The oldest makes room.
"""

from __future__ import annotations

from typing import Final

from .addresses import peer_of, reversed_key
from .admission import Admission
from .attempts import LIFETIME
from .flow import Flow
from .limits import make_room
from .options import read_syn
from .packet import ACK, MASK32, RST, Segment, bare, rebuild
from .table import HealthCheck, Table
from .verdict import ACCEPT, Outcome, Verdict

#: Health checks at once, those that are just ending included; and SYNs of such that our kernel has not answered.
MAX_CHECKS: Final = 64

_FROM_PEER: Final = "it is in `probes` and sends data: a health check only connects, and a peer needs mcencrypt"
_FROM_SOCKET: Final = "the local program sends data to a health check (`probes`), which only connects"


class HealthChecks:
    """All health checks of one engine; which of them stand is in its `Table`."""

    def __init__(self, admission: Admission, outcome: Outcome, table: Table) -> None:
        self._admission, self._outcome, self._table = admission, outcome, table
        self._known = table.checks
        #: By connection key, ours first: initial sequence number of a SYN that was passed, and when to forget it.
        self._asked: dict[bytes, tuple[int, float]] = {}

    # -- SYN and SYN-ACK

    def syn_in(self, segment: Segment, key: bytes, live: Flow | None, now: float) -> Verdict | None:
        """A SYN from the network. None if it is not a health check's."""
        admission = self._admission
        policy = admission.policy
        if not policy.probes or not policy.enabled or segment.end > segment.payload_at:
            return None
        if not policy.is_probe(peer_of(key)) or key in admission.dialling:
            return None
        if self._is_peers(segment.seq, key, live):
            return None
        options = read_syn(segment.options())
        if options.signed:
            return None
        if key not in self._asked:
            make_room(self._asked, MAX_CHECKS)
        self._asked[key] = (segment.seq, now + LIFETIME)
        return rebuild(segment, segment.seq, 0, options=options.passed)

    def syn_ack_out(self, segment: Segment, key: bytes, live: Flow | None, now: float) -> Verdict | None:
        """Our socket answers. None if it does not answer a health check."""
        isn = segment.ack - 1 & MASK32
        if self._is_peers(isn, key, live):
            return None
        known = self._known.get(key)
        if known is None or known.remote_isn != isn:
            if self._asked.get(key, (None, 0.0))[0] != isn:
                return None
            del self._asked[key]
            if key in self._admission.answering:  # our own kernel has shown that it is over
                self._admission.forget_answering(key)
            self._table.make_way(key)
            if len(self._known) >= MAX_CHECKS:
                self._make_room()
            known = self._table.begin_check(key, isn, now)
        known.isn = segment.seq
        return rebuild(segment, segment.seq, segment.ack, options=read_syn(segment.options()).passed)

    def _is_peers(self, isn: int, key: bytes, live: Flow | None) -> bool:
        """Whether a peer that has shown message 1 began with it: a bare copy of that SYN begins nothing else."""
        attempt = self._admission.answering.get(key)
        return (live is not None and live.ingress.isn == isn) or (attempt is not None and attempt.isn == isn)

    # -- anything else

    def from_socket(self, segment: Segment, key: bytes, now: float) -> Verdict | None:
        """A packet of our socket, no SYN. None if it is no health check's."""
        known = self._known.get(key)
        if known is None:
            if segment.flags & RST:
                self._asked.pop(key, None)  # nothing listens
            return None
        if segment.end > segment.payload_at:
            return self._data(known, _FROM_SOCKET, now)
        known.passed(segment.flags, outgoing=True, now=now)
        return ACCEPT

    def from_network(self, segment: Segment, key: bytes, now: float) -> Verdict | None:
        """A packet from the network, no SYN. None if it is no health check's."""
        known = self._known.get(key)
        if known is None:
            return None
        if segment.end > segment.payload_at:
            return self._data(known, _FROM_PEER, now)
        known.passed(segment.flags, outgoing=False, now=now)
        return ACCEPT

    def _data(self, known: HealthCheck, detail: str, now: float) -> Verdict | None:
        """The first byte, one way or the other. None if the connection goes on in plaintext, as the policy allows."""
        policy = self._admission.policy
        leave = policy.leave(peer_of(known.key))
        if leave is not None:
            self._table.begin_in_plaintext(known.key, now, leave)
            return None
        self._end(known)
        return self._outcome.reject(known.key, "health-check-data", detail)

    # -- the end

    def _make_room(self) -> None:
        """The oldest makes room; one that has ended before that is not told."""
        oldest = next((one for one in self._known.values() if one.parted), None)
        if oldest is not None:
            self._table.end_check(oldest.key)
            return
        self._end(next(iter(self._known.values())))
        self._outcome.refused["too-many-attempts"] += 1

    def _end(self, known: HealthCheck) -> None:
        """Both ends are reset. What was sent is known to a byte: nothing, and perhaps the end."""
        self._table.end_check(known.key)
        self._outcome.sockets.add(known.key)
        ours, theirs = known.isn + 1 + known.ended_here, known.remote_isn + 1 + known.ended_there
        self._outcome.to_network(bare(known.key, ours, theirs, RST | ACK))
        self._outcome.to_socket(bare(reversed_key(known.key), theirs, ours, RST | ACK))

    def forget_asked(self) -> None:
        """What our kernel has not answered yet is no health check any more."""
        self._asked.clear()

    def expire(self, now: float) -> None:
        """Forget SYNs that our kernel does not answer."""
        for key in [key for key, (_, expires) in self._asked.items() if expires <= now]:
            del self._asked[key]
