"""Probes with their handshake in the stream: two engines, and what each possible answer is taken for."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from mcencrypt.core.handshake import HELLO_LENGTH, Carrier, NetworkSecret
from mcencrypt.core.probe import ProbeResult
from mcencrypt.core.verdict import DROP
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN, Packet
from tests.helpers.sides import A6, B6, ISN_B, A, B, Host, Side, identity, key_of, make

KEY = NetworkSecret(b"k" * 32)
#: The port that the probe is sent from.
OWN: Host = (A[0], 40000)


class Asked:
    """A probe at A on its way to B."""

    def __init__(self, local: Host = A, remote: Host = B) -> None:
        self.a, self.local, self.remote = Side(1), local, remote
        self.a.now = 10.0
        self.results: list[ProbeResult] = []
        key = key_of(local, remote)
        assert self.a.engine.probing.begin(key, KEY, 10.0, 5.0, self.results.append, Carrier.STREAM)
        [(_, self.syn)] = self.a.injected()
        assert self.syn.flags == SYN and not self.syn.payload

    def hears(self, packet: Packet) -> list[Packet]:
        """What A sends for an answer."""
        assert self.a.ingress(packet) is DROP
        sent = self.a.injected()
        assert {toward for toward, _ in sent} <= {"network"}
        return [packet for _, packet in sent]

    def answer(self, flags: int, payload: bytes = b"", at: int = 0, acked: int = 0) -> Packet:
        """What the far side sends."""
        seq = ISN_B + (0 if flags & SYN else 1 + at)
        return make(self.remote, self.local, seq, self.syn.seq + 1 + acked, flags, payload)

    def connected(self) -> Packet:
        """The SYN was answered: message 1."""
        [opening] = self.hears(self.answer(SYN | ACK))
        assert len(opening.payload) == HELLO_LENGTH and opening.payload.startswith(b"mcen\1\3")
        assert (opening.seq, opening.ack) == ((self.syn.seq + 1) % 2**32, ISN_B + 1)
        return opening

    @property
    def outcome(self) -> str:
        (result,) = self.results
        return result.outcome


@pytest.mark.parametrize(("local", "remote"), [(A, B), (A6, B6)])
def test_a_node_behind_a_relay_answers_and_its_application_hears_of_nothing(local: Host, remote: Host) -> None:
    asked, b = Asked(local, remote), Side(2, relayed=(ip_network(ip_address(local[0])),))
    b.gets(asked.syn)
    [opening] = asked.hears(b.sends(make(remote, local, ISN_B, asked.syn.seq + 1, SYN | ACK)))
    assert b.ingress(opening) is DROP
    [(toward, message)] = b.injected()
    assert toward == "network"
    asked.a.now = 10.25
    leaving = asked.hears(message)
    (result,) = asked.results
    assert (result.outcome, result.identity, result.offered) == ("encrypted", identity(2), True)
    assert result.round_trip == pytest.approx(0.25)
    for reset in leaving:
        assert reset.flags == RST
        b.ingress(reset)
    assert b.states() == [] and not b.engine.streams


def test_message_2_may_come_in_pieces_and_each_is_acknowledged() -> None:
    asked, b = Asked(), Side(2, relayed=(ip_network("10.0.0.1/32"),))
    b.gets(asked.syn)
    [opening] = asked.hears(b.sends(make(B, A, ISN_B, asked.syn.seq + 1, SYN | ACK)))
    b.ingress(opening)
    [(_, message)] = b.injected()
    first, second = (replace(message, seq=message.seq + at, payload=message.payload[at:][:100]) for at in (0, 100))
    [answer] = asked.hears(first)
    assert (answer.flags, answer.ack, answer.seq) == (ACK, ISN_B + 1 + 100, opening.seq + HELLO_LENGTH)
    asked.hears(second)
    assert asked.outcome == "encrypted"


def test_each_answer_of_somebody_else_has_its_name() -> None:
    asked = Asked()
    asked.hears(asked.answer(RST | ACK))
    assert asked.outcome == "refused"
    asked = Asked()
    asked.connected()
    assert {packet.flags for packet in asked.hears(asked.answer(ACK | PSH, b"220 mail", acked=138))} == {RST}
    assert asked.outcome == "no-mcencrypt"
    asked = Asked()
    asked.connected()
    asked.hears(asked.answer(ACK | FIN, acked=138))
    assert asked.outcome == "unanswered"
    asked = Asked()
    asked.connected()
    asked.hears(asked.answer(RST | ACK))
    assert asked.outcome == "unanswered"
    asked = Asked()
    asked.connected()
    asked.hears(asked.answer(ACK | PSH, b"mcen\1\4" + bytes(132), acked=138))
    assert asked.outcome == "not-authentic"


def test_silence_before_and_after_the_syn_is_answered() -> None:
    asked = Asked()
    asked.a.engine.probing.tick(11.0)
    assert [packet.seq for _, packet in asked.a.injected()] == [asked.syn.seq]
    asked.a.engine.probing.tick(15.0)
    assert asked.outcome == "silent"
    asked = Asked()
    opening = asked.connected()
    asked.a.engine.probing.tick(10.2)
    assert [packet.payload for _, packet in asked.a.injected()] == [opening.payload]
    asked.hears(asked.answer(ACK, acked=HELLO_LENGTH))
    assert asked.a.engine.probing.next_time() == 15.0, "it is read: nothing is sent again"
    asked.a.engine.probing.tick(15.0)
    assert asked.outcome == "unanswered"
    assert [packet.seq for _, packet in asked.a.injected()] == [(asked.syn.seq + 1 + HELLO_LENGTH) % 2**32]


def test_packets_with_other_numbers_are_swallowed_and_end_nothing() -> None:
    asked = Asked()
    for stray in (
        asked.answer(SYN | ACK, acked=5),
        asked.answer(RST),
        asked.answer(ACK),
        asked.answer(RST | ACK, acked=1),
    ):
        assert asked.hears(stray) == []
    opening = asked.connected()
    assert asked.hears(asked.answer(RST, at=7)) == []
    assert asked.hears(asked.answer(ACK, b"G", acked=139)) == []
    assert [one.payload for one in asked.hears(asked.answer(SYN | ACK))] == [opening.payload], "our answer was lost"
    assert not asked.results
