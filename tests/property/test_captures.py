"""A reader of captures takes records for records, whatever part of the stream was captured, and in whatever order."""

from __future__ import annotations

import struct
from random import Random

import pytest

from mcencrypt.core.record import MAX_PLAIN, OVERHEAD
from mcencrypt.reading.reassembly import Half
from mcencrypt.reading.streamparser import Finding
from tests.helpers.captures import message

#: Of the records that a direction is made of, in bytes of plaintext: alike as in bulk, and mixed.
LENGTHS = ((1404,), (8666,), (MAX_PLAIN,), (1, 64, 1404), (64, 8666, MAX_PLAIN))


def stream(dice: Random, size: int) -> bytes:
    """Records as the wire has them, contents at random, from anywhere in a connection's plain space."""
    plain, lengths, parts, left = dice.getrandbits(32), dice.choice(LENGTHS), [], size
    while left > 0:
        length = dice.choice(lengths)
        parts += [struct.pack("!HI", length, plain), dice.randbytes(OVERHEAD - 6 + length)]
        plain = (plain + length) & 0xFFFFFFFF
        left -= OVERHEAD + length
    return b"".join(parts)


def segments(dice: Random, data: bytes) -> list[tuple[int, bytes]]:
    """`data` as it travels: in segments and batches, some of them split, beginning anywhere in a record."""
    cuts, at = [], dice.randrange(40_000)
    while at < len(data):
        size = dice.choice((1448, 1448, 8688, 32_768, dice.randrange(1, 1448)))
        cuts.append((at, data[at : at + size]))
        at += size
    return cuts


def captured(dice: Random, sent: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """What a capture has of `sent`: some is not in it, some comes late, twice, or in other pieces."""
    order: list[tuple[float, tuple[int, bytes]]] = []
    missing, late = dice.choice((0, 0.02, 0.2)), dice.choice((0, 0.05, 0.3))
    for place, (at, payload) in enumerate(sent):
        if dice.random() < missing:
            continue
        if dice.random() < late:
            place += dice.randrange(30)
        order.append((place, (at, payload)))
        if dice.random() < late / 4:
            skip = dice.randrange(len(payload))
            order.append((place + dice.randrange(30), (at + skip, payload[skip:])))
    return [segment for _, segment in sorted(order, key=lambda entry: entry[0])]


def read(dice: Random, seen: list[tuple[int, bytes]], reached: int) -> Half:
    """What the reader makes of it; the other side has acknowledged up to `reached`, or says nothing."""
    half, start = Half("one", None), dice.getrandbits(32)
    for at, payload in seen:
        half.data(0, payload, (start + at) & 0xFFFFFFFF)
        if reached:
            half.acknowledge((start + min(reached, at)) & 0xFFFFFFFF)
    half.close()
    return half


@pytest.mark.parametrize("seed", range(150))
def test_records_are_never_taken_for_anything_else(seed: int) -> None:
    dice = Random(seed)
    data = stream(dice, 400_000)
    sent = segments(dice, data)[: dice.choice((3, 10, 40, 10_000))]
    half = read(dice, captured(dice, sent), dice.choice((0, len(data))))
    if half.records:
        assert not half.foreign, half.listed


@pytest.mark.parametrize("seed", range(50))
def test_plaintext_between_records_is_never_overlooked(seed: int) -> None:
    """A message between two records, whatever is missing elsewhere."""
    dice = Random(seed)
    before, after = (stream(dice, size) for size in (100_000, 100_000))
    leaked = message("tx", dice.randbytes(200))
    seen = captured(dice, segments(dice, before))
    seen = [(at, payload) for at, payload in seen if at < len(before)]
    seen += [(len(before), leaked)]
    later = len(before) + len(leaked)
    seen += [(later + at, after[at : at + 1448]) for at in range(0, len(after), 1448) if dice.random() < 0.9]
    half = read(dice, seen, dice.choice((0, later)))
    assert half.found[Finding.PLAINTEXT] or half.found[Finding.UNKNOWN], half.listed
