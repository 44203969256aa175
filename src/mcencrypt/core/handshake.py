"""The handshake messages as they travel: message 1 as payload of a SYN, message 2 as payload of a SYN-ACK.

    magic:4 | version:1 | kind:1 | network key id:8 | mac1:16 | Noise message

The first 14 bytes are in clear, so that a peer with another network key can be named, and message 1's are Noise's
prologue.  `mac1` is a BLAKE2s under the network key over everything else: whoever has no network key is refused
for the price of one hash.  The Noise payload holds capabilities (none yet) and the sender's clock.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .noise import MESSAGE_OVERHEAD, Initiator, NoiseError, Responder
from .packet import Buffer
from .reasons import Reason

MAGIC: Final = b"mcen"
VERSION: Final = 1
MESSAGE_1: Final = 1
MESSAGE_2: Final = 2
CLEAR_LENGTH: Final = 14
MAC_LENGTH: Final = 16
NOISE_AT: Final = CLEAR_LENGTH + MAC_LENGTH

_clear = Struct("!4sBB8s")
_payload = Struct("!IQ")
CAPABILITIES: Final = 0

#: Bytes of either message: what the wire carries before the first record.
HELLO_LENGTH: Final = NOISE_AT + MESSAGE_OVERHEAD + _payload.size
#: How far the clocks of two nodes may differ, in milliseconds.
MAX_SKEW_MS: Final = 10 * 60 * 1000


class Refused(Exception):
    """A handshake message that is not accepted: `reason` is a fixed word for counting, the text is for a person."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason: Reason = reason


class NetworkSecret:
    """The network key in the forms that the handshake needs."""

    __slots__ = ("_mac", "key_id", "psk")

    def __init__(self, key: bytes) -> None:
        """`key`: the 32 bytes that all nodes of one network share."""
        self.psk = key
        self.key_id = hashlib.blake2s(key=key, digest_size=8, person=b"mcen kid").digest()
        self._mac = hashlib.blake2s(key=key, digest_size=MAC_LENGTH, person=b"mcen mac")

    def __repr__(self) -> str:
        return f"NetworkSecret({self.key_id.hex()})"

    def mac(self, clear: bytes, noise: bytes) -> bytes:
        state = self._mac.copy()
        state.update(clear)
        state.update(noise)
        return state.digest()

    def seal(self, kind: int, noise: bytes) -> bytes:
        """The whole message around a Noise message."""
        clear = self.clear(kind)
        return clear + self.mac(clear, noise) + noise

    def clear(self, kind: int) -> bytes:
        return _clear.pack(MAGIC, VERSION, kind, self.key_id)

    def check(self, hello: bytes, kind: int) -> bytes:
        """The Noise message inside `hello`.  Raises Refused."""
        if len(hello) < CLEAR_LENGTH or hello[:4] != MAGIC:
            raise Refused("not-a-handshake", "it carries no handshake message")
        _, version, its_kind, key_id = _clear.unpack_from(hello)
        if version != VERSION:
            raise Refused("other-version", f"it speaks version {version} of the protocol, we speak {VERSION}")
        if key_id != self.key_id:
            raise Refused("wrong-key", f"it uses network key {key_id.hex()}, ours is {self.key_id.hex()}")
        if its_kind != kind or len(hello) != HELLO_LENGTH:
            raise Refused("malformed-handshake", "its handshake message is malformed")
        noise = hello[NOISE_AT:]
        if not hmac.compare_digest(self.mac(hello[:CLEAR_LENGTH], noise), hello[CLEAR_LENGTH:NOISE_AT]):
            raise Refused("forged-handshake", "its handshake message is not authentic")
        return noise


class Session(NamedTuple):
    """What a finished handshake gives: two transport keys and the peer's public key."""

    sending: bytes
    receiving: bytes
    remote_static: bytes


class Dial:
    """Our side of a connection that the local socket opens: message 1, made once per SYN."""

    __slots__ = ("_initiator", "hello")

    def __init__(
        self, secret: NetworkSecret, static: X25519PrivateKey, ephemeral: X25519PrivateKey, unix_ms: int
    ) -> None:
        self._initiator = Initiator(secret.psk, secret.clear(MESSAGE_1), static, ephemeral)
        noise = self._initiator.write_message_1(_payload.pack(CAPABILITIES, unix_ms))
        self.hello = secret.seal(MESSAGE_1, noise)

    def finish(self, secret: NetworkSecret, hello: Buffer) -> Session:
        """Read message 2.  Raises Refused and can be tried again with another message."""
        noise = secret.check(bytes(hello), MESSAGE_2)
        try:
            _, sending, receiving = self._initiator.read_message_2(noise)
        except NoiseError as problem:
            raise Refused("forged-handshake", f"its handshake message is not authentic ({problem})") from None
        return Session(sending, receiving, self._initiator.remote_static)


class Answer:
    """Our side of a connection that the peer opens: message 1 read, message 2 made once per SYN-ACK."""

    __slots__ = ("_responder", "ephemeral", "timestamp_ms")

    def __init__(self, secret: NetworkSecret, static: X25519PrivateKey, hello: Buffer, unix_ms: int) -> None:
        """Raises Refused."""
        noise = secret.check(bytes(hello), MESSAGE_1)
        self._responder = Responder(secret.psk, secret.clear(MESSAGE_1), static)
        try:
            payload = self._responder.read_message_1(noise)
        except NoiseError as problem:
            raise Refused("forged-handshake", f"its handshake message is not authentic ({problem})") from None
        _, self.timestamp_ms = _payload.unpack_from(payload)
        skew = self.timestamp_ms - unix_ms
        if abs(skew) > MAX_SKEW_MS:
            ahead = "ahead of" if skew > 0 else "behind"
            raise Refused("clock-skew", f"its clock is {abs(skew) // 1000} s {ahead} ours: set both clocks")
        #: The initiator's ephemeral public key, which names this message 1 for good.
        self.ephemeral = self._responder.remote_ephemeral

    def reply(self, secret: NetworkSecret, ephemeral: X25519PrivateKey, unix_ms: int) -> tuple[bytes, Session]:
        """Message 2 and the session, with a fresh ephemeral key.  Raises Refused."""
        try:
            noise, sending, receiving = self._responder.write_message_2(_payload.pack(CAPABILITIES, unix_ms), ephemeral)
        except NoiseError as problem:
            raise Refused("forged-handshake", f"its handshake message is not authentic ({problem})") from None
        return secret.seal(MESSAGE_2, noise), Session(sending, receiving, self._responder.remote_static)


class ReplayCache:
    """Which connection attempt each message 1 belongs to: a recorded one opens no other.

    Bounded: where an entry must go that could still be replayed, nothing as old as it is accepted any more.
    """

    __slots__ = ("_floor_ms", "_seen", "limit")

    def __init__(self, limit: int = 65536) -> None:
        self.limit = limit
        self._seen: OrderedDict[bytes, tuple[bytes, int]] = OrderedDict()
        self._floor_ms = 0

    def admit(self, ephemeral: bytes, attempt: bytes, timestamp_ms: int, unix_ms: int) -> None:
        """Raises Refused if `ephemeral` came with another `attempt` (addresses, ports, initial sequence number)."""
        seen = self._seen.get(ephemeral)
        if seen is not None:
            if seen[0] != attempt:
                raise Refused("replayed", "its handshake message was used before")
            return
        if timestamp_ms <= self._floor_ms:
            raise Refused("replayed", "its handshake message is older than what we can tell from a replay")
        while self._seen and (len(self._seen) >= self.limit or self._oldest() < unix_ms - 2 * MAX_SKEW_MS):
            _, (_, stamp) = self._seen.popitem(last=False)
            if stamp >= unix_ms - MAX_SKEW_MS:
                self._floor_ms = max(self._floor_ms, stamp)
        self._seen[ephemeral] = (attempt, timestamp_ms)

    def _oldest(self) -> int:
        return next(iter(self._seen.values()))[1]


Randomness = Callable[[int], bytes]


def ephemeral_key(random: Randomness) -> X25519PrivateKey:
    """A fresh X25519 key from 32 bytes of `random`."""
    return X25519PrivateKey.from_private_bytes(random(32))
