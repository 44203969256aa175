"""Addresses and ports of the machine's own loopback that tests in other processes do not take at the same moment."""

from __future__ import annotations

import os
import socket


def own_address() -> str:
    """An address in 127.0.0.0/8, all of which is this host's, for this process alone."""
    return ".".join(("127", *(str(byte) for byte in os.getpid().to_bytes(3, "big"))))


def free_port() -> int:
    """A TCP port of that address where nobody listens."""
    with socket.create_server((own_address(), 0)) as probe:
        return int(probe.getsockname()[1])
