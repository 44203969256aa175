"""Checked transfers: pseudo-random streams, many at once in one process, hashed at both ends.

Nothing is framed: a stream is what one side writes until it shuts its side down, and its SHA-256 is its name.
So sizes of a single byte are possible, and the protocol has no bytes of its own to hide a mistake in.
"""

from __future__ import annotations

import hashlib
import random
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

CHUNK = 256 * 1024
_RECEIVE = 1 << 20
LARGEST_MIXED = 8 << 20

MODES = {
    "both": "both sides send at once, from the start",
    "client-first": "the server starts when the first byte has come",
    "server-first": "the client starts when the first byte has come",
    "half-close": "the client sends and shuts down; the server starts when it has seen the end",
    "closing": "both sides send at once; the server closes when all has come and gone, and then the client",
}


def content(seed: int, side: str, index: int, length: int) -> Iterator[memoryview]:
    """The stream of that side ("client", "server") and connection, in chunks; the same for the same
    arguments.

    Every 16 KB has a number of its own, so that no misplaced piece can look like the right one.
    """
    base = random.Random(f"{seed} {side}").randbytes(16 * 1024)
    position = 0
    while position < length:
        parts = []
        for block in range(position // len(base), (position + CHUNK) // len(base)):
            parts += [struct.pack(">QQ", index, block), base[16:]]
        yield memoryview(b"".join(parts))[: length - position]
        position += CHUNK


def mixed_size(seed: int, side: str, index: int) -> int:
    """A size from 1 B to 8 MB, evenly spread over the orders of magnitude; the ends themselves come first."""
    if index < 2:
        return (1, LARGEST_MIXED)[index]
    return int(LARGEST_MIXED ** random.Random(f"{seed} {side} {index}").random())


@dataclass(frozen=True)
class Plan:
    """What one side of a transfer does on each connection."""

    #: "client" or "server".
    side: str
    mode: str
    seed: int
    #: Bytes to send on the connection of that index, in the order of dialling or accepting.
    size: Callable[[int], int]
    hashing: bool = True
    #: Whether each byte that is read is compared with what the other side writes there.
    comparing: bool = False
    #: Bytes that the other side sends; the server must know it where it is to close first.
    awaited: int = 0


class Comparison:
    """Counts bytes of a stream that are not those of `content`, of the connection that its first bytes name."""

    def __init__(self, seed: int, side: str, index: int) -> None:
        """`side`: who wrote it. `index`: of the connection, if the stream does not name one."""
        self._seed, self._side, self._index = seed, side, index
        self._expected: Iterator[memoryview] | None = None
        self._chunk = memoryview(b"")
        self._held = b""
        #: Bytes that are wrong.
        self.wrong = 0

    def take(self, data: bytes) -> None:
        """More of the stream."""
        if self._expected is None:
            self._held += data
            if len(self._held) < 8:
                return
            named, data = int.from_bytes(self._held[:8], "big"), self._held
            self._expected = content(self._seed, self._side, named if named < 1000 else self._index, 1 << 40)
        while data:
            self._chunk = self._chunk or next(self._expected)
            size = min(len(data), len(self._chunk))
            if data[:size] != self._chunk[:size]:
                differ = int.from_bytes(data[:size], "big") ^ int.from_bytes(self._chunk[:size], "big")
                self.wrong += size - differ.to_bytes(size, "big").count(0)
            data, self._chunk = data[size:], self._chunk[size:]


#: A size that no transfer reaches: such a stream ends when it is told to.
ENDLESS = 1 << 62


class Transfer:
    """One connection's two streams, as a non-blocking socket lets them flow."""

    def __init__(self, connection: socket.socket, plan: Plan, index: int) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.index = index
        self.error: str | None = None
        self._plan = plan
        self._chunks = content(plan.seed, plan.side, index, plan.size(index))
        self._pending = memoryview(b"")
        self._begun = time.monotonic()
        self._ended = self._begun
        self._last_read: float | None = None
        self._stall = 0.0
        self._sent = self.received = 0
        self._sent_hash, self._received_hash = hashlib.sha256(), hashlib.sha256()
        other = "server" if plan.side == "client" else "client"
        self._comparison = Comparison(plan.seed, other, index) if plan.comparing else None
        self._sending_done = self._receiving_done = False
        self._may_send = (plan.side, plan.mode) not in (
            ("server", "client-first"),
            ("client", "server-first"),
            ("server", "half-close"),
        )

    def wants(self) -> int:
        """The selector events it waits for; 0 when both streams have ended or failed."""
        if self.error:
            return 0
        read = 0 if self._receiving_done else selectors.EVENT_READ
        return read | (selectors.EVENT_WRITE if self._may_send and not self._sending_done else 0)

    def read(self, buffer: memoryview) -> None:
        """Take what has come."""
        count = self.socket.recv_into(buffer)
        now = time.monotonic()
        if self._last_read is not None:
            self._stall = max(self._stall, now - self._last_read)
        self._last_read = now
        self._receiving_done = not count
        self.received += count
        if self._plan.hashing:
            self._received_hash.update(buffer[:count])
        if self._comparison:
            self._comparison.take(bytes(buffer[:count]))
        if self._plan.mode != "half-close" or self._receiving_done:
            self._may_send = True
        self._close()
        self._ended = now

    def write(self) -> None:
        """Send what fits."""
        if not self._pending:
            self._pending = next(self._chunks, self._pending)
            if self._plan.hashing:
                self._sent_hash.update(self._pending)
        if self._pending:
            count = self.socket.send(self._pending)
            self._sent += count
            self._pending = self._pending[count:]
        else:
            self._sending_done = True
            if self._plan.mode == "closing":
                self._close()
            else:
                self.socket.shutdown(socket.SHUT_WR)
        self._ended = time.monotonic()

    def _close(self) -> None:
        """Where the server closes first: it awaits no more, once all has come and gone."""
        plan = self._plan
        if (plan.side, plan.mode) == ("server", "closing") and self._sending_done and self.received >= plan.awaited:
            self._receiving_done = True

    def end(self) -> None:
        """Nothing more is begun: the stream ends behind what is being sent."""
        self._chunks = iter(())

    def report(self) -> dict[str, Any]:
        """Counts, hashes, seconds, the longest gap between two reads (seconds), and the error if there was
        one.
        """
        hashing = self._plan.hashing
        return {
            "index": self.index,
            "sent": self._sent,
            "received": self.received,
            "sent_sha256": self._sent_hash.hexdigest() if hashing else None,
            "received_sha256": self._received_hash.hexdigest() if hashing else None,
            "seconds": round(self._ended - self._begun, 6),
            "longest_stall": round(self._stall, 6),
            "tampered": self._comparison.wrong if self._comparison else None,
            "error": self.error,
        }


class Exchange:
    """All transfers of one process, in one loop, until each has ended."""

    def __init__(self, plan: Plan, connections: int, deadline: float) -> None:
        """`deadline`: seconds for everything; what is not done by then is an error."""
        self._plan = plan
        self._connections = connections
        self._deadline = time.monotonic() + deadline
        self._selector = selectors.DefaultSelector()
        #: In the order in which they were added.
        self.transfers: list[Transfer] = []
        self._listener: socket.socket | None = None
        self._buffer = memoryview(bytearray(_RECEIVE))
        self._begun: float | None = None
        self._told = False

    def accept_from(self, listener: socket.socket) -> None:
        """Serve what dials this listening socket."""
        listener.setblocking(False)
        self._listener = listener
        self._selector.register(listener, selectors.EVENT_READ)

    def add(self, connection: socket.socket) -> None:
        """Take part in an established connection."""
        self._begun = self._begun or time.monotonic()
        transfer = Transfer(connection, self._plan, len(self.transfers))
        if self._told:
            transfer.end()
        self.transfers.append(transfer)
        self._selector.register(connection, transfer.wants(), transfer)
        if self._listener and len(self.transfers) == self._connections:
            self._selector.unregister(self._listener)

    def end(self, *_: object) -> None:
        """All streams end where they are; may be a signal's handler."""
        self._told = True
        for transfer in self.transfers:
            transfer.end()

    def run(self) -> dict[str, Any]:
        """Until all connections have ended; returns the report."""
        while len(self.transfers) < self._connections or len(self._selector.get_map()):
            left = self._deadline - time.monotonic()
            if left <= 0:
                break
            for key, events in self._selector.select(left):
                if key.fileobj is self._listener:
                    self.add(self._listener.accept()[0])
                else:
                    self._step(key.data, key.events, events)
        for transfer in self.transfers:
            if transfer.wants():
                transfer.error = "not done in time"
        return self._report()

    def _step(self, transfer: Transfer, waited: int, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                transfer.read(self._buffer)
            if events & selectors.EVENT_WRITE:
                transfer.write()
        except BlockingIOError:
            pass
        except OSError as problem:
            transfer.error = type(problem).__name__
        wanted = transfer.wants()
        if not wanted:
            self._selector.unregister(transfer.socket)
            transfer.socket.close()
        elif wanted != waited:
            self._selector.modify(transfer.socket, wanted, transfer)

    def _report(self) -> dict[str, Any]:
        connections = [transfer.report() for transfer in self.transfers]
        seconds = time.monotonic() - (self._begun or time.monotonic())
        received = sum(report["received"] for report in connections)
        return {
            "event": "report",
            "side": self._plan.side,
            "mode": self._plan.mode,
            "sent": sum(report["sent"] for report in connections),
            "received": received,
            "seconds": round(seconds, 6),
            "received_gbps": received * 8e-9 / seconds if seconds else 0.0,
            "longest_stall": max((report["longest_stall"] for report in connections), default=0.0),
            "missing": self._connections - len(connections),
            "errors": [f"{report['index']}: {report['error']}" for report in connections if report["error"]],
            "connections": connections,
        }


def differences(client: dict[str, Any], server: dict[str, Any]) -> list[str]:
    """What in two `Exchange` reports does not fit together, a line each; none if all streams are
    identical.
    """
    found = [f"{side['side']}: {error}" for side in (client, server) for error in side["errors"]]
    found += [f"{side['side']}: {side['missing']} connections missing" for side in (client, server) if side["missing"]]

    def streams(report: dict[str, Any], out: str, back: str) -> list[tuple[Any, ...]]:
        return sorted(
            tuple(connection[key] for key in (out, f"{out}_sha256", back, f"{back}_sha256"))
            for connection in report["connections"]
        )

    left, right = streams(client, "sent", "received"), streams(server, "received", "sent")
    if left != right:
        wrong = sum(one != other for one, other in zip(left, right, strict=False)) + abs(len(left) - len(right))
        found.append(f"{wrong} of {len(left)} connections did not deliver what was sent")
    return found
