"""Packet classes for scapy: what mcencrypt puts on the wire, shown and built packet by packet.

A capture is read by `mcencrypt.reading.conversations`, which needs no scapy packet for each of what may be millions.
"""

from __future__ import annotations

from typing import Any

from scapy.fields import (
    BitField,
    BitFieldLenField,
    ByteEnumField,
    ByteField,
    IntField,
    StrFixedLenField,
    StrLenField,
)
from scapy.layers.inet import TCP
from scapy.packet import Packet, bind_bottom_up, bind_layers

from mcencrypt.core.handshake import HELLO_LENGTH, MAGIC, VERSION
from mcencrypt.core.record import OVERHEAD, TAG


class Hello(Packet):
    """A handshake message: message 1 is the payload of a SYN, message 2 of a SYN-ACK."""

    name = "mcencrypt handshake"
    fields_desc = [  # noqa: RUF012
        StrFixedLenField("magic", MAGIC, 4),
        ByteField("version", VERSION),
        ByteEnumField("kind", 1, {1: "message 1", 2: "message 2"}),
        StrFixedLenField("key_id", b"\0" * 8, 8),
        StrFixedLenField("mac1", b"\0" * 16, 16),
        StrFixedLenField("ephemeral", b"\0" * 32, 32),
        StrFixedLenField("encrypted_static", b"\0" * 48, 48),
        StrFixedLenField("encrypted_payload", b"\0" * 28, 28),
    ]

    def mysummary(self) -> str:
        return f"mcencrypt message {self.kind}, network key {self.key_id.hex()}"


class Record(Packet):
    """One record; the records behind it in the same packet are its payload."""

    name = "mcencrypt record"
    fields_desc = [  # noqa: RUF012
        BitField("final", 0, 1),
        BitFieldLenField("length", None, 15, length_of="ciphertext"),
        IntField("plain_offset", 0),
        StrLenField("ciphertext", b"", length_from=lambda packet: packet.length),
        StrFixedLenField("tag", b"\0" * TAG, TAG),
    ]

    def guess_payload_class(self, payload: bytes) -> Any:
        if len(payload) >= OVERHEAD:
            return Record
        return super().guess_payload_class(payload)

    def mysummary(self) -> str:
        end = ", FINAL" if self.final else ""
        return f"mcencrypt record, {len(self.ciphertext)} bytes at {self.plain_offset}{end}"


class Wire(Packet):
    """Chooses between `Hello` and `Record` by the first bytes."""

    name = "mcencrypt"

    @classmethod
    def dispatch_hook(cls, _pkt: bytes | None = None, *_args: Any, **_kargs: Any) -> Any:
        if _pkt is not None and len(_pkt) == HELLO_LENGTH and _pkt.startswith(MAGIC + bytes([VERSION])):
            return Hello
        return Record


def bind(*ports: int) -> None:
    """Let scapy dissect TCP payloads to and from `ports` as mcencrypt's."""
    for port in ports:
        bind_bottom_up(TCP, Wire, sport=port)
        bind_layers(TCP, Wire, dport=port)
