"""A sign, for programs that share the network namespace, that the daemon has put its rules in.

Containers that share a namespace share no files and need not see each other's processes. The sign is the alias of lo
(ip-link(8)): it belongs to the namespace and goes with it, every shell can read it in /sys/class/net/lo/ifalias, and
only those can write it who may administer the network (CAP_NET_ADMIN), and so take the rules out as well.
"""

from __future__ import annotations

import contextlib
from typing import Final

from mcencrypt.kernel.links import alias, set_alias

NAME: Final = "mcencrypt/ready"


def announce() -> bool:
    """Show the sign in the calling thread's namespace; False if lo has another alias, or cannot have one.

    It says that traffic is treated as the switch says, which may be off. It outlasts a daemon that is killed, as the
    rules do.
    """
    try:
        if alias() not in ("", NAME):
            return False
        set_alias(NAME)
    except OSError:
        return False
    return True


def withdraw() -> None:
    """Take the sign away, if it is ours. Raises nothing."""
    with contextlib.suppress(OSError):
        if alias() == NAME:
            set_alias("")
