"""The daemon's part: an exporter process that is looked after, and where it listens."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import PATIENCE
from mcencrypt.daemon.loop import Loop
from mcencrypt.errors import OperatorError
from mcencrypt.metrics import exporter, supervisor
from mcencrypt.store.config import load
from mcencrypt.store.values import Listen
from tests.helpers.exported import get
from tests.helpers.loopback import free_port, own_address
from tests.helpers.standins import FakeLoop


@contextlib.contextmanager
def supervised(snapshot: Callable[[], dict[str, Any]]) -> Iterator[tuple[supervisor.Metrics, Listen]]:
    """A real exporter process, looked after by a loop in a thread."""
    address = Listen(own_address(), free_port())
    metrics = supervisor.Metrics(supervisor.listen(address), snapshot, "text")
    loop = Loop()
    metrics.start(loop)
    loop.call_every(0.02, lambda: None)  # so that `stop` is seen
    thread = threading.Thread(target=loop.run, daemon=True)
    thread.start()
    try:
        yield metrics, address
    finally:
        loop.stop()
        thread.join(PATIENCE)
        metrics.close()


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def pid_of(metrics: supervisor.Metrics) -> int:
    assert metrics._process is not None
    return metrics._process.pid


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.subprocesses
def test_the_exporter_answers_and_has_no_rights(snapshot: dict[str, Any]) -> None:
    with supervised(lambda: snapshot) as (metrics, address):
        assert get(address)[0] == 200
        status = status_of(pid_of(metrics))
        assert {status[name] for name in ("CapEff", "CapPrm", "CapInh")} == {"0" * 16}
        assert status["NoNewPrivs"] == "1"
        if os.geteuid() == 0:
            assert set(status["Uid"].split()) == {str(exporter.NOBODY)} and not status["Groups"]
        assert os.sched_getscheduler(pid_of(metrics)) == os.SCHED_OTHER


@pytest.mark.subprocesses
def test_an_exporter_that_dies_is_replaced_on_the_same_port(
    snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.05)
    with supervised(lambda: snapshot) as (metrics, address):
        assert get(address)[0] == 200
        first = pid_of(metrics)
        os.kill(first, signal.SIGKILL)
        until(lambda: pid_of(metrics) != first)
        assert get(address)[0] == 200
    assert [record.getMessage() for record in caplog.records] == ["the metrics exporter ended and is started again"]
    assert not Path(f"/proc/{first}").exists(), "it was waited for"


@pytest.mark.subprocesses
def test_it_ends_with_its_daemon(snapshot: dict[str, Any]) -> None:
    with supervised(lambda: snapshot) as (metrics, address):
        assert get(address)[0] == 200
        pid = pid_of(metrics)
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(ConnectionRefusedError):
        get(address)


class Alone:
    """The daemon's part without exporters: its loop, when it gave answers, and the other ends of the channels."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loop = FakeLoop()
        self.answered: list[float] = []
        self.channels: list[socket.socket] = []
        self.waited_for = 0
        pair = socket.socketpair

        def channel(*words: Any) -> tuple[socket.socket, socket.socket]:
            ours, theirs = pair(*words)
            self.channels.append(theirs.dup())
            return ours, theirs

        def wait(timeout: float | None = None) -> int:
            self.waited_for += 1
            return -9

        monkeypatch.setattr(supervisor.socket, "socketpair", channel)
        process = SimpleNamespace(pid=1 << 30, wait=wait)  # no process has this number
        monkeypatch.setattr(supervisor.subprocess, "Popen", lambda *words, **options: process)
        listener = supervisor.listen(Listen(own_address(), free_port()))
        self.metrics = supervisor.Metrics(listener, self.snapshot, "text")
        self.metrics.start(self.loop)

    def snapshot(self) -> dict[str, Any]:
        self.answered.append(self.loop.now())
        return {}

    def run(self, seconds: float, step: float = 0.01) -> None:
        """Let time pass; whatever is readable is read each `step`."""
        for _ in range(round(seconds / step)):
            for fd in list(self.loop.readers):
                self.loop.readable(fd)
            self.loop.run(step)

    def close(self) -> None:
        self.metrics.close()
        for channel in self.channels:
            channel.close()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Alone]:
    made = Alone(monkeypatch)
    yield made
    made.close()


def test_an_exporter_that_asks_without_end_is_heard_ten_times_a_second(alone: Alone) -> None:
    for number in range(50):
        alone.channels[0].send(str(number).encode())
    alone.run(1.0)
    gaps = [later - earlier for earlier, later in itertools.pairwise(alone.answered)]
    assert len(alone.answered) == 10 and min(gaps) >= supervisor.REST


def test_an_exporter_that_always_ends_is_started_ever_more_seldom(alone: Alone) -> None:
    begun = [alone.loop.now()]
    for _ in range(3600):
        alone.channels[-1].shutdown(socket.SHUT_RDWR)
        alone.run(0.1, 0.1)
        if len(alone.channels) > len(begun):
            begun.append(alone.loop.now())
    pauses = [round(later - earlier) for earlier, later in itertools.pairwise(begun)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert alone.waited_for >= len(pauses), "none is left a zombie"


def test_a_port_in_use_a_strange_address_and_a_p2p_port_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(address: Listen) -> str:
        with pytest.raises(OperatorError) as caught:
            supervisor.listen(address)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    with socket.create_server(("127.0.0.1", 0)) as other:
        used = Listen("127.0.0.1", other.getsockname()[1])
        assert refusal(used).startswith(f"metrics_listen: {used}: another program listens there")
    assert "no address of this host" in refusal(Listen("192.0.2.1", 9464))
    with pytest.raises(OperatorError, match="7331 is a P2P port"):
        load(None, {"MCENCRYPT_METRICS_LISTEN": "[::1]:7331", "MCENCRYPT_PORTS": "8571,7331"}).p2p_ports()
    monkeypatch.setattr(supervisor.importlib.util, "find_spec", lambda name: None)
    assert "prometheus-client is missing" in refusal(Listen("127.0.0.1", 9464))
