"""Handshakes in streams that are under way: what there is of them, and how they end."""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Final, NamedTuple

from .addresses import endpoints, on_ports, peer_of
from .flow import Flow
from .handshake import HELLO_LENGTH, Carrier
from .hello import DEADLINE, Phase, Stream
from .policy import Policy
from .reasons import Reason
from .record import OVERHEAD
from .status import Connection, State
from .streamanswer import Answered
from .streamdial import Dialled
from .synplan import SynPlan
from .table import Table
from .undecided import Undecided
from .verdict import Outcome, Rejected, Verdict

#: Handshakes in streams under way at once: of ours, and of peers, behind relays, and as many more where plaintext is
#: allowed.
MAX_DIALLING: Final = 4096
MAX_ANSWERING: Final = 256
#: Outdated entries among those that say when to look at an attempt, beside as many as there are attempts.
_OUTDATED: Final = 256
#: Seconds that our socket has to say something of its own, once it may.
SPEAKS_WITHIN: Final = 0.002

NO_ANSWER: Final = (
    "it takes the handshake and does not answer it: is mcencrypt running there, and does its `relayed` name the relay?"
)
SPLICED: Final = "what follows its handshake does not verify: the stream was changed on the way"


class Owed(NamedTuple):
    """The far side waits for a first record, of nothing if our socket says nothing, and no socket sends that again."""

    flow: Flow
    dialled: Dialled
    #: With that record, once it has left.
    packet: bytes
    #: When that, or our socket, must have left.
    at: float


class StreamTable:
    """The attempts of one engine. Bounded in number, memory and time."""

    def __init__(self, outcome: Outcome, table: Table) -> None:
        self._outcome, self._table = outcome, table
        #: Which SYNs of ours carry message 1.
        self.plan = SynPlan()
        #: By connection key, ours first.
        self.dialling: dict[bytes, Dialled] = {}
        self.answering: dict[bytes, Answered] = {}
        self._owed: dict[bytes, Owed] = {}
        #: Connections in plaintext of which nothing was heard so far.
        self.undecided = Undecided()
        #: When to look at which; entries that say something outdated are harmless, and go when they are too many.
        self._due: list[tuple[float, bytes]] = []
        #: Seconds that a peer's handshake in a stream may take.
        self.deadline = DEADLINE

    def __bool__(self) -> bool:
        return bool(self.dialling or self.answering or self._owed or self.undecided)

    def __len__(self) -> int:
        return len(self.dialling) + len(self.answering)

    def _release_all(self, answered: Answered, echo: int | None) -> None:
        """Our socket has answered the SYN again, or will not: it gets what came."""
        raise NotImplementedError

    # -- the end

    def _fail(self, stream: Dialled | Answered, reason: Reason, detail: str) -> Verdict:
        """It must not go on: both ends are reset.  `detail` is for a person; empty if it is not worth a line."""
        self._part(stream, [])
        for packet in stream.reset_out():
            self._outcome.to_network(packet)
        self._outcome.to_socket(stream.reset_socket())
        if detail:
            self._outcome.events.append(Rejected(stream.key, reason, detail))
        return self._outcome.drop(reason)

    def _doubt(self, stream: Dialled | Answered) -> None:
        """The far side ends it, or says nothing.  Perhaps it took what was in the SYN for the stream, as slirp does."""
        if isinstance(stream, Dialled) and stream.has_asked and not stream.bare:
            self.plan.doubt(stream.key)

    def _part(self, stream: Dialled | Answered, leaving: list[bytes]) -> None:
        self._forget(stream)
        for packet in leaving:
            self._outcome.to_network(packet)

    def _forget(self, stream: Dialled | Answered) -> None:
        if isinstance(stream, Dialled):
            if self.dialling.get(stream.key) is stream:
                del self.dialling[stream.key]
        elif self.answering.get(stream.key) is stream:
            del self.answering[stream.key]

    def _has_room(self, accepted: bool) -> bool:
        """Room for one more attempt of a peer's; the oldest that has not shown the network key makes it.

        `accepted`: of those that our socket has accepted, which give way to each other alone.
        """
        if len(self.answering) < MAX_ANSWERING:
            return True
        alike = [one for one in self.answering.values() if one.is_accepted == accepted]
        if len(alike) < MAX_ANSWERING:
            return True
        for answered in alike:
            if answered.flow is None:
                self._fail(answered, "too-many-attempts", "")
                return True
        return False

    def leave_all_but(self, ports: Collection[int]) -> None:
        """Give up what is under way on other ports."""
        for stream in [one for one in self._all() if not on_ports(one.key, ports)]:
            self._fail(stream, "no-answer", "")
        for key in [key for key in self.undecided if not on_ports(key, ports)]:
            self.undecided.forget(key)

    def take_policy(self, policy: Policy) -> None:
        """Give up attempts of peers from addresses that are not a relay's any more, or that are not trusted."""
        for answered in list(self.answering.values()):
            flow, address = answered.flow, peer_of(answered.key)
            allowed = policy.is_relayed(address) or (answered.is_accepted and policy.plaintext_allowed(address))
            if not allowed or (flow and not policy.trusts(flow.identity)):
                self._fail(answered, "no-answer", "")
        for key in list(self.undecided):
            if not policy.enabled or not policy.plaintext_allowed(peer_of(key)):
                self.undecided.forget(key)

    # -- time

    def _look_again(self, stream: Stream) -> None:
        self._look_at(stream.next_at, stream.key)

    def _look_at(self, at: float, key: bytes) -> None:
        # Whoever floods makes entries as quickly as attempts give way to each other, and each would stay for its time.
        if len(self._due) > 2 * (len(self) + len(self._owed)) + _OUTDATED:
            self._due = [(stream.next_at, stream.key) for stream in self._all()]
            self._due += [(min(owed.at, owed.dialled.next_at), other) for other, owed in self._owed.items()]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (at, key))

    def next_time(self) -> float | None:
        """When `tick` has something to do; seconds, monotonic."""
        return self._due[0][0] if self._due else None

    def tick(self, now: float) -> None:
        """Send again what was not acknowledged, give up what takes too long."""
        while self._due and self._due[0][0] <= now:
            key = heapq.heappop(self._due)[1]
            stream: Dialled | Answered | None = self.dialling.get(key) or self.answering.get(key)
            if stream is not None:
                self._tick(stream, now)
            elif key in self._owed:
                self._tick_owed(key, now)

    def _tick(self, stream: Dialled | Answered, now: float) -> None:
        if now >= stream.expires:
            self._doubt(stream)
            if isinstance(stream, Answered) and stream.is_spoilt:
                self._fail(stream, "tampered", SPLICED)
            else:
                self._fail(stream, "no-answer", NO_ANSWER if isinstance(stream, Dialled) else "")
            return
        if now < stream.next_at:
            self._look_again(stream)
            return
        if isinstance(stream, Answered) and stream.phase is Phase.PROVEN:
            self._release_all(stream, None)
            return
        self._outcome.to_network(stream.again(now))
        self._look_again(stream)

    def _owe(self, dialled: Dialled, flow: Flow, now: float) -> None:
        """Our socket may speak from now on; if it does not, we do."""
        self._owed[dialled.key] = Owed(flow, dialled, b"", now + SPEAKS_WITHIN)
        self._look_at(now + SPEAKS_WITHIN, dialled.key)

    def _tick_owed(self, key: bytes, now: float) -> None:
        owed = self._owed[key]
        flow, dialled = owed.flow, owed.dialled
        spoken = flow.egress.ledger.wire_top > HELLO_LENGTH
        if self._table.by_local.get(key) is not flow or now >= dialled.expires:
            del self._owed[key]
        elif not owed.packet:
            if spoken or flow.is_closing():
                del self._owed[key]
            elif now < owed.at:
                self._look_at(owed.at, key)
            else:
                packet = dialled.nothing(flow, now)
                self._owed[key] = owed._replace(packet=packet)
                self._outcome.to_network(packet)
                dialled.begin_again(now)
                self._look_again(dialled)
        elif flow.egress.una >= HELLO_LENGTH + OVERHEAD:
            del self._owed[key]
        else:
            if now >= dialled.next_at:
                self._outcome.to_network(dialled.nothing_again(owed.packet, now))
            self._look_again(dialled)

    # -- what is shown

    def _all(self) -> list[Dialled | Answered]:
        return [*self.dialling.values(), *self.answering.values()]

    def keys(self) -> list[bytes]:
        """The connections whose handshake is under way, ours first."""
        return [*self.dialling, *self.answering]

    def connections(self, now: float) -> Iterator[Connection]:
        """A line of a status for each."""
        word = Carrier.STREAM.word
        for stream in chain(self.dialling.values(), self.answering.values()):
            local, remote = endpoints(stream.key)
            yield Connection(
                local, remote, State.HANDSHAKE, b"", now - stream.begun,
                outgoing=isinstance(stream, Dialled), carrier=word,
            )  # fmt: skip
