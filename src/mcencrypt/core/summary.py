"""What all connections add up to: few numbers, however many connections there are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .policy import Leave
from .status import Counters, State

if TYPE_CHECKING:
    from .flow import Flow


@dataclass(slots=True)
class Summary:
    """Counters include connections that are gone, so they never fall."""

    #: Connections there are now, by state.
    states: dict[State, int]
    #: Encrypted ones among them whose handshake was in the stream.
    streamed: int = 0
    #: Different proven identities among them.
    peers: int = 0
    #: Connections that ever were encrypted, and what they carried.
    encrypted: int = 0
    carried: Counters = field(default_factory=Counters)
    #: Connections that ever ran in plaintext, by what allowed it, and what they carried; and those that do now.
    plaintext: dict[Leave, int] = field(default_factory=dict)
    plaintext_carried: Counters = field(default_factory=Counters)
    plaintext_now: dict[Leave, int] = field(default_factory=dict)
    #: Health checks that there were.
    checks: int = 0


def summarize_flows(flows: Iterable[Flow], summary: Summary) -> None:
    """Add encrypted connections that exist.  Some 0.3 us each; packets wait meanwhile."""
    peers = set()
    encrypted = unconfirmed = closing = streamed = 0
    bytes_out = bytes_in = records_out = records_in = retransmissions = auth_failures = 0
    for flow in flows:
        if flow.confirmed:
            peers.add(flow.identity)
        if flow.is_closing():
            closing += 1
        elif flow.confirmed:
            encrypted += 1
        else:
            unconfirmed += 1
        streamed += flow.streamed
        egress, ingress = flow.egress, flow.ingress
        bytes_out += egress.bytes_sealed
        records_out += egress.records_sealed
        retransmissions += egress.retransmissions
        bytes_in += ingress.ledger.bytes_inserted
        records_in += ingress.ledger.records_inserted
        auth_failures += ingress.auth_failures
    summary.states |= {State.ENCRYPTED: encrypted, State.UNCONFIRMED: unconfirmed, State.CLOSING: closing}
    summary.peers, summary.streamed = len(peers), streamed
    summary.encrypted += encrypted + unconfirmed + closing
    summary.carried.add(Counters(bytes_out, bytes_in, records_out, records_in, retransmissions, auth_failures))
