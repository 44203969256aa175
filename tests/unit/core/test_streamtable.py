"""What strangers can have remembered, and computed, who reach a node from an address in `relayed`."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from random import Random

import pytest

from mcencrypt.core import streams
from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.hello import DEADLINE
from mcencrypt.core.streamtable import MAX_ANSWERING
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN, Packet
from tests.helpers.sides import Host, Side, make
from tests.helpers.stripped import Path

MANY = 1500
B: Host = (bytes((10, 0, 0, 2)), 7331)


def strangers(count: int) -> list[Host]:
    return [(bytes((10, 0, 3, number % 200)), 20000 + number) for number in range(count)]


def recorded() -> bytes:
    """Message 1 of somebody else's connection, which B has answered."""
    return Path().opened().payload


def sayings(dice: Random) -> list[list[tuple[int, int, bytes]]]:
    """What strangers say behind their SYNs: offsets, flags, bytes."""
    true = recorded()
    return [
        [],
        [(0, ACK, b"")],
        [(0, ACK | PSH, b"mcen\1")],
        [(0, ACK | PSH, true[:-1])],
        [(0, ACK | PSH, true[:-1] + bytes((true[-1] ^ 1,)))],
        [(at, ACK | PSH, dice.randbytes(1400)) for at in range(1400, 60_000, 1400)],
        [(at, ACK | PSH, true[at : at + 1]) for at in range(HELLO_LENGTH - 1)],
        [(0, ACK | PSH, b"GET / HTTP/1.1\r\n\r\n")],
        [(0, ACK | FIN, b"")],
        [(0, RST, b"")],
    ]


@pytest.mark.parametrize("answered", [True, False], ids=["our socket answers", "SYNs alone"])
def test_a_flood_fills_no_table_and_has_nothing_computed(monkeypatch: pytest.MonkeyPatch, answered: bool) -> None:
    def computed(*_: object) -> None:
        raise AssertionError("nobody has shown the network key")

    monkeypatch.setattr(streams, "Answer", computed)
    b, dice = Side(2, relayed=(ip_network("10.0.3.0/24"),)), Random(1)
    table, said = b.engine.streams, sayings(dice)
    for number, stranger in enumerate(strangers(MANY)):
        b.now = number * DEADLINE / MANY / 2
        table.tick(b.now)
        isn, ours = dice.getrandbits(32), dice.getrandbits(32)
        assert b.gets(make(stranger, B, isn, 0, SYN)).flags == SYN
        if answered:
            assert b.sends(make(B, stranger, ours, isn + 1 & 0xFFFFFFFF, SYN | ACK)).flags == SYN | ACK
            for at, flags, data in said[number % len(said)]:
                answer = b.ingress(make(stranger, B, isn + 1 + at & 0xFFFFFFFF, ours + 1 & 0xFFFFFFFF, flags, data))
                assert not isinstance(answer, Packet) or answer.flags & RST, "nothing for our socket"
        assert all(not packet.payload for _, packet in b.injected())
        assert len(table.answering) <= MAX_ANSWERING
        assert len(table._due) <= 4 * MAX_ANSWERING
        assert not any(one.outputs or one.flow for one in table.answering.values())
        b.events()
    assert not b.engine.table.by_local
    b.now += DEADLINE
    table.tick(b.now)
    assert not table.answering and table.next_time() is None


def test_a_peer_gets_through_a_flood() -> None:
    """It has shown its key by the time that its place would be the next one's."""
    path = Path()
    path.b.takes(relayed=(ip_network("10.0.0.0/16"),))
    record = path.spoken()
    for stranger in strangers(MANY):
        path.b.gets(make(stranger, B, 1, 0, SYN))
        path.b.injected()
    assert path.b.gets(record).payload == b"hello"


def test_what_is_kept_behind_a_good_message_1_is_bounded() -> None:
    """Who has the network key can have 64 KB kept for our socket, and pieces like any connection."""
    path = Path()
    record = path.spoken(b"hello" * 200)
    path.at(1.0)  # late: our socket is told of the SYN again, and what comes meanwhile is kept
    path.b.ingress(record)
    (answered,) = path.b.engine.streams.answering.values()
    more = [path.a.sends(path.from_a(b"hello" * 200, 1000 * number, stamp=103)) for number in range(1, 60)]
    for segment in more * 2:
        path.b.ingress(replace(segment, ack=record.ack))
    assert 32 << 10 < sum(map(len, answered.outputs)) <= 64 << 10
