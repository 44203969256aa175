"""What `mcencrypt verify` concludes from captured packets: which connections are encrypted, which are not.

What a capture proves is framing: every byte is a handshake message or part of a record whose header fits the record
before it. That the records are authentic is what the daemons check; their counters are put beside it.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TYPE_CHECKING

from mcencrypt.reading.capture import address_text
from mcencrypt.reading.conversations import Bounds, Conversation, Conversations, Verdict
from mcencrypt.reading.streamparser import Finding, Piece

if TYPE_CHECKING:
    from mcencrypt.reading.tap import Tap

MAX_CONNECTIONS = 512
MEMORY = 64 << 20
#: Connections of one kind that are named; the others are counted.
MAX_NAMED = 50

Network = IPv4Network | IPv6Network


class Kind(enum.Enum):
    """What a connection was seen to be."""

    ENCRYPTED = "encrypted"
    INCOMPLETE = "encrypted as far as it was captured"
    PLAINTEXT = "PLAINTEXT"
    ALLOWED = "plaintext, as allow_plaintext permits"
    UNKNOWN = "NOT UNDERSTOOD"
    UNANSWERED = "data from outside that was not answered"
    SILENT = "no data"


@dataclass(frozen=True)
class Judged:
    """One connection."""

    kind: Kind
    local: str
    peer: str
    #: Neither end is an address of this network namespace.
    forwarded: bool
    #: Its handshake is in the capture; otherwise record boundaries were found on the way.
    from_start: bool
    #: At least one handshake message was seen.
    handshake: bool
    records: int
    #: Plaintext bytes that the records carried.
    encrypted_bytes: int
    unencrypted_bytes: int
    #: Bytes that were not captured, or that came before the first boundary of a record was found.
    missing_bytes: int
    detail: str


@dataclass
class Outcome:
    """The end of a verification."""

    seconds: float
    ports: tuple[int, ...]
    packets: int
    #: Packets that passed faster than they could be looked at.
    dropped: int
    oddities: dict[str, int]
    counts: Counter[Kind] = field(default_factory=Counter)
    #: Those that are named: at most `MAX_NAMED` of a kind.
    connections: list[Judged] = field(default_factory=list)
    records: int = 0
    #: Bytes that were not captured, or that came before the first boundary of a record was found.
    missing: int = 0
    handshakes: int = 0
    #: Encrypted connections whose start was not captured.
    mid_stream: int = 0
    #: Packets of connections that were too many to be judged.
    beyond: int = 0
    #: What the daemon's counters grew by meanwhile: records_in, records_out, auth_failures; None without a daemon.
    authentic: dict[str, int] | None = None

    @property
    def complete(self) -> bool:
        """Whether every packet was looked at."""
        return not (self.dropped or self.beyond or self.oddities or self.missing)

    @property
    def verdict(self) -> str:
        """ "encrypted", "plaintext" or "nothing seen"."""
        if self.counts[Kind.PLAINTEXT] or self.counts[Kind.UNKNOWN]:
            return "plaintext"
        if self.counts[Kind.ENCRYPTED] or self.counts[Kind.INCOMPLETE]:
            return "encrypted"
        return "allowed plaintext only" if self.counts[Kind.ALLOWED] else "nothing seen"

    def passes(self, strict: bool) -> bool:
        """Whether all that was seen is encrypted; `strict`: and nothing was exempt or missed."""
        return self.verdict == "encrypted" and not (strict and (self.counts[Kind.ALLOWED] or not self.complete))


class Judge:
    """Takes in segments and judges the connections that they belong to, in bounded memory."""

    def __init__(self, ports: Sequence[int], own: Collection[bytes], allowed: Sequence[Network]) -> None:
        """`own`: this host's addresses, packed; `allowed`: networks that may be in plaintext."""
        self._ports = tuple(ports)
        self._own, self._allowed = frozenset(own), tuple(allowed)
        bounds = Bounds(MAX_CONNECTIONS, MEMORY, self._count)
        self._table = Conversations(ports, bounds=bounds)
        self.feed = self._table.feed
        self._outcome = Outcome(0, self._ports, 0, 0, {})

    def finish(self, seconds: float, packets: int, dropped: int, oddities: Mapping[str, int]) -> Outcome:
        """The capture is over."""
        self._table.close()
        for conversation in self._table.all:
            self._count(conversation)
        outcome = self._outcome
        outcome.seconds, outcome.packets, outcome.dropped = seconds, packets, dropped
        outcome.oddities, outcome.beyond = dict(oddities), self._table.beyond
        return outcome

    def _count(self, conversation: Conversation) -> None:
        judged = self._judge(conversation)
        outcome = self._outcome
        outcome.counts[judged.kind] += 1
        outcome.records += judged.records
        if judged.kind is not Kind.UNANSWERED:
            outcome.missing += judged.missing_bytes
        outcome.handshakes += sum(half.greeting is not None for half in conversation.halves)
        outcome.mid_stream += judged.records > 0 and not judged.from_start
        if outcome.counts[judged.kind] <= MAX_NAMED and judged.kind is not Kind.SILENT:
            outcome.connections.append(judged)

    def _judge(self, conversation: Conversation) -> Judged:
        local, peer = conversation.ends
        if peer[0] in self._own and local[0] not in self._own:
            local, peer = peer, local
        halves = conversation.halves
        missing = sum(half.missing for half in halves)
        unencrypted = sum(half.foreign for half in halves)
        kind = self._kind(conversation, unencrypted, missing)
        if kind is Kind.PLAINTEXT and self._may(peer[0]):
            kind = Kind.ALLOWED
        pieces = [entry for half in halves for entry in half.listed if isinstance(entry, Piece) and entry.detail]
        bad = [piece for piece in pieces if piece.finding in (Finding.PLAINTEXT, Finding.UNKNOWN)]
        return Judged(
            kind,
            address_text(*local),
            address_text(*peer),
            local[0] not in self._own,
            conversation.from_start,
            any(half.greeting for half in halves),
            sum(half.records for half in halves),
            sum(half.plain for half in halves),
            unencrypted,
            missing,
            bad[0].detail if bad else "",
        )

    def _kind(self, conversation: Conversation, unencrypted: int, missing: int) -> Kind:
        verdict = conversation.verdict
        recognized = any(half.records or half.greeting for half in conversation.halves)
        if verdict is Verdict.EMPTY or not (unencrypted or recognized):
            return Kind.SILENT
        for half, end in zip(conversation.halves, conversation.ends, strict=True):
            if unencrypted and not recognized and not half.spoke and end[0] in self._own:
                return Kind.UNANSWERED
        if verdict in (Verdict.PLAINTEXT, Verdict.FOREIGN) and unencrypted:
            return Kind.PLAINTEXT
        if unencrypted:
            return Kind.UNKNOWN
        return Kind.INCOMPLETE if missing else Kind.ENCRYPTED

    def _may(self, address: bytes) -> bool:
        peer = ip_address(address)
        return any(peer.version == network.version and peer in network for network in self._allowed)


def watch(judge: Judge, tap: Tap, seconds: float, clock: Callable[[], float], enough: int) -> Outcome:
    """Capture for that long, or until the descriptor `enough` is readable, and judge."""
    import select

    begun = clock()
    end = begun + seconds
    while (left := end - clock()) > 0:
        ready = select.select([tap.fileno(), enough], [], [], left)[0]
        if tap.fileno() in ready:
            judge.feed(tap.read())
        if enough in ready:
            break
    took = clock() - begun
    tap.stop()
    judge.feed(tap.rest())
    return judge.finish(took, tap.packets, tap.dropped, tap.oddities)
