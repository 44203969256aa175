"""Whose key may be at the other end: not our own, and not one that is not listed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcencrypt.core.handshake import HELLO_LENGTH, Answer, Dial, NetworkSecret
from mcencrypt.core.identities import MAX_OWN
from mcencrypt.core.noise import KeyPair
from mcencrypt.core.verdict import DROP
from tests.helpers.packets import ACK, RST, SYN
from tests.helpers.sides import (
    EDGE_A,
    ISN_A,
    ISN_B,
    NETWORK_KEY,
    OTHER,
    A,
    B,
    Host,
    Side,
    connect,
    identity,
    key_of,
    make,
    pair,
    private_key,
)

SECRET = NetworkSecret(NETWORK_KEY)


@pytest.mark.parametrize("policy", [{}, {"mode": "prefer"}, {"listed": frozenset([identity(1)])}])
def test_our_own_syn_that_comes_back_is_refused_and_our_dial_fails_at_once(policy: dict[str, object]) -> None:
    """By NAT, which makes of our published address our own, or by somebody on the path."""
    a = Side(1, **policy)
    syn = a.dials()
    gateway: Host = (bytes((10, 0, 0, 254)), 40000)
    assert a.ingress(make(gateway, (A[0], B[1]), ISN_A, 0, SYN, syn.payload)) is DROP
    assert a.refused == {"own-key": 1} and a.rejected().reason == "own-key"
    [(toward, reset)] = a.injected()
    assert (toward, reset.key, reset.ack, reset.flags) == ("socket", make(B, A, 0, 0, 0).key, ISN_A + 1, RST | ACK)
    assert a.states() == [] and len(a.engine.admission.replays) == 0
    [(endpoint, known)] = a.engine.admission.identities.own_addresses.items()
    assert (endpoint, known.dials) == (B[0] + B[1].to_bytes(2, "big"), 1), "what was dialled, and not the gateway"


def test_our_own_syn_of_a_dial_that_is_over_is_refused() -> None:
    a, b = pair()
    syn = a.dials()
    connect(a, b, local=(A[0], 40001))
    a.engine.admission.dials.forget(make(A, B, 0, 0, 0).key)
    assert a.ingress(make(OTHER, (A[0], B[1]), ISN_A, 0, SYN, syn.payload)) is DROP
    assert a.refused == {"own-key": 1} and a.injected() == []


def test_few_addresses_that_lead_back_are_remembered_and_a_copy_is_none() -> None:
    a = Side(1)
    for port in range(MAX_OWN + 3):
        syn = a.dials(local=(A[0], 1000 + port), remote=(B[0], 2000 + port))
        a.ingress(make(OTHER, (A[0], B[1]), ISN_A, 0, SYN, syn.payload))
    known = a.engine.admission.identities.own_addresses
    assert [int.from_bytes(one[-2:], "big") for one in known] == list(range(2003, 2003 + MAX_OWN))
    twin = Side(1)
    twin.ingress(a.dials())
    assert twin.engine.admission.identities.own_addresses == {}


def test_a_copy_of_ourselves_is_refused() -> None:
    a, twin = Side(1), Side(1)
    assert twin.ingress(a.dials()) is DROP
    assert twin.refused == {"own-key": 1} and "copy" in twin.rejected().detail


def test_an_answer_with_our_own_key_is_refused() -> None:
    a = Side(1)
    hello = a.dials().payload
    message, _ = Answer(SECRET, KeyPair(private_key(1)), hello, a.unix_ms).reply(KeyPair(private_key(5)), 0)
    seen = a.gets(make(B, A, ISN_B, ISN_A + 1 + HELLO_LENGTH, SYN | ACK, message))
    assert (seen.flags, seen.ack) == (RST | ACK, ISN_A + 1)
    assert a.refused == {"own-key": 1}
    [(toward, reset)] = a.injected()
    assert (toward, reset.flags, reset.seq) == ("network", RST, EDGE_A)
    a.untouched()


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The public keys that dials expect, as they are told."""
    told: list[bytes] = []
    monkeypatch.setattr(Dial, "expect", lambda dial, key: told.append(key))
    return told


def dial_again(a: Side, port: int) -> None:
    """The SYN of another dial to B leaves."""
    a.sends(make((A[0], port), B, ISN_A, 0, SYN))
    [key] = a.engine.outcome.ahead
    a.engine.outcome.ahead.clear()
    a.engine.look_ahead(key)


def test_a_dial_expects_the_key_that_answered_there_before(expected: list[bytes]) -> None:
    a, b = pair()
    dial_again(a, 41000)
    assert expected == [], "nobody has answered there"
    a.engine.outcome.ahead.clear()
    connect(a, b)
    a.engine.outcome.ahead.clear()
    dial_again(a, 41001)
    assert expected == [b.engine.admission.static.public]


@pytest.mark.parametrize("pinned", [1, 2])
def test_a_dial_expects_the_key_that_is_pinned_there_if_it_is_one(expected: list[bytes], pinned: int) -> None:
    a, b = pair()
    connect(a, b)
    a.engine.outcome.ahead.clear()
    keys = frozenset(bytes((n,)) * 32 for n in range(pinned))
    a.engine.take_policy(replace(a.engine.policy, pinned={B[0]: keys}), 0.0)
    dial_again(a, 41000)
    assert expected == (list(keys) if pinned == 1 else [])


def test_who_answers_with_another_key_than_was_expected_is_heard_all_the_same() -> None:
    a, b = pair()
    connect(a, b)
    other = Side(7)
    second: Host = (A[0], 41000)
    syn = a.sends(make(second, B, ISN_A, 0, SYN))
    a.engine.look_ahead(key_of(second, B))
    other.gets(syn)
    a.gets(other.sends(make(B, second, ISN_B, ISN_A + 1, SYN | ACK)))
    assert len(a.states()) == 2
