"""Interfaces: those that mcencrypt cannot work with (BIG TCP, and VRF), addresses, and names of an operator's own."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.netlink import NETLINK_ROUTE, NLM_F_ACK, Netlink, attributes

#: GSO_LEGACY_MAX_SIZE: batches up to this size have a length that fits an IP header.
LEGACY_MAX_SIZE = 65536

_RTM_GETLINK = 18
_RTM_SETLINK = 19
_RTM_GETADDR = 22
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_IFADDRMSG_SIZE = 8
_IFF_UP = 1
_IFF_LOOPBACK = 8
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINKINFO = 18
_IFLA_INFO_KIND = 1
_IFLA_IFALIAS = 20
#: LOOPBACK_IFINDEX (net/net_namespace.h): the index of lo in every namespace.
_LOOPBACK = 1
_SIZES = {41: "gso_max_size", 58: "gro_max_size", 63: "gso_ipv4_max_size", 64: "gro_ipv4_max_size"}
# struct ifinfomsg: family, type, index, flags, change.
_LINK = struct.Struct("=BxHiII")
_U32 = struct.Struct("=I")
_ATTRIBUTE = struct.Struct("=HH")


class Link(NamedTuple):
    """What matters here of one interface; `sizes` are its batch limits in bytes, by ip-link(8)'s name."""

    name: str
    kind: str
    loopback: bool
    sizes: dict[str, int]
    mtu: int = 0
    up: bool = True


def check_links(links: Iterable[Link] | None = None) -> None:
    """Refuse interfaces with BIG TCP (batches over 64 KiB, too large for a verdict), and VRF devices.

    Loopback is never queued and may have any size. Without `links` those of this network namespace are
    read, in well under a millisecond for a few; a setting can change later, with an event of `Routes`.
    Raises OperatorError.
    """
    for link in read_links() if links is None else links:
        large = [name for name, size in link.sizes.items() if size > LEGACY_MAX_SIZE]
        if large and not link.loopback:
            settings = " ".join(f"{name} {LEGACY_MAX_SIZE}" for name in large)
            raise OperatorError(
                f"interface {link.name} uses BIG TCP ({large[0]} {link.sizes[large[0]]}), which cannot be "
                f"encrypted: ip link set dev {link.name} {settings}"
            )
        if link.kind == "vrf":
            raise OperatorError(
                f"interface {link.name} is a VRF device, whose connections cannot be followed: run the node "
                f"in a network namespace instead, or remove it: ip link delete {link.name}"
            )


def read_links() -> list[Link]:
    """The interfaces of this network namespace. Raises OperatorError."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        return [_decode(body) for body in netlink.dump(_RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0))]
    except OSError as error:
        raise OperatorError(f"network interfaces cannot be listed: {error.strerror}: run as root") from None
    finally:
        netlink.close()


def read_addresses() -> set[bytes]:
    """The addresses of this network namespace, packed. Raises OperatorError."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        bodies = netlink.dump(_RTM_GETADDR, bytes(_IFADDRMSG_SIZE))
    except OSError as error:
        raise OperatorError(f"addresses cannot be listed: {error.strerror}: run as root") from None
    finally:
        netlink.close()
    # IFA_LOCAL is missing for IPv6, where IFA_ADDRESS is the own one; on point-to-point links that is the peer's.
    found = (dict(attributes(body, _IFADDRMSG_SIZE)) for body in bodies)
    return {one.get(_IFA_LOCAL) or one[_IFA_ADDRESS] for one in found if _IFA_ADDRESS in one or _IFA_LOCAL in one}


def alias(index: int = _LOOPBACK) -> str:
    """The alias of an interface, lo's if none is named; "" if it has none. Raises OSError."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        body = netlink.request(_RTM_GETLINK, 0, _LINK.pack(0, 0, index, 0, 0))
    finally:
        netlink.close()
    return _text(dict(attributes(body, _LINK.size)).get(_IFLA_IFALIAS, b""))


def set_alias(text: str, index: int = _LOOPBACK) -> None:
    """Give an interface an alias, or none (""). Raises OSError."""
    netlink = Netlink(NETLINK_ROUTE)
    try:
        value = text.encode()
        attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), _IFLA_IFALIAS) + value
        netlink.request(_RTM_SETLINK, NLM_F_ACK, _LINK.pack(0, 0, index, 0, 0) + attribute)
    finally:
        netlink.close()


def _decode(body: bytes) -> Link:
    flags = _LINK.unpack_from(body)[3]
    name, kind, sizes, mtu = "", "", {}, 0
    for number, value in attributes(body, _LINK.size):
        if number == _IFLA_IFNAME:
            name = _text(value)
        elif number == _IFLA_LINKINFO:
            kind = next((_text(inner) for key, inner in attributes(value) if key == _IFLA_INFO_KIND), "")
        elif number == _IFLA_MTU:
            mtu = _U32.unpack_from(value)[0]
        elif number in _SIZES:
            sizes[_SIZES[number]] = _U32.unpack_from(value)[0]
    return Link(name, kind, bool(flags & _IFF_LOOPBACK), sizes, mtu, bool(flags & _IFF_UP))


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
