"""``mcencrypt keygen`` and ``mcencrypt identity``."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mcencrypt.cli import keys
from tests.helpers.commands import fails, run


def test_keygen_makes_a_private_key_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "in_container", lambda: False)
    result = run("keygen")
    key = tmp_path / "network.key"
    assert result.exit_code == 0 and str(key) in result.stdout and "copy it to every node" in result.stdout
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert before.decode().strip() not in result.output
    fails(run("keygen"), 1, str(key))
    assert key.read_bytes() == before
    other = tmp_path / "other.key"
    made = run("keygen", str(other))
    assert made.exit_code == 0 and other.read_bytes() != before
    assert f"mcencrypt key add {other}" in made.stdout, "a node that has a key changes it without an outage"


def test_keygen_in_a_container_speaks_of_the_mounted_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    made = run("keygen").stdout
    assert "scp" not in made and "on the host where that folder is mounted from" in made


def test_keygen_with_a_file_needs_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCENCRYPT_CONFIG", str(tmp_path / "none.toml"))
    assert run("keygen", str(tmp_path / "fresh.key")).exit_code == 0


def test_the_identity_is_made_at_first_use_and_stays(tmp_path: Path) -> None:
    first = run("identity")
    assert first.exit_code == 0 and len(first.stdout.strip()) == 44
    assert run("identity").stdout == first.stdout
