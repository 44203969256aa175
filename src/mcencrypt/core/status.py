"""Numbers about connections, for people."""

from __future__ import annotations

from dataclasses import dataclass

from .flow import Flow
from .policy import endpoints


@dataclass(frozen=True, slots=True)
class Connection:
    """One line of a status.  Bytes are the applications' own, records what carried them."""

    local: bytes
    remote: bytes
    #: "encrypted", "unconfirmed" (the peer has yet to prove who it is), "closing", "handshake" or "plaintext".
    state: str
    #: The peer's public key, once proven.
    identity: bytes
    #: Seconds.
    age: float
    bytes_out: int = 0
    bytes_in: int = 0
    records_out: int = 0
    records_in: int = 0
    retransmissions: int = 0
    auth_failures: int = 0


def describe_flow(flow: Flow, now: float) -> Connection:
    local, remote = endpoints(flow.key)
    egress, ingress = flow.egress, flow.ingress
    return Connection(
        local,
        remote,
        "closing" if flow.is_closing() else "encrypted" if flow.confirmed else "unconfirmed",
        flow.identity if flow.confirmed else b"",
        now - flow.created,
        egress.bytes_sealed,
        ingress.bytes_opened,
        egress.records_sealed,
        ingress.records_opened,
        egress.retransmissions,
        ingress.auth_failures,
    )


@dataclass(slots=True)
class Totals:
    """Sums over flows that are gone."""

    connections: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    records_out: int = 0
    records_in: int = 0
    retransmissions: int = 0
    auth_failures: int = 0

    def add(self, flow: Flow) -> None:
        self.connections += 1
        self.bytes_out += flow.egress.bytes_sealed
        self.bytes_in += flow.ingress.bytes_opened
        self.records_out += flow.egress.records_sealed
        self.records_in += flow.ingress.records_opened
        self.retransmissions += flow.egress.retransmissions
        self.auth_failures += flow.ingress.auth_failures
