"""The log, on stderr or in a file: ``time level message key=value``, or one JSON object per line.

A log line is a sentence that stays the same for the same kind of event, and fields that vary::

    log.info("connection encrypted", extra=fields(peer="10.0.0.2:7331", identity="3q2+7w=="))

gives ``2026-01-31T12:00:00.123+00:00 INFO connection encrypted peer=10.0.0.2:7331 identity="3q2+7w=="``, or
``{"time": "2026-...", "level": "INFO", "message": "connection encrypted", "fields": {"peer": ...}}``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from mcencrypt.logwriter import LogWriter, open_file

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

_BARE = re.compile(r"[A-Za-z0-9_.:/,+@%\[\]-]+")


def fields(**values: Any) -> dict[str, Any]:
    """The ``extra=`` of a logging call: `` key=value`` at the line's end for each value that is not None."""
    return {"fields": {key: value for key, value in values.items() if value is not None}}


def render(value: Any) -> str:
    """A value as it stands in a log line: bare if it is one plain word, else a JSON string.

    What a peer sent can be in here. JSON's escapes keep line breaks and terminal sequences out of the log.
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value.hex() if isinstance(value, bytes) else str(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


class KeyValueFormatter(logging.Formatter):
    """``time level message key=value``; an exception's traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        when = _time(record)
        message = record.getMessage()
        if not message.isprintable():
            message = json.dumps(message)[1:-1]
        parts = [when, record.levelname, message]
        parts += [f"{key}={render(value)}" for key, value in getattr(record, "fields", {}).items()]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class JsonFormatter(logging.Formatter):
    """One object per line: ``time``, ``level``, ``message``, and where there are any ``fields`` and ``exception``.

    Only ASCII and no control character leaves: JSON escapes the rest, so nothing in a value can break a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": _time(record), "level": record.levelname, "message": record.getMessage()}
        given = getattr(record, "fields", None)
        if given:
            line["fields"] = {key: _plain(value) for key, value in given.items()}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")


def _plain(value: Any) -> Any:
    """A value as JSON has it: numbers, booleans and lists as they are, bytes in hex, everything else its text."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return value.hex() if isinstance(value, bytes) else str(value)


def setup(level: str, stream: IO[str] | None = None, form: str = "text", file: Path | None = None) -> None:
    """Send everything from `level` ("debug", "info", "warning", "error") upward to `file`, or else to stderr.

    Neither holds up whoever logs (`logwriter`); `stream`, for tests, may. `form`: "text" or "json". Replaces what an
    earlier call set up.

    Raises ValueError if `level` is none of the four, or `form` none of the two; OSError if `file` cannot be written.
    """
    if form not in FORMATS:
        raise ValueError(f"log format {form!r} is none of {', '.join(FORMATS)}")
    if level.lower() not in LEVELS:
        raise ValueError(f"log level {level!r} is none of {', '.join(LEVELS)}")
    handler = logging.StreamHandler(stream) if stream is not None else _writer(file)
    handler.setFormatter(JsonFormatter() if form == "json" else KeyValueFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
        if isinstance(old, LogWriter):
            old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    # A failed write to the log must not print a traceback through the packet path.
    logging.raiseExceptions = False


def flush() -> None:
    """Write what had to wait, as far as that is possible now. Raises nothing."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _writer(file: Path | None) -> logging.Handler:
    if file is not None:
        descriptor = open_file(file)
        try:
            return LogWriter(descriptor, file)
        finally:
            os.close(descriptor)
    try:
        return LogWriter(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return logging.StreamHandler(sys.stderr)  # closed, or something else stands in its place
