"""What a check found out."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Severity(enum.IntEnum):
    """How much it matters; a larger value is worse."""

    OK = 0
    #: Worth knowing; nothing to do unless the rest of the picture says so.
    NOTE = 1
    #: Works, but worse than it could, or not for everybody.
    WARNING = 2
    #: Connections fail, or packets leave in plaintext.
    PROBLEM = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing, named by a fixed `id` for programs: what is the case and where, and what to do about it."""

    id: str
    severity: Severity
    text: str
    advice: str = ""


def ok(name: str, text: str) -> Finding:
    return Finding(name, Severity.OK, text)


def note(name: str, text: str, advice: str = "") -> Finding:
    return Finding(name, Severity.NOTE, text, advice)


def warning(name: str, text: str, advice: str) -> Finding:
    return Finding(name, Severity.WARNING, text, advice)


def problem(name: str, text: str, advice: str) -> Finding:
    return Finding(name, Severity.PROBLEM, text, advice)
