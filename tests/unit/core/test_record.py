"""Records: the format of docs/design.md, computed here a second time, and everything that must not open."""

from __future__ import annotations

from random import Random
from struct import pack

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mcencrypt.core.record import FINAL, MAX_PLAIN, OVERHEAD, Keys, Opened, open_run, seal

KEY = bytes(range(32))
HELLO = 138


def next_key(key: bytes) -> bytes:
    """Noise REKEY (section 4.2), from the specification's words."""
    return AESGCM(key).encrypt(bytes(4) + b"\xff" * 8, bytes(32), b"")[:32]


def by_hand(key: bytes, plaintext: bytes, plain: int, wire: int, final: bool) -> bytes:
    header = pack("!HI", len(plaintext) | (0x8000 if final else 0), plain % 2**32)
    nonce = bytes(4) + wire.to_bytes(8, "big")
    return header + AESGCM(key).encrypt(nonce, plaintext, header)


def sealed(data: bytes, plain: int, wire: int, size: int, final: bool = False, keys: Keys | None = None) -> bytes:
    return b"".join(seal(keys or Keys(KEY), data, plain, wire, size, final))


def opened(raw: bytes, wire: int, keys: Keys | None = None) -> Opened:
    return open_run(keys or Keys(KEY), raw, wire)


def text(length: int) -> bytes:
    return Random(length).randbytes(length)


# -- the format


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize(("plain", "wire"), [(0, HELLO), (2**32 - 1, 5000), (3 * 2**32 + 7, 2**32 - 1)])
@pytest.mark.parametrize("length", [0, 1, 32, 139, 1426, MAX_PLAIN])
def test_a_record_is_what_the_format_says(length: int, plain: int, wire: int, final: bool) -> None:
    data = text(length)
    record = sealed(data, plain, wire, MAX_PLAIN, final)
    assert record == by_hand(KEY, data, plain, wire, final)
    assert len(record) == length + OVERHEAD == length + 22


@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize(("length", "size"), [(1, 1), (10, 3), (9, 3), (1000, 64), (65000, 1404), (40000, MAX_PLAIN)])
def test_a_batch_is_records_one_behind_the_other(length: int, size: int, final: bool) -> None:
    data, plain, wire = text(length), 2**32 - 5, 7777
    starts = range(0, length, size)
    expected = b"".join(
        by_hand(KEY, data[at : at + size], plain + at, wire + at + number * 22, final and number == len(starts) - 1)
        for number, at in enumerate(starts)
    )
    assert sealed(data, plain, wire, size, final) == expected
    assert len(expected) == length + 22 * len(starts)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("final", [False, True])
@pytest.mark.parametrize(
    ("length", "size"), [(1, 64), (64, 64), (65, 64), (5000, 1404), (64676, 1404), (64676, MAX_PLAIN)]
)
def test_what_was_sealed_opens(length: int, size: int, final: bool, kind: type) -> None:
    data = text(length)
    raw = sealed(kind(data), 1000, HELLO, size, final)
    run = opened(kind(raw), HELLO)
    assert b"".join(run.chunks) == data
    assert [len(chunk) for chunk in run.chunks[:-1]] == [size] * (len(run.chunks) - 1)
    assert (run.consumed, run.plain, run.plain_length) == (len(raw), 1000, length)
    assert run.final is final
    assert not run.forged


def test_an_empty_final_record() -> None:
    raw = sealed(b"", 12345, 9999, 64, True)
    assert len(raw) == 22
    run = opened(raw, 9999)
    assert (run.chunks, run.consumed, run.plain, run.plain_length) == ([b""], 22, 12345, 0)
    assert run.final
    assert not run.forged


def test_the_plain_offset_wraps_inside_a_run() -> None:
    raw = sealed(text(300), 2**32 - 150, HELLO, 100)
    run = opened(raw, HELLO)
    assert len(run.chunks) == 3
    assert run.plain == 2**32 - 150
    assert b"".join(run.chunks) == text(300)


# -- what must not open


@pytest.mark.parametrize(("length", "final"), [(0, True), (1, False), (33, False), (40, True)])
def test_no_record_with_a_flipped_bit_opens(length: int, final: bool) -> None:
    record = sealed(text(length), 500, HELLO, MAX_PLAIN, final)
    keys = Keys(KEY)
    for bit in range(len(record) * 8):
        damaged = bytearray(record)
        damaged[bit // 8] ^= 1 << bit % 8
        for behind in (b"", bytes(40000)):  # so that no length that the header may claim is incomplete
            run = open_run(keys, bytes(damaged) + behind, HELLO)
            assert (run.chunks, run.consumed, run.final) == ([], 0, False), f"bit {bit}"
            assert run.forged or not behind
    assert open_run(keys, record, HELLO).chunks == [text(length)], "and none of that changed the keys"


def test_a_flipped_bit_takes_nothing_from_the_records_before_it() -> None:
    data = text(90)
    raw = sealed(data, 0, HELLO, 30, True)
    for bit in range(len(raw) * 8):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        run = opened(bytes(damaged), HELLO)
        whole = bit // 8 // 52
        assert b"".join(run.chunks) == data[: whole * 30]
        assert run.consumed == whole * 52
        assert not run.final


@pytest.mark.parametrize("shift", [-22, -1, 1, 2, 22, 2**31, 2**32, 2**33])
def test_a_record_opens_nowhere_else(shift: int) -> None:
    raw = sealed(b"payload", 0, 1000, 64)
    run = opened(raw, 1000 + shift)
    assert run.forged
    assert not run.chunks
    assert opened(raw, 1000).chunks == [b"payload"]


def test_another_key_opens_nothing() -> None:
    raw = sealed(b"payload", 0, 1000, 64)
    assert opened(raw, 1000, Keys(next_key(KEY))).forged
    assert opened(raw, 1000, Keys(bytes(32))).forged


@pytest.mark.parametrize("left", range(1, 52))
def test_a_partial_record_is_left(left: int) -> None:
    data = text(90)
    raw = sealed(data, 0, HELLO, 30, True)
    run = opened(raw[:-left], HELLO)
    assert run.chunks == [data[:30], data[30:60]]
    assert (run.consumed, run.plain_length) == (104, 60)
    assert not run.final, "FINAL belongs to the record that is not there"
    assert not run.forged
    alone = opened(raw[104:-left], HELLO + 104)
    assert (alone.chunks, alone.consumed, alone.forged, alone.final) == ([], 0, False, False)


@pytest.mark.parametrize("second", [29, 31, 0, 2**31])
def test_a_record_that_does_not_continue_the_stream_stops_the_run(second: int) -> None:
    raw = sealed(text(30), 0, HELLO, 64) + sealed(text(31), second, HELLO + 52, 64)
    run = opened(raw, HELLO)
    assert (run.chunks, run.consumed, run.plain_length) == ([text(30)], 52, 30)
    assert not run.forged
    assert opened(raw[52:], HELLO + 52).plain == second


def test_nothing_behind_final_is_opened() -> None:
    raw = sealed(text(30), 0, HELLO, 64, True) + sealed(text(31), 30, HELLO + 52, 64)
    run = opened(raw, HELLO)
    assert (run.chunks, run.consumed, run.final) == ([text(30)], 52, True)


def test_final_cannot_be_set_or_cleared() -> None:
    for final in (False, True):
        raw = bytearray(sealed(b"the end", 0, HELLO, 64, final))
        raw[0] ^= FINAL >> 8
        assert opened(bytes(raw), HELLO).forged


# -- epochs


BITS = 8


def key_of(epoch: int) -> bytes:
    key = KEY
    for _ in range(epoch):
        key = next_key(key)
    return key


def test_a_records_key_is_that_of_the_epoch_in_which_it_starts() -> None:
    sender, receiver = Keys(KEY, BITS), Keys(KEY, BITS)
    data, wire, plain, used = text(2000), HELLO, 0, set()
    raw = sealed(data, 0, HELLO, 70, True, sender)
    at = 0
    while plain < len(data):
        body = data[plain : plain + 70]
        epoch = wire >> BITS
        used.add(epoch)
        record = by_hand(key_of(epoch), body, plain, wire, plain + 70 >= len(data))
        assert raw[at : at + len(record)] == record, f"epoch {epoch}"
        at, wire, plain = at + len(record), wire + len(record), plain + len(body)
    assert at == len(raw)
    assert used == set(range(11))
    # A receiver that goes along, packet by packet, opens them all.
    at, got = 0, b""
    while at < len(raw):
        run = open_run(receiver, raw[at : at + 92 * 3], HELLO + at)
        assert not run.forged
        receiver.prove(HELLO + at)
        got += b"".join(run.chunks)
        at += run.consumed
    assert got == data


@pytest.mark.parametrize("wire", [255, 256, 257, 255 - 92, 256 - 92, 257 - 92])
def test_the_boundary_itself(wire: int) -> None:
    """A record belongs to the epoch of its first byte, whether it ends before, at or behind the boundary."""
    raw = sealed(text(140), 0, wire, 70, False, Keys(KEY, BITS))
    second = wire + 92
    assert raw[:92] == by_hand(key_of(wire >> BITS), text(140)[:70], 0, wire, False)
    assert raw[92:] == by_hand(key_of(second >> BITS), text(140)[70:], 70, second, False)
    assert b"".join(opened(raw, wire, Keys(KEY, BITS)).chunks) == text(140)


def test_a_single_record_in_a_later_epoch() -> None:
    sender = Keys(KEY, BITS)
    for epoch in (0, 1, 2, 5, 9):
        wire = epoch << BITS | 3
        assert sealed(b"one", 0, wire, 64, False, sender) == by_hand(key_of(epoch), b"one", 0, wire, False)


def test_the_epoch_before_still_opens_and_the_one_before_that_does_not() -> None:
    late = [by_hand(key_of(epoch), b"late", 0, (epoch << BITS) + 9, False) for epoch in range(4)]
    receiver = Keys(KEY, BITS)
    for epoch in range(4):
        assert open_run(receiver, late[epoch], (epoch << BITS) + 9).chunks == [b"late"]
        receiver.prove((epoch << BITS) + 9)
        for older in range(epoch + 1):
            run = open_run(receiver, late[older], (older << BITS) + 9)
            assert (run.chunks == [b"late"]) is (older >= epoch - 1)
            assert run.forged is (older < epoch - 1)


def test_an_epoch_that_was_jumped_over_opens_too() -> None:
    receiver = Keys(KEY, BITS)
    ahead = by_hand(key_of(3), b"ahead", 0, 3 << BITS, False)
    assert open_run(receiver, ahead, 3 << BITS).chunks == [b"ahead"]
    receiver.prove(3 << BITS)
    assert open_run(receiver, by_hand(key_of(2), b"late", 0, 2 << BITS, False), 2 << BITS).chunks == [b"late"]


def test_trying_changes_nothing() -> None:
    """Only what was proven moves the epochs on, or anybody could take the keys away with a forged record."""
    receiver = Keys(KEY, BITS)
    for epoch in range(1, 12):
        assert open_run(receiver, bytes(60), epoch << BITS).forged
    assert open_run(receiver, by_hand(KEY, b"first", 0, HELLO, False), HELLO).chunks == [b"first"]
    receiver.prove(5 << BITS)
    receiver.prove(HELLO)  # late, and authentic
    assert open_run(receiver, by_hand(key_of(5), b"now", 0, 5 << BITS, False), 5 << BITS).chunks == [b"now"]


def test_how_far_ahead_a_record_may_be() -> None:
    receiver = Keys(KEY, BITS)
    for epoch, opens in ((Keys.AHEAD, True), (Keys.AHEAD + 1, False)):
        wire = epoch << BITS
        run = open_run(receiver, by_hand(key_of(epoch), b"ahead", 0, wire, False), wire)
        assert (run.chunks == [b"ahead"]) is opens
        assert run.forged is not opens


def test_the_real_boundary() -> None:
    wire = 2**32 - 50
    raw = sealed(text(140), 2**32 - 200, wire, 70)
    assert raw[:92] == by_hand(KEY, text(140)[:70], 2**32 - 200, wire, False)
    assert raw[92:] == by_hand(key_of(1), text(140)[70:], 2**32 - 130, wire + 92, False)
