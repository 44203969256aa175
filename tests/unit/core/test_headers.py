"""Headers: the compiled functions and their interpreted twins say the same, whatever they are given.

What they say is in test_packet.py and test_options.py, which run both ways.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcencrypt.core import headers

ADDRESSES = {4: bytes((10, 0, 0, 1, 10, 0, 0, 2)), 6: bytes(range(32))}


def interpreted() -> ModuleType:
    path = Path(str(headers.__file__)).with_name("headers.py")
    spec = importlib.util.spec_from_file_location("mcencrypt.core.headers_interpreted", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__package__ = "mcencrypt.core"
    spec.loader.exec_module(module)
    return module


twin = interpreted()


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Whole packets, mostly; some are cut, or have a byte changed."""
    version = draw(st.sampled_from((4, 6)))
    ip_options = draw(st.sampled_from((b"", bytes(4), b"\1" * 40))) if version == 4 else b""
    options = draw(st.binary(max_size=40))
    options += bytes(-len(options) % 4)
    tcp = (
        draw(st.binary(min_size=12, max_size=12))
        + bytes((5 + len(options) // 4 << 4,))
        + draw(st.binary(min_size=7, max_size=7))
    )
    rest = tcp + options + draw(st.binary(max_size=40))
    if version == 4:
        length = 20 + len(ip_options) + len(rest)
        head = bytes((0x45 + len(ip_options) // 4, 0)) + length.to_bytes(2, "big") + bytes((0, 1, 0x40, 0, 64, 6, 0, 0))
    else:
        head = bytes((0x60, 0, 0, 0)) + len(rest).to_bytes(2, "big") + bytes((6, 64))
    packet = bytearray(head + ADDRESSES[version] + ip_options + rest)
    if draw(st.integers(0, 3)) == 0:
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    if draw(st.integers(0, 7)) == 0:
        del packet[draw(st.integers(0, len(packet) - 1)) :]
    return bytes(packet)


@given(packet=packets(), kind=st.sampled_from((bytes, bytearray, memoryview)))
def test_packets_are_read_alike(packet: bytes, kind: type) -> None:
    found = headers.dissect(kind(packet))
    assert found == twin.dissect(kind(packet))
    if not isinstance(found, str):
        assert (
            isinstance(found[0], bool) and headers.source_first(kind(packet)) == twin.source_first(packet) == found[8]
        )


@given(packet=packets(), flip=st.none() | st.integers(0, 10**6), writable=st.booleans())
def test_checksums_are_judged_alike(packet: bytes, flip: int | None, writable: bool) -> None:
    found = headers.dissect(packet)
    if isinstance(found, str):
        return
    tcp_at = found[1]
    whole = bytearray(headers.rebuilt(packet, tcp_at, found[2], None, (packet[found[2] :],), 1, 2, 16, 3, 0))
    if flip is not None:
        whole[12 + flip // 8 % (len(whole) - 12)] ^= 1 << flip % 8
    given_as = memoryview(whole) if writable else memoryview(bytes(whole))
    right = headers.checksum_is_right(given_as, tcp_at)
    assert right is twin.checksum_is_right(memoryview(bytearray(whole)), tcp_at)
    if flip is None:
        assert right


@given(
    packet=packets(),
    options=st.none() | st.binary(max_size=10).map(lambda some: some * 4),
    payload=st.lists(st.binary(max_size=700), max_size=3),
    numbers=st.tuples(st.integers(-(2**33), 2**33), st.integers(-(2**33), 2**33)),
    flags=st.integers(0, 255),
    window=st.integers(0, 65535),
    step=st.integers(0, 70),
)
def test_packets_are_written_alike(
    packet: bytes,
    options: bytes | None,
    payload: list[bytes],
    numbers: tuple[int, int],
    flags: int,
    window: int,
    step: int,
) -> None:
    found = headers.dissect(packet)
    if isinstance(found, str):
        return
    pieces = tuple(memoryview(one) if at % 2 else one for at, one in enumerate(payload))
    rest = (found[1], found[2], options, pieces, *numbers, flags, window, step)
    assert headers.rebuilt(memoryview(packet), *rest) == twin.rebuilt(memoryview(packet), *rest)


@given(
    options=st.binary(max_size=40)
    | st.lists(
        st.sampled_from(
            (b"\2\4\5\xb4", b"\3\3\x0f", b"\3\3\7", b"\1", b"\x13\x12" + bytes(16), b"\x1d\4ab", b"\x1e\4cd",
             b"\x22\2", b"\xfe\4\xf9\x89", b"\xfe\4\xf9\x88", b"\xfe\2", b"\0", b"\4\2", b"\2\3\5", b"\x1e\x50"),
        ),
        max_size=6,
    ).map(lambda some: b"".join(some)[:40]),
    limit=st.just(-1) | st.integers(0, 70000),
)  # fmt: skip
def test_options_are_read_alike(options: bytes, limit: int) -> None:
    found = headers.syn_options(memoryview(options), 536, limit, 22, 48)
    assert found == twin.syn_options(options, 536, limit, 22, 48)
    assert isinstance(found[3], bool)


@pytest.mark.parametrize(
    ("tcp_at", "payload_at", "options"), [(20, 80, None), (20, 30, None), (64, 84, None), (20, 40, b"")]
)
def test_nothing_is_read_behind_a_packet(tcp_at: int, payload_at: int, options: bytes | None) -> None:
    """Compiled: the interpreted one has no memory to read there."""
    if str(headers.__file__).endswith(".py"):
        pytest.skip("interpreted")
    with pytest.raises(ValueError):
        headers.rebuilt(bytes(39), tcp_at, payload_at, options, (), 0, 0, 0, 0, 0)


def test_no_more_options_are_read_than_a_header_has_room_for() -> None:
    if str(headers.__file__).endswith(".py"):
        pytest.skip("interpreted")
    with pytest.raises(ValueError):
        headers.syn_options(bytes(41), 536, -1, 22, 48)
