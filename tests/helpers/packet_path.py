"""What stands in for engine, raw sockets and queue where the path between them is tested."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mcencrypt.core.fast import Express
from mcencrypt.core.packet import Buffer
from mcencrypt.core.reasons import Reason
from mcencrypt.core.verdict import ACCEPT, Event, Injection, Outcome, Verdict
from mcencrypt.daemon.datapath import Datapath
from mcencrypt.kernel.queue import Decide

if TYPE_CHECKING:
    from mcencrypt.daemon import interfaces


class FakeEngine:
    """Gives the verdicts, and leaves the injections, that a test has laid out for its packets."""

    def __init__(self, acts: list[str]) -> None:
        self.outcome, self._acts = Outcome(), acts
        self.express = Express({}, {}, {}, {}, self.outcome)
        self.follows: dict[bytes, tuple[Verdict, Callable[[Outcome], None]]] = {}
        #: Work that no verdict waits for is given to this.
        self.behind: Callable[[Callable[[], None]], None]

    def put_behind(self, behind: Callable[[Callable[[], None]], None]) -> None:
        self.behind = behind

    def look_ahead(self, key: bytes) -> None:
        self._acts.append(f"ready for {key[-1]}")

    def ingress(self, packet: Buffer, skb_info: int, now: float) -> Verdict:
        return self._decide("in", packet)

    def egress(self, packet: Buffer, skb_info: int, now: float) -> Verdict:
        return self._decide("out", packet)

    def _decide(self, way: str, packet: Buffer) -> Verdict:
        self._acts.append(f"{way} {bytes(packet).decode()}")
        verdict, follow = self.follows.get(bytes(packet), (ACCEPT, _nothing))
        follow(self.outcome)
        return verdict


def _nothing(outcome: Outcome) -> None:
    """What follows of a packet that nothing follows of."""


class FakeInjector:
    """Sends nothing; what begins with "ours" it has sent."""

    def __init__(self, acts: list[str]) -> None:
        self._acts = acts
        self.underway: dict[bytes, int] = {}
        self.sent = self.failed = 0

    def send(self, injection: Injection, now: float) -> None:
        self._acts.append(f"{injection.packet.decode(errors='replace')} to {injection.toward}")

    def is_ours(self, packet: Buffer) -> bool:
        return bytes(packet).startswith(b"ours")


class FakeQueue:
    """A queue whose packets a test hands in; all came by, or leave by, device 3."""

    number, enobufs, bad_verdicts = 7, 1, 2

    def __init__(self, acts: list[str], decide: Decide) -> None:
        self._acts, self._decide = acts, decide
        self.outgoing = False
        self.behind: Callable[[], None] = lambda: None

    def packet(self, text: bytes, outgoing: bool) -> Verdict:
        """The verdict on a packet."""
        self.outgoing = outgoing
        verdict = self._decide(memoryview(text), 0, outgoing, 0.0)
        self._acts.append("verdict")
        self.behind()
        return verdict

    def fileno(self) -> int:
        return 90

    def device(self) -> int:
        return 3

    def serve(self, other: int, seconds: float) -> bool:
        self._acts.append("packets")
        return False

    def close(self) -> None:
        self._acts.append("queue closed")


class Bench:
    """A data path between them, and what is done, in order."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.engine, self.injector = FakeEngine(self.acts), FakeInjector(self.acts)
        self.reported: list[Event] = []
        self.destroy: Callable[[bytes], None] = lambda key: self.acts.append(f"socket {key[-1]} ended")
        #: Sockets that a stranger's packet may name.
        self.existing: set[bytes] = set()
        self.datapath = Datapath(
            self.engine, self.injector, self._open, lambda key: self.destroy(key), self._destroy_suspect, self
        )

    def _open(self, decide: Decide) -> FakeQueue:
        self.queue = FakeQueue(self.acts, decide)
        return self.queue

    def _destroy_suspect(self, key: bytes) -> bool:
        self.acts.append(f"suspect {key[-1]} looked up")
        return key in self.existing

    def handle(self, event: Event, now: float) -> None:
        self.acts.append("reported")
        self.reported.append(event)

    def leave_out(self, reason: Reason, number: int) -> None:
        self.acts.append(f"{number} more {reason}")

    def packet(self, text: bytes, outgoing: bool) -> Verdict:
        """The verdict on a packet."""
        return self.queue.packet(text, outgoing)


if TYPE_CHECKING:
    _engine: type[interfaces.Decider] = FakeEngine
    _injector: type[interfaces.Injector] = FakeInjector
    _queue: type[interfaces.Queue] = FakeQueue
    _reporter: type[interfaces.Reporter] = Bench
