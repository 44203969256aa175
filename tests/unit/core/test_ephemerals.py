"""Ephemeral keys made ahead."""

from __future__ import annotations

from random import Random

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core.ephemerals import Ephemerals


def test_a_key_is_of_the_randomness_that_is_passed_in() -> None:
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return b"\x07" * count

    expected = X25519PrivateKey.from_private_bytes(b"\x07" * 32).public_key().public_bytes_raw()
    assert Ephemerals(random).take().public == expected
    assert asked == [32]


def test_none_is_given_out_twice() -> None:
    keys = Ephemerals(Random(1).randbytes, ahead=4)
    while keys.wanting():
        keys.make()
    given = [keys.take().public for _ in range(4)]
    keys.make()
    given += [keys.take().public for _ in range(4)]
    assert len(set(given)) == 8


def test_no_more_are_kept_than_was_said() -> None:
    keys = Ephemerals(Random(1).randbytes, ahead=3)
    for _ in range(5):
        keys.make()
    assert len(keys) == 3 and not keys.wanting()
    keys.take()
    assert keys.wanting()
