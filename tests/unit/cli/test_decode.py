"""``mcencrypt decode``."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.commands import fails, run


def test_decode_says_what_it_found_and_check_judges(tmp_path: Path) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.utils import wrpcap

    ends = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.1", dst="10.0.0.2")
    header = b"mcen\1\1" + bytes.fromhex("1a2b3c4d5e6f7081")
    record = bytes([0x80, 5, 0, 0, 0, 0]) + bytes(21)
    packets = [
        ends / TCP(sport=40000, dport=7331, seq=10, flags="S") / Raw(header.ljust(138, b"x")),
        ends / TCP(sport=40000, dport=7331, seq=149, flags="PA") / Raw(record),
    ]
    good, bad = str(tmp_path / "good.pcap"), str(tmp_path / "bad.pcap")
    wrpcap(good, packets)
    message = b"\xf4\xfe\xf8\xe1version".ljust(40, b"\0")
    wrpcap(bad, [ends / TCP(sport=40001, dport=7331, seq=1, flags="PA") / Raw(message), *packets])
    result = run("decode", "--check", "--records", good)
    assert result.exit_code == 0, result.output
    assert "handshake message 1, network key 1a2b3c4d5e6f7081, 138 B" in result.stdout
    assert "#1 10.0.0.1:40000  record  wire 138  plain 0  length 5  FINAL" in result.stdout
    assert result.stdout.splitlines()[-1] == "verdict: encrypted: every data byte is handshake or record"
    result = run("decode", bad)
    assert result.exit_code == 0 and "verdict: of 2 connections: 1 PLAINTEXT" in result.stdout
    assert "MultiChain/Bitcoin message 'version'" in result.stdout
    assert run("decode", "--check", bad).exit_code == 1
    assert run("decode", "--check", "--port", "9999", good).exit_code == 1
    fails(run("decode", str(tmp_path / "absent")), 1, "No such file")
