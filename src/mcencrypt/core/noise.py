"""Noise_IXpsk0_25519_AESGCM_SHA256, the two-message handshake that rides in a SYN and a SYN-ACK.

Written against revision 34 of the Noise Protocol Framework; section numbers below are its own.
Only what IXpsk0 needs is here:

    -> psk, e, s            message 1, 80 bytes + payload + 16
    <- e, ee, se, s, es     message 2, 80 bytes + payload + 16

A psk handshake mixes the ephemeral *public* key into the chaining key as well (9.2), so that even
message 1, which has no Diffie-Hellman result behind it, is encrypted under a key that nobody
without the psk can compute.

No randomness is drawn here: ephemeral keys are arguments.  A failed read raises `NoiseError` and leaves a
state that must be thrown away.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PROTOCOL_NAME: Final = b"Noise_IXpsk0_25519_AESGCM_SHA256"
DH_LENGTH: Final = 32
TAG_LENGTH: Final = 16
KEY_LENGTH: Final = 32

#: A message without payload: an ephemeral key, an encrypted static key, an empty payload's tag.
MESSAGE_OVERHEAD: Final = DH_LENGTH + DH_LENGTH + TAG_LENGTH + TAG_LENGTH

_REKEY_NONCE: Final = b"\0\0\0\0" + b"\xff" * 8


class NoiseError(Exception):
    """A handshake message that cannot be authentic: wrong length, wrong tag or a low-order key."""


def rekey(key: bytes) -> bytes:
    """The key that follows `key`: ENCRYPT(k, 2^64-1, "", 32 zero bytes) without its tag (11.3, 4.2)."""
    return AESGCM(key).encrypt(_REKEY_NONCE, bytes(KEY_LENGTH), None)[:KEY_LENGTH]


def _hkdf(chaining_key: bytes, material: bytes, outputs: int) -> tuple[bytes, ...]:
    """HKDF of 4.3: `outputs` keys of 32 bytes from a chaining key and input key material."""
    temp = hmac.digest(chaining_key, material, "sha256")
    keys: list[bytes] = []
    last = b""
    for number in range(1, outputs + 1):
        last = hmac.digest(temp, last + bytes((number,)), "sha256")
        keys.append(last)
    return tuple(keys)


class _SymmetricState:
    """Chaining key, handshake hash and the current cipher key with its nonce (5.2)."""

    __slots__ = ("_ck", "_k", "_n", "h")

    def __init__(self, prologue: bytes) -> None:
        # The name is exactly HASHLEN bytes long, so it is the first hash as it stands (5.2).
        self._ck = self.h = PROTOCOL_NAME
        self._k: AESGCM | None = None
        self._n = 0
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.h = hashlib.sha256(self.h + data).digest()

    def mix_key(self, material: bytes) -> None:
        self._ck, key = _hkdf(self._ck, material, 2)
        self._k, self._n = AESGCM(key), 0

    def mix_key_and_hash(self, material: bytes) -> None:
        self._ck, hash_part, key = _hkdf(self._ck, material, 3)
        self.mix_hash(hash_part)
        self._k, self._n = AESGCM(key), 0

    def _nonce(self) -> bytes:
        nonce = b"\0\0\0\0" + self._n.to_bytes(8, "big")
        self._n += 1
        return nonce

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        assert self._k is not None, "psk0 sets a key before anything is encrypted"
        ciphertext = self._k.encrypt(self._nonce(), plaintext, self.h)
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        assert self._k is not None, "psk0 sets a key before anything is decrypted"
        try:
            plaintext = self._k.decrypt(self._nonce(), ciphertext, self.h)
        except InvalidTag:
            raise NoiseError("authentication failed") from None
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The transport keys: initiator to responder, responder to initiator (5.2)."""
        first, second = _hkdf(self._ck, b"", 2)
        return first, second


def _dh(private: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:  # an all-zero result: the peer sent a point of low order
        raise NoiseError("low-order public key") from None


def public_bytes(private: X25519PrivateKey) -> bytes:
    """The 32-byte public key of `private`."""
    return private.public_key().public_bytes_raw()


class Initiator:
    """The dialling side: writes message 1, reads message 2.

    `static` is this node's long-term key, `ephemeral` a fresh one that is used for nothing else.
    """

    __slots__ = ("_ephemeral", "_static", "_symmetric", "remote_static")

    def __init__(self, psk: bytes, prologue: bytes, static: X25519PrivateKey, ephemeral: X25519PrivateKey) -> None:
        self._static, self._ephemeral = static, ephemeral
        self._symmetric = _SymmetricState(prologue)
        self._symmetric.mix_key_and_hash(psk)
        self.remote_static = b""

    def write_message_1(self, payload: bytes) -> bytes:
        """-> psk, e, s."""
        symmetric = self._symmetric
        e = public_bytes(self._ephemeral)
        symmetric.mix_hash(e)
        symmetric.mix_key(e)
        return e + symmetric.encrypt_and_hash(public_bytes(self._static)) + symmetric.encrypt_and_hash(payload)

    def read_message_2(self, message: bytes) -> tuple[bytes, bytes, bytes]:
        """<- e, ee, se, s, es: the payload, the key we send with, the key we receive with.

        Raises NoiseError.  Works on a copy of the symmetric state, so that a forged message 2 does not
        spoil the handshake for the true one.
        """
        if len(message) < MESSAGE_OVERHEAD:
            raise NoiseError("message 2 is too short")
        symmetric = _copy(self._symmetric)
        e = message[:DH_LENGTH]
        symmetric.mix_hash(e)
        symmetric.mix_key(e)
        symmetric.mix_key(_dh(self._ephemeral, e))
        symmetric.mix_key(_dh(self._static, e))
        static = symmetric.decrypt_and_hash(message[DH_LENGTH : 2 * DH_LENGTH + TAG_LENGTH])
        symmetric.mix_key(_dh(self._ephemeral, static))
        payload = symmetric.decrypt_and_hash(message[2 * DH_LENGTH + TAG_LENGTH :])
        self.remote_static = static
        sending, receiving = symmetric.split()
        return payload, sending, receiving


class Responder:
    """The listening side: reads message 1, writes message 2, perhaps several times.

    One message 1 can need more than one answer (a SYN-ACK with another initial sequence number is another
    connection attempt), so `write_message_2` leaves the state as it found it; each call needs its own ephemeral.
    """

    __slots__ = ("_static", "_symmetric", "remote_ephemeral", "remote_static")

    def __init__(self, psk: bytes, prologue: bytes, static: X25519PrivateKey) -> None:
        self._static = static
        self._symmetric = _SymmetricState(prologue)
        self._symmetric.mix_key_and_hash(psk)
        self.remote_ephemeral = self.remote_static = b""

    def read_message_1(self, message: bytes) -> bytes:
        """-> psk, e, s: the payload.  Raises NoiseError.

        The initiator's static key is *claimed* here, and proven only by its first transport message.
        """
        if len(message) < MESSAGE_OVERHEAD:
            raise NoiseError("message 1 is too short")
        symmetric = self._symmetric
        e = message[:DH_LENGTH]
        symmetric.mix_hash(e)
        symmetric.mix_key(e)
        static = symmetric.decrypt_and_hash(message[DH_LENGTH : 2 * DH_LENGTH + TAG_LENGTH])
        payload = symmetric.decrypt_and_hash(message[2 * DH_LENGTH + TAG_LENGTH :])
        self.remote_ephemeral, self.remote_static = e, static
        return payload

    def write_message_2(self, payload: bytes, ephemeral: X25519PrivateKey) -> tuple[bytes, bytes, bytes]:
        """<- e, ee, se, s, es: the message, the key we send with, the key we receive with.

        Raises NoiseError when the initiator's keys are of low order.
        """
        symmetric = _copy(self._symmetric)
        e = public_bytes(ephemeral)
        symmetric.mix_hash(e)
        symmetric.mix_key(e)
        symmetric.mix_key(_dh(ephemeral, self.remote_ephemeral))
        symmetric.mix_key(_dh(ephemeral, self.remote_static))
        static = symmetric.encrypt_and_hash(public_bytes(self._static))
        symmetric.mix_key(_dh(self._static, self.remote_ephemeral))
        message = e + static + symmetric.encrypt_and_hash(payload)
        receiving, sending = symmetric.split()
        return message, sending, receiving


def _copy(state: _SymmetricState) -> _SymmetricState:
    twin = object.__new__(_SymmetricState)
    twin.h, twin._ck, twin._k, twin._n = state.h, state._ck, state._k, state._n
    return twin
