"""A sign, for programs that share the network namespace, that the daemon has put its rules in.

Containers that share a namespace share no files and need not see each other's processes. An abstract UNIX socket
lives in the network namespace alone (unix(7), network_namespaces(7)), goes with its process, and every shell can read
its name in /proc/net/unix.
"""

from __future__ import annotations

import socket
from typing import Final

#: As /proc/net/unix shows it, with "@" in front.
NAME: Final = "mcencrypt/ready"


def announce() -> socket.socket | None:
    """Show the sign, in the calling thread's namespace, until the result is closed or the process ends.

    It says that traffic is treated as the switch says, which may be off. None if another process shows it already.
    """
    sign = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sign.bind(f"\0{NAME}")
    except OSError:
        sign.close()
        return None
    return sign
