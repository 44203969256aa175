"""The handshake messages as they travel: as payload of SYN and SYN-ACK, or as the first bytes of either stream.

    magic:4 | version:1 | kind:1 | network key id:8 | mac1:16 | Noise message

The first 14 bytes are in clear, so that a peer with another network key can be named, and message 1's are Noise's
prologue; so neither end takes a message for one that was carried in another way (`Carrier`).  `mac1` is a BLAKE2s under
the network key over everything else: whoever has no network key is refused for the price of one hash.  The Noise
payload holds capabilities and the sender's clock.
"""

from __future__ import annotations

import hashlib
import hmac
from enum import Enum
from struct import Struct
from typing import Final, Literal, NamedTuple

from .noise import DH_LENGTH, MESSAGE_OVERHEAD, Initiator, KeyPair, NoiseError, Responder, begin
from .packet import Buffer
from .reasons import Reason

MAGIC: Final = b"mcen"
VERSION: Final = 1
CLEAR_LENGTH: Final = 14
KEY_ID_LENGTH: Final = 8
MAC_LENGTH: Final = 16
NOISE_AT: Final = CLEAR_LENGTH + MAC_LENGTH

_clear = Struct("!4sBB8s")
_payload = Struct("!IQ")
#: Capability: the key of this handshake is the one that the sender offers when it dials.
OFFERS_THIS_KEY: Final = 1

#: Bytes of either message: what the wire carries before the first record.
HELLO_LENGTH: Final = NOISE_AT + MESSAGE_OVERHEAD + _payload.size
#: How far the clocks of two nodes may differ, in milliseconds.
MAX_SKEW_MS: Final = 10 * 60 * 1000


#: How a status names a `Carrier`.
CarrierWord = Literal["syn", "stream"]


class Carrier(Enum):
    """What carries the two messages: their kinds, and the word of `status`."""

    #: Payload of SYN and SYN-ACK.
    SYN = (1, 2, "syn")
    #: The first bytes of each direction's stream, on paths that do not carry data in SYNs.
    STREAM = (3, 4, "stream")

    def __init__(self, message_1: int, message_2: int, word: CarrierWord) -> None:
        self.message_1, self.message_2, self.word = message_1, message_2, word


class Refused(Exception):
    """A handshake message that is not accepted: `reason` is a fixed word for counting, `text` is for a person.

    `key_id` is the network key that the message named, where that is the reason.
    """

    def __init__(self, reason: Reason, text: str, key_id: bytes = b"") -> None:
        # Strangers can have one made for each packet, so this is all that it does.
        self.reason: Reason = reason
        self.text = text
        self.key_id = key_id

    def __str__(self) -> str:
        return self.text


def named_ephemeral(hello: bytes) -> bytes:
    """The initiator's ephemeral public key, in clear, of a message 1 of the right length: its name for good."""
    return hello[NOISE_AT : NOISE_AT + DH_LENGTH]


def named_key(hello: bytes) -> bytes:
    """The id of the network key that a handshake message names.  Raises Refused."""
    if len(hello) < CLEAR_LENGTH or hello[:4] != MAGIC:
        raise Refused("not-a-handshake", "it carries no handshake message")
    if hello[4] != VERSION:
        raise Refused("other-version", f"it speaks version {hello[4]} of the protocol, we speak {VERSION}")
    return hello[CLEAR_LENGTH - KEY_ID_LENGTH : CLEAR_LENGTH]


class NetworkSecret:
    """The network key in the forms that the handshake needs."""

    __slots__ = ("_mac", "key_id", "psk", "starts")

    def __init__(self, key: bytes) -> None:
        """`key`: the 32 bytes that all nodes of one network share."""
        self.psk = key
        self.key_id = hashlib.blake2s(key=key, digest_size=8, person=b"mcen kid").digest()
        self._mac = hashlib.blake2s(key=key, digest_size=MAC_LENGTH, person=b"mcen mac")
        #: Where all handshakes under this key start, by what carries them.
        self.starts = {carrier: begin(key, self.clear(carrier.message_1)) for carrier in Carrier}

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
        key_id = named_key(hello)
        if key_id != self.key_id:
            raise Refused("wrong-key", f"it uses network key {key_id.hex()}, ours is {self.key_id.hex()}", key_id)
        return self.check_named(hello, kind)

    def check_named(self, hello: bytes, kind: int) -> bytes:
        """The same for a message that names this key."""
        if hello[5] != kind or len(hello) != HELLO_LENGTH:
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

    __slots__ = ("_carrier", "_ephemeral", "_initiator", "hello", "peer_offers", "secret")

    def __init__(
        self,
        secret: NetworkSecret,
        static: KeyPair,
        ephemeral: KeyPair,
        unix_ms: int,
        offers: bool = True,
        carrier: Carrier = Carrier.SYN,
    ) -> None:
        """`offers`: `secret` is what we offer to everybody, and not a key that is only tried out."""
        self.secret, self._carrier = secret, carrier
        #: Whether the peer, too, offers this key when it dials; known once `finish` has read message 2.
        self.peer_offers = False
        self._ephemeral = ephemeral
        self._initiator = Initiator(secret.starts[carrier], static, ephemeral)
        noise = self._initiator.write_message_1(_payload.pack(OFFERS_THIS_KEY if offers else 0, unix_ms))
        self.hello = secret.seal(carrier.message_1, noise)

    def expect(self, remote_static: bytes) -> None:
        """The peer's public key is likely to be this one: what can be computed with it ahead is."""
        self._ephemeral.expect(remote_static)

    def finish(self, hello: Buffer) -> Session:
        """Read message 2, which must be under the same key.  Raises Refused and can be tried again with another."""
        noise = self.secret.check(bytes(hello), self._carrier.message_2)
        try:
            payload, sending, receiving = self._initiator.read_message_2(noise)
        except NoiseError as problem:
            raise Refused("forged-handshake", f"its handshake message is not authentic ({problem})") from None
        self.peer_offers = bool(_payload.unpack_from(payload)[0] & OFFERS_THIS_KEY)
        return Session(sending, receiving, self._initiator.remote_static)


class Answer:
    """Our side of a connection that the peer opens: message 1 read, message 2 made once per SYN-ACK."""

    __slots__ = ("_carrier", "_responder", "ephemeral", "remote_static", "secret", "timestamp_ms")

    def __init__(
        self,
        secret: NetworkSecret,
        static: KeyPair,
        hello: Buffer,
        unix_ms: int,
        carrier: Carrier = Carrier.SYN,
        noise: bytes | None = None,
    ) -> None:
        """`noise`: what `secret` has found in `hello` already (`check_named`). Raises Refused."""
        self.secret, self._carrier = secret, carrier
        if noise is None:
            noise = secret.check(bytes(hello), carrier.message_1)
        self._responder = Responder(secret.starts[carrier], static)
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
        #: Its public key, claimed; its first record proves it.
        self.remote_static = self._responder.remote_static

    def reply(self, ephemeral: KeyPair, unix_ms: int, offers: bool = True) -> tuple[bytes, Session]:
        """Message 2 and the session, with a fresh ephemeral key.  Raises Refused.

        `offers`: this connection's network key is also the one that we offer when we dial.
        """
        content = _payload.pack(OFFERS_THIS_KEY if offers else 0, unix_ms)
        try:
            noise, sending, receiving = self._responder.write_message_2(content, ephemeral)
        except NoiseError as problem:
            raise Refused("forged-handshake", f"its handshake message is not authentic ({problem})") from None
        message = self.secret.seal(self._carrier.message_2, noise)
        return message, Session(sending, receiving, self._responder.remote_static)
