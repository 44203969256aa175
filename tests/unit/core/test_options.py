"""TCP options: what a SYN may still offer, and SACK blocks."""

from __future__ import annotations

from struct import pack, unpack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import TCP

from mcencrypt.core.kinds import walk
from mcencrypt.core.options import ONLY_TIMESTAMPS, read_syn, translate_sack
from mcencrypt.core.record import OVERHEAD

LINUX = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (1, 0)), ("NOP", None), ("WScale", 10)]
LIMIT = 1460


def written(options: list[tuple[object, object]]) -> bytes:
    """The option bytes that scapy writes, padding included."""
    return bytes(TCP(options=options))[20:]


def read(options: bytes) -> list[tuple[object, object]]:
    """What scapy reads in option bytes, which it wants padded; NOPs and the end left out."""
    header = bytearray(bytes(TCP()) + options + bytes(-len(options) % 4))
    header[12] = len(header) // 4 << 4
    return [option for option in TCP(bytes(header)).options if option[0] not in ("NOP", "EOL")]


# -- SYN


def test_overhead_is_what_the_format_says() -> None:
    assert OVERHEAD == 22


def test_our_own_syn_keeps_what_it_offers() -> None:
    raw = written(LINUX)
    options = read_syn(raw)
    assert options.passed == raw
    assert (options.mss, options.window_scale, options.signed) == (1460, 10, False)


@pytest.mark.parametrize(
    ("peer", "limit", "shown"),
    [
        (1460, 1460, 1438),
        (1460, 1360, 1338),  # the route allows less than the interface
        (1220, 1460, 1198),
        (65495, 1460, 1438),
        (536, 1460, 514),
        (70, 1460, 48),  # Linux takes no smaller one
        (0, 1460, 48),
        (1460, 60, 48),
    ],
)
def test_a_peers_mss_leaves_room_for_a_record(peer: int, limit: int, shown: int) -> None:
    raw = written([("SAckOK", b""), ("MSS", peer), ("WScale", 7)])
    options = read_syn(memoryview(raw), limit)
    assert options.mss == shown
    assert dict(read(options.passed))["MSS"] == shown
    assert len(options.passed) == len(raw)
    assert [name for name, _ in read(options.passed)] == ["SAckOK", "MSS", "WScale"]


@pytest.mark.parametrize(("ipv6", "assumed"), [(False, 536), (True, 1220)])
def test_a_missing_mss_is_put_in(ipv6: bool, assumed: int) -> None:
    raw = written([("SAckOK", b""), ("WScale", 7)])
    options = read_syn(raw, 1460, ipv6)
    assert read(options.passed) == [("MSS", assumed - 22), ("SAckOK", b""), ("WScale", 7)]
    assert options.mss == assumed - 22
    assert len(options.passed) == len(raw) + 4
    assert read_syn(b"", 400, ipv6).passed == pack("!BBH", 2, 4, 378)
    assert read_syn(raw, None, ipv6).passed == raw, "our own SYN is not the one to change"
    assert read_syn(raw, None, ipv6).mss == assumed


def test_a_missing_mss_in_a_full_header_stays_missing() -> None:
    raw = b"\x01" * 40
    assert read_syn(raw, 1460).passed == raw
    assert read_syn(raw[:36], 1460).passed == pack("!BBH", 2, 4, 514) + raw[:36]


@pytest.mark.parametrize("length", [2, 3, 5])
def test_an_mss_of_another_length_is_none(length: int) -> None:
    raw = bytes((2, length)) + b"\x05" * (length - 2)
    raw += b"\x01" * (-len(raw) % 4)
    assert read_syn(raw, 1460).mss == 536 - 22


@pytest.mark.parametrize(("offered", "means"), [(0, 0), (1, 1), (13, 13), (14, 14), (15, 14), (255, 14)])
def test_a_window_scale_counts_up_to_14(offered: int, means: int) -> None:
    assert read_syn(written([("WScale", offered)])).window_scale == means


def test_what_is_not_offered_is_told_apart_from_zero() -> None:
    options = read_syn(written([("MSS", 1000)]))
    assert options.window_scale is None
    assert read_syn(b"\x03\x02\x01\x01").window_scale is None


@pytest.mark.parametrize(
    "blanked",
    [
        b"\x22\x02",  # Fast Open: asks for a cookie
        b"\x22\x0a" + b"cookie!!",
        b"\xfe\x04\xf9\x89",
        b"\xfe\x0c\xf9\x89" + b"cookie!!",
        b"\x1e\x04\x00\x81",  # MP_CAPABLE
        b"\x1e\x0c\x00\x81" + b"key of 8",
        b"\x1e\x10\x10\x02" + bytes(12),  # MP_JOIN
    ],
)
@pytest.mark.parametrize("limit", [None, LIMIT])
def test_fast_open_and_multipath_become_nops(blanked: bytes, limit: int | None) -> None:
    before, behind = b"\x02\x04\x05\xb4", b"\x04\x02\x03\x03\x07"
    raw = before + blanked + behind
    raw += b"\x01" * (-len(raw) % 4)
    options = read_syn(raw, limit)
    mss = 1460 if limit is None else 1438
    assert options.passed == pack("!BBH", 2, 4, mss) + b"\x01" * len(blanked) + raw[4 + len(blanked) :]
    assert (options.mss, options.window_scale, options.signed) == (mss, 7, False)


@pytest.mark.parametrize("kept", [b"\xfe\x04\xf9\x88", b"\xfe\x06\x00\x01\xf9\x89", b"\xfd\x04\xf9\x89", b"\xfe\x02"])
def test_other_experiments_pass(kept: bytes) -> None:
    raw = kept + b"\x01" * (-len(kept) % 4)
    assert read_syn(raw).passed == raw


@pytest.mark.parametrize(
    ("raw", "signed"),
    [
        (b"\x13\x12" + bytes(16) + b"\x01\x01", True),
        (b"\x02\x04\x05\xb4\x1d\x10\x01\x01" + bytes(12), True),
        (b"\x1d\x04\x01\x01", True),
        (b"\x00\x13\x12\x01", False),  # behind the end
        (b"\x12\x04\x13\x1d", False),
    ],
)
def test_signed_connections_are_recognised(raw: bytes, signed: bool) -> None:
    assert read_syn(raw).signed is signed


@given(st.binary(max_size=40), st.one_of(st.none(), st.integers(88, 65535)), st.booleans())
def test_no_option_bytes_are_too_strange(raw: bytes, limit: int | None, ipv6: bool) -> None:
    options = read_syn(raw, limit, ipv6)
    assert len(options.passed) in (len(raw), len(raw) + 4)
    assert len(options.passed) <= 40
    assert options.window_scale is None or options.window_scale <= 14
    if limit is not None:
        assert 48 <= options.mss <= max(limit - 22, 48)
    kinds = {kind for kind, _, _ in walk(options.passed)}
    assert not kinds & {30, 34}
    again = read_syn(options.passed, None, ipv6)
    assert again.signed == options.signed
    if len(options.passed) == len(raw) and limit is None:
        assert (again.mss, again.window_scale) == (options.mss, options.window_scale)
    translate_sack(raw, lambda left, right, first: (right, left))


@given(st.binary(max_size=40))
def test_walking_stays_inside(raw: bytes) -> None:
    at = 0
    for kind, start, end in walk(raw):
        assert kind == raw[start] > 1
        assert at <= start < end <= len(raw)
        assert end - start == raw[start + 1] >= 2
        assert set(raw[at:start]) <= {1}
        at = end


# -- SACK


edges = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))


def option(blocks: list[tuple[int, int]]) -> bytes:
    return bytes((5, 2 + 8 * len(blocks))) + b"".join(pack("!II", *block) for block in blocks)


@given(st.lists(edges, min_size=1, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3), st.integers(0, 2**40))
def test_blocks_are_translated_or_vanish_and_the_length_stays(
    blocks: list[tuple[int, int]], kept: list[bool], shift: int
) -> None:
    raw = ONLY_TIMESTAMPS + pack("!II", 7, 8) + b"\x01\x01" + option(blocks)
    seen: list[tuple[int, int, bool]] = []

    def block(left: int, right: int, first: bool) -> tuple[int, int] | None:
        seen.append((left, right, first))
        return (left + shift, right + shift) if kept[len(seen) - 1] else None

    translated = translate_sack(memoryview(raw), block)
    assert seen == [(*each, number == 0) for number, each in enumerate(blocks)]
    left = [
        ((start + shift) % 2**32, (end + shift) % 2**32)
        for (start, end), stays in zip(blocks, kept, strict=False)
        if stays
    ]
    expected = option(left) if left else b""
    assert translated is not None
    assert translated[:14] == raw[:14]
    assert translated[14:] == expected + b"\x01" * (len(raw) - 14 - len(expected))
    assert len(translated) == len(raw)


def test_scapy_reads_what_is_left() -> None:
    raw = written([("NOP", None), ("NOP", None), ("SAck", (100, 200, 300, 400, 500, 600))])
    translated = translate_sack(raw, lambda left, right, first: None if left == 300 else (left + 22, right + 44))
    assert translated is not None
    assert read(translated) == [("SAck", (122, 244, 522, 644))]
    nothing = translate_sack(raw, lambda left, right, first: None)
    assert nothing == b"\x01" * len(raw)


def test_what_stands_behind_the_blocks_stays() -> None:
    raw = option([(1, 2)]) + b"\x01\x01" + b"\x08\x0a" + b"12345678" + b"\x01\x01"
    assert translate_sack(raw, lambda left, right, first: None) == b"\x01" * 12 + raw[12:]


def never(left: int, right: int, first: bool) -> tuple[int, int] | None:
    raise AssertionError("there is no block")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x01" * 8,
        ONLY_TIMESTAMPS + bytes(8),
        ONLY_TIMESTAMPS + b"\x05\x0a\x05\x0a\x05\x0a\x05\x0a",  # a clock that looks like blocks
        ONLY_TIMESTAMPS + bytes(8) + b"\x01\x01\x01\x01",
        b"\x00" + option([(1, 2)]) + b"\0",
        b"\x01\x05\x20" + bytes(9),  # longer than the header
        b"\x05",
        b"\x05\x01" + bytes(10),
    ],
)
def test_without_blocks_nothing_is_translated(raw: bytes) -> None:
    assert translate_sack(raw, never) is None


def test_a_block_that_is_not_whole_vanishes() -> None:
    raw = b"\x05\x0e" + pack("!II", 1, 2) + b"\0\0\0\1" + b"\x01\x01"
    translated = translate_sack(raw, lambda left, right, first: (left, right))
    assert translated == option([(1, 2)]) + b"\x01" * 6
    assert unpack("!II", translated[2:10]) == (1, 2)
