"""Which message belongs to which attempt, how many attempts there may be, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mcencrypt.core import admission, engine
from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.status import State
from mcencrypt.core.verdict import DROP
from tests.helpers.packets import ACK, PSH, RST, SYN, Packet, options_of
from tests.helpers.sides import (
    EDGE_A,
    ISN_A,
    ISN_B,
    OTHER,
    A,
    B,
    Host,
    Side,
    connect,
    connected,
    from_a,
    from_b,
    identity,
    key_of,
    make,
    pair,
    say,
)

SECOND: Host = (A[0], 40001)


# -- attempts, and which message belongs to which


def test_a_repeated_syn_carries_the_same_bytes_and_another_one_does_not() -> None:
    a = Side()
    first = a.dials()
    assert a.dials() == first
    second = a.dials(ISN_A + 1)
    assert second.payload != first.payload
    assert second.payload[30:62] != first.payload[30:62], "a new ephemeral key"


def test_a_repeated_answer_carries_the_same_message_and_another_one_does_not() -> None:
    a, b = pair()
    syn = a.dials()
    b.gets(syn)
    first = b.answers(ISN_B)
    assert b.answers(ISN_B) == first
    second = b.answers(ISN_B + 1)
    assert second[30:62] != first[30:62], "a new ephemeral key"
    b.gets(syn)
    assert (b.answers(ISN_B), b.answers(ISN_B + 1)) == (first, second), "also behind a repeated SYN"


@pytest.mark.parametrize("lives", [0, 1, 2, 3])
def test_whichever_answer_arrives_the_keys_fit(lives: int) -> None:
    a, b = pair()
    b.gets(a.dials())
    answers = [b.sends(make(B, A, ISN_B + 100 * n, ISN_A + 1, SYN | ACK)) for n in range(4)]
    assert b.egress(make(B, A, ISN_B + 400, ISN_A + 1, SYN | ACK)) is DROP
    assert b.refused == {"too-many-attempts": 1}
    isn = ISN_B + 100 * lives
    assert a.gets(answers[lives]).seq == isn
    wire = a.sends(make(A, B, ISN_A + 1, isn + 1, ACK | PSH, b"first"))  # the bare ACK was lost
    assert b.gets(wire).payload == b"first"
    wire = b.sends(make(B, A, isn + 1, ISN_A + 6, ACK | PSH, b"second"))
    assert a.gets(wire).payload == b"second"


def test_a_handshake_is_consumed_once() -> None:
    a, b = pair()
    b.gets(a.dials())
    answer = b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    other = b.sends(make(B, A, ISN_B + 1, ISN_A + 1, SYN | ACK))
    a.gets(answer)
    for again in (answer, make(B, A, ISN_B, EDGE_A, SYN | ACK, bytes(HELLO_LENGTH))):
        seen = a.gets(again)
        assert (seen.flags, seen.ack, seen.payload) == (SYN | ACK, ISN_A + 1, b"")
    for stray in (other, make(B, A, 31337, EDGE_A, SYN | ACK)):
        assert a.ingress(stray) is DROP
    assert a.refused == {"stray-syn-ack": 2} and a.injected() == [] and a.sockets() == set()
    b.gets(a.sends(make(A, B, ISN_A + 1, ISN_B + 1, ACK)))
    assert a.gets(from_b(b, b"alive")).payload == b"alive"
    assert b.answers(ISN_B) == answer.payload, "our socket may repeat its answer"


@pytest.mark.parametrize("at", [1, 7, 300])
def test_a_first_segment_that_is_late_completes_the_connection(at: int) -> None:
    a, b = pair()
    b.gets(a.dials())
    a.gets(b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)))
    a.sends(make(A, B, ISN_A + 1, ISN_B + 1, ACK))
    from_a(a, b"x" * at)
    seen = b.gets(from_a(a, b"second", at=at))
    assert seen.payload == b"second" and seen.ack == ISN_B + 1, "a half-open socket resets any other number"
    assert seen.seq == ISN_A + 1 + at


def test_numbers_of_a_half_open_connection_pass_as_they_are() -> None:
    a, b = pair()
    b.gets(a.dials())
    b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    seen = b.gets(make(A, B, 5, 6, ACK, b"payload"))
    assert (seen.seq, seen.ack, seen.payload) == (5, 6, b"")
    assert b.sends(make(B, A, 6, 0, RST)).seq == 6


@pytest.mark.parametrize(("source", "isn"), [((OTHER[0], A[1]), ISN_A), ((A[0], A[1] + 1), ISN_A), (A, ISN_A + 1)])
def test_a_recorded_syn_opens_nothing(source: Host, isn: int) -> None:
    a, b = pair()
    syn = a.dials()
    assert b.gets(syn).flags == SYN
    assert b.ingress(make(source, B, isn, 0, SYN, syn.payload)) is DROP
    assert b.refused == {"replayed": 1} and b.injected() == []
    assert b.rejected().reason == "replayed"
    assert b.gets(syn).flags == SYN, "the true one may be repeated"
    verdict = b.egress(make(B, source, ISN_B, isn + 1, SYN | ACK))
    assert not isinstance(verdict, Packet) or not verdict.payload, "no message 2 for an answer to it"


def test_a_recorded_syn_opens_nothing_once_its_connection_is_gone() -> None:
    a, b = pair()
    hello = a.dials().payload
    connect(a, b)
    b.table.forget(key_of(B, A))
    assert b.ingress(make(OTHER, B, ISN_A, 0, SYN, hello)) is DROP
    assert b.refused == {"replayed": 1}


def test_both_dialling_at_once_is_refused() -> None:
    a, b = pair()
    syn_a, syn_b = a.dials(), b.dials(ISN_B, B, A)
    assert a.ingress(syn_b) is DROP
    assert b.ingress(syn_a) is DROP
    assert a.refused == b.refused == {"simultaneous-open": 1}
    assert a.rejected().reason == "simultaneous-open"
    assert a.table.encrypted_keys() == []


def test_fast_open_is_stripped() -> None:
    a, b = pair()
    options = b"\x02\x04\x05\xb4" + b"\x22\x0a" + b"cookie!!" + b"\x01\x01"
    wire = a.sends(make(A, B, ISN_A, 0, SYN, b"early plaintext", options))
    assert len(wire.payload) == HELLO_LENGTH
    assert b"early" not in wire.build()
    assert wire.options == b"\x02\x04\x05\xb4" + b"\x01" * 12
    seen = b.gets(replace(wire, options=options))
    assert seen.payload == b""
    assert list(options_of(seen.options)) == [2]
    answer = b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK, b"", options))
    assert list(options_of(answer.options)) == [2]


# -- bounds


def test_attempts_of_one_address_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_PER_ADDRESS", 3)
    monkeypatch.setattr(admission, "MAX_ANSWERING", 5)
    a, b = pair()

    def attempt(host: int, port: int, now: float) -> bool:
        b.now = now
        return b.ingress(a.dials(local=(bytes((10, 0, 0, host)), port))) is not DROP

    assert [attempt(1, port, 0.0) for port in range(1, 6)] == [True, True, True, False, False]
    assert b.refused == {"too-many-attempts": 2}
    assert [attempt(3, port, 10.0) for port in range(1, 4)] == [True, True, False], "in all"
    assert attempt(1, 1, 10.0), "a repeated SYN is no new attempt"
    assert len(b.states()) == 5
    b.engine.tick(admission.LIFETIME)
    assert len(b.states()) == 2
    assert attempt(1, 4, 80.0), "their places are free again"
    b.engine.tick(10 * admission.LIFETIME)
    b.untouched()


def test_our_own_dials_are_bounded() -> None:
    a = Side()
    a.engine.admission.dials.limit = 2
    for port in (1, 2):
        a.dials(local=(A[0], port))
    assert a.egress(make((A[0], 3), B, ISN_A, 0, SYN)) is DROP
    assert a.refused == {"too-many-attempts": 1}
    a.dials(local=(A[0], 2), isn=77)
    a.engine.tick(admission.LIFETIME)
    a.dials(local=(A[0], 3))


def test_who_has_proven_nothing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_UNCONFIRMED", 1)
    a, b = connected()
    assert b.ingress(a.dials(local=SECOND)) is DROP
    assert b.refused == {"too-many-attempts": 1}
    say(a, b, b"it is me")
    connect(a, b, local=SECOND)
    third: Host = (A[0], 40002)
    assert b.ingress(a.dials(local=third)) is DROP
    b.table.forget(key_of(B, SECOND))
    connect(a, b, local=third)


# -- what is refused changes nothing


def test_what_a_limit_refuses_takes_no_place_in_the_replay_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_PER_ADDRESS", 3)
    a, b = pair()
    for port in range(1, 100):
        b.ingress(a.dials(local=(A[0], port)))
    assert b.refused == {"too-many-attempts": 96}
    assert len(b.engine.admission.replays) == 3
    assert set(b.engine.admission._per_address.values()) == {3}


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"listed": frozenset([identity(3)])}, "not-listed"), ({}, "clock-skew"), ({}, "simultaneous-open")],
)
def test_what_is_refused_is_not_remembered(change: dict[str, frozenset[bytes]], reason: str) -> None:
    a, b = Side(1), Side(2, **change)
    if reason == "clock-skew":
        a.unix_ms -= 700_000
    if reason == "simultaneous-open":
        b.dials(ISN_B, B, A)
    for _ in range(3):
        assert b.ingress(a.dials()) is DROP
    assert b.refused == {reason: 3}
    assert len(b.engine.admission.replays) == 0 and not b.engine.admission._per_address
    assert b.engine.admission.answering == {}


def test_a_recorded_syn_is_refused_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its mac1 is right, so it would cost what a valid one costs."""
    a, b = pair()
    syn = a.dials()
    b.gets(syn)
    monkeypatch.setattr(admission, "Answer", lambda *anything: pytest.fail("it was opened"))
    assert b.ingress(make(OTHER, B, ISN_A, 0, SYN, syn.payload)) is DROP
    assert b.refused == {"replayed": 1}
    assert b.gets(syn).flags == SYN, "the true one may be repeated"


def test_valid_messages_from_a_clock_ahead_shut_out_nobody() -> None:
    """An insider's, whose attempts end as soon as they are made."""
    a, b, c = Side(1), Side(2), Side(3)
    b.engine.admission.replays.limit = 64
    a.unix_ms += 600_000
    for port in range(1, 200):
        local = (bytes((10, 1, 1, 1 + port % 2)), port)
        b.ingress(a.dials(local=local))
        b.ingress(make(local, B, ISN_A + 1 + HELLO_LENGTH, 0, RST))
    assert b.engine.admission.answering == {} and b.refused["clock-skew"] > 100
    connect(c, b, local=SECOND)


def test_what_a_dial_becomes_can_wait_until_its_verdict_is_given() -> None:
    a, b = pair()
    behind: list[Callable[[], None]] = []
    a.engine.put_behind(behind.append)
    b.gets(a.dials())
    seen = a.gets(b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)))
    assert (seen.flags, seen.ack) == (SYN | ACK, ISN_A + 1), "our socket hears at once"
    assert a.states() == [State.HANDSHAKE] and len(behind) == 1
    behind.pop()()
    assert a.states() == [State.ENCRYPTED] and not a.engine.admission.dialling
    a.engine.put_behind(lambda work: work())
    b.gets(a.sends(make(A, B, ISN_A + 1, ISN_B + 1, ACK)))
    say(a, b, b"words")


def test_a_refused_answer_leaves_nothing_to_be_done() -> None:
    a, b = pair()
    behind: list[Callable[[], None]] = []
    a.engine.put_behind(behind.append)
    b.gets(a.dials())
    answer = b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    broken = replace(answer, payload=answer.payload[:-1] + bytes((answer.payload[-1] ^ 1,)))
    assert a.gets(broken).flags == RST | ACK
    assert behind == [] and a.states() == []
