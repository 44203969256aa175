"""What the running daemon says of itself."""

from __future__ import annotations

from typing import Any

import pytest

from mcencrypt.core.reasons import REASONS
from mcencrypt.doctor.finding import Severity
from mcencrypt.doctor.kernel import check_kernel, check_process
from mcencrypt.doctor.running import _REASONS, check_daemon, check_refusals
from tests.helpers import replies
from tests.helpers.recorded_machine import PROC_STATUS, Recorded, by_id, case, status, worst

CHANGED = {
    "address": "192.0.2.7:7331", "key": replies.OURS, "name": None, "since": "2026-03-01T10:00:00Z",
    "last": "2026-03-09T10:00:00Z", "other_key": replies.THEIRS, "other_name": None,
    "other_at": "2026-03-09T10:00:00Z", "pinned": False,
}  # fmt: skip


def test_a_healthy_daemon(machine: Recorded) -> None:
    examined = case(machine, status())
    found = [*check_daemon(examined), *check_refusals(examined), *check_process(examined), *check_kernel(examined)]
    assert worst(found) is Severity.OK
    assert "55 MB" in by_id(found, "process.memory").text


def test_no_daemon(machine: Recorded) -> None:
    assert by_id(list(check_daemon(case(machine, None))), "daemon.none").severity is Severity.NOTE
    machine.user = 1000
    machine.files["/proc/1/status"] = PROC_STATUS.replace("000001ffffffffff", "0000000000000000")
    found = [*check_process(case(machine, None)), *check_kernel(case(machine, None))]
    assert by_id(found, "process.not-root").severity is Severity.NOTE
    assert by_id(found, "kernel.unseen").severity is Severity.NOTE
    machine.user = 0
    found = list(check_process(case(machine, None)))
    assert by_id(found, "process.capabilities").severity is Severity.PROBLEM


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"version": "0.0.1"}, "daemon.version"),
        ({"rules_lost": 3}, "daemon.rules-lost"),
        ({"changed_keys": [CHANGED]}, "daemon.key-changed"),
        ({"queue": replies.queue(bad_verdicts=2)}, "daemon.errors"),
        (
            {"connections": [replies.connection(peer=f"192.0.2.{n}:7331", state="plaintext") for n in range(30)]},
            "daemon.plaintext",
        ),
        ({"refused": {"wrong-key": 4}}, "refused.wrong-key"),
        ({"refused": {"not-a-handshake": 4}}, "refused.not-a-handshake"),
        ({"totals": {**replies.status()["totals"], "auth_failures": 9}}, "refused.tampered"),
    ],
)
def test_what_a_daemon_counts(machine: Recorded, changes: dict[str, Any], name: str) -> None:
    examined = case(machine, status(**changes))
    found = by_id([*check_daemon(examined), *check_refusals(examined)], name)
    assert found.severity is Severity.WARNING and found.advice
    if name == "daemon.plaintext":
        assert "192.0.2.9:7331 and 20 more" in found.text


def test_dials_of_our_own_address_are_a_note_and_what_is_left_of_them_a_warning(machine: Recorded) -> None:
    own = [{"address": "203.0.113.7:7447", "dials": 56, "last": 2.0}]
    for refused, warned in ((56, False), (57, True)):
        found = list(check_refusals(case(machine, status(refused={"own-key": refused}, own_addresses=own))))
        shown = by_id(found, "daemon.own-address")
        assert shown.severity is Severity.NOTE and "56 times, at 203.0.113.7:7447" in shown.text
        assert any(one.id == "refused.own-key" for one in found) is warned


def test_every_reason_that_is_explained_exists() -> None:
    assert set(_REASONS) <= set(REASONS)


@pytest.mark.parametrize(
    ("age", "severity", "said"),
    [
        (12.0, Severity.WARNING, "once since its start a peer uses another network key (wrong-key); last 12 s ago"),
        (1000.0, Severity.WARNING, "last 17 min ago"),
        (5000.0, Severity.NOTE, "last 83 min ago"),
        (400000.0, Severity.NOTE, "last 5 days ago"),
    ],
)
def test_a_counter_says_when_it_last_grew(machine: Recorded, age: float, severity: Severity, said: str) -> None:
    running = status(refused={"wrong-key": 1}, grew={"refused.wrong-key": age})
    found = by_id(list(check_refusals(case(machine, running))), "refused.wrong-key")
    assert found.severity is severity and said in found.text
    running = status(rules_lost=3, grew={"rules_lost": age})
    assert by_id(list(check_daemon(case(machine, running))), "daemon.rules-lost").severity is severity
