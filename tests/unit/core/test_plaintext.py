"""Plaintext with the policy's leave: with whom, from when on, and what no stranger can make of it."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from mcencrypt.core import admission, table
from mcencrypt.core.handshake import HELLO_LENGTH, NetworkSecret
from mcencrypt.core.status import State
from mcencrypt.core.verdict import ACCEPT, DROP, InPlaintext, Rejected
from tests.helpers.packets import ACK, PSH, RST, SYN, Packet
from tests.helpers.sides import (
    A6,
    B6,
    ISN_A,
    ISN_B,
    OTHER_KEY,
    A,
    B,
    Host,
    Side,
    connect,
    connected,
    from_b,
    key_of,
    make,
    pair,
)

SECOND: Host = (A[0], 40001)


def test_prefer_talks_plaintext_with_whom_does_not_answer() -> None:
    a = Side(mode="prefer")
    assert len(a.dials().payload) == HELLO_LENGTH, "encryption is offered all the same"
    assert a.ingress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)) is ACCEPT
    assert a.egress(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"version")) is ACCEPT
    assert a.ingress(make(B, A, ISN_B + 1, ISN_A + 8, ACK | PSH, b"verack")) is ACCEPT
    assert a.events() == [InPlaintext(key_of(A, B))]
    (shown,) = a.engine.connections(0.0)
    assert (shown.state, shown.counters.bytes_out, shown.counters.bytes_in) == (State.PLAINTEXT, 7, 6)


def test_prefer_answers_a_stranger_in_plaintext() -> None:
    b = Side(mode="prefer")
    assert b.ingress(make(A, B, ISN_A, 0, SYN)) is ACCEPT
    assert b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)) is ACCEPT
    assert b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"version")) is ACCEPT
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 8, ACK)) is ACCEPT
    assert b.kinds() == [InPlaintext]
    assert b.refused == {}
    assert [one.counters.bytes_in for one in b.engine.connections(0.0)] == [0], (
        "what came before our answer is not ours"
    )


def test_prefer_still_encrypts_with_whom_can() -> None:
    a, b = connected(mode="prefer")
    assert b"in clear" not in from_b(b, b"in clear").build()
    assert a.table.plaintext_keys() == b.table.plaintext_keys() == []
    assert a.table.encrypted_keys() == [key_of(A, B)]


@pytest.mark.parametrize("payload", [b"", bytes(HELLO_LENGTH)])
def test_prefer_does_not_fall_back_where_the_peer_took_our_message(payload: bytes) -> None:
    """Its kernel has counted bytes that our socket never sent: plaintext could not work."""
    a = Side(mode="prefer")
    a.dials()
    assert a.gets(make(B, A, ISN_B, ISN_A + 1 + HELLO_LENGTH, SYN | ACK, payload)).flags == RST | ACK
    assert a.table.plaintext_keys() == []


def test_prefer_does_not_fall_back_for_a_forged_message() -> None:
    a, b = pair(mode="prefer")
    damaged = bytearray(a.dials().build())
    damaged[-1] ^= 1
    assert b.ingress(damaged) is DROP
    assert b.refused == {"forged-handshake": 1}
    assert b.table.plaintext_keys() == []


def test_prefer_talks_plaintext_with_another_network_and_says_so() -> None:
    b = Side(mode="prefer")
    assert b.gets(Side(keys=OTHER_KEY).dials()).payload == b""
    b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK))
    rejected, plaintext = b.events()
    assert isinstance(rejected, Rejected) and isinstance(plaintext, InPlaintext)
    assert NetworkSecret(OTHER_KEY).key_id.hex() in rejected.detail


def test_prefer_lets_connections_of_before_go_on() -> None:
    a = Side(mode="prefer")
    assert a.ingress(make(B, A, 700, 800, ACK | PSH, b"old")) is ACCEPT
    assert a.egress(make(A, B, 800, 703, ACK)) is ACCEPT


@pytest.mark.parametrize(
    ("peer", "local", "allowed"),
    [
        ((bytes((10, 0, 0, 77)), 1), B, True),
        ((bytes((10, 0, 1, 77)), 1), B, False),
        ((bytes((192, 0, 2, 1)), 1), B, True),
        ((bytes((192, 0, 2, 2)), 1), B, False),
        (A6, B6, True),
        ((bytes.fromhex("fd010000000000000000000000000001"), 1), B6, False),
    ],
)
def test_plaintext_is_allowed_by_network(peer: Host, local: Host, allowed: bool) -> None:
    networks = (ip_network("10.0.0.0/24"), ip_network("192.0.2.1/32"), ip_network("fd00::/16"))
    b = Side(allow_plaintext=networks)
    expected = ACCEPT if allowed else DROP
    assert b.ingress(make(peer, local, ISN_A, 0, SYN)) is expected
    assert b.egress(make(local, peer, ISN_B, ISN_A + 1, SYN | ACK)) is expected
    assert b.ingress(make(peer, local, ISN_A + 1, ISN_B + 1, ACK | PSH, b"x")) is expected
    assert b.engine.policy.plaintext_allowed(peer[0]) is allowed

    a = Side(allow_plaintext=networks)
    a.dials(local=local, remote=peer)
    verdict = a.ingress(make(peer, local, ISN_B, ISN_A + 1, SYN | ACK))
    assert verdict is ACCEPT if allowed else isinstance(verdict, Packet)
    said = a.egress(make(local, peer, ISN_A + 1, ISN_B + 1, ACK))
    assert said is ACCEPT if allowed else isinstance(said, Packet) and said.payload.startswith(b"mcen")


def test_data_in_a_plaintext_syn_is_taken_out() -> None:
    """Fast Open data of a stranger: nothing that was not answered for reaches a socket in a SYN."""
    seen = Side(mode="prefer").gets(make(A, B, ISN_A, 0, SYN, b"early data"))
    assert (seen.payload, seen.flags, seen.seq) == (b"", SYN, ISN_A)


def test_switched_off_new_connections_are_plaintext_and_encrypted_ones_go_on() -> None:
    a, b = connected()
    for at in (a, b):
        assert at.takes(enabled=False) == []
        at.events()
    syn = make(SECOND, B, ISN_A, 0, SYN)
    assert a.egress(syn) is ACCEPT
    assert b.ingress(syn) is ACCEPT
    assert b.egress(make(B, SECOND, ISN_B, ISN_A + 1, SYN | ACK)) is ACCEPT
    assert a.events() == b.events() == [], "what the operator wants of all is not told of each"
    wire = from_b(b, b"still encrypted")
    assert b"still encrypted" not in wire.build()
    assert a.gets(wire).payload == b"still encrypted"
    seen = b.gets(Side(3).dials(local=(A[0], 40002)))
    assert seen.payload == b"", "a message that nobody answers does not reach the socket"


def test_what_a_new_policy_does_not_allow_passes_no_more() -> None:
    a = Side(mode="prefer", allow_plaintext=(ip_network("192.0.2.0/24"),))
    exempt: Host = (bytes((192, 0, 2, 7)), 7331)
    for peer in (B, exempt):
        assert a.egress(make(A, peer, 800, 700, ACK | PSH, b"old")) is ACCEPT
    assert a.takes(mode="require") == [], "which of them have a socket only the kernel knows"
    assert a.table.plaintext_keys() == [key_of(A, exempt)]
    assert a.ingress(make(B, A, 700, 800, ACK | PSH, b"more")) is DROP
    [(toward, reset)] = a.injected()
    assert (toward, reset.flags, reset.seq) == ("network", RST, 800), "the far side is answered exactly"
    assert a.sends(make(A, B, 800, 703, RST | ACK)).flags == RST | ACK, "the reset of the socket that is being ended"
    assert a.egress(make(A, B, 800, 703, ACK | PSH, b"more")) is DROP
    assert a.ingress(make(exempt, A, 703, 800, ACK | PSH, b"more")) is ACCEPT


# -- what a stranger cannot do


@pytest.mark.parametrize("payload", [b"", b"early data"])
def test_a_strangers_syn_does_not_make_an_encrypted_connection_plaintext(payload: bytes) -> None:
    _, b = connected(mode="prefer")
    b.ingress(make(A, B, 77, 0, SYN, payload))
    assert b.table.plaintext_keys() == []
    assert b"confidential" not in from_b(b, b"confidential").build()
    b.table.abort(key_of(B, A), 0.0, "a test")
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK | PSH, b"confidential")) is DROP


@pytest.mark.parametrize("encrypted", [True, False])
def test_a_strangers_syn_does_not_bring_an_ended_connection_back_in_plaintext(encrypted: bool) -> None:
    b = Side(mode="prefer")
    end(b, encrypted)
    b.now = 1.0
    b.ingress(make(A, B, 77, 0, SYN))
    assert b.table.plaintext_keys() == []
    assert b.egress(make(B, A, 1, 2, ACK | PSH, b"confidential")) is DROP


def test_a_strangers_syn_does_not_end_a_half_open_attempt() -> None:
    """It takes our own socket's answer to that SYN, and the socket answers one only."""
    a, b = pair(mode="prefer")
    b.gets(a.dials())
    answer = b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    assert b.ingress(make(A, B, 77, 0, SYN)) is ACCEPT
    a.gets(answer)
    b.gets(a.sends(make(A, B, ISN_A + 1, ISN_B + 1, ACK)))
    assert b.table.encrypted_keys() == [key_of(B, A)]
    assert b"confidential" not in from_b(b, b"confidential").build()
    assert b.table.plaintext_keys() == []


# -- back to plaintext on the same addresses and ports


def end(b: Side, encrypted: bool) -> None:
    """The connection from A was ended here."""
    if encrypted:
        b.table.remember(key_of(B, A), 111, 222, b.now)
    else:
        b.table.disown(key_of(B, A), b.now)


def talks_plaintext(b: Side, isn: int) -> None:
    """A peer without mcencrypt connects to B and sends; the socket at B has answered this very SYN."""
    b.now = 3.0
    assert b.ingress(make(A, B, isn, 0, SYN)) is ACCEPT
    assert b.egress(make(B, A, 9000, isn + 1, SYN | ACK)) is ACCEPT
    assert b.egress(make(B, A, 9000, isn + 1, SYN | ACK)) is ACCEPT, "and once more"
    assert b.ingress(make(A, B, isn + 1, 9001, ACK)) is ACCEPT
    assert b.ingress(make(A, B, isn + 1, 9001, ACK | PSH, b"version")) is ACCEPT
    assert b.egress(make(B, A, 9001, isn + 8, ACK | PSH, b"verack")) is ACCEPT
    (shown,) = b.engine.connections(b.now)
    assert (shown.state, shown.counters.bytes_out, shown.counters.bytes_in) == (State.PLAINTEXT, 6, 7)


def test_prefer_forgets_a_half_open_attempt_once_its_peer_is_answered_in_plaintext() -> None:
    a, b = pair(mode="prefer")
    b.gets(a.dials())
    b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    talks_plaintext(b, 77)


def test_prefer_forgets_an_encrypted_connection_once_its_peer_is_answered_in_plaintext() -> None:
    _, b = connected(mode="prefer")
    talks_plaintext(b, 77)
    assert b.table.gone.connections == 1


@pytest.mark.parametrize("encrypted", [True, False])
def test_prefer_forgets_an_ended_connection_once_its_peer_is_answered_in_plaintext(encrypted: bool) -> None:
    b = Side(mode="prefer")
    end(b, encrypted)
    talks_plaintext(b, 77)


def test_an_answer_in_plaintext_needs_the_policys_leave_when_it_is_given() -> None:
    _, b = connected(mode="prefer")
    assert b.ingress(make(A, B, 77, 0, SYN)) is ACCEPT
    b.takes(mode="require")
    assert b.egress(make(B, A, 9000, 78, SYN | ACK)) is DROP
    assert b.table.encrypted_keys() == [key_of(B, A)]


def test_prefer_forgets_an_encrypted_connection_when_its_own_socket_dials_anew_and_is_answered_in_plaintext() -> None:
    a, _ = connected(mode="prefer")
    a.dials(77)
    assert a.table.encrypted_keys(), "not before the answer"
    assert a.ingress(make(B, A, 9000, 78, SYN | ACK)) is ACCEPT
    assert a.egress(make(A, B, 78, 9001, ACK | PSH, b"version")) is ACCEPT
    assert a.ingress(make(B, A, 9001, 85, ACK | PSH, b"verack")) is ACCEPT
    assert a.table.plaintext_keys() == [key_of(A, B)] and a.table.encrypted_keys() == []


def test_prefer_encrypts_again_where_it_was_plaintext() -> None:
    a, b = pair(mode="prefer")
    for side, other, peer in ((a, A, B), (b, B, A)):
        assert side.egress(make(other, peer, 700, 800, ACK | PSH, b"old")) is ACCEPT
        assert side.states() == [State.PLAINTEXT]
    connect(a, b)
    assert a.table.plaintext_keys() == b.table.plaintext_keys() == []
    assert a.table.gone_plaintext.connections == 1


# -- bounds


def test_packets_of_strangers_leave_nothing_behind() -> None:
    """Whatever they send, and whatever our kernel answers that has no connection with them."""
    b = Side(mode="prefer")
    for number in range(1, 2000):
        peer = bytes((10, 1, number >> 8, number & 255)), 1024 + number
        assert b.ingress(make(peer, B, 77, 0, SYN)) is ACCEPT
        assert b.egress(make(B, peer, 9000, 78, SYN | ACK)) is ACCEPT
        assert b.ingress(make(peer, B, 5, 6, ACK | PSH, b"junk")) is ACCEPT
        assert b.egress(make(B, peer, 6, 0, RST)) is ACCEPT
    assert b.states() == [] and b.events() == [] and b.injected() == []
    assert not b.engine.admission._plain_syns


def test_plaintext_syns_are_bounded_and_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are remembered where an answer would end what is known."""
    monkeypatch.setattr(admission, "MAX_ANSWERING", 2)
    b = Side(mode="prefer")
    for port in range(1, 6):
        peer = A[0], port
        b.table.disown(key_of(B, peer), 0.0)
        assert b.ingress(make(peer, B, 77, 0, SYN)) is ACCEPT
    assert len(b.engine.admission._plain_syns) == 2
    b.engine.tick(admission.LIFETIME)
    assert not b.engine.admission._plain_syns


def test_plaintext_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_PLAINTEXT", 1)
    a = Side(mode="prefer")
    assert a.egress(make(A, B, 1, 1, ACK)) is ACCEPT
    assert a.egress(make(SECOND, B, 1, 1, ACK)) is DROP, "a full table fails closed"
