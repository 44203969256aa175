"""How long the kernel keeps a connection that it has answered and that was not acknowledged."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_RETRIES: Final = Path("/proc/sys/net/ipv4/tcp_synack_retries")
#: The first timeout of a SYN-ACK (TCP_TIMEOUT_INIT of the kernel), in seconds; each further one is twice as long.
_FIRST: Final = 1.0


def half_open_seconds(file: Path = _RETRIES) -> float:
    """Seconds after which it forgets it, as `net.ipv4.tcp_synack_retries` of this network namespace has it.

    Infinite if that cannot be read: then other bounds hold.
    """
    try:
        retries = int(file.read_text())
    except (OSError, ValueError):
        return float("inf")
    return _FIRST * float((2 << min(max(retries, 0), 30)) - 1)
