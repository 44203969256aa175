"""Noise_X, against the specification written down a second time with the standard library's HMAC."""

from __future__ import annotations

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from mcencrypt.core.noise import KeyPair, NoiseError
from mcencrypt.core.sealing import OVERHEAD, seal, unseal

SENDER, RECEIVER, EPHEMERAL, OTHER = (
    KeyPair(X25519PrivateKey.from_private_bytes(bytes([number]) * 32)) for number in range(1, 5)
)
PROLOGUE = b"a prologue"


def hkdf(ck: bytes, material: bytes) -> tuple[bytes, bytes]:
    temp = hmac.new(ck, material, hashlib.sha256).digest()
    one = hmac.new(temp, b"\1", hashlib.sha256).digest()
    return one, hmac.new(temp, one + b"\2", hashlib.sha256).digest()


def expected(payload: bytes) -> bytes:
    h = ck = b"Noise_X_25519_AESGCM_SHA256" + bytes(5)
    for data in (PROLOGUE, RECEIVER.public, EPHEMERAL.public):
        h = hashlib.sha256(h + data).digest()
    message = EPHEMERAL.public
    remote = X25519PublicKey.from_public_bytes(RECEIVER.public)
    for own, plaintext in ((EPHEMERAL, SENDER.public), (SENDER, payload)):
        ck, k = hkdf(ck, own.private.exchange(remote))
        ciphertext = AESGCM(k).encrypt(bytes(12), plaintext, h)
        h = hashlib.sha256(h + ciphertext).digest()
        message += ciphertext
    return message


@given(st.binary(max_size=200))
def test_it_is_what_the_specification_says_and_comes_back(payload: bytes) -> None:
    message = seal(SENDER, RECEIVER.public, EPHEMERAL, payload, PROLOGUE)
    assert message == expected(payload) and len(message) == OVERHEAD + len(payload)
    assert unseal(RECEIVER, message, PROLOGUE) == (SENDER.public, payload)


@given(st.integers(0, OVERHEAD + 4), st.integers(1, 255))
def test_one_changed_byte_is_noticed(at: int, change: int) -> None:
    message = bytearray(seal(SENDER, RECEIVER.public, EPHEMERAL, b"hello", PROLOGUE))
    message[at] ^= change
    # X25519 ignores one bit of a public key (RFC 7748 section 5); the hash does not
    with pytest.raises(NoiseError):
        unseal(RECEIVER, bytes(message), PROLOGUE)


def test_nobody_else_can_open_it_and_nothing_else_can_it_be() -> None:
    message = seal(SENDER, RECEIVER.public, EPHEMERAL, b"hello", PROLOGUE)
    for receiver, text, prologue in (
        (OTHER, message, PROLOGUE), (SENDER, message, PROLOGUE), (RECEIVER, message, b"another"),
        (RECEIVER, message[:-1], PROLOGUE), (RECEIVER, b"", PROLOGUE), (RECEIVER, bytes(OVERHEAD), PROLOGUE),
    ):  # fmt: skip
        with pytest.raises(NoiseError):
            unseal(receiver, text, prologue)
    with pytest.raises(NoiseError):
        seal(SENDER, bytes(32), EPHEMERAL, b"hello", PROLOGUE)
