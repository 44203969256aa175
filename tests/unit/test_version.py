"""The version stands in one file, and all that shows or builds one takes it from there; what a wheel is built of."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from mcencrypt import version
from mcencrypt.cli import cli
from mcencrypt.interpreted import build

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: How hatchling finds it (hatchling/version/source/regex.py, DEFAULT_PATTERN).
HATCH = re.compile(r"(?i)^(__version__|VERSION)(?: ?\: ?str)? ?= ?(['\"])v?(?P<version>.+?)\2", re.MULTILINE)


def test_builds_read_the_file_that_the_program_reads() -> None:
    assert PROJECT["tool"]["hatch"]["version"] == {"path": "src/mcencrypt/version.py"}
    assert PROJECT["project"]["dynamic"] == ["version"] and "hatch-vcs" not in str(PROJECT["build-system"]["requires"])
    found = HATCH.search((ROOT / "src/mcencrypt/version.py").read_text())
    assert found is not None and found["version"] == version.VERSION


def test_a_wheel_is_built_of_the_program_and_its_rules_alone() -> None:
    """tests/containers/test_contents.py looks at what is built of that."""
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    included = {"iptables": "mcencrypt/iptables"}
    assert wheel == {"packages": ["src/mcencrypt"], "force-include": included, "hooks": {"custom": {}}}


def test_the_image_is_labelled_with_it_and_no_base_floats() -> None:
    text = (ROOT / "docker/Dockerfile").read_text()
    labels = re.findall(r"org\.opencontainers\.image\.version=(\S+)", text.rpartition("\nFROM ")[2])
    assert labels == [version.VERSION]
    page = (ROOT / "docker/README.md").read_text()
    for file in sorted((ROOT / "docker").rglob("Dockerfile")):
        (base,) = re.findall(r"^ARG BASE=(.+)$", file.read_text(), re.MULTILINE)
        assert re.fullmatch(r"\w+:\d+\.\d+(\.\d+)?-\S+", base), f"{file}: {base} is another one each month"
        assert set(re.findall(r"^FROM (\S+)", file.read_text(), re.MULTILINE)) == {"${BASE}"} and f"`{base}`" in page


def test_it_is_a_version_of_pep_440_without_a_local_part() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?(\.dev\d+)?", version.VERSION)


def test_the_program_says_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CliRunner().invoke(cli, ["--version"]).stdout == f"mcencrypt {version.VERSION} ({build()})\n"
    monkeypatch.setattr("mcencrypt.cli.install.VERSION", "7.8.9")
    assert CliRunner().invoke(cli, ["install", "--root", str(tmp_path)]).exit_code == 0
    (page,) = tmp_path.rglob("mcencrypt.1")
    assert '"mcencrypt 7.8.9"' in page.read_text()


def test_the_changelog_has_a_section_of_it() -> None:
    sections = re.findall(r"^## \[([^]]+)\] - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    newest, when = sections[0]
    assert newest == re.sub(r"\.dev\d+$", "", version.VERSION)
    assert (when == "unreleased") == (".dev" in version.VERSION), "a release has a date, and no development mark"
