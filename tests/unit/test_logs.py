"""The log format, and the limit on lines that a stranger can cause."""

from __future__ import annotations

import io
import json
import logging
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcencrypt import logs


@pytest.fixture
def stream() -> io.StringIO:
    out = io.StringIO()
    logs.setup("info", out)
    return out


def test_a_line_is_time_level_message_and_fields(stream: io.StringIO) -> None:
    extra = logs.fields(peer="[::1]:7331", n=2, no=None)
    logging.getLogger("x").info("connection %s", "encrypted", extra=extra)
    when, rest = stream.getvalue().split(" ", 1)
    assert rest == "INFO connection encrypted peer=[::1]:7331 n=2\n"
    assert when.endswith("+00:00") and "T" in when


def test_what_a_peer_sent_cannot_forge_a_line(stream: io.StringIO) -> None:
    extra = logs.fields(name='a "b"=\n2026 INFO ok\x1b[2J', raw=b"\n")
    logging.getLogger("x").warning("refused\nroot", extra=extra)
    text = stream.getvalue()
    assert text.count("\n") == 1 and "\x1b" not in text
    assert text.endswith('WARNING refused\\nroot name="a \\"b\\"=\\n2026 INFO ok\\u001b[2J" raw=0a\n')


def test_the_level_is_kept_and_setting_up_twice_writes_once(stream: io.StringIO) -> None:
    logs.setup("warning", stream)
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").error("loud")
    assert stream.getvalue().count("\n") == 1 and "ERROR loud" in stream.getvalue()
    with pytest.raises(ValueError, match="shout"):
        logs.setup("shout")


def test_a_traceback_follows_its_line(stream: io.StringIO) -> None:
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("x").exception("failed", extra=logs.fields(at=1))
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("ERROR failed at=1") and lines[-1] == "ValueError: inside"


@pytest.fixture
def json_stream(stream: io.StringIO) -> io.StringIO:
    out = io.StringIO()
    logs.setup("debug", out, "json")
    return out


def test_a_json_line_has_time_level_message_and_typed_fields(json_stream: io.StringIO) -> None:
    extra = logs.fields(peer="[::1]:7331", n=2, ratio=0.5, on=True, ports=(7331, 8571), raw=b"\n", no=None, at=1e999)
    logging.getLogger("x").info("connection %s", "encrypted", extra=extra)
    logging.getLogger("x").debug("bare")
    first, second = map(json.loads, json_stream.getvalue().splitlines())
    assert datetime.fromisoformat(first.pop("time")).utcoffset() == timedelta(0)
    assert first == {
        "level": "INFO",
        "message": "connection encrypted",
        "fields": {
            "peer": "[::1]:7331", "n": 2, "ratio": 0.5, "on": True, "ports": [7331, 8571], "raw": "0a", "at": "inf",
        },
    }  # fmt: skip
    assert set(second) == {"time", "level", "message"}


@given(st.text() | st.binary() | st.floats() | st.none() | st.lists(st.text()), st.text())
def test_whatever_a_peer_sends_a_line_stays_one_json_object(value: object, message: str) -> None:
    formatter = logs.JsonFormatter()
    record = logging.LogRecord("x", logging.WARNING, "file", 1, "%s", (message,), None)
    record.__dict__.update(logs.fields(sent=value))
    line = formatter.format(record)
    assert line.isascii() and line.isprintable(), "no byte of it is a control character"
    found = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert found["message"] == message
    if isinstance(value, (str, list)):
        assert found["fields"]["sent"] == value


def test_a_json_line_has_its_traceback_inside(json_stream: io.StringIO) -> None:
    try:
        raise ValueError("inside\n{}")
    except ValueError:
        logging.getLogger("x").exception("failed", extra=logs.fields(at=1))
    (line,) = json_stream.getvalue().splitlines()
    found = json.loads(line)
    assert found["message"] == "failed" and found["fields"] == {"at": 1}
    assert found["exception"].startswith("Traceback") and "ValueError: inside\n{}" in found["exception"]


def test_there_are_two_formats() -> None:
    with pytest.raises(ValueError, match="yaml"):
        logs.setup("info", io.StringIO(), "yaml")
