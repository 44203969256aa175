"""``mcencrypt keygen`` and ``mcencrypt identity``."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.helpers.commands import fails, run


def test_keygen_makes_a_private_key_once(tmp_path: Path) -> None:
    result = run("keygen")
    key = tmp_path / "network.key"
    assert result.exit_code == 0 and str(key) in result.stdout and "copy it to every node" in result.stdout
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert before.decode().strip() not in result.output
    fails(run("keygen"), 1, str(key))
    assert key.read_bytes() == before
    other = tmp_path / "other.key"
    assert run("keygen", str(other)).exit_code == 0 and other.read_bytes() != before


def test_keygen_with_a_file_needs_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCENCRYPT_CONFIG", str(tmp_path / "none.toml"))
    assert run("keygen", str(tmp_path / "fresh.key")).exit_code == 0


def test_the_identity_is_made_at_first_use_and_stays(tmp_path: Path) -> None:
    first = run("identity")
    assert first.exit_code == 0 and len(first.stdout.strip()) == 44
    assert run("identity").stdout == first.stdout
