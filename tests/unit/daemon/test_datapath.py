"""What follows from packets: carried out in which order, and by whom, over a queue and sockets that only play."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import pytest

from mcencrypt.core.fast import Express
from mcencrypt.core.verdict import ACCEPT, DROP, Ended, Event, Injection, InPlaintext, Outcome, Verdict
from mcencrypt.daemon import datapath
from mcencrypt.daemon.datapath import Datapath
from mcencrypt.kernel.handling import Handlings
from mcencrypt.kernel.queue import Decide

KEY, OTHER = bytes(12), bytes(11) + b"\1"


class FakeEngine:
    """Gives the verdicts, and leaves the injections, that a test has laid out for its packets."""

    def __init__(self, acts: list[str]) -> None:
        self.outcome, self.acts = Outcome(), acts
        self.express = Express({}, {}, {}, {}, self.outcome)
        self.follows: dict[bytes, tuple[Verdict, Callable[[Outcome], None]]] = {}

    def ingress(self, packet: bytes, skb_info: int, now: float) -> Verdict:
        return self._decide("in", packet)

    def egress(self, packet: bytes, skb_info: int, now: float) -> Verdict:
        return self._decide("out", packet)

    def _decide(self, way: str, packet: bytes) -> Verdict:
        self.acts.append(f"{way} {bytes(packet).decode()}")
        verdict, follow = self.follows.get(bytes(packet), (ACCEPT, lambda outcome: None))
        follow(self.outcome)
        return verdict


class Bench:
    """A data path, and what it does, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.acts: list[str] = []
        bench = self

        class FakeInjector:
            sent = failed = 0
            underway: ClassVar[dict[bytes, int]] = {}

            def __init__(self, handlings: Handlings) -> None:
                pass

            def send(self, injection: Injection, now: float) -> None:
                bench.acts.append(f"{injection.packet.decode()} to {injection.toward}")

            def is_ours(self, packet: memoryview) -> bool:
                return bytes(packet).startswith(b"ours")

        class FakeQueue:
            number = 7

            def __init__(self, number: int, decide: Decide, express: object = None) -> None:
                self.decide = decide

            def serve(self, other: int, seconds: float) -> bool:
                bench.acts.append("packets")
                return False

            def close(self) -> None:
                bench.acts.append("queue closed")

        monkeypatch.setattr(datapath, "Injector", FakeInjector)
        monkeypatch.setattr(datapath, "Queue", FakeQueue)
        monkeypatch.setattr(datapath, "probe", lambda queue: bench.acts.append("tried"))
        self.engine = FakeEngine(self.acts)
        self.reported: list[Event] = []
        self.datapath = Datapath(self.engine, 7, self._destroy, None, self._report)  # type: ignore[arg-type]
        assert self.acts == ["tried", "queue closed"], "the kernel is tried before anything depends on it"
        self.acts.clear()

    def _destroy(self, key: bytes) -> None:
        self.acts.append(f"socket {key[-1]} ended")

    def _report(self, event: Event, now: float) -> None:
        self.acts.append("reported")
        self.reported.append(event)

    def packet(self, text: bytes, outgoing: bool) -> Verdict:
        verdict = self.datapath._decide(memoryview(text), 0, outgoing, 0.0)
        self.acts.append("verdict")
        return verdict


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_what_a_packet_sets_free_toward_the_network_goes_before_the_socket_can_answer_it(bench: Bench) -> None:
    def follow(outcome: Outcome) -> None:
        outcome.to_network(b"waited")
        outcome.to_socket(b"second delivery")
        outcome.to_network(b"waited too")

    bench.engine.follows[b"ack"] = (ACCEPT, follow)
    bench.packet(b"ack", outgoing=False)
    assert bench.acts == ["in ack", "waited to network", "waited too to network", "verdict"]
    bench.acts.clear()
    bench.packet(b"next", outgoing=False)
    assert bench.acts == ["second delivery to socket", "in next", "verdict"], "right behind the verdict"


def test_what_followed_a_packet_goes_before_the_next_one(bench: Bench) -> None:
    bench.engine.follows[b"batch"] = (DROP, lambda outcome: outcome.to_network(b"part"))
    assert bench.packet(b"batch", outgoing=True) is DROP
    assert bench.packet(b"next", outgoing=True) is ACCEPT
    assert bench.acts == ["out batch", "verdict", "part to network", "out next", "verdict"]


def test_an_injected_packet_that_comes_back_is_let_through_unseen(bench: Bench) -> None:
    assert bench.packet(b"ours and no other", outgoing=True) is ACCEPT
    assert bench.acts == ["verdict"]
    bench.packet(b"ours, says a stranger", outgoing=False)
    assert bench.acts[1:] == ["in ours, says a stranger", "verdict"]


def test_packets_then_sockets_then_the_log(bench: Bench) -> None:
    outcome = bench.engine.outcome
    outcome.end(KEY, "a test")
    outcome.end(KEY, "a test")
    outcome.to_network(b"reset")
    outcome.events.append(InPlaintext(OTHER))
    bench.datapath.carry_out()
    assert bench.acts == ["reset to network", "socket 0 ended", "reported", "reported", "reported"]
    assert bench.reported == [Ended(KEY, "a test"), Ended(KEY, "a test"), InPlaintext(OTHER)]
    bench.acts.clear()
    bench.datapath.carry_out()
    assert bench.acts == [] and outcome == Outcome()


def test_sockets_that_are_left_when_one_fails_go_the_next_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = bench.engine.outcome
    outcome.end(KEY, "a test")
    outcome.end(OTHER, "a test")
    failing: Callable[[bytes], None] = {}.__getitem__
    monkeypatch.setattr(bench.datapath, "_destroy", failing)
    with pytest.raises(KeyError):
        bench.datapath.carry_out()
    monkeypatch.undo()
    bench.datapath._destroy = bench._destroy
    bench.datapath.carry_out()
    assert len([act for act in bench.acts if act.startswith("socket")]) == 1 and len(bench.reported) == 2
