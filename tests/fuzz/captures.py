"""Readers of captures: whatever a file or the wire holds, each byte is accounted for, and nothing is raised but errors
for operators.
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_network

from mcencrypt.errors import OperatorError
from mcencrypt.reading import reassembly
from mcencrypt.reading.capture import Segment, read_segment
from mcencrypt.reading.conversations import Conversations
from mcencrypt.reading.judge import Judge
from mcencrypt.reading.reassembly import Half
from mcencrypt.reading.report import decode
from mcencrypt.reading.streamparser import Piece, Record, StreamParser
from tests.fuzz.source import Source
from tests.helpers.captures import PORT, hello, message, sealed

OURS, THEIRS = bytes((10, 7, 0, 1)), bytes((10, 7, 0, 2))
#: Streams as they should be: what is cut out of them reaches deeper than chance does. Most are cut from small records,
#: as a search behind a hole looks at every byte, some from such as are sent.
SMALL = b"".join(sealed([0, 1, 30, 64, 5, 120, 8, 50] * 4))
STREAM = b"".join(sealed([0, 1, 100, 1380, 1380, 30, 1380, 500] * 4))
HELLOS = {kind: hello(kind) for kind in (1, 2)}
MAX_STEPS = 40


def steps(source: Source) -> Iterator[int]:
    """Until the input ends, or for as many steps as are worth the time."""
    return (number for number in range(MAX_STEPS) if source)


def stretch(source: Source) -> bytes:
    """Bytes of a stream: records, a message in plaintext, or anything."""
    kind = source.byte()
    if kind & 2:
        return message("ping", source.part()) if kind & 1 else source.part()
    records, longest = (STREAM, 3000) if kind & 0xF1 == 0xF1 else (SMALL, 300)
    at = source.number(2) % len(records)
    return records[at : at + source.number(2) % longest]


def stream(source: Source) -> None:
    """One direction, given in order."""
    records: list[Record] = []
    pieces: list[Piece] = []
    known = (None, 0, 5)[source.byte() % 3]
    parser = StreamParser(138, known, records.append, pieces.append, encrypted=bool(source.byte() % 8))
    total = 0
    for _ in steps(source):
        if source.byte() % 5:
            data = stretch(source)
            total += len(data)
            parser.feed(data)
        else:
            count = 1 + source.number(2)
            total += count
            parser.gap(count)
    parser.end()
    assert sum(22 + record.length for record in records) + sum(piece.size for piece in pieces) == total


def wire(source: Source) -> Iterator[Segment]:
    """Segments as a capture of the network layer has them."""
    edges = [1000, 0xFFFFFF80]
    oddities: Counter[str] = Counter()
    for _ in steps(source):
        kind = source.byte()
        side = kind & 1
        if kind & 0x60 == 0x60:
            found = read_segment(source.part(), kind >> 7, oddities)
            if found is not None:
                yield found
            continue
        flags = (0x18, 0x10, 0x02, 0x12, 0x11, 0x04, 0x14, 0x18)[kind >> 2 & 7]
        payload = HELLOS[1 + side] if kind & 2 and flags & 2 else stretch(source)
        seq = edges[side] + (source.near() if source.byte() & 3 == 0 else 0) & 0xFFFFFFFF
        ack = edges[1 - side] + (source.near() if source.byte() & 3 == 0 else 0) & 0xFFFFFFFF
        edges[side] = seq + len(payload) + (flags & 3 != 0) & 0xFFFFFFFF
        ends = (OURS, THEIRS) if side else (THEIRS, OURS)
        ports = (40000, PORT) if side else (PORT, 40000)
        yield Segment(*ends, *ports, seq, ack, flags, payload, 0)


def accounted(half: Half) -> None:
    """Every byte that was read is a record or something that was found."""
    found = sum(half.found.values())
    assert half.plain + 22 * half.records + found >= half.bytes, (half.bytes, half.records, half.found)


def connections(source: Source) -> None:
    """Segments of connections, as `decode` reads them and as `verify` judges them."""
    bounded = source.byte() & 1
    kept = reassembly.MAX_HELD, reassembly.MAX_PATIENCE, reassembly.MAX_REMEMBERED
    if source.byte() & 1:
        # as small as an input is
        reassembly.MAX_HELD, reassembly.MAX_PATIENCE, reassembly.MAX_REMEMBERED = 6000, 3000, 2000
    try:
        if bounded:
            judge = Judge((PORT,), [OURS], [ip_network("10.7.0.2/32")] if source.byte() & 1 else [])
            judge.feed(wire(source))
            outcome = judge.finish(1.0, 1, 0, {})
            assert outcome.verdict in ("encrypted", "plaintext", "allowed plaintext only", "nothing seen")
            return
        table = Conversations((PORT,))
        table.feed(wire(source))
        table.close()
        for conversation in table.all:
            assert conversation.verdict
            for half in conversation.halves:
                accounted(half)
    finally:
        reassembly.MAX_HELD, reassembly.MAX_PATIENCE, reassembly.MAX_REMEMBERED = kept


def files(source: Source) -> None:
    """A capture file, or what calls itself one."""
    heads = (
        b"",
        struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1),
        struct.pack(">IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101),
        struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28),
    )
    head = heads[source.byte() % len(heads)]
    body = bytearray(head)
    if head[:1] in (b"\xd4", b"\xa1"):
        order = "<" if head[0] == 0xD4 else ">"
        while source:
            frame = source.part()
            cut = source.near()
            body += struct.pack(order + "IIII", 1, 2, len(frame), (len(frame) + cut) & 0xFFFFFFFF) + frame
    else:
        body += source.rest()
    file = os.memfd_create("capture")
    try:
        os.write(file, body)
        try:
            report = decode(f"/proc/self/fd/{file}", [PORT])
        except OperatorError as problem:
            assert "\n" not in str(problem)
        else:
            for conversation in report.conversations:
                for half in conversation.halves:
                    accounted(half)
    finally:
        os.close(file)


def target(data: bytes) -> None:
    source = Source(data)
    (stream, connections, files)[source.byte() % 3](source)
