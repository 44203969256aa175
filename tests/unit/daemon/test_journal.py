"""What is kept of flows for the next daemon: in a file that is all there, and is not given up too early."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from mcencrypt.core.flow import Flow
from mcencrypt.core.paths import Paths
from mcencrypt.core.table import MAX_FLOWS
from mcencrypt.core.verdict import Outcome
from mcencrypt.daemon.journal import FILE_NAME, Journal, Remains
from mcencrypt.errors import OperatorError
from tests.helpers.halves import make_flow

SIZE = MAX_FLOWS * 64
V4 = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + (40000).to_bytes(2) + (7331).to_bytes(2)
V6 = bytes(15) + b"\1" + bytes(15) + b"\2" + V4[-4:]


def flow(key: bytes = V4, isn: int = 1000, sent: int = 5, peer_isn: int = 2**32 - 3, edge: int = 7) -> Flow:
    """As much of a flow as is kept."""
    made = make_flow(True, Outcome(), Paths(lambda path: 1500))
    made.key, made.egress.isn, made.egress.sent = key, isn, sent
    made.ingress.isn, made.ingress.ledger.wire_edge = peer_isn, edge
    return made


def left(run_dir: Path) -> list[Remains]:
    """What the next daemon would find."""
    return Journal(run_dir).remains


def test_flows_are_found_where_they_stood(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.remains == []
    journal.begin()
    four, six, gone = flow(), flow(V6), flow(V4[:-1] + b"\0")
    for one in (four, six, gone):
        journal.on_flow(one, True)
    four.egress.sent = 2**32 + 6
    four.note_positions()
    journal.on_flow(gone, False)
    assert sorted(left(tmp_path)) == [Remains(V6, 1006, 5), Remains(V4, 1007, 5)]


def test_what_an_earlier_daemon_left_stays_until_this_one_begins(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    first.begin()
    first.on_flow(flow(), True)
    assert len(left(tmp_path)) == len(left(tmp_path)) == 1, "daemons that did not get as far"
    last = Journal(tmp_path)
    last.begin()
    assert len(last.remains) == 1 and left(tmp_path) == []


def test_the_file_has_no_hole(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    os.truncate(tmp_path / FILE_NAME, SIZE)  # as they were made once
    Journal(tmp_path)
    found = (tmp_path / FILE_NAME).stat()
    assert found.st_size == SIZE <= found.st_blocks * 512 and found.st_mode & 0o777 == 0o600


def test_a_disk_without_room_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        OperatorError, match=r"^cannot keep .*/flows, of 1 MB: No space left on device; make room there"
    ):
        Journal(tmp_path)


@pytest.mark.parametrize("kind", ["link", "second name", "fifo", "folder of others"])
def test_what_is_not_ours_is_neither_read_nor_written(tmp_path: Path, kind: str) -> None:
    file, other = tmp_path / FILE_NAME, tmp_path / "other"
    journal = Journal(tmp_path)
    journal.begin()
    journal.on_flow(flow(), True)
    file.rename(other)
    before = other.read_bytes()
    if kind == "link":
        file.symlink_to(other)
    elif kind == "second name":
        file.hardlink_to(other)
    elif kind == "fifo":
        os.mkfifo(file)
    else:
        file.mkdir()
        with pytest.raises(OperatorError, match="cannot keep"):
            Journal(tmp_path)
        return
    again = Journal(tmp_path)
    assert again.remains == []
    again.begin()
    assert other.read_bytes() == before and not file.is_symlink()


def test_garbage_is_no_connection(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"\xff" * (2 * SIZE))
    assert left(tmp_path) == [] and (tmp_path / FILE_NAME).stat().st_size == SIZE


def test_a_full_table_and_a_flow_twice(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.begin()
    for number in range(MAX_FLOWS + 1):
        journal.on_flow(flow(V4[:4] + number.to_bytes(4) + V4[8:]), True)
    journal.on_flow(flow(V4[:4] + bytes(4) + V4[8:]), True)
    assert len(left(tmp_path)) == MAX_FLOWS
