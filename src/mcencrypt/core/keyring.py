"""The network keys that a node accepts, the one that it offers, and what is known of its peers' keys.

A handshake names its key by the id in clear, so the answering side takes whichever of its keys that is; the dialling
side has to choose one.  That is all that a change of keys without an outage needs: every node accepts the new
key, then every node offers it, then every node stops to accept the old one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from .handshake import NetworkSecret, Refused, named_key
from .limits import make_room

#: Keys that a ring holds at most.
MAX_KEYS: Final = 8
#: Peers whose offer is remembered.
MAX_OFFERS: Final = 4096
#: Addresses of which a refused key is remembered.
MAX_REFUSED: Final = 256
#: Seconds for which an offer counts: a peer that was silent for longer holds nothing up.
LATELY: Final = 24 * 3600.0


class RingError(Exception):
    """A change that the ring does not take; the text is for a person."""


class KeyRing:
    """One to `MAX_KEYS` network keys, one of them offered."""

    __slots__ = ("_ours", "_secrets", "offered")

    def __init__(self, secrets: Iterable[NetworkSecret], offered: bytes | None = None) -> None:
        """`offered` is a key id, by default the first key's.  Raises RingError."""
        self._secrets: dict[bytes, NetworkSecret] = {}
        #: What there is, for those who have another: made once, since strangers can ask for it.
        self._ours = ""
        for secret in secrets:
            self.add(secret)
        if not self._secrets:
            raise RingError("there is no key")
        #: The key of our own handshakes.
        self.offered = next(iter(self._secrets.values()))
        if offered is not None:
            self.offer(offered)

    def __iter__(self) -> Iterator[NetworkSecret]:
        return iter(self._secrets.values())

    def __len__(self) -> int:
        return len(self._secrets)

    def __contains__(self, key_id: bytes) -> bool:
        return key_id in self._secrets

    def __getitem__(self, key_id: bytes) -> NetworkSecret:
        """Raises RingError."""
        secret = self._secrets.get(key_id)
        if secret is None:
            raise RingError(f"there is no key {key_id.hex()}")
        return secret

    def find(self, prefix: str) -> NetworkSecret:
        """The one key whose id, in hexadecimal digits, begins like that.  Raises RingError."""
        wanted = prefix.strip().lower()
        found = [secret for secret in self if wanted and secret.key_id.hex().startswith(wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(secret.key_id.hex() for secret in found)
            raise RingError(f"several keys begin with {wanted}: {ids}: give more digits")
        known = ", ".join(secret.key_id.hex() for secret in self)
        raise RingError(f"there is no key {prefix!r} here, but {known}")

    def named_by(self, hello: bytes) -> NetworkSecret:
        """The key that a handshake message names.  Raises Refused."""
        key_id = named_key(hello)
        secret = self._secrets.get(key_id)
        if secret is None:
            raise Refused("wrong-key", f"it uses network key {key_id.hex()}, {self._ours}", key_id)
        return secret

    def add(self, secret: NetworkSecret) -> None:
        """Accept another key.  Raises RingError if the ring is full."""
        if secret.key_id in self._secrets:
            return
        if len(self._secrets) >= MAX_KEYS:
            raise RingError(f"there are {MAX_KEYS} keys already, and no more are possible: retire one first")
        self._secrets[secret.key_id] = secret
        self._tell()

    def offer(self, key_id: bytes) -> None:
        """Use this key for our own handshakes from now on.  Raises RingError."""
        self.offered = self[key_id]

    def remove(self, key_id: bytes) -> None:
        """Accept this key no more; connections that it began go on.  Raises RingError, also for the one offered."""
        if self[key_id] is self.offered:
            raise RingError(f"key {key_id.hex()} is the one that this node offers: use another first")
        del self._secrets[key_id]
        self._tell()

    def _tell(self) -> None:
        known = ", ".join(one.hex() for one in self._secrets)
        self._ours = f"ours {'is' if len(self._secrets) == 1 else 'are'} {known}"


class Offer(NamedTuple):
    """A network key that a peer was seen to offer, when (seconds, monotonic), and from where (packed address)."""

    key_id: bytes
    at: float
    address: bytes


class Offers:
    """The newest known offer of each peer, by its proven public key.  Bounded: the longest unheard of go first."""

    __slots__ = ("_newest", "limit")

    def __init__(self, limit: int = MAX_OFFERS) -> None:
        self.limit = limit
        self._newest: dict[bytes, Offer] = {}

    def note(self, identity: bytes, key_id: bytes, now: float, address: bytes) -> None:
        """The peer dialled with this key, or said in its message 2 that it would."""
        self._newest.pop(identity, None)
        make_room(self._newest, self.limit)
        self._newest[identity] = Offer(key_id, now, address)

    def forget(self, identity: bytes) -> None:
        """That peer is none any more."""
        self._newest.pop(identity, None)

    def of(self, identity: bytes, now: float) -> Offer | None:
        """What that peer offered lately."""
        offer = self._newest.get(identity)
        return offer if offer is not None and offer.at > now - LATELY else None

    def peers(self, key_id: bytes, now: float) -> list[bytes]:
        """The peers whose newest offer, lately, is this key."""
        return [
            identity for identity, offer in self._newest.items() if offer.key_id == key_id and offer.at > now - LATELY
        ]


class RefusedKeys:
    """The last key id for which a handshake from an address was refused.  Bounded; a hint: addresses can be forged."""

    __slots__ = ("_by_address", "limit")

    def __init__(self, limit: int = MAX_REFUSED) -> None:
        self.limit = limit
        self._by_address: dict[bytes, bytes] = {}

    def note(self, address: bytes, key_id: bytes) -> None:
        """`address` is packed."""
        self._by_address.pop(address, None)
        make_room(self._by_address, self.limit)
        self._by_address[address] = key_id

    def of(self, address: bytes) -> bytes | None:
        return self._by_address.get(address)
