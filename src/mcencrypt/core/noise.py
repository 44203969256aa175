"""Noise_IXpsk0_25519_AESGCM_SHA256, the two-message handshake that rides in a SYN and a SYN-ACK.

Written against revision 34 of the Noise Protocol Framework; section numbers below are its own.
Only what IXpsk0 needs is here:

    -> psk, e, s            message 1, 80 bytes + payload + 16
    <- e, ee, se, s, es     message 2, 80 bytes + payload + 16

A psk handshake mixes the ephemeral *public* key into the chaining key as well (9.2), so that even
message 1, which has no Diffie-Hellman result behind it, is encrypted under a key that nobody
without the psk can compute.

No randomness is drawn here: ephemeral keys are arguments. A failed read raises `NoiseError` and leaves a
state that must be thrown away. SHA-256 and AES-GCM are `prim`'s, X25519 is the package cryptography's.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

import mcencrypt.core.noisecrypto as noisecrypto

PROTOCOL_NAME: Final = b"Noise_IXpsk0_25519_AESGCM_SHA256"
DH_LENGTH: Final = 32
TAG_LENGTH: Final = 16
KEY_LENGTH: Final = 32

#: A message without payload: an ephemeral key, an encrypted static key, an empty payload's tag.
MESSAGE_OVERHEAD: Final = DH_LENGTH + DH_LENGTH + TAG_LENGTH + TAG_LENGTH

_REKEY_NONCE: Final = 0xFFFFFFFFFFFFFFFF


class NoiseError(Exception):
    """A handshake message that cannot be authentic: wrong length, wrong tag or a low-order key."""


class KeyPair:
    """An X25519 key with its public half, which costs as much as an exchange: computed once."""

    __slots__ = ("_partner", "_product", "private", "public")

    def __init__(self, private: X25519PrivateKey) -> None:
        self.private = private
        #: 32 bytes.
        self.public = public_bytes(private)
        #: A public key with which the exchange has been made ahead, and what came of it.
        self._partner = self._product = b""

    def expect(self, public: bytes) -> None:
        """Make the exchange with that public key ahead; with a later one it is made when it is asked for, as ever."""
        try:
            product = self.exchange(public)
        except NoiseError:
            return  # whoever asks for it will hear
        self._partner, self._product = public, product

    def exchange(self, public: bytes) -> bytes:
        """DH of the two (4.1), 32 bytes. Raises NoiseError if `public` is of low order."""
        # That they are compared in a time that depends on them gives nothing away: both are public keys.
        if self._product and self._partner == public:
            return self._product
        return _exchange(self, X25519PublicKey.from_public_bytes(public))


def rekey(key: bytes) -> bytes:
    """The key that follows `key`: ENCRYPT(k, 2^64-1, "", 32 zero bytes) without its tag (11.3, 4.2)."""
    return noisecrypto.encrypt(key, _REKEY_NONCE, bytes(KEY_LENGTH), b"")[:KEY_LENGTH]


class SymmetricState:
    """Chaining key, handshake hash and the current cipher key with its nonce (5.2)."""

    __slots__ = ("_ck", "_k", "_n", "h")

    def __init__(self, name: bytes = PROTOCOL_NAME) -> None:
        # The name is exactly HASHLEN bytes long, or filled up to that, so it is the first hash as it stands (5.2).
        self._ck = self.h = name
        self._k = b""
        self._n = 0

    def copy(self) -> SymmetricState:
        """Another one that is in the same state."""
        twin = SymmetricState()
        twin.h, twin._ck, twin._k, twin._n = self.h, self._ck, self._k, self._n
        return twin

    def mix_hash(self, data: bytes) -> None:
        self.h = noisecrypto.sha256(self.h, data)

    def mix_key(self, material: bytes) -> None:
        keys = noisecrypto.hkdf(self._ck, material, 2)
        self._ck, self._k, self._n = keys[:32], keys[32:], 0

    def mix_key_and_hash(self, material: bytes) -> None:
        keys = noisecrypto.hkdf(self._ck, material, 3)
        self.mix_hash(keys[32:64])
        self._ck, self._k, self._n = keys[:32], keys[64:], 0

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        assert self._k, "psk0 sets a key before anything is encrypted"
        ciphertext = noisecrypto.encrypt(self._k, self._n, plaintext, self.h)
        self._n += 1
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt_and_hash(self, ciphertext: bytes) -> bytes:
        assert self._k, "psk0 sets a key before anything is decrypted"
        plaintext = noisecrypto.decrypt(self._k, self._n, ciphertext, self.h)
        if plaintext is None:
            raise NoiseError("authentication failed")
        self._n += 1
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The transport keys: initiator to responder, responder to initiator (5.2)."""
        keys = noisecrypto.hkdf(self._ck, b"", 2)
        return keys[:32], keys[32:]


def begin(psk: bytes, prologue: bytes) -> SymmetricState:
    """What all handshakes under one key begin with: prologue and psk mixed in (5.3, 9.1)."""
    state = SymmetricState()
    state.mix_hash(prologue)
    state.mix_key_and_hash(psk)
    return state


def _exchange(own: KeyPair, remote: X25519PublicKey) -> bytes:
    try:
        return own.private.exchange(remote)
    except ValueError:  # an all-zero result: the peer sent a point of low order
        raise NoiseError("low-order public key") from None


def public_bytes(private: X25519PrivateKey) -> bytes:
    """The 32-byte public key of `private`."""
    return private.public_key().public_bytes_raw()


class Initiator:
    """The dialling side: writes message 1, reads message 2.

    `start` is what `begin` gave; `static` is this node's long-term key, `ephemeral` a fresh one that is used for
    nothing else.
    """

    __slots__ = ("_ephemeral", "_static", "_symmetric", "remote_static")

    def __init__(self, start: SymmetricState, static: KeyPair, ephemeral: KeyPair) -> None:
        self._static, self._ephemeral = static, ephemeral
        self._symmetric = start.copy()
        self.remote_static = b""

    def write_message_1(self, payload: bytes) -> bytes:
        """-> psk, e, s."""
        symmetric = self._symmetric
        e = self._ephemeral.public
        symmetric.mix_hash(e)
        symmetric.mix_key(e)
        return e + symmetric.encrypt_and_hash(self._static.public) + symmetric.encrypt_and_hash(payload)

    def read_message_2(self, message: bytes) -> tuple[bytes, bytes, bytes]:
        """<- e, ee, se, s, es: the payload, the key we send with, the key we receive with.

        Raises NoiseError.  Works on a copy of the symmetric state, so that a forged message 2 does not
        spoil the handshake for the true one.
        """
        if len(message) < MESSAGE_OVERHEAD:
            raise NoiseError("message 2 is too short")
        symmetric = self._symmetric.copy()
        e = message[:DH_LENGTH]
        symmetric.mix_hash(e)
        symmetric.mix_key(e)
        remote = X25519PublicKey.from_public_bytes(e)
        symmetric.mix_key(_exchange(self._ephemeral, remote))
        symmetric.mix_key(_exchange(self._static, remote))
        static = symmetric.decrypt_and_hash(message[DH_LENGTH : 2 * DH_LENGTH + TAG_LENGTH])
        symmetric.mix_key(self._ephemeral.exchange(static))
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

    def __init__(self, start: SymmetricState, static: KeyPair) -> None:
        """`start` is what `begin` gave."""
        self._static = static
        self._symmetric = start.copy()
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

    def write_message_2(self, payload: bytes, ephemeral: KeyPair) -> tuple[bytes, bytes, bytes]:
        """<- e, ee, se, s, es: the message, the key we send with, the key we receive with.

        Raises NoiseError when the initiator's keys are of low order.
        """
        symmetric = self._symmetric.copy()
        e = ephemeral.public
        remote = X25519PublicKey.from_public_bytes(self.remote_ephemeral)
        symmetric.mix_hash(e)
        symmetric.mix_key(e)
        symmetric.mix_key(_exchange(ephemeral, remote))
        symmetric.mix_key(ephemeral.exchange(self.remote_static))
        static = symmetric.encrypt_and_hash(self._static.public)
        symmetric.mix_key(_exchange(self._static, remote))
        message = e + static + symmetric.encrypt_and_hash(payload)
        receiving, sending = symmetric.split()
        return message, sending, receiving
