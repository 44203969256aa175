"""All checks together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.doctor.checks import TOPICS, examine, run_check
from mcencrypt.doctor.finding import Severity, note
from mcencrypt.store.keys import create_network_key
from tests.helpers.recorded_machine import Recorded, case, status


def test_a_healthy_machine_has_no_problem_and_no_warning(machine: Recorded, tmp_path: Path) -> None:
    key = tmp_path / "network.key"
    own = NetworkSecret(create_network_key(key).secret).key_id.hex()
    topics = list(examine(case(machine, status(key_id=own), network_key_file=key)))
    assert [topic.name for topic in topics] == list(TOPICS)
    assert not [one for topic in topics for one in topic.findings if one.severity >= Severity.WARNING]


def test_a_check_that_cannot_look_says_so_and_harms_no_other(machine: Recorded) -> None:
    def check_something(_: object) -> Any:
        yield note("first", "seen")
        raise PermissionError(13, "Permission denied", "/proc/secret")

    found = run_check(check_something, case(machine, status()))
    assert [one.id for one in found] == ["first", "something.unseen"]
    assert "/proc/secret" in found[1].text


def test_the_documentation_names_findings_that_exist() -> None:
    root = Path(__file__).parents[3]
    sources = "".join(path.read_text() for path in (root / "src/mcencrypt/doctor").glob("*.py"))
    words = re.findall(r"`([a-z]+\.[a-z0-9_-]+)`", (root / "docs/troubleshooting.md").read_text())
    topics = {name.split(".")[0] for name in re.findall(r'f?"([a-z]+\.[a-z0-9_{}-]+)"', sources)}
    named = [word for word in words if word.split(".")[0] in topics]
    assert len(named) > 30
    for word in named:
        family = re.sub(r"ipv[46]", r"{[a-z.]*family}", word)
        assert f'"{word}"' in sources or re.search(f'"{family}"', sources), word
