"""The systemd units, with the command and a view of where that lives.

``mcencrypt.service`` serves the host's network namespace, ``mcencrypt@.service`` the one that its instance names;
``mcencrypt-fence.service`` closes the host's P2P ports at boot, whether or not the first can start.
"""

from __future__ import annotations

import importlib.resources
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import mcencrypt

UNIT = "mcencrypt.service"
INSTANCES = "mcencrypt@.service"
FENCE = "mcencrypt-fence.service"

#: What the units put empty folders in place of (TemporaryFileSystem, PrivateTmp, ProtectHome).
HIDDEN = tuple(map(Path, ("/home", "/root", "/run", "/tmp", "/var")))

_PLAIN = re.compile(r"[A-Za-z0-9_./:@+,=-]+")


def render_all(command: Sequence[str], needed: Iterable[Path]) -> dict[str, str]:
    """All units by their name; see `render`."""
    folders = list(needed)
    return {name: render(command, folders, name) for name in (UNIT, INSTANCES, FENCE)}


def render(command: Sequence[str], needed: Iterable[Path], name: str = UNIT) -> str:
    """The unit that starts `command`; of `needed` (folders) those that it would hide stay visible."""
    words = " ".join(_quote(word, "$$") for word in command)
    visible = [f"BindReadOnlyPaths={_quote(str(path), '$')}" for path in _hidden(needed)]
    return template(name).replace("@COMMAND@", words).replace("@VISIBLE@\n", "".join(f"{line}\n" for line in visible))


def template(name: str) -> str:
    """The unit of that name before anything is filled in."""
    return (importlib.resources.files("mcencrypt") / "system" / name).read_text()


def running_from() -> list[Path]:
    """The folders that hold the program that runs now, its interpreter, and the packages that it imports."""
    folders = [sys.prefix, sys.base_prefix, *sys.path]
    found = [Path(folder).absolute() for folder in folders if folder and Path(folder).is_dir()]
    return [*found, *(Path(folder) for folder in mcencrypt.__path__), Path(sys.executable).resolve().parents[1]]


def _hidden(needed: Iterable[Path]) -> list[Path]:
    """Those that lie below a hidden folder, outermost ones only."""
    found: list[Path] = []
    for path in sorted(set(needed)):
        if any(top in path.parents for top in HIDDEN) and not any(path.is_relative_to(other) for other in found):
            found.append(path)
    return found


def _quote(word: str, dollar: str) -> str:
    """One word as systemd.syntax(7) and, in a command line, systemd.service(5) want it."""
    word = word.replace("%", "%%").replace("$", dollar)
    if _PLAIN.fullmatch(word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'
