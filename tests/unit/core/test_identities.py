"""Whose key may be at the other end: not our own, and not one that is not listed."""

from __future__ import annotations

import pytest

from mcencrypt.core.handshake import HELLO_LENGTH, Answer, NetworkSecret
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
