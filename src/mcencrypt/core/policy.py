"""What the operator allows, and what the core asks of its surroundings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Literal, get_args

from .addresses import Path

Network = IPv4Network | IPv6Network

#: Encrypted or not at all; or in plaintext with peers that do not answer the handshake.
Mode = Literal["require", "prefer"]
MODES: Final[tuple[Mode, ...]] = get_args(Mode)

#: What allows a connection to run in plaintext: its network is named, the mode, or that encryption is off.
Leave = Literal["allow_plaintext", "prefer", "off"]
LEAVES: Final[tuple[Leave, ...]] = get_args(Leave)


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may talk to us, and how.  A value: another policy replaces it as a whole (`Engine.take_policy`)."""

    mode: Mode = "require"
    #: Peers that may be in plaintext under "require" too.
    allow_plaintext: tuple[Network, ...] = ()
    #: Addresses of relays: what ends TCP in front of us, and dials us for our peers.
    relayed: tuple[Network, ...] = ()
    #: Addresses whose bare connections come about, and never carry a byte: health checks.
    probes: tuple[Network, ...] = ()
    #: Public keys of the peers that may talk to us; None: whoever holds the network key.
    listed: frozenset[bytes] | None = None
    #: Whether a dial is refused where another key answers than before.
    pin: bool = False
    #: The keys that may answer at a packed address, or address + port, as the operator has written them down.
    pinned: Mapping[bytes, frozenset[bytes]] = field(default_factory=dict)
    #: False while switched off: new connections are plaintext, encrypted ones go on until they close.
    enabled: bool = True

    def plaintext_allowed(self, address: bytes) -> bool:
        """Whether a connection with `address` (packed) may run in plaintext."""
        return not self.enabled or self.mode == "prefer" or self.exempts(address)

    def leave(self, address: bytes) -> Leave | None:
        """What allows a connection with `address` (packed) to run in plaintext; None if nothing does."""
        if not self.enabled:
            return "off"
        return "allow_plaintext" if self.exempts(address) else "prefer" if self.mode == "prefer" else None

    def trusts(self, identity: bytes) -> bool:
        """Whether a peer with this public key may talk to us; whether it has it is for the handshake to show."""
        return self.listed is None or identity in self.listed

    def pinned_at(self, endpoint: bytes) -> frozenset[bytes] | None:
        """The keys that may answer at a packed address + port; None if nobody has written any down."""
        return self.pinned.get(endpoint) or self.pinned.get(endpoint[:-2])

    def exempts(self, address: bytes) -> bool:
        """Whether `allow_plaintext` names `address` (packed)."""
        return _names(self.allow_plaintext, address)

    def is_relayed(self, address: bytes) -> bool:
        """Whether `relayed` names `address` (packed)."""
        return _names(self.relayed, address)

    def is_probe(self, address: bytes) -> bool:
        """Whether `probes` names `address` (packed)."""
        return _names(self.probes, address)


def _names(networks: tuple[Network, ...], address: bytes) -> bool:
    if not networks:
        return False
    peer = ip_address(address)
    return any(peer.version == network.version and peer in network for network in networks)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the core cannot know by itself, passed in as functions."""

    #: That many bytes that nobody can guess.
    random: Callable[[int], bytes]
    #: Milliseconds since 1970.
    unix_ms: Callable[[], int]
    #: MTU in bytes that the route of a path shows.
    route_mtu: Callable[[Path], int]
    #: The path of a connection's packets, by its key, ours first.
    path_of: Callable[[bytes], Path] = Path.of
    #: The user whose socket a connection is, by its key, ours first; None if there is no such socket.
    owner_of: Callable[[bytes], int | None] = lambda key: 0
