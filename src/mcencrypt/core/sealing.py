"""Noise_X_25519_AESGCM_SHA256: one message, which only its receiver can read, and which shows who sent it.

    <- s                the receiver's public key is known
    -> e, es, s, ss     112 bytes + payload + 16

The receiver knows that the holder of the sender's static key made it (7.4: source property 1, destination property 2).
There is no signature that a third party could check, and whoever has the receiver's private key could have made it.
Section numbers are those of `noise`. No randomness is drawn here.
"""

from __future__ import annotations

from typing import Final

from .noise import DH_LENGTH, TAG_LENGTH, KeyPair, NoiseError, SymmetricState

PROTOCOL_NAME: Final = b"Noise_X_25519_AESGCM_SHA256".ljust(32, b"\0")
#: A message without payload.
OVERHEAD: Final = DH_LENGTH + DH_LENGTH + TAG_LENGTH + TAG_LENGTH


def seal(sender: KeyPair, receiver: bytes, ephemeral: KeyPair, payload: bytes, prologue: bytes) -> bytes:
    """The message. `ephemeral` is a fresh key that is used for nothing else; `receiver` is a public key, 32 bytes.

    Raises NoiseError if that is of low order.
    """
    state = _begin(prologue, receiver)
    state.mix_hash(ephemeral.public)
    state.mix_key(ephemeral.exchange(receiver))
    static = state.encrypt_and_hash(sender.public)
    state.mix_key(sender.exchange(receiver))
    return ephemeral.public + static + state.encrypt_and_hash(payload)


def unseal(receiver: KeyPair, message: bytes, prologue: bytes) -> tuple[bytes, bytes]:
    """The sender's public key, and the payload. Raises NoiseError if it is not authentic, or for somebody else."""
    if len(message) < OVERHEAD:
        raise NoiseError("the message is too short")
    state = _begin(prologue, receiver.public)
    ephemeral, rest = message[:DH_LENGTH], message[DH_LENGTH:]
    state.mix_hash(ephemeral)
    state.mix_key(receiver.exchange(ephemeral))
    sender = state.decrypt_and_hash(rest[: DH_LENGTH + TAG_LENGTH])
    state.mix_key(receiver.exchange(sender))
    return sender, state.decrypt_and_hash(rest[DH_LENGTH + TAG_LENGTH :])


def _begin(prologue: bytes, receiver: bytes) -> SymmetricState:
    state = SymmetricState(PROTOCOL_NAME)
    state.mix_hash(prologue)
    state.mix_hash(receiver)
    return state
