"""A relay that lies: it replays, reflects, splices, cuts and changes what it carries. Never a wrong byte arrives, and
whoever reads gets an error instead of an end."""

from __future__ import annotations

import contextlib
import socket

import pytest

from lab import PATIENCE, start, transfer, two_hosts
from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.record import OVERHEAD
from tests.helpers.hostile_relay import honest, hostile_relay
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import encrypted
from tests.helpers.relays import Leg

pytestmark = needs_lab

SIZE = 300_000
#: Where the attacker begins: past the handshake and some records.
LATER = 100_000


@pytest.fixture(scope="module")
def between():
    """Two nodes and the attacker between them, who is honest at first: the pair, and the relay."""
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(two_hosts(nat=False))
        pair = stack.enter_context(encrypted(net, b={"relayed": ["10.66.2.1"]}))
        ends = Leg(net.router.address(4, "a"), PORT), Leg(net.b.v4, PORT)
        yield pair, stack.enter_context(hostile_relay(net.router, *ends))


@pytest.fixture
def pair(between):
    pair, relay = between
    relay.change = honest
    yield pair
    for link in relay.links:
        link.close()
    relay.links.clear()
    relay.change = honest


@pytest.fixture
def relay(between):
    return between[1]


def entrance(pair) -> str:
    return pair.net.router.address(4, "a")


def attacked(pair, **how):
    """What both ends say of a transfer: what came is right, and neither takes what it has for all."""
    running = start(
        pair.a, pair.b, PORT, address=entrance(pair), **({"size": SIZE, "comparing": True, "deadline": 40} | how)
    )
    result = running.result()
    for end in (result.client, result.server):
        assert [one["tampered"] for one in end["connections"]] in ([0], [])
        assert not any("in time" in error for error in end["errors"]), "it hangs"
    return result


def recorded(pair, relay) -> dict[str, bytes]:
    """Both streams of a connection that nobody disturbed."""
    assert transfer(pair.a, pair.b, PORT, address=entrance(pair), size=SIZE).differences == []
    return {way: relay.links[-1].seen(way) for way in ("there", "back")}


def edges(stream: bytes) -> list[int]:
    """Where the records of a stream begin."""
    found, at = [], HELLO_LENGTH
    while at < len(stream):
        found.append(at)
        at += (int.from_bytes(stream[at : at + 2], "big") & 0x7FFF) + OVERHEAD
    return found


@pytest.mark.parametrize("way", ["there", "back"])
@pytest.mark.parametrize("what", ["flipped", "reflected", "other-connection", "repeated", "left-out", "zeros"])
def test_a_stream_that_is_changed_ends_in_an_error(pair, relay, what, way):
    old = recorded(pair, relay)
    number = len(relay.links)

    def change(link, direction, offset, data):
        if link.number < number or direction != way or offset + len(data) < LATER:
            return data
        if what == "flipped":
            return data[:-1] + bytes((data[-1] ^ 1,))
        if what == "reflected":
            mirror = link.seen("back" if way == "there" else "there")[offset : offset + len(data)]
            return mirror.ljust(len(data), b"\0")
        if what == "other-connection":
            return old[way][offset : offset + len(data)].ljust(len(data), b"\0")
        if what == "repeated":
            before = edges(link.seen(direction))[3]
            return link.seen(direction)[before:][: len(data)]
        if what == "left-out":
            return data[len(data) // 2 :]
        return bytes(len(data))

    relay.change = change
    result = attacked(pair)
    reader = result.server if way == "there" else result.client
    assert reader["errors"], "whoever reads must be told"


@pytest.mark.parametrize("where", ["between-records", "within-a-record"])
@pytest.mark.parametrize("way", ["there", "back"])
def test_an_end_that_nobody_meant_is_an_error(pair, relay, where, way):
    def change(link, direction, offset, data):
        if direction != way:
            return data
        begins = [at for at in edges(link.seen(direction)) if at >= LATER]
        if not begins or begins[0] >= offset + len(data):
            return data
        cut = begins[0] - (0 if where == "between-records" else 5)
        if offset <= cut:
            link.send(direction, data[: cut - offset])
            link.end(direction)
        return b""

    relay.change = change
    result = attacked(pair)
    assert (result.server if way == "there" else result.client)["errors"], "whoever reads must be told"


@pytest.mark.parametrize("way", ["there", "back"])
def test_an_end_within_the_handshake_is_an_error_and_nobody_is_accepted(pair, relay, way):
    def change(link, direction, offset, data):
        if direction != way:
            return data
        if not offset:
            link.send(direction, data[:70])
            link.end(direction)
        return b""

    relay.change = change
    with listening_at(pair) as listening:
        refused(pair, listening)


def test_two_streams_that_are_spliced_open_nothing(pair, relay):
    """The handshake of one connection, the records of another that is under way."""
    first = socket_at(pair)
    with contextlib.ExitStack() as held:
        listening = held.enter_context(listening_at(pair))
        one = held.enter_context(first)
        one.connect((entrance(pair), PORT))
        one.sendall(b"first" * 1000)
        accepted = held.enter_context(listening.accept()[0])
        accepted.settimeout(PATIENCE)
        assert accepted.recv(5) == b"first"
        other = relay.links[0].seen("there")[HELLO_LENGTH:]

        def spliced(link, direction, offset, data):
            if link.number == 0 or direction == "back":
                return data
            return (data[:HELLO_LENGTH] if offset < HELLO_LENGTH else b"") + other

        relay.change = spliced
        refused(pair, listening)
        relay.change = honest
        one.sendall(b"more")
        rest = b""
        while len(rest) < len(b"first" * 999 + b"more"):
            rest += accepted.recv(10000)
        assert rest == b"first" * 999 + b"more", "the one that was copied goes on"


@pytest.mark.parametrize("kind", [1, 2, 4])
def test_messages_of_other_carriers_and_directions_are_refused(pair, relay, kind):
    """Kinds 1 and 2 are made for SYNs, kind 4 is an answer: none of them opens a stream."""

    def other_kind(link, direction, offset, data):
        return data[:5] + bytes((kind,)) + data[6:] if direction == "there" and not offset else data

    relay.change = other_kind
    with listening_at(pair) as listening:
        refused(pair, listening)


def refused(pair, listening) -> None:
    """Who dials now gets an error, and nobody is accepted."""
    with socket_at(pair) as a:
        with pytest.raises(ConnectionError):
            a.connect((entrance(pair), PORT))
            a.sendall(b"hello")
            assert a.recv(100), "an error, and no end"
        listening.setblocking(False)
        with pytest.raises(BlockingIOError):
            listening.accept()


def socket_at(pair) -> socket.socket:
    made = pair.a.socket()
    made.settimeout(PATIENCE)
    return made


@contextlib.contextmanager
def listening_at(pair):
    with pair.b.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((pair.b.v4, PORT))
        listening.listen(16)
        listening.settimeout(PATIENCE)
        yield listening
