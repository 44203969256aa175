"""Link layers, tags, labels and tunnels around the packets of a capture."""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, LLC, SNAP, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw
from scapy.utils import PcapWriter

from mcencrypt.cli.decode import summary
from mcencrypt.reading.capture import read_segment
from mcencrypt.reading.conversations import Verdict
from mcencrypt.reading.frames import network_packet
from mcencrypt.reading.report import Report, decode
from tests.helpers.captures import MACS, Tcp, message, only, read

OUTER = Ether(src=MACS[0], dst=MACS[1])
TUNNEL = OUTER / IP(src="192.0.2.1", dst="192.0.2.2")
SIX = OUTER / IPv6(src="2001:db8::1", dst="2001:db8::2")

#: How a captured frame is made of an IP packet, in which link type.
WRAPPERS: dict[str, tuple[int, Callable[[Packet], bytes]]] = {
    "Ethernet": (1, lambda ip: bytes(OUTER / ip)),
    "VLAN": (1, lambda ip: bytes(OUTER / Dot1Q(vlan=7) / ip)),
    "two VLANs": (1, lambda ip: bytes(OUTER / Dot1AD(vlan=9) / Dot1Q(vlan=7) / ip)),
    "VLAN in a cooked capture": (113, lambda ip: bytes(14) + b"\x81\x00" + bytes(Dot1Q(vlan=7) / ip)),
    "VLAN in a cooked capture, version 2": (276, lambda ip: b"\x81\x00" + bytes(18) + bytes(Dot1Q(vlan=7) / ip)),
    "802.2 SNAP": (1, lambda ip: bytes(Dot3(src=MACS[0], dst=MACS[1]) / LLC() / SNAP(code=0x0800) / ip)),
    "MPLS": (1, lambda ip: bytes(OUTER / MPLS(label=3, s=0) / MPLS(label=4, s=1) / ip)),
    "PPPoE": (1, lambda ip: bytes(OUTER / PPPoE(sessionid=1) / PPP(proto=0x21) / ip)),
    "PPP": (9, lambda ip: b"\xff\x03\x00\x21" + bytes(ip)),
    "Cisco HDLC": (104, lambda ip: b"\x0f\x00\x08\x00" + bytes(ip)),
    "IP in IP": (1, lambda ip: bytes(TUNNEL / ip)),
    "IP in IPv6": (1, lambda ip: bytes(SIX / ip)),
    "GRE": (1, lambda ip: bytes(TUNNEL / GRE(proto=0x0800) / ip)),
    "GRE with a key": (1, lambda ip: bytes(TUNNEL / GRE(proto=0x0800, key_present=1, key=5, seqnum_present=1) / ip)),
    "GRE with Ethernet": (1, lambda ip: bytes(TUNNEL / GRE(proto=0x6558) / OUTER / ip)),
    "VXLAN": (1, lambda ip: bytes(TUNNEL / UDP(sport=1, dport=4789) / VXLAN(vni=3) / OUTER / ip)),
    "VXLAN of old Linux": (1, lambda ip: bytes(TUNNEL / UDP(sport=1, dport=8472) / VXLAN(vni=3) / OUTER / ip)),
    "Geneve": (1, lambda ip: bytes(TUNNEL / UDP(sport=1, dport=6081) / GENEVE(proto=0x6558) / OUTER / ip)),
    "a tunnel in a tunnel": (1, lambda ip: bytes(TUNNEL / GRE(proto=0x0800) / TUNNEL[IP] / ip)),
    "an authentication header": (1, lambda ip: _authenticated(ip)),
}


def _authenticated(ip: Packet) -> bytes:
    raw = bytes(ip)
    header = raw[:2] + struct.pack("!H", len(raw) + 24) + raw[4:9] + bytes([51]) + raw[10:20]
    return bytes(OUTER)[:12] + b"\x08\x00" + header + bytes([6, 4]) + bytes(22) + raw[20:]


def written(folder: Path, frames: list[bytes], link: int = 1, snap: int = 262144) -> str:
    path = str(folder / "wire.pcap")
    with PcapWriter(path, linktype=link) as writer:
        writer.write_header(None)
        for number, frame in enumerate(frames):
            kept = frame[:snap]
            writer._write_packet(kept, link, sec=number, usec=0, caplen=len(kept), wirelen=len(frame))
    return path


def plaintext(version: int = 4) -> list[Packet]:
    tcp = Tcp(version=version).connect(encrypted=False)
    tcp.send(0, message("version", bytes(100)))
    tcp.send(1, message("inv", bytes(300)))
    return tcp.packets


def told(report: Report) -> str:
    return summary(report)[-1]


@pytest.mark.parametrize("name", WRAPPERS)
def test_what_is_in_plaintext_is_seen_in_whatever_it_is_wrapped(tmp_path: Path, name: str) -> None:
    link, wrap = WRAPPERS[name]
    report = decode(written(tmp_path, [wrap(packet[IP]) for packet in plaintext()], link))
    assert only(report).verdict is Verdict.PLAINTEXT and not report.oddities
    encrypted = decode(written(tmp_path, [wrap(packet[IP]) for packet in Tcp().exchange().packets], link))
    assert encrypted.clean and only(encrypted).client.records == 4


@pytest.mark.parametrize(
    "strange",
    [
        Raw(bytes(9)),
        Ether(src=MACS[0], dst=MACS[1], type=0x88E5) / bytes(60),  # MACsec
        Ether(src=MACS[0], dst=MACS[1], type=0x1234) / bytes(60),
        OUTER / Dot1Q(vlan=1, type=0x88E5) / bytes(60),
        Dot3(src=MACS[0], dst=MACS[1]) / LLC(dsap=6, ssap=6, ctrl=3) / bytes(60),
        OUTER / MPLS(label=3, s=1) / (b"\x77" + bytes(60)),
        OUTER / PPPoE(sessionid=1) / PPP(proto=0x002B) / bytes(60),
        TUNNEL / GRE(proto=0x9999) / bytes(60),
    ],
    ids=["no whole header", "MACsec", "unknown", "MACsec in a VLAN", "LLC", "MPLS", "PPP", "GRE"],
)
def test_a_frame_that_could_carry_ip_and_is_not_read_keeps_a_file_from_being_clean(
    tmp_path: Path, strange: Packet
) -> None:
    report = read(tmp_path, [*Tcp().exchange().packets, strange])
    assert only(report).verdict is Verdict.ENCRYPTED and sum(report.oddities.values()) == 1
    assert not report.clean and told(report) == "verdict: incomplete: some packets could not be read"


def test_frames_that_carry_no_ip_are_passed_over(tmp_path: Path) -> None:
    others: list[Packet] = [
        OUTER / ARP(),
        Ether(src=MACS[0], dst="01:80:c2:00:00:0e", type=0x88CC) / bytes(60),
        Dot3(src=MACS[0], dst="01:80:c2:00:00:00") / LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP(),
        TUNNEL / UDP(sport=53, dport=53) / bytes(40),
        TUNNEL / UDP(sport=4789, dport=4789) / bytes(3),
        OUTER / PPPoE(sessionid=1) / PPP(proto=0xC021) / bytes(20),
    ]
    assert read(tmp_path, [*Tcp().exchange().packets, *others]).clean


def test_a_fragment_of_a_tunnel_is_counted(tmp_path: Path) -> None:
    piece = OUTER / IP(src="192.0.2.1", dst="192.0.2.2", proto=47, flags="MF") / bytes(40)
    assert read(tmp_path, [*Tcp().exchange().packets, piece]).oddities == {"IP fragment of a tunnel": 1}


def test_tunnels_without_end_are_not_followed() -> None:
    packet: Packet = IP(src="192.0.2.1", dst="192.0.2.2")
    for _ in range(40):
        packet = IP(src="192.0.2.1", dst="192.0.2.2") / packet
    oddities: Counter[str] = Counter()
    assert read_segment(bytes(packet), 0, oddities) is None and sum(oddities.values()) == 1
    labels = b"".join(bytes(MPLS(s=0)) for _ in range(400))
    assert network_packet(bytes(OUTER)[:12] + b"\x88\x47" + labels, 1, oddities) is None


@pytest.mark.parametrize("snap", [60, 68, 96, 128, 200])
@pytest.mark.parametrize("version", [4, 6])
def test_a_capture_that_was_cut_is_incomplete_and_nothing_else(tmp_path: Path, snap: int, version: int) -> None:
    frames = [bytes(packet) for packet in Tcp(version=version).exchange().packets]
    for part in (frames, frames[3:]):
        report = decode(written(tmp_path, part, snap=snap))
        assert not report.clean and told(report).startswith("verdict: incomplete:"), summary(report)
        assert all(one.verdict in (Verdict.CUT, Verdict.EMPTY) for one in report.conversations)
    if snap > 86:
        assert "use `tcpdump -s 0`" in told(report)
        shown = decode(written(tmp_path, [bytes(packet) for packet in plaintext(version)], snap=snap))
        assert only(shown).verdict is Verdict.PLAINTEXT, "what is seen is seen"


def test_a_foreign_link_type_in_one_interface_loses_that_alone(tmp_path: Path) -> None:
    def block(kind: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = struct.pack("<I", 12 + len(body))
        return struct.pack("<I", kind) + size + body + size

    def interface(link: int) -> bytes:
        return block(1, struct.pack("<HHI", link, 0, 0))

    def packet(number: int, frame: bytes) -> bytes:
        return block(6, struct.pack("<IIIII", number, 0, 0, len(frame), len(frame)) + frame)

    content = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + interface(127) + interface(1)
    content += packet(0, bytes(80)) + b"".join(packet(1, bytes(one)) for one in Tcp().exchange().packets)
    path = tmp_path / "two.pcapng"
    path.write_bytes(content)
    report = decode(str(path))
    assert only(report).verdict is Verdict.ENCRYPTED and report.oddities == {"frame of link type 127": 1}
    assert not report.clean


def test_scapy_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    decode(written(tmp_path, [bytes(60)]))
    for name in ("scapy", "scapy.runtime", "scapy.loading", "scapy.interactive"):
        logging.getLogger(name).warning("something that it has found")
    assert capfd.readouterr().err == ""
