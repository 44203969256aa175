"""Paths that end TCP in the middle, with the programs that do so: the handshake travels in the stream."""

from __future__ import annotations

import contextlib
import random
import re
import socket
from typing import NamedTuple

import pytest

from lab import Capture, interrupted_pair, measure, transfer, two_hosts, wait_for
from lab.middlebox import TO_A, TO_B
from lab.packets import SYN, parse
from tests.helpers.nodes import PORTS, needs_lab, sized
from tests.helpers.pairs import encrypted
from tests.helpers.relays import RELAYS, Leg, needs_relays, start_relay, way
from tests.helpers.ways import BadSyns
from tests.helpers.wire import assert_encrypted, plaintext_segments

pytestmark = [needs_lab, needs_relays]

KINDS = tuple(RELAYS)
MARKERS = [b"INVOICE-4711", b"version\0"]
#: Those that pass on that one direction has ended.
HALF_CLOSING = ("socat", "haproxy")


@pytest.fixture(scope="module")
def relayed():
    """Two nodes, and one relay of each kind between them, for each IP version: a dials the relay, it dials b."""
    with two_hosts(nat=False) as net, encrypted(net, b={"relayed": ["10.66.2.1", "fd66:2::1"]}) as pair:
        for kind, port in zip(KINDS, PORTS, strict=True):
            for version in (4, 6):
                listen, to = Leg(net.router.address(version, "a"), port), Leg(net.b.address(version), port)
                start_relay(kind, net.router, listen, to)
        yield pair


def port_of(kind: str) -> int:
    return PORTS[KINDS.index(kind)]


def entrance(pair, version: int = 4) -> str:
    """Where a finds the relays."""
    return pair.net.router.address(version, "a")


@contextlib.contextmanager
def both_legs(pair):
    """Nothing on either side of the relay is in plaintext."""
    with Capture(pair.net.router, "a") as one, Capture(pair.net.router, "b") as other:
        yield
    for wire in (one, other):
        for port in PORTS:
            if any(segment.payload for segment in wire.segments(port)):
                assert_encrypted(wire, port)
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
        for port in PORTS:
            assert plaintext_segments(wire, port) == 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", HALF_CLOSING)
@pytest.mark.parametrize("mode", ["both", "half-close"])
def test_streams_pass_and_nothing_is_readable(relayed, kind, mode, version):
    with both_legs(relayed):
        result = transfer(
            relayed.a, relayed.b, port_of(kind), address=entrance(relayed, version), version=version, mode=mode,
            size=sized(3e6, 1e8),
        )  # fmt: skip
    assert result.differences == []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", KINDS)
def test_messages_back_and_forth(relayed, kind, version):
    measured = measure(
        relayed.a, relayed.b, port_of(kind), "messages", "--count", 300, address=entrance(relayed, version),
        version=version,
    )  # fmt: skip
    assert measured["identical"]


@pytest.mark.parametrize("kind", HALF_CLOSING)
def test_the_one_that_is_dialled_speaks_first(relayed, kind):
    with relayed.b.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((relayed.b.v4, port_of(kind)))
        listening.listen(5)
        listening.settimeout(20)
        with relayed.a.socket() as a:
            a.settimeout(20)
            a.connect((entrance(relayed), port_of(kind)))
            b = listening.accept()[0]
            with b:
                b.sendall(b"welcome")
                assert a.recv(100) == b"welcome"
                a.sendall(b"thanks")
                assert b.recv(100) == b"thanks"
                a.close()
                assert b.recv(100) == b""


# -- strangers


@contextlib.contextmanager
def listening_at(pair, port: int, address: str):
    with pair.b.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((address, port))
        listening.listen(16)
        yield listening


def nobody_came(listening) -> bool:
    listening.setblocking(False)
    try:
        listening.accept()
    except BlockingIOError:
        return True
    return False


def ended(stranger) -> bool:
    """Whether the relay has ended a stranger's connection."""
    try:
        return stranger.recv(1000) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"mcen" + bytes(134), b"mcen\1\3" + bytes(200), b"m"])
def test_a_stranger_is_not_accepted(relayed, kind, said):
    port = port_of(kind)
    with listening_at(relayed, port, relayed.b.v4) as listening, relayed.net.router.socket() as stranger:
        stranger.settimeout(30)
        stranger.connect((entrance(relayed), port))
        stranger.sendall(said)
        assert ended(stranger)
        assert nobody_came(listening)
    wait_for(lambda: not relayed.b.connections("handshake"), "the attempt to be forgotten")


@pytest.mark.parametrize("kind", KINDS)
def test_a_health_check_leaves_nothing_behind(relayed, kind):
    port = port_of(kind)
    with listening_at(relayed, port, relayed.b.v4) as listening:
        for _ in range(20):
            with relayed.net.router.socket() as stranger:
                stranger.connect((entrance(relayed), port))
        wait_for(lambda: not relayed.b.connections("handshake"), "the attempts to be forgotten")
        assert nobody_came(listening)
        assert "SYN-RECV" not in relayed.b.run(["ss", "-Htna", "state", "syn-recv"]).stdout


def test_a_recorded_stream_opens_nothing(relayed):
    port = port_of("haproxy")
    with Capture(relayed.net.router, "a") as wire:
        assert transfer(relayed.a, relayed.b, port, address=entrance(relayed), size=5000).differences == []
    stream = b"".join(
        segment.payload
        for segment in wire.segments(port)
        if segment.destination_port == port and not segment.flags & SYN
    )
    assert stream.startswith(b"mcen\1\3")
    refused = relayed.b.status()["refused"].get("replayed", 0)
    with listening_at(relayed, port, relayed.b.v4) as listening:
        for part in (stream, stream[:138], stream[:200]):
            with relayed.net.router.socket() as stranger:
                stranger.settimeout(30)
                stranger.connect((entrance(relayed), port))
                stranger.sendall(part)
                assert ended(stranger)
        assert nobody_came(listening)
    assert relayed.b.status()["refused"]["replayed"] == refused + 3


# -- a long way


#: Ports that no rule covers.
WARMING, UNCOVERED = 7998, 7999


class Seen(NamedTuple):
    """What one end's kernel makes of a connection: milliseconds, segments."""

    rto: float
    rtt: float
    window: int
    #: What it remembers for the next one; None: nothing.
    remembered: float | None


def seen_by(host, peer: str, port: int, side: str) -> Seen:
    """What `host` shows of its connection, and what it remembers of the address `peer` once that has ended."""
    shown = host.run(["ss", "-Htino", "state", "connected", side, "=", str(port)]).stdout
    rto, rtt, window = (re.search(pattern, shown) for pattern in (r"rto:(\d+)", r"rtt:([\d.]+)/", r"cwnd:(\d+)"))
    assert rto and rtt and window, shown
    return Seen(float(rto[1]), float(rtt[1]), int(window[1]), remembered(host, peer))


def remembered(host, peer: str) -> float | None:
    """The round trip to an address that the kernel has kept from connections that have ended, in milliseconds."""
    shown = host.run(["ip", "tcp_metrics", "show", peer], check=False).stdout
    found = re.search(r"rtt (\d+)us", shown)
    return float(found[1]) / 1000 if found else None


class Crossed:
    """The leg before the relay, `leg` seconds long, which counts crossings instead of seconds.

    A frame has crossed once more often than what its sender had got from the other side when it sent it. So a pause,
    a timer's repetition or a busy machine adds nothing, and a round trip that had to be waited for adds two.
    """

    def __init__(self, leg: float) -> None:
        self.leg = leg
        self.begin()

    def begin(self) -> None:
        #: By the side that a frame travels to: when it is there, and its crossings.
        self._sent: dict[str, list[tuple[float, int]]] = {TO_A: [], TO_B: []}
        #: Crossings behind the newest data on its way to the relay.
        self.crossings = 0

    def __call__(self, frame, toward, now):
        back = TO_A if toward == TO_B else TO_B
        number = 1 + max((crossed for there, crossed in self._sent[back] if there <= now), default=0)
        self._sent[toward].append((now + self.leg, number))
        segment = parse(frame)
        if toward == TO_B and segment is not None and segment.payload:
            self.crossings = max(self.crossings, number)
        return [(self.leg, frame)]


def exchange(leg: Crossed, pair, port: int) -> tuple[int, list[Seen]]:
    """A first exchange through the relay: crossings until the first bytes are there; what a and b make of it."""
    for node in (pair.a, pair.b):
        node.run(["ip", "tcp_metrics", "flush", "all"])
    with listening_at(pair, port, "10.66.2.2") as listening, pair.a.socket() as a:
        a.settimeout(20)
        listening.settimeout(20)
        leg.begin()
        a.connect(("10.66.1.1", port))
        a.sendall(b"hello")
        with listening.accept()[0] as b:
            b.settimeout(20)
            assert b.recv(5) == b"hello"
            crossings = leg.crossings
            for _ in range(2):
                b.sendall(b"answer")
                assert a.recv(10) == b"answer"
                a.sendall(b"next")
                assert b.recv(10) == b"next"
            seen = [
                seen_by(pair.a, "10.66.1.1", port, "dport"),
                seen_by(pair.b, "10.66.2.1", port, "sport"),
            ]
            a.shutdown(socket.SHUT_WR)
            assert b.recv(10) == b""
            b.shutdown(socket.SHUT_WR)
            assert a.recv(10) == b""
    for number, (node, peer) in enumerate(((pair.a, "10.66.1.1"), (pair.b, "10.66.2.1"))):
        wait_for(
            lambda node=node, peer=peer: remembered(node, peer) is not None, f"what the kernel keeps of {peer}", 15
        )
        seen[number] = seen[number]._replace(remembered=remembered(node, peer))
    return crossings, seen


def spoilt(sealed: list[Seen], plain: list[Seen], leg: float) -> list[str]:
    """What is worse for either kernel than on the plain connection.

    A wait that counted would be one round trip at least, two thirds of it when the exchange has smoothed it, so what is
    much less is the machine's doing.
    """
    slack = 1000 * leg / 2
    worse = [
        f"{name} of {host}: {mine} ms, plain {other}"
        for host, one, beside in zip("ab", sealed, plain, strict=True)
        for name, mine, other in (
            ("RTO", one.rto, beside.rto),
            ("round trip", one.rtt, beside.rtt),
            ("remembered", one.remembered, beside.remembered),
        )
        if mine > other * 1.2 + slack
    ]
    windows = [(one.window, beside.window) for one, beside in zip(sealed, plain, strict=True)]
    return worse + [f"window {mine} for {other}" for mine, other in windows if mine < other]


@pytest.mark.parametrize("seconds", [0.02, 0.4])
def test_the_wait_for_the_handshake_spoils_neither_kernels_measurements(seconds):
    """Beside a plain connection through the same relay: timers, windows, and what is kept for the next connection.

    `seconds` to the relay, one way. What a busy machine adds it does not add each time, and a wait that counted would
    be there each time: so the best of a few pairs counts.
    """
    leg = Crossed(seconds)
    with way(leg) as path, encrypted(path, b={"relayed": ["10.66.2.1"]}) as pair:
        for port in (WARMING, UNCOVERED, PORTS[0]):
            start_relay("haproxy", path.relay, Leg("10.66.1.1", port), Leg("10.66.2.2", port))
        exchange(leg, pair, WARMING)  # neighbours are known from now on
        for _ in range(5):
            plain_crossings, plain = exchange(leg, pair, UNCOVERED)
            crossings, sealed = exchange(leg, pair, PORTS[0])
            print(f"plain {plain_crossings} crossings, {plain}; sealed {crossings}, {sealed}")
            assert plain_crossings >= 3
            assert crossings <= plain_crossings + 2, "the first bytes are there one round trip later"
            if not (worse := spoilt(sealed, plain, seconds)):
                break
        assert worse == []


# -- paths that treat SYNs badly


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("drop", [False, True], ids=["stripped", "dropped"])
def test_paths_that_do_not_carry_data_in_syns(drop, version):
    addresses = ["10.66.0.0/24", "fd66::/64"]
    path = BadSyns(drop)
    with interrupted_pair(path) as net, encrypted(net, relayed=addresses) as pair:
        first = measure(pair.a, pair.b, PORTS[0], "messages", "--count", 3, version=version)
        # Of an attempt's SYNs the third is bare: the kernel sends it 3 s after the first, at the latest (RFC 6298).
        assert first["identical"] and path.count == (2 if drop else 1)
        before = path.count
        assert transfer(pair.a, pair.b, PORTS[0], version=version, size=1e6, connections=3).differences == []
        if drop:
            assert path.count == before, "what the path has shown is remembered"
        assert {one["carrier"] for node in (pair.a, pair.b) for one in node.status()["connections"]} <= {"stream"}


def test_several_relays_in_a_row_and_loss_on_the_way():
    def losing(frame, toward, now, dice=random.Random(1)):  # noqa: B008 - one for all frames
        return [] if dice.random() < 0.01 else [(0.0, frame)]

    with way(losing) as net, encrypted(net, b={"relayed": ["10.66.2.1"]}) as pair:
        start_relay("socat", net.relay, Leg("10.66.1.1", PORTS[0]), Leg("127.0.0.1", 9001))
        start_relay("nginx", net.relay, Leg("127.0.0.1", 9001), Leg("127.0.0.1", 9002))
        start_relay("haproxy", net.relay, Leg("127.0.0.1", 9002), Leg("10.66.2.2", PORTS[0]))
        for _ in range(3):
            measured = measure(
                pair.a, pair.b, PORTS[0], "messages", "--count", 200, "--size", 5000, address="10.66.1.1"
            )
            assert measured["identical"]


def test_many_connections_at_once(relayed):
    for kind, many in (("socat", 200), ("haproxy", sized(200, 2000))):  # socat has a process for each
        how = {"connections": many, "size": 20_000, "deadline": 200}
        result = transfer(relayed.a, relayed.b, port_of(kind), address=entrance(relayed), **how)
        assert result.differences == []
    wait_for(lambda: not relayed.b.connections("handshake"), "no attempt to be left")
    assert "SYN-RECV" not in relayed.b.run(["ss", "-Htna"]).stdout


def test_strangers_who_flood_do_not_keep_a_peer_out(relayed):
    """More connections from the relay's address than there is room for, none of which says anything."""
    port = port_of("haproxy")
    with contextlib.ExitStack() as held, listening_at(relayed, port, relayed.b.v4) as listening:
        for _ in range(400):
            stranger = held.enter_context(relayed.net.router.socket())
            stranger.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                stranger.connect((entrance(relayed), port))
        wait_for(lambda: relayed.b.status()["refused"].get("too-many-attempts", 0) > 0, "a full table")
        assert len(relayed.b.connections("handshake")) <= 256
        with relayed.a.socket() as a:
            a.settimeout(30)
            listening.settimeout(30)
            a.connect((entrance(relayed), port))
            a.sendall(b"hello")
            with listening.accept()[0] as b:
                b.settimeout(30)
                assert b.recv(10) == b"hello"
        assert nobody_came(listening)


# -- where plaintext is allowed


@pytest.mark.parametrize("kind", ["socat", "haproxy"])
def test_a_node_that_prefers_answers_in_the_stream_whoever_the_relay_is(kind):
    """It names no relay: what comes from one looks like plaintext, until it begins with a handshake."""
    with two_hosts(nat=False) as net, encrypted(net, b={"mode": "prefer"}) as pair:
        start_relay(kind, net.router, Leg(net.router.address(4, "a"), PORTS[0]), Leg(net.b.v4, PORTS[0]))
        with Capture(net.router, "b") as wire:
            how = {"mode": "client-first", "size": 2e6, "connections": 3}  # as in MultiChain: who dials speaks first
            result = transfer(pair.a, pair.b, PORTS[0], address=entrance(pair), **how)
            assert result.differences == []
        assert plaintext_segments(wire, PORTS[0]) == 0
        assert pair.b.log().count("carrier=stream") == 3
        with listening_at(pair, PORTS[0], pair.b.v4) as listening, net.router.socket() as stranger:
            stranger.connect((entrance(pair), PORTS[0]))
            stranger.sendall(b"plaintext")
            listening.settimeout(20)
            with listening.accept()[0] as b:
                b.settimeout(20)
                assert b.recv(100) == b"plaintext", "others are served as before"
