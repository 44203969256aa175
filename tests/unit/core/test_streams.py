"""Handshakes in the stream, as dialogues across a path that takes data out of SYNs."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from mcencrypt.core import streamtable
from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.hello import DEADLINE, MOVES, Phase, Turn
from mcencrypt.core.packet import Segment
from mcencrypt.core.receiving import SPOILT_AFTER
from mcencrypt.core.record import OVERHEAD
from mcencrypt.core.status import State
from mcencrypt.core.streamtable import SPEAKS_WITHIN
from mcencrypt.core.verdict import ACCEPT, DROP, Encrypted, Ended, Rejected
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN, Packet
from tests.helpers.sides import (
    A6,
    B6,
    EDGE_A,
    EDGE_B,
    ISN_A,
    ISN_B,
    OTHER,
    OTHER_KEY,
    SYN_OPTIONS,
    A,
    B,
    Host,
    Side,
    identity,
    key_of,
    make,
    pair,
)
from tests.helpers.stripped import Path, stamped, stamps_of

AB, BA = key_of(A, B), key_of(B, A)


def resets(packets: list[tuple[str, Packet]], toward: str) -> set[int]:
    """The sequence numbers of the resets toward somebody."""
    return {packet.seq for where, packet in packets if where == toward and packet.flags & RST}


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


# -- which SYNs carry the handshake


def syns(side: Side, count: int, isn: int = ISN_A, port: int = 40000) -> str:
    """What one attempt sends: "1" for a SYN with message 1, "-" for a bare one."""
    sent = [side.dials(isn, (A[0], port)) for _ in range(count)]
    return "".join("1" if packet.payload else "-" for packet in sent)


def test_bare_syns_go_to_relays_and_where_nobody_has_answered() -> None:
    assert syns(Side(relayed=(ip_network("10.0.0.2/32"),)), 6) == "11-1-1"
    a = Side()
    assert syns(a, 6) == "111111"
    assert syns(a, 6, 7, 40001) == "11-1-1", "the attempt before had no answer"
    a = Side(mode="prefer")
    syns(a, 6)
    assert syns(a, 6, 7, 40001) == "111111", "a peer would take a bare one for one in plaintext"


def test_an_answer_ends_the_suspicion() -> None:
    a, b = pair()
    syns(a, 3)
    b.gets(a.dials(7, (A[0], 40001)))
    a.gets(b.sends(make(B, (A[0], 40001), ISN_B, 8, SYN | ACK)))
    assert syns(a, 6, 9, 40002) == "111111"


def test_a_path_that_only_bare_syns_pass_is_remembered_once_the_handshake_has_succeeded() -> None:
    path = Path(relayed=(ip_network("10.0.0.2/32"),))
    a = path.a
    assert syns(a, 2) == "11"
    path.connected()
    assert syns(a, 6, 9, 40002) == "--1-1-"
    # and it is forgotten once message 1 in a SYN is answered
    syn = [a.dials(11, (A[0], 40003)) for _ in range(3)][2]
    b = Side(2)
    b.gets(syn)
    a.gets(b.sends(make(B, (A[0], 40003), ISN_B, 12, SYN | ACK)))
    assert syns(a, 3, 13, 40004) == "11-"


def test_a_path_on_which_data_in_a_syn_is_taken_for_the_stream_is_tried_bare_next_time() -> None:
    a = Side()
    a.dials()
    seen = a.gets(make(B, A, ISN_B, EDGE_A, SYN | ACK))
    assert (seen.flags, seen.ack) == (RST | ACK, ISN_A + 1)
    assert resets(a.injected(), "network") == {EDGE_A}
    assert syns(a, 3, 7, 40001) == "--1"


@pytest.mark.parametrize("how", ["reset", "end", "silence"])
def test_where_a_handshake_in_the_stream_came_to_nothing_the_next_attempt_begins_bare(how: str) -> None:
    """slirp4netns acknowledges the SYN alone, and passes on what was in it all the same.

    If it was a peer that was switched on meanwhile, it answers the second SYN.
    """
    path = Path()
    path.opened()
    if how == "silence":
        path.a.engine.streams.tick(DEADLINE)
    else:
        path.a.ingress(path.from_b(flags=RST | ACK if how == "reset" else FIN | ACK, acked=HELLO_LENGTH))
    assert syns(path.a, 4, 7, 40001) == "-1-1"


def test_the_first_syn_of_an_attempt_says_how_its_handshake_travels() -> None:
    a, b = Side(1), Side(2, relayed=(ip_network("10.0.0.1/32"),))
    syn = a.dials()
    b.gets(syn)
    b.gets(replace(syn, payload=b""))
    assert b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)).payload.startswith(b"mcen\1\2")
    b = Side(2, relayed=(ip_network("10.0.0.1/32"),))
    b.gets(replace(syn, payload=b""))
    assert b.gets(syn).payload == b""
    assert b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)).payload == b""


# -- time


def test_after_a_long_wait_our_socket_answers_the_syn_again_and_finds_that_time_echoed() -> None:
    path = Path()
    record = path.spoken(b"hello")
    path.at(3.0)
    assert path.b.ingress(record) is DROP
    ((toward, syn),) = path.b.injected()
    assert toward == "socket" and syn.flags == SYN and syn.seq == ISN_A and syn.payload == b""
    assert path.b.ingress(record) is DROP, "again"
    again = replace(
        make(B, A, ISN_B, ISN_A + 1, SYN | ACK), options=SYN_OPTIONS.replace(b"\x08\x0a\0\0\0\1", b"\x08\x0a\0\0\x0b\1")
    )
    assert path.b.egress(again) is DROP, "the relay has one"
    given = path.b.injected()
    assert [toward for toward, _ in given] == ["socket", "socket"]
    assert given[0][1].payload == b"hello" and stamps_of(given[0][1])[1] == 0xB01
    assert path.b.states() == [State.ENCRYPTED]


def test_what_our_socket_finds_echoed_after_a_long_wait_is_as_old_as_the_round_trip() -> None:
    """Without it a socket at the end of a long leg would send everything again, before an answer can come."""
    path = Path()
    syn = replace(path.a.dials(), payload=b"")
    path.b.gets(syn)
    path.b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    path.at(0.3)
    path.b.ingress(path.from_a())
    path.at(4.0)
    (answered,) = path.b.engine.streams.answering.values()
    assert answered.round_trip == pytest.approx(0.3)
    again = make(B, A, ISN_B, ISN_A + 1, SYN | ACK, options=SYN_OPTIONS)
    assert answered.take_answer(Segment(again.build())) == 1 - 300 & 0xFFFFFFFF


def test_a_socket_that_does_not_answer_the_syn_again_gets_what_came_anyhow() -> None:
    path = Path()
    record = path.spoken(b"hello")
    path.at(3.0)
    path.b.ingress(record)
    path.b.injected()
    path.b.engine.streams.tick(3.2)
    ((toward, given),) = path.b.injected()
    assert toward == "socket" and given.payload == b"hello"


def test_a_syn_ack_that_our_socket_repeats_later_does_not_leave() -> None:
    path = Path()
    path.connected()
    assert path.b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)) is DROP
    assert path.b.sockets() == set()


# -- bounds


def test_a_full_table_gives_up_the_oldest_that_has_shown_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamtable, "MAX_ANSWERING", 3)
    path = Path()
    path.answered()
    for port in range(3):
        path.b.gets(make((A[0], 50000 + port), B, 7, 0, SYN))
    assert len(path.b.states()) == 3 and path.b.refused == {"too-many-attempts": 1}
    assert BA in path.b.engine.streams.answering, "the one that has shown the key stays"


def test_a_reload_that_takes_the_relay_away_ends_what_is_under_way() -> None:
    path = Path()
    path.answered()
    path.b.takes(relayed=())
    assert path.b.states() == []


def test_a_syn_from_a_relay_does_not_harm_what_lives_on_its_ports() -> None:
    path = Path()
    path.connected()
    path.b.events()
    path.b.gets(make(A, B, ISN_A + 5000, 0, SYN))
    wire = path.a.sends(path.from_a(b"still here", 5))
    assert path.b.gets(wire).payload == b"still here"
    # our own kernel shows whether it takes the new one
    path.b.sends(make(B, A, ISN_B + 9, ISN_A + 5001, SYN | ACK))
    assert path.b.table.encrypted_keys() == []


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
