"""The targets: functions of bytes, which raise where mcencrypt is wrong."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

NAMES = ("packets", "ingress", "handshake", "captures")
#: Those whose code is compiled for the most part.
COMPILED = ("ingress",)
#: Inputs that reach what others do not, a folder for each target.
CORPUS = Path(__file__).parent / "corpus"


def load(name: str) -> Callable[[bytes], None]:
    """The target of that name; what it tests is imported now."""
    found: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.{name}").target
    return found
