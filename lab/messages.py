"""MultiChain's message framing, which is Bitcoin's: magic, command, length, checksum, payload.

Source: the protocol documentation of Bitcoin, and traffic recorded between two MultiChain 2.3 nodes.
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

#: A `network-message-start`, as params.dat of a chain has it.
MAGIC = bytes.fromhex("f7c0eef2")
HEADER = 24
#: MAX_SIZE of MultiChain: a longer message ends the connection.
LARGEST = 32 << 20
PROTOCOL_VERSION = 70002
AGENT = b"/MultiChain:0.2.0.13/"
#: Kinds of inventory: a transaction (stream item), a block.
ITEM, BLOCK = 1, 2


class MessageError(ValueError):
    """Bytes that are no message of this chain."""


@dataclass(frozen=True)
class Header:
    """What precedes a payload."""

    command: str
    length: int
    checksum: bytes


def double_sha256(data: bytes) -> bytes:
    """SHA-256 of SHA-256: the hash that names items and blocks, and whose first 4 bytes are the checksum."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def frame(magic: bytes, command: str, payload: bytes = b"") -> bytes:
    """A complete message."""
    checksum = double_sha256(payload)[:4]
    return magic + command.encode().ljust(12, b"\0") + struct.pack("<I", len(payload)) + checksum + payload


def read_header(magic: bytes, data: bytes) -> Header:
    """Read the 24 bytes before a payload.

    Raises MessageError for another magic, a command that is none, or a length above 32 MiB.
    """
    if data[:4] != magic:
        raise MessageError(f"magic is {data[:4].hex()}, not {magic.hex()}")
    name = data[4:16].rstrip(b"\0")
    length = int.from_bytes(data[16:20], "little")
    if not name.isalnum() or length > LARGEST:
        raise MessageError(f"no message: command {name!r}, length {length}")
    return Header(name.decode(), length, data[20:24])


def check(header: Header, payload: bytes) -> None:
    """Compare a payload with its checksum. Raises MessageError if they do not agree."""
    if double_sha256(payload)[:4] != header.checksum:
        raise MessageError(f"checksum of {header.command} ({header.length} bytes) is wrong")


def version(here: tuple[str, int], there: tuple[str, int], nonce: int, height: int) -> bytes:
    """The payload of `version`: 115 bytes, with the agent above."""
    return (
        struct.pack("<IQQ", PROTOCOL_VERSION, 1, int(time.time()))
        + _address(there)
        + _address(here)
        + struct.pack("<Q", nonce)
        + bytes([len(AGENT)])
        + AGENT
        + struct.pack("<I", height)
        + bytes(115 - 20 - 52 - 8 - 1 - len(AGENT) - 4)
    )


def agent(payload: bytes) -> str:
    """The agent in the payload of `version`, the slashes left out. Raises MessageError if that is too short."""
    if len(payload) < 81 or len(payload) < 81 + payload[80]:
        raise MessageError(f"a version of {len(payload)} bytes")
    return payload[81 : 81 + payload[80]].decode(errors="replace").strip("/")


def nonce(payload: bytes) -> int:
    """The nonce in the payload of `version`, by which a node knows that it dialled itself."""
    return int.from_bytes(payload[72:80], "little")


def _address(where: tuple[str, int]) -> bytes:
    address = ipaddress.ip_address(where[0].partition("%")[0])
    mapped = address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed
    return struct.pack("<Q", 1) + mapped + where[1].to_bytes(2, "big")


def inventory(entries: Sequence[tuple[int, bytes]]) -> bytes:
    """The payload of `inv` and `getdata`: up to 252 pairs of kind and hash."""
    return bytes([len(entries)]) + b"".join(struct.pack("<I", kind) + digest for kind, digest in entries)


def read_inventory(payload: bytes) -> list[tuple[int, bytes]]:
    """Read what `inventory` wrote. Raises MessageError if the length does not fit the count."""
    if not payload or len(payload) != 1 + 36 * payload[0]:
        raise MessageError(f"an inventory of {len(payload)} bytes")
    return [
        (int.from_bytes(payload[place : place + 4], "little"), payload[place + 4 : place + 36])
        for place in range(1, len(payload), 36)
    ]


def parameters(magic: bytes, chain: str) -> bytes:
    """The payload of `verack`, 320 bytes: chain parameters in plain sight, then what stands for key and
    signature.
    """
    named = (
        ("protocolversion", struct.pack("<I", 20013)),
        ("chainname", chain.encode() + b"\0"),
        ("networkmessagestart", magic),
    )
    text = b"".join(name.encode() + b"\0" + len(value).to_bytes(2, "little") + value for name, value in named)
    return (b"\xaa" + text).ljust(320, b"\x21")[:320]
