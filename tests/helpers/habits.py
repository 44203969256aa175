"""How the kernels at the two ends of a modelled connection are set up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Habits:
    """How an endpoint's kernel is set up."""

    mtu: int = 1500
    #: Receive buffer in bytes, window scale, and whether data behind the window's right edge is cut off.
    buffer: int = 65535
    scale: int = 0
    trims: bool = False
    sack: bool = True
    timestamps: bool = True
    #: Whether data goes out in batches that the network interface cuts.
    gso: bool = True
