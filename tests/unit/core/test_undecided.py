"""Where plaintext is allowed, a connection that begins with message 1 becomes an encrypted one.

A dials under `require`, through something that carries no data in SYNs; B takes plaintext, and names no relay.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from mcencrypt.core import undecided
from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.hello import DEADLINE
from mcencrypt.core.status import State
from mcencrypt.core.verdict import ACCEPT, DROP, Encrypted, InPlaintext, Rejected
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN, Packet
from tests.helpers.sides import ISN_A, ISN_B, OTHER_KEY, SYN_OPTIONS, A, B, Side, key_of, make
from tests.helpers.stripped import Path, stamped

BA = key_of(B, A)


class Open(Path):
    """B is under `prefer`, and knows of no relay."""

    def __init__(self, **of_b: object) -> None:
        super().__init__()
        self.b = Side(2, **({"mode": "prefer"} | of_b))

    def met(self) -> Packet:
        """SYN and SYN-ACK have passed, both as they were: what leaves A next, with message 1 in it."""
        syn = replace(self.a.dials(*self.isns[:1]), payload=b"")
        assert self.b.ingress(syn) is ACCEPT
        answer = make(B, A, ISN_B, ISN_A + 1, SYN | ACK)
        assert self.b.egress(answer) is ACCEPT
        self.a.gets(answer)
        return self.a.sends(self.from_a())

    def known(self) -> Packet:
        """The same, and a relay has acknowledged B's SYN-ACK: accept() has returned there."""
        carrier = self.met()
        assert self.b.ingress(self.from_a()) is ACCEPT
        return carrier


def talk(path: Open, carrier: Packet) -> None:
    """The handshake goes through, and both talk."""
    assert path.b.ingress(carrier) is DROP
    *told, (toward, message) = path.b.injected()
    assert toward == "network" and message.payload.startswith(b"mcen\1\4")
    assert [(one, packet.flags, packet.payload) for one, packet in told] in ([], [("socket", ACK, b"")])
    assert path.a.ingress(message) is DROP
    [(toward, told_a)] = path.a.injected()
    assert toward == "socket" and told_a.window, "it may speak from now on"
    seen = path.b.gets(path.a.sends(path.from_a(b"hello", stamp=101)))
    assert (seen.seq, seen.payload) == (ISN_A + 1, b"hello")
    wire = path.b.sends(path.from_b(b"welcome", acked=5))
    assert b"welcome" not in wire.build()
    assert path.a.gets(wire).payload == b"welcome"
    assert path.b.states() == path.a.states() == [State.ENCRYPTED]
    assert Encrypted in path.b.kinds()


def test_a_peer_behind_a_relay_that_nobody_named_is_encrypted() -> None:
    path = Open()
    talk(path, path.known())


def test_message_1_in_the_first_acknowledgement_does_so_too() -> None:
    path = Open()
    talk(path, path.met())


def test_a_long_wait_for_message_1_is_no_round_trip_of_our_socket() -> None:
    path = Open()
    carrier = path.known()
    path.at(5.0)
    talk(path, carrier)


def test_networks_that_may_be_in_plaintext_are_no_different() -> None:
    path = Open(mode="require", allow_plaintext=(ip_network("10.0.0.0/8"),))
    talk(path, path.known())


def test_message_1_in_pieces_of_one_byte() -> None:
    path = Open()
    carrier = path.known()
    for at in range(HELLO_LENGTH - 1):
        piece = replace(carrier, seq=carrier.seq + at, payload=carrier.payload[at : at + 1])
        assert path.b.ingress(piece) is DROP
        path.b.injected()
    talk(path, replace(carrier, seq=carrier.seq + HELLO_LENGTH - 1, payload=carrier.payload[-1:]))


def test_nothing_that_came_before_message_1_is_waiting_in_our_socket() -> None:
    """The kernel would join it to what is encrypted."""
    path = Open()
    carrier = path.known()
    for at in (1, 5, HELLO_LENGTH, 1000):
        assert path.b.ingress(path.from_a(b"forged", at)) is DROP
    talk(path, carrier)


@pytest.mark.parametrize("first", [b"\xfb\xb5\xa1\x0eversion", b"mcex", b"mx", b"G"])
def test_plaintext_stays_plaintext(first: bytes) -> None:
    path = Open()
    path.known()
    assert path.b.ingress(path.from_a(first)) is ACCEPT
    assert path.b.egress(path.from_b(b"answer", acked=len(first))) is ACCEPT
    assert path.b.states() == [State.PLAINTEXT] and path.b.kinds() == [InPlaintext]
    assert path.b.ingress(path.from_a(b"mcen\1\3", len(first))) is ACCEPT, "only a beginning counts"
    assert not path.b.engine.streams


def test_a_beginning_that_could_become_message_1_waits_a_second() -> None:
    path = Open()
    path.known()
    path.at(3.0)
    assert path.b.ingress(path.from_a(b"mc")) is DROP
    path.at(3.5)
    assert path.b.ingress(path.from_a(b"mc")) is DROP
    path.at(4.1)
    assert path.b.ingress(path.from_a(b"mc")) is ACCEPT, "it is all that somebody has to say"
    assert path.b.egress(path.from_b(acked=2)) is ACCEPT


def test_who_was_answered_in_plaintext_stays_so() -> None:
    path = Open()
    carrier = path.known()
    assert path.b.egress(path.from_b(b"welcome")) is ACCEPT
    assert path.b.ingress(carrier) is ACCEPT
    assert path.b.states() == [State.PLAINTEXT]


def test_our_sockets_words_wait_for_the_keys() -> None:
    path = Open()
    path.b.ingress(path.known())
    assert path.b.egress(path.from_b(b"welcome")) is DROP
    assert path.b.egress(path.from_b(flags=ACK | FIN)) is DROP


def test_a_message_that_is_refused_ends_it_at_both_ends() -> None:
    path = Open(keys=OTHER_KEY)
    assert path.b.ingress(path.known()) is DROP
    sent = path.b.injected()
    assert {(toward, packet.seq) for toward, packet in sent if packet.flags & RST} == {
        ("network", ISN_B + 1),
        ("socket", ISN_A + 1),
    }
    assert path.b.rejected().reason == "wrong-key"
    assert path.b.states() == []


def test_a_message_made_for_a_syn_is_refused() -> None:
    path = Open()
    carrier = path.known()
    assert path.b.ingress(replace(carrier, payload=b"mcen\1\1" + carrier.payload[6:])) is DROP
    assert path.b.rejected().reason == "malformed-handshake"
    assert {toward for toward, packet in path.b.injected() if packet.flags & RST} == {"network", "socket"}


def test_a_replay_is_refused() -> None:
    path = Open()
    carrier = path.known()
    talk(path, carrier)
    path.b.table.forget(BA)
    path.b.events()
    again = replace(carrier, seq=9001, ack=8001)
    assert path.b.ingress(make(A, B, 9000, 0, SYN)) is ACCEPT
    assert path.b.egress(make(B, A, 8000, 9001, SYN | ACK)) is ACCEPT
    assert path.b.ingress(again) is DROP
    assert path.b.rejected().reason == "replayed"


def test_what_is_under_way_goes_on_when_the_policy_still_allows_it() -> None:
    path = Open()
    path.b.ingress(path.known())
    path.b.injected()
    path.b.takes(pin=True)
    assert path.b.states() == [State.HANDSHAKE]
    path.b.takes(mode="require")
    assert path.b.states() == []
    assert {toward for toward, _ in path.b.injected()} == {"network", "socket"}


def test_nothing_is_looked_at_while_encryption_is_off_or_demanded() -> None:
    for change in ({"enabled": False}, {"mode": "require"}):
        path = Open()
        carrier = path.known()
        path.b.takes(**change)
        assert not path.b.engine.streams
        assert path.b.ingress(carrier) is (ACCEPT if "enabled" in change else DROP)
    off = Open(enabled=False)
    off.met()
    assert not off.b.engine.streams


def test_ports_that_are_given_up_are_not_looked_at() -> None:
    path = Open()
    path.known()
    path.b.engine.leave_all_but([1], 0.0)
    assert not path.b.engine.streams


def test_it_is_forgotten_after_a_while_and_by_a_reset() -> None:
    path = Open()
    carrier = path.known()
    path.at(DEADLINE + 1)
    assert path.b.ingress(carrier) is ACCEPT
    assert not path.b.engine.streams
    path = Open()
    path.known()
    assert path.b.egress(path.from_b(flags=RST | ACK)) is not DROP
    assert not path.b.engine.streams


def test_a_socket_that_signs_or_has_other_options_stays_in_plaintext() -> None:
    path = Open()
    assert path.b.ingress(make(A, B, ISN_A, 0, SYN)) is ACCEPT
    signed = bytes((19, 18)) + bytes(16) + b"\1\1"
    assert path.b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK, options=SYN_OPTIONS[:4] + signed)) is ACCEPT
    assert path.b.ingress(stamped(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"mcen\1\3"), 5)) is ACCEPT


def test_strangers_syns_and_answers_to_them_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(undecided, "CAPACITY", 3)
    path = Open()
    carrier = path.known()
    for port in range(50000, 50002):
        path.b.ingress(make((A[0], port), B, 1, 0, SYN))
        path.b.egress(make(B, (A[0], port), 1, 2, SYN | ACK))
    for port in range(50100, 50200):
        path.b.ingress(make((A[0], port), B, 1, 0, SYN))
    talk(path, carrier)
    path = Open()
    carrier = path.known()
    for port in range(50000, 50003):
        path.b.ingress(make((A[0], port), B, 1, 0, SYN))
        path.b.egress(make(B, (A[0], port), 1, 2, SYN | ACK))
    assert path.b.ingress(carrier) is ACCEPT, "the oldest is plaintext, and nothing else happens to it"
    assert not [one for one in path.b.events() if isinstance(one, Rejected)]
