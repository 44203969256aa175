"""SYN and SYN-ACK: who is let in, and who is refused and how."""

from __future__ import annotations

from base64 import b64encode
from struct import pack

import pytest

from mcencrypt.core.handshake import HELLO_LENGTH, Answer, NetworkSecret
from mcencrypt.core.noise import KeyPair
from mcencrypt.core.record import OVERHEAD
from mcencrypt.core.status import State
from mcencrypt.core.verdict import DROP, Encrypted, Ended, Rejected
from tests.helpers.packets import ACK, PSH, RST, SYN, options_of
from tests.helpers.sides import (
    A6,
    B6,
    EDGE_A,
    ISN_A,
    ISN_B,
    NETWORK_KEY,
    OTHER_KEY,
    SYN_OPTIONS,
    A,
    B,
    Host,
    Side,
    connect,
    connected,
    from_b,
    identity,
    key_of,
    make,
    pair,
    private_key,
    say,
)

SECOND: Host = (A[0], 40001)


# -- two nodes


@pytest.mark.parametrize(("local", "remote"), [(A, B), (A6, B6)])
@pytest.mark.parametrize("isn", [ISN_A, 2**32 - 1, 2**32 - 100, 2**32 - 140])
def test_two_nodes_talk_encrypted(local: Host, remote: Host, isn: int) -> None:
    a, b = pair()
    connect(a, b, isn, isn + 7, local, remote)
    secret = b"what nobody else may read"
    wire = a.sends(make(local, remote, isn + 1, isn + 8, ACK | PSH, secret))
    assert secret not in wire.build()
    seen = b.gets(wire)
    assert (seen.seq, seen.ack) == ((isn + 1) % 2**32, (isn + 8) % 2**32)
    assert seen.payload == secret
    wire = b.sends(make(remote, local, isn + 8, isn + 1 + len(secret), ACK | PSH, secret[::-1]))
    assert wire.ack == (isn + 1 + HELLO_LENGTH + len(secret) + OVERHEAD) % 2**32
    seen = a.gets(wire)
    assert (seen.seq, seen.ack) == ((isn + 8) % 2**32, (isn + 1 + len(secret)) % 2**32)
    assert seen.payload == secret[::-1]
    assert a.refused == b.refused == {}


def test_the_one_that_was_dialled_may_speak_first() -> None:
    a, b = connected()
    assert a.gets(from_b(b, b"welcome")).payload == b"welcome"


def test_who_dials_is_named_only_once_it_has_proven_who_it_is() -> None:
    a, b = connected()
    assert a.events() == [Encrypted(key_of(A, B), identity(2))]
    assert b.events() == []
    (shown,) = b.engine.connections(0.0)
    assert (shown.state, shown.identity) == (State.UNCONFIRMED, b"")
    say(a, b, b"first")
    assert b.events() == [Encrypted(key_of(B, A), identity(1))]
    (shown,) = b.engine.connections(0.0)
    assert (shown.state, shown.identity) == (State.ENCRYPTED, identity(1))


@pytest.mark.parametrize("mtu", [1500, 1400])
def test_a_peer_is_told_an_mss_that_leaves_room(mtu: int) -> None:
    a, b = Side(1, mtu=mtu), Side(2, mtu=mtu)
    syn = a.dials()
    assert syn.options == SYN_OPTIONS, "what our own socket offers is its own"
    mss = pack("!H", mtu - 40 - OVERHEAD)
    assert b.gets(syn).options == SYN_OPTIONS.replace(b"\x05\xb4", mss)
    seen = a.gets(b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)))
    assert options_of(seen.options)[2] == mss


# -- require


@pytest.mark.parametrize("payload", [b"", b"GET / HTTP/1.1\r\n\r\n", b"mcen", bytes(138), b"mcen\x01\x01" + bytes(132)])
@pytest.mark.parametrize(("peer", "local"), [(A, B), (A6, B6)])
def test_a_stranger_gets_no_answer(payload: bytes, peer: Host, local: Host) -> None:
    b = Side()
    assert b.ingress(make(peer, local, ISN_A, 0, SYN, payload)) is DROP
    b.untouched()
    reason = "wrong-key" if len(payload) == 138 and payload[:4] == b"mcen" else "not-a-handshake"
    assert b.refused == {reason: 1}
    event = b.rejected()
    assert (event.key, event.reason) == (key_of(local, peer), reason)


@pytest.mark.parametrize(
    ("acked", "payload"), [(1, b"data"), (1 + HELLO_LENGTH, b""), (1 + HELLO_LENGTH, bytes(HELLO_LENGTH))]
)
def test_an_answer_without_a_message_ends_the_dial_at_once(acked: int, payload: bytes) -> None:
    a = Side()
    a.dials()
    seen = a.gets(make(B, A, ISN_B, ISN_A + acked, SYN | ACK, payload))
    assert seen.flags == RST | ACK
    assert seen.ack == ISN_A + 1, "the only number that a socket in SYN-SENT takes a reset with"
    assert seen.payload == b""
    assert a.refused == {"not-a-handshake": 1}
    assert a.kinds() == [Rejected]
    # what was taken for data, or lost on its way back, is not to wait for a socket that is gone
    far = [packet.seq for toward, packet in a.injected() if packet.flags == RST]
    assert far == ([ISN_A + acked] if acked > 1 and not payload else [])
    a.untouched()


@pytest.mark.parametrize("mode", ["require", "prefer"])
def test_a_true_message_in_an_answer_that_does_not_count_ours_is_refused(mode: str) -> None:
    """Numbers on both sides would not fit: something between has taken the SYN's payload for its own."""
    a, b = pair(mode=mode)
    b.gets(a.dials())
    seen = a.gets(make(B, A, ISN_B, ISN_A + 1, SYN | ACK, b.answers(ISN_B)))
    assert (seen.flags, seen.ack) == (RST | ACK, ISN_A + 1)
    assert a.refused == {"not-a-handshake": 1}
    assert a.states() == []


@pytest.mark.parametrize("acked", [0, 2, 100, HELLO_LENGTH, HELLO_LENGTH + 2])
def test_an_answer_to_something_else_ends_nothing(acked: int) -> None:
    a, b = pair()
    b.gets(a.dials())
    seen = a.gets(make(B, A, ISN_B + 9, ISN_A + acked, SYN | ACK))
    assert (seen.seq, seen.ack, seen.flags) == (ISN_B + 9, ISN_A + acked, SYN | ACK), "the kernel knows what to answer"
    answer = b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    assert a.gets(answer).flags == SYN | ACK
    assert a.table.encrypted_keys() == [key_of(A, B)]


def test_a_refusing_peer_is_understood() -> None:
    """A kernel without a listener acknowledges the data of the SYN, which the socket does not know of."""
    a = Side()
    a.dials()
    seen = a.gets(make(B, A, 0, ISN_A + 1 + HELLO_LENGTH, RST | ACK))
    assert (seen.flags, seen.ack) == (RST | ACK, ISN_A + 1)


# -- keys


def test_a_peer_with_another_key_is_named_by_it() -> None:
    a, b = Side(keys=OTHER_KEY), Side(2)
    assert b.ingress(a.dials()) is DROP
    b.untouched()
    event = b.rejected()
    assert event.reason == "wrong-key"
    assert NetworkSecret(OTHER_KEY).key_id.hex() in event.detail
    assert NetworkSecret(NETWORK_KEY).key_id.hex() in event.detail


def test_an_answer_under_another_key_is_named_by_it() -> None:
    a, theirs = Side(), NetworkSecret(OTHER_KEY)
    a.dials()
    hello = Side(keys=OTHER_KEY).dials().payload
    message, _ = Answer(theirs, KeyPair(private_key(9)), hello, a.unix_ms).reply(KeyPair(private_key(5)), 0)
    seen = a.gets(make(B, A, ISN_B, ISN_A + 1 + HELLO_LENGTH, SYN | ACK, message))
    assert (seen.flags, seen.ack) == (RST | ACK, ISN_A + 1)
    event = a.rejected()
    assert event.reason == "wrong-key" and theirs.key_id.hex() in event.detail


def test_a_clock_that_is_off_is_named() -> None:
    a, b = pair()
    b.unix_ms += 700_000
    assert b.ingress(a.dials()) is DROP
    assert b.refused == {"clock-skew": 1}
    assert "700 s behind" in b.rejected().detail


@pytest.mark.parametrize("option", [b"\x13\x12" + bytes(16), b"\x1d\x10" + bytes(14)])
def test_signed_connections_are_refused(option: bytes) -> None:
    options = b"\x02\x04\x05\xb4" + option + b"\x01" * (-len(option) % 4)
    a, b = pair()
    assert a.egress(make(A, B, ISN_A, 0, SYN, options=options)) is DROP
    hello = Side(3).dials().payload
    assert b.ingress(make(A, B, ISN_A, 0, SYN, hello, options)) is DROP
    assert a.refused == b.refused == {"signed-tcp": 1}
    a.untouched()
    b.untouched()


# -- listed peers


def test_a_listed_peer_is_let_in_on_both_sides() -> None:
    a, b = Side(1, listed=frozenset([identity(1), identity(2)])), Side(2, listed=frozenset([identity(1)]))
    connect(a, b)
    assert a.gets(from_b(b, b"data")).payload == b"data"


@pytest.mark.parametrize("mode", ["require", "prefer"])
def test_a_peer_that_is_not_listed_gets_no_answer(mode: str) -> None:
    a, b = Side(1, mode=mode), Side(2, mode=mode, listed=frozenset([identity(3)]))
    assert b.ingress(a.dials()) is DROP
    assert b.refused == {"not-listed": 1}
    event = b.rejected()
    assert event.reason == "not-listed"
    assert f"mcencrypt peers add NAME {b64encode(identity(1)).decode()}" in event.detail
    b.untouched()


@pytest.mark.parametrize("mode", ["require", "prefer"])
def test_a_peer_that_we_dialled_and_is_not_listed_is_told_to_go(mode: str) -> None:
    a, b = Side(1, mode=mode, listed=frozenset([identity(3)])), Side(2, mode=mode)
    b.gets(a.dials())
    answer = b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    assert a.gets(answer).flags == RST | ACK, "connect() fails at once"
    assert a.refused == {"not-listed": 1} and b64encode(identity(2)).decode() in a.rejected().detail
    assert a.states() == []
    [(toward, reset)] = a.injected()
    assert (toward, reset.flags, reset.seq) == ("network", RST, EDGE_A)
    b.gets(reset)
    assert b.states() == [], "its half-open attempt ended"


def test_revoking_ends_connections_at_once_and_those_of_others_go_on() -> None:
    a, b = connected()
    c = Side(3)
    connect(c, b, local=SECOND)
    say(a, b, b"proof")
    assert b.engine.admission.offers.of(identity(1), 0.0)
    b.events()
    b.now = 1.0
    assert b.takes(listed=frozenset([identity(3)])) == [key_of(B, A)]
    assert b.table.encrypted_keys() == [key_of(B, SECOND)]
    assert b.events() == [Ended(key_of(B, A), "its peer is not listed any more")]
    assert b.engine.admission.offers.of(identity(1), 1.0) is None, "what it offers is of no interest any more"
    [(_, reset)] = b.injected()
    assert a.gets(reset).flags & RST
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 6, ACK | PSH, b"confidential")) is DROP
    assert b.ingress(a.dials(99999)) is DROP
    assert b.refused["not-listed"] == 1


def test_revoking_ends_what_is_unconfirmed_and_what_is_half_open() -> None:
    a, b = connected()  # unconfirmed at b: nothing was sent yet
    b.gets(a.dials(5, SECOND))
    b.sends(make(B, SECOND, 6, 6, SYN | ACK))
    assert sorted(b.states()) == [State.HANDSHAKE, State.UNCONFIRMED]
    assert b.takes(listed=frozenset([identity(3)])) == [key_of(B, A)]
    assert b.states() == []
