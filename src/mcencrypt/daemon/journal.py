"""What must survive the daemon: which connections were encrypted, and where their streams stood.

A file in `run_dir` (a tmpfs), mapped into memory, one fixed slot per flow, written as packets pass and without a
system call. It holds no keys. The next process reads it to send both sides of each connection a reset with exact
numbers; after a SIGKILL as after an upgrade both applications redial at once.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

import mcencrypt.core.prim as prim
from mcencrypt.core.flow import Flow
from mcencrypt.core.table import MAX_FLOWS
from mcencrypt.daemon.mapped import map_file

FILE_NAME: Final = "flows"
_SLOT: Final = 64
_SIZE: Final = MAX_FLOWS * _SLOT
_who = Struct("=B3x36s")
_where = Struct("=QQ")  # prim.Slot
_WHERE_AT: Final = 40
_MASK32: Final = 0xFFFFFFFF


class Remains(NamedTuple):
    """A connection of an earlier process: its key (ours first) and the last sequence numbers on the network."""

    key: bytes
    seq: int
    ack: int


class Journal:
    """The table of this process. Its capacity is the engine's."""

    def __init__(self, run_dir: Path) -> None:
        """Reserves the file, and leaves what an earlier process wrote there until `begin`. Raises OperatorError."""
        self._map = map_file(run_dir / FILE_NAME, _SIZE)
        #: What an earlier process left: its connections, which nobody can translate any more.
        self.remains = list(_remains(self._map))
        self._region = prim.Region(memoryview(self._map))
        self._free = list(range(MAX_FLOWS - 1, -1, -1))
        self._slots: dict[bytes, int] = {}

    def begin(self) -> None:
        """From now on the file is this process' own. Raises nothing: call it when nothing can fail any more."""
        self._map[:] = bytes(_SIZE)

    def on_flow(self, flow: Flow, present: bool) -> None:
        """The engine's hook: a flow has come or gone."""
        if not present:
            slot = self._slots.pop(flow.key, None)
            if slot is not None:
                self._map[slot * _SLOT] = 0
                self._free.append(slot)
            return
        if not self._free or flow.key in self._slots:
            return
        slot = self._slots[flow.key] = self._free.pop()
        at = slot * _SLOT
        _who.pack_into(self._map, at, len(flow.key), flow.key.ljust(36, b"\0"))
        flow.positions = prim.Slot(self._region, slot * _SLOT + _WHERE_AT)
        flow.note_positions()


def _remains(table: mmap.mmap) -> list[Remains]:
    found = []
    for at in range(0, _SIZE, _SLOT):
        length, key = _who.unpack_from(table, at)
        if length in (12, 36):
            seq, ack = _where.unpack_from(table, at + _WHERE_AT)
            found.append(Remains(key[:length], seq & _MASK32, ack & _MASK32))
    return found
