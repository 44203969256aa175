"""How long a packet to a peer may be, what our own kernel was told of it, and what it makes of that.

Three sizes, for a path:

    path      what it takes, as far as anybody knows
    kernel    what our kernel holds that for: the route's MTU, or what a router has told it (dst_mtu). It reckons its
              segments from this, and drops what is longer when it comes back from the queue
    told      what we have told it, which is less than the path takes by our overhead, so that its segments grow into
              no more than that

Whatever is told is what the route shows to everybody from then on: it must not be taken for the path's own, or each
connection to the peer would lower it once more. So both are remembered, for as long as the kernel remembers, and by
what it remembers them by: of users, marks and classes it makes no difference there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from .addresses import Path, Place
from .limits import make_room
from .record import OVERHEAD

#: Paths that are remembered; those of the oldest news go first.
CAPACITY: Final = 4096
#: Seconds for which the kernel remembers what it was told (net.ipv4.route.mtu_expires, net.ipv6.route.mtu_expires).
REMEMBERED: Final = 600.0
#: Seconds after which a kernel that does not believe it is told again.
TELL_EVERY: Final = 2.0
#: The least that the kernel can be told: net.ipv4.route.min_pmtu, and what every IPv6 link takes (RFC 8200, section 5).
LOWEST_IPV4: Final = 552
LOWEST_IPV6: Final = 1280


class Limits(NamedTuple):
    """Bytes that a packet may have."""

    #: If it comes back from the queue: what our kernel holds the path for.
    kernel: int
    #: If we send it ourselves: what the path takes.
    path: int


class News(NamedTuple):
    """What was learnt of a path."""

    #: Bytes that it takes, and that our kernel was told.
    path: int
    told: int
    #: When the kernel will have forgotten it; seconds, monotonic.
    expires: float


class Paths:
    """The paths to all peers."""

    def __init__(self, route_mtu: Callable[[Path], int], path_of: Callable[[bytes], Path] = Path.of) -> None:
        """`route_mtu`: MTU in bytes that the route of a path shows. `path_of`: the path of a connection."""
        self._route_mtu, self.of = route_mtu, path_of
        #: Grows when an answer given before may be wrong now.
        self.version = 0
        self._news: dict[Place, News] = {}
        self._told_at: dict[Place, float] = {}
        #: Seconds, monotonic; as of the last `tick`.
        self.now = 0.0
        #: Told of each change, for whoever keeps it beyond the end of this process.
        self.on_news: Callable[[Place, News], None] = _nobody

    def limits(self, path: Path) -> Limits:
        """What packets of this path may be long."""
        shown = self._route_mtu(path)
        news = self._news.get(path.place) if self._news else None
        if news is None or shown < news.told:
            return Limits(shown, shown)
        if shown == news.told:
            return Limits(shown, news.path)
        # It has not heard of it as yet, does not believe it, or has forgotten it.
        if news.expires <= self.now:
            del self._news[path.place]
            return Limits(shown, shown)
        return Limits(news.told, min(shown, news.path))

    def lower(self, path: Path) -> int | None:
        """What to tell our kernel, so that its segments leave room for our overhead; None if it knows, or cannot."""
        kernel, mtu = self.limits(path)
        told = max(mtu - OVERHEAD, _lowest(path))
        news = self._news.get(path.place)
        if news is not None and news.told <= told:
            if (
                self._route_mtu(path) == news.told
                or self.now < self._told_at.get(path.place, float("-inf")) + TELL_EVERY
            ):
                return None
        elif told >= kernel:
            return None
        self._enter(path.place, mtu, told)
        return told

    def learn(self, path: Path, mtu: int) -> int:
        """A router says that the path takes `mtu` bytes. Returns what our kernel is to be told instead."""
        lowest = _lowest(path)
        takes, told = max(mtu, lowest), max(mtu - OVERHEAD, lowest)
        if takes <= self.limits(path).path:
            self._enter(path.place, takes, told)
        # Below its least our kernel allows routers to fragment, as it does for packets made from its own.
        return mtu if mtu < lowest == LOWEST_IPV4 else told

    def take_over(self, news: Iterable[tuple[Place, News]], on_news: Callable[[Place, News], None], now: float) -> None:
        """Begin with what an earlier process had learnt, the oldest first; tell `on_news` of what changes."""
        self._news, self.on_news, self.now = dict(news), on_news, now

    def routes_changed(self) -> None:
        """The kernel may have forgotten what it was told: believe what its routes show."""
        self._news = {place: news._replace(expires=self.now) for place, news in self._news.items()}
        self.version += 1

    def tick(self, now: float) -> None:
        """To be called about once a second."""
        self.now = now
        self.version += 1
        self._told_at = {place: at for place, at in self._told_at.items() if now < at + TELL_EVERY}

    def _enter(self, place: Place, mtu: int, told: int) -> None:
        self._news.pop(place, None)
        make_room(self._news, CAPACITY)
        self.version += 1
        self._news[place] = news = News(mtu, told, self.now + REMEMBERED)
        if len(self._told_at) < CAPACITY:
            self._told_at[place] = self.now
        self.on_news(place, news)


def _lowest(path: Path) -> int:
    return LOWEST_IPV4 if len(path.peer) == 4 else LOWEST_IPV6


def _nobody(place: Place, news: News) -> None:
    """Nothing is kept."""
