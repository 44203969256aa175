"""``mcencrypt status``: for people, for programs, and for health checks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.errors import OperatorError
from tests.helpers.commands import fails, run, status_result
from tests.helpers.replies import gate
from tests.helpers.served import serving


def test_status_as_json_is_the_result(tmp_path: Path) -> None:
    with serving(tmp_path / "run", lambda command, args: status_result()):
        result = run("status", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout) == status_result()


def test_status_for_people_shows_every_number(tmp_path: Path) -> None:
    with serving(tmp_path / "run", lambda command, args: status_result()):
        result = run("status")
    lines = result.stdout.splitlines()
    assert lines[0] == "mcencrypt is on (require); daemon 0.1.0 (compiled), pid 4242, up 1m01s"
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
    assert "5 by the kernel" in lines[-2] and "1 overruns" in lines[-2]
    assert lines[-1] == "rules        in place; the fence is in place"


def test_an_own_address_is_one_line_however_often_it_was_dialled() -> None:
    from mcencrypt.cli.status import describe

    own = [{"address": "203.0.113.7:7447", "dials": 56, "last": 2.0}]
    lines = [line for line in describe(status_result(own_addresses=own)) if "203.0.113.7" in line]
    assert lines == ["own address  203.0.113.7:7447 leads back here (56 dials, last 2s ago); nothing is wrong"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fence": "standing"}, "in place; the fence is in place, and whoever flushes nf_tables removes it"),
        ({"fence": "none", "no_fence": "the kernel has none"}, "in place; only watched: the kernel has none"),
        ({"fence": "broken"}, "in place; the fence is NOT in place"),
        ({"fence": "unseen"}, "in place; whether the fence is in place cannot be seen"),
        ({"rules_in_place": False, "fence": "off"}, "not in place; no fence"),
        ({"trouble": "iptables-save failed"}, "iptables-save failed"),
    ],
)
def test_status_says_what_keeps_packets_in(changes: dict[str, Any], said: str) -> None:
    from mcencrypt.cli.status import describe

    assert describe(status_result(gate=gate(**changes)))[-1] == f"rules        {said}"


def test_check_is_one_line_and_fails_unless_the_rules_are_known_to_be_there() -> None:
    from mcencrypt.cli.status import healthy

    assert healthy(status_result()) == "mcencrypt is on (require); daemon 0.1.0 (compiled), pid 4242, up 1m01s"
    off = gate(rules_in_place=False, fence="off")
    assert healthy(status_result(enabled=False, gate=off)).startswith("mcencrypt is off;")
    assert healthy(status_result(gate=gate(fence="none", no_fence="no nf_tables")))
    assert healthy(status_result(gate=gate(fence="standing")))
    for wrong, said in (
        ({"rules_in_place": False}, "rules are not in place"),
        ({"fence": "broken"}, "the fence is not in place"),
        ({"fence": "unseen"}, "the kernel does not show whether"),
        ({"trouble": "iptables-save failed"}, "cannot be watched: iptables-save failed"),
    ):
        with pytest.raises(OperatorError, match=f"encryption is on, but .*{said}"):
            healthy(status_result(gate=gate(**wrong)))
        with pytest.raises(OperatorError, match=f"encrypted connections are left, but .*{said}"):
            healthy(status_result(enabled=False, draining=True, gate=gate(**wrong)))
    fails(run("status", "--check", "--json"), 2, "--json and --check")


def test_status_without_connections_and_off() -> None:
    from mcencrypt.cli.status import describe

    idle = describe(status_result(enabled=False, connections=[], refused={}))
    assert idle[0].startswith("mcencrypt is off;") and "no connections" in idle and "refused      nothing" in idle
    assert "until they close" in describe(status_result(enabled=False, draining=True))[0]
