"""What a network can do to packets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from struct import pack

from tests.helpers.packets import FIN, PSH, RST, SYN, WORD, Packet, checksum, parse


@dataclass
class Network:
    """What the wire does, each as a probability per packet, and the room for it."""

    mtu: int = 1500
    loss: float = 0.0
    duplication: float = 0.0
    reordering: float = 0.0
    splitting: float = 0.0
    joining: float = 0.0
    merging: float = 0.0
    corruption: float = 0.0


def merge(first: Packet, second: Packet, exact: bool) -> Packet | None:
    """Two neighbours as one, as GRO does it (`exact`: only if their headers agree) or a middlebox."""
    if not first.payload or not second.payload or (first.flags | second.flags) & (SYN | RST) or first.flags & FIN:
        return None
    if first.seq + len(first.payload) & WORD != second.seq or len(first.payload) + len(second.payload) > 65000:
        return None
    if exact and (first.ack, first.options, first.window) != (second.ack, second.options, second.window):
        return None
    return replace(second, seq=first.seq, payload=first.payload + second.payload, identification=first.identification)


def corrupt(raw: bytes, random: Random) -> bytes:
    """One bit of a data packet flipped, its checksum made right: payload, sequence number, window, PSH, FIN or URG.

    Nobody can authenticate acknowledgements, resets and ports, so those are left alone.
    """
    packet = parse(raw)
    if not packet.payload or packet.flags & SYN:
        return raw
    where = random.random()
    if where < 0.7:
        payload = bytearray(packet.payload)
        at = random.randrange(min(len(payload), 8)) if where < 0.3 else random.randrange(len(payload))
        payload[at] ^= 1 << random.randrange(8)
        return replace(packet, payload=bytes(payload)).build()
    if where < 0.8:
        return replace(packet, seq=packet.seq ^ 1 << random.randrange(32)).build()
    if where < 0.9:
        return replace(packet, window=packet.window ^ 1 << random.randrange(16)).build()
    if where < 0.95:
        return replace(packet, flags=packet.flags ^ (FIN if random.random() < 0.5 else PSH)).build()
    urgent = bytearray(packet.build())
    at = 40 if len(packet.source) == 16 else 20
    urgent[at + 13] |= 32
    urgent[at + 18 : at + 20] = b"\0\1"
    urgent[at + 16 : at + 18] = b"\0\0"
    tcp = bytes(urgent[at:])
    total = checksum(packet.source + packet.destination + pack("!II", len(tcp), 6) + tcp)
    urgent[at + 16 : at + 18] = pack("!H", total)
    return bytes(urgent)
