"""The targets: functions of bytes, which raise where mcencrypt is wrong."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

NAMES = ("packets", "ingress", "handshake", "captures")
#: Those that atheris leads for a part of their inputs only: it cannot see into what is compiled (ingress), and to be
#: watched takes most of their time.
LED_AT_FIRST = ("ingress", "handshake", "captures")
#: Inputs that reach what others do not, a folder for each target.
CORPUS = Path(__file__).parent / "corpus"


def load(name: str) -> Callable[[bytes], None]:
    """The target of that name; what it tests is imported now."""
    found: Callable[[bytes], None] = importlib.import_module(f"tests.fuzz.{name}").target
    return found
