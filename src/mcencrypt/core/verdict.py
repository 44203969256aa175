"""What the engine answers: a verdict per packet, and one `Outcome` for all that must follow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

from .reasons import Reason
from .status import Counters


class Action(Enum):
    """Verdicts that need no packet."""

    ACCEPT = "accept"
    DROP = "drop"


ACCEPT = Action.ACCEPT
DROP = Action.DROP

#: Rejections of one reason that become events before they are taken; more are counted.
TOLD_AT_ONCE: Final = 8

#: Why a connection ends that nobody here has made.
FROM_BEFORE: Final = "a connection from before encryption"

#: A replacement for the packet, at most `packet.VERDICT_LIMIT` bytes long, or what to do with the packet as it is.
Verdict = bytes | Action


@dataclass(frozen=True, slots=True)
class Injection:
    """A packet to send besides the verdict, right after it.

    Toward the network it leaves like the local kernel's own; toward the socket it arrives over the loopback device.
    """

    packet: bytes
    toward: Literal["network", "socket"]


# -- events: what is worth a log line.  Each has the key of a connection, ours first.


@dataclass(frozen=True, slots=True)
class Encrypted:
    """A connection is up, and the peer's identity (its public key) proven."""

    key: bytes
    identity: bytes
    #: Whether its handshake was in the stream.
    streamed: bool = False


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """We dialled, and another key answered than the one that did so before at that address and port."""

    key: bytes
    #: The public key of before, and the one that has been proven now.
    before: bytes
    identity: bytes


@dataclass(frozen=True, slots=True)
class InPlaintext:
    """A connection runs in plaintext, as the policy allows."""

    key: bytes


@dataclass(frozen=True, slots=True)
class Closed:
    """An encrypted connection is gone, and its socket was before it.  `counters` is all that it carried."""

    key: bytes
    #: The peer's public key, if it was proven.
    identity: bytes
    counters: Counters


@dataclass(frozen=True, slots=True)
class Rejected:
    """Policy, or a handshake that failed; `detail` says more, for a person."""

    key: bytes
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True)
class Tampered:
    """A record did not verify, and the packet was dropped."""

    key: bytes
    #: The peer's public key, if it was proven: what was tampered with was to come from it.
    identity: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """We end a connection that must not go on; `why` is for a person."""

    key: bytes
    why: str


Event = Encrypted | KeyChanged | InPlaintext | Closed | Rejected | Tampered | Ended


@dataclass(slots=True)
class Outcome:
    """What follows from packets and commands besides verdicts: the one way out of the core.

    Whoever drives the engine carries it out and empties the lists: injections before the next packet is decided, the
    rest soon.
    """

    injections: list[Injection] = field(default_factory=list)
    #: Connections, ours first, whose local sockets must go.
    sockets: set[bytes] = field(default_factory=set)
    #: Connections, ours first, that a stranger's packet named: if there are such sockets, they must go. With each the
    #: sequence number of the reset that any host has for such a packet, None where it has none.
    suspects: dict[bytes, int | None] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    #: Connections, ours first, whose path will be asked for when the peer answers: it can be looked up meanwhile.
    ahead: list[bytes] = field(default_factory=list)
    #: Packets dropped, by reason.  These only grow.
    refused: Counter[Reason] = field(default_factory=Counter)
    #: Attempts rejected since events were last taken, by reason.
    _rejected: Counter[Reason] = field(default_factory=Counter)

    def drop(self, reason: Reason) -> Verdict:
        """Count a packet that is dropped."""
        self.refused[reason] += 1
        return DROP

    def reject(self, key: bytes, reason: Reason, detail: str) -> Verdict:
        """Drop a packet that began a connection, and say why there will be none.

        Strangers can cause any number of these, so of each reason only a few become events.
        """
        self.refused[reason] += 1
        self._rejected[reason] = number = self._rejected[reason] + 1
        if number <= TOLD_AT_ONCE:
            self.events.append(Rejected(key, reason, detail))
        return DROP

    def take_events(self) -> tuple[list[Event], dict[Reason, int]]:
        """What has happened since the last call, and how many rejections, by reason, are not among the events."""
        events, self.events = self.events, []
        untold = {reason: number - TOLD_AT_ONCE for reason, number in self._rejected.items() if number > TOLD_AT_ONCE}
        self._rejected.clear()
        return events, untold

    def end(self, key: bytes, why: str) -> None:
        """The local socket of this connection must go."""
        self.sockets.add(key)
        self.events.append(Ended(key, why))

    def to_network(self, packet: bytes) -> None:
        """Send a packet like the local kernel's own."""
        self.injections.append(Injection(packet, "network"))

    def to_socket(self, packet: bytes) -> None:
        """Let a packet arrive at the local socket."""
        self.injections.append(Injection(packet, "socket"))
