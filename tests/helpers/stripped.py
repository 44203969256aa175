"""Two engines with a path between them that takes data out of SYNs, as relays do: the handshake goes into the stream.

A dials B.  Packets have timestamps, since those are part of the story: `stamped` sets them.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from struct import pack, unpack
from typing import Any

from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.streamtable import SPEAKS_WITHIN
from tests.helpers.packets import ACK, PSH, RST, SYN, Packet, options_of
from tests.helpers.sides import ISN_A, ISN_B, A, B, Host, Side, make

OPTIONS = bytes.fromhex("0101080a")


def stamped(packet: Packet, value: int, echo: int = 0) -> Packet:
    """The same with timestamps."""
    return replace(packet, options=OPTIONS + pack("!II", value, echo))


def stamps_of(packet: Packet) -> tuple[int, int]:
    """TSval and TSecr."""
    value, echo = unpack("!II", options_of(packet.options)[8])
    return value, echo


class Path:
    """Side `a` at A, side `b` at B, which takes A for a relay's address."""

    def __init__(self, local: Host = A, remote: Host = B, isns: tuple[int, int] = (ISN_A, ISN_B), **of_a: Any) -> None:
        self.local, self.remote, self.isns = local, remote, isns
        self.a, self.b = Side(1, **of_a), Side(2, relayed=(ip_network(ip_address(local[0])),))

    def at(self, seconds: float) -> None:
        """It is so late now."""
        self.a.now = self.b.now = seconds

    def from_a(self, data: bytes = b"", at: int = 0, flags: int = ACK, stamp: int = 100) -> Packet:
        """What the socket at A sends."""
        packet = make(
            self.local, self.remote, self.isns[0] + 1 + at, self.isns[1] + 1, flags | (PSH if data else 0), data
        )
        return stamped(packet, stamp, 500)

    def from_b(self, data: bytes = b"", at: int = 0, acked: int = 0, flags: int = ACK, stamp: int = 600) -> Packet:
        """What the socket at B sends."""
        seq, ack = self.isns[1] + 1 + at, self.isns[0] + 1 + acked
        return stamped(make(self.remote, self.local, seq, ack, flags | (PSH if data else 0), data), stamp, 100)

    def opened(self) -> Packet:
        """SYN and SYN-ACK have passed; what leaves A next, with message 1 in it."""
        syn = replace(self.a.dials(self.isns[0], self.local, self.remote), payload=b"")
        seen = self.b.gets(syn)
        assert (seen.flags, seen.payload, seen.seq) == (SYN, b"", self.isns[0] % 2**32)
        answer = self.b.sends(make(self.remote, self.local, self.isns[1], self.isns[0] + 1, SYN | ACK))
        assert answer.payload == b"" and answer.ack == (self.isns[0] + 1) % 2**32
        seen = self.a.gets(answer)
        assert (seen.flags, seen.ack) == (SYN | ACK, (self.isns[0] + 1) % 2**32)
        assert not seen.window, "our socket must not send before the keys are there"
        return self.a.sends(self.from_a())

    def answered(self) -> Packet:
        """Message 1 has arrived at B: message 2 as it leaves."""
        toward, message = self._only(self.b, self.opened())
        assert toward == "network" and len(message.payload) == HELLO_LENGTH
        return message

    def _only(self, side: Side, packet: Packet) -> tuple[str, Packet]:
        assert not isinstance(side.ingress(packet), Packet)
        (injected,) = side.injected()
        return injected

    def keyed(self) -> Packet:
        """Message 2 has arrived at A: what its socket is told, which may speak from now on."""
        toward, told = self._only(self.a, self.answered())
        assert toward == "socket" and not told.payload
        return told

    def spoken(self, first: bytes = b"hello") -> Packet:
        """The record with which A begins; `first` is empty if its socket says nothing."""
        self.keyed()
        if first:
            return self.a.sends(self.from_a(first, stamp=101))
        self.a.engine.streams.tick(self.a.now + SPEAKS_WITHIN)
        ((toward, record),) = self.a.injected()
        assert toward == "network"
        return record

    def connected(self, first: bytes = b"hello") -> Packet:
        """A has sent `first`, and B's socket knows of the connection: what it sees first."""
        return self.b.gets(self.spoken(first))


def resets(packets: list[tuple[str, Packet]], toward: str) -> set[int]:
    """The sequence numbers of the resets toward somebody."""
    return {packet.seq for where, packet in packets if where == toward and packet.flags & RST}
