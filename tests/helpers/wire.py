"""What a capture of the wire must show, and what it must not."""

from __future__ import annotations

from collections.abc import Sequence

from lab import Recording
from lab.messages import MAGIC
from mcencrypt.reading.conversations import Verdict
from mcencrypt.reading.report import decode
from tests.helpers.nodes import PORT

ALL_OF_IT = (Verdict.ENCRYPTED,)
THE_REST = (Verdict.ENCRYPTED, Verdict.MISSING)


def assert_encrypted(wire: Recording, port: int = PORT, markers: Sequence[bytes] = ()) -> None:
    """Every byte of data in a capture is handshake or record, there is some, and no marker shows.

    Of a connection that is older than the capture, what comes first may be the end of a record, or be sent again.
    """
    report = decode(str(wire.path), [port])
    conversations = report.of(*set(Verdict) - {Verdict.EMPTY})
    dirty = [
        (one.verdict.value, one.notes, [(half.name, half.found, half.altered, half.listed) for half in one.halves])
        for one in conversations
        if one.verdict not in (ALL_OF_IT if any(half.initial is not None for half in one.halves) else THE_REST)
    ]
    assert not dirty and conversations and not report.oddities, (dirty, report.oddities)
    found = wire.search(markers) if markers else {}
    assert not any(found.values()), found


def plaintext_segments(wire: Recording, port: int, after: float = 0) -> int:
    """Segments with the first bytes of MultiChain's framing in them, captured `after` (seconds since the epoch)."""
    return sum(MAGIC in segment.payload for segment in wire.segments(port) if segment.time > after)
