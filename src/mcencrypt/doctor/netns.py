"""Going to where the daemon is: it may serve another network namespace than the one we were called in."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.target import Target


def enter(pid: int | None, target: Target | None) -> str:
    """Enter the network namespace of the daemon with this process id, for the rest of this process; without a daemon
    the one that is configured.

    Returns what to call it, "" if we are there already. Raises OperatorError if it cannot be entered.
    """
    from mcencrypt.kernel import namespace as netns

    if pid is None:
        if target is None:
            return ""
        netns.enter(target)
        return target.described
    try:
        with open(netns.OWN, "rb") as here, open(f"/proc/{pid}/ns/net", "rb") as there:
            if os.path.sameopenfile(here.fileno(), there.fileno()):
                return ""
            problem = netns.setns(there.fileno())
    except OSError as error:
        problem = error.errno or 0
    if problem:
        raise OperatorError(
            f"the daemon's network namespace (pid {pid}) cannot be entered: {os.strerror(problem)}: run this as root"
        )
    return f"the daemon (pid {pid})"
