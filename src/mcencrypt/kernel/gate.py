"""Fence and rules together, for whoever closes or opens the ports without being the daemon that watches over them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence

from mcencrypt.kernel.commands import perform
from mcencrypt.kernel.fence import Fence, NoFenceError, Standing
from mcencrypt.kernel.firewall import Firewall, rules_left
from mcencrypt.kernel.iptables import SECONDS

log = logging.getLogger(__name__)


class Gate:
    """The P2P ports of the network namespace that the caller is in.

    What is put up outlives the caller; the next daemon takes it over.
    """

    def __init__(
        self, ports: Sequence[int], queue_number: int, mark: int, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._firewall = Firewall(ports, queue_number, environ, mark)
        self._fence = Fence(ports, mark)
        self._environ = environ

    def hold(self) -> None:
        """Close the ports as fast as can be, in a namespace that has no rules of ours: fence, and rules behind it.

        A daemon checks and repairs the rules later. Raises OperatorError.
        """
        self._put_up_fence().hold()

    def close(self) -> None:
        """Close the ports until a daemon opens them: by the fence, or by rules where there can be none.

        Raises OperatorError.
        """
        if self._fence.look() is Standing.WHOLE:
            return
        rules = self._put_up_fence()
        if rules is not self._firewall:
            rules.install()

    def is_closed(self) -> bool:
        """Whether anything of ours is in place. Raises OperatorError if that cannot be told."""
        return self._fence.is_there() or perform(rules_left(self._environ), SECONDS)

    def open(self) -> None:
        """Take rules and fence away, whoever has put them there. Raises OperatorError; then something may be left."""
        self._firewall.remove()
        self._fence.remove()

    def _put_up_fence(self) -> Firewall:
        """Returns the rules that go with it."""
        try:
            self._fence.install()
        except NoFenceError as problem:
            log.warning(str(problem))
            return self._firewall.without_mark()
        return self._firewall
