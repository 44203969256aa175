"""What operators get, as package and as image: the program and its licences, and neither the lab nor tests."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from mcencrypt.version import VERSION
from tests.helpers.containers.engine import Docker

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = (ROOT / "tools/debian/requirements.txt").read_text()
#: What requirements.txt names, as wheels spell it.
CARRIED = {name.replace("-", "_") for name in re.findall(r"^([a-z0-9-]+)==", REQUIREMENTS, re.MULTILINE)}
ROOMS = {"mcencrypt." + path.name for path in (ROOT / "src/mcencrypt").iterdir() if (path / "__init__.py").exists()}


def judge(paths: Iterable[str]) -> None:
    """Fails where what is installed is not what it should be; `paths` are its files, from site-packages on."""
    found = [path.split("/") for path in paths]
    infos = {words[0].removesuffix(".dist-info") for words in found if words[0].endswith(".dist-info")}
    packages = {info.rsplit("-", 1)[0] for info in infos}
    assert packages == {*CARRIED, "mcencrypt"} and f"mcencrypt-{VERSION}" in infos
    for info in infos:
        texts = [words for words in found if words[0] == f"{info}.dist-info" and "LICEN" in words[-1].upper()]
        assert texts, f"{info} comes without its licence"
    own = {".".join(words[:2]) for words in found if words[0] == "mcencrypt" and len(words) > 2}
    assert own - {"mcencrypt.__pycache__"} == {*ROOMS, "mcencrypt.iptables"}
    strangers = {words[0] for words in found} & {"lab", "tests", "benchmarks", "docs"}
    assert not strangers


def test_the_debian_package(package: Path) -> None:
    assert package.name.startswith(f"mcencrypt_{re.sub('[.]dev', '~dev', VERSION)}_")
    listed = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    names = subprocess.run(["tar", "-t"], input=listed, capture_output=True, check=True).stdout.decode().split("\n")
    files = [name.removeprefix("./") for name in names if not name.endswith("/")]
    judge(name.split("/site-packages/")[1] for name in files if "/site-packages/" in name)
    assert {"usr/share/doc/mcencrypt/copyright", "usr/share/doc/mcencrypt/THIRD-PARTY.md"} <= set(files)
    text = subprocess.run(
        ["tar", "-x", "-O", "./usr/share/doc/mcencrypt/copyright"], input=listed, capture_output=True, check=True
    ).stdout.decode()
    assert text.startswith("MIT License") and "| scapy | GPL-2.0-only |" in text


def test_the_image(docker: Docker, sidecar_image: str) -> None:
    look = "cd /opt/mcencrypt/lib/python3.*/site-packages && find . -type f && ls -d /usr/share/doc/mcencrypt/*"
    said = docker("run", "--rm", "--entrypoint", "sh", sidecar_image, "-c", look).stdout.split()
    judge(path.removeprefix("./") for path in said if path.startswith("./"))
    notices = [path for path in said if path.startswith("/")]
    assert notices == ["/usr/share/doc/mcencrypt/LICENSE", "/usr/share/doc/mcencrypt/THIRD-PARTY.md"]
    assert docker("run", "--rm", sidecar_image, "--version").stdout == f"mcencrypt {VERSION} (compiled)\n"
