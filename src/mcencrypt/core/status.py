"""Numbers about connections, for people."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from .policy import endpoints

if TYPE_CHECKING:
    from .flow import Flow


@dataclass(slots=True)
class Counters:
    """What one connection, or several, carried.

    Bytes are the applications' own, records what carried them; what arrives twice counts once.
    """

    bytes_out: int = 0
    bytes_in: int = 0
    records_out: int = 0
    records_in: int = 0
    retransmissions: int = 0
    auth_failures: int = 0

    def add(self, other: Counters) -> None:
        for name in COUNTERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))


#: Their names, in the order in which they are shown.
COUNTERS = tuple(one.name for one in fields(Counters))


@dataclass(frozen=True, slots=True)
class Connection:
    """One line of a status."""

    local: bytes
    remote: bytes
    #: "encrypted", "unconfirmed" (the peer has yet to prove who it is), "closing", "handshake" or "plaintext".
    state: str
    #: The peer's public key, once proven.
    identity: bytes
    #: Seconds.
    age: float
    counters: Counters = field(default_factory=Counters)
    #: Of the network key of the handshake.
    key_id: bytes = b""
    #: Whether our own socket dialled.
    outgoing: bool = False


def counters_of(flow: Flow) -> Counters:
    egress, ingress = flow.egress, flow.ingress
    return Counters(
        egress.bytes_sealed,
        ingress.ledger.bytes_inserted,
        egress.records_sealed,
        ingress.ledger.records_inserted,
        egress.retransmissions,
        ingress.auth_failures,
    )


def describe_flow(flow: Flow, now: float) -> Connection:
    local, remote = endpoints(flow.key)
    return Connection(
        local,
        remote,
        "closing" if flow.is_closing() else "encrypted" if flow.confirmed else "unconfirmed",
        flow.identity if flow.confirmed else b"",
        now - flow.created,
        counters_of(flow),
        flow.key_id,
        not flow.hello,
    )


@dataclass(slots=True)
class Totals:
    """Flows that are gone: how many, and their sums."""

    connections: int = 0
    counters: Counters = field(default_factory=Counters)

    def add(self, flow: Flow) -> None:
        self.connections += 1
        self.counters.add(counters_of(flow))
