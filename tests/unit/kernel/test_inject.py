"""What is made of packets before they are injected: their class, and whose they are."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet

from mcencrypt.core.addresses import Ends
from mcencrypt.kernel.inject import _class_of, _inward_key, _with_class, _with_identification

SEGMENT = TCP(sport=50001, dport=7331, flags="R", seq=1)
OUT4, OUT6 = (
    IP(src="10.0.0.1", dst="10.0.0.2", id=1) / SEGMENT,
    IPv6(src="fd00::1", dst="fd00::2", fl=0xABCDE) / SEGMENT,
)


@pytest.mark.parametrize("out", [OUT4, OUT6])
def test_a_packet_without_a_class_gets_that_of_its_connection(out: Packet) -> None:
    changed = _with_class(bytes(out), 0x4B)
    expected = out.copy()
    expected[0].setfieldval("tos" if out is OUT4 else "tc", 0x48)
    assert changed == bytes(expected), "checksum of the header included; the last two bits are ECN's"
    assert _class_of(changed) == 0x48
    assert _with_class(bytes(out), 3) == bytes(out)


@pytest.mark.parametrize("out", [OUT4, OUT6])
def test_a_class_that_a_packet_has_is_left(out: Packet) -> None:
    own = out.copy()
    own[0].setfieldval("tos" if out is OUT4 else "tc", 0x21)
    assert _with_class(bytes(own), 0x48) == bytes(own)
    ecn = out.copy()
    ecn[0].setfieldval("tos" if out is OUT4 else "tc", 0x02)
    assert _class_of(_with_class(bytes(ecn), 0x48)) == 0x4A


def test_an_identification() -> None:
    packet = OUT4.copy()
    packet.id = 0
    assert _with_identification(bytes(packet)) == bytes(OUT4)


@pytest.mark.parametrize(
    "inward",
    [
        IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=7331, dport=50001),
        IP(src="10.9.9.9", dst="10.0.0.1") / ICMP(type=3, code=4, nexthopmtu=1300) / OUT4,
        IPv6(src="fd00::2", dst="fd00::1") / TCP(sport=7331, dport=50001),
        IPv6(src="fd00::9", dst="fd00::1") / ICMPv6PacketTooBig(mtu=1300) / OUT6,
    ],
)
def test_whose_a_packet_toward_the_socket_is(inward: Packet) -> None:
    key = _inward_key(bytes(inward))
    ends = Ends.of(key)
    assert (ends.local_port, ends.remote_port) == (50001, 7331)
    assert ends.local in (b"\x0a\0\0\1", b"\xfd" + bytes(14) + b"\1")
    assert ends.remote in (b"\x0a\0\0\2", b"\xfd" + bytes(14) + b"\2")
