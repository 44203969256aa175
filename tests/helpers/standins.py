"""What stands in for loop, firewall and sockets where the switch and the guard are tested without a kernel.

Time stands still until a test lets it pass; rules are a set of words; a socket is a row in a table.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from mcencrypt.core.addresses import Ends
from mcencrypt.daemon.jobs import Jobs
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Command, Output, Steps
from mcencrypt.kernel.fence import NoFenceError, Standing
from mcencrypt.kernel.firewall import CHECK_SECONDS
from mcencrypt.kernel.handling import Handling
from mcencrypt.kernel.ruleset import State
from mcencrypt.kernel.sockets import Found, Listed, Socket, Tcp

if TYPE_CHECKING:
    from mcencrypt.daemon import interfaces


T = TypeVar("T")
LOOK = Command(("iptables-save",), seconds=CHECK_SECONDS)


class FakeLoop:
    """Timers by a clock of its own; descriptors are numbers that a test makes readable."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self.readers: dict[int, Callable[[], None]] = {}
        #: Called after each callback, as the loop of the daemon does.
        self.afterwards: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self._now

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        assert fd not in self.readers, "a descriptor is registered twice"
        self.readers[fd] = callback

    def remove_reader(self, fd: int, closed: bool = False) -> None:
        self.readers.pop(fd, None)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._order), callback))

    def call_every(self, seconds: float, callback: Callable[[], None]) -> None:
        def again() -> None:
            callback()
            self.call_at(self._now + seconds, again)

        self.call_at(self._now + seconds, again)

    def readable(self, fd: int) -> None:
        """Data has come on that descriptor."""
        self.readers[fd]()
        self.afterwards()

    def run(self, seconds: float = 0.0) -> int:
        """Let time pass, with all that is due meanwhile; how many calls that were."""
        end, calls = self._now + seconds, 0
        while self._timers and self._timers[0][0] <= end:
            when, _, callback = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            callback()
            self.afterwards()
            calls += 1
        self._now = end
        return calls

    def pending(self) -> int:
        """How many timers there are."""
        return len(self._timers)


class FakeEvents:
    """Announcements of changes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.changed = False

    def fileno(self) -> int:
        return self._fd

    def handle_events(self) -> bool:
        changed, self.changed = self.changed, False
        return changed


class FakeJob:
    """Steps whose commands a kernel that only plays carries out."""

    def __init__(self, kernel: FakeKernel, steps: Steps[Any], seconds: float) -> None:
        self._kernel, self._steps = kernel, steps
        self._end = kernel.loop.now() + seconds
        self._ended = False
        self._command = Command(())
        self.begun = 0
        self.until = self._end
        self.result: Any = None
        self._resume(lambda: next(steps))

    def fileno(self) -> int:
        return 100 + self.begun

    def poll(self) -> bool:
        while not self._ended:
            answer = self._kernel.answer(self._command)
            if answer is not None:
                self._resume(lambda answer=answer: self._steps.send(answer))  # type: ignore[misc]
            elif self._kernel.loop.now() < self.until:
                return False
            else:
                late = OperatorError(f"{self._command.words[0]} is not done in time")
                self._resume(lambda late=late: self._steps.throw(late))  # type: ignore[misc]
        return True

    def cancel(self) -> None:
        self._ended = True
        self._steps.close()

    def _resume(self, resume: Callable[[], Command]) -> None:
        try:
            self._command = resume()
        except StopIteration as stop:
            self._ended, self.result = True, stop.value
        except BaseException:
            self._ended = True
            raise
        else:
            self.begun += 1
            self.until = min(self._end, self._kernel.loop.now() + (self._command.seconds or self._end))
            self._kernel.begun(self._command)


class FakeKernel:
    """What the firewalls of one test share: rules and fence, looks under way, and what happened in which order."""

    def __init__(self, loop: FakeLoop, announces: bool = True) -> None:
        self.loop = loop
        self.announces = announces
        self.jobs = Jobs(loop, lambda steps, seconds: self._begin(steps, seconds))
        self._job: FakeJob | None = None
        #: The ports whose rules are in place, and those of the fence.
        self.installed: tuple[int, ...] | None = None
        self.fenced: tuple[int, ...] | None = None
        #: Whether the rules set the fence's bit.
        self.marking = False
        #: Looks that were begun.
        self.checks = 0
        self.events = FakeEvents(90)
        #: What was done to rules and sockets, in order.
        self.acts: list[str] = []
        #: Why the next changes of the rules fail, and looks do not begin.
        self.refuses = ""
        #: Whether changes of the rules wait, for another program's lock for instance.
        self.held = False
        #: Why the next changes of the fence fail; whether the kernel can have none; whether it cannot be asked.
        self.fence_refuses = ""
        self.fenceless = False
        self.fence_hidden = False
        self.fence_owned = True
        self._seen: Output | None = None

    def do(self, steps: Steps[T]) -> T:
        """Do the steps, unless they have to wait. Raises what they raise."""
        results: list[T] = []
        problems: list[OperatorError] = []
        self.jobs.run(steps, results.append, problems.append)
        if problems:
            raise problems[0]
        [result] = results
        return result

    def _begin(self, steps: Steps[Any], seconds: float) -> FakeJob:
        self._job = FakeJob(self, steps, seconds)
        return self._job

    def begun(self, command: Command) -> None:
        """A command of a job has begun."""
        self.checks += command == LOOK

    def answer(self, command: Command) -> Output | None:
        """What came of a command, or None while it is under way."""
        if command != LOOK:
            return None if self.held else Output(0, b"", b"")
        seen, self._seen = self._seen, None
        return seen

    def refuse(self) -> None:
        """Fail if the test says so."""
        if self.refuses:
            raise OperatorError(self.refuses)

    def release(self) -> None:
        """What was held is not any more."""
        self.held = False
        self._go_on()

    def flush(self, fence: bool = False) -> None:
        """Somebody else removes our rules, and perhaps the fence; announced, if this kernel announces."""
        self.installed = None
        if fence:
            self.fenced = None
        if self.announces:
            self.announce()

    def announce(self) -> None:
        """Something in the rules changed."""
        self.events.changed = True
        self.loop.readable(self.events.fileno())

    def look(self, state: State | None = None) -> None:
        """The look that is under way ends: it has seen `state`, or what is the case."""
        if state is None:
            state = State.PRESENT if self.installed else State.MISSING
        self._seen = Output(0, state.name.encode(), b"")
        self._go_on()

    def look_in_vain(self, problem: str) -> None:
        """The look that is under way ends: it could not see anything."""
        self._seen = Output(1, b"", problem.encode())
        self._go_on()

    def _go_on(self) -> None:
        assert self._job is not None
        self.loop.readable(self._job.fileno())


class FakeFirewall:
    """Rules that are in or out as a whole."""

    def __init__(self, kernel: FakeKernel, ports: Sequence[int], marking: bool = True) -> None:
        self._kernel = kernel
        self.ports = tuple(ports)
        self._marking = marking

    def with_ports(self, ports: Sequence[int]) -> FakeFirewall:
        return FakeFirewall(self._kernel, ports, self._marking)

    def without_mark(self) -> FakeFirewall:
        return FakeFirewall(self._kernel, self.ports, False)

    def installing(self) -> Steps[None]:
        self._kernel.refuse()
        yield Command(("iptables-restore",))
        self._kernel.installed = self.ports
        self._kernel.marking = self._marking
        self._kernel.acts.append("rules in")

    def removing(self) -> Steps[None]:
        self._kernel.refuse()
        yield Command(("iptables-restore",))
        self._kernel.installed = None
        self._kernel.acts.append("rules out")

    def checking(self) -> Steps[State]:
        self._kernel.refuse()
        seen = yield LOOK
        if seen.status:
            raise OperatorError(seen.errors.decode())
        return State[seen.out.decode()]

    def events(self) -> FakeEvents:
        return self._kernel.events

    def announces_changes(self) -> bool:
        return self._kernel.announces


class FakeFence:
    """A fence that is up or not as a whole."""

    def __init__(self, kernel: FakeKernel, ports: Sequence[int]) -> None:
        self._kernel = kernel
        self._ports = tuple(ports)

    def with_ports(self, ports: Sequence[int]) -> None:
        self._ports = tuple(ports)

    def install(self) -> None:
        if self._kernel.fenceless:
            raise NoFenceError("the kernel cannot have the fence")
        if self._kernel.fence_refuses:
            raise OperatorError(self._kernel.fence_refuses)
        self._kernel.fenced = self._ports
        self._kernel.acts.append("fence up")

    def remove(self) -> None:
        if self._kernel.fence_refuses:
            raise OperatorError(self._kernel.fence_refuses)
        self._kernel.fenced = None
        self._kernel.acts.append("fence away")

    def look(self) -> Standing:
        if self._kernel.fence_hidden:
            return Standing.UNKNOWN
        return Standing.WHOLE if self._kernel.fenced == self._ports else Standing.BROKEN

    @property
    def is_ours(self) -> bool:
        return self._kernel.fence_owned


class FakeSockets:
    """A table of connections that a test fills."""

    def __init__(self, kernel: FakeKernel) -> None:
        self._kernel = kernel
        self.table: list[Socket] = []
        #: What `open` shows.
        self.listed: list[Listed] = []
        #: What `destroy` raises.
        self.problem: Exception | None = None

    def add(self, local: bytes, lport: int, remote: bytes, rport: int, state: int = Tcp.ESTABLISHED) -> bytes:
        """A connection; returns its key as the engine has it, ours first."""
        self.table.append(Socket(local, lport, remote, rport, state))
        return local + remote + lport.to_bytes(2, "big") + rport.to_bytes(2, "big")

    def state(self, local: bytes, lport: int, remote: bytes, rport: int) -> int | None:
        return next((one.state for one in self.table if one[:4] == (local, lport, remote, rport)), None)

    def destroy(self, local: bytes, lport: int, remote: bytes, rport: int) -> bool:
        if self.problem is not None:
            raise self.problem
        before = len(self.table)
        self.table = [one for one in self.table if one[:4] != (local, lport, remote, rport)]
        self._kernel.acts.append(f"socket {lport}-{rport} ended")
        return len(self.table) < before

    def find(self, many: Iterable[Ends]) -> Iterator[tuple[Ends, Found | None]]:
        for ends in many:
            state = self.state(*ends)
            yield ends, None if state is None else Found(state, Handling(), b"")

    def destroy_found(self, ends: Ends, found: Found) -> bool:
        return self.destroy(*ends)

    def dialling(self) -> set[Ends]:
        return {Ends(*one[:4]) for one in self.table if one.state == Tcp.SYN_SENT}

    def connected(self, ports: Iterable[int]) -> list[Socket]:
        wanted = set(ports)
        return [one for one in self.table if wanted & {one.lport, one.rport}]

    def open(self) -> list[Listed]:
        return self.listed


if TYPE_CHECKING:
    # they fit where the daemon puts the real ones
    _loop: type[interfaces.Loop] = FakeLoop
    _job: type[interfaces.Job] = FakeJob
    _firewall: type[interfaces.Firewall] = FakeFirewall
    _fence: type[interfaces.Fence] = FakeFence
    _sockets: type[interfaces.Sockets] = FakeSockets
