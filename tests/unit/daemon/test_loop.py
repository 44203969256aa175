"""The loop: what is called when, and what follows each wakeup."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator

import pytest

from mcencrypt.daemon.loop import Loop, next_multiple


class Bench:
    """A loop, and what it called, in order."""

    def __init__(self) -> None:
        self.loop, self.acts = Loop(), list[str]()
        self.near, self.far = socket.socketpair()
        self.loop.afterwards = lambda: self.acts.append("afterwards")

    def act(self, name: str) -> None:
        self.acts.append(name)

    def stop(self) -> None:
        self.act("stop")
        self.loop.stop()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    before = signal.getsignal(signal.SIGHUP)
    yield bench
    signal.signal(signal.SIGHUP, before)
    signal.set_wakeup_fd(-1)
    bench.near.close()
    bench.far.close()


def test_what_callbacks_left_is_done_before_the_loop_waits_and_when_it_ends(bench: Bench) -> None:
    def readable() -> None:
        bench.near.recv(1)
        bench.act("read")
        bench.loop.call_at(0.0, bench.stop)

    bench.loop.add_reader(bench.near.fileno(), readable)
    bench.loop.call_at(0.0, lambda: bench.act("timer"))
    bench.far.send(b"x")
    bench.loop.run()
    assert bench.acts == ["timer", "afterwards", "read", "stop", "afterwards"]


def test_what_was_left_before_the_start_is_done_first(bench: Bench) -> None:
    bench.loop.add_reader(bench.near.fileno(), bench.stop)
    bench.far.send(b"x")
    bench.loop.run()
    assert bench.acts == ["afterwards", "stop", "afterwards"]


def test_a_callback_that_raises_stops_nothing(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> None:
        raise ValueError("broken")

    bench.loop.afterwards = fails
    bench.loop.call_at(0.0, fails)
    bench.far.send(b"x")
    bench.loop.add_reader(bench.near.fileno(), bench.stop)
    bench.loop.run()
    assert bench.acts == ["stop"]
    assert caplog.text.count("the daemon goes on") == 3


def test_a_timer_that_stops_the_loop_is_not_followed_by_a_wait(bench: Bench) -> None:
    bench.loop.call_at(0.0, bench.stop)
    bench.loop.run()
    assert bench.acts == ["stop", "afterwards"]


def test_a_signal_is_handled_between_callbacks(bench: Bench) -> None:
    bench.loop.call_on(signal.SIGHUP, bench.stop)
    bench.loop.call_at(0.0, lambda: os.kill(os.getpid(), signal.SIGHUP))
    bench.loop.run()
    assert bench.acts == ["afterwards", "stop", "afterwards"]


def test_a_descriptor_is_forgotten(bench: Bench) -> None:
    bench.loop.add_reader(bench.near.fileno(), lambda: bench.act("read"))
    bench.loop.remove_reader(bench.near.fileno())
    bench.loop.remove_reader(bench.near.fileno())
    bench.far.send(b"x")
    bench.loop.call_at(0.0, lambda: bench.loop.call_at(0.0, bench.stop))
    bench.loop.call_every(3600.0, lambda: bench.act("never"))
    bench.loop.run()
    assert "read" not in bench.acts and "never" not in bench.acts


class Pieces:
    """Spare work that is done after a number of pieces, and what then happens."""

    def __init__(self, bench: Bench, count: int, done: Callable[[], None] = lambda: None) -> None:
        self.bench, self.count, self.done = bench, count, done

    def wanting(self) -> bool:
        return self.count > 0

    def make(self) -> None:
        self.count -= 1
        self.bench.act("piece")
        if not self.count:
            self.done()


def test_spare_work_waits_for_everything_else_and_then_is_done_piece_by_piece(bench: Bench) -> None:
    def readable() -> None:
        bench.near.recv(1)
        bench.act("read")

    bench.loop.afterwards = lambda: None
    bench.loop.add_reader(bench.near.fileno(), readable)
    bench.far.send(b"xy")
    bench.loop.call_at(0.0, lambda: bench.act("timer"))
    bench.loop.spare = Pieces(bench, 3, lambda: bench.loop.call_at(0.0, bench.stop))
    bench.loop.run()
    assert bench.acts == ["timer", "read", "read", "piece", "piece", "piece", "stop"]


def test_with_no_spare_work_left_it_waits(bench: Bench) -> None:
    waits: list[float] = []

    def wait(fd: int, seconds: float) -> bool:
        waits.append(seconds)
        if seconds:
            bench.loop.stop()
        return False

    bench.loop.waiting, bench.loop.spare = wait, Pieces(bench, 2)
    bench.loop.call_at(bench.loop.now() + 60, bench.stop)
    bench.loop.run()
    assert waits[:2] == [0.0, 0.0] and waits[2] > 1


@pytest.mark.parametrize("now", [0.0, 0.25, 5.0, 41234.999999999, 41235.0, 41235.0000004, 999999.7])
def test_all_that_comes_every_few_seconds_comes_together(now: float) -> None:
    every_second, every_five, every_quarter = (next_multiple(seconds, now) for seconds in (1.0, 5.0, 0.25))
    assert now < every_second <= now + 1.000001
    assert now < every_five <= now + 5.000005
    assert every_five % 1.0 == 0.0 and every_second % 0.25 == 0.0 and every_quarter <= every_second


def test_a_timer_that_comes_again_and_again_does(bench: Bench) -> None:
    def act() -> None:
        bench.act("again")
        if bench.acts.count("again") == 3:
            bench.stop()

    bench.loop.call_every(0.001, act)
    bench.loop.run()
    assert bench.acts.count("again") == 3
