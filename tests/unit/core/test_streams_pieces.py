"""Streams behind relays: how they end, and records that come in pieces."""

from __future__ import annotations

from dataclasses import replace

from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.receiving import SPOILT_AFTER
from mcencrypt.core.record import OVERHEAD
from mcencrypt.core.status import State
from mcencrypt.core.verdict import DROP, Ended
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN, Packet
from tests.helpers.sides import (
    EDGE_A,
    EDGE_B,
    ISN_A,
    ISN_B,
    A,
    B,
    key_of,
    make,
    pair,
)
from tests.helpers.stripped import Path, resets, stamped, stamps_of

BA = key_of(B, A)


# -- ends


def test_an_end_without_the_peers_word_is_an_error_for_the_reader() -> None:
    path = Path()
    path.connected()
    path.b.events()
    seen = path.b.gets(stamped(make(A, B, EDGE_A + 5 + OVERHEAD, EDGE_B, ACK | FIN), 102))
    assert not seen.flags & FIN
    assert resets(path.b.injected(), "socket") == {ISN_A + 6}
    assert path.b.kinds() == [Ended] and path.b.sockets() == {BA}


def test_what_a_relay_repeats_and_never_verifies_is_an_error_for_the_reader() -> None:
    path = Path()
    path.connected(b"hello")
    path.b.sends(path.from_b(acked=5))
    wire = path.a.sends(path.from_a(b"and more", 5, stamp=102))
    spoilt = replace(wire, payload=wire.payload[:-1] + bytes((wire.payload[-1] ^ 1,)))
    for at in (1.0, 1.2, 1.6, 2.4, 3.9):
        path.at(at)
        assert path.b.ingress(spoilt) is DROP
        assert not resets(path.b.injected(), "socket"), "a stranger can have sent it"
    path.at(4.1)
    assert path.b.ingress(spoilt) is DROP
    packets = path.b.injected()
    assert resets(packets, "socket") and resets(packets, "network")
    assert path.b.sockets() == {BA}


def test_a_handshake_with_the_records_of_another_connection_ends_three_seconds_later() -> None:
    """And not at once: a stranger can have sent it, or it was damaged, and then the true one follows."""
    path = Path()
    true = path.spoken(b"hello")
    record = replace(true, payload=true.payload[:-1] + bytes((true.payload[-1] ^ 1,)))
    for at in (1.0, 1.2, 2.9, 3.9):
        path.at(at)
        assert path.b.ingress(record) is DROP
        path.b.engine.streams.tick(at)
        assert not resets(path.b.injected(), "network")
    path.b.engine.streams.tick(1.0 + SPOILT_AFTER)
    packets = path.b.injected()
    assert resets(packets, "network") == {EDGE_B, ISN_B + 1} and resets(packets, "socket") == {ISN_A + 1}
    assert path.b.refused["tampered"] and path.b.rejected().reason == "tampered"
    # the true one in time, and all is well
    path = Path()
    assert path.spoken(b"hello") == true
    path.at(1.0)
    path.b.ingress(record)
    path.at(2.0)
    path.b.ingress(true)
    path.b.engine.streams.tick(2.1)
    assert [packet.payload for toward, packet in path.b.injected() if toward == "socket"][-1] == b"hello"
    path.b.engine.streams.tick(20.0)
    assert path.b.states() == [State.ENCRYPTED]


def test_what_fails_once_and_then_comes_as_it_was_ends_nothing() -> None:
    path = Path()
    path.connected(b"hello")
    path.b.sends(path.from_b(acked=5))
    for at, text in ((1.0, b"1"), (5.0, b"2"), (9.0, b"3")):
        path.at(at)
        wire = path.a.sends(path.from_a(text, 4 + int(text), stamp=int(at * 1000)))
        assert path.b.ingress(replace(wire, payload=wire.payload[:-1] + bytes((wire.payload[-1] ^ 1,)))) is DROP
        assert path.b.gets(wire).payload == text
        path.b.sends(path.from_b(acked=5 + int(text)))
    assert not path.b.sockets()


def test_the_word_that_this_is_the_end_is_acknowledged_before_the_end_comes() -> None:
    """pasta has data acknowledged before it passes on that the stream has ended, and our socket knows of no data."""
    path = Path()
    path.connected(b"hello")
    wire = path.a.sends(path.from_a(b"", 5, flags=ACK | FIN, stamp=102))
    assert wire.flags & FIN and len(wire.payload) == OVERHEAD
    word, end = replace(wire, flags=ACK), replace(wire, seq=wire.seq + OVERHEAD, payload=b"")
    # what our socket will say of what came before says that of this as well
    assert path.b.ingress(stamped(word, 200, 600)) is DROP
    assert path.b.injected() == []
    assert path.b.sends(path.from_b(acked=5)).ack == wire.seq + OVERHEAD
    # and where it has nothing left to say, we do
    path = Path()
    path.connected(b"hello")
    path.a.sends(path.from_a(b"", 5, flags=ACK | FIN, stamp=102))
    path.b.sends(path.from_b(acked=5))
    assert path.b.ingress(stamped(word, 200, 600)) is DROP
    ((toward, answer),) = path.b.injected()
    assert toward == "network" and answer.ack == wire.seq + OVERHEAD
    assert stamps_of(answer) == (600, 200)
    seen = path.b.gets(stamped(word, 201, 600))
    assert seen.seq + len(seen.payload) == ISN_A + 6, "something old, which our socket answers"
    for again in (end, replace(wire, flags=ACK | FIN)):
        seen = path.b.gets(stamped(again, 202, 600))
        assert (seen.seq, seen.payload, seen.flags & FIN) == (ISN_A + 6, b"", FIN)
    assert path.b.sends(path.from_b(acked=6)).ack == wire.seq + OVERHEAD + 1


def test_an_end_elsewhere_in_the_window_ends_nothing() -> None:
    path = Path()
    path.connected()
    path.b.gets(stamped(make(A, B, EDGE_A + 5 + OVERHEAD + 1, EDGE_B, ACK | FIN), 102))
    assert path.b.injected() == [] and path.b.sockets() == set()


def test_direct_connections_know_no_such_end() -> None:
    a, b = pair()
    b.gets(a.dials())
    a.gets(b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)))
    a.gets(make(B, A, EDGE_B, EDGE_A, ACK | FIN))
    assert a.sockets() == set()


# -- pieces


def test_pieces_are_acknowledged_so_that_a_relay_goes_on() -> None:
    path = Path()
    path.connected()
    wire = path.a.sends(path.from_a(b"0123456789" * 10, 5))
    path.b.sends(path.from_b(acked=5))
    for at in range(120):
        piece = stamped(replace(wire, seq=wire.seq + at, payload=wire.payload[at : at + 1]), 200 + at, 600)
        path.b.ingress(piece)
        ((toward, answer),) = path.b.injected()
        assert toward == "network" and answer.ack == wire.seq + at + 1
        assert stamps_of(answer) == (600, 200 + at)
    seen = path.b.gets(stamped(replace(wire, seq=wire.seq + 120, payload=wire.payload[120:]), 400))
    assert seen.payload == b"0123456789" * 10 and path.b.injected() == []


def test_a_record_that_our_socket_did_not_take_comes_again_from_what_the_relay_repeats() -> None:
    """The relay repeats only what was not acknowledged; the rest was, and is kept."""
    path = Path()
    path.connected()
    wire = path.a.sends(path.from_a(b"0123456789" * 10, 5))
    path.b.sends(path.from_b(acked=5))
    first, rest = replace(wire, payload=wire.payload[:50]), replace(wire, seq=wire.seq + 50, payload=wire.payload[50:])
    path.b.ingress(stamped(first, 200, 600))
    assert path.b.gets(stamped(rest, 201, 600)).payload == b"0123456789" * 10
    for _ in range(2):
        assert path.b.gets(stamped(rest, 202, 600)).payload == b"0123456789" * 10
    # in smaller pieces as well
    for at in (50, 80):
        seen = path.b.ingress(stamped(replace(wire, seq=wire.seq + at, payload=wire.payload[at : at + 30]), 203, 600))
    seen = path.b.gets(stamped(replace(wire, seq=wire.seq + 110, payload=wire.payload[110:]), 204, 600))
    assert seen.payload == b"0123456789" * 10
    path.b.sends(path.from_b(acked=105))
    assert not path.b.engine.table.by_local[BA].ingress.fragments


def cut(path: Path, sizes: tuple[int, ...]) -> tuple[int, bytes, list[int]]:
    """Records of these sizes: the sequence number and the bytes of all, and where each begins in them."""
    wires, at = [], 5
    for size in sizes:
        wires.append(path.a.sends(path.from_a(bytes((size,)) * size, at, stamp=102)))
        at += size
    starts = [wire.seq - wires[0].seq for wire in wires]
    return wires[0].seq, b"".join(wire.payload for wire in wires), starts


def test_a_record_that_waits_in_pieces_is_opened_by_whatever_ends_at_its_beginning() -> None:
    """Nobody would send it again: it is here, and so it would be acknowledged."""
    path = Path()
    path.connected()
    path.b.sends(path.from_b(acked=5))
    seq, data, (_, one, two, three) = cut(path, (100, 77, 61, 50))

    def arrives(start: int, end: int) -> list[bytes]:
        packet = make(A, B, seq + start, EDGE_B, ACK | PSH, data[start:end])
        verdict = path.b.ingress(stamped(packet, 200, 600))
        packets = [verdict] if isinstance(verdict, Packet) else []
        packets += [packet for toward, packet in path.b.injected() if toward == "socket"]
        return [packet.payload for packet in packets if packet.payload]

    assert arrives(0, 90) == []
    assert arrives(one - 5, one + 40) == arrives(one + 40, two) == []
    assert arrives(two, three) == [bytes((61,)) * 61]
    assert b"".join(arrives(90, one)) == bytes((100,)) * 100 + bytes((77,)) * 77


def test_no_record_is_acknowledged_to_its_end_before_our_socket_has_it() -> None:
    """What it does not take has to come again, and a relay sends nothing again that is acknowledged."""
    path = Path()
    path.connected()
    path.b.sends(path.from_b(acked=5))
    seq, data, (_, one, two) = cut(path, (100, 77, 61))
    (flow,) = path.b.table.by_local.values()
    flow.ingress.fragments.add(EDGE_A + 27 - ISN_A - 1, data[: two + 10])  # however it came about
    assert flow.promise() == 27 + HELLO_LENGTH + one - 1
    path.b.ingress(stamped(make(A, B, seq + two, EDGE_B, ACK | PSH, data[two : two + 10]), 200, 600))
    again = stamped(make(A, B, seq + one - 1, EDGE_B, ACK | PSH, data[one - 1 : one]), 201, 600)
    assert path.b.gets(again).payload.startswith(bytes((100,)) * 100)


def test_what_our_socket_has_no_room_for_waits_until_it_has() -> None:
    """A segment that ends behind the window would be refused, and the acknowledgement in it as well."""
    path = Path()
    path.connected()
    data = bytes(range(100))
    records = [path.a.sends(path.from_a(data, 5)), path.a.sends(path.from_a(data, 105, flags=ACK | FIN))]
    (flow,) = path.b.table.by_local.values()
    flow.ingress.plain_right_edge = 45  # as if its SYN-ACK had offered no more
    seen = path.b.gets(stamped(records[0], 300, 600))
    assert (seen.seq, seen.payload) == (ISN_A + 6, data[:40])
    path.b.ingress(stamped(records[1], 301, 600))
    assert path.b.gets(stamped(records[0], 302, 600)).payload == data[:40], "the relay may say it again"
    got, acked = data[:40], 45
    for room in (1, 0, 100):  # in units of 128 bytes (the window scale)
        path.b.sends(replace(path.from_b(acked=acked, stamp=700), window=room))
        packets = path.b.injected()
        assert len(packets) == (room > 0)
        for toward, packet in packets:
            assert toward == "socket" and packet.seq == ISN_A + 1 + acked and len(packet.payload) <= room << 7
            got, acked = got + packet.payload, acked + len(packet.payload)
            path.b.sends(replace(path.from_b(acked=acked, stamp=701), window=0))
    assert got == data + data and packet.flags & FIN
    assert flow.withheld is None


def test_a_reset_behind_what_we_acknowledged_ourselves_is_exact() -> None:
    path = Path()
    path.connected()
    wire = path.a.sends(path.from_a(b"0123456789" * 10, 5))
    path.b.sends(path.from_b(acked=5))
    path.b.ingress(stamped(replace(wire, payload=wire.payload[:50]), 200, 600))
    seen = path.b.gets(make(A, B, wire.seq + 50, 0, RST))
    assert seen.seq == ISN_A + 6
    assert path.b.states() == [State.CLOSING]
