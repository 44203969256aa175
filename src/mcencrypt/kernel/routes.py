"""The MTU of the route to a peer, as the kernel would use it for a new connection.

A connected UDP socket is asked (IP_MTU, ip(7); IPV6_MTU, ipv6(7)); nothing is sent. That is the kernel's
own answer, dst_mtu(): a learned path MTU, else the route's ``mtu`` metric, else the link's, for IPv6 as a
router advertised it, with policy routing by source address. RTM_GETROUTE shows the first two and leaves the
rest to be guessed.
"""

from __future__ import annotations

import socket
import time
from typing import NamedTuple

from mcencrypt.kernel.netlink import NETLINK_ROUTE, Listener

#: Seconds that an answer is used. Changed routes or links end it at once, a learned path MTU does not.
TTL = 5.0

#: Destinations remembered; the oldest go first.
CAPACITY = 4096

#: Every IPv4 host must take datagrams of this size (RFC 791, section 3.1); the answer for lack of a route.
LOWEST_IPV4 = 576

#: The same for IPv6 (RFC 8200, section 5).
LOWEST_IPV6 = 1280

_RTNLGRP_LINK = 1
_RTNLGRP_IPV4_IFADDR = 5
_RTNLGRP_IPV4_ROUTE = 7
_RTNLGRP_IPV4_RULE = 8
_RTNLGRP_IPV6_IFADDR = 9
_RTNLGRP_IPV6_ROUTE = 11
_RTNLGRP_IPV6_IFINFO = 12
_RTNLGRP_IPV6_RULE = 19
_GROUPS = (
    _RTNLGRP_LINK,
    _RTNLGRP_IPV4_IFADDR,
    _RTNLGRP_IPV4_ROUTE,
    _RTNLGRP_IPV4_RULE,
    _RTNLGRP_IPV6_IFADDR,
    _RTNLGRP_IPV6_ROUTE,
    _RTNLGRP_IPV6_IFINFO,
    _RTNLGRP_IPV6_RULE,
)

_IP_MTU = 14
_IPV6_MTU = 24
_DISCARD_PORT = 9


class _Answer(NamedTuple):
    mtu: int
    expires: float


class Routes:
    """Route MTUs of the network namespace that this object was made in, cached.

    For an event loop: when `fileno()` is readable call `handle_events()`.
    """

    def __init__(self) -> None:
        self._listener = Listener(NETLINK_ROUTE, _GROUPS)
        self._cache: dict[tuple[bytes, bytes, int], _Answer] = {}

    def fileno(self) -> int:
        return self._listener.fileno()

    def handle_events(self) -> bool:
        """Read what changed, without blocking, and forget cached answers if anything did."""
        if not self._listener.handle_events():
            return False
        self._cache.clear()
        return True

    def mtu(self, address: bytes, source: bytes = b"", interface: int = 0, now: float | None = None) -> int:
        """The MTU in bytes of the route to a peer (packed address).

        `source` is the connection's own address, for hosts that route by it. `interface` is an index,
        needed for link-local peers and ignored for others. `now` is time.monotonic(). Without a route (none
        at all, blackhole, unreachable, interface down) the answer is the least that every path takes: 576
        for IPv4, 1280 for IPv6. Raises nothing.
        """
        now = time.monotonic() if now is None else now
        key = (address, source, interface)
        answer = self._cache.get(key)
        if answer and now < answer.expires:
            return answer.mtu
        mtu = _ask(address, source, interface)
        if mtu is None and source:
            mtu = _ask(address, b"", interface)
        lowest = LOWEST_IPV4 if len(address) == 4 else LOWEST_IPV6
        mtu = mtu or lowest
        self._cache.pop(key, None)
        if len(self._cache) >= CAPACITY:
            del self._cache[next(iter(self._cache))]
        self._cache[key] = _Answer(mtu, now + TTL)
        return mtu

    def close(self) -> None:
        self._listener.close()


def _ask(address: bytes, source: bytes, interface: int) -> int | None:
    ipv6 = len(address) == 16
    scope = interface if ipv6 and address[0] == 0xFE and address[1] & 0xC0 == 0x80 else 0
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    flags = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        with socket.socket(family, flags) as probe:
            text = socket.inet_ntop(family, address)
            if source:
                own = socket.inet_ntop(family, source)
                probe.bind((own, 0, 0, scope) if ipv6 else (own, 0))
            if ipv6:
                probe.connect((text, _DISCARD_PORT, 0, scope))
                return probe.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
            probe.connect((text, _DISCARD_PORT))
            return probe.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    except OSError:
        return None
