"""What mcencrypt puts on the wire, readable: packet classes for scapy, and the report on a capture file.

The packet classes show and build single packets. A capture is read by `mcencrypt.reading.conversations`, which needs
no scapy packet for each of what may be millions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
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
from mcencrypt.errors import OperatorError
from mcencrypt.reading.capture import segments
from mcencrypt.reading.conversations import Conversation, Conversations, RecordSink, Verdict


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


@dataclass(frozen=True)
class Report:
    """What a capture holds."""

    conversations: list[Conversation]
    oddities: dict[str, int]
    """Packets that may belong to a connection but cannot be read, by reason."""

    def of(self, *verdicts: Verdict) -> list[Conversation]:
        """The connections with one of these verdicts."""
        return [one for one in self.conversations if one.verdict in verdicts]

    @property
    def clean(self) -> bool:
        """Whether there was data, and every byte of it is handshake or record. The end of a record that the
        capture's end cut off is accounted for; nothing else is."""
        good = len(self.of(Verdict.ENCRYPTED))
        silent = len(self.of(Verdict.EMPTY))
        return good > 0 and good + silent == len(self.conversations) and not self.oddities


def decode(path: str, ports: Collection[int] | None = None, on_record: RecordSink | None = None) -> Report:
    """Read the capture file `path` (pcap or pcapng; ``-`` is standard input).

    Args:
        ports: only connections with one of these ports at either end; None for all.
        on_record: called for each record, in the order of the wire per direction.

    Raises:
        OperatorError: the file cannot be read or is no capture.
    """
    oddities: Counter[str] = Counter()
    table = Conversations(ports, on_record)
    try:
        table.feed(segments(path, oddities))
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror or error}") from None
    table.close()
    return Report(table.all, dict(oddities))
