"""What operators get, as package and as image: the program and its licences, and neither the lab nor tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

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


@pytest.mark.skipif(not shutil.which("rpmbuild"), reason="rpmbuild is not there")
def test_the_rpm_has_the_same_files_and_scripts(package: Path, tmp_path: Path) -> None:
    """Made of what the Debian package holds, so that it is not put together twice."""
    tree, out = tmp_path / "tree", tmp_path / "out"
    subprocess.run(["dpkg-deb", "--extract", package, tree], check=True)
    done = subprocess.run(
        [ROOT / "tools/rpm", out], capture_output=True, text=True, timeout=600, env={**os.environ, "TREE": str(tree)}
    )
    assert done.returncode == 0, done.stderr
    rpm = Path(done.stdout.strip())
    assert re.fullmatch(rf"mcencrypt-{re.sub('[.]dev', '~dev', VERSION)}-1\.\w+\.rpm", rpm.name)
    assert rpm.name in (out / "SHA256SUMS").read_text() and rpm.with_suffix(".cdx.json").exists()

    def asked(*words: str) -> list[str]:
        return subprocess.run(
            ["rpm", "-qp", *words, rpm], capture_output=True, text=True, check=True
        ).stdout.splitlines()

    listed = {line for line in asked("--list") if not line.endswith(".build-id")}
    files = {"/" + str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir() or path.is_symlink()}
    moved = {
        "/lib/systemd/": "/usr/lib/systemd/",
        "/usr/share/zsh/vendor-completions/": "/usr/share/zsh/site-functions/",
    }
    for before, after in moved.items():
        files = {after + path.removeprefix(before) if path.startswith(before) else path for path in files}
    assert files <= listed, files - listed
    assert all((tree / path[1:]).is_dir() for path in listed - files), "and of folders those that are ours"
    judge(path.split("/site-packages/")[1] for path in files if "/site-packages/" in path)
    assert asked("--configfiles") == ["/etc/mcencrypt/config.toml"]
    assert any(line.startswith("drwx------") and line.endswith(" /etc/mcencrypt") for line in asked("--list", "-v"))
    needed = set(asked("--requires"))
    assert {"/usr/bin/python3.11", "iptables", "util-linux"} <= needed
    assert {line.partition("(")[0] for line in needed} >= {"libnetfilter_queue.so.1", "libcrypto.so.3"}
    texts = dict(zip(("POSTIN", "PREUN", "POSTUN"), ("postinst", "prerm", "postrm"), strict=True))
    for tag, name in texts.items():
        script = "\n".join(asked("--queryformat", f"%{{{tag}}}"))
        assert (ROOT / "tools/debian" / name).read_text().partition("\n")[2].strip() in script
        subprocess.run(["sh", "-n", "-c", script], check=True)
        # an upgrade installs a second one, and then removes the first
        again = "2" if tag == "POSTIN" else "1"
        ran = subprocess.run(["sh", "-c", script, "rpm", again], capture_output=True, text=True, check=True)
        assert not ran.stdout + ran.stderr


def test_the_image(docker: Docker, sidecar_image: str) -> None:
    look = "cd /opt/mcencrypt/lib/python3.*/site-packages && find . -type f && ls -d /usr/share/doc/mcencrypt/*"
    said = docker("run", "--rm", "--entrypoint", "sh", sidecar_image, "-c", look).stdout.split()
    judge(path.removeprefix("./") for path in said if path.startswith("./"))
    notices = [path for path in said if path.startswith("/")]
    assert notices == ["/usr/share/doc/mcencrypt/LICENSE", "/usr/share/doc/mcencrypt/THIRD-PARTY.md"]
    labels = docker.inspect(sidecar_image)["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == VERSION
    assert docker("run", "--rm", sidecar_image, "--version").stdout == f"mcencrypt {VERSION} (compiled)\n"
