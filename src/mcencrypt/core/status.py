"""What is told of a connection: its state, and numbers, for people."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Literal


class State(StrEnum):
    """Where a connection stands; the words are those of `status`, the metrics and the log."""

    #: The handshake is under way, in SYN and SYN-ACK or in the stream.
    HANDSHAKE = "handshake"
    #: Encrypted, with a peer that has yet to prove who it is: its first record will.
    UNCONFIRMED = "unconfirmed"
    #: Encrypted, and the peer's identity proven.
    ENCRYPTED = "encrypted"
    #: Encrypted, and ended as far as packets tell; the kernel still has the socket.
    CLOSING = "closing"
    #: Not encrypted, with the policy's leave.
    PLAINTEXT = "plaintext"
    #: Not encrypted, and without a byte of data: a health check's.
    HEALTH_CHECK = "health-check"

    @property
    def has_keys(self) -> bool:
        """Whether the handshake is done, so that records carry what is sent."""
        return self in (State.UNCONFIRMED, State.ENCRYPTED, State.CLOSING)


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


@dataclass(slots=True)
class Totals:
    """Connections that are gone: how many, and their sums."""

    connections: int = 0
    counters: Counters = field(default_factory=Counters)

    def add(self, counters: Counters) -> None:
        """One more is gone."""
        self.connections += 1
        self.counters.add(counters)


@dataclass(frozen=True, slots=True)
class Connection:
    """One line of a status."""

    #: Each end, packed address + port.
    local: bytes
    remote: bytes
    state: State
    #: The peer's public key, once proven.
    identity: bytes
    #: Seconds.
    age: float
    counters: Counters = field(default_factory=Counters)
    #: Of the network key of the handshake.
    key_id: bytes = b""
    #: Whether our own socket dialled.
    outgoing: bool = False
    #: What carries the handshake; as `handshake.CarrierWord`.
    carrier: Literal["syn", "stream"] = "syn"
