"""By which device a connection's packets leave, and the MTU of their route, as the kernel would decide for itself.

The device is asked for by RTM_GETROUTE, with all that routing rules go by. For the MTU a connected UDP socket is asked
(IP_MTU, ip(7); IPV6_MTU, ipv6(7)); nothing is sent. That is the kernel's own answer, dst_mtu(): a learned path MTU,
else the route's ``mtu`` metric, else the link's, for IPv6 as a router advertised it. RTM_GETROUTE shows the first two
and leaves the rest to be guessed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys
import time
from typing import Final, NamedTuple

from mcencrypt.core.addresses import Ends, is_link_local
from mcencrypt.core.limits import make_room
from mcencrypt.kernel.handling import ANYHOW, Handling
from mcencrypt.kernel.netlink import NETLINK_ROUTE, Listener, Netlink, attributes

#: Seconds that an answer is used. Changed routes or links end it at once, a learned path MTU does not.
TTL = 2.0

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
_RTM_GETROUTE: Final = 26
# struct rtmsg: family, lengths of destination and source in bits, tos, then table, protocol, scope, type and flags.
_RTMSG = struct.Struct("=BBBB8x")
_RTA_DST, _RTA_SRC, _RTA_OIF, _RTA_MARK, _RTA_UID = 1, 2, 4, 16, 25
_RTA_IP_PROTO, _RTA_SPORT, _RTA_DPORT = 27, 28, 29
_DISCARD_PORT = 9
_NO_ROUTE: Final = frozenset(
    (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL, errno.ENODEV, errno.ENONET)
)


class _Answer(NamedTuple):
    mtu: int
    expires: float


class Routes:
    """Route MTUs of the network namespace that this object was made in, cached.

    For an event loop: when `fileno()` is readable call `handle_events()`.
    """

    def __init__(self) -> None:
        self._listener = Listener(NETLINK_ROUTE, _GROUPS)
        self._netlink = Netlink(NETLINK_ROUTE)
        self._cache: dict[tuple[bytes, bytes, Handling], _Answer] = {}

    def fileno(self) -> int:
        return self._listener.fileno()

    def handle_events(self) -> bool:
        """Read what changed, without blocking, and forget cached answers if anything did."""
        if not self._listener.handle_events():
            return False
        self._cache.clear()
        return True

    def device(self, ends: Ends, handling: Handling) -> int:
        """Index of the device by which this connection's packets leave; 0 if there is no route. Raises OSError."""
        bits = len(ends.remote) * 8
        fields = [
            (_RTA_DST, ends.remote),
            (_RTA_SRC, ends.local),
            (_RTA_MARK, struct.pack("=I", handling.mark)),
            (_RTA_UID, struct.pack("=I", handling.uid)),
            (_RTA_IP_PROTO, bytes((socket.IPPROTO_TCP,))),
            (_RTA_SPORT, struct.pack("!H", ends.local_port)),
            (_RTA_DPORT, struct.pack("!H", ends.remote_port)),
        ]
        if handling.interface:
            fields.append((_RTA_OIF, struct.pack("=I", handling.interface)))
        family = socket.AF_INET6 if bits == 128 else socket.AF_INET
        body = _RTMSG.pack(family, bits, bits, handling.traffic_class & 0xFC)
        body += b"".join(
            struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4) for kind, value in fields
        )
        try:
            answer = self._netlink.request(_RTM_GETROUTE, 0, body)
        except OSError as error:
            if error.errno in _NO_ROUTE:
                return 0
            raise
        return next((int.from_bytes(v, sys.byteorder) for k, v in attributes(answer, _RTMSG.size) if k == _RTA_OIF), 0)

    def mtu(self, address: bytes, source: bytes = b"", handling: Handling = ANYHOW, now: float | None = None) -> int:
        """The MTU in bytes of the route to a peer (packed address).

        `source` is the connection's own address and `handling` what else routing rules go by; its interface is needed
        for link-local peers. `now` is time.monotonic(). Without a route (none at all, blackhole, unreachable,
        interface down) the answer is the least that every path takes: 576 for IPv4, 1280 for IPv6. Raises nothing.
        """
        now = time.monotonic() if now is None else now
        key = (address, source, handling)
        answer = self._cache.get(key)
        if answer and now < answer.expires:
            return answer.mtu
        mtu = _ask(address, source, handling)
        if mtu is None and source:
            mtu = _ask(address, b"", handling)
        lowest = LOWEST_IPV4 if len(address) == 4 else LOWEST_IPV6
        mtu = mtu or lowest
        self._cache.pop(key, None)
        make_room(self._cache, CAPACITY)
        self._cache[key] = _Answer(mtu, now + TTL)
        return mtu

    def close(self) -> None:
        self._listener.close()
        self._netlink.close()


def _ask(address: bytes, source: bytes, handling: Handling) -> int | None:
    ipv6 = len(address) == 16
    scope = handling.interface if is_link_local(address) else 0
    family = socket.AF_INET6 if ipv6 else socket.AF_INET
    flags = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        with socket.socket(family, flags) as probe:
            text = socket.inet_ntop(family, address)
            if handling.mark:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", handling.mark))
            if handling.traffic_class and ipv6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, handling.traffic_class)
            elif handling.traffic_class:
                probe.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, handling.traffic_class)
            if handling.uid:
                with contextlib.suppress(PermissionError):  # without CAP_CHOWN
                    os.fchown(probe.fileno(), handling.uid, -1)
            if handling.interface and not scope:
                name = socket.if_indextoname(handling.interface).encode()
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name)
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
