"""What this process may do (capabilities(7)), in one line, before the kernel refuses one call after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mcencrypt.errors import OperatorError

#: What a daemon cannot do without, by bit.
NEEDED: Final = {
    12: ("CAP_NET_ADMIN", "iptables, netfilter queues, sockets"),
    13: ("CAP_NET_RAW", "resets, and data that does not fit the kernel's packet"),
}
_STATUS: Final = Path("/proc/self/status")


def effective(status: Path = _STATUS) -> int | None:
    """The effective capabilities as a bit mask, None if they cannot be read."""
    try:
        for line in status.read_text().splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    except (OSError, ValueError, IndexError):
        pass
    return None


def check_capabilities(status: Path = _STATUS) -> None:
    """Raises OperatorError that names what is missing, if that is known."""
    held = effective(status)
    if held is None:
        return
    missing = [(name, use) for bit, (name, use) in NEEDED.items() if not held >> bit & 1]
    if missing:
        names = " and ".join(name for name, _ in missing)
        uses = "; ".join(use for _, use in missing)
        raise OperatorError(
            f"{names} is missing ({uses}): run as root; in a container add it (Docker: cap_add, Kubernetes: "
            "securityContext.capabilities.add)"
        )
