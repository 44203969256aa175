"""What the operator left switched: the note in state_dir."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.store.keys import load_identity
from mcencrypt.store.position import read_mode, read_switch, write_mode, write_switch


def test_switch_is_on_until_it_was_turned_off(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert read_switch(state)
    for enabled in (False, False, True):
        write_switch(state, enabled)
        assert read_switch(state) is enabled
    assert os.listdir(state) == ["switch"]


@pytest.mark.parametrize("content", [b"", b"of", b"\0\0\0", b"OFF?"])
def test_a_switch_that_cannot_be_read_is_on(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "switch").write_bytes(content)
    assert read_switch(tmp_path)


def test_a_state_directory_that_cannot_be_made_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for attempt in (load_identity, lambda state: write_switch(state, True), read_switch):
        with pytest.raises(OperatorError, match=r"is no folder: look at the path|Not a directory|File exists"):
            attempt(tmp_path / "file" / "state")


def test_a_damaged_note_counts_as_the_stricter_mode(tmp_path: Path) -> None:
    (tmp_path / "mode").write_bytes(b"\xff\xfe")
    assert read_mode(tmp_path) == "require"
    write_mode(tmp_path, "prefer")
    assert read_mode(tmp_path) == "prefer"
    write_mode(tmp_path, None)
    assert read_mode(tmp_path) is None
