"""``mcencrypt verify``: what it says, and its exit status."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from scapy.packet import Packet

from mcencrypt.cli import cli
from mcencrypt.cli import verify as command
from mcencrypt.control.replies import Status
from mcencrypt.reading.capture import Segment
from mcencrypt.reading.judge import Outcome
from tests.helpers import replies
from tests.helpers.captures import (
    PORT,
    Tcp,
    began_before,
    hello,
    judge,
    plain_connection,
    segments,
    with_a_hole,
)

GROWN = {"records_in": 15, "records_out": 0, "auth_failures": 0}


@pytest.mark.parametrize(
    ("outcome", "passed", "lines"),
    [
        (lambda: judge([*Tcp().exchange().packets, *plain_connection()]), False,
         ["10.7.0.1:40001 - 10.7.0.2:7331  PLAINTEXT", "NOT ENCRYPTED: 1 connection of 2"]),
        (lambda: judge(began_before(50)), True, ["began before"]),
        (lambda: judge(with_a_hole(), dropped=1), False, ["1 packet passed too fast", "as far as it was captured"]),
        (lambda: judge([*Tcp().exchange().packets, *plain_connection()], allowed=("10.7.0.0/24", "fd00::/8")), True,
         ["as allow_plaintext permits"]),
        (lambda: judge(Tcp().connect().packets), False, ["verdict: nothing seen: .*nothing is proven"]),
        (lambda: judge(Tcp().exchange().packets, own=()), True, ["passes this host"]),
        (lambda: judge(Tcp().exchange().packets), True, ["authenticity: not known"]),
        (lambda: replace(judge(Tcp().exchange().packets), authentic=GROWN), True, ["opened 15, and refused 0"]),
    ],
)  # fmt: skip
def test_what_is_said(outcome: Callable[[], Outcome], passed: bool, lines: list[str]) -> None:
    said = command.describe(outcome(), passed)
    for line in lines:
        assert any(re.search(line, one) for one in said), said
    assert said[-1].startswith("verdict: ")


def test_the_daemons_counters_grow_as_long_as_it_is_the_same_daemon() -> None:
    def answer(pid: int, opened: int) -> Status:
        return replies.status(pid=pid, totals={**replies.status()["totals"], "records_in": opened, "records_out": 5})

    assert command.growth(answer(1, 10), answer(1, 25)) == GROWN
    assert command.growth(answer(1, 10), answer(2, 25)) is None and command.growth(None, answer(1, 1)) is None


class Recording:
    """In the place of a tap: gives its segments once."""

    def __init__(self, packets: list[Packet]) -> None:
        self.segments = segments(packets)
        self.packets, self.dropped, self.oddities = len(packets), 0, Counter[str]()

    def fileno(self) -> int:
        return self.reader.fileno()

    def read(self) -> list[Segment]:
        taken, self.segments = self.segments, []
        return taken

    def stop(self) -> None:
        pass

    def rest(self) -> list[Segment]:
        return self.read()

    def close(self) -> None:
        self.reader.close()

    reader: Any = None


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, packets: list[Packet], *words: str) -> Any:
    def tap(ports: Any) -> Recording:
        made = Recording(packets)
        made.reader, other = socket.socketpair()
        other.close()
        return made

    config = tmp_path / "config.toml"
    config.write_text(f'ports = [{PORT}]\nrun_dir = "{tmp_path}/run"\n')
    monkeypatch.setattr("mcencrypt.reading.tap.Tap", tap)
    return CliRunner().invoke(cli, ["verify", "--config", str(config), "--seconds", "0.1", *words])


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    result = run(monkeypatch, tmp_path, Tcp().exchange().packets)
    assert result.exit_code == 0, result.output
    assert "verdict: encrypted: every byte was handshake or record" in result.stdout
    assert "authenticity: not known, no daemon answers" in result.stdout
    result = run(monkeypatch, tmp_path, plain_connection(), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["verdict"] == "plaintext" and not report["passed"] and report["counts"] == {"plaintext": 1}
    assert report["connections"][0]["kind"] == "plaintext" and report["daemon"] is None
    assert run(monkeypatch, tmp_path, [hello_only()]).exit_code == 1


def hello_only() -> Packet:
    return Tcp().send(0, hello(1), "S")


def test_errors(tmp_path: Any) -> None:
    runner = CliRunner()
    result = runner.invoke(cli, ["verify", "--seconds", "0"])
    assert result.exit_code == 2 and "--seconds" in result.stderr
    result = runner.invoke(cli, ["verify", "--config", str(tmp_path / "none"), "--seconds", "0.1"])
    assert result.exit_code == 1 and result.stderr.startswith("mcencrypt: ") and "not found" in result.stderr
    assert "Example:\n    mcencrypt verify" in runner.invoke(cli, ["verify", "--help"]).stdout
