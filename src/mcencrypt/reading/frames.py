"""From a captured frame to the IP packet in it: link layers, tags, labels and tunnels.

A frame that carries no IP (ARP, spanning tree) is passed over. One that could, and whose form is not known here, is
counted: of a file with such frames nobody can say that all of it is encrypted.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

#: Link types of tcpdump.org/linktypes.html.
_ETHERNET, _PPP, _PPP_HDLC, _C_HDLC, _LINUX_SLL, _LINUX_SLL2 = 1, 9, 50, 104, 113, 276
_RAW: Final = {12, 14, 101, 228, 229}
_LOOP: Final = {0, 108}
KNOWN: Final = _RAW | _LOOP | {_ETHERNET, _PPP, _PPP_HDLC, _C_HDLC, _LINUX_SLL, _LINUX_SLL2}

_IP: Final = {0x0800, 0x86DD}
_VLAN: Final = {0x8100, 0x88A8, 0x9100, 0x9200}
_MPLS: Final = {0x8847, 0x8848}
_PPPOE, _BRIDGED = 0x8864, 0x6558
#: Protocols of PPP, IPv4 and IPv6, as EtherTypes.
_OF_PPP: Final = {0x0021: 0x0800, 0x0057: 0x86DD}
#: What carries no IP: ARP, RARP, discovery and control protocols of links, PPPoE's discovery, time, fabric.
_NO_IP: Final = {
    *(0x0806, 0x8035, 0x88CC, 0x8809, 0x888E, 0x8863, 0x88F7, 0x8902, 0x9000, 0x88E1, 0x890D, 0x22F0),
    # of cooked captures: 802.2 frames of whatever kind, CAN, netlink
    *(0x0001, 0x0004, 0x000C, 0x000D),
}
#: Service access points of 802.2 frames without SNAP that carry no IP: spanning tree, IS-IS, NetBIOS, XID.
_NO_IP_LLC: Final = {0x42, 0xFE, 0xF0, 0xE0, 0x00}
_SNAP: Final = b"\xaa\xaa\x03"

# IP protocols that are tunnels, and UDP ports of such.
IP_PACKET, _SIXINFOUR, _GRE, _AUTHENTICATION, _UDP = 4, 41, 47, 51, 17
_TUNNELS: Final = {IP_PACKET, _SIXINFOUR, _GRE, _AUTHENTICATION}
_VXLAN: Final = {4789, 8472}
_GENEVE = 6081
#: Encapsulations within each other; more is no network, but somebody's joke.
_DEEPEST = 8


def network_packet(frame: bytes, link: int, unread: Counter[str]) -> bytes | None:
    """The IP packet in a frame of this link type, None if there is none. `unread` counts frames that could have one."""
    if link == _ETHERNET:
        return _ethernet(frame, unread)
    if link == _LINUX_SLL:
        kind, start = _u16(frame, 14), 16
    elif link == _LINUX_SLL2:
        kind, start = _u16(frame, 0), 20
    elif link in (_PPP, _PPP_HDLC):
        start = 2 if frame[:2] == b"\xff\x03" else 0
        return _ppp(frame[start:], unread)
    elif link == _C_HDLC:
        kind, start = _u16(frame, 2), 4
    elif link in _RAW or link in _LOOP:
        start = 4 if link in _LOOP else 0
        kind = {4: 0x0800, 6: 0x86DD}.get(frame[start] >> 4, 0) if len(frame) > start else 0
    else:
        unread[f"frame of link type {link}"] += 1
        return None
    return carried(kind, frame[start:], unread)


def carried(kind: int, data: bytes, unread: Counter[str]) -> bytes | None:
    """The IP packet in what an EtherType announces: behind VLAN tags, MPLS labels, or PPPoE."""
    for _ in range(_DEEPEST):
        if kind in _IP:
            return data
        if kind in _VLAN:
            kind, data = _u16(data, 2), data[4:]
        elif kind in _MPLS:
            return _labelled(data, unread)
        elif kind == _PPPOE:
            return _ppp(data[6:], unread)
        elif kind == _BRIDGED:
            return _ethernet(data, unread)
        elif kind < 0x0600 and kind not in _NO_IP:
            return _llc(data, unread)
        else:
            break
    if kind not in _NO_IP:
        unread[f"frame of EtherType 0x{kind:04x}"] += 1
    return None


def inside(protocol: int, data: bytes, unread: Counter[str]) -> tuple[int, bytes] | None:
    """What a tunnel carries: (`IP_PACKET`, such a packet).

    Behind an authentication header it is (protocol, data) of the same packet. `protocol` is the IP protocol of `data`.
    None if it is no tunnel that is known, or carries no IP. Encrypted tunnels are none: what is in them nobody reads.
    """
    if protocol in (IP_PACKET, _SIXINFOUR):
        return IP_PACKET, data
    if protocol == _AUTHENTICATION and len(data) >= 12:
        return data[0], data[(data[1] + 2) * 4 :]
    if protocol == _GRE:
        return _packet(_gre(data, unread))
    if protocol == _UDP and len(data) >= 16:
        port, body = _u16(data, 2), data[8:]
        if port in _VXLAN and body[0] & 0x08:
            # with the "next protocol" bit of its successor, VXLAN-GPE, it need not be Ethernet
            kind = {1: 0x0800, 2: 0x86DD}.get(body[3]) if body[0] & 0x04 else None
            return _packet(body[8:] if kind else _ethernet(body[8:], unread))
        if port == _GENEVE and not body[0] >> 6:
            return _packet(carried(_u16(body, 2), body[8 + (body[0] & 63) * 4 :], unread))
    return None


def is_tunnel(protocol: int, data: bytes) -> bool:
    """Whether an IP packet with that protocol, and data behind its header, may carry another packet."""
    return protocol in _TUNNELS or (protocol == _UDP and len(data) >= 4 and _u16(data, 2) in _VXLAN | {_GENEVE})


def _packet(found: bytes | None) -> tuple[int, bytes] | None:
    return None if found is None else (IP_PACKET, found)


def _ethernet(frame: bytes, unread: Counter[str]) -> bytes | None:
    if len(frame) < 14:
        unread["frame without a whole Ethernet header"] += 1
        return None
    return carried(_u16(frame, 12), frame[14:], unread)


def _llc(data: bytes, unread: Counter[str]) -> bytes | None:
    """802.2: only with SNAP there is an EtherType."""
    if data[:3] == _SNAP:
        kind = _u16(data, 6)
        if data[3:6] == bytes(3):
            return carried(kind, data[8:], unread) if kind >= 0x0600 else None
        return None  # of a vendor's own
    if data[:1] and data[0] not in _NO_IP_LLC:
        unread[f"802.2 frame of service access point 0x{data[0]:02x}"] += 1
    return None


def _ppp(data: bytes, unread: Counter[str]) -> bytes | None:
    # the protocol's first byte may be left out if it is 0 (RFC 1661 section 6.5)
    protocol, start = (data[0], 1) if data[:1] and data[0] & 1 else (_u16(data, 0), 2)
    kind = _OF_PPP.get(protocol)
    if kind is None:
        if protocol < 0x8000:  # above are control protocols
            unread[f"PPP frame of protocol 0x{protocol:04x}"] += 1
        return None
    return data[start:] if kind in _IP else None


def _labelled(data: bytes, unread: Counter[str]) -> bytes | None:
    """MPLS: nothing says what is behind the labels, but the first bits of IP do."""
    at = 0
    while at + 4 <= len(data) and not data[at + 2] & 1:
        at += 4
    inner = data[at + 4 :]
    version = inner[0] >> 4 if inner else -1
    if version in (4, 6):
        return inner
    if version == 0:  # a control word, then Ethernet
        return _ethernet(inner[4:], unread)
    unread["MPLS packet that is not IP"] += 1
    return None


def _gre(data: bytes, unread: Counter[str]) -> bytes | None:
    """RFC 2784 and 2890; checksum, key and sequence number are passed over."""
    if len(data) < 4:
        unread["GRE packet without a whole header"] += 1
        return None
    flags, kind = data[0], _u16(data, 2)
    start = 4 + 4 * bool(flags & 0x80) + 4 * bool(flags & 0x20) + 4 * bool(flags & 0x10)
    if data[1] & 7 == 1:  # PPTP's (RFC 2637): PPP, usually compressed or encrypted
        return _ppp(data[start + 4 * bool(data[1] & 0x80) :], unread) if kind == 0x880B else None
    return carried(kind, data[start:], unread)


def _u16(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 2], "big") if len(data) >= at + 2 else 0xFFFF
