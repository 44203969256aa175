"""What strangers can make us do: counted, so that it does not depend on the machine.

`benchmarks/garbage` shows what it comes to in time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from struct import pack

import pytest

from mcencrypt.core import engine, handshake, noise
from mcencrypt.core.handshake import HELLO_LENGTH, MAGIC, NetworkSecret
from mcencrypt.core.limits import Budget, RateLimit
from mcencrypt.core.verdict import DROP
from tests.helpers.packets import ACK, FIN, PSH, SYN, URG, Packet
from tests.helpers.sides import A6, B6, ISN_A, NETWORK_KEY, A, B, Host, Side, key_of, make

KEY_ID = NetworkSecret(NETWORK_KEY).key_id


class Asked:
    """Counts what one side asks of its surroundings, and what it computes with keys."""

    def __init__(self, side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count: Counter[str] = Counter()
        admission = side.engine.admission
        around = admission._around
        counted = replace(
            around,
            route_mtu=self._counting("route", around.route_mtu),
            path_of=self._counting("socket", around.path_of),
        )
        admission._around = counted
        admission.paths._route_mtu, admission.paths.of = counted.route_mtu, counted.path_of
        monkeypatch.setattr(noise, "_exchange", self._counting("exchange", noise._exchange))
        keys = admission.ephemerals
        monkeypatch.setattr(keys, "_random", self._counting("random", keys._random))
        monkeypatch.setattr(handshake, "Responder", self._counting("responder", handshake.Responder))

    def _counting(self, name, function):
        def asked(*arguments):
            self.count[name] += 1
            return function(*arguments)

        return asked


def hello(clear: bytes, seed: int = 1) -> bytes:
    """A message of the right length that begins like that."""
    return clear + Random(seed).randbytes(HELLO_LENGTH - len(clear))


GARBAGE = {
    "empty": b"",
    "short": MAGIC,
    "text": b"GET / HTTP/1.1\r\n\r\n" * 60,
    "zeros": bytes(HELLO_LENGTH),
    "other version": hello(MAGIC + b"\2\1"),
    "other key": hello(MAGIC + b"\1\1"),
    "forged": hello(MAGIC + b"\1\1" + KEY_ID),
    "forged, of another kind": hello(MAGIC + b"\1\2" + KEY_ID),
    "forged, too long": hello(MAGIC + b"\1\1" + KEY_ID) + b"x",
}


@pytest.mark.parametrize("payload", GARBAGE.values(), ids=list(GARBAGE))
@pytest.mark.parametrize(("peer", "local"), [(A, B), (A6, B6)])
def test_garbage_in_a_syn_asks_the_kernel_nothing_and_computes_with_no_key(
    payload: bytes, peer: Host, local: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = Side()
    asked = Asked(b, monkeypatch)
    for options in (b"", b"\x13\x12" + bytes(16) + b"\1\1"):
        assert b.ingress(make(peer, local, ISN_A, 0, SYN, payload, options)) is DROP
    assert asked.count == {}
    b.untouched()
    assert b.suspects() == {} and b.sockets() == set()


def test_what_is_counted_here_is_asked_for_a_valid_syn(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = Side(1), Side(2)
    syn = a.dials()
    asked = Asked(b, monkeypatch)
    b.gets(syn)
    assert asked.count["route"] == 1 and asked.count["responder"] == 1 and asked.count["exchange"] >= 0


@pytest.mark.parametrize("acked", [1, 1 + HELLO_LENGTH])
def test_a_forged_answer_to_our_dial_asks_the_kernel_nothing(acked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a = Side()
    a.dials()
    asked = Asked(a, monkeypatch)
    a.gets(make(B, A, 5, ISN_A + acked, SYN | ACK, hello(MAGIC + b"\1\2" + KEY_ID)))
    assert asked.count == {}


def strays(number: int) -> list[Packet]:
    """Packets of that many connections that nobody has."""
    kinds = (ACK, ACK | PSH, FIN | ACK, ACK | URG, 0, SYN | ACK)
    return [make((pack("!I", 1 << 24 | n), 1024 + n % 60000), B, n, n, kinds[n % 6], b"x") for n in range(number)]


def test_sockets_that_strangers_name_are_looked_up_a_few_times_a_second() -> None:
    b = Side()
    looked_up = []
    for second in range(11):
        b.now = float(second)
        for packet in strays(1000):
            assert b.ingress(packet) is DROP
            looked_up += b.suspects()
    assert engine.LOOK_UPS_AT_ONCE <= len(looked_up) <= engine.LOOK_UPS_AT_ONCE + 10 * engine.LOOK_UPS_PER_SECOND
    assert b.events() == [] and b.sockets() == set() and b.injected() == [], "nothing is said before a socket is found"


def test_a_socket_that_sends_is_ended_whatever_strangers_do() -> None:
    b = Side()
    for packet in strays(1000):
        b.ingress(packet)
    assert b.egress(make(B, A, 800, 709, ACK | PSH, b"plaintext")) is DROP
    assert b.sockets() == {key_of(B, A)}


def test_a_budget_is_spent_and_earned() -> None:
    budget = Budget(2.0, 3)
    assert [budget.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.take(11.0) for _ in range(3)] == [True, True, False]
    assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]
    for wrong in ((0.0, 1), (1.0, 0)):
        with pytest.raises(ValueError):
            Budget(*wrong)


# -- how often


def test_a_burst_passes_then_the_rate_holds_and_what_was_refused_is_counted() -> None:
    limit = RateLimit(2.0, 3)
    assert [limit.allow(100.0) for _ in range(5)] == [True, True, True, False, False]
    assert limit.take_suppressed() == 2 and limit.take_suppressed() == 0
    assert not limit.allow(100.4)
    assert limit.allow(100.5) and not limit.allow(100.5)
    assert [limit.allow(1000.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_steps_back_earns_nothing() -> None:
    limit = RateLimit(1.0, 1)
    assert limit.allow(50.0)
    assert not limit.allow(40.0)
    assert limit.allow(41.0)


@pytest.mark.parametrize(("per_second", "burst"), [(0.0, 1), (1.0, 0)])
def test_a_limit_that_never_lets_anything_through_is_a_mistake(per_second: float, burst: int) -> None:
    with pytest.raises(ValueError, match="rate limit"):
        RateLimit(per_second, burst)
