"""What is concluded from segments, in bounded memory."""

from __future__ import annotations

import pytest

from mcencrypt.reading.capture import Segment
from mcencrypt.reading.judge import MAX_CONNECTIONS, MAX_NAMED, MEMORY, Judge, Kind
from tests.helpers.captures import (
    OWN,
    PORT,
    Tcp,
    began_before,
    judge,
    message,
    plain_connection,
    sealed,
    segments,
    with_a_hole,
)


@pytest.mark.parametrize("version", [4, 6])
def test_an_encrypted_connection(version: int) -> None:
    outcome = judge(Tcp(version=version).exchange().packets)
    assert outcome.verdict == "encrypted" and outcome.complete and outcome.passes(strict=True)
    [one] = outcome.connections
    assert one.kind is Kind.ENCRYPTED and one.from_start and one.handshake and not one.forwarded
    assert one.peer == ("10.7.0.2:7331" if version == 4 else "[fd00::2]:7331")
    assert (one.records, one.encrypted_bytes, outcome.handshakes, outcome.mid_stream) == (6, 654, 2, 0)


def test_a_plaintext_connection_among_encrypted_ones_is_named() -> None:
    outcome = judge([*Tcp().exchange().packets, *plain_connection()])
    assert outcome.verdict == "plaintext" and not outcome.passes(strict=False)
    [one] = [one for one in outcome.connections if one.kind is Kind.PLAINTEXT]
    assert one.local == "10.7.0.1:40001" and one.peer == "10.7.0.2:7331"
    assert one.unencrypted_bytes == 2 * 139 and "'version'" in one.detail


def test_plaintext_whose_start_was_not_captured() -> None:
    tcp = Tcp()
    for _ in range(3):
        tcp.send(0, message("ping", b"\7" * 8))
        tcp.send(1, message("pong", b"\7" * 8))
    assert judge(tcp.packets).verdict == "plaintext"


def test_bytes_of_some_other_protocol_are_no_encryption() -> None:
    tcp = Tcp().connect(encrypted=False)
    tcp.send(0, b"GET / HTTP/1.1\r\n\r\n")
    outcome = judge(tcp.packets)
    assert outcome.verdict == "plaintext" and outcome.counts[Kind.PLAINTEXT] == 1


def test_a_leak_in_the_middle_of_an_encrypted_connection() -> None:
    tcp = Tcp().connect()
    for record in sealed([139, 139]):
        tcp.send(0, record)
    tcp.send(0, message("ping", b"\7" * 8))
    outcome = judge(tcp.packets)
    assert outcome.verdict == "plaintext" and not outcome.passes(strict=False)


@pytest.mark.parametrize("offset", [0, 50])
def test_a_capture_that_begins_in_mid_stream(offset: int) -> None:
    """Boundaries are found; what came before the first one is said to be unjudged, not to be plaintext."""
    outcome = judge(began_before(offset))
    assert outcome.verdict == "encrypted" and outcome.mid_stream == 1
    assert outcome.complete == (not offset) and outcome.passes(strict=False)
    assert outcome.passes(strict=True) == (not offset)
    assert bool(outcome.missing) == bool(offset)


def test_packets_that_were_not_captured() -> None:
    outcome = judge(with_a_hole(), dropped=1)
    assert outcome.verdict == "encrypted" and not outcome.complete and outcome.missing == 1022
    assert outcome.passes(strict=False) and not outcome.passes(strict=True)


def test_many_holes_do_not_make_ciphertext_look_like_plaintext() -> None:
    tcp, judging = Tcp().connect(), Judge([PORT], OWN, [])
    judging.feed(segments(tcp.packets))
    records = sealed([1000] * 2000)
    for start in range(0, len(records), 100):
        sent = tcp.already_read(0, records[start : start + 100])
        judging.feed(one for index, one in enumerate(sent) if index % 20 != 5)
        judging.feed(segments([tcp.send(1, b"", "A")]))
    outcome = judging.finish(10.0, len(records), 100, {})
    assert outcome.verdict == "encrypted" and outcome.missing == 100 * 1022


def test_allowed_peers_are_named_and_fail_only_strictly() -> None:
    packets = [*Tcp().exchange().packets, *plain_connection()]
    outcome = judge(packets, allowed=("10.7.0.0/24", "fd00::/8"))
    assert outcome.verdict == "encrypted" and outcome.counts[Kind.ALLOWED] == 1
    assert outcome.passes(strict=False) and not outcome.passes(strict=True)
    outcome = judge(plain_connection(), allowed=("10.7.0.0/24",))
    assert outcome.verdict == "allowed plaintext only" and not outcome.passes(strict=False)


def test_nothing_is_no_proof() -> None:
    outcome = judge(Tcp().connect().packets)
    assert outcome.verdict == "nothing seen" and not outcome.passes(strict=False)


def test_strangers_data_that_nobody_answers_is_no_leak() -> None:
    inbound = Tcp()
    inbound.packets.append(inbound.packet(1, 5000, "S", b"GET / HTTP/1.0\r\n\r\n"))
    inbound.packets.append(inbound.packet(1, 9000, "PA", message("version", b"x" * 115)))
    outcome = judge([*inbound.packets, *Tcp(port=40009).exchange().packets])
    assert outcome.counts[Kind.UNANSWERED] == 1 and outcome.passes(strict=True)
    inbound.packets.append(inbound.packet(0, 1, "A", ack=9139))
    assert judge(inbound.packets).verdict == "plaintext", "an acknowledgement is an answer"


def test_a_connection_that_only_passes_this_host() -> None:
    outcome = judge(Tcp().exchange().packets, own=())
    assert outcome.connections[0].forwarded


def moved(template: list[Segment], number: int) -> list[Segment]:
    """The same connection from another port."""
    ports = {40000: 1024 + number, PORT: PORT}
    return [
        one._replace(source_port=ports[one.source_port], destination_port=ports[one.destination_port])
        for one in template
    ]


def test_memory_is_bounded() -> None:
    """More connections than there is room for, with and without an end; and holes in all of them."""
    judging = Judge([PORT], OWN, [])
    template = segments(Tcp().exchange().packets)
    for number in range(MAX_CONNECTIONS + 100):
        judging.feed(moved(template, number))
    assert len(judging._table.all) == MAX_CONNECTIONS and not judging._table.beyond, "those that are over made room"
    judging = Judge([PORT], OWN, [])
    tcp = Tcp().connect()
    for index, record in enumerate(sealed([30_000] * 8)):
        tcp.send(0, record, captured=index > 0)
    template = segments(tcp.packets)
    for number in range(MAX_CONNECTIONS + 3):
        judging.feed(moved(template, number))
        assert judging._table._memory.used <= MEMORY
    assert judging._table._memory.used > MEMORY - 100_000
    outcome = judging.finish(1.0, 1, 0, {})
    assert outcome.beyond == 3 * len(template) and not outcome.complete
    assert len(outcome.connections) <= MAX_NAMED * len(Kind)
    assert judging._table._memory.used == 0
