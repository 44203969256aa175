"""The look at MultiChain's sockets: does something of it pass by on a port that no rule covers?

Every few seconds all processes are looked at, a few at a time, for packets wait meanwhile.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator
from typing import Final, Protocol

from mcencrypt.control import replies
from mcencrypt.daemon.interfaces import Timers
from mcencrypt.kernel.sockets import Listed
from mcencrypt.logs import fields
from mcencrypt.nodes.node import Node
from mcencrypt.nodes.processes import Files, TcpSocket, text_of
from mcencrypt.nodes.sight import Sight, Uncovered, look, uncovered

log = logging.getLogger(__name__)

#: Seconds from the start to the first look, and between the end of a look and the next, to a whole one.
FIRST: Final = 0.5
EVERY: Final = 10.0
#: A look that took long is followed by a pause that is so many times as long: on a host with very many sockets too it
#: takes no more than a hundredth of the time.
RATIO: Final = 100.0


class Sockets(Protocol):
    """What is used of a `kernel.sockets.Sockets`."""

    def open(self) -> list[Listed]:
        """All that listen, dial or are connected. Raises OSError."""


class Lookout:
    """One daemon's."""

    def __init__(
        self,
        files: Files,
        sockets: Sockets,
        timers: Timers,
        ports: Callable[[], Collection[int]],
        others: Callable[[], Collection[int]],
        on_nodes: Callable[[list[Node]], None],
    ) -> None:
        """`ports`: those that the rules cover; `others`: those of other programs.

        `on_nodes` is told, after each look, of the nodes that were seen; it may raise nothing.
        """
        self._files, self._sockets, self._timers = files, sockets, timers
        self._ports, self._others, self._on_nodes = ports, others, on_nodes
        self._steps: Iterator[Sight | None] = iter(())
        self._open: list[TcpSocket] = []
        self._took = 0.0
        self._found: list[Uncovered] = []
        self._doubted: frozenset[tuple[str, int]] = frozenset()

    def start(self) -> None:
        """Look soon, and again and again."""
        self._timers.call_at(self._timers.now() + FIRST, self._begin)

    @property
    def uncovered(self) -> list[Uncovered]:
        """What was seen at the last look, sure ones first. Ports that are covered by now are left out."""
        ports = self._ports()
        return [one for one in self._found if one.port not in ports]

    def describe(self) -> list[replies.Uncovered]:
        """The same for a status."""
        return [
            {
                "doing": one.doing, "port": one.port, "peer": one.peer or None, "owner": one.owner or None,
                "sure": one.sure,
            }
            for one in self.uncovered
        ]  # fmt: skip

    def _begin(self) -> None:
        began = self._timers.now()
        try:
            self._open = [_shown(one) for one in self._sockets.open()]
            self._steps = look(self._files, self._open, self._ports())
        except OSError as error:
            log.warning("sockets cannot be looked at", extra=fields(error=error.strerror))
            self._again(EVERY)
            return
        self._took = self._timers.now() - began
        self._step()

    def _step(self) -> None:
        began = self._timers.now()
        try:
            seen = next(self._steps)
        except OSError as error:
            log.warning("processes cannot be looked at", extra=fields(error=error.strerror))
            self._again(EVERY)
            return
        now = self._timers.now()
        self._took += now - began
        if seen is None:
            self._timers.call_at(now, self._step)  # as soon as no packet waits
            return
        self._judge(seen)
        self._again(max(EVERY, RATIO * self._took))

    def _again(self, seconds: float) -> None:
        """Look anew, with what else the clock wakes the daemon for."""
        self._timers.call_at(math.ceil(self._timers.now() + seconds), self._begin)

    def _judge(self, seen: Sight) -> None:
        self._on_nodes(seen.nodes)
        found = uncovered(self._open, seen, self._ports(), self._others())
        # A node in another container may just be starting, its API first: who it is is believed at the second look.
        doubted = frozenset((one.doing, one.port) for one in found if not one.owner)
        found = [
            one._replace(sure=one.sure and (bool(one.owner) or (one.doing, one.port) in self._doubted)) for one in found
        ]
        self._doubted = doubted
        before = {(one.doing, one.port, one.owner) for one in self._found if one.sure}
        for one in found:
            if one.sure and (one.doing, one.port, one.owner) not in before:
                taken = ",".join(map(str, self._ports()))
                log.error("MultiChain in plaintext on a port that is not covered", extra=fields(
                    what=one.described, ports=taken, advice=f"add {one.port} to ports"))  # fmt: skip
        self._found = found


def _shown(one: Listed) -> TcpSocket:
    return TcpSocket(
        text_of(one.local), one.lport, text_of(one.remote), one.rport, one.state, str(one.inode), len(one.local) == 16
    )
