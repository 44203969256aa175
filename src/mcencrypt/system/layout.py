"""Where things go: what an administrator installs, and what a distribution's package does."""

from __future__ import annotations

import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

CONFIG = Path("/etc/mcencrypt/config.toml")
STATE = Path("/var/lib/mcencrypt")
RUN = Path("/run/mcencrypt")
#: Where the packages for Debian and with RPM keep the program and the Python packages that it needs.
PACKAGE_PREFIX = Path("/usr/lib/mcencrypt")
#: How an administrator gets rid of it.
REMOVE = "apt-get purge mcencrypt, or dnf remove mcencrypt"


@dataclass(frozen=True)
class Layout:
    """Folders and files, all absolute, before a --root is put in front."""

    units: Path
    share: Path
    #: Below `share`: zsh's folder of completion functions.
    zsh: Path
    #: The tmpfiles.d(5) file.
    lock: Path
    #: A link to the command, for PATH.
    link: Path | None
    #: How the service starts the program.
    command: tuple[str, ...]

    @property
    def unit(self) -> Path:
        return self.units / "mcencrypt.service"

    @property
    def man_page(self) -> Path:
        return self.share / "man/man1/mcencrypt.1"

    def completion(self, shell: str) -> Path:
        """The completion script of "bash", "zsh" or "fish"."""
        return {
            "bash": self.share / "bash-completion/completions/mcencrypt",
            "zsh": self.share / self.zsh / "_mcencrypt",
            "fish": self.share / "fish/vendor_completions.d/mcencrypt.fish",
        }[shell]


def local() -> Layout:
    """For the program that runs now, wherever it is: /etc and /usr/local."""
    command = running_command()
    return Layout(
        units=Path("/etc/systemd/system"),
        share=Path("/usr/local/share"),
        zsh=Path("zsh/site-functions"),
        lock=Path("/etc/tmpfiles.d/mcencrypt.conf"),
        link=Path("/usr/local/sbin/mcencrypt") if len(command) == 1 else None,
        command=command,
    )


def package() -> Layout:
    """For the Debian package; tools/rpm moves what that family has elsewhere."""
    return Layout(
        units=Path("/lib/systemd/system"),
        share=Path("/usr/share"),
        zsh=Path("zsh/vendor-completions"),
        lock=Path("/usr/lib/tmpfiles.d/mcencrypt.conf"),
        link=None,
        command=("/usr/bin/mcencrypt",),
    )


def is_packaged() -> bool:
    """Whether the program that runs now belongs to a package of the system."""
    return Path(sys.prefix) == PACKAGE_PREFIX


def running_command() -> tuple[str, ...]:
    """The words that start the program that runs now: its script, or its interpreter with ``-m``."""
    script = Path(sysconfig.get_path("scripts")) / "mcencrypt"
    if script.is_file():
        return (str(script),)
    return (sys.executable, "-m", "mcencrypt")
