"""Packet parsing: what is read of any bytes is what an independent reader finds, and what is written can be read."""

from __future__ import annotations

from mcencrypt.core import icmp
from mcencrypt.core.checksum import tcp_checksum_is_right
from mcencrypt.core.options import SMALLEST_MSS, read_syn, translate_sack
from mcencrypt.core.packet import MASK32, URG, Segment, Unusable, bare, rebuild, source_first
from tests.fuzz.source import Source
from tests.helpers.packets import parse


def target(data: bytes) -> None:
    source = Source(data)
    limit, step, raw = source.number(2), source.near(), source.rest()
    try:
        segment = Segment(memoryview(raw))
    except Unusable as unusable:
        assert unusable.reason and str(unusable) == unusable.reason
        return
    options, payload = bytes(segment.options()), bytes(segment.payload())
    assert len(raw) == segment.payload_at + len(payload) and len(options) % 4 == 0 and len(options) <= 40
    assert segment.source_first == source_first(raw)

    seq, ack = segment.seq + step, segment.ack - step
    again = parse(rebuild(segment, seq, ack, payload))
    assert (again.seq, again.ack) == (seq & MASK32, ack & MASK32)
    assert (again.flags, again.window) == (segment.flags & ~URG & 0xFF, segment.window)
    assert (again.options, again.payload, again.key) == (options, payload, segment.source_first)

    syn = read_syn(options, limit or None, segment.ipv6)
    assert len(syn.passed) % 4 == 0 and len(syn.passed) <= 40
    assert read_syn(syn.passed, None, segment.ipv6).passed == syn.passed, "nothing is left to blank out"
    if limit:
        assert SMALLEST_MSS <= syn.mss <= max(limit, SMALLEST_MSS)
    made = rebuild(segment, seq, ack, options=syn.passed)
    assert parse(made).options == syn.passed and not parse(made).payload
    whole = bytearray(made)
    assert tcp_checksum_is_right(whole, Segment(whole).tcp_at, segment.ipv6)

    moved = translate_sack(options, lambda left, right, first: (left + step, right + step) if left & 1 else None)
    assert moved is None or len(moved) == len(options)
    told = icmp.too_big(segment, 1280 + limit % 8192)
    assert len(told) <= icmp.QUOTED + 48
    reset = parse(bare(segment.source_first, seq, ack, 4))
    assert (reset.key, reset.flags, reset.payload) == (segment.source_first, 4, b"")
