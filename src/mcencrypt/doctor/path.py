"""Single packets that ask a path: does it carry data in a SYN, and packets of full size.

Neither needs a daemon, nor mcencrypt at the far end; both need CAP_NET_RAW.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import time
from collections.abc import Collection
from random import SystemRandom

from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.packet import ACK, MASK32, RST, SYN, Segment, bare, rebuild

#: Seconds that an answer may take.
PATIENCE = 1.0
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PROBE = 10, 23, 3
_IPV6_HDRINCL = 36
_PORTS = struct.Struct("!HHIIBB")
_random = SystemRandom()


def echo(address: str, size: int) -> float | None:
    """Ping with an IP packet of `size` bytes that may not be fragmented: seconds until its answer, None without one.

    Raises OSError without CAP_NET_RAW, or without a route.
    """
    six = ":" in address
    family = socket.AF_INET6 if six else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP) as pinging:
        # With PROBE, a path MTU that was learned before does not count.
        if six:
            pinging.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PROBE)
        else:
            pinging.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PROBE)
        name = os.urandom(8)
        body = name + bytes(max(size - (48 if six else 28) - len(name), 0))
        message = bytearray(struct.pack("!BBHHH", 128 if six else 8, 0, 0, _random.getrandbits(16), 1) + body)
        if not six:
            message[2:4] = _checksum(message).to_bytes(2, "big")
        begun = time.monotonic()
        try:
            pinging.sendto(message, (address, 0))
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                return None
            raise
        while (left := begun + PATIENCE - time.monotonic()) > 0:
            if not select.select([pinging], [], [], left)[0]:
                break
            answer = pinging.recv(65536)
            start = 0 if six else (answer[0] & 15) * 4
            if answer[start] == (129 if six else 0) and answer[start + 8 : start + 16] == name:
                return time.monotonic() - begun
    return None


def syn_data(address: str, avoid: Collection[int], attempts: int = 3) -> str:
    """Send SYNs with as many bytes of data as a handshake has to ports on which nothing listens, most likely.

    The reset that comes back acknowledges the data, or does not, where something on the path has taken it off
    (RFC 9293, section 3.10.7.1). Returns "passes", "stripped", or "" if no reset came. `avoid`: the P2P ports, whose
    SYNs daemons change.

    Raises OSError without CAP_NET_RAW, or without a route.
    """
    for _ in range(attempts):
        port = _random.choice([port for port in range(40000, 60000) if port not in avoid])
        found = _syn_once(address, port, avoid)
        if found:
            return found
    return ""


def _syn_once(address: str, port: int, avoid: Collection[int]) -> str:
    six = ":" in address
    family = socket.AF_INET6 if six else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as asking,
        socket.socket(family, socket.SOCK_STREAM) as reserved,
        socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_TCP) as answers,
        socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sending,
    ):
        asking.connect((address, port))
        source = asking.getsockname()[0]
        reserved.bind((source, 0))
        own = reserved.getsockname()[1]
        if own in avoid:
            return ""
        if six:
            sending.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        packed = socket.inet_pton(family, source) + socket.inet_pton(family, address)
        isn = _random.getrandbits(32)
        blank = Segment(bare(packed + own.to_bytes(2, "big") + port.to_bytes(2, "big"), isn, 0, SYN, 65535))
        sending.sendto(rebuild(blank, isn, 0, os.urandom(HELLO_LENGTH)), (address, 0))
        end = time.monotonic() + PATIENCE
        while (left := end - time.monotonic()) > 0:
            if not select.select([answers], [], [], left)[0]:
                break
            packet, sender = answers.recvfrom(65536)
            start = 0 if six else (packet[0] & 15) * 4
            if sender[0].partition("%")[0] != address or len(packet) < start + 20:
                continue
            sport, dport, _, ack, _, flags = _PORTS.unpack_from(packet, start)
            if (sport, dport) != (port, own):
                continue
            if not flags & RST or not flags & ACK:
                return ""  # something listens there; our kernel resets it
            return {HELLO_LENGTH: "passes", 0: "stripped"}.get(ack - isn - 1 & MASK32, "")
    return ""


def _checksum(data: bytes | bytearray) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = bytes(data) + bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
