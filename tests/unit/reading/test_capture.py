"""Capture files: formats, link layers, headers, and what is no capture."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import PcapNgWriter, PcapWriter

from mcencrypt.errors import OperatorError
from mcencrypt.reading.report import decode
from tests.helpers.captures import (
    MACS,
    Tcp,
    only,
    read,
    sealed,
    written,
)


def test_a_batch_whose_ip_length_is_left_to_the_nic_is_read(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([700])[0])[IP].len = 0
    report = read(tmp_path, tcp.packets)
    assert report.clean and only(report).client.records == 1


def test_other_link_layers_and_headers(tmp_path: Path) -> None:
    expected = 4
    packets = Tcp().exchange().packets
    tagged = [Ether(src=MACS[0], dst=MACS[1]) / Dot1Q(vlan=7) / packet[IP] for packet in packets]
    assert only(read(tmp_path, tagged)).client.records == expected
    raw = str(tmp_path / "raw.pcap")
    with PcapWriter(raw, linktype=101) as writer:
        for packet in packets:
            writer.write(bytes(packet[IP]))
    assert only(decode(raw)).client.records == expected
    cooked = str(tmp_path / "cooked.pcap")
    with PcapWriter(cooked, linktype=113) as writer:
        for packet in packets:
            writer.write(bytes(14) + b"\x08\x00" + bytes(packet[IP]))
    assert only(decode(cooked)).client.records == expected
    longer = []
    for packet in Tcp(version=6).exchange().packets:
        inner = packet[IPv6].payload
        packet[IPv6].remove_payload()
        longer.append(packet / IPv6ExtHdrDestOpt() / inner)
    assert only(read(tmp_path, longer)).client.records == expected
    padded = [Ether(bytes(packet).ljust(64, b"\0")) for packet in packets]
    assert read(tmp_path, padded).clean


def test_an_unknown_link_layer_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "radio.pcap")
    with PcapWriter(path, linktype=127) as writer:
        writer.write(bytes(100))
    with pytest.raises(OperatorError, match="unknown link type 127"):
        decode(path)


def test_pcapng_gzip_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packets = Tcp().exchange().packets
    modern = str(tmp_path / "wire.pcapng")
    with PcapNgWriter(modern) as writer:
        for packet in packets:
            writer.write(packet)
    assert decode(modern).clean
    classic = Path(written(tmp_path, packets))
    squeezed = tmp_path / "wire.pcap.gz"
    squeezed.write_bytes(gzip.compress(classic.read_bytes()))
    assert decode(str(squeezed)).clean
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(classic.read_bytes())))
    assert decode("-").clean


def test_without_scapy_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scapy.utils", None)
    with pytest.raises(OperatorError, match="scapy, which is not installed: pip install scapy"):
        read(tmp_path, Tcp().exchange().packets)


@pytest.mark.parametrize("content", [b"", b"not a capture at all", b"\xd4\xc3\xb2\xa1"])
def test_what_is_no_capture_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.pcap"
    path.write_bytes(content)
    with pytest.raises(OperatorError, match="is no pcap or pcapng file"):
        decode(str(path))
    with pytest.raises(OperatorError, match=r"cannot read .*: No such file"):
        decode(str(tmp_path / "absent.pcap"))
