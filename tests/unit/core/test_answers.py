"""Which key answered where: believed at first use, a change is told or refused, and what is written down holds."""

from __future__ import annotations

from typing import Any

import pytest

from mcencrypt.core.answers import CAPACITY, DAY, Answers
from mcencrypt.core.verdict import DROP, Encrypted, KeyChanged
from tests.helpers.packets import ACK, RST, SYN
from tests.helpers.sides import (
    B6,
    EDGE_A,
    ISN_A,
    ISN_B,
    UNIX_MS,
    A,
    B,
    Host,
    Side,
    connect,
    identity,
    key_of,
    make,
)

ONE, TWO, THREE = (bytes((n,)) * 32 for n in (1, 2, 3))
AT, ELSEWHERE = b"\x0a\0\0\2\x1c\xa3", b"\x0a\0\0\3\x1c\xa3"
ENDPOINT = B[0] + B[1].to_bytes(2, "big")
NOW = UNIX_MS // 1000


class Told:
    """Counts what is to be kept on disk."""

    def __init__(self, answers: Answers) -> None:
        self.times = 0
        answers.changed = self

    def __call__(self) -> None:
        self.times += 1


def test_the_first_key_is_believed_and_another_one_is_news_each_time_that_it_changes() -> None:
    answers = Answers()
    told = Told(answers)
    assert answers.expected(AT, ONE) is None and answers.note(AT, ONE, NOW)
    assert answers.expected(AT, ONE) is None and not answers.note(AT, ONE, NOW + 5)
    assert answers.expected(AT, TWO) == ONE and answers.note(AT, TWO, NOW + 9)
    assert answers.expected(AT, TWO) == ONE and not answers.note(AT, TWO, NOW + 10), "told once"
    assert answers.note(AT, THREE, NOW + 11)
    assert answers.expected(AT, ONE) is None
    one = answers.known[AT]
    assert (one.identity, one.since, one.other, one.other_at) == (ONE, NOW, THREE, NOW + 11)
    assert answers.differing() == 1 and told.times == 3


def test_that_a_key_still_answers_is_noted_once_a_day() -> None:
    answers = Answers()
    told = Told(answers)
    for hour in range(49):
        answers.note(AT, ONE, NOW + hour * 3600)
    assert told.times == 3 and answers.known[AT].last == NOW + 2 * DAY


def test_an_address_is_forgotten_with_one_port_or_all() -> None:
    answers = Answers()
    other_port = AT[:-2] + b"\0\1"
    for endpoint in (AT, other_port, ELSEWHERE):
        answers.note(endpoint, ONE, NOW)
    told = Told(answers)
    assert answers.forget(AT) == [AT] and answers.forget(AT) == [] and told.times == 1
    assert answers.forget(AT[:-2]) == [other_port]
    assert list(answers.known) == [ELSEWHERE]


def test_who_leads_us_to_many_addresses_does_not_make_us_forget_those_of_old() -> None:
    answers = Answers(limit=8)
    old = [bytes((10, 1, 1, n, 0, 1)) for n in range(4)]
    for day in range(3):
        for endpoint in old:
            answers.note(endpoint, ONE, NOW + day * DAY)
    for number in range(1000):
        answers.note(bytes((10, 2)) + number.to_bytes(2, "big") + b"\0\1", TWO, NOW + 3 * DAY + number)
        assert len(answers.known) <= 8
    assert set(old) <= set(answers.known)
    assert CAPACITY == 4096


# -- in handshakes


def dialled(a: Side, b: Side, port: int) -> bool:
    """Whether A's dial from that port becomes a connection."""
    local: Host = (A[0], port)
    b.gets(a.dials(local=local))
    seen = a.gets(b.sends(make(B, local, ISN_B, ISN_A + 1, SYN | ACK)))
    return not seen.flags & RST


def test_another_key_at_an_address_is_told_and_believed() -> None:
    a, b, c = Side(1), Side(2), Side(3)
    assert dialled(a, b, 1000) and a.kinds() == [Encrypted]
    assert dialled(a, c, 1001)
    assert a.events() == [
        KeyChanged(key_of((A[0], 1001), B), identity(2), identity(3)),
        Encrypted(key_of((A[0], 1001), B), identity(3)),
    ]
    assert dialled(a, c, 1002) and a.kinds() == [Encrypted], "told once"
    assert a.engine.admission.identities.answers.differing() == 1


def test_with_pin_another_key_is_refused_and_both_ends_know_at_once() -> None:
    a, b, c = Side(1, pin=True), Side(2), Side(3)
    assert dialled(a, b, 1000)
    a.events()
    assert not dialled(a, c, A[1])
    assert a.refused == {"key-changed": 1} and "peers forget" in a.rejected().detail
    [(toward, reset)] = a.injected()
    assert (toward, reset.flags, reset.seq) == ("network", RST, EDGE_A)
    c.gets(reset)
    c.untouched()
    assert dialled(a, b, 1002), "the one of before is welcome"
    a.engine.admission.identities.answers.forget(B[0])
    assert dialled(a, c, 1003), "after it was forgotten"


def test_who_dials_us_is_not_looked_up() -> None:
    """Behind one address there may be several nodes, and a source port says nothing."""
    a, b, c = Side(1, pin=True), Side(2), Side(3)
    for number, side in enumerate((b, c)):
        connect(side, a, local=(bytes((10, 0, 0, 9)), 1000 + number), remote=(A[0], B[1]))
    assert a.engine.admission.identities.answers.known == {}


@pytest.mark.parametrize("pinned", [{ENDPOINT: {2}}, {B[0]: {2}}, {ENDPOINT: {2}, B[0]: {3}}, {B[0]: {2, 4}}])
@pytest.mark.parametrize("pin", [True, False])
def test_an_address_in_the_peers_file_holds_from_the_first_dial_on(pinned: dict[bytes, set[int]], pin: bool) -> None:
    keys = {endpoint: frozenset(map(identity, seeds)) for endpoint, seeds in pinned.items()}
    a, b, c = Side(1, pin=pin, pinned=keys), Side(2), Side(3)
    assert not dialled(a, c, 1000) and a.refused == {"key-changed": 1} and "peers file" in a.rejected().detail
    assert dialled(a, b, 1001)
    assert a.engine.admission.identities.answers.known == {}, "nothing to remember"


def test_what_was_led_elsewhere_is_answered_there_and_seen_here() -> None:
    """Message 1 names no responder: NAT on the path can lead A's dial of B to C. Who answers proves that it is C."""
    a, b, c = Side(1, pin=True), Side(2), Side(3)
    assert dialled(a, b, 1000)
    local: Host = (A[0], 1001)
    syn = a.dials(local=local)
    gateway: Host = (bytes((10, 0, 0, 254)), 5)
    elsewhere: Host = (bytes((10, 0, 0, 3)), B[1])
    c.gets(make(gateway, elsewhere, ISN_A, 0, SYN, syn.payload))
    answer = c.sends(make(elsewhere, gateway, ISN_B, ISN_A + 1, SYN | ACK))
    seen = a.gets(make(B, local, ISN_B, answer.ack, SYN | ACK, answer.payload))
    assert seen.flags & RST and a.refused == {"key-changed": 1}


def test_link_local_addresses_are_of_each_link_and_not_remembered() -> None:
    a, b = Side(1), Side(2)
    link: Host = (bytes.fromhex("fe80") + bytes(13) + b"\2", B6[1])
    local: Host = (bytes.fromhex("fe80") + bytes(13) + b"\1", 1000)
    connect(a, b, local=local, remote=link)
    assert a.engine.admission.identities.answers.known == {}


@pytest.mark.parametrize("refusal", [{"listed": frozenset([identity(1)])}])
def test_who_is_refused_is_not_remembered(refusal: dict[str, Any]) -> None:
    a, b = Side(1, **refusal), Side(2)
    assert not dialled(a, b, 1000)
    assert a.engine.admission.identities.answers.known == {}
    assert a.ingress(make(B, A, 5, 6, ACK)) is DROP
