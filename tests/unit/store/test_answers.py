"""The file of who answered where."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from mcencrypt.core.answers import Answered
from mcencrypt.errors import OperatorError
from mcencrypt.store.answers import NAME, answers_text, read_answers, write_answers

ONE, TWO = b"\1" * 32, b"\2" * 32
KEY, OTHER = (base64.b64encode(one).decode() for one in (ONE, TWO))
V4, V6 = b"\xc0\0\2\7\x1c\xa3", bytes.fromhex("20010db8") + bytes(11) + b"\7\x1c\xa3"
LINE = f"192.0.2.7:7331 {KEY} 2026-03-01T10:00:00Z 2026-03-09T10:00:00Z"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_answers(tmp_path) == {}
    known = {V4: Answered(ONE, 1772359200, 1773050400), V6: Answered(ONE, 1772359200, 1772359201, TWO, 1772359202)}
    write_answers(tmp_path, known)
    file = tmp_path / NAME
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().splitlines() == [
        LINE,
        f"[2001:db8::7]:7331 {KEY} 2026-03-01T10:00:00Z 2026-03-01T10:00:01Z {OTHER} 2026-03-01T10:00:02Z",
    ]
    assert answers_text(read_answers(tmp_path)) == file.read_bytes()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (f"{LINE} more\n", "line 1: is not an address, a key and two dates"),
        (
            f"\n# a comment\n192.0.2.7 {KEY} 2026-03-01T10:00:00Z 2026-03-09T10:00:00Z\n",
            "line 3: '192.0.2.7' has no port",
        ),
        (f"node-b {KEY} 2026-03-01T10:00:00Z 2026-03-09T10:00:00Z\n", "'node-b' is not an address"),
        ("192.0.2.7:7331 AAAA 2026-03-01T10:00:00Z 2026-03-09T10:00:00Z\n", "'AAAA' is not a public key"),
        (f"192.0.2.7:7331 {KEY} yesterday 2026-03-09T10:00:00Z\n", "line 1: .*yesterday"),
        ("\xff\n", "line 1"),
        ("#" * (1 << 20) + "\n", "larger than"),
        ("".join(f"10.0.{n // 250}.{n % 250}:1 {LINE.split(' ', 1)[1]}\n" for n in range(4097)), "more than 4096"),
    ],
)
def test_what_is_no_such_file(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / NAME).write_text(content, encoding="latin-1")
    with pytest.raises(OperatorError, match=problem) as raised:
        read_answers(tmp_path)
    assert NAME in str(raised.value)


def test_what_cannot_be_read_is_not_taken_for_nothing(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    with pytest.raises(OperatorError, match="cannot be read"):
        read_answers(tmp_path)
