"""Health checks: who is in `probes` may connect, and no byte passes, in either direction."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from mcencrypt.core import healthchecks
from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.healthchecks import MAX_CHECKS
from mcencrypt.core.reasons import Reason
from mcencrypt.core.status import State
from mcencrypt.core.table import LINGER, LOOK_AFTER
from mcencrypt.core.verdict import ACCEPT, DROP, InPlaintext
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN
from tests.helpers.sides import A6, B6, ISN_A, ISN_B, A, B, Host, Side, connect, connected, key_of, make, say

DATA: Reason = "health-check-data"
KUBELET = (ip_network("10.0.0.0/24"), ip_network("fd00::/16"))
#: MSS, timestamps, and a Fast Open cookie that is asked for (RFC 7413).
FAST_OPEN = bytes.fromhex("020405b40101080a00000001000000002202") + bytes(2)


def answering(**policy: object) -> Side:
    return Side(2, **{"probes": KUBELET, **policy})


def connects(b: Side, peer: Host = A, local: Host = B, isn: int = ISN_A) -> None:
    """A health check comes about."""
    syn = b.gets(make(peer, local, isn, 0, SYN))
    assert syn.payload == b""
    answer = b.sends(make(local, peer, ISN_B, isn + 1, SYN | ACK))
    assert (answer.seq, answer.ack, answer.payload) == (ISN_B, isn + 1, b"")
    assert b.ingress(make(peer, local, isn + 1, ISN_B + 1, ACK)) is ACCEPT


@pytest.mark.parametrize(("peer", "local"), [(A, B), (A6, B6)])
def test_it_connects_and_goes_and_nobody_says_a_word(peer: Host, local: Host) -> None:
    b = answering()
    connects(b, peer, local)
    assert b.states() == [State.HEALTH_CHECK] and b.engine.summary().checks == 1
    assert b.ingress(make(peer, local, ISN_A + 1, ISN_B + 1, FIN | ACK)) is ACCEPT
    assert b.egress(make(local, peer, ISN_B + 1, ISN_A + 2, FIN | ACK)) is ACCEPT
    assert b.ingress(make(peer, local, ISN_A + 2, ISN_B + 2, ACK)) is ACCEPT
    assert b.events() == [] and b.refused == {} and b.injected() == []
    assert b.engine.summary().plaintext == {}
    assert b.engine.tick(b.now + LINGER + 1) == [key_of(local, peer)], "looked up soon"
    b.table.forget(key_of(local, peer))
    assert b.states() == [] and b.events() == []


def test_it_may_hold_the_connection() -> None:
    b = answering()
    connects(b)
    for _ in range(3):
        assert b.engine.tick(b.now + LOOK_AFTER + 1) == [key_of(B, A)]
        b.now += LOOK_AFTER + 1
        b.table.touch(key_of(B, A), b.now)
        assert b.ingress(make(A, B, ISN_A, ISN_B + 1, ACK)) is ACCEPT, "a keepalive"
        assert b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK)) is ACCEPT
    assert b.states() == [State.HEALTH_CHECK] and b.events() == []


@pytest.mark.parametrize("flags", [ACK, ACK | PSH, ACK | FIN, ACK | RST])
def test_the_first_byte_from_there_ends_it(flags: int) -> None:
    b = answering()
    connects(b)
    assert b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, flags, b"GET / HTTP/1.0\r\n")) is DROP
    assert b.rejected().reason == DATA and b.refused == {DATA: 1}
    found = dict(b.injected())
    assert (found["network"].seq, found["network"].flags & RST, found["network"].payload) == (ISN_B + 1, RST, b"")
    assert (found["socket"].seq, found["socket"].flags & RST, found["socket"].payload) == (ISN_A + 1, RST, b"")
    assert b.sockets() == {key_of(B, A)}
    assert b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"GET /")) is DROP
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK)) is DROP, "what is left of the socket is no connection"
    assert b.states() == []


def test_the_first_byte_from_here_ends_it() -> None:
    b = answering()
    connects(b)
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK | PSH, b"version")) is DROP
    assert b.rejected().reason == DATA and b.sockets() == {key_of(B, A)}
    assert all(packet.payload == b"" and packet.flags & RST for _, packet in b.injected())
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK | PSH, b"version")) is DROP, "nor if it is sent again"


def test_data_behind_the_end_ends_it_with_exact_numbers() -> None:
    b = answering()
    connects(b)
    b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, FIN | ACK))
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 2, ACK | PSH, b"late")) is DROP
    found = dict(b.injected())
    assert (found["network"].seq, found["network"].ack) == (ISN_B + 1, ISN_A + 2)
    assert (found["socket"].seq, found["socket"].ack) == (ISN_A + 2, ISN_B + 1)


def test_no_byte_passes_in_a_syn_or_is_asked_to() -> None:
    b = answering()
    assert b.ingress(make(A, B, ISN_A, 0, SYN, b"early")) is DROP and b.refused == {"not-a-handshake": 1}
    syn = b.gets(make(A, B, ISN_A, 0, SYN, options=FAST_OPEN))
    assert syn.options and b"\x22" not in syn.options, "no cookie, so no data in a later SYN"
    assert b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK, b"early")).payload == b""


@pytest.mark.parametrize("policy", [{"probes": ()}, {"probes": (ip_network("10.0.1.0/24"),)}])
def test_nobody_else_finds_the_port(policy: dict[str, object]) -> None:
    b = answering(**policy)
    assert b.ingress(make(A, B, ISN_A, 0, SYN)) is DROP
    assert b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)) is DROP
    assert b.refused["not-a-handshake"] == 1 and b.states() == []


def test_without_our_own_kernels_answer_there_is_none() -> None:
    """Anybody can send from these addresses: an acknowledgement alone opens nothing, and a SYN shows nothing."""
    b = answering()
    assert b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, ACK)) is DROP
    b.gets(make(A, B, ISN_A, 0, SYN))
    assert b.states() == []
    assert b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, ACK)) is DROP
    assert b.egress(make(B, A, ISN_B, ISN_A + 7, SYN | ACK)) is DROP, "of another SYN"
    assert b.states() == []


def test_a_port_where_nobody_listens_is_refused() -> None:
    b = answering()
    b.gets(make(A, B, ISN_A, 0, SYN))
    assert b.sends(make(B, A, 0, ISN_A + 1, RST | ACK)).flags == RST | ACK
    assert b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)) is DROP, "and that is over"


def test_peers_behind_the_same_address_are_encrypted() -> None:
    a, b = Side(1, probes=KUBELET), answering()
    connect(a, b)
    say(a, b, b"version")
    assert b.states() == [State.ENCRYPTED] and b.engine.summary().checks == 0


def test_a_bare_syn_harms_no_connection() -> None:
    a, b = connected(probes=KUBELET)
    say(a, b, b"version")
    b.ingress(make(A, B, 77, 0, SYN))
    b.ingress(make(A, B, ISN_A, 0, SYN))
    assert b.states() == [State.ENCRYPTED]
    assert len(b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)).payload) == HELLO_LENGTH, "its own, again"
    assert say(a, b, b"more", at=7).payload == b"more"


def test_a_bare_copy_of_a_peers_syn_takes_its_place_neither_before_nor_after() -> None:
    for first in (True, False):
        a, b = Side(1), answering()
        syn = a.dials()
        if first:
            b.ingress(make(A, B, ISN_A, 0, SYN))
        b.gets(syn)
        if not first:
            b.ingress(make(A, B, ISN_A, 0, SYN))
        answer = b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
        assert len(answer.payload) == HELLO_LENGTH
        a.gets(answer)
        b.gets(a.sends(make(A, B, ISN_A + 1, ISN_B + 1, ACK)))
        assert b.states() == [State.UNCONFIRMED] and b.engine.summary().checks == 0


def test_our_own_dials_there_are_encrypted_or_nothing() -> None:
    a = Side(1, probes=KUBELET)
    a.dials()
    assert a.gets(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)).flags == SYN | ACK, "it may be a relay"
    assert a.sends(make(A, B, ISN_A + 1, ISN_B + 1, ACK)).payload.startswith(b"mcen")
    left = a.sends(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"version"))
    assert left.payload.startswith(b"mcen") and b"version" not in left.payload


# -- what others decide


@pytest.mark.parametrize("policy", [{"mode": "prefer"}, {"allow_plaintext": KUBELET}])
def test_where_plaintext_is_allowed_it_becomes_that_with_its_first_byte(policy: dict[str, object]) -> None:
    b = answering(**policy)
    connects(b)
    assert b.states() == [State.HEALTH_CHECK] and b.events() == [], "who only connects is no plaintext"
    assert b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, ACK | PSH, b"version")) is ACCEPT
    assert b.events() == [InPlaintext(key_of(B, A))] and b.states() == [State.PLAINTEXT]
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 8, ACK | PSH, b"verack")) is ACCEPT
    (shown,) = b.engine.connections(b.now)
    assert (shown.counters.bytes_in, shown.counters.bytes_out) == (7, 6)
    leave = "prefer" if "mode" in policy else "allow_plaintext"
    assert b.engine.summary().plaintext == b.engine.summary().plaintext_now == {leave: 1}


def test_an_address_that_is_not_named_any_more_has_none() -> None:
    b = answering()
    connects(b)
    b.ingress(make((A[0], 40001), B, ISN_A, 0, SYN))
    b.takes(probes=())
    assert b.states() == []
    assert b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, ACK)) is DROP
    assert b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK)) is DROP
    assert b.egress(make(B, (A[0], 40001), ISN_B, ISN_A + 1, SYN | ACK)) is DROP, "nor one that was being made"


def test_ports_that_are_given_up_take_theirs_along() -> None:
    b = answering()
    connects(b)
    b.engine.leave_all_but([B[1]], b.now)
    assert b.states() == [State.HEALTH_CHECK]
    b.engine.leave_all_but([9], b.now)
    assert b.states() == []


def test_off_is_off() -> None:
    b = answering(enabled=False)
    assert b.ingress(make(A, B, ISN_A, 0, SYN)) is ACCEPT
    b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK))
    assert b.states() == [State.PLAINTEXT] and b.engine.summary().plaintext == {"off": 1}


# -- many


def test_few_at_a_time_and_the_oldest_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthchecks, "MAX_CHECKS", 3)
    b = answering()
    for port in range(5):
        connects(b, (A[0], 40000 + port))
    assert b.engine.summary().states[State.HEALTH_CHECK] == 3
    assert b.sockets() == {key_of(B, (A[0], 40000)), key_of(B, (A[0], 40001))}
    resets = [packet for toward, packet in b.injected() if toward == "network"]
    assert [packet.ports[1] for packet in resets] == [40000, 40001] and b.events() == []
    assert b.refused == {"too-many-attempts": 2}


def test_one_that_has_ended_makes_room_first_and_is_told_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthchecks, "MAX_CHECKS", 3)
    b = answering()
    for port in range(3):
        connects(b, (A[0], 40000 + port))
    b.ingress(make((A[0], 40002), B, ISN_A + 1, ISN_B + 1, RST | ACK))
    connects(b, (A[0], 40003))
    assert b.sockets() == set() and b.injected() == [] and b.refused == {}
    assert key_of(B, (A[0], 40000)) in b.table.checks


def test_syns_that_nobody_answers_fill_nothing() -> None:
    b = answering()
    for port in range(10 * MAX_CHECKS):
        b.gets(make((A[0], 1000 + port), B, ISN_A, 0, SYN))
    assert len(b.engine.health._asked) == MAX_CHECKS
    b.engine.tick(b.now + 100)
    assert not b.engine.health._asked
