"""The report on a capture file."""

from __future__ import annotations

from pathlib import Path

from scapy.layers.inet import IP

from mcencrypt.reading.report import decode
from tests.helpers.captures import (
    PORT,
    Tcp,
    message,
    read,
    written,
)


def test_each_record_is_reported_when_asked_for(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    path = written(tmp_path, Tcp().exchange().packets)
    decode(path, None, lambda _, half, record: seen.append((half.name, record.wire)))
    assert [wire for name, wire in seen if name.startswith("10.7.0.1")] == [138, 299, 460, 514]


def test_connections_are_chosen_by_port(tmp_path: Path) -> None:
    plain = Tcp(port=5000)
    plain.ports = (5000, 8332)
    plain.connect(encrypted=False).send(0, message("version"))
    packets = [*Tcp().exchange().packets, *plain.packets]
    assert not read(tmp_path, packets).clean
    assert read(tmp_path, packets, [PORT]).clean
    assert not read(tmp_path, packets, [8332]).clean
    assert not read(tmp_path, packets, [9999]).clean


def test_fragments_and_damage_spoil_the_verdict(tmp_path: Path) -> None:
    packets = Tcp().exchange().packets
    fragment = packets[3].copy()
    fragment[IP].flags = "MF"
    report = read(tmp_path, [*packets, fragment])
    assert report.oddities == {"IP fragment of a TCP segment": 1} and not report.clean
