"""TCP segments as tests write and read them, without a line of mcencrypt's: a witness that can be believed.

`tests/unit/test_packets.py` holds them against scapy.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack, unpack_from

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
WORD = 0xFFFFFFFF


def checksum(data: bytes) -> int:
    """RFC 1071: one's complement arithmetic on 16-bit words is arithmetic modulo 65535."""
    return -(int.from_bytes(data, "big") << 8 * (len(data) & 1)) % 65535


@dataclass(frozen=True)
class Packet:
    """A TCP segment in an IP packet; addresses are packed, their length tells the version."""

    source: bytes
    destination: bytes
    ports: tuple[int, int]
    seq: int
    ack: int
    flags: int
    window: int
    options: bytes = b""
    payload: bytes = b""
    identification: int = 1
    urgent: int = 0

    def build(self) -> bytes:
        tcp = pack("!HHIIBBHHH", *self.ports, self.seq & WORD, self.ack & WORD, (20 + len(self.options)) << 2,
                   self.flags, self.window, 0, self.urgent) + self.options + self.payload  # fmt: skip
        pseudo = self.source + self.destination + pack("!II", len(tcp), 6)
        tcp = tcp[:16] + pack("!H", checksum(pseudo + tcp)) + tcp[18:]
        if len(self.source) == 16:
            return pack("!IHBB", 0x60000000, len(tcp), 6, 64) + self.source + self.destination + tcp
        ip = pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), self.identification & 0xFFFF, 0x4000, 64, 6, 0)
        ip += self.source + self.destination
        return ip[:10] + pack("!H", checksum(ip)) + ip[12:] + tcp

    @property
    def key(self) -> bytes:
        """The connection, in the order of this packet."""
        return self.source + self.destination + pack("!HH", *self.ports)


def parse(raw: bytes) -> Packet:
    """Read a packet, and insist on lengths, checksums and a cleared urgent pointer."""
    if raw[0] >> 4 == 6:
        at, source, destination, identification = 40, raw[8:24], raw[24:40], 1
        assert unpack_from("!H", raw, 4)[0] == len(raw) - 40 and raw[6] == 6
    else:
        at, source, destination = (raw[0] & 15) * 4, raw[12:16], raw[16:20]
        identification = unpack_from("!H", raw, 4)[0]
        assert unpack_from("!H", raw, 2)[0] == len(raw) and raw[9] == 6
        assert checksum(raw[:at]) == 0, "IPv4 header checksum"
    tcp = raw[at:]
    assert checksum(source + destination + pack("!II", len(tcp), 6) + tcp) == 0, "TCP checksum"
    sport, dport, seq, ack, offset, flags, window, _, urgent = unpack_from("!HHIIBBHHH", tcp)
    assert not urgent and not flags & URG
    head = (offset >> 4) * 4
    return Packet(
        source, destination, (sport, dport), seq, ack, flags, window, tcp[20:head], tcp[head:], identification
    )


def options_of(options: bytes) -> dict[int, bytes]:
    """Options by kind."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(options) and options[at]:
        if options[at] == 1:
            at += 1
            continue
        length = options[at + 1]
        assert 2 <= length <= len(options) - at
        found[options[at]] = options[at + 2 : at + length]
        at += length
    return found
