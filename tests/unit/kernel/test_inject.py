"""Packets of our own: what is made of them before they are sent, and which of them are let through."""

from __future__ import annotations

import errno
from typing import Literal

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.packet import Packet

from mcencrypt.core.addresses import Ends
from mcencrypt.core.verdict import Injection
from mcencrypt.errors import OperatorError
from mcencrypt.kernel import inject
from mcencrypt.kernel.handling import ANYHOW, Handling, Handlings
from mcencrypt.kernel.inject import Injector, _class_of, _inward_key, _with_class, _with_identification

SEGMENT = TCP(sport=50001, dport=7331, flags="R", seq=1)
OUT4, OUT6 = (
    IP(src="10.0.0.1", dst="10.0.0.2", id=1) / SEGMENT,
    IPv6(src="fd00::1", dst="fd00::2", fl=0xABCDE) / SEGMENT,
)


@pytest.mark.parametrize("out", [OUT4, OUT6])
def test_a_packet_without_a_class_gets_that_of_its_connection(out: Packet) -> None:
    changed = _with_class(bytes(out), 0x4B)
    expected = out.copy()
    expected[0].setfieldval("tos" if out is OUT4 else "tc", 0x48)
    assert changed == bytes(expected), "checksum of the header included; the last two bits are ECN's"
    assert _class_of(changed) == 0x48
    assert _with_class(bytes(out), 3) == bytes(out)


@pytest.mark.parametrize("out", [OUT4, OUT6])
def test_a_class_that_a_packet_has_is_left(out: Packet) -> None:
    own = out.copy()
    own[0].setfieldval("tos" if out is OUT4 else "tc", 0x21)
    assert _with_class(bytes(own), 0x48) == bytes(own)
    ecn = out.copy()
    ecn[0].setfieldval("tos" if out is OUT4 else "tc", 0x02)
    assert _class_of(_with_class(bytes(ecn), 0x48)) == 0x4A


def test_an_identification() -> None:
    packet = OUT4.copy()
    packet.id = 0
    assert _with_identification(bytes(packet)) == bytes(OUT4)


@pytest.mark.parametrize(
    "inward",
    [
        IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=7331, dport=50001),
        IP(src="10.9.9.9", dst="10.0.0.1") / ICMP(type=3, code=4, nexthopmtu=1300) / OUT4,
        IPv6(src="fd00::2", dst="fd00::1") / TCP(sport=7331, dport=50001),
        IPv6(src="fd00::9", dst="fd00::1") / ICMPv6PacketTooBig(mtu=1300) / OUT6,
    ],
)
def test_whose_a_packet_toward_the_socket_is(inward: Packet) -> None:
    key = _inward_key(bytes(inward))
    ends = Ends.of(key)
    assert (ends.local_port, ends.remote_port) == (50001, 7331)
    assert ends.local in (b"\x0a\0\0\1", b"\xfd" + bytes(14) + b"\1")
    assert ends.remote in (b"\x0a\0\0\2", b"\xfd" + bytes(14) + b"\2")


# -- sent, and let through when it comes back


class FakeRaw:
    """A raw socket of one family: what was sent through it, where to, and handled like what."""

    def __init__(self, sent: list[tuple[str, bytes, str]], name: str) -> None:
        self._sent, self._name = sent, name
        self.problem: OSError | None = None
        self.likes: list[Handling] = []

    def treat_as(self, other: Handling) -> None:
        self.likes.append(other)

    def sendmsg(self, buffers: list[bytes], ancillary: object, flags: int, address: tuple[str, ...]) -> None:
        self.sendto(b"".join(buffers), address)

    def sendto(self, packet: bytes, address: tuple[str, ...]) -> None:
        if self.problem:
            raise self.problem
        self._sent.append((self._name, packet, address[0]))

    def close(self) -> None:
        self._name = "closed"


class Bench:
    """An injector over such sockets, first to the network, then to the local socket."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, bytes, str]] = []
        self.four = [FakeRaw(self.sent, "out"), FakeRaw(self.sent, "in")]
        self.six = [FakeRaw(self.sent, "out6"), FakeRaw(self.sent, "in6")]
        made = {name: iter(sockets) for name, sockets in (("_ipv4_socket", self.four), ("_ipv6_socket", self.six))}
        for name, sockets in made.items():
            monkeypatch.setattr(inject, name, sockets.__next__)
        self.handling = ANYHOW
        self.injector = Injector(Handlings(lambda ends: self.handling, lambda ends, told: 0))

    def send(self, packet: Packet | bytes, toward: Literal["network", "socket"] = "network") -> None:
        self.injector.send(Injection(bytes(packet), toward), 0.0)

    def comes_back(self, packet: Packet | bytes) -> bool:
        """Whether it is let through at the queue."""
        return self.injector.is_ours(memoryview(bytes(packet)))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


@pytest.mark.parametrize(("out", "name", "to"), [(OUT4, "out", "10.0.0.2"), (OUT6, "out6", "fd00::2")])
def test_what_was_sent_is_let_through_as_often_as_it_was(bench: Bench, out: Packet, name: str, to: str) -> None:
    bench.send(out)
    bench.send(out)
    assert bench.sent == [(name, bytes(out), to)] * 2
    assert [bench.comes_back(out) for _ in range(3)] == [True, True, False]
    assert (bench.injector.sent, bench.injector.failed) == (2, 0)


def test_what_differs_by_a_bit_is_not_let_through(bench: Bench) -> None:
    bench.send(OUT4)
    for at in range(len(bytes(OUT4))):
        changed = bytearray(bytes(OUT4))
        changed[at] ^= 1
        assert not bench.comes_back(bytes(changed))
    assert not bench.comes_back(bytes(OUT4)[:-1]) and not bench.comes_back(bytes(OUT4) + b"\0")
    assert bench.comes_back(OUT4)


def test_what_goes_to_the_socket_opens_no_door(bench: Bench) -> None:
    inward = IP(src="10.0.0.2", dst="10.0.0.1", id=1) / TCP(sport=7331, dport=50001, flags="R")
    bench.send(inward, "socket")
    assert bench.sent == [("in", bytes(inward), "10.0.0.1")] and not bench.comes_back(inward)


def test_it_is_known_by_what_was_sent_and_not_by_what_was_given(bench: Bench) -> None:
    bench.handling = Handling(traffic_class=0x48)
    given = OUT4.copy()
    given.id = 0
    bench.send(given)
    [(_, sent, _)] = bench.sent
    expected = OUT4.copy()
    expected.tos = 0x48
    assert sent == bytes(expected) and bench.four[0].likes == [Handling(traffic_class=0x48)]
    assert not bench.comes_back(given) and bench.comes_back(sent)


def test_what_is_underway_is_bounded_and_the_oldest_goes(bench: Bench) -> None:
    packets = []
    for number in range(inject.MAX_UNDERWAY + 2):
        packet = bytearray(bytes(OUT4))
        packet[24:28] = number.to_bytes(4)
        packets.append(bytes(packet))
        bench.send(packets[-1])
    assert [bench.comes_back(packet) for packet in packets[:3]] == [False, False, True]
    assert bench.comes_back(packets[-1])


def test_what_the_kernel_does_not_take_is_counted_and_not_expected_back(bench: Bench) -> None:
    bench.four[0].problem = bench.four[1].problem = OSError(errno.ENOBUFS, "No buffer space available")
    bench.send(OUT4)
    bench.send(IP(src="10.0.0.2", dst="10.0.0.1") / TCP(sport=7331, dport=50001), "socket")
    assert (bench.injector.sent, bench.injector.failed, bench.sent) == (0, 2, [])
    assert not bench.comes_back(OUT4)


@pytest.mark.parametrize("toward", ["network", "socket"])
def test_one_that_fails_takes_nothing_from_its_twin_underway(
    bench: Bench, toward: Literal["network", "socket"]
) -> None:
    bench.send(OUT4)
    bench.four[0].problem = bench.four[1].problem = OSError(errno.ENOBUFS, "No buffer space available")
    bench.send(OUT4, toward)
    assert [bench.comes_back(OUT4) for _ in range(2)] == [True, False]


def test_without_a_route_by_its_device_another_is_tried(bench: Bench) -> None:
    bench.handling = Handling(interface=3)
    raw = bench.four[0]

    def no_route(other: Handling) -> None:
        raw.likes.append(other)
        raw.problem = OSError(errno.ENETUNREACH, "Network is unreachable") if other.interface else None

    raw.treat_as = no_route  # type: ignore[method-assign]
    bench.send(OUT4)
    assert [like.interface for like in raw.likes] == [3, 0] and bench.comes_back(OUT4)


def test_a_kernel_without_ipv6_and_a_process_without_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> FakeRaw:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    bench = Bench(monkeypatch)
    monkeypatch.setattr(inject, "_ipv4_socket", lambda: FakeRaw(bench.sent, "out"))
    monkeypatch.setattr(inject, "_ipv6_socket", refused)
    injector = Injector(Handlings(lambda ends: None, lambda ends, told: 0))
    for toward in ("network", "socket"):
        injector.send(Injection(bytes(OUT6), toward), 0.0)  # type: ignore[arg-type]
    assert (injector.sent, injector.failed) == (0, 2)
    monkeypatch.setattr(inject, "_ipv4_socket", refused)
    with pytest.raises(OperatorError, match=r"raw socket: Operation not permitted; run as root \(CAP_NET_RAW\)"):
        Injector(Handlings(lambda ends: None, lambda ends, told: 0))
