"""What is passed on beside the packages: checksums, and a bill of what they bring along."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def package(folder: Path, name: str, version: str, *lines: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "\n".join([f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *lines, "", ""])
    )


def bill(folder: Path) -> str:
    words = [sys.executable, str(ROOT / "tools/sbom"), str(folder)]
    environ = {**os.environ, "SOURCE_DATE_EPOCH": "1795000000"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, env=environ)
    return done.stdout


@pytest.mark.subprocesses
def test_the_bill_names_every_package_and_is_the_same_each_time(tmp_path: Path) -> None:
    package(tmp_path, "Some_Thing", "1.2", "License-Expression: MIT OR Apache-2.0")
    package(tmp_path, "other", "3", "Classifier: License :: OSI Approved :: BSD License")
    package(tmp_path, "mcencrypt", "9")
    text = bill(tmp_path)
    made = json.loads(text)
    assert (made["bomFormat"], made["specVersion"], made["version"]) == ("CycloneDX", "1.5", 1)
    assert made["metadata"]["timestamp"] == "2026-11-18T11:06:40Z"
    assert made["metadata"]["component"]["name"] == "mcencrypt"
    parts = {one["purl"]: one for one in made["components"]}
    assert set(parts) == {"pkg:pypi/some-thing@1.2", "pkg:pypi/other@3"}, "we are what it is of, and no part"
    assert parts["pkg:pypi/some-thing@1.2"]["licenses"] == [{"expression": "MIT OR Apache-2.0"}]
    assert parts["pkg:pypi/other@3"]["licenses"] == [{"license": {"name": "BSD License"}}]
    assert set(made["dependencies"][0]["dependsOn"]) == set(parts) and bill(tmp_path) == text
    package(tmp_path, "third", "1")
    assert json.loads(bill(tmp_path))["serialNumber"] != made["serialNumber"]


@pytest.mark.subprocesses
def test_checksums_are_of_what_is_ours(tmp_path: Path) -> None:
    for name in ("mcencrypt_1_amd64.deb", "mcencrypt-1.tar.gz", "other.txt"):
        (tmp_path / name).write_text(name)
    subprocess.run([str(ROOT / "tools/sums"), str(tmp_path)], check=True, timeout=60)
    lines = dict(reversed(line.split("  ")) for line in (tmp_path / "SHA256SUMS").read_text().splitlines())
    assert list(lines) == ["mcencrypt-1.tar.gz", "mcencrypt_1_amd64.deb"]
    assert all(hashlib.sha256(name.encode()).hexdigest() == found for name, found in lines.items())
    subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True, timeout=60)
