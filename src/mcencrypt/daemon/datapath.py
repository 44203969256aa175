"""The path of a packet: out of the queue, through the engine, back with a verdict, and what must follow it."""

from __future__ import annotations

import time
from collections.abc import Callable

from mcencrypt.control import replies
from mcencrypt.core.packet import RST, bare
from mcencrypt.core.verdict import ACCEPT, FROM_BEFORE, Ended, Verdict
from mcencrypt.daemon.interfaces import Decider, Injector, Queue, Reporter
from mcencrypt.kernel.queue import Decide, statistics


def _nothing(key: bytes, device: int) -> None:
    """Nobody looks ahead."""


class Datapath:
    """An engine between its queue and its raw sockets."""

    def __init__(
        self,
        engine: Decider,
        injector: Injector,
        open_queue: Callable[[Decide], Queue],
        destroy: Callable[[bytes], None],
        destroy_suspect: Callable[[bytes], bool],
        reporter: Reporter,
    ) -> None:
        """`open_queue` binds the queue, whose packets are decided as it is told, and may raise OperatorError; `destroy`
        ends the local socket of a connection key, ours first; `destroy_suspect` does so for one that a stranger's
        packet named, and says whether there was one; `reporter` is told of the engine's events.
        """
        self._engine, self._outcome = engine, engine.outcome
        self._destroy, self._destroy_suspect, self._reporter = destroy, destroy_suspect, reporter
        self._injector = injector
        engine.express.underway = injector.underway
        #: What the engine does behind a verdict.
        self._behind: list[Callable[[], None]] = []
        engine.put_behind(self._behind.append)
        #: Looks up what will be asked of a connection, of which a packet has just left by a device.
        self.look_ahead: Callable[[bytes, int], None] = _nothing
        self._ahead: list[tuple[bytes, int]] = []
        self._queue = open_queue(self._decide)
        self._queue.behind = self._catch_up
        #: Handles the packets of the queue: `Queue.serve`.
        self.serve: Callable[[int, float], bool] = self._queue.serve

    def fileno(self) -> int:
        return self._queue.fileno()

    def carry_out(self) -> None:
        """Do what the engine left to be done: the one place for it, called after each wakeup of the loop.

        Only injections cannot always wait for that: what followed a packet goes before the next one is decided.
        """
        outcome = self._outcome
        if outcome.injections:
            self._inject()
        while self._ahead:
            key, device = self._ahead.pop()
            self._engine.look_ahead(key)
            self.look_ahead(key, device)
        while outcome.sockets:
            self._destroy(outcome.sockets.pop())
        while outcome.suspects:
            key, number = outcome.suspects.popitem()
            if self._destroy_suspect(key):
                outcome.events.append(Ended(key, FROM_BEFORE))
            if number is not None:
                # A far side whose connection this host knows nothing of, since a reboot, has to hear of it.
                outcome.to_network(bare(key, number, 0, RST))
                self._inject()
        if outcome.events:
            events, untold = outcome.take_events()
            now = time.monotonic()
            for reason, number in untold.items():
                self._reporter.leave_out(reason, number)
            for event in events:
                self._reporter.handle(event, now)

    def came_by(self) -> int:
        """Index of the device that the packet being decided came by; 0 if it leaves."""
        return 0 if self._queue.outgoing else self._queue.device()

    def leaves_by(self) -> int:
        """Index of the device that the packet being decided leaves by; 0 if it came from the network."""
        return self._queue.device() if self._queue.outgoing else 0

    def close(self) -> None:
        """From now on the kernel drops what the rules send to the queue."""
        self._queue.close()

    def numbers(self) -> replies.Queue:
        """The queue's state and what was lost on the way, in packets."""
        waiting, dropped_kernel, dropped_user = statistics(self._queue.number)
        return {
            "number": self._queue.number,
            "waiting": waiting,
            "dropped_kernel": dropped_kernel,
            "dropped_user": dropped_user,
            "enobufs": self._queue.enobufs,
            "bad_verdicts": self._queue.bad_verdicts,
            "injections": self._injector.sent,
            "injections_failed": self._injector.failed,
        }

    def _decide(self, packet: memoryview, skb_info: int, outgoing: bool, now: float) -> Verdict:
        engine, outcome = self._engine, self._outcome
        if self._behind:
            self._catch_up()  # the verdict before this one could not be given
        if outcome.injections:
            self._inject()  # what followed the packet before this one
        if not outgoing:
            verdict = engine.ingress(packet, skb_info, now)
            if outcome.injections:
                self._inject_ahead()
            return verdict
        if self._injector.is_ours(packet):
            return ACCEPT
        verdict = engine.egress(packet, skb_info, now)
        if outcome.ahead:
            device = self._queue.device()
            self._ahead += ((key, device) for key in outcome.ahead)
            outcome.ahead.clear()
        return verdict

    def _catch_up(self) -> None:
        """Do what the verdict that has just been given did not wait for."""
        while self._behind:
            self._behind.pop()()

    def _inject_ahead(self) -> None:
        """Send to the network what an incoming packet set free, before the local socket answers that packet."""
        waiting, self._outcome.injections = self._outcome.injections, []
        now = time.monotonic()
        for injection in waiting:
            if injection.toward == "network":
                self._injector.send(injection, now)
            else:
                self._outcome.injections.append(injection)

    def _inject(self) -> None:
        sending, self._outcome.injections = self._outcome.injections, []
        now = time.monotonic()
        for injection in sending:
            self._injector.send(injection, now)
