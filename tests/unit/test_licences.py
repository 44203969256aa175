"""THIRD-PARTY.md names what the Debian package carries, no more and no less, under the licence that it comes with."""

from __future__ import annotations

import json
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "THIRD-PARTY.md").read_text()
LICENCES = dict(re.findall(r"^\| ([a-z0-9-]+) \| ([A-Z][^|]+) \|", TEXT, re.MULTILINE))
CARRIED = re.findall(r"^([a-z0-9-]+)==", (ROOT / "tools/debian/requirements.txt").read_text(), re.MULTILINE)
_CLASSIFIERS = {"License :: OSI Approved :: MIT License": "MIT"}


def _name(requirement: str) -> str:
    """The name in a requirement, as the index of Python packages spells it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]).lower()


def _needed(names: list[str]) -> set[str]:
    """Those packages and all that they need in turn, as what is installed here says."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [_name(one) for one in metadata.requires(name) or [] if ";" not in one or "PyPy" in one]
    return found


def _declared(name: str) -> str:
    """The licence that an installed package declares."""
    said = metadata.metadata(name)
    classified = [_CLASSIFIERS[one] for one in said.get_all("Classifier") or [] if one in _CLASSIFIERS]
    return said["License-Expression"] or said["License"] or " AND ".join(classified)


def test_all_that_is_carried_is_named_and_nothing_else() -> None:
    assert sorted(LICENCES) == sorted(CARRIED)


def test_what_is_carried_is_what_the_program_needs() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert _needed([_name(one) for one in dependencies]) == set(CARRIED)


@pytest.mark.parametrize("name", CARRIED)
def test_the_licence_is_the_one_that_the_package_declares(name: str) -> None:
    assert LICENCES[name] == _declared(name)


@pytest.mark.parametrize("name", CARRIED)
def test_a_package_comes_with_its_licence_s_text(name: str) -> None:
    names = [file.name for file in metadata.files(name) or [] if ".dist-info" in str(file)]
    assert any("LICEN" in file.upper() for file in names)


def test_what_is_compiled_into_cryptography_is_named() -> None:
    listed = [file for file in metadata.files("cryptography") or [] if file.parent.name == "sboms"]
    if not listed:
        pytest.skip("this build of cryptography lists nothing")
    boxes = [json.loads(Path(str(file.locate())).read_text()) for file in listed]
    parts = [part for box in boxes for part in box["components"]]
    row = re.search(r"^\| cryptography \|.*$", TEXT, re.MULTILINE)
    assert row is not None and "OpenSSL" in row[0] and any(part["name"] == "openssl" for part in parts)
    licences = {
        word
        for part in parts
        for licence in part.get("licenses", [])
        for word in re.findall(r"[A-Za-z0-9.-]+", licence.get("expression") or licence["license"]["id"])
    }
    # what is offered besides MIT or Apache-2.0 need not be taken
    assert licences - {"OR", "AND", "WITH", "LLVM-exception", "GPL-2.0-only"} <= set(re.findall(r"[\w.-]+", row[0]))


def test_the_programs_of_debian_are_named() -> None:
    control = (ROOT / "tools/debian/control").read_text()
    needed = re.findall(
        r"(?:^Depends: |, )([a-z0-9.+-]+)", "".join(re.findall(r"^Depends: .*$", control, re.MULTILINE))
    )
    final_stage = (ROOT / "docker/Dockerfile").read_text().rpartition("\nFROM ")[2]
    (installed,) = re.findall(r"apt-get install -y -qq --no-install-recommends (.*?) *\\\n", final_stage)
    programs = {"python3", "iptables", "libnetfilter-queue1"}
    assert programs <= set(needed) and programs - {"python3"} <= set(installed.split())
    section = TEXT.split("## Programs of Debian")[1].split("\n## ")[0]
    missing = [name for name in {*needed, *installed.split()} if not re.search(rf"\b{re.escape(name)}\b", section)]
    assert not missing


def test_the_project_s_own_licence_is_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "MIT" and (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert project["license-files"] == ["LICENSE", "THIRD-PARTY.md"]
