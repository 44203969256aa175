"""Going to where the daemon is: it may serve another network namespace than the one we were called in."""

from __future__ import annotations

import os

from mcencrypt.shell.netns import setns


def enter_daemons(pid: int) -> str:
    """Enter the network namespace of the daemon with this process id, for the rest of this process.

    Returns what to call it, "" if we are in it already, or if it cannot be seen or entered.
    """
    try:
        with open("/proc/thread-self/ns/net", "rb") as here, open(f"/proc/{pid}/ns/net", "rb") as there:
            if os.path.sameopenfile(here.fileno(), there.fileno()):
                return ""
            if setns(there.fileno()):
                return ""
    except OSError:
        return ""
    return f"the daemon (pid {pid})"
