"""Events as lines of the log: a line for each kind, and no more of them than a stranger may cause."""

from __future__ import annotations

import logging

import pytest

from mcencrypt.core.status import Counters
from mcencrypt.core.verdict import (
    FROM_BEFORE,
    Closed,
    Encrypted,
    Ended,
    Event,
    InPlaintext,
    KeyChanged,
    Rejected,
    Tampered,
)
from mcencrypt.daemon.events import BURST, BURST_OF_PEER, LATELY, LINES_PER_SECOND, REMEMBERED, Reporter
from mcencrypt.daemon.names import identity as shown
from tests.helpers.sides import A6, B6, A, B, identity, key_of

KEY, KEY6 = key_of(A, B), key_of(A6, B6)
ONE = identity(1)
CARRIED = Counters(1, 2, 3, 4, 5, 6)
_TWO = {"identity": shown(identity(2))}
_STREAMED = {**_TWO, "carrier": "stream"}
ENDS = {"peer": "10.0.0.2:7331", "local": "10.0.0.1:40000"}


@pytest.fixture
def reporter() -> Reporter:
    return Reporter({ONE: "org-a"}.get)


@pytest.mark.parametrize(
    ("event", "level", "text", "details"),
    [
        (Encrypted(KEY, ONE), logging.INFO, "connection encrypted", {"name": "org-a", "identity": shown(ONE)}),
        (Encrypted(KEY, identity(2), streamed=True), logging.INFO, "connection encrypted", _STREAMED),
        (Encrypted(KEY, identity(2)), logging.INFO, "connection encrypted", _TWO),
        (InPlaintext(KEY), logging.WARNING, "connection in plaintext", {}),
        (
            Closed(KEY, ONE, CARRIED),
            logging.INFO,
            "connection closed",
            {"name": "org-a", "bytes_out": 1, "bytes_in": 2, "records_out": 3, "records_in": 4, "retransmissions": 5,
             "auth_failures": 6},
        ),
        (Closed(KEY, b"", Counters()), logging.INFO, "connection closed", {"bytes_out": 0}),
        (
            Rejected(KEY, "wrong-key", "it uses another"),
            logging.WARNING,
            "connection refused",
            {"reason": "wrong-key", "detail": "it uses another"},
        ),
        (Tampered(KEY, ONE), logging.WARNING, "packet not authentic", {"name": "org-a"}),
        (
            KeyChanged(KEY, bytes(32), identity(2)),
            logging.WARNING,
            "another key answers at this address",
            {"identity": shown(identity(2)), "before": "A" * 43 + "="},
        ),
        (Ended(KEY, "its port is not ours"), logging.INFO, "local socket reset", {"detail": "its port is not ours"}),
    ],
)  # fmt: skip
def test_each_kind_has_its_line(
    reporter: Reporter,
    caplog: pytest.LogCaptureFixture,
    event: Event,
    level: int,
    text: str,
    details: dict[str, object],
) -> None:
    caplog.set_level(logging.DEBUG)
    reporter.handle(event, 0.0)
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (level, text)
    given = record.__dict__["fields"]
    assert given.items() >= (ENDS | details).items()
    if "name" not in details:
        assert given.get("name") is None


def test_addresses_of_version_6_stand_in_brackets(reporter: Reporter, caplog: pytest.LogCaptureFixture) -> None:
    reporter.handle(InPlaintext(KEY6), 0.0)
    assert caplog.records[0].__dict__["fields"] == {"peer": "[fd00::2]:7331", "local": "[fd00::1]:40000"}


def test_one_kind_does_not_take_the_place_of_another(reporter: Reporter, caplog: pytest.LogCaptureFixture) -> None:
    for peer in range(3 * BURST):
        key = key_of(A, (peer.to_bytes(4, "big"), 7331))
        reporter.handle(Rejected(key, "not-a-handshake", "it carries none"), 0.0)
    assert len(caplog.records) == BURST
    reporter.handle(Rejected(KEY, "wrong-key", "it uses another"), 0.0)
    reporter.handle(Tampered(KEY, b""), 0.0)
    assert len(caplog.records) == BURST + 2
    reporter.handle(Rejected(KEY, "not-a-handshake", "it carries none"), 1 / LINES_PER_SECOND)
    assert caplog.records[-1].__dict__["fields"]["not_shown"] == 2 * BURST


def test_what_ends_after_its_dial_was_refused_is_not_from_before(
    reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def why(event: Ended, now: float) -> object:
        caplog.clear()
        reporter.handle(event, now)
        return caplog.records[-1].__dict__["fields"]["detail"]

    assert why(Ended(KEY, FROM_BEFORE), 0.0) == FROM_BEFORE
    reporter.handle(Rejected(KEY, "not-a-handshake", "is it running?"), 10.0)
    assert why(Ended(KEY, FROM_BEFORE), 11.0) == "its handshake was refused"
    assert why(Ended(KEY6, FROM_BEFORE), 11.0) == FROM_BEFORE
    assert why(Ended(KEY, "its port is not ours"), 11.0) == "its port is not ours"
    assert why(Ended(KEY, FROM_BEFORE), 10.0 + LATELY) == FROM_BEFORE
    for port in range(2 * REMEMBERED):
        reporter.handle(Rejected(KEY[:-2] + port.to_bytes(2), "not-a-handshake", ""), 500.0)
    assert len(reporter._refused) == REMEMBERED


def test_refusals_of_one_address_are_few_lines_and_the_next_one_counts_the_rest(
    reporter: Reporter, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(100):
        reporter.handle(Rejected(key_of((A[0], 1000 + second), B), "not-a-handshake", "?"), float(second))
    assert len(caplog.records) == BURST_OF_PEER
    reporter.handle(Rejected(key_of(A, (bytes((10, 0, 0, 3)), 1)), "not-a-handshake", "?"), 100.0)
    assert len(caplog.records) == BURST_OF_PEER + 1, "another address has lines of its own"
    caplog.clear()
    reporter.handle(Rejected(KEY, "not-a-handshake", "?"), 700.0)
    [record] = caplog.records
    assert record.fields["not_shown"] == 100 - BURST_OF_PEER  # type: ignore[attr-defined]


def test_addresses_whose_lines_are_counted_are_bounded(reporter: Reporter) -> None:
    for number in range(REMEMBERED + 50):
        peer = (number.to_bytes(4, "big"), 7331)
        reporter.handle(Rejected(key_of(A, peer), "not-a-handshake", "?"), 0.0)
    assert len(reporter._of_peer) == REMEMBERED
