"""Metrics: their numbers, their form, and an exporter that nobody can use against the daemon."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mcencrypt.core.reasons import REASONS
from mcencrypt.daemon.loop import Loop
from mcencrypt.daemon.snapshot import counters, process, totals
from mcencrypt.errors import OperatorError
from mcencrypt.metrics import exporter, supervisor
from mcencrypt.store.config import Listen, load
from tests.helpers.packets import ACK, SYN
from tests.helpers.sides import ISN_A, ISN_B, OTHER, A, B, Side, connect, connected, from_a, make, say
from tests.helpers.station import snapshot_of

DEADLINE = 30.0


@pytest.fixture
def snapshot() -> dict[str, Any]:
    a, b = connected()
    say(a, b, b"hello")
    b.ingress(make(OTHER, B, 1, 0, SYN, b"garbage"))
    return snapshot_of(b.engine)


def values(text: str, parse: Callable[[str], Any] = parse_text) -> dict[str, float]:
    """Samples by name and label values, as `name{value}`."""
    found = {}
    for family in parse(text):
        for sample in family.samples:
            labels = "{" + ",".join(sample.labels.values()) + "}" if sample.labels else ""
            found[sample.name + labels] = sample.value
    return found


# -- numbers


def test_the_summary_is_the_sum_of_the_status() -> None:
    a, b = connected()
    say(a, b, b"hello")
    b.gets(from_a(a, b"hello"))  # the same record a second time
    for side in (a, b):
        summed = totals(side.engine, side.engine.connections(0))
        summary = side.engine.summary()
        assert summed == {"connections": summary.encrypted, **counters(summary.carried)} and summary.encrypted == 1
        assert summary.states == {
            "handshake": 0, "unconfirmed": 0, "encrypted": 1, "closing": 0, "plaintext": 0
        } and summary.peers == 1  # fmt: skip
    assert b.engine.summary().carried.bytes_in == 5, "each byte counts once"
    assert a.engine.summary().carried.retransmissions == 1


def test_counters_keep_what_is_gone() -> None:
    a, b = connected()
    say(a, b, b"hello")
    before = b.engine.summary()
    b.table.forget(b.table.encrypted_keys()[0])
    after = b.engine.summary()
    assert (after.encrypted, after.carried) == (before.encrypted, before.carried) == (1, before.carried)
    assert after.states["encrypted"] == after.peers == 0
    connect(a, b, ISN_A + 10**6, ISN_B + 10**6)
    assert b.engine.summary().encrypted == 2


def test_plaintext_is_counted_and_stays_counted() -> None:
    b = Side(mode="prefer")
    b.ingress(make(A, B, ISN_A, 0, SYN))
    b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, ACK, b"plain"))
    summary = b.engine.summary()
    assert (summary.plaintext, summary.states["plaintext"], summary.plaintext_carried.bytes_in) == (1, 1, 5)
    [key] = b.table.plaintext_keys()
    b.table.leave_alone(key)
    summary = b.engine.summary()
    assert (summary.plaintext, summary.states["plaintext"], summary.plaintext_carried.bytes_in) == (1, 0, 5)
    assert summary.encrypted == summary.carried.bytes_in == 0


def test_process_numbers_are_this_process() -> None:
    with open(os.devnull):
        more = process()
    less = process()
    assert more["open_fds"] == less["open_fds"] + 1 < less["max_fds"]
    assert 1 << 20 < less["resident"] <= less["virtual"] and less["cpu"] > 0


# -- form


def text_of(snapshot: dict[str, Any], accept: str = "") -> tuple[str, str]:
    with served(snapshot) as address:
        status, content_type, body = get(address, headers={"Accept": accept})
    assert status == 200
    return body, content_type


def test_both_formats_say_the_same(snapshot: dict[str, Any]) -> None:
    plain, plain_type = text_of(snapshot)
    modern, modern_type = text_of(snapshot, exporter.OPENMETRICS)
    assert plain_type.startswith("text/plain; version=0.0.4") and modern_type.startswith(exporter.OPENMETRICS)
    assert values(plain) == values(modern, parse_openmetrics)
    found = values(plain)
    assert found["mcencrypt_bytes_total{in}"] == 5 and found["mcencrypt_connections{encrypted}"] == 1
    assert found["mcencrypt_refused_total{not-a-handshake}"] == 1 and found["mcencrypt_rules_lost_total"] == 2
    assert found["mcencrypt_mode{require}"] == 1 and found["mcencrypt_mode{prefer}"] == 0
    assert found['mcencrypt_build_info{1.0"\\}'] == 1 and found["process_start_time_seconds"] == 1.7e9
    assert found["mcencrypt_queue_dropped_packets_total{queue}"] == 1


def test_names_units_and_labels_follow_the_rules(snapshot: dict[str, Any]) -> None:
    body, _ = text_of(snapshot)
    for family in parse_text(body):
        assert re.fullmatch(r"(mcencrypt|process)_[a-z_]+", family.name) and family.documentation, family.name
        assert not re.search(r"_(milli|micro|kilo|ms|us|kb|mb)", family.name)
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name


def test_the_number_of_series_does_not_depend_on_what_happens(snapshot: dict[str, Any]) -> None:
    idle = set(values(text_of(snapshot_of(Side().engine))[0]))
    busy = set(values(text_of(snapshot)[0]))
    assert {name for name in idle ^ busy if not name.startswith("mcencrypt_node_info")} == set()
    assert {f"mcencrypt_refused_total{{{reason}}}" for reason in REASONS} <= idle
    assert "10.0.0.1" not in str(snapshot), "no peer's address leaves the daemon"


# -- HTTP


class Daemon:
    """The daemon's end of the channel, in a thread: answers unless it is told not to."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.snapshot, self.answers, self.asked = snapshot, True, 0
        self.channel, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while number := self.channel.recv(64):
            self.asked += 1
            if self.answers:
                self.channel.send(json.dumps({"id": number.decode(), "snapshot": self.snapshot}).encode())


@contextlib.contextmanager
def exported(snapshot: dict[str, Any]) -> Iterator[tuple[Daemon, tuple[str, int]]]:
    daemon = Daemon(snapshot)
    source = exporter.Source(daemon.theirs)
    listener = supervisor.listen(Listen("127.0.0.1", free_port()))
    server = exporter.Server(listener, source.snapshot)
    threads = [threading.Thread(target=target, daemon=True) for target in (source.receive, server.serve_forever)]
    for thread in threads:
        thread.start()
    yield daemon, listener.getsockname()
    server.shutdown()
    server.server_close()
    daemon.theirs.shutdown(socket.SHUT_RDWR)
    for thread in (*threads, daemon.thread):
        thread.join(DEADLINE)
        assert not thread.is_alive()


@contextlib.contextmanager
def served(snapshot: dict[str, Any]) -> Iterator[tuple[str, int]]:
    with exported(snapshot) as (_, address):
        yield address


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def get(
    address: tuple[str, int], path: str = "/metrics", method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection(*address, timeout=DEADLINE)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type") or "", response.read().decode()


def test_what_is_asked_for_decides_the_answer(snapshot: dict[str, Any]) -> None:
    with served(snapshot) as address:
        assert get(address, "/metrics?x=1")[0] == 200
        assert get(address, "/")[0] == 200 and "/metrics" in get(address, "/")[2]
        assert get(address, "/status")[0] == 404
        assert get(address, method="HEAD") == (200, get(address)[1], "")
        assert get(address, method="POST")[0] == 501


def test_a_scrape_fails_while_the_daemon_does_not_answer(
    snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "DAEMON_TIMEOUT", 0.2)
    monkeypatch.setattr(exporter, "FRESH", 0.0)
    with exported(snapshot) as (daemon, address):
        daemon.answers = False
        status, _, body = get(address)
        assert status == 503 and "did not answer" in body
        daemon.channel.send(json.dumps({"id": "1", "snapshot": {"late": 1}}).encode())
        assert get(address)[0] == 503, "a late answer is not taken for that of the next question"
        daemon.answers = True
        assert get(address)[0] == 200


def test_many_scrapes_are_few_questions(snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "FRESH", DEADLINE)
    with exported(snapshot) as (daemon, address):
        assert {get(address)[0] for _ in range(20)} == {200}
        assert daemon.asked == 1


def test_silent_clients_do_not_keep_others_out(snapshot: dict[str, Any]) -> None:
    with served(snapshot) as address, contextlib.ExitStack() as silent:
        clients = [
            silent.enter_context(socket.create_connection(address, DEADLINE)) for _ in range(2 * exporter.MAX_CLIENTS)
        ]
        begun = time.monotonic()
        assert get(address)[0] == 200
        assert time.monotonic() - begun < exporter.CLIENT_TIMEOUT, "it did not wait for them to time out"
        assert clients[0].recv(1) == b"", "the oldest was closed"


def test_garbage_is_answered_and_logged_nowhere(
    snapshot: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(snapshot) as address:
        for garbage in (b"\0\xff\r\n\r\n", b"GET " + b"x" * 70000, b"GET / HTTP/9.9\r\n\r\n"):
            with socket.create_connection(address, DEADLINE) as client, contextlib.suppress(ConnectionError):
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
        assert get(address)[0] == 200
    assert not caplog.records and capfd.readouterr() == ("", "")


# -- the process


@contextlib.contextmanager
def supervised(snapshot: Callable[[], dict[str, Any]]) -> Iterator[tuple[supervisor.Metrics, Listen]]:
    """A real exporter process, looked after by a loop in a thread."""
    address = Listen("127.0.0.1", free_port())
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
        thread.join(DEADLINE)
        metrics.close()


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + DEADLINE
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


@pytest.mark.subprocesses
def test_an_exporter_that_asks_without_end_is_heard_ten_times_a_second(snapshot: dict[str, Any]) -> None:
    asked = []

    def counted() -> dict[str, Any]:
        asked.append(time.monotonic())
        return snapshot

    metrics = supervisor.Metrics(supervisor.listen(Listen("127.0.0.1", free_port())), counted, "text")
    loop = Loop()
    metrics.start(loop)
    assert metrics._channel is not None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    loop.remove_reader(metrics._channel.fileno())
    metrics._channel = ours  # an exporter that somebody has got hold of
    loop.add_reader(ours.fileno(), metrics._asked)
    for number in range(50):
        theirs.send(str(number).encode())
    loop.call_at(time.monotonic() + 1.0, loop.stop)
    loop.run()
    metrics.close()
    theirs.close()
    assert 2 <= len(asked) <= 11
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert min(gaps) >= supervisor.REST * 0.9


# -- what an operator can get wrong


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("9464", "is not an address and a port"),
        ("localhost:9464", "'localhost' is not an IP address"),
        ("::1:9464", "is not an address and a port"),
        ("[127.0.0.1]:9464", "is not an address and a port"),
        (":9464", "'' is not an IP address"),
        ("127.0.0.1:0", "0 is not a port"),
        ("127.0.0.1:65536", "65536 is not a port"),
    ],
)
def test_a_bad_address_is_named(value: str, part: str) -> None:
    with pytest.raises(OperatorError) as caught:
        load(None, {"MCENCRYPT_METRICS_LISTEN": value})
    assert str(caught.value).startswith("MCENCRYPT_METRICS_LISTEN: ") and part in str(caught.value)


@pytest.mark.parametrize("text", ["127.0.0.1:9464", "[::1]:9464", "0.0.0.0:80"])
def test_an_address_is_taken_as_it_was_written(text: str) -> None:
    assert str(load(None, {"MCENCRYPT_METRICS_LISTEN": f" {text} "}).metrics_listen) == text


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
