"""Bytes of the wire for people: hexdumps side by side, and which segment of a capture is worth one."""

from __future__ import annotations

from collections.abc import Iterable

from lab.wire import Recording

_WIDTH = 8
_BEFORE = 24


def side_by_side(left: tuple[str, bytes], right: tuple[str, bytes], rows: int) -> list[str]:
    """Two hexdumps of at most `rows` rows, each under its heading."""
    columns = [_column(*one, rows) for one in (left, right)]
    return [f"{a}   |   {b}" for a, b in zip(*columns, strict=True)]


def _column(heading: str, data: bytes, rows: int) -> list[str]:
    lines = [heading]
    for at in range(0, rows * _WIDTH, _WIDTH):
        part = data[at : at + _WIDTH]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{part.hex(' '):{3 * _WIDTH}} {text:{_WIDTH}}")
    return [f"{line:{4 * _WIDTH + 1}}" for line in lines]


def around(recording: Recording, marker: bytes, length: int) -> bytes:
    """`length` bytes of the first payload that holds `marker`, from a little before it; empty if none does."""
    for segment in recording.segments():
        at = segment.payload.find(marker)
        if at >= 0:
            return segment.payload[max(0, at - _BEFORE) :][:length]
    return b""


def any_payload(recording: Recording, ports: Iterable[int], length: int) -> bytes:
    """`length` bytes of the last payload on these ports that is as short as a message of a few words."""
    wanted = set(ports)
    found = b""
    for segment in recording.segments():
        if length <= len(segment.payload) < 4 * length and wanted & {segment.source_port, segment.destination_port}:
            found = segment.payload[:length]
    return found
