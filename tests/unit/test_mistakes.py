"""Mistakes that everybody makes: each is answered by one line that names where it is, and says what to do.

Those that need a peer or a kernel stand elsewhere: a port that is not covered in real/test_uncovered, another key or
clock and a peer without mcencrypt in real/test_policy and real/test_probe, a missing capability and a queue that is
taken in unit/kernel.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mcencrypt.cli import cli
from mcencrypt.errors import OperatorError
from mcencrypt.store.config import load


def run(file: Path, *words: str, **environ: str) -> Result:
    return CliRunner().invoke(cli, ["--config", str(file), *words], env={"MCENCRYPT_CONFIG": "", **environ})


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "no ports: set ports = [N] to the P2P port of your chain"),
        ("ports = 7331", "ports: must be a list, as in [7331, 8571]"),
        ('ports = ["7331"]', "ports: must be a list of numbers, without quotes, as in [7331, 8571]"),
        ("ports = [99999]", "ports: 99999 is not a port"),
        ("prots = [7331]", "prots: no such key, did you mean ports?"),
        ("ports = [7331]\nmode = require", 'mode: text stands in quotes: mode = "require" (line 2)'),
        ("ports = [7331]\nnetwork_key_file = /srv/network.key  # ours", "text stands in quotes: network_key_file"),
        ('ports = [7331]\nmode = "required"', "'required' is not one of require, prefer, did you mean require?"),
        (
            'ports = [7331]\nrelayed = ["10.1.2.3/16"]',
            "'10.1.2.3/16' is not a network: for the network write 10.1.0.0/16",
        ),
        ('ports = [7331]\nprobes = "10.0.0.0/24"', 'probes: must be a list, as in ["10.1.0.0/16"'),
        ("ports = [7331]\nprobes = [10]", 'probes: must be a list of texts, in quotes, as in ["10.1.0.0/16"'),
        ('ports = [7331]\nallow_plaintext = ["10.0.0.1-10.0.0.9"]', "is not a network: write it as"),
        ('ports = [7331]\nmetrics_listen = "9464"', 'is not an address and a port: write it as "127.0.0.1:9464"'),
        ("ports = [7331]\nports = [7332]", "ports is there twice (lines 1 and 2): remove one"),
    ],
)
def test_in_the_configuration(tmp_path: Path, lines: str, said: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(lines + "\n")
    result = run(file, "rules")
    assert result.exit_code == 1 and said in result.stderr, result.stderr
    assert result.stderr.count("\n") == 1 and str(file) in result.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("MCENCRYPT_PORTS", "7331 7332", "separate by commas, as in 7331,7332"),
        ("MCENCRYPT_PORT", "7331", "no such variable, did you mean MCENCRYPT_PORTS?"),
        ("MCENCRYPT_PROBES", "10.0.0.0/24;10.0.1.0/24", "separate by commas, as in 10.0.0.0/24,10.0.1.0/24"),
    ],
)
def test_in_the_environment(tmp_path: Path, name: str, value: str, said: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text("")
    result = run(file, "rules", **{name: value})
    assert result.exit_code == 1 and said in result.stderr and result.stderr.count("\n") == 1


def test_with_the_key(tmp_path: Path) -> None:
    key = tmp_path / "network.key"
    file = tmp_path / "config.toml"
    file.write_text(f'ports = [7331]\nnetwork_key_file = "{key}"\n')

    def said() -> str:
        with pytest.raises(OperatorError) as problem:
            load(file, {}).network_key()
        assert "\n" not in str(problem.value) and str(key) in str(problem.value)
        return str(problem.value)

    assert f"not found: make one with `mcencrypt keygen {key}`" in said()
    key.mkdir()
    assert "is a folder, as Docker makes in the place of a file that is not there" in said()
    key.rmdir()
    key.write_text("changeme\n")
    key.chmod(0o600)
    assert "must hold 32 bytes in base64 (44 characters)" in said()
    key.chmod(0o644)
    assert f"chmod 600 {key}" in said()


@pytest.mark.parametrize(("word", "meant"), [("statsu", "status"), ("doctr", "doctor"), ("pears", "peers")])
def test_on_the_command_line(tmp_path: Path, word: str, meant: str) -> None:
    result = CliRunner().invoke(cli, [word])
    assert result.exit_code == 2 and f"did you mean {meant}?" in result.stderr
