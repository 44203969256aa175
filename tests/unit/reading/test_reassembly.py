"""One direction put in order: repetitions, holes, and what came of them."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest
from scapy.layers.inet import IP
from scapy.utils import PcapWriter

from mcencrypt.reading.conversations import Verdict
from mcencrypt.reading.reassembly import MAX_PATIENCE, Half, Run
from mcencrypt.reading.report import decode
from mcencrypt.reading.streamparser import Finding, Piece
from tests.helpers.captures import (
    Tcp,
    only,
    read,
    sealed,
)


def test_segmentation_order_and_repetition_do_not_matter(tmp_path: Path) -> None:
    tcp = Tcp(isn=(0xFFFFFF00, 5)).connect()
    stream = b"".join(sealed([1000, 32767, 1, 500] * 3))
    start, source = tcp.next[0], random.Random(7)
    cuts = sorted({0, len(stream), *(source.randrange(len(stream)) for _ in range(60))})
    pieces = [tcp.packet(0, start + a, "A", stream[a:b]) for a, b in pairwise(cuts)]
    again = [a for a in cuts[::5] if a + 3000 < len(stream)]
    pieces += [tcp.packet(0, start + a, "A", stream[a : a + 3000]) for a in again]
    source.shuffle(pieces)
    report = read(tmp_path, [*tcp.packets, *pieces, *Tcp(port=40001).exchange().packets])
    first = report.conversations[0]
    assert report.clean and first.client.records == 12 and first.client.bytes == len(stream)
    assert first.client.plain == 3 * (1000 + 32767 + 1 + 500)
    assert not first.client.altered


def test_batches_of_65535_bytes_are_read_whole(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    records = b"".join(sealed([1380] * 46 + [837]))
    batch = tcp.send(0, records)
    assert len(batch) == 14 + 40 + len(records) and len(records) > 65000
    del batch[IP].len
    report = read(tmp_path, tcp.packets)
    runs = [Run(138, 0, 46, 1380, False), Run(64630, 63480, 1, 837, False)]
    assert report.clean and only(report).client.listed == runs


def test_a_retransmission_with_other_contents_is_not_clean(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    start = tcp.next[0]
    record = sealed([32])[0]
    tcp.send(0, record)
    tcp.packets.append(tcp.packet(0, start, "A", record[:-1] + bytes([record[-1] ^ 1])))
    report = read(tmp_path, tcp.packets)
    assert not report.clean and only(report).client.altered == 54
    assert "10.7.0.1:40000 repeated 54 bytes with other contents" in only(report).notes


def test_a_gap_that_was_acknowledged_is_said_and_the_records_behind_it_are_found(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    for number, record in enumerate(sealed([100] * 10)):
        tcp.send(0, record, captured=number not in (3, 4))
    tcp.send(1, b"", "A")
    report = read(tmp_path, tcp.packets)
    client = only(report).client
    assert only(report).verdict is Verdict.MISSING and not report.clean
    assert client.found == {**dict.fromkeys(Finding, 0), Finding.GAP: 244}
    assert client.records == 8 and client.listed[1] == Piece(Finding.GAP, 138 + 366, 244, "")
    assert client.listed[2] == Run(138 + 610, 500, 5, 100, False)


def test_a_gap_inside_a_record_keeps_the_place(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    long, short = sealed([3000, 100])
    tcp.send(0, long[:1000])
    tcp.send(0, long[1000:2000], captured=False)
    tcp.send(0, long[2000:] + short)
    client = only(read(tmp_path, tcp.packets)).client
    assert client.records == 1 and client.found[Finding.UNKNOWN] == 0
    assert client.found[Finding.GAP] == 1000 and client.found[Finding.INCOMPLETE] == 2022


def test_a_long_gap_is_given_up_once_it_was_acknowledged(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    records = sealed([30000] * (2 * MAX_PATIENCE // 30000 + 2))
    tcp.send(0, records[0], captured=False)
    for record in records[1:]:
        tcp.send(0, record)
        tcp.send(1, b"", "A")
    client = only(read(tmp_path, tcp.packets)).client
    assert client.records == len(records) - 1 and client.found[Finding.GAP] == 30022


def test_what_the_capture_missed_at_the_end_is_a_gap(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([100])[0])
    tcp.send(0, sealed([100], wire=260, plain=100)[0], captured=False)
    tcp.send(1, b"", "A")
    report = read(tmp_path, tcp.packets)
    assert only(report).client.found[Finding.GAP] == 121 and not report.clean


def test_packets_cut_by_the_snapshot_length_are_gaps(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, b"".join(sealed([1000, 100])))
    path = str(tmp_path / "short.pcap")
    with PcapWriter(path, linktype=1) as writer:
        writer.write_header(None)
        for packet in tcp.packets:
            raw = bytes(packet)
            writer.write_packet(raw[:300], wirelen=len(raw))
        raw = bytes(tcp.send(1, b"", "A"))
        writer.write_packet(raw, wirelen=len(raw))
    report = decode(path)
    assert not report.clean and only(report).client.found[Finding.GAP] > 800


HELLO_IN_STREAM = b"mcen\1\3" + bytes(132)
RECORD = b"\0\5\0\0\0\0" + bytes(5 + 16)


@pytest.mark.parametrize("size", [1, 7, 138, 1000])
def test_a_handshake_message_may_stand_at_the_beginning_of_the_stream(size: int) -> None:
    half = Half("a", None)
    half.open(1000, b"")
    stream = HELLO_IN_STREAM + RECORD
    for at in range(0, len(stream), size):
        half.data(0, stream[at : at + size], 1001 + at)
    half.close()
    assert half.greeting is not None and half.greeting.kind == 3
    assert (half.records, half.plain, half.foreign) == (1, 5, 0)
    assert half.listed[0].wire == 138


@pytest.mark.parametrize(
    "stream", [b"mce", b"mcen\1\3" + bytes(100), b"mcen\1\1" + bytes(132) + RECORD, b"GET / HTTP/1.1\r\n\r\n" * 20]
)
def test_what_only_begins_like_one_is_not_taken_for_it(stream: bytes) -> None:
    half = Half("a", None)
    half.open(1000, b"")
    half.data(0, stream, 1001)
    half.close()
    assert half.greeting is None and half.records == 0
    assert half.foreign == len(stream)
