"""The image that all others start from: Debian, made here with debootstrap, because no registry need be in reach."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lab import LabError
from lab.namespace import run
from lab.thirdparty import cache_directory
from tests.helpers.containers.engine import Docker

SUITE = "bookworm"
#: What the tests' images need; with it an image can also be one that systemd runs in, as process 1.
PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "iptables",
    "libnetfilter-queue1",
    "procps",
    "python3",
    "python3-venv",
    "systemd-sysv",
)
#: dpkg waits for the disk after each file, in case the machine crashes; these are thrown away.
_DPKG = ("etc/dpkg/dpkg.cfg.d/unsafe", "force-unsafe-io\n")
_LEFT_OUT = ("var/cache/apt/*", "var/lib/apt/lists/*", "usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*")
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")


def cannot_make() -> str | None:
    """Why no base image can be made here, or None."""
    return None if shutil.which("debootstrap") else "containers need debootstrap (apt install debootstrap)"


def base_image(docker: Docker) -> str:
    """The name of the base image, which is made if it is not there yet. Raises LabError if it could not be made."""
    tag = f"mcencrypt-test/base:{_key()}"
    if tag not in docker.images():
        docker.import_image(tag, _tarball())
    return tag


def _key() -> str:
    """Names the contents: an image of another month, or for other packages, is another one."""
    trusted = Path("/", _CERTIFICATES)
    ingredients = [
        SUITE,
        PACKAGES,
        _DPKG,
        _LEFT_OUT,
        platform.machine(),
        time.strftime("%Y-%m", time.gmtime()),
        hashlib.sha256(trusted.read_bytes()).hexdigest() if trusted.exists() else "",
    ]
    return hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:12]


def _tarball() -> Path:
    """Its root file system as a tar file in the user's cache."""
    home = cache_directory() / "containers"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    wanted = home / f"base-{_key()}.tar"
    with open(home / "base.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not wanted.exists():
            for old in home.glob("base-*.tar*"):
                # another checkout may use it
                if time.time() - old.stat().st_mtime > 7 * 86400:
                    old.unlink()
            _make(wanted)
    return wanted


def _make(tarball: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="base-", dir=tarball.parent) as scratch:
        root = Path(scratch) / "root"
        run(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(root)], timeout=600)
        (root / _DPKG[0]).write_text(_DPKG[1])
        trusted = Path("/", _CERTIFICATES)
        if trusted.exists():
            # builds fetch packages as this machine does: by the same way, with the same trust
            shutil.copyfile(trusted, root / _CERTIFICATES)
        unfinished = tarball.with_suffix(".tar.new")
        exclude = [f"--exclude=./{pattern}" for pattern in _LEFT_OUT]
        run(["tar", "--create", f"--file={unfinished}", f"--directory={root}", *exclude, "."], timeout=300)
        unfinished.rename(tarball)


def pip_arguments() -> dict[str, str]:
    """Build arguments that let pip, inside a build, use the package indexes that this machine's pip uses.

    Indexes and folders that are files of this machine cannot be reached from there, and are left out.
    """
    found = {}
    for option, name in (("index-url", "PIP_INDEX_URL"), ("extra-index-url", "PIP_EXTRA_INDEX_URL")):
        words = (os.environ.get(name) or _pip_setting(option)).split()
        if reachable := [word for word in words if not word.startswith(("file:", "/"))]:
            found[name] = " ".join(reachable)
    return found


def _pip_setting(option: str) -> str:
    for area in ("global", "install"):
        done = subprocess.run(
            [sys.executable, "-m", "pip", "config", "get", f"{area}.{option}"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return done.stdout
    return ""


__all__ = ["LabError", "base_image", "cannot_make", "pip_arguments"]
