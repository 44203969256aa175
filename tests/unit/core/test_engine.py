"""What the engine does with connections: who is let in, who is refused and how, and what a stranger can harm."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from random import Random
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from mcencrypt.core import admission, engine, table
from mcencrypt.core.addresses import reversed_key
from mcencrypt.core.engine import CSUM_NOT_READY, CSUM_NOT_VERIFIED, GSO, Engine
from mcencrypt.core.handshake import HELLO_LENGTH, NetworkSecret
from mcencrypt.core.keyring import KeyRing
from mcencrypt.core.noise import public_bytes
from mcencrypt.core.policy import Policy, Surroundings
from mcencrypt.core.record import OVERHEAD
from mcencrypt.core.verdict import ACCEPT, DROP, Closed, Encrypted, Ended, Event, InPlaintext, Rejected, Verdict

CLIENT, SERVER, OTHER = "10.0.0.1", "10.0.0.2", "10.9.9.9"
PORTS = (40000, 8571)
KEY = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + PORTS[0].to_bytes(2) + PORTS[1].to_bytes(2)
ISN_C, ISN_S = 0xFFFFFF00, 5000  # the client's wraps soon


class Clock:
    unix_ms = 1_700_000_000_000


class Node:
    """An engine, and packets in and out of it as scapy sees them."""

    def __init__(self, seed: int, key: bytes = b"k" * 32, *, mtu: int = 1500, **policy: Any) -> None:
        entropy = Random(seed)
        self.static = X25519PrivateKey.from_private_bytes(entropy.randbytes(32))
        around = Surroundings(entropy.randbytes, lambda: Clock.unix_ms, lambda peer, own: mtu)
        self.engine = Engine(Policy(**policy), KeyRing([NetworkSecret(key)]), self.static, around)
        self.now = 100.0

    def egress(self, packet: Any, info: int = CSUM_NOT_READY) -> Any:
        return read(self.engine.egress(bytes(packet), info, self.now))

    def ingress(self, packet: Any, info: int = 0) -> Any:
        return read(self.engine.ingress(bytes(packet), info, self.now))

    def injected(self) -> list[tuple[str, Any]]:
        found = [(injection.toward, read(injection.packet)) for injection in self.engine.outcome.injections]
        self.engine.outcome.injections.clear()
        return found

    def events(self) -> list[tuple[type[Event], str]]:
        found = [
            (type(event), event.reason if isinstance(event, Rejected) else "") for event in self.engine.outcome.events
        ]
        self.engine.outcome.events.clear()
        return found


def read(verdict: Verdict) -> Any:
    if not isinstance(verdict, bytes):
        return verdict
    packet = IPv6(verdict) if verdict[0] >> 4 == 6 else IP(verdict)
    again = packet.copy()
    if again.version == 4:
        del again.chksum
    del again[TCP].chksum
    assert bytes(again) == verdict, "checksums"
    return packet


def data(packet: Any) -> bytes:
    return bytes(packet[TCP].payload)


def segment(flags: str, seq: int, ack: int = 0, payload: bytes = b"", *, back: bool = False, source: str = CLIENT,
            destination: str = SERVER, ports: tuple[int, int] = PORTS, **fields: Any) -> Any:  # fmt: skip
    """From client to server, or `back`; sequence numbers modulo 2^32."""
    if back:
        source, destination, ports = destination, source, ports[::-1]
    tcp = TCP(sport=ports[0], dport=ports[1], seq=seq % 2**32, ack=ack % 2**32, flags=flags, **fields)
    packet = IP(src=source, dst=destination, id=7, flags="DF") / tcp
    return IP(bytes(packet / Raw(payload) if payload else packet))


def syn(**fields: Any) -> Any:
    return segment("S", fields.pop("isn", ISN_C), options=[("MSS", 1460), ("SAckOK", b""), ("WScale", 7)], **fields)


def syn_ack(**fields: Any) -> Any:
    isn = fields.pop("isn", ISN_S)
    acked = fields.pop("acked", ISN_C + 1)
    return segment("SA", isn, acked, back=True, options=[("MSS", 1460), ("SAckOK", b""), ("WScale", 7)], **fields)


def pair(**policy: Any) -> tuple[Node, Node]:
    return Node(1, **policy), Node(2, **policy)


def connect(client: Node, server: Node, isn_c: int = ISN_C, isn_s: int = ISN_S) -> None:
    """The handshake, as two kernels would do it."""
    dialled = server.ingress(client.egress(syn(isn=isn_c)))
    assert dialled[TCP].seq == isn_c % 2**32 and not data(dialled)
    answered = client.ingress(server.egress(syn_ack(isn=isn_s, acked=isn_c + 1)))
    assert answered[TCP].ack == (isn_c + 1) % 2**32 and answered[TCP].seq == isn_s and not data(answered)
    done = server.ingress(client.egress(segment("A", isn_c + 1, isn_s + 1)))
    assert (done[TCP].seq, done[TCP].ack) == ((isn_c + 1) % 2**32, isn_s + 1)


def connected(**policy: Any) -> tuple[Node, Node]:
    client, server = pair(**policy)
    connect(client, server)
    return client, server


def say(client: Node, server: Node, text: bytes, at: int = 0, flags: str = "PA") -> Any:
    """The client sends `text` from plain offset `at` on; what reaches the server's socket."""
    wire = client.egress(segment(flags, ISN_C + 1 + at, ISN_S + 1, text))
    assert text not in bytes(wire)
    return server.ingress(wire)


# -- the handshake


def test_handshake_and_first_record() -> None:
    client, server = connected()
    assert client.engine.outcome.events == [Encrypted(KEY, public_bytes(server.static))]
    assert server.events() == [], "the initiator is proven by its first record only"
    assert [c.state for c in server.engine.connections(0)] == ["unconfirmed"]
    assert next(iter(server.engine.connections(0))).identity == b""
    got = say(client, server, b"hello")
    assert data(got) == b"hello" and got[TCP].seq == (ISN_C + 1) % 2**32
    assert server.engine.outcome.events == [Encrypted(reversed_key(KEY), public_bytes(client.static))]
    assert [c.identity for c in server.engine.connections(0)] == [public_bytes(client.static)]


def test_the_server_may_speak_first() -> None:
    client, server = connected()
    wire = server.egress(segment("PA", ISN_S + 1, ISN_C + 1, b"welcome", back=True))
    assert data(client.ingress(wire)) == b"welcome"


def test_retransmitted_syn_and_syn_ack_carry_the_same_bytes() -> None:
    client, server = pair()
    first, again = client.egress(syn()), client.egress(syn())
    assert data(first) == data(again) and len(data(first)) == HELLO_LENGTH
    assert server.ingress(first) == server.ingress(again)
    answers = [server.egress(syn_ack()) for _ in range(2)]
    assert data(answers[0]) == data(answers[1]) and len(data(answers[0])) == HELLO_LENGTH
    assert answers[0][TCP].ack == (ISN_C + 1 + HELLO_LENGTH) % 2**32


def test_another_attempt_has_another_message() -> None:
    client, server = pair()
    first = client.egress(syn())
    assert data(first) != data(client.egress(syn(isn=77)))
    server.ingress(first)
    one, other = server.egress(syn_ack()), server.egress(syn_ack(isn=9999))
    assert data(one)[:14] == data(other)[:14] and data(one)[14:] != data(other)[14:]
    assert data(server.egress(syn_ack())) == data(one), "the first answer stays what it was"


@pytest.mark.parametrize("isn", [ISN_S, 9999])
def test_either_of_two_answers_completes(isn: int) -> None:
    client, server = pair()
    server.ingress(client.egress(syn()))
    answers = {isn: server.egress(syn_ack(isn=isn)) for isn in (ISN_S, 9999)}
    client.ingress(answers[isn])
    server.ingress(client.egress(segment("A", ISN_C + 1, isn + 1)))
    assert data(server.ingress(client.egress(segment("PA", ISN_C + 1, isn + 1, b"x")))) == b"x"


def test_a_late_syn_ack_changes_nothing() -> None:
    client, server = pair()
    server.ingress(client.egress(syn()))
    answer = server.egress(syn_ack())
    client.ingress(answer)
    server.ingress(client.egress(segment("A", ISN_C + 1, ISN_S + 1)))
    again = client.ingress(answer)
    assert again is DROP or not data(again)
    assert data(say(client, server, b"still here")) == b"still here"


def test_syns_lose_what_cannot_work_and_gain_a_smaller_mss() -> None:
    client, server = pair()
    offered = [("MSS", 1460), ("TFO", (1, 2)), ("SAckOK", b""), ("WScale", 7)]
    wire = client.egress(segment("S", ISN_C, options=offered))
    assert not [option for option in wire[TCP].options if option[0] == "TFO"]
    got = server.ingress(wire)
    assert dict(o for o in got[TCP].options if o[0] == "MSS") == {"MSS": 1460 - OVERHEAD}
    narrow = Node(3, mtu=1400)
    assert ("MSS", 1360 - OVERHEAD) in narrow.ingress(wire)[TCP].options


def test_signed_connections_are_refused() -> None:
    client, _ = pair()
    signed = segment("S", ISN_C, options=[(19, bytes(16))])
    assert client.egress(signed) is DROP and client.events() == [(Rejected, "signed-tcp")]
    assert client.ingress(segment("S", 1, options=[(19, bytes(16))], back=True)) is DROP


# -- strangers


def test_require_gives_a_stranger_no_answer() -> None:
    server = Node(2)
    assert server.ingress(syn()) is DROP
    assert server.injected() == [] and server.engine.outcome.refused["not-a-handshake"] == 1
    assert list(server.engine.connections(0)) == []


@pytest.mark.parametrize("acked", [ISN_C + 1, ISN_C + 1 + HELLO_LENGTH])
@pytest.mark.parametrize("mode", ["require", "prefer"])
def test_a_syn_ack_without_message_fails_connect_at_once(acked: int, mode: str) -> None:
    client = Node(1, mode=mode)
    client.egress(syn())
    got = client.ingress(syn_ack(acked=acked))
    if mode == "prefer" and acked == ISN_C + 1:
        assert got is ACCEPT
        return
    assert got[TCP].flags == "RA" and got[TCP].ack == (ISN_C + 1) % 2**32 and not data(got)
    assert (Rejected, "not-a-handshake") in client.events()


def test_prefer_lets_plaintext_run() -> None:
    client = Node(1, mode="prefer")
    client.egress(syn())
    assert client.ingress(syn_ack()) is ACCEPT
    assert (InPlaintext, "") in client.events()
    assert client.egress(segment("PA", ISN_C + 1, ISN_S + 1, b"plain")) is ACCEPT
    assert client.ingress(segment("PA", ISN_S + 1, ISN_C + 6, b"plain", back=True)) is ACCEPT
    [shown] = client.engine.connections(0)
    assert (shown.state, shown.counters.bytes_out, shown.counters.bytes_in) == ("plaintext", 5, 5)


def test_prefer_answers_a_stranger_in_plaintext() -> None:
    server = Node(2, mode="prefer")
    assert server.ingress(syn()) is ACCEPT
    assert server.egress(syn_ack()) is ACCEPT
    assert server.ingress(segment("PA", ISN_C + 1, ISN_S + 1, b"plain")) is ACCEPT


def test_prefer_encrypts_where_it_can() -> None:
    client, server = connected(mode="prefer")
    assert data(say(client, server, b"secret")) == b"secret"


def test_plaintext_is_allowed_for_named_networks_only() -> None:
    server = Node(2, allow_plaintext=(ip_network("10.0.0.0/30"), ip_network("fd00::/8")))
    assert server.ingress(syn()) is ACCEPT
    assert server.ingress(syn(source=OTHER)) is DROP
    six = IPv6(src="fd00::1", dst="fd00::2") / TCP(sport=1, dport=8571, flags="S", seq=5)
    assert server.ingress(IPv6(bytes(six))) is ACCEPT
    six = IPv6(src="fe00::1", dst="fd00::2") / TCP(sport=1, dport=8571, flags="S", seq=5)
    assert server.ingress(IPv6(bytes(six))) is DROP


def test_a_wrong_key_is_named() -> None:
    client, server = Node(1, b"a" * 32), Node(2, b"b" * 32)
    assert server.ingress(client.egress(syn())) is DROP
    (event,) = server.engine.outcome.events
    assert (
        isinstance(event, Rejected)
        and event.reason == "wrong-key"
        and client.engine.ring.offered.key_id.hex() in event.detail
    )
    assert server.injected() == []


def test_a_wrong_key_in_the_answer_resets_connect() -> None:
    client, server, honest = Node(1, b"a" * 32), Node(2, b"b" * 32), Node(3, b"b" * 32)
    client.egress(syn())
    server.ingress(honest.egress(syn()))
    got = client.ingress(server.egress(syn_ack()))
    assert got[TCP].flags == "RA"
    assert server.engine.ring.offered.key_id.hex() in str(client.engine.outcome.events[-1])


def test_a_replayed_syn_from_elsewhere_gets_no_answer() -> None:
    client, server = pair()
    hello = data(client.egress(syn()))
    assert server.ingress(syn(payload=hello)) is not DROP
    for elsewhere in ({"source": OTHER}, {"ports": (40001, 8571)}, {"isn": 12}):
        assert server.ingress(syn(payload=hello, **elsewhere)) is DROP
    assert server.engine.outcome.refused["replayed"] == 3 and server.injected() == []
    assert server.ingress(syn(payload=hello)) is not DROP, "the same attempt again is a retransmission"


def test_simultaneous_open_is_refused() -> None:
    client, server = pair()
    client.egress(syn())
    crossing = server.egress(segment("S", 77, back=True))
    assert client.ingress(crossing) is DROP
    assert (Rejected, "simultaneous-open") in client.events()


# -- nothing harms a live connection


def test_a_syn_for_a_live_connection_does_not_harm_it() -> None:
    client, server = connected()
    say(client, server, b"before")
    reborn = Node(1)  # the client's host forgot everything, and dials from the same port
    reborn.egress(syn())
    again = reborn.egress(syn(isn=123456))
    passed = server.ingress(again)
    assert passed[TCP].seq == 123456
    # The server's kernel answers with a challenge (RFC 5961 section 4.2), which the live flow translates.
    challenge = server.egress(segment("A", ISN_S + 1, ISN_C + 7, back=True))
    edge = (ISN_C + 1 + HELLO_LENGTH + 6 + OVERHEAD) % 2**32
    assert (challenge[TCP].seq, challenge[TCP].ack) == (ISN_S + 1 + HELLO_LENGTH, edge)
    # The old connection goes on meanwhile.
    assert data(say(client, server, b" after", 6)) == b" after"
    # In SYN-SENT numbers pass as they are, and the kernel's reset is exact on the other side.
    shown = reborn.ingress(challenge)
    assert (shown[TCP].seq, shown[TCP].ack) == (challenge[TCP].seq, edge)
    # (for the reset to be exact, it answers what was current when " after" had not come yet: a fresh challenge)
    challenge = server.egress(segment("A", ISN_S + 1, ISN_C + 13, back=True))
    shown = reborn.ingress(challenge)
    reset = reborn.egress(segment("R", shown[TCP].ack))
    assert reset[TCP].seq == challenge[TCP].ack
    got = server.ingress(reset)
    assert got[TCP].flags == "R" and got[TCP].seq == (ISN_C + 13) % 2**32


def test_a_connection_in_time_wait_is_reused() -> None:
    client, server = connected()
    say(client, server, b"old")
    connect(client, server, 300000, 700000)
    wire = client.egress(segment("PA", 300001, 700001, b"new"))
    assert data(server.ingress(wire)) == b"new"
    assert len(client.engine.table.encrypted_keys()) == len(server.engine.table.encrypted_keys()) == 1


def test_a_stray_syn_ack_does_not_harm_a_live_connection() -> None:
    client, server = connected()
    for isn in (ISN_S, 1234):
        got = client.ingress(syn_ack(isn=isn, acked=999))
        assert got is DROP or got[TCP].flags == "SA"
        assert client.injected() == [] and not [kind for kind, _ in client.events() if kind is Ended]
    assert data(say(client, server, b"fine")) == b"fine"


@pytest.mark.parametrize("at", [1, 7, 300])
def test_a_first_segment_that_is_late_completes_the_connection(at: int) -> None:
    client, server = pair()
    server.ingress(client.egress(syn()))
    client.ingress(server.egress(syn_ack()))
    client.egress(segment("A", ISN_C + 1, ISN_S + 1))
    client.egress(segment("PA", ISN_C + 1, ISN_S + 1, b"x" * at))
    got = server.ingress(client.egress(segment("PA", ISN_C + 1 + at, ISN_S + 1, b"second")))
    assert data(got) == b"second" and got[TCP].ack == ISN_S + 1, "a half-open socket resets any other number"
    assert got[TCP].seq == (ISN_C + 1 + at) % 2**32


def test_numbers_of_a_half_open_connection_pass_as_they_are() -> None:
    client, server = pair()
    server.ingress(client.egress(syn()))
    server.egress(syn_ack())
    got = server.ingress(segment("A", 5, 6, b"payload"))
    assert (got[TCP].seq, got[TCP].ack, data(got)) == (5, 6, b"")
    out = server.egress(segment("R", 6, back=True))
    assert out[TCP].seq == 6


# -- segments


def test_unknown_connections_are_dropped_and_their_sockets_destroyed() -> None:
    node = Node(1)
    assert node.ingress(segment("PA", 1, 2, b"x", back=True)) is DROP
    assert [kind for kind, _ in node.events()] == [Ended] and node.injected() == []
    assert node.egress(segment("PA", 1000, 2000, b"x")) is DROP
    assert [kind for kind, _ in node.events()] == [Ended]
    ((toward, reset),) = node.injected()
    assert toward == "socket" and reset[TCP].seq == 2000 and "R" in reset[TCP].flags
    assert (reset[IP].src, reset[TCP].sport) == (SERVER, 8571)
    assert node.ingress(segment("R", 1, back=True)) is DROP
    assert node.events() == []


def test_prefer_takes_unknown_connections_for_plaintext() -> None:
    node = Node(1, mode="prefer")
    assert node.ingress(segment("PA", 1, 2, b"x", back=True)) is ACCEPT
    assert node.egress(segment("PA", 1000, 2000, b"x")) is ACCEPT


def test_ghosts_are_answered_with_exact_resets() -> None:
    node = Node(1)
    client, _ = connected()
    (key,) = client.engine.table.encrypted_keys()
    node.engine.table.remember(key, 111, 222, node.now)
    ((toward, first),) = node.injected()
    assert toward == "network" and (first[TCP].seq, first[TCP].ack) == (111, 222)
    assert [kind for kind, _ in node.events()] == [Ended]
    assert node.ingress(segment("PA", 5, 4242, b"x", back=True)) is DROP
    ((toward, exact),) = node.injected()
    assert toward == "network" and exact[TCP].flags == "R" and exact[TCP].seq == 4242
    assert node.egress(segment("PA", 1000, 2000, b"x")) is DROP
    node.injected()
    node.engine.tick(node.now + table.GHOST_LIFETIME + 1)
    node.engine.take_policy(replace(node.engine.policy, mode="prefer"), node.now)
    assert node.ingress(segment("PA", 5, 4242, b"x", back=True)) is ACCEPT


def test_a_fin_without_final_loses_its_flag() -> None:
    client, server = connected()
    wire = client.egress(segment("PA", ISN_C + 1, ISN_S + 1, b"data"))
    assert "F" not in server.ingress(segment("FA", wire[TCP].seq, wire[TCP].ack))[TCP].flags
    assert server.engine.outcome.refused["unauthenticated-fin"] == 1
    forged = segment("FPA", wire[TCP].seq, wire[TCP].ack, data(wire))
    got = server.ingress(forged)
    assert data(got) == b"data" and "F" not in got[TCP].flags
    assert data(say(client, server, b"more", 4)) == b"more"


@pytest.mark.parametrize("text", [b"", b"bye"])
def test_a_fin_with_final_keeps_it(text: bytes) -> None:
    client, server = connected()
    wire = client.egress(segment("FA", ISN_C + 1, ISN_S + 1, text))
    assert "F" in wire[TCP].flags and len(data(wire)) == OVERHEAD + len(text)
    got = server.ingress(wire)
    assert "F" in got[TCP].flags and data(got) == text
    answer = server.egress(segment("A", ISN_S + 1, ISN_C + 2 + len(text), back=True))
    assert answer[TCP].ack == (wire[TCP].seq + len(data(wire)) + 1) % 2**32
    assert client.ingress(answer)[TCP].ack == (ISN_C + 2 + len(text)) % 2**32
    # A FIN that was acknowledged and comes again is bare, in the same place.
    again = client.egress(segment("FA", ISN_C + 1, ISN_S + 1, text))
    assert again[TCP].seq in ((wire[TCP].seq + len(data(wire))) % 2**32, answer[TCP].ack)


def test_urgent_data_does_not_exist() -> None:
    client, server = connected()
    wire = client.egress(segment("PAU", ISN_C + 1, ISN_S + 1, b"data", urgptr=2))
    assert not wire[TCP].flags.U and wire[TCP].urgptr == 0
    forged = segment("PAU", wire[TCP].seq, wire[TCP].ack, data(wire), urgptr=2)
    got = server.ingress(forged)
    assert not got[TCP].flags.U and got[TCP].urgptr == 0 and data(got) == b"data"


def test_an_acknowledgement_of_what_was_never_sent_is_dropped() -> None:
    client, _ = connected()
    wire = client.egress(segment("PA", ISN_C + 1, ISN_S + 1, b"data"))
    end = wire[TCP].seq + len(data(wire))
    assert client.ingress(segment("A", ISN_S + 1 + HELLO_LENGTH, end + 1, back=True)) is DROP
    assert client.engine.outcome.refused["acknowledges-unsent"] == 1
    got = client.ingress(segment("A", ISN_S + 1 + HELLO_LENGTH, end, back=True))
    assert got[TCP].ack == (ISN_C + 5) % 2**32
    got = client.ingress(segment("A", ISN_S + 1 + HELLO_LENGTH, end - 1, back=True))
    assert got[TCP].ack == (ISN_C + 1) % 2**32, "rounded down to whole records"


def test_a_piece_of_what_is_acknowledged_becomes_one_old_byte() -> None:
    client, server = connected()
    wire = client.egress(segment("PA", ISN_C + 1, ISN_S + 1, b"some data"))
    assert data(server.ingress(wire)) == b"some data"
    server.egress(segment("A", ISN_S + 1, ISN_C + 10, back=True))
    piece = segment("A", wire[TCP].seq, wire[TCP].ack, data(wire)[:11])
    got = server.ingress(piece)
    assert len(data(got)) == 1 and got[TCP].seq == (ISN_C + 9) % 2**32


def test_pieces_are_put_together() -> None:
    client, server = connected()
    wire = client.egress(segment("PA", ISN_C + 1, ISN_S + 1, b"some data"))
    raw = data(wire)
    pieces = [segment("A", wire[TCP].seq + at, wire[TCP].ack, raw[at : at + 10]) for at in (20, 0, 10, 30)]
    got = [server.ingress(piece) for piece in pieces]
    assert [data(packet) for packet in got if packet is not DROP and data(packet)] == [b"some data"]


def test_every_flipped_bit_is_noticed() -> None:
    client, server = connected()
    say(client, server, b"first")
    wire = client.egress(segment("PA", ISN_C + 6, ISN_S + 1, b"second"))
    raw = data(wire)
    for bit in range(8 * len(raw)):
        forged = bytearray(raw)
        forged[bit // 8] ^= 1 << bit % 8
        got = server.ingress(segment("PA", wire[TCP].seq, wire[TCP].ack, bytes(forged)))
        assert got is DROP or not data(got), bit
    assert server.engine.outcome.refused["tampered"] > 0
    got = server.ingress(wire)
    assert data(got) == b"second" and got[TCP].seq == (ISN_C + 6) % 2**32


def test_a_wrong_checksum_is_not_laundered() -> None:
    client, server = connected()
    wire = bytearray(bytes(client.egress(segment("PA", ISN_C + 1, ISN_S + 1, b"data"))))
    wire[25] ^= 1  # the sequence number
    verdict = server.engine.ingress(memoryview(wire), CSUM_NOT_VERIFIED, 0)
    assert verdict is DROP and server.engine.outcome.refused["bad-checksum"] == 1


@pytest.mark.parametrize("six", [False, True])
def test_a_batch_that_outgrows_a_verdict_is_injected_not_cut(six: bool) -> None:
    length = 64676
    client, server = pair()

    def packet(flags: str, seq: int, ack: int, payload: bytes = b"", back: bool = False, **fields: Any) -> Any:
        if not six:
            return segment(flags, seq, ack, payload, back=back, **fields)
        ends = ("fd00::2", "fd00::1") if back else ("fd00::1", "fd00::2")
        ports = PORTS[::-1] if back else PORTS
        tcp = TCP(sport=ports[0], dport=ports[1], seq=seq, ack=ack, flags=flags, **fields)
        return IPv6(bytes(IPv6(src=ends[0], dst=ends[1]) / tcp / Raw(payload)))

    options = {"options": [("MSS", 1440), ("WScale", 7)]}
    server.ingress(client.egress(packet("S", 100, 0, **options)))
    client.ingress(server.egress(packet("SA", 200, 101, back=True, **options)))
    server.ingress(client.egress(packet("A", 101, 201)))
    client.ingress(server.egress(packet("A", 201, 101, back=True, window=65535)))  # 8 MB
    text = Random(5).randbytes(length)
    first = client.egress(packet("PA", 101, 201, text), CSUM_NOT_READY | GSO)
    assert len(data(first)) > 1440 and len(bytes(first)) <= 65531
    rest = client.injected()
    assert rest and all(toward == "network" and len(bytes(p)) <= 1500 for toward, p in rest)
    got = b"".join(data(server.ingress(p)) for p in (first, *(p for _, p in rest)))
    assert got == text


def test_a_joined_retransmission_brings_every_record() -> None:
    client, server = connected()
    texts = [bytes([number]) * 32 for number in range(60)]
    for number, text in enumerate(texts):
        client.egress(segment("PA", ISN_C + 1 + 32 * number, ISN_S + 1, text))
    first = client.egress(segment("PA", ISN_C + 1, ISN_S + 1, b"".join(texts[:43])))
    assert len(bytes(first)) <= 1500
    rest = client.injected()
    got = b""
    for packet in (first, *(packet for _, packet in rest)):
        delivered = server.ingress(packet)
        assert delivered[TCP].seq == (ISN_C + 1 + len(got)) % 2**32
        got += data(delivered)
    assert got == b"".join(texts[:43])


def test_a_batch_no_longer_than_its_segments_is_injected() -> None:
    client, server = connected()
    client.egress(segment("PA", ISN_C + 1, ISN_S + 1, b"x" * 100))
    client.egress(segment("PA", ISN_C + 101, ISN_S + 1, b"y" * 3000), CSUM_NOT_READY | GSO)
    client.injected()
    # The kernel joins both; the first record is acknowledged meanwhile, and of the second only one is asked for.
    assert client.egress(segment("PA", ISN_C + 1, ISN_S + 1, b"x" * 100), CSUM_NOT_READY | GSO) is DROP
    ((toward, packet),) = client.injected()
    assert toward == "network" and data(server.ingress(packet)) == b"x" * 100


# -- bounds


def test_half_open_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_PER_ADDRESS", 3)
    monkeypatch.setattr(admission, "MAX_ANSWERING", 5)
    client, server = pair()

    def dial(source: str, port: int) -> Any:
        return server.ingress(client.egress(syn(source=source, ports=(port, 8571))))

    assert [dial(CLIENT, port) is DROP for port in range(1, 5)] == [False] * 3 + [True]
    assert [dial(OTHER, port) is DROP for port in range(1, 5)] == [False] * 2 + [True] * 2
    assert len(server.engine.admission.answering) == 5
    assert server.engine.outcome.refused["too-many-attempts"] == 3
    server.engine.tick(server.now + admission.LIFETIME + 1)
    assert not server.engine.admission.answering
    assert dial(CLIENT, 9) is not DROP


def test_dialling_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "MAX_DIALLING", 2)
    client = Node(1)
    assert [client.egress(syn(ports=(port, 8571))) is DROP for port in (1, 2, 3)] == [False, False, True]
    client.engine.tick(client.now + admission.LIFETIME + 1)
    assert client.egress(syn(ports=(3, 8571))) is not DROP


def test_answers_to_one_syn_are_bounded() -> None:
    client, server = pair()
    server.ingress(client.egress(syn()))
    answers = [server.egress(syn_ack(isn=isn)) for isn in range(admission.MAX_REPLIES + 1)]
    assert [answer is DROP for answer in answers] == [False] * admission.MAX_REPLIES + [True]


def test_flows_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = connected()
    monkeypatch.setattr(table, "MAX_FLOWS", 1)
    server.ingress(client.egress(syn(ports=(2, 8571))))
    client.ingress(server.egress(syn_ack(ports=(2, 8571))))
    assert len(client.engine.table.encrypted_keys()) == 1
    assert data(say(client, server, b"as before")) == b"as before"


def test_unconfirmed_peers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    client, server = connected()
    monkeypatch.setattr(engine, "MAX_UNCONFIRMED", 1)
    assert server.ingress(client.egress(syn(ports=(2, 8571)))) is DROP
    say(client, server, b"it is me")
    assert server.ingress(client.egress(syn(ports=(2, 8571)))) is not DROP


def test_plaintext_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_PLAINTEXT", 2)
    node = Node(1, mode="prefer")
    for port in range(1, 6):
        node.ingress(segment("PA", 1, 2, b"x", back=True, ports=(port, 8571)))
    assert len(node.engine.table.plaintext_keys()) == 2


# -- on, off, and the end


def test_switched_off_new_connections_are_plaintext_and_old_ones_go_on() -> None:
    client, server = connected()
    for node in (client, server):
        node.engine.take_policy(replace(node.engine.policy, enabled=False), node.now)
    passed = client.egress(syn(ports=(2, 8571)))
    assert passed is ACCEPT and server.ingress(syn(ports=(2, 8571))) is ACCEPT
    assert data(say(client, server, b"still secret")) == b"still secret"


def test_a_connection_is_forgotten_when_its_socket_is_gone() -> None:
    client, server = connected()
    say(client, server, b"12345")
    (key,) = client.engine.table.encrypted_keys()
    assert client.engine.tick(client.now + table.LOOK_AFTER + 1) == [key]
    client.engine.table.forget(key)
    assert client.engine.table.encrypted_keys() == [] and (Closed, "") in client.events()
    assert (client.engine.table.gone.connections, client.engine.table.gone.counters.bytes_out) == (1, 5)
    assert client.egress(segment("PA", ISN_C + 6, ISN_S + 1, b"x")) is DROP


def test_a_reset_does_not_delete_the_connection() -> None:
    client, server = connected()
    reset = server.ingress(client.egress(segment("RA", ISN_C + 1, ISN_S + 1)))
    assert reset[TCP].flags == "RA" and reset[TCP].seq == (ISN_C + 1) % 2**32
    assert [c.state for c in server.engine.connections(0)] == ["closing"]
    assert data(say(client, server, b"the kernel refused it")) == b"the kernel refused it"
