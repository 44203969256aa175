"""A network key on its way to one node, over any channel: sealed to that node's identity, by the sender's.

    -----BEGIN MCENCRYPT SEALED KEY-----
    base64 of a `core.sealing` message; its payload: when it was sealed, u64 seconds since 1970; the key, 32 bytes
    -----END MCENCRYPT SEALED KEY-----

What the two people compare are fingerprints of identities: 80 bits, which nobody finds a second key for.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from typing import Final, NamedTuple

from mcencrypt.core.noise import KeyPair, NoiseError
from mcencrypt.core.sealing import seal, unseal
from mcencrypt.errors import OperatorError
from mcencrypt.store.keys import KEY_SIZE, Identity, NetworkKey

_BEGIN: Final = "-----BEGIN MCENCRYPT SEALED KEY-----"
_END: Final = "-----END MCENCRYPT SEALED KEY-----"
_PROLOGUE: Final = b"mcencrypt sealed key 1"
_PAYLOAD: Final = struct.Struct(">Q32s")
_ARMOUR: Final = re.compile(f"{_BEGIN}\\s+([A-Za-z0-9+/=\\s]*){_END}")
# No letter that is easily taken for another, spoken or written (Crockford's).
_LETTERS: Final = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", "0123456789ABCDEFGHJKMNPQRSTVWXYZ")


class Opened(NamedTuple):
    """What a sealed key held."""

    #: The public key of whoever sealed it.
    sender: bytes
    key: NetworkKey
    #: When it was sealed, by the sender's clock, in seconds since 1970.
    when: int


def fingerprint(public: bytes) -> str:
    """Of a node's public key, to be compared by two people: ``4F1D-9QZ0-7MBC-2HXV``."""
    digest = hashlib.blake2s(public, digest_size=10, person=b"mcen fp").digest()
    text = base64.b32encode(digest).decode().translate(_LETTERS)
    return "-".join(text[at : at + 4] for at in range(0, 16, 4))


def seal_key(key: NetworkKey, to: bytes, sender: Identity, ephemeral: KeyPair, when: float) -> str:
    """The text of a sealed key. `to` is a public key; `ephemeral` a fresh one; `when` in seconds since 1970.

    Raises OperatorError if `to` is no key that anybody can have.
    """
    payload = _PAYLOAD.pack(int(when), key.secret)
    try:
        message = seal(KeyPair(sender.private), to, ephemeral, payload, _PROLOGUE)
    except NoiseError:
        raise OperatorError("--to: that is no node's public key: take what `mcencrypt identity` shows there") from None
    lines = re.findall(".{1,64}", base64.b64encode(message).decode())
    return "\n".join([_BEGIN, *lines, _END, ""])


def open_key(text: str, source: str, receiver: Identity) -> Opened:
    """The key in a sealed one. What stands around it, in a mail for instance, does not matter.

    Raises OperatorError: `source` holds none, or it is for another node, or was changed on its way.
    """
    found = _ARMOUR.search(text)
    if found is None:
        raise OperatorError(
            f"{source}: holds no sealed key: it begins with {_BEGIN}, as `mcencrypt key seal` writes it"
        )
    try:
        message = base64.b64decode("".join(found[1].split()), validate=True)
        sender, payload = unseal(KeyPair(receiver.private), message, _PROLOGUE)
    except (binascii.Error, ValueError, NoiseError):
        raise OperatorError(
            f"{source}: is sealed for another node, or was changed on its way: the sender must seal it to "
            f"{receiver.public_base64}"
        ) from None
    if len(payload) != _PAYLOAD.size:
        raise OperatorError(f"{source}: is of another version of mcencrypt: have the same one on both nodes")
    when, secret = _PAYLOAD.unpack(payload)
    assert len(secret) == KEY_SIZE
    return Opened(sender, NetworkKey(secret), when)
