"""Handshakes in the stream: which SYNs carry the other handshake, how long what waits, and how many may."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from mcencrypt.core import streamtable
from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.hello import DEADLINE
from mcencrypt.core.packet import Segment
from mcencrypt.core.status import State
from mcencrypt.core.verdict import DROP
from tests.helpers.packets import ACK, FIN, RST, SYN
from tests.helpers.sides import (
    EDGE_A,
    ISN_A,
    ISN_B,
    SYN_OPTIONS,
    A,
    B,
    Side,
    key_of,
    make,
    pair,
)
from tests.helpers.stripped import Path, resets, stamps_of

BA = key_of(B, A)


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
