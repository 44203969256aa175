"""Lines that nobody reads: they wait, they are lost and counted, and whoever logs goes on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mcencrypt import logs, logwriter
from mcencrypt.logwriter import WAITING, LogWriter, open_file


class Reader(NamedTuple):
    """Both ends of what is written to."""

    reading: int
    writing: int

    def read(self) -> bytes:
        """All that is there."""
        os.set_blocking(self.reading, False)
        said = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.reading, 1 << 16):
                said += piece
        return said


def pipe() -> Reader:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    return Reader(reading, writing)


def polled(monkeypatch: pytest.MonkeyPatch) -> Reader:
    """A pipe that cannot be opened again, as one that belongs to another user."""
    real = os.open

    def refuse(path: Any, *words: Any, **options: Any) -> int:
        if str(path).startswith("/proc/self/fd/"):
            raise PermissionError
        return real(path, *words, **options)

    monkeypatch.setattr(os, "open", refuse)
    return pipe()


def sockets() -> Reader:
    reading, writing = (end.detach() for end in socket.socketpair())
    return Reader(reading, writing)


@pytest.fixture(params=["pipe", "polled", "socket"])
def reader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    made = {"pipe": pipe, "polled": lambda: polled(monkeypatch), "socket": sockets}[request.param]()
    yield made
    for descriptor in made:
        with contextlib.suppress(OSError):
            os.close(descriptor)


def writer(descriptor: int, *words: Any) -> LogWriter:
    made = LogWriter(descriptor, *words)
    made.setFormatter(logs.KeyValueFormatter())
    return made


def log(to: LogWriter, text: str, *words: Any) -> None:
    to.handle(logging.makeLogRecord({"levelname": "INFO", "msg": text, "args": words}))


def numbers(said: bytes) -> list[int]:
    """The lines that got out, by number."""
    return [int(found) for found in re.findall(rb"INFO line (\d+) ", said)]


LINE = "line %d " + "x" * 200


def fill(to: LogWriter, first: int = 0) -> int:
    """Log until lines are lost; the number of the first that was."""
    number = first
    lost = to.lost
    while to.lost == lost:
        log(to, LINE, number)
        number += 1
    return number - 1


def test_what_is_read_is_written_at_once(reader: Reader) -> None:
    to = writer(reader.writing)
    for number in range(3):
        log(to, LINE, number)
        assert numbers(reader.read()) == [number]


def test_lines_wait_for_a_reader_are_then_lost_and_counted_and_come_in_order(reader: Reader) -> None:
    to = writer(reader.writing)
    lost = fill(to)
    for number in range(lost + 1, lost + 10):
        log(to, LINE, number)
    assert lost * 250 > WAITING and to.lost == 10
    said = b""
    while to.flush() or (piece := reader.read()):
        said += piece
    assert numbers(said) == list(range(lost))
    assert said.count(b"\n") == lost + 1, "no line is torn"
    assert said.splitlines()[-1].endswith(
        b'WARNING log lines were lost since_start=10 reason="nobody read them, or the disk was full"'
    )
    log(to, LINE, lost + 10)
    said = reader.read()
    assert numbers(said) == [lost + 10] and b"lost" not in said, "that is told once"


def test_losses_are_added_up(reader: Reader) -> None:
    to = writer(reader.writing)
    first = fill(to)
    while to.flush() or reader.read():
        pass
    fill(to, first + 1)
    said = b""
    while to.flush() or (piece := reader.read()):
        said += piece
    assert said.splitlines()[-1].count(b"since_start=2 ")


def test_the_descriptor_stays_as_others_want_it(reader: Reader) -> None:
    before = fcntl.fcntl(reader.writing, fcntl.F_GETFL)
    to = writer(reader.writing)
    fill(to)
    assert fcntl.fcntl(reader.writing, fcntl.F_GETFL) == before and os.get_blocking(reader.writing)
    while to.flush() or reader.read():
        pass
    to.close()
    os.write(reader.writing, b"still open\n")


def test_a_reader_that_is_gone_is_no_error(reader: Reader) -> None:
    to = writer(reader.writing)
    os.close(reader.reading)
    for number in range(3):
        log(to, LINE, number)
    assert to.lost == 3, "those, and not the lines that tell of them"
    to.close()


def test_the_last_lines_are_waited_for_but_not_for_long(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logwriter, "LAST_WORDS", 60.0)
    to = writer(reader.writing)
    lost = fill(to)
    said: list[bytes] = []

    def read() -> None:
        while piece := os.read(reader.reading, 4096):
            said.append(piece)

    thread = threading.Thread(target=read)
    thread.start()
    to.close()
    os.close(reader.writing)
    thread.join()
    assert numbers(b"".join(said)) == list(range(lost))
    monkeypatch.setattr(logwriter, "LAST_WORDS", 0.01)
    reading, writing = os.pipe()
    hanging = writer(writing)
    fill(hanging)
    hanging.close()
    os.close(reading)
    os.close(writing)


def test_a_line_that_cannot_be_made_stops_nobody(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    to = writer(reader.writing)
    log(to, "line %d ", "not a number")
    log(to, LINE, 1)
    assert numbers(reader.read()) == [1]


# -- files


def test_a_file_that_others_write_to_as_well_keeps_its_order(tmp_path: Path) -> None:
    """As in ``mcencrypt daemon 2>log``: what the program prints comes where it belongs."""
    with open(tmp_path / "log", "wb", buffering=0) as file:
        to = writer(file.fileno())
        log(to, LINE, 1)
        file.write(b"printed\n")
        log(to, LINE, 2)
        to.close()
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert [numbers(line) for line in lines] == [[1], [], [2]] and lines[1] == b"printed"


def test_a_full_disk_loses_lines_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "log"
    to = writer(open_file(file), file)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        for number in range(5):
            log(to, LINE, number)
    log(to, LINE, 5)
    first, second = file.read_bytes().splitlines()
    assert b"since_start=5 " in first and numbers(second) == [5]


def test_a_file_of_our_own_has_an_end(tmp_path: Path) -> None:
    file = tmp_path / "log"
    to = writer(open_file(file), file, 1000)
    for number in range(100):
        log(to, LINE, number)
        assert file.stat().st_size <= 1000
    kept = [number for name in ("log.1", "log") for number in numbers((tmp_path / name).read_bytes())]
    assert kept == list(range(100 - len(kept), 100)) and 3 < len(kept) <= 8
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and to.lost == 0


def test_a_file_that_somebody_put_aside_is_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "log"
    to = writer(open_file(file), file, 1000)
    log(to, LINE, 1)
    file.rename(tmp_path / "log-2026")
    (tmp_path / "log.1").write_text("theirs")
    for number in range(2, 7):
        log(to, LINE, number)
    assert numbers((tmp_path / "log-2026").read_bytes())[0] == 1 and numbers(file.read_bytes())[-1] == 6
    assert (tmp_path / "log.1").read_text() == "theirs"


def test_a_file_that_can_be_put_nowhere_has_an_end_all_the_same(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "log"
    file.parent.mkdir()
    descriptor = open_file(file)
    to = writer(descriptor, file, 1000)
    file.parent.rename(tmp_path / "elsewhere")
    for number in range(100):
        log(to, LINE, number)
    said = (tmp_path / "elsewhere" / "log").read_bytes()
    assert len(said) <= 1000 and numbers(said)[-1] == 99


@pytest.mark.subprocesses
def test_what_is_printed_stays_in_the_file_when_it_turns(tmp_path: Path) -> None:
    program = (
        "import logging, os, sys\nfrom pathlib import Path\nfrom mcencrypt import logs, logwriter\n"
        "logwriter.LogWriter.__init__.__defaults__ = (None, 1000)\n"
        "logs.setup('info', file=Path(sys.argv[1]))\n"
        "for number in range(20):\n    logging.info('line %d ' + 'x' * 200, number)\n"
        "os.write(2, b'a traceback\\n')\nlogging.info('the end')\n"
    )
    file = tmp_path / "log"
    with open(file, "ab") as out:
        words = [sys.executable, "-c", program, str(file)]
        subprocess.run(words, stdout=out, stderr=out, check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)})
    lines = [*(tmp_path / "log.1").read_bytes().splitlines(), *file.read_bytes().splitlines()]
    assert lines[-2] == b"a traceback" and lines[-1].endswith(b"INFO the end") and file.stat().st_size <= 1000


# -- set up


@pytest.fixture
def root() -> Iterator[None]:
    """The root logger is put back."""
    logger = logging.getLogger()
    before, level, raising = list(logger.handlers), logger.level, logging.raiseExceptions
    yield
    logs.setup("info", stream=sys.stderr)
    logger.handlers[:] = before
    logger.setLevel(level)
    logging.raiseExceptions = raising


@pytest.mark.usefixtures("root")
def test_setting_up_writes_to_a_file_and_flushes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.setup("info", form="json", file=tmp_path / "log")
    logging.getLogger("x").info("one")
    (handler,) = logging.getLogger().handlers
    flushed: list[bool] = []
    monkeypatch.setattr(handler, "flush", lambda: flushed.append(True))
    logs.flush()
    assert '"message": "one"' in (tmp_path / "log").read_text() and flushed == [True]
    with pytest.raises(OSError, match="No such file"):
        logs.setup("info", file=tmp_path / "no" / "log")


@pytest.mark.usefixtures("root")
def test_a_link_is_no_log_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        logs.setup("info", file=tmp_path / "link")
    assert not (tmp_path / "target").exists()
