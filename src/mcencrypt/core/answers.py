"""Which public key answered at which address: trust on first use, as known_hosts of ssh has it.

Message 1 names no responder, for who dials knows none.  So whoever leads a dial elsewhere, by NAT on the path, gets an
answer from another member of the network.  That the key is another one than before is how it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

#: Addresses, each with a port, that are remembered.
CAPACITY: Final = 4096
#: Seconds after which it is noted anew that the same key still answers.
DAY: Final = 86400


class Answered:
    """What is remembered of one address and port; times in seconds since 1970."""

    __slots__ = ("identity", "last", "other", "other_at", "since")

    def __init__(self, identity: bytes, since: int, last: int, other: bytes = b"", other_at: int = 0) -> None:
        self.identity, self.since, self.last = identity, since, last
        #: Another key that answered there later, the last one if there were several; b"" if none did.
        self.other, self.other_at = other, other_at


def _nobody() -> None:
    """Who keeps it on disk, where nobody does."""


class Answers:
    """The addresses and ports at which peers answered our dials, with their proven public keys.

    Bounded.  Where one has to go it is the one that was known for the shortest time: who leads us to many addresses
    does not make us forget those of old.
    """

    __slots__ = ("changed", "known", "limit")

    def __init__(self, limit: int = CAPACITY) -> None:
        self.limit = limit
        #: By packed address + port.
        self.known: dict[bytes, Answered] = {}
        #: Called when there is something else to remember.
        self.changed: Callable[[], None] = _nobody

    def take_over(self, known: Iterable[tuple[bytes, Answered]]) -> None:
        """What an earlier daemon remembered."""
        self.known.update(known)

    def expected(self, endpoint: bytes, identity: bytes) -> bytes | None:
        """The key that answered at `endpoint` (packed address + port) before, if `identity` is another one."""
        known = self.known.get(endpoint)
        return known.identity if known is not None and known.identity != identity else None

    def note(self, endpoint: bytes, identity: bytes, unix_s: int) -> bool:
        """That proven key answered there. Whether that is news: the first one, or another than the last time."""
        known = self.known.get(endpoint)
        if known is None:
            if len(self.known) >= self.limit:
                del self.known[min(self.known, key=self._worth)]
            self.known[endpoint] = Answered(identity, unix_s, unix_s)
        elif known.identity == identity:
            if unix_s < known.last + DAY:
                return False
            known.last = unix_s
        elif known.other == identity:
            return False
        else:
            known.other, known.other_at = identity, unix_s
        self.changed()
        return True

    def forget(self, address: bytes) -> list[bytes]:
        """Forget a packed address, or an address + port: what was known of it, by packed address + port."""
        gone = [endpoint for endpoint in self.known if address in (endpoint, endpoint[:-2])]
        for endpoint in gone:
            del self.known[endpoint]
        if gone:
            self.changed()
        return gone

    def differing(self) -> int:
        """Addresses at which another key answered than the one that is remembered."""
        return sum(bool(one.other) for one in self.known.values())

    def _worth(self, endpoint: bytes) -> tuple[int, int]:
        known = self.known[endpoint]
        return known.last - known.since, known.last
