"""Packets of connections and of none: what a flow must not believe, and what belongs to nobody."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from mcencrypt.core.engine import CSUM_NOT_READY, CSUM_NOT_VERIFIED, GSO
from mcencrypt.core.record import OVERHEAD
from mcencrypt.core.status import State
from mcencrypt.core.verdict import DROP, Ended, Tampered
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN, URG, Packet
from tests.helpers.sides import (
    A6,
    B6,
    EDGE_A,
    EDGE_B,
    ISN_A,
    ISN_B,
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

BATCH = CSUM_NOT_READY | GSO


# -- of no connection


@pytest.mark.parametrize("flags", [ACK, ACK | PSH, FIN | ACK])
def test_unknown_connections_are_ended(flags: int) -> None:
    a = Side()
    assert a.ingress(make(B, A, 700, 800, flags, b"plaintext")) is DROP
    assert a.refused == {"unknown-connection": 1}
    assert a.injected() == []
    assert a.events() == [] and a.sockets() == set(), "anybody can send it"
    assert a.suspects() == {key_of(A, B): 800}, "whoever looks it up answers as any host does"

    assert a.egress(make(A, B, 800, 709, flags, b"plaintext")) is DROP
    assert a.kinds() == [Ended] and a.sockets() == {key_of(A, B)}
    [(toward, reset)] = a.injected()
    assert (toward, reset.key) == ("socket", key_of(B, A))
    assert (reset.seq, reset.ack, reset.flags) == (709, 800, RST | ACK), "exactly where the socket is (RFC 5961)"
    assert a.states() == []


def test_a_packet_that_claims_to_be_from_our_own_address_is_answered_to_no_socket_of_ours() -> None:
    a = Side()
    assert a.ingress(make((A[0], 40000), A, 700, 800, ACK)) is DROP
    assert a.suspects() == {key_of(A, (A[0], 40000)): None}


@pytest.mark.parametrize("mode", ["require", "prefer"])
def test_plaintext_for_our_own_socket_that_has_found_the_way_out_goes_no_further(mode: str) -> None:
    """What is injected toward the socket is routed out once the address is not ours any more."""
    a, _ = connected(mode=mode)
    assert a.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK | PSH, b"plaintext")) is DROP
    assert a.states() == [State.ENCRYPTED]


def test_resets_of_unknown_connections_end_nothing() -> None:
    a = Side()
    assert a.ingress(make(B, A, 700, 0, RST, b"with data")) is DROP
    reset = a.sends(make(A, B, 800, 700, RST | ACK, b"with data"))
    assert (reset.seq, reset.ack, reset.flags, reset.payload) == (800, 700, RST | ACK, b"")
    assert a.events() == [] and a.injected() == [] and a.sockets() == set()


def test_a_syn_ack_out_of_nowhere() -> None:
    a = Side()
    assert a.ingress(make(B, A, 700, 800, SYN | ACK)) is DROP
    assert a.egress(make(A, B, 700, 800, SYN | ACK)) is DROP
    assert a.refused == {"unknown-connection": 2}


def test_what_is_no_segment_is_dropped_and_counted() -> None:
    a = Side()
    for way in (a.engine.ingress, a.engine.egress):
        assert way(make(B, A, 1, 1, ACK).build()[:-1], 0, 0.0) is DROP
        assert way(b"\x45" + bytes(60), 0, 0.0) is DROP
        assert way(b"", 0, 0.0) is DROP
    assert sum(a.refused.values()) == 6
    a.untouched()


def test_a_wrong_checksum_is_not_made_right() -> None:
    a, b = connected()
    good = from_b(b, b"data").build()
    damaged = bytearray(good)
    damaged[27] ^= 1  # a sequence number
    assert a.ingress(memoryview(damaged), CSUM_NOT_VERIFIED) is DROP
    assert a.refused == {"bad-checksum": 1}
    for packet in (good, memoryview(good), memoryview(bytearray(good))):
        assert a.gets(packet, CSUM_NOT_VERIFIED).payload == b"data"


# -- nothing harms a connection that lives


def test_a_syn_for_a_live_connection_does_not_harm_it() -> None:
    a, b = connected()
    say(a, b, b"before")
    reborn = Side(1)  # A's host forgot everything, and dials from the same port
    reborn.dials()
    assert b.gets(reborn.dials(123456)).seq == 123456
    # B's kernel answers with a challenge (RFC 5961 section 4.2), which the live flow translates.
    challenge = b.sends(make(B, A, ISN_B + 1, ISN_A + 7, ACK))
    edge = EDGE_A + 6 + OVERHEAD
    assert (challenge.seq, challenge.ack) == (EDGE_B, edge)
    # The old connection goes on meanwhile.
    assert say(a, b, b" after", 6).payload == b" after"
    # In SYN-SENT numbers pass as they are, and the kernel's reset is exact on the other side.
    shown = reborn.gets(challenge)
    assert (shown.seq, shown.ack) == (challenge.seq, edge)
    # (for the reset to be exact, it answers what was current when " after" had not come yet: a fresh challenge)
    challenge = b.sends(make(B, A, ISN_B + 1, ISN_A + 13, ACK))
    shown = reborn.gets(challenge)
    reset = reborn.sends(make(A, B, shown.ack, 0, RST))
    assert reset.seq == challenge.ack
    seen = b.gets(reset)
    assert (seen.flags, seen.seq) == (RST, ISN_A + 13)


def test_a_new_attempt_on_the_same_ports_does_not_harm_the_connection() -> None:
    a, b = connected()
    b.gets(Side(3).dials(31337))
    for isn in (1, 2**31):
        assert b.ingress(make(A, B, isn, 0, SYN)) is DROP
    assert b.table.encrypted_keys() == [key_of(B, A)]
    assert a.gets(from_b(b, b"alive")).payload == b"alive"


def test_a_connection_is_replaced_by_a_new_one_on_the_same_ports() -> None:
    a, b = connected()
    connect(a, b, 900_000, 800_000)
    assert len(b.table.encrypted_keys()) == 1
    wire = b.sends(make(B, A, 800_001, 900_001, ACK | PSH, b"new"))
    assert a.gets(wire).payload == b"new"
    assert (a.table.gone.connections, b.table.gone.connections) == (1, 1)


# -- what flows must not believe


def test_a_fin_without_final_loses_its_flag() -> None:
    a, b = connected()
    seen = a.gets(make(B, A, EDGE_B, EDGE_A, FIN | ACK))
    assert (seen.flags, seen.seq) == (ACK, ISN_B + 1)
    assert a.refused == {"unauthenticated-fin": 1}
    wire = from_b(b, b"data")
    seen = a.gets(replace(wire, flags=wire.flags | FIN))
    assert (seen.payload, seen.flags & FIN) == (b"data", 0), "the data in it is kept"
    assert a.states() == [State.ENCRYPTED]
    assert a.gets(from_b(b, b"more", at=4)).payload == b"more"


@pytest.mark.parametrize("data", [b"", b"the last words"])
def test_a_fin_with_final_passes(data: bytes) -> None:
    a, b = connected()
    wire = from_b(b, data, FIN | ACK)
    assert len(wire.payload) == len(data) + OVERHEAD and wire.flags & FIN
    seen = a.gets(wire)
    assert (seen.payload, seen.flags & FIN, seen.seq) == (data, FIN, ISN_B + 1)
    answer = a.sends(make(A, B, ISN_A + 1, ISN_B + 2 + len(data), ACK))
    assert answer.ack == wire.seq + len(wire.payload) + 1
    assert b.gets(answer).ack == ISN_B + 2 + len(data)
    # One that was acknowledged and comes again is bare, in the same place.
    assert from_b(b, data, FIN | ACK).seq in (wire.seq + len(wire.payload), answer.ack)
    assert a.refused == {}


def test_a_final_record_whose_fin_flag_was_removed_ends_nothing_yet() -> None:
    a, b = connected()
    seen = a.gets(replace(from_b(b, b"the last words", FIN | ACK), flags=ACK))
    assert (seen.payload, seen.flags & FIN) == (b"the last words", 0)


@pytest.mark.parametrize("beyond", [1, 22, 1000, 2**30])
@pytest.mark.parametrize("with_data", [False, True])
def test_an_acknowledgement_of_what_was_never_sent_stays_one(beyond: int, with_data: bool) -> None:
    a, b = connected()
    wire = from_b(b, b"data")
    data = wire.payload if with_data else b""
    seen = a.gets(make(B, A, EDGE_B, EDGE_A + beyond, ACK, data))
    assert (seen.ack - ISN_A - 1) % 2**32 > 60000, "beyond the window that was offered"
    assert a.gets(make(B, A, EDGE_B, EDGE_A, ACK, wire.payload)).payload == b"data"


def test_acknowledgements_are_rounded_down_to_whole_records() -> None:
    a, _ = connected()
    wire = from_a(a, b"data")
    end = wire.seq + len(wire.payload)
    assert a.gets(make(B, A, EDGE_B, end - 1, ACK)).ack == ISN_A + 1
    assert a.gets(make(B, A, EDGE_B, end, ACK)).ack == ISN_A + 5
    assert a.gets(make(B, A, EDGE_B, end - 1, ACK)).ack == ISN_A + 4, "an old one keeps its distance"


def test_the_urgent_flag_is_cleared_both_ways() -> None:
    a, b = connected()
    wire = b.sends(make(B, A, ISN_B + 1, ISN_A + 1, ACK | PSH | URG, b"data", urgent=2))
    for packet in (wire, replace(wire, flags=wire.flags | URG, urgent=2)):
        seen = a.gets(packet)  # reading it checks that there is neither flag nor pointer
        assert seen.payload == b"data"


def test_no_flipped_bit_of_a_segment_changes_what_is_read() -> None:
    a, b = connected()
    wire = from_b(b, b"exactly this").build()
    payload_at = len(wire) - len(b"exactly this") - OVERHEAD
    for bit in range(20 * 8, len(wire) * 8):
        damaged = bytearray(wire)
        damaged[bit // 8] ^= 1 << bit % 8
        verdict = a.ingress(damaged)
        assert verdict is DROP or bit // 8 < payload_at, f"bit {bit}"
        packets = [packet for _, packet in a.injected()]
        for packet in [verdict, *packets] if isinstance(verdict, Packet) else packets:
            # What lies wholly below what was acknowledged carries nothing: the socket has it.
            old = (ISN_B + 1 - packet.seq - len(packet.payload)) % 2**32 < 2**31
            assert packet.payload in (b"", b"exactly this") or old, f"bit {bit}"
            if packet.payload:
                assert packet.seq == ISN_B + 1 or old, f"bit {bit}"
    assert a.gets(wire).payload == b"exactly this"


def test_a_forged_record_is_reported_and_later_drops_are_not() -> None:
    a, b = connected()
    wire = bytearray(from_b(b, b"data").build())
    wire[-1] ^= 1
    a.events()
    assert a.ingress(wire) is DROP
    assert a.events() == [Tampered(key_of(A, B), identity(2))]
    assert a.refused == {"tampered": 1}
    assert a.ingress(make(B, A, EDGE_B, EDGE_A, PSH)) is DROP
    assert a.events() == [], "this one was no record"
    (shown,) = a.engine.connections(0.0)
    assert shown.counters.auth_failures == 1


def test_a_peer_that_has_proven_nothing_is_not_named_as_tampered_with() -> None:
    a, b = connected()
    wire = bytearray(from_a(a, b"data").build())
    wire[-1] ^= 1
    assert b.ingress(wire) is DROP
    assert b.events() == [Tampered(key_of(B, A), b"")]


@pytest.mark.parametrize("off", [-1, 0, 1, 1000])
def test_a_reset_is_exact_only_if_it_was(off: int) -> None:
    a, _ = connected()
    seen = a.gets(make(B, A, EDGE_B + off, EDGE_A, RST | ACK))
    assert seen.flags & RST and (seen.seq == ISN_B + 1) is (off == 0)
    assert a.states() == [State.CLOSING if off == 0 else State.ENCRYPTED]
    assert a.table.encrypted_keys() == [key_of(A, B)], "only the kernel's socket table ends a flow"


def test_what_comes_behind_a_reset_is_for_the_kernel_to_refuse() -> None:
    a, b = connected()
    b.gets(a.sends(make(A, B, ISN_A + 1, ISN_B + 1, RST | ACK)))
    assert b.states() == [State.CLOSING]
    assert say(a, b, b"the kernel refused it").payload == b"the kernel refused it"


# -- pieces and batches


def test_what_is_acknowledged_comes_again_as_zeros_at_the_same_distance() -> None:
    a, b = connected()
    wire = from_a(a, b"some data")
    b.gets(wire)
    b.sends(make(B, A, ISN_B + 1, ISN_A + 10, ACK))
    whole = len(wire.payload)
    for start, end in ((0, whole), (0, 11), (5, 20), (whole - 1, whole)):
        seen = b.gets(replace(wire, seq=wire.seq + start, payload=wire.payload[start:end]))
        assert seen.payload == bytes(end - start) and seen.seq - ISN_A - 10 == start - whole


def test_pieces_are_put_together() -> None:
    a, b = connected()
    wire = from_a(a, b"some data")
    pieces = [replace(wire, seq=wire.seq + at, payload=wire.payload[at : at + 10]) for at in (20, 0, 10, 30)]
    seen = [b.ingress(piece) for piece in pieces]
    assert [one.payload for one in seen if isinstance(one, Packet) and one.payload] == [b"some data"]


@pytest.mark.parametrize(("local", "remote"), [(A, B), (A6, B6)])
def test_a_batch_that_outgrows_a_verdict_is_injected_not_cut(local: Host, remote: Host) -> None:
    text = Random(5).randbytes(64676)
    a, b = pair()
    connect(a, b, 100, 200, local, remote)
    a.gets(b.sends(make(remote, local, 201, 101, ACK)))  # a window of 8 MB
    first = a.sends(make(local, remote, 101, 201, ACK | PSH, text), BATCH)
    assert len(first.payload) > 1440 and len(first.build()) <= 65531
    rest = a.injected()
    assert rest and all(toward == "network" and len(packet.build()) <= 1500 for toward, packet in rest)
    assert b"".join(b.gets(packet).payload for packet in (first, *(packet for _, packet in rest))) == text


def test_a_joined_retransmission_brings_every_record() -> None:
    a, b = connected()
    texts = [bytes([number]) * 32 for number in range(60)]
    for number, text in enumerate(texts):
        from_a(a, text, at=32 * number)
    first = from_a(a, b"".join(texts[:43]))
    assert len(first.build()) <= 1500
    seen = b""
    for packet in (first, *(packet for _, packet in a.injected())):
        delivered = b.gets(packet)
        assert delivered.seq == ISN_A + 1 + len(seen)
        seen += delivered.payload
    assert seen == b"".join(texts[:43])


def test_a_batch_no_longer_than_its_segments_is_injected() -> None:
    a, b = connected()
    from_a(a, b"x" * 100)
    a.egress(make(A, B, ISN_A + 101, ISN_B + 1, ACK | PSH, b"y" * 3000), BATCH)
    a.injected()
    # The kernel joins both; the first record is acknowledged meanwhile, and of the second only one is asked for.
    assert a.egress(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"x" * 100), BATCH) is DROP
    [(toward, packet)] = a.injected()
    assert toward == "network" and b.gets(packet).payload == b"x" * 100
