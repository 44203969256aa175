"""How connections end, at their ports and in the table, and errors about packets that a router sends back."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, TCPerror
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, IPv6

from mcencrypt.core import table
from mcencrypt.core.addresses import Path
from mcencrypt.core.record import OVERHEAD
from mcencrypt.core.status import State
from mcencrypt.core.verdict import ACCEPT, DROP, Ended
from tests.helpers.packets import ACK, PSH, RST, SYN, Packet
from tests.helpers.sides import (
    A6,
    B6,
    EDGE_A,
    EDGE_B,
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
    key_of,
    make,
    pair,
)

SECOND: Host = (A[0], 40001)


# -- ends


def test_connections_of_an_earlier_process_are_answered_exactly() -> None:
    a = Side(mode="prefer")
    key = key_of(A, B)
    a.table.remember(key, 111, 222, 0.0)
    a.table.remember(key, 333, 444, 0.0)  # named twice
    [(toward, reset)] = a.injected()
    assert (toward, reset.key, reset.seq, reset.ack) == ("network", key, 111, 222)
    assert a.kinds() == [Ended] and a.sockets() == {key}

    a.now = 1.0
    assert a.ingress(make(B, A, 500, 600, ACK | PSH, b"ciphertext")) is DROP
    [(toward, reset)] = a.injected()
    assert (toward, reset.seq, reset.flags) == ("network", 600, RST)
    assert a.egress(make(A, B, 1, 2, ACK | PSH, b"confidential")) is DROP, "not even under prefer"
    assert [toward for toward, _ in a.injected()] == ["socket"]
    assert a.egress(make(A, B, 1, 2, RST | ACK)) is DROP, "its socket's numbers are those of plain space"
    assert a.ingress(make(B, A, 500, 0, RST)) is DROP
    assert a.injected() == [], "no reset answers a reset"
    a.now = table.GHOST_LIFETIME
    a.engine.tick(a.now)
    assert a.ingress(make(B, A, 500, 600, ACK)) is ACCEPT


def test_an_aborted_connection_is_reset_with_exact_numbers() -> None:
    a, b = connected()
    a.gets(from_b(b, b"12345"))
    a.events()
    a.table.abort(key_of(A, B), 0.0, "a test")
    [(_, reset)] = a.injected()
    assert (reset.seq, reset.ack, reset.flags) == (EDGE_A, EDGE_B + 5 + OVERHEAD, RST | ACK)
    seen = b.gets(reset)
    assert (seen.seq, seen.flags & RST) == (ISN_A + 1, RST)
    assert a.events() == [Ended(key_of(A, B), "a test")]
    assert a.sockets() == set(), "whoever aborts ends the socket, at a moment of its own"
    assert a.table.encrypted_keys() == []
    assert a.table.gone.counters.bytes_in == 5
    a.table.abort(key_of(A, B), 0.0, "a test")
    assert a.injected() == [] and a.events() == []


def test_a_port_that_is_given_up_takes_its_connections_with_it() -> None:
    a, b = connected(mode="prefer")
    b.gets(a.dials(5, SECOND))
    elsewhere: Host = (B[0], 9000)
    assert a.egress(make(A, elsewhere, 1, 1, ACK)) is ACCEPT
    assert a.engine.leave_all_but([B[1], 9000], 0.0) == [] and len(a.states()) == 3
    assert a.engine.leave_all_but([9000], 0.0) == [key_of(A, B)]
    assert a.states() == [State.PLAINTEXT]
    [(_, reset)] = a.injected()
    assert b.gets(reset).flags & RST
    assert a.engine.leave_all_but([7000], 0.0) == [] and a.states() == []


def test_while_a_port_is_given_up_nothing_begins_there() -> None:
    """Its rules go in a moment; whatever was encrypted by then would go on in plaintext, in the middle of a stream."""
    a, b = connected()
    a.engine.leave_all_but([9000], 0.0)
    elsewhere: Host = (B[0], 9000)
    for _ in range(2):
        assert a.egress(make(SECOND, B, 5, 0, SYN)) is DROP
        assert a.ingress(b.egress(make(B, SECOND, 5, 0, SYN))) is DROP
        assert not list(a.engine.admission.keys())
    assert a.egress(make(SECOND, elsewhere, 5, 0, SYN)) is not DROP
    a.engine.have_left()
    assert a.egress(make(SECOND, B, 5, 0, SYN)) is not DROP


def test_connections_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "MAX_FLOWS", 1)
    a, b = connected()
    b.gets(a.dials(local=SECOND))
    answer = b.sends(make(B, SECOND, ISN_B, ISN_A + 1, SYN | ACK))
    assert a.ingress(answer) is DROP
    assert a.refused == {"too-many-connections": 1}
    assert len(a.table.encrypted_keys()) == 1
    connect(a, b, 900_000, 800_000)
    assert len(a.table.encrypted_keys()) == 1, "one that replaces another has its place"


# -- ICMP errors


def error_about(packet: Packet, mtu: int | None, distance: int = 0) -> bytearray:
    """What a router says of a packet: that it is too big, or, without an MTU, that it knows no way."""
    six = len(packet.source) == 16
    quoted = (IPv6 if six else IP)(packet.build())
    quoted[TCP].seq = (quoted[TCP].seq + distance) % 2**32
    if six:
        kind = ICMPv6DestUnreach(code=0) if mtu is None else ICMPv6PacketTooBig(mtu=mtu)
        return bytearray(bytes(IPv6(src="fd00::99", dst=quoted.src) / kind / quoted))
    kind = ICMP(type=3, code=1) if mtu is None else ICMP(type=3, code=4, nexthopmtu=mtu)
    return bytearray(bytes(IP(src="10.9.9.9", dst=quoted.src) / kind / quoted))


def quoted_seq(verdict: object) -> int:
    assert isinstance(verdict, bytes)
    read = (IPv6 if verdict[0] >> 4 == 6 else IP)(verdict)
    return int(read[TCPerror].seq)


@pytest.mark.parametrize(("local", "remote"), [(A, B), (A6, B6)])
def test_an_error_about_what_is_under_way_reaches_the_socket_in_its_numbers(local: Host, remote: Host) -> None:
    a, b = pair()
    connect(a, b, local=local, remote=remote)
    first, second = (a.sends(make(local, remote, ISN_A + 1 + at, ISN_B + 1, ACK | PSH, b"x" * 100)) for at in (0, 100))
    for packet, plain in ((first, 0), (second, 100)):
        verdict = a.engine.ingress(error_about(packet, 1400), 0, 0.0)
        assert quoted_seq(verdict) == ISN_A + 1 + plain
        assert isinstance(verdict, bytes)
        named = IPv6(verdict)[ICMPv6PacketTooBig].mtu if local is A6 else IP(verdict)[ICMP].nexthopmtu
        assert named == 1400 - OVERHEAD
        assert quoted_seq(a.engine.ingress(error_about(packet, None), 0, 0.0)) == ISN_A + 1 + plain
    assert a.engine.admission.paths.limits(Path.of(key_of(local, remote))) == (1400 - OVERHEAD, 1400)
    assert a.refused == {}
    # inside a record it is the record, and behind the last the next number, as the kernel has it
    assert quoted_seq(a.engine.ingress(error_about(second, None, 50), 0, 0.0)) == ISN_A + 1 + 100
    assert quoted_seq(a.engine.ingress(error_about(second, None, 122), 0, 0.0)) == ISN_A + 1 + 200


@pytest.mark.parametrize("distance", [-1, 123, 1000, 2**31 - 1, 2**31, -1000])
def test_an_error_about_anything_else_moves_nothing(distance: int) -> None:
    a, _ = connected()
    packet = from_a(a, b"x" * 100)
    assert a.engine.ingress(error_about(packet, 600, distance), 0, 0.0) is DROP
    assert a.refused == {"stray-icmp": 1}
    assert a.engine.admission.paths.limits(Path.of(key_of(A, B))) == (1500, 1500)


def test_what_was_acknowledged_is_not_under_way() -> None:
    a, b = connected()
    packet = from_a(a, b"x" * 100)
    b.gets(packet)
    a.gets(b.sends(make(B, A, ISN_B + 1, ISN_A + 101, ACK)))
    assert a.engine.ingress(error_about(packet, 1400), 0, 0.0) is DROP
    assert quoted_seq(a.engine.ingress(error_about(packet, 1400, 122), 0, 0.0)) == ISN_A + 101


def test_an_error_with_a_wrong_checksum_is_not_given_a_right_one() -> None:
    a, _ = connected()
    packet = error_about(from_a(a, b"x" * 100), 1400)
    packet[-1] ^= 1
    assert a.engine.ingress(packet, 0, 0.0) is DROP
    assert a.refused == {"bad-checksum": 1}


def test_errors_about_others_pass_as_they_are() -> None:
    a, _ = connected()
    a.dials(ISN_A, SECOND)
    strange = make(OTHER, B, 1, 1, ACK)
    for packet in (make(SECOND, B, ISN_A, 0, SYN), strange):
        assert a.engine.ingress(error_about(packet, 600), 0, 0.0) is ACCEPT
    assert a.engine.ingress(bytes(IP(src="10.9.9.9", dst="10.0.0.1") / ICMP(type=8) / b"ping"), 0, 0.0) is ACCEPT
    assert a.refused == {}
