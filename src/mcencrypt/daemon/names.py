"""Addresses and keys as people see them, in the log and in replies."""

from __future__ import annotations

import base64
import socket


def address(packed: bytes) -> str:
    """A packed address, of 4 or 16 bytes."""
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)


def endpoint(packed: bytes) -> str:
    """`address:port` of a packed address and 2-byte port."""
    port = int.from_bytes(packed[-2:], "big")
    return f"{address(packed[:-2])}:{port}" if len(packed) == 6 else f"[{address(packed[:-2])}]:{port}"


def identity(public: bytes) -> str:
    """A public key."""
    return base64.b64encode(public).decode()
