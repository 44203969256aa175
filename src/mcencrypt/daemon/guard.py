"""The watch over the rules and the fence: what others take out is noticed and put back.

With iptables-nft the kernel announces every change; otherwise the clock drives the looks. Looks at the rules, and
changes of them, are steps that are done beside the packets, one after the other; the fence takes no time.

Where the fence stood all the time, rules that were gone cost a pause and nothing else: nothing passed. Where it did
not, packets may have passed in plaintext, and whoever is told of the loss ends what was encrypted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

from mcencrypt.daemon.interfaces import Fence, Firewall, Loop
from mcencrypt.daemon.jobs import Jobs
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Steps
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
#: "unseen": the kernel did not say.
FenceState = Literal["off", "none", "unseen", "broken", "standing", "owned"]


class Guard:
    """Keeps fence and rules in place from `install` until `remove`.

    What returns steps is for `jobs`, which does one thing at a time.
    """

    def __init__(
        self,
        firewall: Firewall,
        fence: Fence,
        loop: Loop,
        jobs: Jobs,
        on_loss: Callable[[], None],
        on_return: Callable[[], None],
    ) -> None:
        """`on_loss` is called when rules were gone and nothing kept packets in; just before they are put back, perhaps
        again and again. `on_return`: once they are in place after that.
        """
        self._firewall, self._fence, self._loop, self._jobs = firewall, fence, loop, jobs
        self._on_loss, self._on_return = on_loss, on_return
        self._told = False
        self._unfenced = firewall.without_mark()
        self._wanted = False
        #: Times that somebody else removed our rules, and our fence.
        self.rules_lost = 0
        self.fence_lost = 0
        #: Why there is no fence, "" if there is one or none is wanted.
        self.no_fence = ""
        #: Why rules or fence could not be looked at or put right at the last try, "" if they could.
        self.trouble = ""
        self._seen: float | None = None
        self._stands = self._owned = self._unseen = False
        #: Whether packets could have passed since rules and fence were last known to be in place together.
        self._leaky = True
        #: Whether a look is to begin or under way, and whether something has changed since it has begun.
        self._looking = self._again = False
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
            return "unseen" if self._unseen else "broken"
        return "owned" if self._owned else "standing"

    def install(self) -> Steps[None]:
        """Put fence and rules in, or repair them, and watch over them. Raises OperatorError."""
        self._seen = None
        self._put_up_fence()
        yield from self._rules.installing()
        self._seen = self._loop.now()
        self._wanted = True
        self._leaky = bool(self.no_fence)
        self._all_is_well()

    def _all_is_well(self) -> None:
        self.trouble = ""
        if self._told:
            self._told = False
            self._on_return()

    def remove(self) -> Steps[None]:
        """Take rules and fence away, whoever has put them there.

        Raises OperatorError; then those that are left are watched.
        """
        self._seen = None
        yield from self._firewall.removing()
        self._fence.remove()
        self._wanted = self._stands = False
        self.no_fence = self.trouble = ""

    def take_ports(self, ports: Sequence[int]) -> Steps[None]:
        """Fence and rules for these ports from now on.

        Raises OperatorError if they cannot be put in; then the old ones stay, or come back at the next look.
        """
        old = self._firewall
        self._use(old.with_ports(ports))
        if not self._wanted:
            return
        try:
            yield from self.install()
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
            self._stands, self._owned, self._unseen = True, self._fence.is_ours, False

    def _look_at_fence(self) -> bool:
        """Whether it stands; if somebody has taken it away it is put back, and did not stand. Raises OperatorError."""
        if self.no_fence:
            return False
        standing, unseen = self._fence.look(), self._unseen
        self._stands, self._unseen = standing is Standing.WHOLE, standing is Standing.UNKNOWN
        if self._unseen and not unseen:
            log.error("the kernel does not show the fence (nft table inet mcencrypt)")
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
        """Look at all of it as soon as nothing else is under way. The fence at once: it is what holds meanwhile."""
        if not self._wanted:
            return
        if self._looking:
            # What has changed now the look under way may have passed already.
            self._again = True
            return
        self._looking, self._again = True, False
        self._jobs.run(self._looked(), self._done, self._failed)

    def _looked(self) -> Steps[None]:
        """Look, and put right what is not. Raises OperatorError."""
        if not self._wanted:
            return
        fenced = self._look_at_fence()
        state = yield from self._rules.checking()
        fenced = self._look_at_fence() and fenced
        if state is State.PRESENT:
            self._seen = self._loop.now()
            self._leaky = not fenced
            self._all_is_well()
            return
        if state is State.MISSING:
            self.rules_lost += 1
            if self._leaky:
                self._told = True
                self._on_loss()
            else:
                log.error("somebody removed our rules; the fence held, so nothing passed; they are put back")
        yield from self.install()

    def _done(self, nothing: None) -> None:
        self._looking = False
        if self._again:
            self._loop.call_at(self._loop.now() + PAUSE, self._look)

    def _failed(self, problem: OperatorError) -> None:
        if str(problem) != self.trouble:
            log.error(str(problem))
        self.trouble = str(problem)
        self._done(None)
