"""``mcencrypt status``: for people, for programs, and for health checks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from tests.helpers.commands import fails, run, status_result
from tests.helpers.served import serving


def test_status_as_json_is_the_result(tmp_path: Path) -> None:
    with serving(tmp_path / "run", lambda command, args: status_result()):
        result = run("status", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout) == status_result()


def test_status_for_people_shows_every_number(tmp_path: Path) -> None:
    with serving(tmp_path / "run", lambda command, args: status_result()):
        result = run("status")
    lines = result.stdout.splitlines()
    assert lines[0] == "mcencrypt is on (require); daemon 0.1.0, pid 4242, up 1m01s"
    assert "7331, 8571" in result.stdout and "1a2b3c4d5e6f7081" in result.stdout
    head = next(line for line in lines if line.startswith("PEER"))
    rows = [line for line in lines if line.startswith("10.0.")]
    assert len(rows) == 400
    assert {row.index("encrypted") for row in rows} == {head.index("STATE")}
    assert rows[1].split() == [
        "10.0.0.1:7331", "10.0.9.9:40000", "encrypted", "3h33m", "2.3", "MB", "1.0", "kB", "1800/1", "3", "0",
        "A" * 43 + "=",
    ]  # fmt: skip
    assert rows[0].endswith("-") and rows[3].endswith("  org-c")
    assert "refused      not-a-handshake 7, replayed 2" in lines
    assert "plaintext    1 connection: 10.9.9.9:7331 (allow_plaintext)" in lines
    assert "5 by the kernel" in lines[-1] and "1 overruns" in lines[-1]


def test_check_is_one_line_and_fails_unless_the_rules_are_known_to_be_there() -> None:
    from mcencrypt.cli.status import RULES_STALE, healthy

    assert healthy(status_result()) == "mcencrypt is on (require); daemon 0.1.0, pid 4242, up 1m01s"
    assert healthy(status_result(enabled=False, rules_seen=None)).startswith("mcencrypt is off;")
    with pytest.raises(OperatorError, match="not in place"):
        healthy(status_result(rules_seen=None))
    with pytest.raises(OperatorError, match="last seen 42s ago"):
        healthy(status_result(rules_seen=42.0))
    assert healthy(status_result(rules_seen=RULES_STALE))
    fails(run("status", "--check", "--json"), 2, "--json and --check")


def test_status_without_connections_and_off() -> None:
    from mcencrypt.cli.status import describe

    idle = describe(status_result(enabled=False, connections=[], refused={}))
    assert idle[0].startswith("mcencrypt is off;") and "no connections" in idle and "refused      nothing" in idle
    assert "until they close" in describe(status_result(enabled=False, draining=True))[0]
