"""The ring of network keys, and what is remembered of peers' keys."""

from __future__ import annotations

from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core.handshake import Dial, NetworkSecret, Refused
from mcencrypt.core.keyring import LATELY, MAX_KEYS, KeyRing, Offer, Offers, RefusedKeys, RingError
from mcencrypt.core.noise import KeyPair

SECRETS = [NetworkSecret(bytes((number,)) * 32) for number in range(12)]
A, B, C = SECRETS[:3]
ADDRESS = bytes((10, 0, 0, 1))


def hello(secret: NetworkSecret) -> bytes:
    keys = [KeyPair(X25519PrivateKey.from_private_bytes(Random(seed).randbytes(32))) for seed in (1, 2)]
    return Dial(secret, keys[0], keys[1], 0).hello


def test_the_first_key_is_offered_unless_another_is_named() -> None:
    assert KeyRing([A, B]).offered is A
    assert KeyRing([A, B], B.key_id).offered is B
    with pytest.raises(RingError, match=C.key_id.hex()):
        KeyRing([A, B], C.key_id)
    with pytest.raises(RingError, match="no key"):
        KeyRing([])


def test_a_message_is_read_under_the_key_that_it_names() -> None:
    ring = KeyRing([A, B])
    assert ring.named_by(hello(A)) is A and ring.named_by(hello(B)) is B
    with pytest.raises(Refused) as caught:
        ring.named_by(hello(C))
    assert caught.value.reason == "wrong-key" and caught.value.key_id == C.key_id
    for secret in (A, B, C):
        assert secret.key_id.hex() in str(caught.value)
    with pytest.raises(Refused) as caught:
        ring.named_by(b"GET / HTTP/1.1")
    assert caught.value.reason == "not-a-handshake" and caught.value.key_id == b""


def test_keys_are_added_offered_and_removed() -> None:
    ring = KeyRing([A])
    ring.add(B)
    ring.add(NetworkSecret(B.psk))
    assert len(ring) == 2 and ring[B.key_id] is B
    with pytest.raises(RingError, match="use another first"):
        ring.remove(A.key_id)
    ring.offer(B.key_id)
    ring.remove(A.key_id)
    assert list(ring) == [B] and A.key_id not in ring
    for change in (ring.remove, ring.offer):
        with pytest.raises(RingError, match="no key"):
            change(A.key_id)


def test_ids_may_be_abbreviated_as_long_as_they_are_unique() -> None:
    by_digit: dict[str, NetworkSecret] = {}
    for number in range(17):
        secret = NetworkSecret(bytes((100 + number,)) * 32)
        shared = secret.key_id.hex()[0]
        if shared in by_digit:
            break
        by_digit[shared] = secret
    ring = KeyRing([by_digit[shared], secret])
    for one in ring:
        assert ring.find(one.key_id.hex()) is one
        assert ring.find(one.key_id.hex()[:6].upper() + " ") is one
    with pytest.raises(RingError, match="give more digits"):
        ring.find(shared)
    for text in ("", "zz", "0" * 17):
        with pytest.raises(RingError, match="no key"):
            ring.find(text)


def test_the_ring_is_bounded() -> None:
    ring = KeyRing(SECRETS[:MAX_KEYS])
    ring.add(SECRETS[0])
    with pytest.raises(RingError, match="retire one first"):
        ring.add(SECRETS[MAX_KEYS])
    assert len(ring) == MAX_KEYS


def test_the_newest_offer_of_a_peer_counts_and_only_lately() -> None:
    offers = Offers(limit=3)
    offers.note(b"x", A.key_id, 1.0, ADDRESS)
    offers.note(b"y", A.key_id, 2.0, ADDRESS)
    offers.note(b"x", B.key_id, 3.0, ADDRESS)
    assert offers.peers(A.key_id, 4.0) == [b"y"] and offers.peers(B.key_id, 4.0) == [b"x"]
    assert offers.of(b"x", 4.0) == Offer(B.key_id, 3.0, ADDRESS) and offers.of(b"z", 4.0) is None
    assert offers.peers(A.key_id, 2.0 + LATELY) == [] and offers.of(b"y", 2.0 + LATELY) is None
    offers.note(b"z", A.key_id, 5.0, ADDRESS)
    offers.note(b"w", A.key_id, 6.0, ADDRESS)
    assert offers.of(b"y", 7.0) is None, "the one unheard of for longest had to go"
    assert offers.of(b"x", 7.0) is not None


def test_refused_keys_are_bounded() -> None:
    refused = RefusedKeys(limit=2)
    for number in range(4):
        refused.note(bytes((number,)), bytes((number,)) * 8)
    refused.note(b"\2", b"again")
    refused.note(b"\5", b"new")
    assert [refused.of(bytes((number,))) for number in range(6)] == [None, None, b"again", None, None, b"new"]
