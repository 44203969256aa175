"""What the demo shows: steps, commands with their output, checks. Plain text; a little colour on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TextIO

_BOLD, _GREEN, _RED, _DIM = "1", "32", "31;1", "2"


class Screen:
    """Writes the demo's output, and remembers which checks failed."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        terminal = self._out.isatty() and os.environ.get("TERM") != "dumb"
        self._colours = terminal and not os.environ.get("NO_COLOR")  # https://no-color.org
        self._steps = 0
        #: The checks that did not hold.
        self.failed: list[str] = []

    def title(self, text: str) -> None:
        """The first line."""
        self._print(self._paint(_BOLD, text))

    def step(self, text: str) -> None:
        """The heading of the next step, numbered."""
        self._steps += 1
        self._print("", self._paint(_BOLD, f"{self._steps}. {text}"))

    def say(self, *lines: str) -> None:
        """Lines of a step."""
        self._print(*(f"   {line}".rstrip() for line in lines))

    def command(self, prompt: str, words: str, output: Iterable[str]) -> None:
        """A command as it was typed, and what it wrote."""
        self._print(f"   {self._paint(_BOLD, f'{prompt} {words}')}")
        self._print(*(f"     {line}".rstrip() for line in output))

    def check(self, holds: object, text: str) -> None:
        """Something that must be true."""
        verdict = self._paint(_GREEN, "ok") if holds else self._paint(_RED, "FAILED")
        self._print(f"   [{verdict}] {text}")
        if not holds:
            self.failed.append(text)

    def problem(self, text: str) -> None:
        """What ended the demo early."""
        self._print(f"   [{self._paint(_RED, 'FAILED')}] {text}")
        self.failed.append(text)

    def faint(self, *lines: str) -> None:
        """Lines that only some readers want."""
        self._print(*(f"   {self._paint(_DIM, line)}".rstrip() for line in lines))

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text

    def _print(self, *lines: str) -> None:
        for line in lines:
            print(line, file=self._out)
        self._out.flush()
