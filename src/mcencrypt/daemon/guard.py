"""The watch over the rules and the fence: what others take out is noticed and put back.

With iptables-nft the kernel announces every change; otherwise the clock drives the looks. A look at the rules runs in a
subprocess, beside the packets; one at the fence takes no time.

Where the fence stood all the time, rules that were gone cost a pause and nothing else: nothing passed. Where it did
not, packets may have passed in plaintext, and whoever is told of the loss ends what was encrypted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

from mcencrypt.daemon.interfaces import Check, Fence, Firewall, Loop
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.fence import NoFenceError, Standing
from mcencrypt.kernel.ruleset import State

log = logging.getLogger(__name__)

#: Seconds between two looks at the rules where changes are not announced (iptables-legacy), and where they are.
LOOK_EVERY = 0.7
LOOK_EVERY_ANNOUNCED = 5.0
#: Seconds between the end of a look and the next one, if there is reason for that, so that a program that changes rules
#: all the time does not keep us busy.
PAUSE = 0.05
#: Seconds after which rules that nobody could look at count as not there. Two looks are at most 5 s apart, and one may
#: take 4 s.
STALE = 10.0

#: What is known of the fence. "off": none is wanted. "none": the kernel cannot have one. "owned": it stands, and only
#: this process can change it. "standing": it stands, and whoever may change nf_tables can. "broken": it does not stand.
FenceState = Literal["off", "none", "broken", "standing", "owned"]


class Guard:
    """Keeps fence and rules in place from `install` until `remove`."""

    def __init__(self, firewall: Firewall, fence: Fence, loop: Loop, on_loss: Callable[[], None]) -> None:
        """`on_loss` is called when rules were gone and nothing kept packets in; just before they are put back."""
        self._firewall, self._fence, self._loop, self._on_loss = firewall, fence, loop, on_loss
        self._unfenced = firewall.without_mark()
        self._check: Check | None = None
        self._wanted = False
        #: Times that somebody else removed our rules, and our fence.
        self.rules_lost = 0
        self.fence_lost = 0
        #: Why there is no fence, "" if there is one or none is wanted.
        self.no_fence = ""
        #: Why rules or fence could not be looked at or put right at the last try, "" if they could.
        self.trouble = ""
        self._seen: float | None = None
        self._stands = self._owned = False
        #: Whether packets could have passed since rules and fence were last known to be in place together.
        self._leaky = True
        #: Whether the fence stood when the look under way began, and whether something has changed since.
        self._began_fenced = False
        self._again = False
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

    def rules_in_place(self, now: float) -> bool:
        """Whether they were when they were last looked at, not long ago."""
        return self._seen is not None and not self.trouble and now - self._seen <= STALE

    @property
    def fence(self) -> FenceState:
        """As it was at the last look."""
        if not self._wanted:
            return "off"
        if self.no_fence:
            return "none"
        if not self._stands:
            return "broken"
        return "owned" if self._owned else "standing"

    def install(self) -> None:
        """Put fence and rules in, or repair them, and watch over them. Raises OperatorError."""
        self._seen = None
        self._put_up_fence()
        self._rules.install()
        self._seen = self._loop.now()
        self._wanted = True
        self._leaky = bool(self.no_fence)
        self.trouble = ""

    def remove(self) -> None:
        """Take rules and fence away, whoever has put them there.

        Raises OperatorError; then those that are left are watched.
        """
        self._cancel_check()
        self._seen = None
        self._firewall.remove()
        self._fence.remove()
        self._wanted = self._stands = False
        self.no_fence = self.trouble = ""

    def take_ports(self, ports: Sequence[int]) -> None:
        """Fence and rules for these ports from now on.

        Raises OperatorError if they cannot be put in; then the old ones stay, or come back at the next look.
        """
        old = self._firewall
        self._use(old.with_ports(ports))
        if not self._wanted:
            return
        self._cancel_check()
        try:
            self.install()
        except OperatorError:
            self._use(old)
            raise

    def _use(self, firewall: Firewall) -> None:
        self._firewall, self._unfenced = firewall, firewall.without_mark()
        self._fence.with_ports(firewall.ports)

    @property
    def _rules(self) -> Firewall:
        return self._unfenced if self.no_fence else self._firewall

    # -- the fence

    def _put_up_fence(self) -> None:
        try:
            self._fence.install()
        except NoFenceError as problem:
            if not self.no_fence:
                log.warning(str(problem))
            self.no_fence = str(problem)
            self._stands = False
        else:
            self.no_fence = ""
            self._stands, self._owned = True, self._fence.is_ours

    def _look_at_fence(self) -> bool:
        """Whether it stands; if somebody has taken it away it is put back, and did not stand."""
        if self.no_fence:
            return False
        standing = self._fence.look()
        self._stands = standing is Standing.WHOLE
        if self._stands:
            return True
        self._leaky = True
        if standing is Standing.BROKEN:
            self.fence_lost += 1
            log.error("somebody removed the fence (nft table inet mcencrypt); it is put back")
            self._put_up_fence()
        return False

    # -- looking

    def _changed(self) -> None:
        if self._events.handle_events():
            self._look()

    def _look(self) -> None:
        if not self._wanted:
            return
        if self._check is not None:
            # What has changed now the look under way may have passed already.
            self._again = True
            self._look_result()
            return
        self._again = False
        try:
            self._began_fenced = self._look_at_fence()
            self._check = self._firewall.start_check() if not self.no_fence else self._unfenced.start_check()
        except OperatorError as problem:
            self._in_trouble(str(problem))
            return
        self._loop.add_reader(self._check.fileno(), self._look_result)
        self._loop.call_at(self._check.deadline, self._look_result)

    def _look_result(self) -> None:
        check = self._check
        if check is None:
            return
        fd = check.fileno()
        try:
            if not check.poll():
                return
            self._end_check(fd)
            self._judge(check.result)
        except OperatorError as problem:
            self._end_check(fd)
            self._in_trouble(str(problem))
        if self._again:
            self._loop.call_at(self._loop.now() + PAUSE, self._look)

    def _end_check(self, fd: int) -> None:
        if self._check is not None:
            self._check = None
            self._loop.remove_reader(fd, closed=True)

    def _judge(self, state: State | None) -> None:
        """What to do about what the look has seen. Raises OperatorError: it could not be done."""
        fenced = self._look_at_fence() and self._began_fenced
        if state is State.PRESENT:
            self._seen = self._loop.now()
            self._leaky = not fenced
            self.trouble = ""
            return
        if state is State.MISSING:
            self.rules_lost += 1
            if self._leaky:
                self._on_loss()
            else:
                log.error("somebody removed our rules; the fence held, so nothing passed; they are put back")
        self.install()

    def _in_trouble(self, problem: str) -> None:
        if problem != self.trouble:
            log.error(problem)
        self.trouble = problem

    def _cancel_check(self) -> None:
        if self._check is not None:
            self._loop.remove_reader(self._check.fileno())
            self._check.cancel()
            self._check = None
