"""Running without what was compiled: ``MCENCRYPT_INTERPRETED=1``.

The packet path is compiled where the package is built, and each compiled module lies beside the Python source that it
was made of, or beside its interpreted twin. Python prefers the compiled one; with this it takes the sources.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Final, Literal

Build = Literal["compiled", "interpreted"]
_PACKAGE: Final = "mcencrypt."
#: The module by which one tells.
_PATH: Final = "mcencrypt.core.fast"
_FOLDER: Final = str(Path(__file__).with_name("core"))


class _Sources:
    """Finds the modules of this package in their sources alone (importlib.abc.MetaPathFinder)."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if not name.startswith(_PACKAGE):
            return None
        for folder in path or ():
            spec = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name, target)
            if spec is not None:
                return spec
        return None


def choose() -> None:
    """Take the sources of every module that is imported from now on."""
    sys.meta_path.insert(0, _Sources)


def build() -> Build:
    """What the packet path of this process is, or would be."""
    spec = (_Sources if _Sources in sys.meta_path else PathFinder).find_spec(_PATH, [_FOLDER])
    return "interpreted" if spec is None or (spec.origin or "").endswith(".py") else "compiled"
