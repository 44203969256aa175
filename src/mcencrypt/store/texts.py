"""Text of files as people and their editors leave it: with a byte order mark, with another system's line ends.

Such is taken; what cannot be taken is named by what it is.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from typing import Any

from mcencrypt.errors import OperatorError

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_AT_LINE = re.compile(r"\(at line (\d+), column \d+\)$")
#: What somebody meant as text: a word, a path, an address, a network.
_WORD = re.compile(r"[A-Za-z/0-9~][\w./:-]*")
_TWICE = "Cannot overwrite a value"


def decode(data: bytes, source: str) -> str:
    """UTF-8, line ends as Unix has them. Raises OperatorError: `source` is what an error calls it."""
    if data.startswith(_UTF16):
        raise OperatorError(f"{source}: is in UTF-16: save it as UTF-8, or plain text")
    try:
        text = data.removeprefix(_BOM).decode()
    except UnicodeDecodeError:
        raise OperatorError(f"{source}: not UTF-8: save it as UTF-8, or plain text") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse_toml(data: bytes, source: str) -> dict[str, Any]:
    """A TOML file. Raises OperatorError: what is wrong with it, in whose line."""
    text = decode(data, source) + "\n"  # so that every error has a line
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OperatorError(f"{source}: not valid TOML: {_explained(str(error), text)}") from None


def _explained(problem: str, text: str) -> str:
    found = _AT_LINE.search(problem)
    if found is None:
        return problem
    number = int(found[1])
    lines = text.split("\n")
    line = lines[number - 1] if number <= len(lines) else ""
    key = line.partition("=")[0].strip()
    if problem.startswith(_TWICE) and key:
        before = [at for at, one in enumerate(lines[: number - 1], 1) if one.partition("=")[0].strip() == key]
        where = f"lines {before[0]} and {number}" if before else f"line {number}"
        return f"{key} is there twice ({where}): remove one"
    value = line.partition("#")[0].partition("=")[2].strip()
    if key and _WORD.fullmatch(value):
        return f'{key}: text stands in quotes: {key} = "{value}" (line {number})'
    odd = next((letter for letter in line.partition("#")[0] if not letter.isascii()), None)
    if odd is not None:
        name = unicodedata.name(odd, "a letter")
        return f'{problem}; that line has {odd!r} ({name}): type quotes (") and blanks anew'
    return problem
