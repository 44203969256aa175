"""The cryptographic functions that Noise is given (its chapter 4): hash, HKDF, AES-256-GCM under numbered nonces.

This file is the interpreted twin of noisecrypto.pyx, which has the same functions with the same meaning in C.
"""

from __future__ import annotations

import hashlib
import hmac
from struct import Struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_nonce = Struct("!IQ").pack


def sha256(first: bytes, second: bytes) -> bytes:
    """SHA-256 of two pieces, one behind the other."""
    return hashlib.sha256(first + second).digest()


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> bytes:
    """HKDF as Noise has it (4.3; RFC 5869 without info): `outputs` keys of 32 bytes, 1 to 3, in a row.

    The chaining key has 32 bytes.  Raises ValueError.
    """
    if len(chaining_key) != 32 or not 1 <= outputs <= 3:
        raise ValueError("a chaining key has 32 bytes, and gives 1 to 3 keys")
    temp = hmac.digest(chaining_key, material, "sha256")
    keys = last = b""
    for number in range(1, outputs + 1):
        last = hmac.digest(temp, last + bytes((number,)), "sha256")
        keys += last
    return keys


def encrypt(key: bytes, number: int, plaintext: bytes, associated: bytes) -> bytes:
    """AES-256-GCM with tag, under the nonce that Noise makes of a number (12.3): for what is encrypted once."""
    return AESGCM(key).encrypt(_nonce(0, number), plaintext, associated)


def decrypt(key: bytes, number: int, sealed: bytes, associated: bytes) -> bytes | None:
    """What `encrypt` has sealed; None if it is not authentic."""
    try:
        return AESGCM(key).decrypt(_nonce(0, number), sealed, associated)
    except InvalidTag:
        return None
