"""Ephemeral keys, made ahead: each costs as much as an exchange, and nobody waits for one that is there already.

Whoever drives the engine calls `make` when nothing else is to be done. One that waits here has been shown to nobody; it
is given out once, and then it is gone. For peers that have dialled before and have proven their keys a few wait whose
exchange with that key (Noise's `se`) is made already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .limits import make_room
from .noise import KEY_LENGTH, KeyPair

#: How many are kept ready.
AHEAD: Final = 64
#: Peers for which some are kept besides, those that dialled last; and how many for each.
PEERS: Final = 64
FOR_EACH: Final = 2

Randomness = Callable[[int], bytes]


class Ephemerals:
    """Fresh X25519 keys, each of 32 bytes of the randomness that is passed in."""

    __slots__ = ("_for_peers", "_lacking", "_random", "_ready", "ahead")

    def __init__(self, random: Randomness, ahead: int = AHEAD) -> None:
        """`random` gives that many bytes that nobody can guess; `ahead`: keys that are kept ready at most."""
        self._random, self.ahead = random, ahead
        self._ready: deque[KeyPair] = deque()
        #: By a peer's public key, who dialled last at the end; and which of them have too few.
        self._for_peers: dict[bytes, list[KeyPair]] = {}
        self._lacking: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._ready)

    def take(self, peer: bytes = b"") -> KeyPair:
        """One that nobody had before; for an exchange with that public key, if it is known."""
        ready = self._for_peers.get(peer)
        if ready:
            self._lacking[peer] = None
            return ready.pop()
        return self._ready.popleft() if self._ready else self._fresh()

    def expect(self, peer: bytes) -> None:
        """A peer has dialled, and proven this public key: it will dial again."""
        ready = self._for_peers.pop(peer, None)
        if ready is None:
            make_room(self._for_peers, PEERS)
            ready, self._lacking[peer] = [], None
        self._for_peers[peer] = ready

    def forget(self, peer: bytes) -> None:
        """That peer is none any more."""
        self._for_peers.pop(peer, None)

    def wanting(self) -> bool:
        """Whether `make` has something to do."""
        return len(self._ready) < self.ahead or bool(self._lacking)

    def make(self) -> None:
        """Make one ahead, if there is not enough of them, or one exchange of one."""
        if self._lacking and self._ready:
            peer = next(iter(self._lacking))
            ready = self._for_peers.get(peer)
            if ready is not None and len(ready) < FOR_EACH:
                key = self._ready.popleft()
                key.expect(peer)
                ready.append(key)
            if ready is None or len(ready) >= FOR_EACH:
                del self._lacking[peer]
        elif self.wanting():
            self._ready.append(self._fresh())

    def _fresh(self) -> KeyPair:
        return KeyPair(X25519PrivateKey.from_private_bytes(self._random(KEY_LENGTH)))
