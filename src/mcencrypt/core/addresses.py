"""Connection keys: the packed addresses and ports by which everything here knows a connection.

    one address | the other address | one port | the other port     4 + 4 + 2 + 2 bytes, or 16 + 16 + 2 + 2

A key is in the order of the packets of one direction.  Where nothing else is said ours come first, as in packets that
leave; packets from the network show the same connection reversed.  No other module knows what a key looks like, but for
`packet`, which reads keys from headers and writes headers from keys.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import NamedTuple


class Place(NamedTuple):
    """What the kernel remembers the MTU of a path by (ip_rt_update_pmtu, rt6_insert_exception), whoever's packets they
    are: the peer, packed, and the index of the device by which they leave, 0 if nobody knows.
    """

    peer: bytes
    device: int


class Path(NamedTuple):
    """What the kernel routes a connection's packets by: the packed addresses of both ends, and what else there is."""

    peer: bytes
    own: bytes
    #: Mark, device and the like, as the shell has found them; here it is only compared.
    way: Hashable = None
    #: Index of the device by which they leave; 0 if nobody knows.
    device: int = 0

    @property
    def place(self) -> Place:
        """Where the kernel remembers this path's MTU."""
        return Place(self.peer, self.device)

    @classmethod
    def of(cls, key: bytes) -> Path:
        """The path of a connection, ours first."""
        half = (len(key) - 4) // 2
        return cls(key[half:-4], key[:half])


class Ends(NamedTuple):
    """A key taken apart, as the kernel's socket table takes it: packed addresses, ports as numbers."""

    local: bytes
    local_port: int
    remote: bytes
    remote_port: int

    @classmethod
    def of(cls, key: bytes) -> Ends:
        """The ends of a connection, ours first."""
        half = (len(key) - 4) // 2
        return cls(key[:half], int.from_bytes(key[-4:-2], "big"), key[half:-4], int.from_bytes(key[-2:], "big"))

    def key(self) -> bytes:
        """The connection's key, ours first."""
        return self.local + self.remote + self.local_port.to_bytes(2, "big") + self.remote_port.to_bytes(2, "big")


def reversed_key(key: bytes) -> bytes:
    """The same connection as packets of the other direction show it."""
    half = (len(key) - 4) // 2
    return key[half:-4] + key[:half] + key[-2:] + key[-4:-2]


def address_of(key: bytes) -> bytes:
    """The first address, packed: where packets with this key come from."""
    return key[: (len(key) - 4) // 2]


def peer_of(key: bytes) -> bytes:
    """The second address, packed: the peer's, where ours come first."""
    return key[(len(key) - 4) // 2 : -4]


def is_link_local(address: bytes) -> bool:
    """Whether a packed address is one that every link has, fe80::/10 (RFC 4291 section 2.5.6)."""
    return len(address) == 16 and address[0] == 0xFE and address[1] & 0xC0 == 0x80


def endpoints(key: bytes) -> tuple[bytes, bytes]:
    """(first, second) end of a connection, each packed address + port."""
    half = (len(key) - 4) // 2
    return key[:half] + key[-4:-2], key[half:-4] + key[-2:]


def on_ports(key: bytes, ports: Collection[int]) -> bool:
    """Whether either end is on one of these ports."""
    return int.from_bytes(key[-4:-2], "big") in ports or int.from_bytes(key[-2:], "big") in ports
