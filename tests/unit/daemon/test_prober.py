"""Probes without a network: what goes out and when, which timers that takes, and what the command `probe` says."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from mcencrypt.core.addresses import reversed_key
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.keyring import KeyRing
from mcencrypt.core.packet import ACK, RST, Segment, bare
from mcencrypt.core.probe import RESEND_AFTER, ProbeResult
from mcencrypt.core.probing import MAX_PROBES
from mcencrypt.daemon.prober import Prober
from mcencrypt.daemon.survey import Busy
from mcencrypt.daemon.switch import Position
from mcencrypt.errors import OperatorError
from tests.helpers.sides import new_engine
from tests.helpers.standins import FakeLoop

PORT = 7331
#: On lo, and not the address that this host would ask it from (127.0.0.1).
PEER = "127.0.0.2"
OFFERED, OTHER = NetworkSecret(b"o" * 32), NetworkSecret(b"x" * 32)


class Switched:
    position = Position.ON
    ports = (PORT, 7332)


class Bench:
    """A prober, its engine, and what it sent: (time, packet)."""

    def __init__(self) -> None:
        self.engine = new_engine(1, KeyRing((OFFERED, OTHER)), mtu=1400)
        self.loop, self.switch = FakeLoop(), Switched()
        self.loop.afterwards = self._carry_out
        self._begun = self.loop.now()
        self.sent: list[tuple[float, Segment]] = []
        self.results: list[ProbeResult] = []
        self.prober = Prober(self.engine, self.switch, self.loop)

    def _carry_out(self) -> None:
        self.sent += [(self.loop.now() - self._begun, Segment(one.packet)) for one in self.engine.outcome.injections]
        self.engine.outcome.injections.clear()

    def begin(self, timeout: float = 3.0, address: str = PEER, port: int = PORT) -> None:
        self.prober.begin(address, port, OFFERED, timeout, self.results.append)
        self._carry_out()

    def refuse(self) -> None:
        """The last probe is answered by a reset."""
        syn = self.sent[-1][1]
        reset = bare(reversed_key(syn.source_first), 0, syn.seq + 1, RST | ACK)
        self.engine.ingress(reset, 0, self.loop.now())


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_probe_is_sent_at_once_again_and_given_up(bench: Bench) -> None:
    bench.begin(timeout=2.5)
    bench.loop.run(10)
    assert [round(at, 6) for at, _ in bench.sent] == [0.0, RESEND_AFTER]
    assert [(one.outcome, one.attempts) for one in bench.results] == [("silent", 2)]
    assert not bench.loop.pending(), "no timer outlives the last probe"


def test_an_answer_is_told_from_the_loop_and_not_from_the_packet_path(bench: Bench) -> None:
    bench.begin()
    bench.loop.run(0.25)
    bench.refuse()
    assert not bench.results
    bench.loop.run()
    assert [(one.outcome, one.round_trip) for one in bench.results] == [("refused", 0.25)]


def test_all_probes_share_one_timer(bench: Bench) -> None:
    for _ in range(20):
        bench.begin()
        bench.loop.run(0.01)
    assert bench.loop.pending() == 1
    calls = bench.loop.run(100)
    assert len(bench.results) == 20 and len(bench.sent) == 40
    # each probe: its second SYN, its end, and the call that tells of it
    assert calls <= 3 * 20, "a chain of timers for each probe would call back 20 times as often"


def test_a_probe_that_ends_earlier_than_the_timer_moves_it(bench: Bench) -> None:
    bench.begin(timeout=30.0)
    bench.loop.run(0.5)
    bench.begin(timeout=0.1)
    bench.loop.run(0.2)
    assert [one.outcome for one in bench.results] == ["silent"]
    assert [round(at, 6) for at, _ in bench.sent] == [0.0, 0.5]
    bench.loop.run(0.3)
    assert [round(at, 6) for at, _ in bench.sent] == [0.0, 0.5, 1.0], "the first one is not forgotten"
    assert bench.loop.pending() == 1


def test_the_local_port_is_held_until_the_end(bench: Bench) -> None:
    bench.begin()
    packet = bench.sent[-1][1]
    key = packet.source_first
    source = (socket.inet_ntop(socket.AF_INET, key[:4]), int.from_bytes(key[8:10], "big"))

    def free() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as one:
            try:
                one.bind(source)
            except OSError:
                return False
        return True

    assert source[0] == "127.0.0.1" and not free()
    bench.loop.run(100)
    assert free()


def test_too_many_are_refused_and_keep_nothing(bench: Bench) -> None:
    for _ in range(MAX_PROBES):
        bench.begin()
    with pytest.raises(Busy, match="too many probes"):
        bench.begin()
    bench.loop.run(100)
    assert len(bench.results) == MAX_PROBES
    bench.begin()


@pytest.mark.parametrize(
    ("address", "port", "words"),
    [
        (PEER, 9, "port 9 is not one of the P2P ports here .7331, 7332."),
        ("b.example", PORT, "'b.example' is not an IP address"),
        ("127.0.0.1", PORT, "is an address of this host"),
        ("::ffff:127.0.0.1", PORT, "is an address of this host"),
    ],
)
def test_what_cannot_be_probed_is_said(bench: Bench, address: str, port: int, words: str) -> None:
    with pytest.raises(OperatorError, match=words):
        bench.begin(address=address, port=port)
    assert not bench.sent and not bench.loop.pending()


def test_nothing_is_probed_while_encryption_is_off(bench: Bench) -> None:
    bench.switch.position = Position.OFF
    with pytest.raises(OperatorError, match="encryption is off"):
        bench.begin()


def ask(bench: Bench, **arguments: Any) -> dict[str, Any]:
    """The reply to the command `probe`, once it is there."""
    later = bench.prober.command({"address": PEER, "port": PORT, **arguments})
    assert later.reply is None
    bench.loop.run(100)
    assert later.reply is not None and later.reply["ok"]
    result = later.reply["result"]
    assert isinstance(result, dict)
    return result


def test_the_command_says_what_came_back(bench: Bench) -> None:
    bench.engine.admission.refused_keys.note(socket.inet_aton(PEER), b"refused!")
    result = ask(bench, seconds=1.5)
    assert result.pop("detail").startswith("no answer: ")
    assert result == {
        "outcome": "silent",
        "identity": None,
        "key_id": OFFERED.key_id.hex(),
        "offered": None,
        "round_trip": None,
        "attempts": 2,
        "last_refused_key_id": b"refused!".hex(),
    }


def test_the_command_asks_with_the_key_that_is_named(bench: Bench) -> None:
    assert ask(bench, key_id=OTHER.key_id.hex()[:6])["key_id"] == OTHER.key_id.hex()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"port": None}, "needs an address and a port"),
        ({"port": "p2p"}, "needs an address and a port"),
        ({"seconds": "soon"}, "needs an address and a port"),
        ({"key_id": "zz"}, "see `mcencrypt key list`"),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(bench: Bench, arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(OperatorError, match=words):
        bench.prober.command({"address": PEER, "port": PORT, **arguments})


def test_a_command_waits_no_longer_than_a_minute(bench: Bench) -> None:
    bench.prober.command({"address": PEER, "port": PORT, "seconds": 1e9})
    bench.loop.run(61)
    assert not bench.loop.pending()
