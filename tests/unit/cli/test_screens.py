"""What people see fits the terminal: 80, 100 and 140 columns."""

from __future__ import annotations

import os
from typing import Any

import pytest
from rich.console import Console

from mcencrypt.cli import doctor, peers, status, text
from mcencrypt.cli.top_screen import Sample, frame
from mcencrypt.control.replies import Peers, Status
from mcencrypt.doctor.checks import examine
from tests.helpers import replies
from tests.helpers.commands import run
from tests.helpers.recorded_machine import Recorded, case
from tests.helpers.recorded_machine import status as healthy

WIDTHS = (80, 100, 140)
SIX = "[2001:db8:85a3:1234:8a2e:370:7334:9999]:7331"
IDENTITY = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


def busy() -> Status:
    """A status in which everything is long."""
    numbers: dict[str, Any] = {"bytes_out": 999_900_000, "bytes_in": 999_900_000, "records_out": 10**7, "age": 90000.0,
                               "carrier": "stream"}  # fmt: skip
    return replies.status(
        ports=[7331, 8571, *range(20000, 20030)],
        netns="docker:trubudget-alpha-node",
        connections=[
            replies.connection(peer="255.255.255.255:65535", local="10.0.0.1:40000", **numbers),
            replies.connection(peer=SIX, local="10.0.0.1:7331", identity=IDENTITY, **numbers),
            replies.connection(peer="10.0.0.2:1", name="organisation-of-" + "many-words-" * 4, **numbers),
            replies.connection(peer="10.0.0.3:1", state="unconfirmed", identity=None, **numbers),
        ],
        plaintext_peers=[{"peer": SIX, "local": SIX, "allowed": True}] * 4,
        refused={"not-a-handshake": 10**6, "wrong-key": 10**6, "too-many-connections": 10**6, "clock-skew": 10**6},
        queue=replies.queue(dropped_kernel=10**6, dropped_user=10**6, enobufs=10**6),
        gate=replies.gate(fence="standing"),
        uncovered=[
            {"doing": "listens", "port": 7447, "peer": None, "owner": "multichaind chain1 (pid 50000)", "sure": True},
            {"doing": "connected", "port": 30447, "peer": SIX, "owner": None, "sure": False},
        ],
    )


def fit(lines: list[str], width: int) -> None:
    # what is one word is not broken: it is there to be copied
    wide = [line for line in lines if len(line) > width and len(line.split()) > 1]
    assert not wide, "\n".join(wide)


@pytest.mark.parametrize("width", WIDTHS)
def test_status(width: int) -> None:
    lines = status.describe(busy(), width)
    fit(lines, width)
    head = next(line for line in lines if line.startswith("PEER"))
    assert "SENT" in head and "RECEIVED" in head and "STATE" in head
    whole = "\n".join(lines)
    assert IDENTITY[:12] in whole and IDENTITY not in whole
    assert ("FORGED" in head) == (width >= 140)


@pytest.mark.parametrize("width", WIDTHS)
def test_top(width: int) -> None:
    console = Console(width=width, highlight=False, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file, console.capture() as captured:
        console.print(frame(None, Sample(1.0, busy()), 24, width))
    lines = [line.rstrip() for line in captured.get().splitlines()]
    fit(lines, width)
    assert len(lines) <= 24
    whole = "\n".join(lines)
    assert "OUT/s" in whole and "unconfirmed" in whole and IDENTITY[:12] in whole, "nothing of that is cut"
    assert "999.9 MB" in whole or width < 120


@pytest.mark.parametrize("width", WIDTHS)
def test_peers(width: int) -> None:
    connection: Any = {"peer": SIX, "local": SIX, "state": "encrypted", "carrier": "stream",
                       "since": 1.0, "bytes_out": 1, "bytes_in": 2}  # fmt: skip
    shown: Peers = {
        "trust": "listed",
        "file": "/var/lib/mcencrypt/netns/docker:trubudget-alpha-node/peers.toml",
        "peers": [
            {"name": "organisation-of-" + "words-" * 8, "key": IDENTITY, "connections": [connection]},
            {"name": "absent", "key": IDENTITY, "connections": []},
        ],
        "answered": [
            {"address": SIX, "key": IDENTITY, "name": None, "since": "2026-03-01T10:00:00Z",
             "last": "2026-03-09T10:00:00Z", "other_key": IDENTITY, "other_name": None,
             "other_at": "2026-03-09T10:00:00Z", "pinned": True},
        ],
    }  # fmt: skip
    lines = peers.describe(shown, width)
    fit(lines, width)
    assert any("not connected" in line for line in lines)
    assert any("CHANGED" in line and "refused" in line for line in lines)


@pytest.mark.parametrize("width", WIDTHS)
def test_doctor(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    machine = Recorded()
    machine.files["/proc/sys/net/ipv4/ip_local_port_range"] = "1024 65535"
    running = healthy(**{name: busy()[name] for name in ("refused", "uncovered")})  # type: ignore[literal-required]
    lines = doctor.describe(list(examine(case(machine, running))))
    fit(lines, width)
    assert any("not-a-handshake" in line for line in lines)


@pytest.mark.parametrize("columns", ["abc", "0", "-1", "²", "", "9" * 5])
def test_columns_that_are_no_number_are_nothing(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert text.columns() in (None, 99999)
    assert doctor.describe(list(examine(case(Recorded(), healthy()))))
    assert run("--help").exit_code == 0


def test_an_address_keeps_its_port_when_it_is_cut() -> None:
    assert text.shorten(SIX, 20) == "[2001:db8:85a3…:7331" and len(text.shorten(SIX, 20)) == 20
    assert text.shorten("organisation", 6) == "organ…" and text.shorten("short", 6) == "short"
