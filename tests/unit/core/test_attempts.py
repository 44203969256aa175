"""Our own sockets' attempts: forgotten when they are over, and shared among the users of the host."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.verdict import DROP
from tests.helpers.packets import ACK, RST, SYN
from tests.helpers.sides import EDGE_A, ISN_A, ISN_B, A, B, Host, Side, connect, key_of, make, pair


class Users:
    """A side whose sockets belong to users: by our port, in thousands; 9000 and more: no socket any more."""

    def __init__(self, limit: int) -> None:
        self.side = Side()
        admission = self.side.engine.admission
        admission._around = replace(admission._around, owner_of=self.owner_of)
        admission.dials.limit = limit

    def owner_of(self, key: bytes) -> int | None:
        user = int.from_bytes(key[-4:-2], "big") // 1000
        return user if user < 9 else None

    def dials(self, port: int) -> bool:
        left = self.side.egress(make((A[0], port), B, ISN_A, 0, SYN)) is not DROP
        self.side.engine.look_ahead(key_of((A[0], port), B))
        return left

    def held(self) -> list[int]:
        """The ports that are dialling."""
        return sorted(int.from_bytes(key[-4:-2], "big") for key in self.side.engine.admission.dialling)


def test_one_user_cannot_keep_another_from_dialling() -> None:
    users = Users(limit=8)
    assert [users.dials(1000 + n) for n in range(10)] == [True] * 8 + [False] * 2, "within its own, who has most waits"
    assert users.dials(2000) and users.dials(3000)
    assert users.held() == [1002, 1003, 1004, 1005, 1006, 1007, 2000, 3000], "its oldest gave way"
    assert not users.dials(1010)


def test_a_share_is_never_more_than_others_have() -> None:
    users = Users(limit=4)
    for port in (1000, 1001, 2000, 2001):
        assert users.dials(port)
    assert not users.dials(1002) and not users.dials(2002), "they have the same"
    assert users.dials(3000), "who has none gets one"
    assert users.held() in ([1001, 2000, 2001, 3000], [1000, 1001, 2001, 3000])


def test_sockets_that_are_gone_count_as_one_user_s_and_give_way_to_each_other() -> None:
    users = Users(limit=8)
    for n in range(30):
        assert users.dials(9000 + n)
    assert users.held() == [9022 + n for n in range(8)]
    assert [users.dials(1000 + n) for n in range(6)] == [True] * 4 + [False] * 2
    assert users.held() == [1000, 1001, 1002, 1003, 9026, 9027, 9028, 9029]


def test_an_attempt_on_the_same_ports_takes_the_place_of_the_one_before() -> None:
    users = Users(limit=2)
    for isn in range(20):
        assert users.side.egress(make((A[0], 1000), B, isn, 0, SYN)) is not DROP
    assert users.held() == [1000]
    users.side.engine.admission.dials.forget(key_of((A[0], 1000), B))
    assert users.held() == [] and users.side.engine.admission.dials._of == {}


def test_whose_a_dial_is_is_asked_when_its_syn_has_left_and_before_where_there_is_little_room() -> None:
    users = Users(limit=4)
    owner_of, asked = users.owner_of, list[bytes]()

    def asks(key: bytes) -> int | None:
        asked.append(key)
        return owner_of(key)

    admission = users.side.engine.admission
    admission._around = replace(admission._around, owner_of=asks)
    for port in (1000, 2000, 3000):
        assert users.side.egress(make((A[0], port), B, ISN_A, 0, SYN)) is not DROP
    keys = [key_of((A[0], port), B) for port in (1000, 2000, 3000)]
    assert asked == keys[2:], "two are half of four"
    assert [one.owner for one in admission.dialling.values()] == [None, None, 3]
    for key in keys:
        users.side.engine.look_ahead(key)
    assert asked == [keys[2], *keys[:2]] and sorted(one.owner for one in admission.dialling.values()) == [1, 2, 3]
    assert {owner: list(held) for owner, held in admission.dials._of.items()} == {
        1: [keys[0]], 2: [keys[1]], 3: [keys[2]]
    }  # fmt: skip
    users.side.engine.look_ahead(key_of((A[0], 4000), B))
    assert len(asked) == 3, "of what is not dialling nothing is asked"


@pytest.mark.parametrize("acked", [1, 1 + HELLO_LENGTH])
def test_a_dial_that_is_refused_is_over_at_once(acked: int) -> None:
    a = Side()
    a.dials()
    a.gets(make(B, A, 0, ISN_A + acked, RST | ACK))
    assert a.states() == []


@pytest.mark.parametrize(("flags", "ack"), [(RST, ISN_A + 1), (RST | ACK, ISN_A + 2), (ACK, ISN_A + 1)])
def test_what_our_socket_does_not_take_for_a_refusal_ends_no_dial(flags: int, ack: int) -> None:
    a, b = pair()
    b.gets(a.dials())
    a.gets(make(B, A, 0, ack, flags))
    assert len(a.states()) == 1
    assert a.gets(b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))).flags == SYN | ACK


def test_a_peer_s_attempt_that_our_kernel_refuses_is_over_at_once() -> None:
    a, b = pair()
    b.gets(a.dials())
    refusal = b.sends(make(B, A, 0, ISN_A + 1, RST | ACK))
    assert (refusal.flags, refusal.ack) == (RST | ACK, ISN_A + 1)
    b.untouched()
    a.gets(refusal)
    a.untouched()


@pytest.mark.parametrize(("flags", "ack"), [(RST, 0), (RST | ACK, EDGE_A)])
def test_other_resets_of_our_kernel_end_no_attempt_of_a_peer(flags: int, ack: int) -> None:
    """It answers a stranger's stray acknowledgement with one (RFC 9293 section 3.10.7.4)."""
    a, b = pair()
    b.gets(a.dials())
    b.sends(make(B, A, 7, ack, flags))
    assert len(b.states()) == 1
    second: Host = (A[0], 40001)
    connect(a, b, local=second)
