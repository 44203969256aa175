"""Plaintext for which the local socket has no room, on connections through relays.

A relay fills the window that it is shown with bytes of the stream, and so a record can end behind the window that the
socket offers.  The kernel refuses a segment that does (tcp_sequence), its acknowledgement included, which would stop
both directions.  So the socket gets what fits; the rest waits here until it offers more.
"""

from __future__ import annotations

from typing import Final

from .ingress import Delivery

#: Bytes that wait at most; what does not fit the relay sends again, for nobody has acknowledged it.
LIMIT: Final = 1 << 16


class Withheld:
    """What one socket is still to get, from plain offset `plain` on."""

    __slots__ = ("_data", "_given", "plain")

    def __init__(self, plain: int) -> None:
        self.plain, self._data = plain, bytearray()
        #: Plain offset up to which it was given, and not yet acknowledged.
        self._given = plain

    @property
    def end(self) -> int:
        return self.plain + len(self._data)

    def fit(self, deliveries: list[Delivery], edge: int) -> list[Delivery]:
        """The part of some deliveries that ends before the plain offset `edge`; what follows on it waits here."""
        fitting: list[Delivery] = []
        for plain, end, chunks in deliveries:
            data = b"".join(chunks)
            room = max(0, min(edge, end) - plain)
            if room or end == plain:
                fitting.append(Delivery(plain, plain + room, [data[:room]]))
            self._keep(plain + room, data[room:])
        return fitting

    def _keep(self, plain: int, data: bytes) -> None:
        if not self._data and data:
            self.plain = self._given = plain
        known = self.end - plain
        if 0 <= known < len(data):
            self._data += data[known : known + LIMIT - len(self._data)]
        self._given = min(self._given, max(plain, self.plain))  # it came again: what was given was lost

    def take(self, acked: int, edge: int) -> tuple[int, bytes]:
        """The socket has acknowledged up to `acked`, and has room up to `edge`: what it gets now, and where."""
        if acked > self.plain:
            gone = min(acked - self.plain, len(self._data))
            del self._data[:gone]
            self.plain += gone
        start = max(self._given, self.plain)
        some = bytes(memoryview(self._data)[start - self.plain : max(edge - self.plain, 0)])
        self._given = start + len(some)
        return start, some

    def __bool__(self) -> bool:
        return bool(self._data)
