"""One who watches the wire and remembers every byte that was ever sent at an offset."""

from __future__ import annotations

from struct import unpack_from

from mcencrypt.core.handshake import HELLO_LENGTH


class Witness:
    """What one side sent on the wire: bytes by offset, the highest end, the windows it announced."""

    def __init__(self) -> None:
        self.isn = -1
        self.bytes, self.mask = bytearray(), bytearray()
        self.end = 0
        self.fin_at: int | None = None
        self.scale: int | None = None
        #: Right edge of the window, as an offset of the other side's stream; and the largest window.
        self.edge = self.largest_window = 0
        #: What it acknowledged of the other side's stream.
        self.acked = 0

    def remember(self, offset: int, data: bytes) -> None:
        end = offset + len(data)
        assert offset >= 0, "data before the start of the stream"
        if len(self.mask) < end:
            self.bytes.extend(bytes(end - len(self.bytes)))
            self.mask.extend(bytes(end - len(self.mask)))
        at = self.mask.find(1, offset, end)
        while at >= 0:
            stop = self.mask.find(0, at, end)
            stop = end if stop < 0 else stop
            assert self.bytes[at:stop] == data[at - offset : stop - offset], (
                "one wire offset was sent with two contents"
            )
            at = self.mask.find(1, stop, end)
        self.bytes[offset:end] = data
        self.mask[offset:end] = b"\1" * len(data)

    def records(self) -> list[tuple[int, int, bool]]:
        """(wire offset, plaintext length, FINAL) of all records; the stream must be made of nothing else."""
        assert all(self.mask), "a hole in what was sent"
        at, found = HELLO_LENGTH, []
        while at < len(self.bytes):
            length = unpack_from("!H", self.bytes, at)[0]
            found.append((at, length & 0x7FFF, length >= 0x8000))
            at += (length & 0x7FFF) + 22
        assert at == len(self.bytes), "the last record is not whole"
        return found
