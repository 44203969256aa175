"""What the daemon's parts use of each other and of the kernel; tests stand something else in their place.

`daemon.loop.Loop`, `core.engine.Engine` and, of `kernel`, `Firewall`, `Sockets`, `Queue` and `Injector` are what the
daemon puts there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Protocol, Self

from mcencrypt.core.addresses import Ends
from mcencrypt.core.fast import Express
from mcencrypt.core.packet import Buffer
from mcencrypt.core.reasons import Reason
from mcencrypt.core.verdict import Event, Injection, Outcome, Verdict
from mcencrypt.kernel.commands import Steps
from mcencrypt.kernel.fence import Standing
from mcencrypt.kernel.ruleset import State
from mcencrypt.kernel.sockets import Found, Socket


class Timers(Protocol):
    """Calls back when times come, in seconds of `now`."""

    def now(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> None: ...


class Loop(Timers, Protocol):
    """Calls back when descriptors are readable as well, and again and again."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None: ...

    def remove_reader(self, fd: int, closed: bool = False) -> None: ...

    def call_every(self, seconds: float, callback: Callable[[], None]) -> None: ...


class Job(Protocol):
    """Steps under way: a `kernel.commands.Job`."""

    @property
    def begun(self) -> int:
        """Commands that were begun; with each of them the next two change."""

    @property
    def until(self) -> float:
        """When the present command is given up, in seconds of `Loop.now`."""

    def fileno(self) -> int: ...

    @property
    def result(self) -> Any:
        """What the steps returned, once they are done."""

    def poll(self) -> bool:
        """Whether they are done; never blocks. Raises what they raise."""

    def cancel(self) -> None: ...


#: Begins steps that may take that many seconds.
BeginJob = Callable[[Steps[Any], float], Job]


class Events(Protocol):
    """Signs that something changed in the kernel's packet rules."""

    def fileno(self) -> int: ...

    def handle_events(self) -> bool:
        """Read what has arrived; True if something changed."""


class Firewall(Protocol):
    """The rules for a set of ports."""

    @property
    def ports(self) -> tuple[int, ...]: ...

    def with_ports(self, ports: Sequence[int]) -> Self:
        """The same for other ports; changes no rule."""

    def without_mark(self) -> Self:
        """The same where there is no fence; changes no rule."""

    def installing(self) -> Steps[None]:
        """Put the rules in, or repair them. Raises OperatorError."""

    def removing(self) -> Steps[None]:
        """Take all rules out. Raises OperatorError."""

    def checking(self) -> Steps[State]:
        """Look at the rules. Raises OperatorError if they cannot be read."""

    def events(self) -> Events: ...

    def announces_changes(self) -> bool:
        """Whether `events` reports every change."""


class Fence(Protocol):
    """What drops P2P packets that have not come through the rules."""

    def with_ports(self, ports: Sequence[int]) -> None:
        """Other ports from the next `install` on."""

    def install(self) -> None:
        """Put it up, or put it right. Raises OperatorError: NoFenceError if the kernel cannot have one."""

    def remove(self) -> None:
        """Take it away. Raises OperatorError."""

    def look(self) -> Standing:
        """Whether it stands; raises nothing."""

    @property
    def is_ours(self) -> bool:
        """Whether nobody else can change it; raises nothing."""


class Sockets(Protocol):
    """The kernel's TCP sockets; addresses are packed. Each call raises OSError, or OperatorError."""

    def state(self, local: bytes, lport: int, remote: bytes, rport: int) -> int | None:
        """A `kernel.sockets.Tcp`, or None if there is no such connection."""

    def find(self, many: Iterable[Ends]) -> Iterator[tuple[Ends, Found | None]]:
        """Each of these connections in turn, None for what there is not; misses none."""

    def destroy(self, local: bytes, lport: int, remote: bytes, rport: int) -> bool:
        """Close it with an error for its application; False if there was none."""

    def destroy_found(self, ends: Ends, found: Found) -> bool:
        """The same for one that `find` has found."""

    def dialling(self) -> Collection[Ends]:
        """All connections whose SYN has no answer yet; may miss one of many."""

    def connected(self, ports: Iterable[int]) -> Sequence[Socket]:
        """All connections with one of these ports at either end."""


class Decider(Protocol):
    """Decides about packets; what follows from that besides verdicts is in `outcome`."""

    @property
    def outcome(self) -> Outcome: ...

    @property
    def express(self) -> Express: ...

    def egress(self, packet: Buffer, skb_info: int, now: float) -> Verdict:
        """One that leaves this host."""

    def ingress(self, packet: Buffer, skb_info: int, now: float) -> Verdict:
        """One that came from the network."""

    def put_behind(self, behind: Callable[[Callable[[], None]], None]) -> None:
        """Who does what no verdict waits for, before the next packet is decided."""

    def look_ahead(self, key: bytes) -> None:
        """Be ready for the answer to a packet of this connection, which has just left."""


class Reporter(Protocol):
    """Says what has happened."""

    def handle(self, event: Event, now: float) -> None:
        """An event of the engine; `now` in seconds, monotonic."""

    def leave_out(self, reason: Reason, number: int) -> None:
        """That many more attempts were rejected for that reason."""


class Injector(Protocol):
    """Sends packets of our own."""

    #: Packets on their way to the queue, and how many of each.
    underway: dict[bytes, int]
    #: Packets that the kernel took, and did not take.
    sent: int
    failed: int

    def send(self, injection: Injection, now: float) -> None:
        """Send one; a failure is counted."""

    def is_ours(self, packet: Buffer) -> bool:
        """Whether this outgoing packet is one that was sent a moment ago; each is let through once."""


class Queue(Protocol):
    """Packets of the kernel that wait for verdicts."""

    number: int
    #: Losses that the kernel reported, and verdicts that could not be given as decided.
    enobufs: int
    bad_verdicts: int
    #: Called right behind each verdict that was decided.
    behind: Callable[[], None]

    @property
    def outgoing(self) -> bool:
        """Whether the packet being decided leaves this host."""

    def fileno(self) -> int: ...

    def device(self) -> int:
        """Index of the device that the packet being decided came by, or leaves by; 0 for none."""

    def serve(self, other: int, seconds: float) -> bool:
        """Handle packets until the descriptor `other` is readable, which is the answer, or for `seconds`."""

    def close(self) -> None:
        """From now on the kernel drops what the rules send here."""
