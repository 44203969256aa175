"""Handshakes in the stream, as dialogues across a path that takes data out of SYNs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.hello import DEADLINE, MOVES, Phase, Turn
from mcencrypt.core.record import OVERHEAD
from mcencrypt.core.status import State
from mcencrypt.core.streamtable import SPEAKS_WITHIN
from mcencrypt.core.verdict import ACCEPT, DROP, Encrypted, Rejected
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN
from tests.helpers.sides import (
    A6,
    B6,
    EDGE_A,
    EDGE_B,
    ISN_A,
    ISN_B,
    OTHER,
    OTHER_KEY,
    A,
    B,
    Host,
    Side,
    identity,
    key_of,
    make,
)
from tests.helpers.stripped import Path, resets, stamped, stamps_of

AB = key_of(A, B)


# -- two nodes


@pytest.mark.parametrize(("local", "remote"), [(A, B), (A6, B6)])
@pytest.mark.parametrize("isn", [ISN_A, 2**32 - 1, 2**32 - 140])
def test_two_nodes_talk_encrypted(local: Host, remote: Host, isn: int) -> None:
    path = Path(local, remote, (isn, isn + 7))
    a, b = path.a, path.b
    seen = path.connected(b"what nobody may read")
    assert (seen.seq, seen.ack) == ((isn + 1) % 2**32, (isn + 8) % 2**32)
    assert seen.payload == b"what nobody may read"
    wire = b.sends(path.from_b(b"nor this", acked=20))
    assert b"nor this" not in wire.build()
    assert wire.seq == (isn + 8 + HELLO_LENGTH) % 2**32
    assert wire.ack == (isn + 1 + HELLO_LENGTH + 20 + OVERHEAD) % 2**32
    assert a.gets(wire).payload == b"nor this"
    assert a.events() == [Encrypted(key_of(local, remote), identity(2), streamed=True)]
    assert b.events() == [Encrypted(key_of(remote, local), identity(1), streamed=True)]
    a.engine.streams.tick(SPEAKS_WITHIN)
    for side in (a, b):
        (shown,) = side.engine.connections(0.0)
        assert (shown.state, shown.carrier, shown.outgoing) == (State.ENCRYPTED, "stream", side is a)
        assert not side.engine.streams and side.refused == {}


def test_our_socket_may_send_once_the_keys_are_there_and_not_before() -> None:
    path = Path()
    told = path.keyed()
    assert (told.flags, told.seq, told.ack) == (ACK, ISN_B + 1, ISN_A + 1)
    assert stamps_of(told) == (1, 100), "the far side's newest, and what our socket has sent"
    (flow,) = path.a.table.by_local.values()
    assert 0 < told.window << flow.remote_scale == flow.egress.shown_edge
    record = path.a.sends(path.from_a(b"hello", stamp=250))
    assert record.ack == EDGE_B, "and message 2 is acknowledged with it"
    assert stamps_of(record)[0] == 250
    assert path.b.gets(record).payload == b"hello"
    path.a.engine.streams.tick(1.0)
    assert path.a.injected() == [] and not path.a.engine.streams, "nothing is owed to a far side that has a record"


def test_a_socket_that_asks_for_a_window_brings_message_1_once_more_until_the_far_side_has_it() -> None:
    path = Path()
    opened = path.opened()
    probe = path.from_a(at=-1, stamp=900)
    assert path.a.sends(probe) == opened
    path.at(0.2)
    path.a.engine.streams.tick(0.2)
    ((_, timed),) = path.a.injected()
    assert timed == opened
    assert path.a.ingress(path.from_b(acked=HELLO_LENGTH)) is DROP
    assert path.a.egress(probe) is DROP


def test_a_syn_ack_that_comes_again_offers_no_window_either() -> None:
    path = Path()
    opened = path.opened()
    seen = path.a.gets(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    assert (seen.flags, seen.ack, seen.window) == (SYN | ACK, ISN_A + 1, 0)
    assert path.a.sends(path.from_a()) == opened


def test_messages_are_sent_again_until_they_are_acknowledged() -> None:
    path = Path()
    opened = path.opened()
    a, b, under_way = path.a, path.b, path.a.engine.streams
    times = []
    for step in range(100):
        now = step / 20
        assert under_way.next_time() is not None
        under_way.tick(now)
        times += [now for toward, packet in a.injected() if packet == opened]
    assert times == pytest.approx([0.2, 0.6, 1.4, 3.0], abs=0.11)
    assert a.ingress(path.from_b(acked=HELLO_LENGTH)) is DROP
    under_way.tick(9.9)
    assert a.injected() == []
    # and message 2, until the other end has acknowledged it
    b.ingress(opened)
    ((_, message),) = b.injected()
    b.engine.streams.tick(0.2)
    ((_, again),) = b.injected()
    assert again.payload == message.payload and again.ack == EDGE_A
    assert b.ingress(stamped(make(A, B, EDGE_A, EDGE_B, ACK), 101)) is DROP
    b.engine.streams.tick(5.0)
    assert b.injected() == []


def test_a_silent_dialler_sends_a_record_of_nothing_until_it_is_acknowledged() -> None:
    path = Path()
    path.keyed()
    path.a.engine.streams.tick(0.0)
    assert path.a.injected() == [], "it may speak itself"
    path.a.engine.streams.tick(SPEAKS_WITHIN)
    ((_, nothing),) = path.a.injected()
    seen = path.b.gets(nothing)
    assert (seen.seq, seen.ack, seen.flags, seen.payload) == (ISN_A + 1, ISN_B + 1, ACK, b"")
    ((toward, acknowledged),) = path.b.injected()
    assert toward == "network" and acknowledged.ack == EDGE_A + OVERHEAD
    path.a.engine.streams.tick(0.25)
    ((_, again),) = path.a.injected()
    assert len(again.payload) == OVERHEAD
    assert stamps_of(again)[0] > 100, "our socket may have said something newer"
    path.a.ingress(acknowledged)
    path.a.engine.streams.tick(2.0)
    assert path.a.injected() == [] and not path.a.engine.streams
    welcome = path.b.sends(path.from_b(b"welcome"))
    assert path.a.gets(welcome).payload == b"welcome"


# -- who is answered


@pytest.mark.parametrize("relayed", [(), (ip_network("10.0.0.2/32"),), (ip_network("fd00::/8"),)])
def test_who_is_no_relay_gets_no_answer_to_a_bare_syn(relayed: tuple) -> None:  # type: ignore[type-arg]
    b = Side(2, relayed=relayed)
    assert b.ingress(make(A, B, ISN_A, 0, SYN)) is DROP
    b.untouched()


def test_our_socket_hears_nothing_before_a_record_has_verified() -> None:
    path = Path()
    path.answered()
    forged = stamped(make(A, B, EDGE_A, EDGE_B, ACK | PSH, bytes(200)), 102)
    for packet in (path.from_a(), path.from_a(b"x"), forged, stamped(make(A, B, EDGE_A, EDGE_B, ACK), 103)):
        assert path.b.ingress(packet) is DROP
    assert [toward for toward, _ in path.b.injected() if toward == "socket"] == []
    assert path.b.states() == [State.HANDSHAKE]
    assert path.b.events() == []


def test_message_1_may_come_in_pieces_of_any_order_and_each_is_acknowledged() -> None:
    path = Path()
    whole = path.opened().payload
    for at in range(0, HELLO_LENGTH - 1, 2):
        # the second byte first
        for number in (at + 1, at):
            assert path.b.ingress(path.from_a(whole[number : number + 1], number)) is DROP
        packets = path.b.injected()
        assert packets[-1][1].ack == ISN_A + 1 + at + 2
    assert packets[-1][1].payload.startswith(b"mcen\1\4")


@pytest.mark.parametrize("payload", [b"G", b"GET / HTTP/1.1\r\n\r\n", b"mcex"])
def test_what_is_no_handshake_is_reset_at_once(payload: bytes) -> None:
    path = Path()
    path.opened()
    assert path.b.ingress(path.from_a(payload)) is DROP
    packets = path.b.injected()
    assert resets(packets, "network") == {ISN_B + 1}
    assert resets(packets, "socket") == {ISN_A + 1}
    assert path.b.refused == {"not-a-handshake": 1} and path.b.states() == []


def test_a_message_that_was_made_for_a_syn_is_refused_in_a_stream() -> None:
    """Relays with TCP Fast Open put data of SYNs into the stream."""
    path = Path()
    message = path.a.dials().payload
    path.opened()
    assert path.b.ingress(path.from_a(message)) is DROP
    assert path.b.refused == {"malformed-handshake": 1} and path.b.states() == []


def test_a_stream_that_was_recorded_opens_nothing() -> None:
    path = Path()
    recorded = path.opened().payload
    path.b.ingress(path.from_a(recorded))
    path.b.injected()
    second: Host = (A[0], 40001)
    path.b.gets(make(second, B, 77, 0, SYN))
    path.b.sends(make(B, second, 88, 78, SYN | ACK))
    assert path.b.ingress(make(second, B, 78, 89, ACK | PSH, recorded)) is DROP
    assert path.b.refused == {"replayed": 1}
    assert resets(path.b.injected(), "socket") == {78}


def test_who_has_another_key_or_is_not_listed_is_named_and_refused() -> None:
    path = Path(keys=OTHER_KEY)
    path.b.ingress(path.opened())
    assert path.b.rejected().reason == "wrong-key"
    path = Path()
    path.b.takes(listed=frozenset())
    path.b.ingress(path.opened())
    assert path.b.rejected().reason == "not-listed"
    path = Path(listed=frozenset())
    assert path.a.ingress(path.answered()) is DROP
    assert path.a.rejected().reason == "not-listed"
    assert resets(path.a.injected(), "socket") == {ISN_B + 1}


def test_a_relay_may_reset_and_only_exactly() -> None:
    path = Path()
    path.answered()
    for side, packet, edge in ((path.b, make(A, B, 0, 0, RST), EDGE_A), (path.a, make(B, A, 0, 0, RST), ISN_B + 1)):
        seen = side.gets(replace(packet, seq=edge + 1))
        plain = (ISN_A if side is path.b else ISN_B) + 1
        assert seen.seq == plain + 1 and side.states() == [State.HANDSHAKE]
        assert side.gets(replace(packet, seq=edge)).seq == plain
        assert side.states() == []


def test_a_stream_that_ends_before_the_handshake_is_over_at_both_ends() -> None:
    path = Path()
    path.opened()
    assert path.b.ingress(path.from_a(flags=ACK | FIN)) is DROP
    packets = path.b.injected()
    assert resets(packets, "network") == {ISN_B + 1} and resets(packets, "socket") == {ISN_A + 1}
    assert path.b.states() == [] and path.b.events() == [], "health checks do that"
    assert path.a.ingress(path.from_b(flags=ACK | FIN)) is DROP
    packets = path.a.injected()
    assert resets(packets, "network") == {ISN_A + 1, EDGE_A}, "whether it has read message 1 or not"
    assert resets(packets, "socket") == {ISN_B + 1}
    assert path.a.kinds() == [Rejected]


def test_what_takes_too_long_is_reset_at_both_ends() -> None:
    path = Path()
    path.answered()
    for side in (path.a, path.b):
        side.engine.streams.tick(DEADLINE)
        packets = side.injected()
        assert resets(packets, "network") and resets(packets, "socket")
        assert side.states() == [] and side.refused == {"no-answer": 1}


# -- who dials


def test_whoever_answers_with_something_else_is_reset_at_once() -> None:
    path = Path()
    path.opened()
    assert path.a.ingress(path.from_b(b"220 welcome\r\n")) is DROP
    assert resets(path.a.injected(), "socket") == {ISN_B + 1}
    assert path.a.rejected().reason == "not-a-handshake"


def test_a_message_2_that_is_not_authentic_ends_nothing_and_is_not_acknowledged() -> None:
    path = Path()
    message = path.answered()
    forged = replace(message, payload=message.payload[:-1] + bytes((message.payload[-1] ^ 1,)))
    assert path.a.ingress(forged) is DROP
    assert path.a.injected() == [] and path.a.refused == {"forged-handshake": 1}
    path.a.ingress(message)
    assert path.a.states() == [State.ENCRYPTED]


def test_our_socket_may_give_up() -> None:
    path = Path()
    path.opened()
    assert path.a.egress(path.from_a(flags=RST)) is DROP
    assert resets(path.a.injected(), "network") == {ISN_A + 1, EDGE_A}
    assert path.a.states() == []


def test_prefer_takes_a_plain_answer_for_a_plain_peer_but_not_behind_a_relay() -> None:
    a = Side(mode="prefer")
    a.dials()
    assert a.ingress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)) is ACCEPT
    a = Side(mode="prefer", relayed=(ip_network("10.0.0.2/32"),))
    a.dials()
    a.gets(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    assert a.sends(make(A, B, ISN_A + 1, ISN_B + 1, ACK)).payload.startswith(b"mcen\1\3")
    left = a.sends(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"plaintext"))
    assert left.payload.startswith(b"mcen\1\3") and b"plaintext" not in left.payload


def test_the_handshake_in_a_syn_stays_what_it_was() -> None:
    a, b = Side(1), Side(2, relayed=(ip_network("10.0.0.1/32"),))
    b.gets(a.dials())
    a.gets(b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)))
    assert not a.engine.streams and not b.engine.streams
    (shown,) = a.engine.connections(0.0)
    assert shown.carrier == "syn"


# -- the table


def test_every_phase_can_end_and_no_turn_leads_back() -> None:
    order = list(Phase)
    assert all((phase, Turn.ENDED) in MOVES for phase in Phase)
    assert all(target is None or order.index(target) > order.index(phase) for (phase, _), target in MOVES.items())


def test_a_stranger_without_a_relay_has_nothing_to_do_with_it() -> None:
    path = Path()
    path.opened()
    assert path.b.ingress(make(OTHER, B, 1, 1, ACK | PSH, b"mcen")) is DROP
    assert path.b.states() == [State.HANDSHAKE]
    assert AB not in path.b.engine.streams.answering
