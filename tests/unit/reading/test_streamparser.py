"""Records, handshake and plaintext told apart in a stream, from its start and from its midst."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mcencrypt.reading.conversations import Verdict
from mcencrypt.reading.reassembly import Run
from mcencrypt.reading.streamparser import SEARCH_LIMIT, Finding, Piece, StreamParser
from tests.helpers.captures import (
    Tcp,
    began_before,
    message,
    only,
    read,
    sealed,
)


def test_plaintext_is_named_with_its_message(tmp_path: Path) -> None:
    tcp = Tcp().connect(encrypted=False)
    tcp.send(0, message("version", bytes(115)))
    tcp.send(1, message("version", bytes(115)) + message("verack"))
    report = read(tmp_path, tcp.packets)
    found = only(report)
    assert found.verdict is Verdict.PLAINTEXT and not report.clean
    assert found.client.listed == [Piece(Finding.PLAINTEXT, 0, 139, "MultiChain/Bitcoin message 'version'")]
    assert found.server.found[Finding.PLAINTEXT] == 139 + 24


def test_other_bytes_without_a_handshake_are_not_called_encrypted(tmp_path: Path) -> None:
    tcp = Tcp().connect(encrypted=False)
    tcp.send(0, b"".join(sealed([100, 100, 100])))
    report = read(tmp_path, tcp.packets)
    assert only(report).verdict is Verdict.FOREIGN and not report.clean
    assert only(report).client.records == 0


def test_plaintext_in_the_midst_of_records_is_found(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([200])[0])
    tcp.send(0, message("ping", bytes(8)))
    tcp.send(0, sealed([200], wire=392, plain=200)[0])
    report = read(tmp_path, tcp.packets)
    assert only(report).verdict is Verdict.PLAINTEXT
    expected = Piece(Finding.PLAINTEXT, 360, 32 + 222, "MultiChain/Bitcoin message 'ping'")
    assert only(report).client.listed[1] == expected


def test_a_record_with_a_wrong_header_is_not_accounted_for(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    records = sealed([100] * 6)
    records[2] = records[2][:5] + b"\x77" + records[2][6:]
    for record in records:
        tcp.send(0, record)
    report = read(tmp_path, tcp.packets)
    client = only(report).client
    assert only(report).verdict is Verdict.PARTLY and not report.clean
    assert client.found[Finding.UNKNOWN] == 122 and client.records == 5
    assert client.listed[1] == Piece(Finding.UNKNOWN, 138 + 244, 122, "before the first record found")


def test_bytes_after_final_are_not_accounted_for(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([10], final=True)[0])
    tcp.send(0, sealed([10], wire=170, plain=10)[0])
    client = only(read(tmp_path, tcp.packets)).client
    assert client.listed[1] == Piece(Finding.UNKNOWN, 170, 32, "after FINAL")


def test_the_record_that_the_captures_end_cuts_is_no_fault(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, b"".join(sealed([100, 1000]))[:500])
    report = read(tmp_path, tcp.packets)
    client = only(report).client
    assert report.clean
    assert client.listed[-1] == Piece(Finding.INCOMPLETE, 260, 378, "of 1022 bytes")


@pytest.mark.parametrize("offset", [0, 50])
def test_a_capture_that_begins_in_mid_stream_is_understood(tmp_path: Path, offset: int) -> None:
    report = read(tmp_path, began_before(offset))
    found = only(report)
    assert found.server.name == "10.7.0.2:7331"
    assert "no SYN in the capture: wire offsets count from the first byte captured" in found.notes
    if offset:
        # The first record's start is not there; the second is only proven by the third.
        assert found.server.records in (5, 7) and found.server.found[Finding.HEAD] and not report.clean
    else:
        assert report.clean and found.server.listed == [Run(0, 0xFFFFF000, 8, 1380, False)]


def test_plaintext_that_begins_in_mid_stream_is_named(tmp_path: Path) -> None:
    tcp = Tcp()
    tcp.send(0, random.Random(3).randbytes(5000) + message("ping", bytes(8)))
    report = read(tmp_path, tcp.packets)
    assert only(report).verdict is Verdict.PLAINTEXT and not report.clean


def test_a_stream_that_is_never_understood_is_given_up(tmp_path: Path) -> None:
    tcp = Tcp()
    noise = random.Random(11).randbytes(SEARCH_LIMIT * 2)
    for at in range(0, len(noise), 1400):
        tcp.send(0, noise[at : at + 1400])
    found = only(read(tmp_path, tcp.packets))
    assert found.verdict is Verdict.FOREIGN
    assert found.client.found[Finding.UNKNOWN] == len(noise) and not found.client.records


def test_every_byte_is_accounted_for_whatever_comes() -> None:
    source = random.Random(5)
    for _ in range(300):
        records: list[int] = []
        pieces: list[int] = []
        parser = StreamParser(
            138,
            0 if source.random() < 0.5 else None,
            lambda record, records=records: records.append(22 + record.length),  # type: ignore[misc]
            lambda piece, pieces=pieces: pieces.append(piece.size),  # type: ignore[misc]
        )
        stream = b"".join(sealed(source.choices([0, 1, 50, 1380], k=30)))
        total = 0
        while stream:
            part, stream = stream[: (size := source.choice([1, 5, 22, 100, 1402]))], stream[size:]
            total += len(part)
            chance = source.random()
            if chance < 0.1:
                parser.gap(len(part))
            elif chance < 0.15:
                parser.feed(source.randbytes(len(part)))
            else:
                parser.feed(part)
        parser.end()
        assert sum(records) + sum(pieces) == total


def in_tatters(*ends: bytes) -> list[Piece]:
    """What is said of a stream that was understood, then has a hole, and ends with these segments."""
    pieces: list[Piece] = []
    parser = StreamParser(0, None, lambda record: None, pieces.append)
    for record in sealed([1380] * 3, wire=0):
        parser.feed(record)
    parser.gap(5000)
    for end in ends:
        parser.feed(end)
    parser.end()
    return pieces[1:]


def test_the_end_of_a_record_behind_a_hole_is_no_fault_where_records_were_before() -> None:
    """A capture that stops while something is missing; what follows it begins in the middle of a record."""
    (record,) = sealed([1380], wire=9206, plain=8000)
    tail = record[-451:]
    assert in_tatters(tail) == [Piece(Finding.HEAD, 9206, 451, "")]
    assert in_tatters(tail[:200], tail[200:]) == [Piece(Finding.HEAD, 9206, 451, "")]


def test_what_is_longer_than_a_record_or_a_message_is_named_all_the_same() -> None:
    noise = random.Random(2).randbytes(70_000)
    (found,) = in_tatters(noise)
    assert found.finding is Finding.UNKNOWN and found.size == len(noise)
    (found,) = in_tatters(message("ping", bytes(8)))
    assert found.finding is Finding.PLAINTEXT


def test_the_end_of_a_record_before_a_hole_is_no_fault_once_records_follow() -> None:
    """A capture that begins with a retransmission: what came before it, and after it, was there already."""
    pieces: list[Piece] = []
    parser = StreamParser(0, None, lambda record: None, pieces.append)
    parser.feed(random.Random(2).randbytes(1071))
    parser.gap(7350)
    for record in sealed([1380] * 3, wire=0):
        parser.feed(record)
    parser.end()
    assert pieces == [Piece(Finding.HEAD, 0, 1071, ""), Piece(Finding.GAP, 1071, 7350, "")]


@pytest.mark.parametrize(("plain", "finding"), [(1380, Finding.INCOMPLETE), (1380 + 256, Finding.UNKNOWN)])
def test_a_header_that_the_end_cuts_is_compared_as_far_as_it_goes(plain: int, finding: Finding) -> None:
    pieces: list[Piece] = []
    parser = StreamParser(0, 0, lambda record: None, pieces.append)
    parser.feed(sealed([1380], wire=0)[0])
    parser.feed(sealed([1380], wire=1402, plain=plain)[0][:5])
    parser.end()
    assert pieces == [Piece(finding, 1402, 5, "less than a header")]


def test_without_a_single_record_nothing_is_taken_for_the_end_of_one() -> None:
    pieces: list[Piece] = []
    parser = StreamParser(0, None, lambda record: None, pieces.append)
    parser.gap(5000)
    parser.feed(random.Random(2).randbytes(451))
    parser.end()
    assert [piece.finding for piece in pieces] == [Finding.GAP, Finding.UNKNOWN]
