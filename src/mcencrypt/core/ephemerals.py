"""Ephemeral keys, made ahead: each costs as much as an exchange, and nobody waits for one that is there already.

Whoever drives the engine calls `make` when nothing else is to be done. One that waits here has been shown to nobody; it
is given out once, and then it is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .noise import KEY_LENGTH, KeyPair

#: How many are kept ready.
AHEAD: Final = 64

Randomness = Callable[[int], bytes]


class Ephemerals:
    """Fresh X25519 keys, each of 32 bytes of the randomness that is passed in."""

    __slots__ = ("_random", "_ready", "ahead")

    def __init__(self, random: Randomness, ahead: int = AHEAD) -> None:
        """`random` gives that many bytes that nobody can guess; `ahead`: keys that are kept ready at most."""
        self._random, self.ahead = random, ahead
        self._ready: deque[KeyPair] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    def take(self) -> KeyPair:
        """One that nobody had before."""
        return self._ready.popleft() if self._ready else self._fresh()

    def wanting(self) -> bool:
        """Whether `make` has something to do."""
        return len(self._ready) < self.ahead

    def make(self) -> None:
        """Make one ahead, if there is not enough of them."""
        if self.wanting():
            self._ready.append(self._fresh())

    def _fresh(self) -> KeyPair:
        return KeyPair(X25519PrivateKey.from_private_bytes(self._random(KEY_LENGTH)))
