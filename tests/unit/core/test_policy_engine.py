"""What the engine lets through and what it refuses: policies, attempts, strays, limits."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from random import Random
from struct import pack

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core import admission, engine, table
from mcencrypt.core.checksum import ipv4_header_checksum, tcp_checksum_is_right, write_tcp_checksum
from mcencrypt.core.engine import CSUM_NOT_VERIFIED, Engine
from mcencrypt.core.handshake import HELLO_LENGTH, Answer, NetworkSecret, ephemeral_key
from mcencrypt.core.keyring import KeyRing
from mcencrypt.core.options import walk
from mcencrypt.core.packet import ACK, FIN, PSH, RST, SYN, URG, Segment, rebuild
from mcencrypt.core.policy import Policy, Surroundings
from mcencrypt.core.table import GHOST_LIFETIME
from mcencrypt.core.verdict import (
    ACCEPT,
    DROP,
    Closed,
    Encrypted,
    Ended,
    Event,
    InPlaintext,
    Rejected,
    Tampered,
    Verdict,
)

Host = tuple[bytes, int]

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
A: Host = (bytes((10, 0, 0, 1)), 40000)
B: Host = (bytes((10, 0, 0, 2)), 7331)
A6: Host = (bytes.fromhex("fd000000000000000000000000000001"), 40000)
B6: Host = (bytes.fromhex("fd000000000000000000000000000002"), 7331)
ISN_A, ISN_B = 1000, 5000
SYN_OPTIONS = bytes.fromhex("020405b40402080a000000010000000001030307")


def key_of(local: Host, remote: Host) -> bytes:
    return local[0] + remote[0] + pack("!HH", local[1], remote[1])


def make(
    source: Host, to: Host, seq: int, ack: int, flags: int, payload: bytes = b"", options: bytes = b"", urgent: int = 0
) -> bytes:
    options = SYN_OPTIONS if flags & SYN and not options else options
    tcp = pack("!HHII", source[1], to[1], seq % 2**32, ack % 2**32)
    tcp += pack("!BBHHH", (20 + len(options)) << 2, flags, 65535, 0, urgent) + options + payload
    if len(source[0]) == 16:
        packet = bytearray(pack("!IHBB", 0x60000000, len(tcp), 6, 64) + source[0] + to[0] + tcp)
        write_tcp_checksum(packet, 40, True)
    else:
        header = pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 1, 0x4000, 64, 6, 0)
        packet = bytearray(header + source[0] + to[0] + tcp)
        packet[10:12] = ipv4_header_checksum(packet, 20).to_bytes(2, "big")
        write_tcp_checksum(packet, 20, False)
    return bytes(packet)


def read(verdict: Verdict) -> Segment:
    """A verdict that replaces the packet, read."""
    assert isinstance(verdict, bytes), verdict
    segment = Segment(verdict)
    assert tcp_checksum_is_right(bytearray(verdict), segment.tcp_at, segment.ipv6)
    return segment


class Clock:
    unix_ms = 1_750_000_000_000


def new(mode: str = "require", key: bytes = KEY, seed: int = 1, **policy: object) -> Engine:
    dice = Random(seed)
    static = X25519PrivateKey.from_private_bytes(dice.randbytes(32))
    around = Surroundings(dice.randbytes, lambda: Clock.unix_ms, lambda peer, own: 1500)
    return Engine(Policy(mode=mode, **policy), KeyRing([NetworkSecret(key)]), static, around)  # type: ignore[arg-type]


def identity(seed: int) -> bytes:
    static = X25519PrivateKey.from_private_bytes(Random(seed).randbytes(32))
    return static.public_key().public_bytes_raw()


def rejected(event: Event) -> Rejected:
    assert isinstance(event, Rejected)
    return event


def untouched(at: Engine) -> None:
    """Nothing was sent, and nothing is remembered."""
    assert at.outcome.injections == []
    assert list(at.connections(0.0)) == []


def dialled(at: Engine, isn: int = ISN_A, local: Host = A, remote: Host = B, options: bytes = b"") -> bytes:
    verdict = at.egress(make(local, remote, isn, 0, SYN, options=options), 0, 0.0)
    assert isinstance(verdict, bytes)
    return verdict


def connect(a: Engine, b: Engine, isn_a: int = ISN_A, isn_b: int = ISN_B, local: Host = A, remote: Host = B) -> None:
    """A whole TCP handshake between two engines, with what each socket must see of it."""
    syn = dialled(a, isn_a, local, remote)
    assert read(syn).end - read(syn).payload_at == HELLO_LENGTH
    seen = read(b.ingress(syn, 0, 0.0))
    assert (seen.seq, seen.flags, bytes(seen.payload())) == (isn_a, SYN, b"")
    answer = b.egress(make(remote, local, isn_b, isn_a + 1, SYN | ACK), 0, 0.0)
    assert read(answer).ack == (isn_a + 1 + HELLO_LENGTH) % 2**32
    seen = read(a.ingress(answer, 0, 0.0))
    assert (seen.seq, seen.ack, seen.flags) == (isn_b % 2**32, (isn_a + 1) % 2**32, SYN | ACK)
    assert bytes(seen.payload()) == b""
    last = a.egress(make(local, remote, isn_a + 1, isn_b + 1, ACK), 0, 0.0)
    assert read(last).seq == (isn_a + 1 + HELLO_LENGTH) % 2**32
    seen = read(b.ingress(last, 0, 0.0))
    assert (seen.seq, seen.ack, seen.flags) == ((isn_a + 1) % 2**32, (isn_b + 1) % 2**32, ACK)


def pair(**policy: object) -> tuple[Engine, Engine]:
    a, b = new(seed=1, **policy), new(seed=2, **policy)  # type: ignore[arg-type]
    connect(a, b)
    return a, b


def from_b(b: Engine, data: bytes, flags: int = ACK | PSH, at: int = 0) -> bytes:
    """What the network carries when the socket at B sends `data` at plain offset `at`."""
    verdict = b.egress(make(B, A, ISN_B + 1 + at, ISN_A + 1, flags, data), 0, 0.0)
    assert isinstance(verdict, bytes)
    return verdict


#: Numbers on the network right behind the handshake.
EDGE_A, EDGE_B = ISN_A + 1 + HELLO_LENGTH, ISN_B + 1 + HELLO_LENGTH


# -- two nodes


@pytest.mark.parametrize(("local", "remote"), [(A, B), (A6, B6)])
@pytest.mark.parametrize("isn", [ISN_A, 2**32 - 1, 2**32 - 100, 2**32 - 140])
def test_two_nodes_talk_encrypted(local: Host, remote: Host, isn: int) -> None:
    a, b = new(seed=1), new(seed=2)
    connect(a, b, isn, isn + 7, local, remote)
    secret = b"what nobody else may read"
    wire = a.egress(make(local, remote, isn + 1, isn + 8, ACK | PSH, secret), 0, 0.0)
    assert secret not in read(wire).packet
    seen = read(b.ingress(wire, 0, 0.0))
    assert (seen.seq, seen.ack) == ((isn + 1) % 2**32, (isn + 8) % 2**32)
    assert bytes(seen.payload()) == secret
    wire = b.egress(make(remote, local, isn + 8, isn + 1 + len(secret), ACK | PSH, secret[::-1]), 0, 0.0)
    assert read(wire).ack == (isn + 1 + HELLO_LENGTH + len(secret) + 22) % 2**32
    seen = read(a.ingress(wire, 0, 0.0))
    assert (seen.seq, seen.ack) == ((isn + 8) % 2**32, (isn + 1 + len(secret)) % 2**32)
    assert bytes(seen.payload()) == secret[::-1]
    assert not a.outcome.refused
    assert not b.outcome.refused


def test_who_dials_is_named_only_once_it_has_proven_who_it_is() -> None:
    a, b = pair()
    assert a.outcome.events == [Encrypted(key_of(A, B), identity(2))]
    assert b.outcome.events == []
    (shown,) = b.connections(0.0)
    assert (shown.state, shown.identity) == ("unconfirmed", b"")
    b.ingress(a.egress(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"first"), 0, 0.0), 0, 0.0)
    assert b.outcome.events == [Encrypted(key_of(B, A), identity(1))]
    (shown,) = b.connections(0.0)
    assert (shown.state, shown.identity) == ("encrypted", identity(1))


def test_a_peer_is_told_an_mss_that_leaves_room() -> None:
    a, b = new(seed=1), new(seed=2)
    syn = dialled(a)
    assert bytes(read(syn).options()) == SYN_OPTIONS, "what our own socket offers is its own"
    seen = read(b.ingress(syn, 0, 0.0))
    assert bytes(seen.options()) == SYN_OPTIONS.replace(b"\x05\xb4", (1438).to_bytes(2, "big"))
    seen = read(a.ingress(b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0), 0, 0.0))
    assert bytes(seen.options())[:4] == pack("!BBH", 2, 4, 1438)


# -- require


@pytest.mark.parametrize("payload", [b"", b"GET / HTTP/1.1\r\n\r\n", b"mcen", bytes(138), b"mcen\x01\x01" + bytes(132)])
@pytest.mark.parametrize(("peer", "local"), [(A, B), (A6, B6)])
def test_a_stranger_gets_no_answer(payload: bytes, peer: Host, local: Host) -> None:
    b = new()
    assert b.ingress(make(peer, local, ISN_A, 0, SYN, payload), 0, 0.0) is DROP
    untouched(b)
    reason = "wrong-key" if len(payload) == 138 and payload[:4] == b"mcen" else "not-a-handshake"
    assert b.outcome.refused == {reason: 1}
    (event,) = b.outcome.events
    assert isinstance(event, Rejected)
    assert (event.key, event.reason) == (key_of(local, peer), reason)


@pytest.mark.parametrize(
    ("acked", "payload"), [(1, b""), (1, b"data"), (1 + HELLO_LENGTH, b""), (1 + HELLO_LENGTH, bytes(HELLO_LENGTH))]
)
def test_an_answer_without_a_message_ends_the_dial_at_once(acked: int, payload: bytes) -> None:
    a = new()
    dialled(a)
    seen = read(a.ingress(make(B, A, ISN_B, ISN_A + acked, SYN | ACK, payload), 0, 0.0))
    assert seen.flags == RST | ACK
    assert seen.ack == ISN_A + 1, "the only number that a socket in SYN-SENT takes a reset with"
    assert bytes(seen.payload()) == b""
    assert a.outcome.refused == {"not-a-handshake": 1}
    assert [type(event) for event in a.outcome.events] == [Rejected]
    untouched(a)


@pytest.mark.parametrize("mode", ["require", "prefer"])
def test_a_true_message_in_an_answer_that_does_not_count_ours_is_refused(mode: str) -> None:
    """Numbers on both sides would not fit: something between has taken the SYN's payload for its own."""
    a, b = new(mode, seed=1), new(mode, seed=2)
    b.ingress(dialled(a), 0, 0.0)
    message = answered(b, ISN_B)
    seen = read(a.ingress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK, message), 0, 0.0))
    assert (seen.flags, seen.ack) == (RST | ACK, ISN_A + 1)
    assert a.outcome.refused == {"not-a-handshake": 1}
    assert a.table.encrypted_keys() == a.table.plaintext_keys() == []


@pytest.mark.parametrize("acked", [0, 2, 100, HELLO_LENGTH, HELLO_LENGTH + 2])
def test_an_answer_to_something_else_ends_nothing(acked: int) -> None:
    a, b = new(seed=1), new(seed=2)
    b.ingress(dialled(a), 0, 0.0)
    seen = read(a.ingress(make(B, A, ISN_B + 9, ISN_A + acked, SYN | ACK), 0, 0.0))
    assert (seen.seq, seen.ack, seen.flags) == (ISN_B + 9, ISN_A + acked, SYN | ACK), "the kernel knows what to answer"
    answer = b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0)
    assert read(a.ingress(answer, 0, 0.0)).flags == SYN | ACK
    assert a.table.encrypted_keys() == [key_of(A, B)]


def test_a_refusing_peer_is_understood() -> None:
    """A kernel without a listener acknowledges the data of the SYN, which the socket does not know of."""
    a = new()
    dialled(a)
    seen = read(a.ingress(make(B, A, 0, ISN_A + 1 + HELLO_LENGTH, RST | ACK), 0, 0.0))
    assert (seen.flags, seen.ack) == (RST | ACK, ISN_A + 1)


@pytest.mark.parametrize("flags", [ACK, ACK | PSH, FIN | ACK])
def test_unknown_connections_are_ended(flags: int) -> None:
    a = new()
    assert a.ingress(make(B, A, 700, 800, flags, b"plaintext"), 0, 0.0) is DROP
    assert a.outcome.refused == {"unknown-connection": 1}
    assert a.outcome.injections == []
    (event,) = a.outcome.events
    assert isinstance(event, Ended)
    assert event.key == key_of(A, B) and a.outcome.sockets == {key_of(A, B)}
    a.outcome.events.clear()

    assert a.egress(make(A, B, 800, 709, flags, b"plaintext"), 0, 0.0) is DROP
    assert [type(event) for event in a.outcome.events] == [Ended]
    (injection,) = a.outcome.injections
    assert injection.toward == "socket"
    reset = read(injection.packet)
    assert reset.source_first == key_of(B, A)
    assert (reset.seq, reset.ack, reset.flags) == (709, 800, RST | ACK), "exactly where the socket is (RFC 5961)"
    assert list(a.connections(0.0)) == []


def test_resets_of_unknown_connections_destroy_nothing() -> None:
    a = new()
    assert a.ingress(make(B, A, 700, 0, RST, b"with data"), 0, 0.0) is DROP
    reset = read(a.egress(make(A, B, 800, 700, RST | ACK, b"with data"), 0, 0.0))
    assert (reset.seq, reset.ack, reset.flags, bytes(reset.payload())) == (800, 700, RST | ACK, b"")
    assert a.outcome.events == []
    assert a.outcome.injections == []


def test_a_syn_ack_out_of_nowhere() -> None:
    a = new()
    assert a.ingress(make(B, A, 700, 800, SYN | ACK), 0, 0.0) is DROP
    assert a.egress(make(A, B, 700, 800, SYN | ACK), 0, 0.0) is DROP
    assert a.outcome.refused == {"unknown-connection": 2}


def test_what_is_no_segment_is_dropped_and_counted() -> None:
    a = new()
    for way in (a.ingress, a.egress):
        assert way(make(B, A, 1, 1, ACK)[:-1], 0, 0.0) is DROP
        assert way(b"\x45" + bytes(60), 0, 0.0) is DROP
        assert way(b"", 0, 0.0) is DROP
    assert a.outcome.refused.total() == 6
    untouched(a)


def test_a_wrong_checksum_is_not_made_right() -> None:
    a, b = pair()
    good = from_b(b, b"data")
    damaged = bytearray(good)
    damaged[27] ^= 1  # a sequence number
    assert a.ingress(memoryview(damaged), CSUM_NOT_VERIFIED, 0.0) is DROP
    assert a.outcome.refused == {"bad-checksum": 1}
    for packet in (good, memoryview(good), memoryview(bytearray(good))):
        assert bytes(read(a.ingress(packet, CSUM_NOT_VERIFIED, 0.0)).payload()) == b"data"


# -- plaintext with the policy's leave


def test_prefer_talks_plaintext_with_whom_does_not_answer() -> None:
    a = new("prefer")
    assert read(dialled(a)).end - read(dialled(a)).payload_at == HELLO_LENGTH, "encryption is offered all the same"
    assert a.ingress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0) is ACCEPT
    assert a.egress(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"version"), 0, 0.0) is ACCEPT
    assert a.ingress(make(B, A, ISN_B + 1, ISN_A + 8, ACK | PSH, b"verack"), 0, 0.0) is ACCEPT
    assert [type(event) for event in a.outcome.events] == [InPlaintext]
    (shown,) = a.connections(0.0)
    assert (shown.state, shown.counters.bytes_out, shown.counters.bytes_in) == ("plaintext", 7, 6)
    assert a.table.plaintext_keys() == [key_of(A, B)]


def test_prefer_answers_a_stranger_in_plaintext() -> None:
    b = new("prefer")
    syn = make(A, B, ISN_A, 0, SYN)
    assert b.ingress(syn, 0, 0.0) is ACCEPT
    assert b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0) is ACCEPT
    assert b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"version"), 0, 0.0) is ACCEPT
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 8, ACK), 0, 0.0) is ACCEPT
    assert [type(event) for event in b.outcome.events] == [InPlaintext]
    assert not b.outcome.refused


def test_prefer_still_encrypts_with_whom_can() -> None:
    a, b = new("prefer", seed=1), new("prefer", seed=2)
    connect(a, b)
    assert b"in clear" not in from_b(b, b"in clear")
    assert a.table.plaintext_keys() == b.table.plaintext_keys() == []
    assert a.table.encrypted_keys() == [key_of(A, B)]


@pytest.mark.parametrize("payload", [b"", bytes(HELLO_LENGTH)])
def test_prefer_does_not_fall_back_where_the_peer_took_our_message(payload: bytes) -> None:
    """Its kernel has counted bytes that our socket never sent: plaintext could not work."""
    a = new("prefer")
    dialled(a)
    assert read(a.ingress(make(B, A, ISN_B, ISN_A + 1 + HELLO_LENGTH, SYN | ACK, payload), 0, 0.0)).flags == RST | ACK
    assert a.table.plaintext_keys() == []


def test_prefer_does_not_fall_back_for_a_forged_message() -> None:
    a, b = new("prefer", seed=1), new("prefer", seed=2)
    damaged = bytearray(dialled(a))
    damaged[-1] ^= 1
    assert b.ingress(damaged, 0, 0.0) is DROP
    assert b.outcome.refused == {"forged-handshake": 1}
    assert b.table.plaintext_keys() == []


def test_prefer_lets_connections_of_before_go_on() -> None:
    a = new("prefer")
    assert a.ingress(make(B, A, 700, 800, ACK | PSH, b"old"), 0, 0.0) is ACCEPT
    assert a.egress(make(A, B, 800, 703, ACK), 0, 0.0) is ACCEPT


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
    b = new(allow_plaintext=networks)
    expected = ACCEPT if allowed else DROP
    assert b.ingress(make(peer, local, ISN_A, 0, SYN), 0, 0.0) is expected
    assert b.egress(make(local, peer, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0) is expected
    assert b.ingress(make(peer, local, ISN_A + 1, ISN_B + 1, ACK | PSH, b"x"), 0, 0.0) is expected
    assert b.policy.plaintext_allowed(peer[0]) is allowed

    a = new(allow_plaintext=networks)
    dialled(a, local=local, remote=peer)
    verdict = a.ingress(make(peer, local, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0)
    if allowed:
        assert verdict is ACCEPT
    else:
        assert read(verdict).flags == RST | ACK


def test_data_in_a_plaintext_syn_is_taken_out() -> None:
    """Fast Open data of a stranger: nothing that was not answered for reaches a socket in a SYN."""
    b = new("prefer")
    seen = read(b.ingress(make(A, B, ISN_A, 0, SYN, b"early data"), 0, 0.0))
    assert (bytes(seen.payload()), seen.flags, seen.seq) == (b"", SYN, ISN_A)


def test_switched_off_new_connections_are_plaintext_and_encrypted_ones_go_on() -> None:
    a, b = pair()
    for at in (a, b):
        at.take_policy(replace(at.policy, enabled=False), 0.0)
        at.outcome.events.clear()
    other: Host = (A[0], 40001)
    syn = make(other, B, ISN_A, 0, SYN)
    assert a.egress(syn, 0, 0.0) is ACCEPT
    assert b.ingress(syn, 0, 0.0) is ACCEPT
    assert b.egress(make(B, other, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0) is ACCEPT
    wire = from_b(b, b"still encrypted")
    assert b"still encrypted" not in wire
    assert bytes(read(a.ingress(wire, 0, 0.0)).payload()) == b"still encrypted"
    seen = read(b.ingress(dialled(new(seed=3), local=(A[0], 40002)), 0, 0.0))
    assert bytes(seen.payload()) == b"", "a message that nobody answers does not reach the socket"


@pytest.mark.parametrize("payload", [b"", b"early data"])
def test_a_strangers_syn_does_not_make_an_encrypted_connection_plaintext(payload: bytes) -> None:
    a, b = new("prefer", seed=1), new("prefer", seed=2)
    connect(a, b)
    b.ingress(make(A, B, 77, 0, SYN, payload), 0, 0.0)
    assert b.table.plaintext_keys() == []
    assert b"confidential" not in from_b(b, b"confidential")
    b.table.abort(key_of(B, A), 0.0, "a test")
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK | PSH, b"confidential"), 0, 0.0) is DROP


def test_a_strangers_syn_does_not_bring_an_ended_connection_back_in_plaintext() -> None:
    b = new("prefer")
    b.table.remember(key_of(B, A), 111, 222, 0.0)
    b.ingress(make(A, B, 77, 0, SYN), 0, 1.0)
    assert b.table.plaintext_keys() == []
    assert b.egress(make(B, A, 1, 2, ACK | PSH, b"confidential"), 0, 1.0) is DROP


# -- back to plaintext on the same addresses and ports


def talks_plaintext(b: Engine, isn: int, now: float, passed: bytes = b"") -> None:
    """A peer without mcencrypt connects to B and sends; the socket at B has answered this very SYN."""
    assert b.ingress(make(A, B, isn, 0, SYN), 0, now) is ACCEPT
    assert b.egress(make(B, A, 9000, isn + 1, SYN | ACK), 0, now) is ACCEPT
    assert b.egress(make(B, A, 9000, isn + 1, SYN | ACK), 0, now) is ACCEPT, "and once more"
    assert b.ingress(make(A, B, isn + 1, 9001, ACK), 0, now) is ACCEPT
    assert b.ingress(make(A, B, isn + 1, 9001, ACK | PSH, b"version"), 0, now) is ACCEPT
    assert b.egress(make(B, A, 9001, isn + 8, ACK | PSH, b"verack"), 0, now) is ACCEPT
    (shown,) = b.connections(now)
    assert (shown.state, shown.counters.bytes_out, shown.counters.bytes_in) == ("plaintext", 6, 7)


def test_prefer_forgets_a_half_open_attempt_once_its_peer_is_answered_in_plaintext() -> None:
    a, b = new("prefer", seed=1), new("prefer", seed=2)
    read(b.ingress(dialled(a), 0, 0.0))
    read(b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0))
    talks_plaintext(b, 77, 3.0)


def test_prefer_forgets_an_encrypted_connection_once_its_peer_is_answered_in_plaintext() -> None:
    a, b = new("prefer", seed=1), new("prefer", seed=2)
    connect(a, b)
    talks_plaintext(b, 77, 3.0)
    assert b.table.gone.connections == 1


@pytest.mark.parametrize("encrypted", [True, False])
def test_prefer_forgets_an_ended_connection_once_its_peer_is_answered_in_plaintext(encrypted: bool) -> None:
    b = new("prefer")
    if encrypted:
        b.table.remember(key_of(B, A), 111, 222, 0.0)
    else:
        b.table.disown(key_of(B, A), 0.0)
    talks_plaintext(b, 77, 3.0)


def test_a_strangers_syn_does_not_end_a_half_open_attempt() -> None:
    """It takes our own socket's answer to that SYN, and the socket answers one only."""
    a, b = new("prefer", seed=1), new("prefer", seed=2)
    read(b.ingress(dialled(a), 0, 0.0))
    answer = b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0)
    assert b.ingress(make(A, B, 77, 0, SYN), 0, 0.0) is ACCEPT
    read(a.ingress(answer, 0, 0.0))
    read(b.ingress(a.egress(make(A, B, ISN_A + 1, ISN_B + 1, ACK), 0, 0.0), 0, 0.0))
    assert b.table.encrypted_keys() == [key_of(B, A)]
    assert b"confidential" not in from_b(b, b"confidential")
    assert b.table.plaintext_keys() == []


def test_an_answer_in_plaintext_needs_the_policys_leave_when_it_is_given() -> None:
    a, b = new("prefer", seed=1), new("prefer", seed=2)
    connect(a, b)
    assert b.ingress(make(A, B, 77, 0, SYN), 0, 0.0) is ACCEPT
    b.take_policy(replace(b.policy, mode="require"), 0.0)
    assert b.egress(make(B, A, 9000, 78, SYN | ACK), 0, 0.0) is DROP
    assert b.table.encrypted_keys() == [key_of(B, A)]


def test_prefer_forgets_an_encrypted_connection_when_its_own_socket_dials_anew_and_is_answered_in_plaintext() -> None:
    a, b = new("prefer", seed=1), new("prefer", seed=2)
    connect(a, b)
    dialled(a, 77)
    assert a.table.encrypted_keys(), "not before the answer"
    assert a.ingress(make(B, A, 9000, 78, SYN | ACK), 0, 0.0) is ACCEPT
    assert a.egress(make(A, B, 78, 9001, ACK | PSH, b"version"), 0, 0.0) is ACCEPT
    assert a.ingress(make(B, A, 9001, 85, ACK | PSH, b"verack"), 0, 0.0) is ACCEPT
    assert a.table.plaintext_keys() == [key_of(A, B)] and a.table.encrypted_keys() == []


def test_plaintext_syns_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_ANSWERING", 2)
    b = new("prefer")
    for port in range(1, 6):
        assert b.ingress(make((A[0], port), B, 77, 0, SYN), 0, 0.0) is ACCEPT
    assert len(b.admission._plain_syns) == 2
    b.tick(admission.LIFETIME)
    assert not b.admission._plain_syns


# -- keys


def test_a_peer_with_another_key_is_named_by_it() -> None:
    a, b = new(key=OTHER_KEY), new(seed=2)
    assert b.ingress(dialled(a), 0, 0.0) is DROP
    untouched(b)
    (event,) = b.outcome.events
    assert isinstance(event, Rejected) and event.reason == "wrong-key"
    assert NetworkSecret(OTHER_KEY).key_id.hex() in event.detail
    assert NetworkSecret(KEY).key_id.hex() in event.detail


def test_an_answer_under_another_key_is_named_by_it() -> None:
    a, theirs = new(), NetworkSecret(OTHER_KEY)
    dialled(a)
    static = X25519PrivateKey.from_private_bytes(bytes(range(32)))
    hello = bytes(read(dialled(new(key=OTHER_KEY))).payload())
    message, _ = Answer(theirs, static, hello, Clock.unix_ms).reply(ephemeral_key(Random(5).randbytes), 0)
    seen = read(a.ingress(make(B, A, ISN_B, ISN_A + 1 + HELLO_LENGTH, SYN | ACK, message), 0, 0.0))
    assert (seen.flags, seen.ack) == (RST | ACK, ISN_A + 1)
    assert theirs.key_id.hex() in rejected(a.outcome.events[-1]).detail
    assert rejected(a.outcome.events[-1]).reason == "wrong-key"


def test_prefer_talks_plaintext_with_another_network_and_says_so() -> None:
    b = new("prefer")
    seen = read(b.ingress(dialled(new(key=OTHER_KEY)), 0, 0.0))
    assert bytes(seen.payload()) == b""
    assert [type(event) for event in b.outcome.events] == [Rejected, InPlaintext]
    assert NetworkSecret(OTHER_KEY).key_id.hex() in rejected(b.outcome.events[0]).detail


def test_a_clock_that_is_off_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    syn = dialled(new())
    monkeypatch.setattr(Clock, "unix_ms", Clock.unix_ms + 700_000)
    b = new(seed=2)
    assert b.ingress(syn, 0, 0.0) is DROP
    assert b.outcome.refused == {"clock-skew": 1}
    assert "700 s behind" in rejected(b.outcome.events[0]).detail


@pytest.mark.parametrize("option", [b"\x13\x12" + bytes(16), b"\x1d\x10" + bytes(14)])
def test_signed_connections_are_refused(option: bytes) -> None:
    options = b"\x02\x04\x05\xb4" + option + b"\x01" * (-len(option) % 4)
    a, b = new(seed=1), new(seed=2)
    assert a.egress(make(A, B, ISN_A, 0, SYN, options=options), 0, 0.0) is DROP
    hello = bytes(read(dialled(new(seed=3))).payload())
    assert b.ingress(make(A, B, ISN_A, 0, SYN, hello, options), 0, 0.0) is DROP
    assert a.outcome.refused == b.outcome.refused == {"signed-tcp": 1}
    untouched(a)
    untouched(b)


# -- attempts, and which message belongs to which


def test_a_repeated_syn_carries_the_same_bytes_and_another_one_does_not() -> None:
    a = new()
    first = dialled(a)
    assert dialled(a) == first
    second = dialled(a, ISN_A + 1)
    assert read(second).payload() != read(first).payload()
    assert read(second).payload()[30:62] != read(first).payload()[30:62], "a new ephemeral key"


def answered(b: Engine, isn: int) -> bytes:
    verdict = b.egress(make(B, A, isn, ISN_A + 1, SYN | ACK), 0, 0.0)
    return bytes(read(verdict).payload())


def test_a_repeated_answer_carries_the_same_message_and_another_one_does_not() -> None:
    a, b = new(seed=1), new(seed=2)
    syn = dialled(a)
    b.ingress(syn, 0, 0.0)
    first = answered(b, ISN_B)
    assert answered(b, ISN_B) == first
    second = answered(b, ISN_B + 1)
    assert second[30:62] != first[30:62], "a new ephemeral key"
    read(b.ingress(syn, 0, 0.0))
    assert (answered(b, ISN_B), answered(b, ISN_B + 1)) == (first, second), "also behind a repeated SYN"


@pytest.mark.parametrize("lives", [0, 1, 2, 3])
def test_whichever_answer_arrives_the_keys_fit(lives: int) -> None:
    a, b = new(seed=1), new(seed=2)
    b.ingress(dialled(a), 0, 0.0)
    answers = [b.egress(make(B, A, ISN_B + 100 * n, ISN_A + 1, SYN | ACK), 0, 0.0) for n in range(4)]
    assert b.egress(make(B, A, ISN_B + 400, ISN_A + 1, SYN | ACK), 0, 0.0) is DROP
    assert b.outcome.refused == {"too-many-attempts": 1}
    isn = ISN_B + 100 * lives
    assert read(a.ingress(answers[lives], 0, 0.0)).seq == isn
    wire = a.egress(make(A, B, ISN_A + 1, isn + 1, ACK | PSH, b"first"), 0, 0.0)  # the bare ACK was lost
    assert bytes(read(b.ingress(wire, 0, 0.0)).payload()) == b"first"
    wire = b.egress(make(B, A, isn + 1, ISN_A + 6, ACK | PSH, b"second"), 0, 0.0)
    assert bytes(read(a.ingress(wire, 0, 0.0)).payload()) == b"second"


def test_a_handshake_is_consumed_once() -> None:
    a, b = new(seed=1), new(seed=2)
    b.ingress(dialled(a), 0, 0.0)
    answer = b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0)
    other = b.egress(make(B, A, ISN_B + 1, ISN_A + 1, SYN | ACK), 0, 0.0)
    a.ingress(answer, 0, 0.0)
    for again in (answer, make(B, A, ISN_B, EDGE_A, SYN | ACK, bytes(HELLO_LENGTH))):
        seen = read(a.ingress(again, 0, 0.0))
        assert (seen.flags, seen.ack, bytes(seen.payload())) == (SYN | ACK, ISN_A + 1, b"")
    for stray in (other, make(B, A, 31337, EDGE_A, SYN | ACK)):
        assert a.ingress(stray, 0, 0.0) is DROP
    assert a.outcome.refused == {"stray-syn-ack": 2}
    b.ingress(a.egress(make(A, B, ISN_A + 1, ISN_B + 1, ACK), 0, 0.0), 0, 0.0)
    assert bytes(read(a.ingress(from_b(b, b"alive"), 0, 0.0)).payload()) == b"alive"
    assert answered(b, ISN_B) == bytes(read(answer).payload()), "our socket may repeat its answer"


@pytest.mark.parametrize(
    ("source", "isn"), [((bytes((10, 0, 0, 9)), A[1]), ISN_A), ((A[0], A[1] + 1), ISN_A), (A, ISN_A + 1)]
)
def test_a_recorded_syn_opens_nothing(source: Host, isn: int) -> None:
    a, b = new(seed=1), new(seed=2)
    syn = dialled(a)
    assert read(b.ingress(syn, 0, 0.0)).flags == SYN
    hello = bytes(read(syn).payload())
    assert b.ingress(make(source, B, isn, 0, SYN, hello), 0, 0.0) is DROP
    assert b.outcome.refused == {"replayed": 1}
    assert rejected(b.outcome.events[-1]).reason == "replayed"
    assert read(b.ingress(syn, 0, 0.0)).flags == SYN, "the true one may be repeated"
    verdict = b.egress(make(B, source, ISN_B, isn + 1, SYN | ACK), 0, 0.0)
    assert verdict is DROP or not read(verdict).payload(), "no message 2 for an answer to it"


def test_a_recorded_syn_opens_nothing_once_its_connection_is_gone() -> None:
    a, b = new(seed=1), new(seed=2)
    hello = bytes(read(dialled(a)).payload())
    connect(a, b)
    b.table.forget(key_of(B, A))
    assert b.ingress(make((bytes((10, 0, 0, 9)), 1), B, ISN_A, 0, SYN, hello), 0, 0.0) is DROP
    assert b.outcome.refused == {"replayed": 1}


def test_both_dialling_at_once_is_refused() -> None:
    a, b = new(seed=1), new(seed=2)
    syn_a = dialled(a)
    syn_b = dialled(b, ISN_B, B, A)
    assert a.ingress(syn_b, 0, 0.0) is DROP
    assert b.ingress(syn_a, 0, 0.0) is DROP
    assert a.outcome.refused == b.outcome.refused == {"simultaneous-open": 1}
    assert rejected(a.outcome.events[-1]).reason == "simultaneous-open"
    assert a.table.encrypted_keys() == []


def test_a_new_attempt_on_the_same_ports_does_not_harm_the_connection() -> None:
    a, b = pair()
    b.ingress(dialled(new(seed=3), 31337), 0, 0.0)
    for isn in (1, 2**31):
        assert b.ingress(make(A, B, isn, 0, SYN), 0, 0.0) is DROP
    assert b.table.encrypted_keys() == [key_of(B, A)]
    assert bytes(read(a.ingress(from_b(b, b"alive"), 0, 0.0)).payload()) == b"alive"


def test_a_connection_is_replaced_by_a_new_one_on_the_same_ports() -> None:
    a, b = pair()
    connect(a, b, 900_000, 800_000)
    assert len(b.table.encrypted_keys()) == 1
    wire = b.egress(make(B, A, 800_001, 900_001, ACK | PSH, b"new"), 0, 0.0)
    assert bytes(read(a.ingress(wire, 0, 0.0)).payload()) == b"new"
    assert (a.table.gone.connections, b.table.gone.connections) == (1, 1)


def test_fast_open_is_stripped() -> None:
    a, b = new(seed=1), new(seed=2)
    options = b"\x02\x04\x05\xb4" + b"\x22\x0a" + b"cookie!!" + b"\x01\x01"
    wire = read(a.egress(make(A, B, ISN_A, 0, SYN, b"early plaintext", options), 0, 0.0))
    assert len(wire.payload()) == HELLO_LENGTH
    assert b"early" not in bytes(wire.packet)
    assert bytes(wire.options()) == b"\x02\x04\x05\xb4" + b"\x01" * 12
    hello = bytes(wire.payload())
    seen = read(b.ingress(make(A, B, ISN_A, 0, SYN, hello, options), 0, 0.0))
    assert bytes(seen.payload()) == b""
    assert [kind for kind, _, _ in walk(seen.options())] == [2]
    answer = read(b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK, b"", options), 0, 0.0))
    assert [kind for kind, _, _ in walk(answer.options())] == [2]


# -- what flows must not believe


def test_a_fin_without_final_loses_its_flag() -> None:
    a, b = pair()
    seen = read(a.ingress(make(B, A, EDGE_B, EDGE_A, FIN | ACK), 0, 0.0))
    assert seen.flags == ACK
    assert seen.seq == ISN_B + 1
    assert a.outcome.refused == {"unauthenticated-fin": 1}
    wire = read(from_b(b, b"data"))
    seen = read(a.ingress(rebuild(wire, wire.seq, wire.ack, wire.payload(), flags=wire.flags | FIN), 0, 0.0))
    assert (bytes(seen.payload()), seen.flags & FIN) == (b"data", 0), "the data in it is kept"
    assert next(iter(a.connections(0.0))).state == "encrypted"


@pytest.mark.parametrize("data", [b"", b"the last words"])
def test_a_fin_with_final_passes(data: bytes) -> None:
    a, b = pair()
    wire = from_b(b, data, FIN | ACK)
    assert read(wire).end - read(wire).payload_at == len(data) + 22
    assert read(wire).flags & FIN
    seen = read(a.ingress(wire, 0, 0.0))
    assert (bytes(seen.payload()), seen.flags & FIN, seen.seq) == (data, FIN, ISN_B + 1)
    assert not a.outcome.refused


def test_a_final_record_whose_fin_flag_was_removed_ends_nothing_yet() -> None:
    a, b = pair()
    wire = read(from_b(b, b"the last words", FIN | ACK))
    seen = read(a.ingress(rebuild(wire, wire.seq, wire.ack, wire.payload(), flags=ACK), 0, 0.0))
    assert (bytes(seen.payload()), seen.flags & FIN) == (b"the last words", 0)


@pytest.mark.parametrize("beyond", [1, 22, 1000, 2**30])
@pytest.mark.parametrize("payload", [False, True])
def test_an_acknowledgement_of_what_was_never_sent_is_dropped(beyond: int, payload: bool) -> None:
    a, b = pair()
    wire = read(from_b(b, b"data"))
    data = bytes(wire.payload()) if payload else b""
    assert a.ingress(make(B, A, EDGE_B, EDGE_A + beyond, ACK, data), 0, 0.0) is DROP
    assert a.outcome.refused == {"acknowledges-unsent": 1}
    assert bytes(read(a.ingress(make(B, A, EDGE_B, EDGE_A, ACK, bytes(wire.payload())), 0, 0.0)).payload()) == b"data"


def test_the_urgent_flag_is_cleared_both_ways() -> None:
    a, b = pair()
    wire = b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK | PSH | URG, b"data", urgent=2), 0, 0.0)
    for packet in (wire, rebuilt_urgent(wire)):
        seen = read(a.ingress(packet, 0, 0.0))
        assert bytes(seen.payload()) == b"data"
        assert not seen.flags & URG
        assert bytes(seen.packet[seen.tcp_at + 18 : seen.tcp_at + 20]) == b"\0\0"
    assert not read(wire).flags & URG


def rebuilt_urgent(verdict: Verdict) -> bytes:
    """The packet as a hostile path would send it on: URG set, pointing at its second byte."""
    wire = read(verdict)
    source, to = (wire.source_first[:4], B[1]), (wire.source_first[4:8], A[1])
    return make(source, to, wire.seq, wire.ack, wire.flags | URG, bytes(wire.payload()), urgent=2)


def test_no_flipped_bit_of_a_segment_changes_what_is_read() -> None:
    a, b = pair()
    wire = from_b(b, b"exactly this")
    payload_at = read(wire).payload_at
    for bit in range(20 * 8, len(wire) * 8):
        damaged = bytearray(wire)
        damaged[bit // 8] ^= 1 << bit % 8
        verdict = a.ingress(damaged, 0, 0.0)
        assert verdict is DROP or bit // 8 < payload_at, f"bit {bit}"
        for packet in [verdict] * isinstance(verdict, bytes) + [injection.packet for injection in a.outcome.injections]:
            segment = read(packet)
            # One byte below what was acknowledged carries nothing: the socket has it.
            assert bytes(segment.payload()) in (b"", b"exactly this") or segment.seq == ISN_B, f"bit {bit}"
            if segment.payload():
                assert segment.seq in (ISN_B + 1, ISN_B), f"bit {bit}"
        a.outcome.injections.clear()
    assert bytes(read(a.ingress(wire, 0, 0.0)).payload()) == b"exactly this"


def test_a_forged_record_is_reported_and_later_drops_are_not() -> None:
    a, b = pair()
    wire = bytearray(from_b(b, b"data"))
    wire[-1] ^= 1
    a.outcome.events.clear()
    assert a.ingress(wire, 0, 0.0) is DROP
    assert [type(event) for event in a.outcome.events] == [Tampered]
    assert a.outcome.refused == {"tampered": 1}
    a.outcome.events.clear()
    assert a.ingress(make(B, A, EDGE_B, EDGE_A + 5, ACK), 0, 0.0) is DROP
    assert a.outcome.events == [], "this one was no record"
    (shown,) = a.connections(0.0)
    assert shown.counters.auth_failures == 1


@pytest.mark.parametrize("off", [-1, 0, 1, 1000])
def test_a_reset_is_exact_only_if_it_was(off: int) -> None:
    a, _ = pair()
    verdict = a.ingress(make(B, A, EDGE_B + off, EDGE_A, RST | ACK), 0, 0.0)
    if off < 0:
        assert verdict is DROP
    else:
        assert (read(verdict).seq == ISN_B + 1) is (off == 0)
        assert read(verdict).flags & RST
    assert a.table.encrypted_keys() == [key_of(A, B)], "only the kernel's socket table ends a flow"


# -- bounds


def test_attempts_of_one_address_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_PER_ADDRESS", 3)
    monkeypatch.setattr(admission, "MAX_ANSWERING", 5)
    a, b = new(seed=1), new(seed=2)

    def attempt(host: int, port: int, now: float) -> Verdict:
        peer: Host = (bytes((10, 0, 0, host)), port)
        return b.ingress(dialled(a, local=peer), 0, now)

    assert [attempt(1, port, 0.0) is not DROP for port in range(1, 6)] == [True, True, True, False, False]
    assert b.outcome.refused == {"too-many-attempts": 2}
    assert [attempt(3, port, 10.0) is not DROP for port in range(1, 4)] == [True, True, False], "in all"
    assert attempt(1, 1, 10.0) is not DROP, "a repeated SYN is no new attempt"
    assert len(list(b.connections(0.0))) == 5
    b.tick(admission.LIFETIME)
    assert len(list(b.connections(0.0))) == 2
    assert attempt(1, 4, 80.0) is not DROP, "their places are free again"
    b.tick(10 * admission.LIFETIME)
    untouched(b)


def test_our_own_dials_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_DIALLING", 2)
    a = new()
    for port in (1, 2):
        dialled(a, local=(A[0], port))
    assert a.egress(make((A[0], 3), B, ISN_A, 0, SYN), 0, 0.0) is DROP
    assert a.outcome.refused == {"too-many-attempts": 1}
    dialled(a, local=(A[0], 2), isn=77)
    a.tick(admission.LIFETIME)
    dialled(a, local=(A[0], 3))


def test_who_has_proven_nothing_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MAX_UNCONFIRMED", 1)
    a, b = pair()
    second: Host = (A[0], 40001)
    assert b.ingress(dialled(a, local=second), 0, 0.0) is DROP
    assert b.outcome.refused == {"too-many-attempts": 1}
    b.ingress(a.egress(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"it is me"), 0, 0.0), 0, 0.0)
    connect(a, b, local=second)


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_FLOWS", 1)
    monkeypatch.setattr(table, "MAX_PLAINTEXT", 1)
    a, b = pair()
    second: Host = (A[0], 40001)
    b.ingress(dialled(a, local=second), 0, 0.0)
    answer = b.egress(make(B, second, ISN_B, ISN_A + 1, SYN | ACK), 0, 0.0)
    assert a.ingress(answer, 0, 0.0) is DROP
    assert a.outcome.refused == {"too-many-connections": 1}
    assert len(a.table.encrypted_keys()) == 1

    plain = new("prefer")
    assert plain.ingress(make(A, B, 1, 1, ACK), 0, 0.0) is ACCEPT
    assert plain.ingress(make(second, B, 1, 1, ACK), 0, 0.0) is DROP, "a full table fails closed"


# -- ends


def test_connections_of_an_earlier_process_are_answered_exactly() -> None:
    a = new("prefer")
    key = key_of(A, B)
    a.table.remember(key, 111, 222, 0.0)
    (injection,) = a.outcome.injections
    assert injection.toward == "network"
    assert (read(injection.packet).seq, read(injection.packet).ack) == (111, 222)
    assert read(injection.packet).source_first == key
    assert [type(event) for event in a.outcome.events] == [Ended]
    a.outcome.injections.clear()

    assert a.ingress(make(B, A, 500, 600, ACK | PSH, b"ciphertext"), 0, 1.0) is DROP
    (injection,) = a.outcome.injections
    reset = read(injection.packet)
    assert (reset.seq, reset.flags, injection.toward) == (600, RST, "network")
    a.outcome.injections.clear()
    assert a.egress(make(A, B, 1, 2, ACK | PSH, b"confidential"), 0, 1.0) is DROP, "not even under prefer"
    assert [injection.toward for injection in a.outcome.injections] == ["socket"]
    a.outcome.injections.clear()
    assert a.ingress(make(B, A, 500, 0, RST), 0, 1.0) is DROP
    assert a.outcome.injections == [], "no reset answers a reset"
    a.tick(GHOST_LIFETIME)
    assert a.ingress(make(B, A, 500, 600, ACK), 0, GHOST_LIFETIME) is ACCEPT


def test_an_aborted_connection_is_reset_with_exact_numbers() -> None:
    a, b = pair()
    a.ingress(from_b(b, b"12345"), 0, 0.0)
    a.table.abort(key_of(A, B), 0.0, "a test")
    (injection,) = a.outcome.injections
    reset = read(injection.packet)
    assert (reset.seq, reset.ack, reset.flags) == (EDGE_A, EDGE_B + 5 + 22, RST | ACK)
    seen = read(b.ingress(injection.packet, 0, 0.0))
    assert (seen.seq, seen.flags & RST) == (ISN_A + 1, RST)
    assert a.table.encrypted_keys() == []
    assert a.table.gone.counters.bytes_in == 5


def test_a_silent_connection_is_looked_up_and_forgotten() -> None:
    a, _ = pair()
    assert a.tick(table.LOOK_AFTER - 1) == []
    assert a.tick(table.LOOK_AFTER + 1) == [key_of(A, B)]
    a.table.touch(key_of(A, B), table.LOOK_AFTER)
    assert a.tick(table.LOOK_AFTER + 1) == []
    a.table.forget(key_of(A, B))
    assert type(a.outcome.events[-1]) is Closed
    untouched(a)
    assert a.egress(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"confidential"), 0, 0.0) is DROP
