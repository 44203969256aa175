"""A stream that comes in pieces of any size, as relays cut it: every byte arrives, and none costs more for the size of
the pieces and records around it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from random import Random

import pytest

from mcencrypt.core.checksum import tcp_checksum_is_right
from mcencrypt.core.prim import Reply
from mcencrypt.core.record import MAX_PLAIN, OVERHEAD
from tests.helpers.packets import PSH, parse
from tests.helpers.relayed import Relayed

PIECES = (1, 7, 100, 1448, 8192, 65160)
SIZES = (1, 64, 1404, 8666, MAX_PLAIN)


@pytest.mark.parametrize("seed", range(8))
def test_packets_that_are_joined_leave_what_they_leave_one_by_one(seed: int) -> None:
    dice = Random(seed)
    one, other = Relayed(), Relayed()
    data = dice.randbytes(400_000)
    size = dice.choice((100, 1404, 8666, 20_000))
    (seq, stream), again = one.sealed(data, size), other.sealed(data, size)
    assert again == (seq, stream)
    piece = dice.choice((1000, 8192, 16384))
    packets = []
    for packet in one.packets(seq, stream, piece):
        # Not like the others, not authentic, not in order, not of the same stream: each ends what is joined.
        if dice.random() < 0.1:
            packets.append(dice.choice((
                replace(packet, window=packet.window - 1), replace(packet, flags=packet.flags ^ PSH),
                replace(packet, options=packet.options[:-1] + b"\7"),
                replace(packet, payload=packet.payload[:-1] + bytes((packet.payload[-1] ^ 1,))),
                replace(packet, ports=(packet.ports[0] + 1, packet.ports[1])),
            )))  # fmt: skip
        packets.append(packet)
    raw = [packet.build() for packet in packets]
    for some in raw:
        one.take([some])
    most = 0
    while raw:
        most = max(most, count := other.take(raw[: dice.choice((1, 2, 20))]))
        del raw[:count]
    assert one.reached == other.reached
    assert most > 1
    mine, others = (relayed.receiving.ingress for relayed in (one, other))
    assert (mine.ledger.wire_edge, mine.ledger.plain_edge) == (others.ledger.wire_edge, others.ledger.plain_edge)
    assert mine.auth_failures == others.auth_failures
    assert mine.ledger.records_inserted == others.ledger.records_inserted


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("size", SIZES)
def test_every_byte_arrives_in_order(size: int, piece: int) -> None:
    relayed, dice = Relayed(), Random(size)
    data = dice.randbytes(min(150_000, 2000 * piece, 2000 * size))
    relayed.arrive(*relayed.sealed(data, size), piece)
    assert relayed.reached == data
    receiving = relayed.receiving.ingress
    assert not receiving.fragments and receiving.auth_failures == 0
    assert receiving.acked == receiving.ledger.wire_edge


def test_records_of_any_sizes_in_pieces_of_any_size() -> None:
    relayed, dice = Relayed(), Random(3)
    data = dice.randbytes(3_000_000)
    stream, first, at = b"", None, 0
    while at < len(data):
        size = dice.choice((1, 30, 64, 1404, 8666, 20_000, MAX_PLAIN))
        some = data[at : at + size * dice.choice((1, 1, 3))]
        seq, sealed = relayed.sealed(some, size)
        first, stream, at = seq if first is None else first, stream + sealed, at + len(some)
    assert first is not None
    at = 0
    while at < len(stream):
        piece = dice.choice((1, 22, 1448, 8192, 16384, 60_000))
        relayed.arrive(first + at, stream[at : at + piece], piece)
        at += piece
    assert relayed.reached == data


def test_relays_of_usual_sizes_take_the_fast_way() -> None:
    relayed = Relayed()
    data = bytes(2_000_000)
    seq, stream = relayed.sealed(data, 8666)
    relayed.arrive(seq, stream, 16384)
    assert relayed.reached == data
    assert relayed.taken > 0.95 * (len(stream) // 16384)


@pytest.mark.parametrize("piece", [500, 1448])
def test_packets_that_bring_a_record_to_its_end_together_take_the_fast_way_together(piece: int) -> None:
    relayed, data = Relayed(), Random(piece).randbytes(3 * 8666)
    raw = [packet.build() for packet in relayed.packets(*relayed.sealed(data, 8666), piece)]
    assert relayed.take(list(raw)) == len(raw)
    assert relayed.reached == data
    assert not relayed.receiving.ingress.fragments


@pytest.mark.parametrize("before", [0, 1, 2])
def test_what_ends_no_record_changes_nothing_and_is_one_packet_for_the_engine(before: int) -> None:
    """`before`: packets that came earlier, and wait."""
    relayed, data = Relayed(), Random(5).randbytes(8666)
    raw = [packet.build() for packet in relayed.packets(*relayed.sealed(data, 8666), 1448)]
    for some in raw[:before]:
        relayed.take([some])
    ingress, reply = relayed.receiving.ingress, Reply()
    relayed.b.injected()  # the acknowledgement of those
    known = ingress.fragments.reach(ingress.ledger.wire_edge), ingress.fragments.memory
    express, some = relayed.b.engine.express, raw[before : before + 3]
    assert express.joined(some, 0.0, reply) == (0, None)
    assert known == (ingress.fragments.reach(ingress.ledger.wire_edge), ingress.fragments.memory)
    whole = reply.whole()
    assert tcp_checksum_is_right(bytearray(whole), 20, False)
    assert parse(whole).payload == b"".join(parse(packet).payload for packet in some)
    assert parse(whole).seq == parse(some[0]).seq
    relayed.take([whole])
    for packet in raw[before + 3 :]:
        relayed.take([packet])
    assert relayed.reached == data


def spent(size: int, piece: int, length: int) -> float:
    """Processor seconds for a stream of `length` bytes, the least of three."""
    found = []
    for _ in range(3):
        relayed = Relayed()
        seq, stream = relayed.sealed(bytes(length), size)
        before = time.process_time()
        relayed.arrive(seq, stream, piece)
        found.append(time.process_time() - before)
        assert len(relayed.reached) == length
    return min(found)


@pytest.mark.parametrize("piece", PIECES[:4])
def test_a_piece_costs_no_more_for_the_size_of_its_record(piece: int) -> None:
    """What is there of a record is not looked at again with each piece: that would cost as the square of its size."""
    small, large = 600, MAX_PLAIN
    length = min(3 * large, 8_000 * piece)
    assert spent(large, piece, length) < 3 * spent(small, piece, length)


@pytest.mark.parametrize("piece", PIECES)
def test_twice_the_stream_costs_twice_as_much(piece: int) -> None:
    length = min(400_000, 5_000 * piece)
    assert spent(8666, piece, 2 * length) < 2 * 2 * spent(8666, piece, length)


def test_the_overhead_is_that_of_the_records() -> None:
    relayed = Relayed()
    _, stream = relayed.sealed(bytes(100_000), 8666)
    assert len(stream) == 100_000 + -(-100_000 // 8666) * OVERHEAD
