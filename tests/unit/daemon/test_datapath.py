"""What follows from packets: carried out in which order, and by whom, over a queue and sockets that only play."""

from __future__ import annotations

import pytest

from mcencrypt.core.verdict import ACCEPT, DROP, FROM_BEFORE, TOLD_AT_ONCE, Ended, InPlaintext, Outcome
from tests.helpers.packet_path import Bench

KEY, OTHER = bytes(12), bytes(11) + b"\1"


@pytest.fixture
def bench() -> Bench:
    return Bench()


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


def test_a_socket_that_a_stranger_named_is_reported_if_there_was_one(bench: Bench) -> None:
    outcome = bench.engine.outcome
    bench.existing.add(OTHER)
    outcome.suspects |= {KEY: None, OTHER: None}
    bench.datapath.carry_out()
    assert sorted(bench.acts) == ["reported", "suspect 0 looked up", "suspect 1 looked up"]
    assert bench.reported == [Ended(OTHER, FROM_BEFORE)] and outcome == Outcome()


def test_a_stranger_is_answered_as_any_host_answers_once_the_socket_was_looked_up(bench: Bench) -> None:
    """A far side whose connection was lost here, in a reboot, would never hear of it."""
    bench.engine.outcome.suspects[KEY] = 4711
    bench.datapath.carry_out()
    [looked_up, sent] = bench.acts
    assert looked_up == "suspect 0 looked up" and "network" in sent
    assert bench.engine.outcome == Outcome()


def test_of_rejections_a_few_are_told_and_all_are_counted(bench: Bench) -> None:
    outcome = bench.engine.outcome
    for _ in range(100):
        assert outcome.reject(KEY, "forged-handshake", "a test") is DROP
    outcome.reject(OTHER, "wrong-key", "a test")
    bench.datapath.carry_out()
    assert bench.acts == [f"{100 - TOLD_AT_ONCE} more forged-handshake", *["reported"] * (TOLD_AT_ONCE + 1)]
    assert outcome.refused == {"forged-handshake": 100, "wrong-key": 1}
    bench.acts.clear()
    outcome.reject(KEY, "forged-handshake", "a test")
    bench.datapath.carry_out()
    assert bench.acts == ["reported"]


def test_sockets_that_are_left_when_one_fails_go_the_next_time(bench: Bench) -> None:
    outcome, destroy = bench.engine.outcome, bench.destroy
    outcome.end(KEY, "a test")
    outcome.end(OTHER, "a test")
    bench.destroy = {}.__getitem__
    with pytest.raises(KeyError):
        bench.datapath.carry_out()
    bench.destroy = destroy
    bench.datapath.carry_out()
    assert len([act for act in bench.acts if act.startswith("socket")]) == 1 and len(bench.reported) == 2


def test_what_is_underway_is_known_to_the_quick_way_as_well(bench: Bench) -> None:
    assert bench.engine.express.underway is bench.injector.underway


@pytest.mark.parametrize(("outgoing", "devices"), [(True, (0, 3)), (False, (3, 0))])
def test_a_packet_leaves_by_a_device_or_came_by_one(bench: Bench, outgoing: bool, devices: tuple[int, int]) -> None:
    bench.packet(b"any", outgoing)
    assert (bench.datapath.came_by(), bench.datapath.leaves_by()) == devices


def test_its_numbers_are_those_of_queue_and_sockets(bench: Bench) -> None:
    bench.injector.sent, bench.injector.failed = 5, 6
    shown = bench.datapath.numbers()
    assert (shown["number"], shown["enobufs"], shown["bad_verdicts"]) == (7, 1, 2)
    assert (shown["injections"], shown["injections_failed"]) == (5, 6)
    bench.datapath.close()
    assert bench.acts == ["queue closed"]


def test_what_will_be_asked_is_looked_up_behind_the_verdict_with_the_device_of_its_own_packet(bench: Bench) -> None:
    asked: list[tuple[bytes, int]] = []
    bench.datapath.look_ahead = lambda key, device: asked.append((key, device))
    bench.engine.follows[b"syn"] = (ACCEPT, lambda outcome: outcome.ahead.append(KEY))
    bench.packet(b"syn", outgoing=True)
    assert asked == [] and bench.acts == ["out syn", "verdict"]
    bench.packet(b"another", outgoing=False)
    bench.datapath.carry_out()
    bench.datapath.carry_out()
    assert asked == [(KEY, 3)] and bench.acts[-1] == "ready for 0"


def test_what_no_verdict_waits_for_is_done_right_behind_it(bench: Bench) -> None:
    def follow(outcome: Outcome) -> None:
        bench.engine.behind(lambda: bench.acts.append("made"))

    bench.engine.follows[b"answer"] = (ACCEPT, follow)
    bench.packet(b"answer", outgoing=False)
    bench.packet(b"next", outgoing=True)
    assert bench.acts == ["in answer", "verdict", "made", "out next", "verdict"]


def test_it_is_done_before_the_next_packet_where_the_verdict_could_not_be_given(bench: Bench) -> None:
    def follow(outcome: Outcome) -> None:
        bench.engine.behind(lambda: bench.acts.append("made"))

    bench.engine.follows[b"answer"] = (ACCEPT, follow)
    bench.queue.behind = lambda: None
    bench.packet(b"answer", outgoing=False)
    bench.packet(b"next", outgoing=True)
    assert bench.acts == ["in answer", "verdict", "made", "out next", "verdict"]
