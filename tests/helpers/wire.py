"""What a capture of the wire must show, and what it must not."""

from __future__ import annotations

from collections.abc import Sequence

from lab import Recording
from lab.messages import MAGIC
from mcencrypt.reading.report import decode
from tests.helpers.nodes import PORT


def assert_encrypted(wire: Recording, port: int = PORT, markers: Sequence[bytes] = ()) -> None:
    """Every byte of data in a capture is handshake or record, there is some, and no marker shows."""
    report = decode(str(wire.path), [port])
    dirty = [
        (one.verdict.value, one.client.name, one.server.name, one.notes)
        for one in report.conversations
        if one.verdict.value not in ("encrypted", "no data")
    ]
    assert not dirty and report.clean, (dirty, report.oddities)
    found = wire.search(markers) if markers else {}
    assert not any(found.values()), found


def plaintext_segments(wire: Recording, port: int, after: float = 0) -> int:
    """Segments with the first bytes of MultiChain's framing in them, captured `after` (seconds since the epoch)."""
    return sum(MAGIC in segment.payload for segment in wire.segments(port) if segment.time > after)
