"""Packets of our own: what did not fit a verdict, and resets and ICMP messages for the local socket.

They leave through raw sockets, and so pass the OUTPUT chain and come back to our queue.  There they are let through
because they are, byte for byte, what was sent a moment ago; nothing else about a packet, and no mark that others
could set, opens that door.  What goes toward the local socket travels on lo, which no rule of ours sees.

They leave as the connection's own packets do.  A raw socket routes by the destination alone, unless it is told the
rest: source address, mark, class, user, and the device that all of this together with the ports leads to.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from struct import Struct
from typing import Final

from mcencrypt.core.addresses import is_link_local, reversed_key
from mcencrypt.core.checksum import ipv4_header_checksum
from mcencrypt.core.packet import Buffer, source_first
from mcencrypt.core.verdict import Injection
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.handling import ANYHOW, Handling, Handlings

log = logging.getLogger(__name__)

_IP_PKTINFO: Final = 8
_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_HDRINCL: Final = 36
_IPV6_FREEBIND: Final = 78
_SO_SNDBUFFORCE: Final = 32
_PROBE: Final = 3  # IP_PMTUDISC_PROBE: the interface's MTU counts, not the route's

_in_pktinfo: Final = Struct("=4x4s4x").pack  # source address
_in6_pktinfo: Final = Struct("=16sI").pack
_unsigned: Final = Struct("=I").pack

#: The bits of a traffic class that choose how a packet is treated; the others are ECN's (RFC 3168), and its own.
_DSCP: Final = 0xFC

#: What no socket is like: all is to be set anew.
_NOBODY: Final = Handling(-1, -1, -1, -1, -1)

#: Bytes that may be on their way from a raw socket, as the kernel counts them.
SEND_BUFFER: Final = 8 << 20
#: Packets that may be on their way from the raw socket to the queue.
MAX_UNDERWAY: Final = 4096


class Injector:
    """Raw sockets of both families in the network namespace of the calling process."""

    def __init__(self, handlings: Handlings) -> None:
        """Raises OperatorError without CAP_NET_RAW."""
        self._handlings = handlings
        #: Packets on their way from the raw socket to the queue, and how many of each.
        self.underway: dict[bytes, int] = {}
        #: Packets that the kernel took, and did not take.
        self.sent = self.failed = 0
        try:
            self._out, self._in = {4: _ipv4_socket()}, {4: _ipv4_socket()}
        except OSError as problem:
            raise OperatorError(f"cannot open a raw socket: {problem.strerror}; run as root (CAP_NET_RAW)") from None
        with contextlib.suppress(OSError):  # a kernel without IPv6
            self._out[6], self._in[6] = _ipv6_socket(), _ipv6_socket()

    def send(self, injection: Injection, now: float) -> None:
        """Send one packet; `now` in seconds, monotonic.  A failure is counted: to TCP it is a loss."""
        packet, outward = injection.packet, injection.toward == "network"
        key = source_first(packet) if outward else _inward_key(packet)
        handling = self._handlings.of(key, now)
        if outward:
            packet = _with_class(packet, handling.traffic_class)
        if packet[0] >> 4 == 4 and not (packet[4] or packet[5]):
            packet = _with_identification(packet)  # else the kernel would choose one
        if outward:
            if len(self.underway) >= MAX_UNDERWAY:
                del self.underway[next(iter(self.underway))]
            self.underway[packet] = self.underway.get(packet, 0) + 1
        try:
            if outward:
                self._send_out(packet, handling)
            else:
                self._send_in(packet, handling)
            self.sent += 1
        except OSError as problem:
            self.failed += 1
            if outward:
                self.is_ours(packet)  # it will not come back; one of the same bytes that is underway will
            log.debug("a packet could not be injected: %s", problem)

    def _send_out(self, packet: bytes, handling: Handling) -> None:
        try:
            self._route(packet, handling)
        except OSError as problem:
            # No route by that device, where our own packet found one: by a rule that goes by ports.
            if not handling.interface or problem.errno not in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENXIO):
                raise
            self._route(packet, handling._replace(interface=0))

    def _route(self, packet: bytes, handling: Handling) -> None:
        version, raw = packet[0] >> 4, _of_version(self._out, packet)
        raw.treat_as(handling._replace(traffic_class=_class_of(packet) & _DSCP))
        # Routing rules go by the source address, which is not taken from the packet.
        if version == 4:
            information = [(socket.IPPROTO_IP, _IP_PKTINFO, _in_pktinfo(packet[12:16]))]
            raw.sendmsg([packet], information, 0, (socket.inet_ntop(socket.AF_INET, packet[16:20]), 0))
        else:
            information = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _in6_pktinfo(packet[8:24], handling.interface))]
            raw.sendmsg([packet], information, 0, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0, 0, 0))

    def _send_in(self, packet: bytes, handling: Handling) -> None:
        """The address says it all, but for one that every link has, and then its scope does."""
        raw = _of_version(self._in, packet)
        if packet[0] >> 4 == 4:
            raw.sendto(packet, (socket.inet_ntop(socket.AF_INET, packet[16:20]), 0))
        else:
            own = packet[24:40]
            scope = handling.interface if is_link_local(own) else 0
            raw.sendto(packet, (socket.inet_ntop(socket.AF_INET6, own), 0, 0, scope))

    def is_ours(self, packet: Buffer) -> bool:
        """Whether this outgoing packet is one that `send` has just sent; each is let through once."""
        if not self.underway:
            return False
        name = bytes(packet)
        count = self.underway.get(name)
        if count is None:
            return False
        if count > 1:
            self.underway[name] = count - 1
        else:
            del self.underway[name]
        return True

    def close(self) -> None:
        for one in (*self._out.values(), *self._in.values()):
            one.close()


class _RawSocket(socket.socket):
    """A raw socket that can pass for another in what its packets are routed and queued by."""

    def __init__(self, family: int) -> None:
        super().__init__(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self.setblocking(False)
        # What waits in the queue for its verdict counts as unsent, and a window that opens sets many packets free.
        self.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, SEND_BUFFER)
        self._as = ANYHOW
        self._may_be_others = True

    def treat_as(self, other: Handling) -> None:
        """What is sent next is to be handled like the packets of `other`. Raises OSError."""
        if other != self._as:
            known, self._as = self._as, _NOBODY
            self._change(known, other)
            self._as = other

    def _change(self, known: Handling, other: Handling) -> None:
        if other.interface != known.interface:
            # More than a device in IP_PKTINFO or IPV6_PKTINFO: IPv6 takes that for a preference.
            name = socket.if_indextoname(other.interface) if other.interface else ""
            self.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
        if other.mark != known.mark:
            self.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _unsigned(other.mark))
        if other.traffic_class != known.traffic_class and self.family == socket.AF_INET6:
            self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, other.traffic_class)
        elif other.traffic_class != known.traffic_class:
            self.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, other.traffic_class)  # and the priority that goes with it
        if (other.priority, other.traffic_class) != (known.priority, known.traffic_class):
            self.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, other.priority)
        if other.uid != known.uid and self._may_be_others:
            try:
                os.fchown(self.fileno(), other.uid, -1)  # routing rules see this user (sockfs_setattr)
            except PermissionError:
                self._may_be_others = False  # no CAP_CHOWN: they see ours


def _ipv4_socket() -> _RawSocket:
    made = _RawSocket(socket.AF_INET)
    made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)
    return made


def _ipv6_socket() -> _RawSocket:
    made = _RawSocket(socket.AF_INET6)
    made.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
    made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
    with contextlib.suppress(OSError):  # before Linux 4.15; then no resets leave from an address that is gone
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
    return made


def _of_version(sockets: dict[int, _RawSocket], packet: bytes) -> _RawSocket:
    """The one for IPv4, or for IPv6. Raises OSError."""
    raw = sockets.get(packet[0] >> 4)
    if raw is None:
        raise OSError(errno.EAFNOSUPPORT, "the kernel has no IPv6")
    return raw


def _inward_key(packet: bytes) -> bytes:
    """The connection, ours first, that a packet toward the socket belongs to: a segment, or ICMP that quotes ours."""
    ipv6 = packet[0] >> 4 == 6
    protocol, header = (packet[6], 40) if ipv6 else (packet[9], (packet[0] & 15) * 4)
    if protocol != socket.IPPROTO_TCP:
        return source_first(packet[header + 8 :])
    return reversed_key(source_first(packet))


def _class_of(packet: bytes) -> int:
    """Type of service (RFC 791) or traffic class (RFC 8200)."""
    return packet[1] if packet[0] >> 4 == 4 else (packet[0] << 4 | packet[1] >> 4) & 0xFF


def _with_class(packet: bytes, traffic_class: int) -> bytes:
    """`packet` in the socket's class if it says nothing about that, as resets do that were made of numbers alone."""
    differentiated = traffic_class & _DSCP
    if not differentiated or _class_of(packet) & _DSCP:
        return packet
    changed = bytearray(packet)
    if packet[0] >> 4 == 6:
        changed[0] |= differentiated >> 4
        changed[1] |= differentiated << 4 & 0xF0
    else:
        changed[1] |= differentiated
        changed[10:12] = ipv4_header_checksum(changed, (changed[0] & 15) * 4).to_bytes(2, "big")
    return bytes(changed)


def _with_identification(packet: bytes) -> bytes:
    changed = bytearray(packet)
    changed[4:6] = b"\0\1"
    changed[10:12] = ipv4_header_checksum(changed, (changed[0] & 15) * 4).to_bytes(2, "big")
    return bytes(changed)
