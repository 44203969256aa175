"""The watch over the rules: what others take out is noticed and put back.

With iptables-nft the kernel announces every change; otherwise the clock drives the looks. A look runs in a subprocess,
beside the packets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from mcencrypt.daemon.interfaces import Check, Firewall, Loop
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.ruleset import State

log = logging.getLogger(__name__)

#: Seconds between two looks at the rules where changes are not announced (iptables-legacy), and where they are.
LOOK_EVERY = 0.7
LOOK_EVERY_ANNOUNCED = 5.0


class Guard:
    """Keeps the rules in place from `install` until `remove`."""

    def __init__(self, firewall: Firewall, loop: Loop, on_loss: Callable[[], None]) -> None:
        """`on_loss` is called when somebody else has removed rules, just before they are put back."""
        self._firewall, self._loop, self._on_loss = firewall, loop, on_loss
        self._check: Check | None = None
        self._wanted = False
        #: Times that somebody else removed our rules.
        self.rules_lost = 0
        self._seen: float | None = None
        self._events = firewall.events()
        loop.add_reader(self._events.fileno(), self._changed)
        loop.call_every(LOOK_EVERY_ANNOUNCED if firewall.announces_changes() else LOOK_EVERY, self._look)

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that the rules are for."""
        return self._firewall.ports

    def seen(self, now: float) -> float | None:
        """Seconds since the rules were last known to be in place; None if they are not.

        While they are wanted it stays below the time between two looks, unless they cannot be looked at.
        """
        return None if self._seen is None else now - self._seen

    def install(self) -> None:
        """Put the rules in, or repair them, and watch over them. Raises OperatorError."""
        self._seen = None
        self._firewall.install()
        self._seen = self._loop.now()
        self._wanted = True

    def remove(self) -> None:
        """Take the rules out, whoever has put them in. Raises OperatorError; then those that are left are watched."""
        self._cancel_check()
        self._seen = None
        self._firewall.remove()
        self._wanted = False

    def take_ports(self, ports: Sequence[int]) -> None:
        """Rules for these ports from now on.

        Raises OperatorError if they cannot be put in; then the old ones stay, or come back at the next look.
        """
        old = self._firewall
        self._firewall = old.with_ports(ports)
        if not self._wanted:
            return
        self._cancel_check()
        try:
            self.install()
        except OperatorError:
            self._firewall = old
            raise

    # -- looking

    def _changed(self) -> None:
        if self._events.handle_events():
            self._look()

    def _look(self) -> None:
        if self._check is not None:
            self._look_result()
        elif self._wanted:
            try:
                self._check = self._firewall.start_check()
            except OperatorError as problem:
                log.error(str(problem))
                return
            self._loop.add_reader(self._check.fileno(), self._look_result)

    def _look_result(self) -> None:
        check = self._check
        if check is None:
            return
        fd = check.fileno()
        state = check.poll()
        if state is None:
            return
        self._check = None
        self._loop.remove_reader(fd, closed=True)
        if state is State.PRESENT:
            self._seen = self._loop.now()
        if state in (State.PRESENT, State.UNKNOWN):
            return
        if state is State.MISSING:
            self.rules_lost += 1
            self._on_loss()
        try:
            self.install()
        except OperatorError as problem:
            log.error(str(problem))

    def _cancel_check(self) -> None:
        if self._check is not None:
            self._loop.remove_reader(self._check.fileno())
            self._check.cancel()
            self._check = None
