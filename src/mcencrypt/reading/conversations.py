"""TCP connections told apart: by addresses, ports and initial sequence numbers, for ports are used again."""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.reading.capture import ACK, FIN, RST, SYN, Segment, address_text
from mcencrypt.reading.reassembly import Half, Memory
from mcencrypt.reading.streamparser import MASK, Finding, Record, parse_greeting

RecordSink = Callable[["Conversation", Half, Record], None]
_End = tuple[bytes, int]


class Verdict(enum.Enum):
    """What a connection turned out to be."""

    ENCRYPTED = "encrypted"
    PARTLY = "NOT CLEAN"
    PLAINTEXT = "PLAINTEXT"
    FOREIGN = "NOT ENCRYPTED BY MCENCRYPT"
    #: Packets were cut when they were captured, and what is left shows nothing in plaintext.
    CUT = "INCOMPLETE, cut by the capture"
    #: Nothing but handshake and records, as far as the capture has its bytes.
    MISSING = "INCOMPLETE, parts are not in the capture"
    EMPTY = "no data"


class Conversation:
    """One TCP connection. `client` sent the SYN; without a SYN in the capture it is a guess."""

    def __init__(
        self, number: int, client: _End, server: _End, on_record: RecordSink | None, memory: Memory | None = None
    ) -> None:
        self.number = number
        self.ends = client, server
        self._memory = memory or Memory()
        self.client, self.server = (self._half(end, on_record) for end in (client, server))
        self.notes: list[str] = []
        #: Segments of which the capture has not all bytes.
        self.cut = 0
        self.candidate: Segment | None = None

    def _half(self, end: _End, on_record: RecordSink | None) -> Half:
        if on_record is None:
            return Half(address_text(*end), None, self._memory)

        def pass_on(record: Record) -> None:
            on_record(self, half, record)

        half = Half(address_text(*end), pass_on, self._memory)
        return half

    @property
    def halves(self) -> tuple[Half, Half]:
        return self.client, self.server

    @property
    def from_start(self) -> bool:
        """Whether both SYNs are in the capture."""
        return self.client.initial is not None and self.server.initial is not None

    @property
    def over(self) -> bool:
        """Whether the connection has ended."""
        return any(half.reset for half in self.halves) or all(half.fin for half in self.halves)

    @property
    def verdict(self) -> Verdict:
        found = self._as_captured()
        return Verdict.CUT if self.cut and found not in (Verdict.PLAINTEXT, Verdict.ENCRYPTED) else found

    def _as_captured(self) -> Verdict:
        """What it would be if no packet had been cut."""
        halves = self.halves
        if any(half.found[Finding.PLAINTEXT] for half in halves):
            return Verdict.PLAINTEXT
        if not any(half.bytes or half.missing or half.foreign for half in halves):
            return Verdict.EMPTY
        if not any(half.records or half.greeting for half in halves):
            return Verdict.FOREIGN
        if any(half.foreign for half in halves):
            return Verdict.PARTLY
        if any(half.missing for half in halves):
            return Verdict.MISSING
        return Verdict.ENCRYPTED

    def close(self) -> None:
        """Nothing more will come: account for what is held and note what a reader should know."""
        for half in self.halves:
            half.close()
        if not self.from_start and any(half.started for half in self.halves):
            known = [half.name for half in self.halves if half.initial is not None]
            if not known:
                self.notes.append("no SYN in the capture: wire offsets count from the first byte captured")
            elif self.server.started:
                self.notes.append(f"only the SYN of {known[0]} is in the capture")
            else:
                self.notes.append("the SYN was not answered")
        for half in self.halves:
            if half.fin and not half.final and half.records and not half.reset:
                self.notes.append(f"{half.name} closed with a FIN without a FINAL record")
            if half.reset:
                self.notes.append(f"{half.name} sent RST")
            if half.altered:
                self.notes.append(f"{half.name} repeated {half.altered} bytes with other contents")
            if half.stray:
                self.notes.append(f"{half.name} sent {half.stray} bytes far outside the stream")


@dataclass(frozen=True)
class Bounds:
    """What a reader without end keeps at most."""

    connections: int
    #: Bytes held back or kept for comparison, of all connections together.
    memory: int
    #: Called with each connection that had to make room: one that is over, or that had no data.
    leaves: Callable[[Conversation], None]


class Conversations:
    """All connections of a capture; feed it segments, then call `close`.

    Only connections with one of `ports` at either end count; all with None. `on_record` is called for each record.
    `bounds` is for a reader without end; without it all connections are kept.
    """

    def __init__(
        self,
        ports: Collection[int] | None = None,
        on_record: RecordSink | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        self.all: list[Conversation] = []
        #: Packets of connections for which there was no room.
        self.beyond = 0
        self._bounds = bounds
        self._memory = Memory(bounds.memory if bounds else None)
        self._count = 0
        self._ports = frozenset(ports) if ports is not None else None
        self._on_record = on_record
        self._open: dict[tuple[_End, _End], Conversation] = {}

    def feed(self, segments: Iterable[Segment]) -> None:
        """Take in segments in the order of their capture."""
        ports = self._ports
        for segment in segments:
            if ports is None or segment.source_port in ports or segment.destination_port in ports:
                self._take(segment)

    def close(self) -> None:
        """The capture is over."""
        for conversation in self._open.values():
            conversation.close()
        self._open.clear()

    def _take(self, segment: Segment) -> None:
        source = (segment.source, segment.source_port)
        destination = (segment.destination, segment.destination_port)
        from_client = True
        found = self._open.get((source, destination))
        if found is None:
            found = self._open.get((destination, source))
            from_client = found is None
        flags = segment.flags
        if flags & SYN and not flags & ACK:
            found = self._syn(segment, found if from_client else None, source, destination)
            if found is None:
                return
        elif found is None:
            from_client = self._looks_like_client(segment)
            ends = (source, destination) if from_client else (destination, source)
            if (found := self._new(*ends)) is None:
                return
        elif (candidate := found.candidate) and self._promotes(candidate, segment, from_client):
            ends = (source, destination) if from_client else (destination, source)
            if (found := self._new(*ends)) is None:
                return
            found.client.open(candidate.sequence, candidate.payload)
        self._apply(segment, found, from_client)

    def _new(self, client: _End, server: _End) -> Conversation | None:
        """A connection between these ends, after which an older one is over; None if there is no room."""
        for key in ((client, server), (server, client)):
            old = self._open.pop(key, None)
            if old is not None:
                old.close()
        if not self._make_room():
            self.beyond += 1
            return None
        self._count += 1
        conversation = Conversation(self._count, client, server, self._on_record, self._memory)
        self.all.append(conversation)
        self._open[(client, server)] = conversation
        return conversation

    def _make_room(self) -> bool:
        """Let one that is over or has no data go, the oldest first."""
        if self._bounds is None or len(self.all) < self._bounds.connections:
            return True
        place = next(
            (at for at, one in enumerate(self.all) if one.over or all(half.silent for half in one.halves)), None
        )
        if place is None:
            return False
        gone = self.all.pop(place)
        if self._open.get(gone.ends) is gone:
            del self._open[gone.ends]
            gone.close()
        self._bounds.leaves(gone)
        return True

    def _syn(
        self, segment: Segment, found: Conversation | None, source: _End, destination: _End
    ) -> Conversation | None:
        """The connection that this SYN begins or repeats; None if it is not yet clear that it begins one."""
        if found is None or found.client.initial == segment.sequence:
            return found or self._new(source, destination)
        if not found.server.started or all(half.fin or half.reset for half in found.halves):
            return self._new(source, destination)
        # The old connection may well live on: anyone can send a SYN (RFC 5961 section 4). The answer tells.
        found.candidate = segment
        return None

    def _looks_like_client(self, segment: Segment) -> bool:
        """Without a SYN: the server is at a port that was asked for, or at the lower one."""
        if self._ports is not None and (segment.source_port in self._ports) != (
            segment.destination_port in self._ports
        ):
            return segment.destination_port in self._ports
        return segment.destination_port <= segment.source_port

    def _promotes(self, candidate: Segment, segment: Segment, from_client: bool) -> bool:
        """Whether a segment belongs to the connection that `candidate` asked for, not to the one before."""
        first = (candidate.sequence + 1) & MASK
        if from_client:
            ahead = (segment.sequence - first) & MASK
            return not segment.flags & RST and ahead in (0, HELLO_LENGTH)
        taken = (segment.acknowledgement - first) & MASK
        return bool(segment.flags & SYN) and taken <= len(candidate.payload)

    def _apply(self, segment: Segment, conversation: Conversation, from_client: bool) -> None:
        half, other = conversation.halves if from_client else conversation.halves[::-1]
        flags, payload = segment.flags, segment.payload
        conversation.cut += segment.missing > 0
        if flags & ACK and not flags & RST:
            other.acknowledge(segment.acknowledgement)
        if flags & SYN:
            if flags & ACK and parse_greeting(payload) is None and not segment.missing:
                other.decline()
            half.open(segment.sequence, payload)
        elif payload:
            half.data(0, payload, segment.sequence)
        if flags & FIN:
            half.fin = True
        if flags & RST:
            half.reset = True
        else:
            half.spoke = True
