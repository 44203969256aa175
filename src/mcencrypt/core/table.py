"""The connections that are known: encrypted, in plaintext, health checks, and ghosts of such as were ended here.

A connection key stands in one of them at most, and whatever moves it from one to another is in `LIFE`.  Attempts, whose
handshake is under way, are `Admission`'s: one may be made on the addresses and ports of a connection that lives, and
does not harm it until it has succeeded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, StrEnum
from typing import Final, NamedTuple

from .addresses import endpoints, reversed_key
from .flow import Flow
from .packet import ACK, FIN, RST, bare
from .policy import Leave
from .status import Connection, Counters, State, Totals
from .summary import Summary, summarize_flows
from .verdict import Closed, Encrypted, Ended, InPlaintext, Outcome

MAX_FLOWS: Final = 16384
MAX_PLAINTEXT: Final = 16384
#: Seconds for which a connection that was ended here is answered with resets.
GHOST_LIFETIME: Final = 120.0
#: Seconds without a packet after which a connection's socket is looked up again.
LOOK_AFTER: Final = 30.0
#: The same once a connection has ended.  A far side that missed our last acknowledgement repeats its FIN meanwhile, and
#: our kernel's answer, a reset, needs the flow to be translated.
LINGER: Final = 5.0


# -- the life of a connection


class Gone(StrEnum):
    """Where a pair of addresses and ports stands that no connection runs between."""

    #: Nothing is known of it.
    UNKNOWN = "unknown"
    #: One was ended here: what still comes of it is dropped, and answered with a reset.
    GHOST = "ghost"


Stage = State | Gone


class Cause(Enum):
    """What moves a connection from one stage to another."""

    MESSAGE_1 = "SYN with message 1"
    MESSAGE_2 = "SYN-ACK with message 2"
    ACKNOWLEDGED = "our message 2 is acknowledged"
    GIVEN_UP = "attempt refused, reset or too slow"
    PROVEN = "its first record opens"
    PARTED = "exact RST, or both FINs"
    IN_PLAINTEXT = "our socket sends in plaintext"
    BEGUN_IN_PLAINTEXT = "begun anew in plaintext"
    CHECKED = "our socket answers a health check"
    SPOKEN = "data, either way"
    REPLACED = "another handshake succeeds"
    NO_SOCKET = "the kernel has no socket"
    ENDED = "ended by us"
    LEFT_ALONE = "its packets come here no more"
    REMEMBERED = "an earlier process encrypted it"
    EXPIRED = "120 s"


class Move(NamedTuple):
    """Where a cause leads, and what happens then, for a reader."""

    target: Stage
    effect: str


#: The stages in which a connection has keys.
WITH_KEYS: Final = tuple(state for state in State if state.has_keys)

#: Every move; docs/design.md has it as a drawing (`tools/drawings`).
LIFE: Final[Mapping[tuple[Stage, Cause], Move]] = {
    (Gone.UNKNOWN, Cause.MESSAGE_1): Move(State.HANDSHAKE, "ours, or a peer's that is valid"),
    (Gone.UNKNOWN, Cause.IN_PLAINTEXT): Move(State.PLAINTEXT, "if the policy allows it; reported"),
    (Gone.UNKNOWN, Cause.REMEMBERED): Move(Gone.GHOST, "far side reset; our socket ended; reported"),
    (Gone.UNKNOWN, Cause.ENDED): Move(Gone.GHOST, "one in plaintext of which no packet was seen"),
    (State.HANDSHAKE, Cause.MESSAGE_2): Move(State.ENCRYPTED, "we dialled; reported"),
    (State.HANDSHAKE, Cause.ACKNOWLEDGED): Move(State.UNCONFIRMED, "the peer dialled"),
    (State.HANDSHAKE, Cause.GIVEN_UP): Move(Gone.UNKNOWN, ""),
    (State.HANDSHAKE, Cause.BEGUN_IN_PLAINTEXT): Move(State.PLAINTEXT, "the policy allows it; reported"),
    (State.UNCONFIRMED, Cause.PROVEN): Move(State.ENCRYPTED, "reported"),
    (State.UNCONFIRMED, Cause.PARTED): Move(State.CLOSING, ""),
    (State.ENCRYPTED, Cause.PARTED): Move(State.CLOSING, ""),
    **{
        (stage, cause): move
        for cause, move in {
            Cause.NO_SOCKET: Move(Gone.UNKNOWN, "reported with what it carried"),
            Cause.REPLACED: Move(Gone.UNKNOWN, "the new one takes its place"),
            Cause.BEGUN_IN_PLAINTEXT: Move(State.PLAINTEXT, "the policy allows it; reported"),
            Cause.ENDED: Move(Gone.GHOST, "far side reset; reported"),
        }.items()
        for stage in WITH_KEYS
    },
    (State.PLAINTEXT, Cause.BEGUN_IN_PLAINTEXT): Move(State.PLAINTEXT, ""),
    (State.PLAINTEXT, Cause.NO_SOCKET): Move(Gone.UNKNOWN, ""),
    (State.PLAINTEXT, Cause.LEFT_ALONE): Move(Gone.UNKNOWN, "its port is given up, or encryption is off"),
    (State.PLAINTEXT, Cause.REPLACED): Move(Gone.UNKNOWN, "the new one takes its place"),
    (Gone.UNKNOWN, Cause.CHECKED): Move(State.HEALTH_CHECK, "its address is in `probes`"),
    (State.HEALTH_CHECK, Cause.SPOKEN): Move(Gone.UNKNOWN, "far side reset; our socket ended; reported"),
    (State.HEALTH_CHECK, Cause.BEGUN_IN_PLAINTEXT): Move(
        State.PLAINTEXT, "or has data, and the policy allows it; reported"
    ),
    (State.HEALTH_CHECK, Cause.NO_SOCKET): Move(Gone.UNKNOWN, ""),
    (State.HEALTH_CHECK, Cause.REPLACED): Move(Gone.UNKNOWN, "the new one takes its place"),
    (State.HEALTH_CHECK, Cause.LEFT_ALONE): Move(Gone.UNKNOWN, "its port is given up, or encryption is off"),
    (State.HEALTH_CHECK, Cause.ENDED): Move(Gone.GHOST, "its address is not in `probes` any more"),
    (State.PLAINTEXT, Cause.ENDED): Move(Gone.GHOST, "the policy does not allow it any more"),
    (Gone.GHOST, Cause.REPLACED): Move(Gone.UNKNOWN, "the new one takes its place"),
    (Gone.GHOST, Cause.BEGUN_IN_PLAINTEXT): Move(State.PLAINTEXT, "the policy allows it; reported"),
    (Gone.GHOST, Cause.EXPIRED): Move(Gone.UNKNOWN, ""),
}


# -- what is known now


class Plaintext:
    """A connection that runs in plaintext, with the policy's leave."""

    __slots__ = ("bytes_in", "bytes_out", "created", "key", "seen")

    def __init__(self, key: bytes, now: float) -> None:
        self.key, self.created, self.seen = key, now, now
        self.bytes_in = self.bytes_out = 0

    def counters(self) -> Counters:
        return Counters(self.bytes_out, self.bytes_in)

    def describe(self, now: float) -> Connection:
        """Its line of a status."""
        local, remote = endpoints(self.key)
        return Connection(local, remote, State.PLAINTEXT, b"", now - self.created, self.counters())


class HealthCheck:
    """A bare connection from an address in `probes`, of which our kernel's SYN-ACK was seen."""

    __slots__ = ("created", "ended_here", "ended_there", "isn", "key", "remote_isn", "reset", "seen")

    def __init__(self, key: bytes, remote_isn: int, now: float) -> None:
        self.key, self.created, self.seen = key, now, now
        #: Initial sequence numbers of both ends; ours is that of the latest SYN-ACK.
        self.isn, self.remote_isn = 0, remote_isn
        #: Whether our end, and theirs, has sent a FIN; whether either has sent a reset.
        self.ended_here = self.ended_there = self.reset = False

    @property
    def parted(self) -> bool:
        """Whether it has ended, as far as packets tell."""
        return self.reset or (self.ended_here and self.ended_there)

    def passed(self, flags: int, outgoing: bool, now: float) -> None:
        """A segment without payload has passed."""
        self.seen = now
        self.reset |= bool(flags & RST)
        if flags & FIN and outgoing:
            self.ended_here = True
        elif flags & FIN:
            self.ended_there = True

    def describe(self, now: float) -> Connection:
        """Its line of a status."""
        local, remote = endpoints(self.key)
        return Connection(local, remote, State.HEALTH_CHECK, b"", now - self.created)


class Ghost(NamedTuple):
    """A connection that was ended here: until when that is remembered, and whether it was encrypted."""

    expires: float
    encrypted: bool


def nobody(flow: Flow, present: bool) -> None:
    """The journal where none is kept."""


class Table:
    """All connections of one engine.  Times are seconds, monotonic; keys are ours first where nothing else is said."""

    def __init__(self, outcome: Outcome, on_flow: Callable[[Flow, bool], None] = nobody) -> None:
        """`on_flow` is told of each flow that comes (True) and goes: the journal's hook."""
        self._outcome, self._on_flow = outcome, on_flow
        #: Flows by key as packets of each direction show it: ours first, theirs first.
        self.by_local: dict[bytes, Flow] = {}
        self.by_remote: dict[bytes, Flow] = {}
        self.plain: dict[bytes, Plaintext] = {}
        self.checks: dict[bytes, HealthCheck] = {}
        self.ghosts: dict[bytes, Ghost] = {}
        #: Flows whose peer has yet to prove who it is.
        self.unconfirmed: set[bytes] = set()
        #: Connections that are gone: encrypted ones, and those in plaintext.
        self.gone, self.gone_plaintext = Totals(), Totals()
        #: Connections that ever ran in plaintext, by what allowed it, and health checks that there were.
        self.in_plaintext: Counter[Leave] = Counter()
        self.checked = 0

    def stage(self, key: bytes) -> Stage:
        """Where a connection stands; attempts, which `Admission` knows, left aside."""
        flow = self.by_local.get(key)
        if flow is not None:
            return flow.state
        if key in self.plain:
            return State.PLAINTEXT
        if key in self.checks:
            return State.HEALTH_CHECK
        return Gone.GHOST if key in self.ghosts else Gone.UNKNOWN

    def _leave(self, key: bytes, cause: Cause) -> Stage:
        """Forget what stands here by that key; the stage that follows, for the caller to enter."""
        target = LIFE[self.stage(key), cause].target
        flow, plain = self.by_local.pop(key, None), self.plain.pop(key, None)
        if flow is not None:
            del self.by_remote[reversed_key(key)]
            self.unconfirmed.discard(key)
            flow.ingress.fragments.clear()
            self.gone.add(flow.counters())
            self._on_flow(flow, False)
        if plain is not None:
            self.gone_plaintext.add(plain.counters())
        self.ghosts.pop(key, None)
        self.checks.pop(key, None)
        return target

    # -- coming

    def has_room(self, key: bytes) -> bool:
        """Whether `add` would take a flow with that key."""
        return key in self.by_local or len(self.by_local) < MAX_FLOWS

    def add(self, flow: Flow) -> bool:
        """Take a flow whose handshake has succeeded, in place of what was there before; False if the table is full."""
        key = flow.key
        if not self.has_room(key):
            return False
        if self.stage(key) is not Gone.UNKNOWN:
            self._leave(key, Cause.REPLACED)
        self.by_local[key] = self.by_remote[reversed_key(key)] = flow
        self._on_flow(flow, True)
        if flow.confirmed:
            self._outcome.events.append(Encrypted(key, flow.identity, flow.streamed))
        else:
            self.unconfirmed.add(key)
        return True

    def confirm(self, flow: Flow) -> None:
        """The peer has proven who it is."""
        self.unconfirmed.discard(flow.key)
        self._outcome.events.append(Encrypted(flow.key, flow.identity, flow.streamed))

    def pass_in_plaintext(self, key: bytes, now: float, leave: Leave) -> Plaintext | None:
        """The connection of a packet in plaintext that our own socket sends, and the policy allows, by `leave`.

        None if there cannot be one: what the socket of an encrypted connection sends, or of one that was ended, must
        not leave as it is.
        """
        plain = self.plain.get(key)
        if plain is None:
            if key in self.by_local or key in self.ghosts or len(self.plain) >= MAX_PLAINTEXT:
                return None
            plain = self.plain[key] = Plaintext(key, now)
            self.in_plaintext[leave] += 1
            if leave != "off":
                self._outcome.events.append(InPlaintext(key))
        return plain

    def begin_in_plaintext(self, key: bytes, now: float, leave: Leave) -> None:
        """Our own kernel has shown that a new connection begins in plaintext: what was here before is over.

        It has one socket for these addresses and ports at most, and answers a SYN that does not belong to that one only
        when it is gone (RFC 9293 section 3.10.7.4, and its own TIME-WAIT).
        """
        if self.stage(key) not in (Gone.UNKNOWN, State.PLAINTEXT):
            self._leave(key, Cause.BEGUN_IN_PLAINTEXT)
        self.pass_in_plaintext(key, now, leave)

    def begin_check(self, key: bytes, remote_isn: int, now: float) -> HealthCheck:
        """Our own kernel has answered a health check, and nothing is known here any more (`make_way`)."""
        self._leave(key, Cause.CHECKED)
        self.checked += 1
        check = self.checks[key] = HealthCheck(key, remote_isn, now)
        return check

    def end_check(self, key: bytes) -> None:
        """A health check is over, as it must not go on."""
        self._leave(key, Cause.SPOKEN)

    def make_way(self, key: bytes) -> None:
        """Our own kernel has shown that a new connection begins here: what was here before is over."""
        if self.stage(key) is not Gone.UNKNOWN:
            self._leave(key, Cause.REPLACED)

    # -- going

    def remember(self, key: bytes, seq: int, ack: int, now: float) -> None:
        """A connection that an earlier process encrypted: reset it at the far side, and our socket too.

        `seq` and `ack` are its last known sequence numbers on the network.  If the far side disagrees it says so, and
        is answered exactly for `GHOST_LIFETIME` seconds.
        """
        if self.stage(key) is not Gone.UNKNOWN:
            return  # it was named twice
        self._leave(key, Cause.REMEMBERED)
        self._haunt(key, seq, ack, now)
        self._outcome.end(key, "its keys went with the process that held them")

    def abort(self, key: bytes, now: float, why: str) -> None:
        """End an encrypted connection: the far side is reset, with exact numbers.  `why` is for the log.

        The caller ends our socket, for only it knows what has to wait until that is done.
        """
        flow = self.by_local.get(key)
        if flow is None:
            return
        seq, ack = flow.egress.seq(flow.egress.sent), flow.ingress.isn + 1 + flow.ingress.ledger.wire_edge
        self._leave(key, Cause.ENDED)
        self._haunt(key, seq, ack, now)
        self._outcome.events.append(Ended(key, why))

    def _haunt(self, key: bytes, seq: int, ack: int, now: float) -> None:
        self.ghosts[key] = Ghost(now + GHOST_LIFETIME, True)
        self._outcome.to_network(bare(key, seq, ack, RST | ACK))

    def disown(self, key: bytes, now: float) -> None:
        """A plaintext connection is being ended: the socket's own reset may leave.

        It can miss what the far side expects, if data was on its way; the far side then says so, and is answered
        exactly.
        """
        if key not in self.ghosts:
            self._leave(key, Cause.ENDED)
            self.ghosts[key] = Ghost(now + GHOST_LIFETIME, False)

    def forget(self, key: bytes) -> None:
        """The kernel has no socket for this connection any more."""
        flow = self.by_local.get(key)
        if flow is not None:
            self._outcome.events.append(Closed(key, flow.identity if flow.confirmed else b"", flow.counters()))
        if flow is not None or key in self.plain or key in self.checks:
            self._leave(key, Cause.NO_SOCKET)

    def leave_alone(self, key: bytes) -> None:
        """Packets of this connection, in plaintext or a health check, do not come here any more."""
        self._leave(key, Cause.LEFT_ALONE)

    def expire(self, now: float) -> None:
        """Forget ghosts whose time is up."""
        for key in [key for key, ghost in self.ghosts.items() if ghost.expires <= now]:
            self._leave(key, Cause.EXPIRED)

    # -- looking

    def silent(self, now: float) -> list[bytes]:
        """The connections that had no packet for so long that their sockets should be looked up."""
        flows = self.by_local.items()
        return [
            *(key for key, flow in flows if flow.seen < now - (LINGER if flow.is_closing() else LOOK_AFTER)),
            *(key for key, plain in self.plain.items() if plain.seen < now - LOOK_AFTER),
            *(key for key, one in self.checks.items() if one.seen < now - (LINGER if one.parted else LOOK_AFTER)),
        ]

    def touch(self, key: bytes, now: float) -> None:
        """The kernel still has a socket for this connection."""
        entry = self.by_local.get(key) or self.plain.get(key) or self.checks.get(key)
        if entry is not None:
            entry.seen = now

    def encrypted_keys(self) -> list[bytes]:
        """The connections that are encrypted."""
        return list(self.by_local)

    def plaintext_keys(self) -> list[bytes]:
        """The connections that run in plaintext."""
        return list(self.plain)

    def check_keys(self) -> list[bytes]:
        """The health checks."""
        return list(self.checks)

    def connections(self, now: float) -> Iterator[Connection]:
        """A line of a status for each."""
        for flow in self.by_local.values():
            yield flow.describe(now)
        for plain in self.plain.values():
            yield plain.describe(now)
        for check in self.checks.values():
            yield check.describe(now)

    def summary(self) -> Summary:
        """All connections added up, those that are gone included in what only grows."""
        plain = self.plain.values()
        summary = Summary({State.PLAINTEXT: len(plain), State.HEALTH_CHECK: len(self.checks)})
        summary.encrypted = self.gone.connections
        summary.carried.add(self.gone.counters)
        summarize_flows(self.by_local.values(), summary)
        summary.plaintext, summary.checks = dict(self.in_plaintext), self.checked
        summary.plaintext_carried.add(self.gone_plaintext.counters)
        passed = Counters(sum(one.bytes_out for one in plain), sum(one.bytes_in for one in plain))
        summary.plaintext_carried.add(passed)
        return summary
