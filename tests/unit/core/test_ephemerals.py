"""Ephemeral keys made ahead."""

from __future__ import annotations

from random import Random

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core.ephemerals import FOR_EACH, PEERS, Ephemerals
from mcencrypt.core.noise import KeyPair


def test_a_key_is_of_the_randomness_that_is_passed_in() -> None:
    asked: list[int] = []

    def random(count: int) -> bytes:
        asked.append(count)
        return b"\x07" * count

    expected = X25519PrivateKey.from_private_bytes(b"\x07" * 32).public_key().public_bytes_raw()
    assert Ephemerals(random).take().public == expected
    assert asked == [32]


def test_none_is_given_out_twice() -> None:
    keys = Ephemerals(Random(1).randbytes, ahead=4)
    while keys.wanting():
        keys.make()
    given = [keys.take().public for _ in range(4)]
    keys.make()
    given += [keys.take().public for _ in range(4)]
    assert len(set(given)) == 8


def test_no_more_are_kept_than_was_said() -> None:
    keys = Ephemerals(Random(1).randbytes, ahead=3)
    for _ in range(5):
        keys.make()
    assert len(keys) == 3 and not keys.wanting()
    keys.take()
    assert keys.wanting()


def static() -> KeyPair:
    return KeyPair(X25519PrivateKey.generate())


def filled(ahead: int = 3) -> Ephemerals:
    keys = Ephemerals(Random(1).randbytes, ahead=ahead)
    fill(keys)
    return keys


def fill(keys: Ephemerals) -> None:
    while keys.wanting():
        keys.make()


def test_a_peer_that_has_dialled_finds_keys_with_which_the_exchange_is_made() -> None:
    keys, peer = filled(), static()
    keys.expect(peer.public)
    assert keys.wanting()
    fill(keys)
    assert len(keys) == 3, "besides the others"
    given = [keys.take(peer.public) for _ in range(FOR_EACH)]
    assert all(one.exchange(peer.public) == peer.exchange(one.public) for one in given)
    assert len(keys) == 3, "they were not of the others"
    assert keys.take(peer.public).exchange(peer.public), "and then one like any other"
    assert len(keys) == 2
    fill(keys)
    others = [keys.take(peer.public) for _ in range(FOR_EACH)] + [keys.take() for _ in range(3)]
    assert len({one.public for one in given + others}) == 2 * FOR_EACH + 3, "none twice"


def test_a_key_for_one_peer_is_given_to_no_other() -> None:
    keys, peer, other = filled(), static(), static()
    keys.expect(peer.public)
    fill(keys)
    before = [one.public for one in keys._for_peers[peer.public]]
    assert len(before) == FOR_EACH
    for whose in (b"", other.public):
        assert keys.take(whose).public not in before
    assert [one.public for one in keys._for_peers[peer.public]] == before


def test_peers_are_few_and_who_dialled_longest_ago_gives_way() -> None:
    keys, peers = filled(), [bytes((9,)) + bytes(30) + bytes((n,)) for n in range(PEERS + 1)]
    for peer in peers[:PEERS]:
        keys.expect(peer)
    keys.expect(peers[0])  # once more
    keys.expect(peers[PEERS])
    assert len(keys._for_peers) == PEERS and peers[1] not in keys._for_peers and peers[0] in keys._for_peers
    fill(keys)
    assert {len(ready) for ready in keys._for_peers.values()} == {FOR_EACH} and len(keys) == 3
    keys.expect(peers[0])
    assert not keys.wanting()


def test_a_peer_that_is_none_any_more_is_forgotten() -> None:
    keys, peer = filled(), static()
    keys.forget(peer.public)
    keys.expect(peer.public)
    keys.make()
    keys.forget(peer.public)
    assert keys._for_peers == {}
    fill(keys)
    assert len(keys) == 3 and keys._for_peers == {} and keys._lacking == {}


def test_what_makes_no_exchange_stands_in_nobody_s_way() -> None:
    keys = filled()
    keys.expect(bytes(32))  # of low order: no handshake with it succeeds
    fill(keys)
    assert len(keys._for_peers[bytes(32)]) == FOR_EACH
