"""Packets of our own: what did not fit a verdict, and resets and ICMP messages for the local socket.

They leave through raw sockets, and so pass the OUTPUT chain and come back to our queue.  There they are let through
because they are, byte for byte, what was sent a moment ago; nothing else about a packet, and no mark that others
could set, opens that door.  What goes toward the local socket travels on lo, which no rule of ours sees.
"""

from __future__ import annotations

import logging
import socket
from typing import Final

from mcencrypt.core.checksum import ipv4_header_checksum
from mcencrypt.core.packet import Buffer
from mcencrypt.core.verdict import Injection
from mcencrypt.errors import OperatorError

log = logging.getLogger(__name__)

_IP_MTU_DISCOVER: Final = 10
_IPV6_MTU_DISCOVER: Final = 23
_IPV6_HDRINCL: Final = 36
_PROBE: Final = 3  # IP_PMTUDISC_PROBE: the interface's MTU counts, not the route's

#: Packets that may be on their way from the raw socket to the queue.
MAX_UNDERWAY: Final = 4096


class Injector:
    """Raw sockets of both families in the network namespace of the calling process."""

    def __init__(self) -> None:
        """Raises OperatorError without CAP_NET_RAW."""
        self._underway: dict[bytes, int] = {}
        #: Packets that the kernel did not take.
        self.failed = 0
        try:
            self._ipv4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._ipv4.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)
            self._ipv4.setblocking(False)
        except OSError as problem:
            raise OperatorError(f"cannot open a raw socket: {problem.strerror}; run as root (CAP_NET_RAW)") from None
        self._ipv6: socket.socket | None = None
        try:
            self._ipv6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._ipv6.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
            self._ipv6.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
            self._ipv6.setblocking(False)
        except OSError:
            self._ipv6 = None  # a kernel without IPv6

    def send(self, injection: Injection) -> None:
        """Send one packet.  A failure is counted: to TCP it is a loss."""
        packet = injection.packet
        ipv6 = packet[0] >> 4 == 6
        if not ipv6 and not (packet[4] or packet[5]):
            packet = _with_identification(packet)  # else the kernel would choose one
        if injection.toward == "network":
            if len(self._underway) >= MAX_UNDERWAY:
                del self._underway[next(iter(self._underway))]
            self._underway[packet] = self._underway.get(packet, 0) + 1
        try:
            if not ipv6:
                self._ipv4.sendto(packet, (socket.inet_ntop(socket.AF_INET, packet[16:20]), 0))
            elif self._ipv6 is not None:
                self._ipv6.sendto(packet, (socket.inet_ntop(socket.AF_INET6, packet[24:40]), 0))
        except OSError as problem:
            self.failed += 1
            self._underway.pop(packet, None)
            log.debug("a packet could not be injected: %s", problem)

    def is_ours(self, packet: Buffer) -> bool:
        """Whether this outgoing packet is one that `send` has just sent; each is let through once."""
        if not self._underway:
            return False
        name = bytes(packet)
        count = self._underway.get(name)
        if count is None:
            return False
        if count > 1:
            self._underway[name] = count - 1
        else:
            del self._underway[name]
        return True

    def close(self) -> None:
        self._ipv4.close()
        if self._ipv6 is not None:
            self._ipv6.close()


def _with_identification(packet: bytes) -> bytes:
    changed = bytearray(packet)
    changed[4:6] = b"\0\1"
    changed[10:12] = ipv4_header_checksum(changed, (changed[0] & 15) * 4).to_bytes(2, "big")
    return bytes(changed)
