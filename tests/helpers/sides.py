"""Engines without a network: what sockets at A and B send, what the wire carries of it, what the other one sees.

A dials B, unless a test says otherwise.  Numbers on the wire are behind the handshake messages (`EDGE_A`, `EDGE_B`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from struct import pack
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core.engine import CSUM_NOT_READY, Engine
from mcencrypt.core.handshake import HELLO_LENGTH, NetworkSecret
from mcencrypt.core.keyring import KeyRing
from mcencrypt.core.policy import Policy, Surroundings
from mcencrypt.core.status import State
from mcencrypt.core.verdict import Action, Event, Rejected
from tests.helpers.packets import ACK, PSH, SYN, Packet, parse

#: A packed address and a port.
Host = tuple[bytes, int]

A: Host = (bytes((10, 0, 0, 1)), 40000)
B: Host = (bytes((10, 0, 0, 2)), 7331)
A6: Host = (bytes.fromhex("fd000000000000000000000000000001"), 40000)
B6: Host = (bytes.fromhex("fd000000000000000000000000000002"), 7331)
OTHER: Host = (bytes((10, 9, 9, 9)), 40000)
#: Initial sequence numbers of the sockets.
ISN_A, ISN_B = 1000, 5000
#: Numbers on the network right behind the handshake.
EDGE_A, EDGE_B = ISN_A + 1 + HELLO_LENGTH, ISN_B + 1 + HELLO_LENGTH
#: MSS 1460, SACK permitted, timestamps, window scale 7.
SYN_OPTIONS = bytes.fromhex("020405b40402080a000000010000000001030307")

#: Milliseconds since 1970.
UNIX_MS = 1_750_000_000_000
NETWORK_KEY, OTHER_KEY = b"k" * 32, b"o" * 32


def key_of(local: Host, remote: Host) -> bytes:
    """The connection as an engine at `local` knows it."""
    return local[0] + remote[0] + pack("!HH", local[1], remote[1])


def make(
    source: Host, to: Host, seq: int, ack: int, flags: int, payload: bytes = b"", options: bytes = b"", urgent: int = 0
) -> Packet:
    """A segment; a SYN has the options of a kernel's if it is given none."""
    options = SYN_OPTIONS if flags & SYN and not options else options
    ports = (source[1], to[1])
    return Packet(source[0], to[0], ports, seq, ack, flags, 65535, options, payload, urgent=urgent)


def private_key(seed: int) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(Random(seed).randbytes(32))


def identity(seed: int) -> bytes:
    """The public key of the `Side` that is made with that seed."""
    return private_key(seed).public_key().public_bytes_raw()


def new_engine(
    seed: int,
    ring: KeyRing,
    policy: Policy = Policy(),  # noqa: B008 - a value
    *,
    mtu: int = 1500,
    unix_ms: Callable[[], int] = lambda: UNIX_MS,
) -> Engine:
    """An engine whose every secret follows from `seed`."""
    around = Surroundings(Random(-1 - seed).randbytes, unix_ms, lambda path: mtu)
    return Engine(policy, ring, private_key(seed), around)


class Side:
    """An engine, with packets as the tests' own."""

    def __init__(
        self,
        seed: int = 1,
        keys: bytes | Sequence[NetworkSecret] | KeyRing = NETWORK_KEY,
        *,
        mtu: int = 1500,
        **policy: Any,
    ) -> None:
        """`keys`: those that it accepts, of which it offers the first; `policy`: fields of `Policy`."""
        self.unix_ms = UNIX_MS
        secrets = [NetworkSecret(keys)] if isinstance(keys, bytes) else keys
        ring = secrets if isinstance(secrets, KeyRing) else KeyRing(secrets)
        self.engine = new_engine(seed, ring, Policy(**policy), mtu=mtu, unix_ms=lambda: self.unix_ms)
        self.outcome, self.table = self.engine.outcome, self.engine.table
        #: Seconds, monotonic.
        self.now = 0.0

    # -- packets: what becomes of them

    def egress(self, packet: Packet, skb_info: int = CSUM_NOT_READY) -> Packet | Action:
        """The local socket sends."""
        return _read(self.engine.egress(packet.build(), skb_info, self.now))

    def ingress(self, packet: Packet | bytes | bytearray | memoryview, skb_info: int = 0) -> Packet | Action:
        """The network delivers."""
        given = packet.build() if isinstance(packet, Packet) else packet
        return _read(self.engine.ingress(given, skb_info, self.now))

    def sends(self, packet: Packet, skb_info: int = CSUM_NOT_READY) -> Packet:
        """What the wire carries of it, which must be a packet of ours."""
        return _replaced(self.egress(packet, skb_info))

    def gets(self, packet: Packet | bytes | bytearray | memoryview, skb_info: int = 0) -> Packet:
        """What the local socket sees of it, which must be a packet of ours."""
        return _replaced(self.ingress(packet, skb_info))

    def dials(self, isn: int = ISN_A, local: Host = A, remote: Host = B, options: bytes = b"") -> Packet:
        """The SYN on the wire."""
        return self.sends(make(local, remote, isn, 0, SYN, options=options))

    # -- what followed

    def answers(self, isn: int) -> bytes:
        """B's socket answers A's: message 2 in a SYN-ACK with that initial sequence number."""
        return self.sends(make(B, A, isn, ISN_A + 1, SYN | ACK)).payload

    def injected(self) -> list[tuple[str, Packet]]:
        """Packets injected since the last call: toward whom, and what."""
        found, self.outcome.injections = self.outcome.injections, []
        return [(one.toward, parse(one.packet)) for one in found]

    def events(self) -> list[Event]:
        """Events since the last call."""
        return self.outcome.take_events()[0]

    def kinds(self) -> list[type[Event]]:
        """Their kinds."""
        return [type(event) for event in self.events()]

    def sockets(self) -> set[bytes]:
        """Sockets that had to go since the last call."""
        found, self.outcome.sockets = self.outcome.sockets, set()
        return found

    def suspects(self) -> dict[bytes, int | None]:
        """Sockets that a stranger named since the last call, with the number of the reset that answers it."""
        found, self.outcome.suspects = self.outcome.suspects, {}
        return found

    def rejected(self) -> Rejected:
        """The one rejection among the events since the last call."""
        (found,) = (event for event in self.events() if isinstance(event, Rejected))
        return found

    @property
    def refused(self) -> dict[str, int]:
        """Packets dropped, by reason."""
        return {str(reason): number for reason, number in self.outcome.refused.items()}

    def states(self) -> list[State]:
        """The states of all connections."""
        return [one.state for one in self.engine.connections(self.now)]

    def untouched(self) -> None:
        """Nothing was sent, and nothing is remembered."""
        assert self.outcome.injections == [] and self.states() == []

    def takes(self, **policy: Any) -> list[bytes]:
        """Some fields of its policy are something else from now on; the connections whose sockets must go."""
        return self.engine.take_policy(replace(self.engine.policy, **policy), self.now)


def _read(verdict: bytes | Action) -> Packet | Action:
    return parse(verdict) if isinstance(verdict, bytes) else verdict


def _replaced(verdict: Packet | Action) -> Packet:
    assert isinstance(verdict, Packet), verdict
    return verdict


def connect(a: Side, b: Side, isn_a: int = ISN_A, isn_b: int = ISN_B, local: Host = A, remote: Host = B) -> None:
    """A whole TCP handshake between two engines, with what each socket must see of it."""
    syn = a.dials(isn_a, local, remote)
    assert len(syn.payload) == HELLO_LENGTH
    seen = b.gets(syn)
    assert (seen.seq, seen.flags, seen.payload) == (isn_a % 2**32, SYN, b"")
    answer = b.sends(make(remote, local, isn_b, isn_a + 1, SYN | ACK))
    assert answer.ack == (isn_a + 1 + HELLO_LENGTH) % 2**32
    seen = a.gets(answer)
    assert (seen.seq, seen.ack, seen.flags) == (isn_b % 2**32, (isn_a + 1) % 2**32, SYN | ACK)
    assert seen.payload == b""
    last = a.sends(make(local, remote, isn_a + 1, isn_b + 1, ACK))
    assert last.seq == (isn_a + 1 + HELLO_LENGTH) % 2**32
    seen = b.gets(last)
    assert (seen.seq, seen.ack, seen.flags) == ((isn_a + 1) % 2**32, (isn_b + 1) % 2**32, ACK)


def pair(**policy: Any) -> tuple[Side, Side]:
    """Two sides that have not met."""
    return Side(1, **policy), Side(2, **policy)


def connected(**policy: Any) -> tuple[Side, Side]:
    """Two sides whose sockets are connected; B has yet to be shown who A is."""
    a, b = pair(**policy)
    connect(a, b)
    return a, b


def from_a(a: Side, data: bytes, flags: int = ACK | PSH, at: int = 0) -> Packet:
    """What the network carries when the socket at A sends `data` at plain offset `at`."""
    return a.sends(make(A, B, ISN_A + 1 + at, ISN_B + 1, flags, data))


def from_b(b: Side, data: bytes, flags: int = ACK | PSH, at: int = 0) -> Packet:
    """The same for the socket at B."""
    return b.sends(make(B, A, ISN_B + 1 + at, ISN_A + 1, flags, data))


def say(a: Side, b: Side, data: bytes, at: int = 0) -> Packet:
    """The socket at A sends; what the socket at B sees."""
    wire = from_a(a, data, at=at)
    assert data not in wire.build()
    return b.gets(wire)
