"""What is on the wire: captures of an interface, and the search for what must not be in them."""

from __future__ import annotations

import ipaddress
import json
import mmap
import os
import struct
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from . import nursery
from .host import Host
from .namespace import PATIENCE, LabError
from .nursery import importable
from .packets import locate

_MAGIC = {0xA1B2C3D4: 1e-6, 0xA1B23C4D: 1e-9}


@dataclass(frozen=True)
class Segment:
    """A TCP segment as it was captured. Its checksum means nothing: offloads finish it after the capture."""

    #: Seconds since the epoch.
    time: float
    source: str
    source_port: int
    destination: str
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    payload: bytes

    @property
    def flow(self) -> tuple[str, int, str, int]:
        """One direction of one connection."""
        return self.source, self.source_port, self.destination, self.destination_port


class Recording:
    """A pcap file of Ethernet frames."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def frames(self) -> Iterator[tuple[float, memoryview]]:
        """Time (seconds since the epoch) and bytes of each frame. The views are valid during the iteration only.

        A last frame that is cut off is left out. Raises LabError for what is no pcap file of Ethernet frames.
        """
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(24)
            order = "<" if header[:4] in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1") else ">"
            if len(header) < 24 or struct.unpack(order + "I", header[:4])[0] not in _MAGIC:
                raise LabError(f"{self.path}: not a pcap file")
            unit = _MAGIC[struct.unpack(order + "I", header[:4])[0]]
            if struct.unpack(order + "I", header[20:])[0] != 1:
                raise LabError(f"{self.path}: not a capture of Ethernet frames")
            with (
                mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped,
                memoryview(mapped) as view,
            ):
                offset = 24
                while offset + 16 <= size:
                    seconds, rest, kept, _ = struct.unpack_from(order + "IIII", view, offset)
                    offset += 16
                    if offset + kept > size:
                        return
                    with view[offset : offset + kept] as frame:
                        yield seconds + rest * unit, frame
                    offset += kept

    def segments(self, port: int | None = None) -> Iterator[Segment]:
        """The TCP segments, IPv4 and IPv6, from or to `port` or all.

        What a small snaplen cut off is left out.
        """
        for time, frame in self.frames():
            where = locate(frame)
            if where is None:
                continue
            start, data, end = where
            ports = struct.unpack_from(">HH", frame, start)
            if port is not None and port not in ports:
                continue
            addresses = bytes(frame[26:34]) if frame[14] >> 4 == 4 else bytes(frame[22:54])
            half = len(addresses) // 2
            sequence, acknowledgement = struct.unpack_from(">II", frame, start + 4)
            yield Segment(
                time,
                _text(addresses[:half]),
                ports[0],
                _text(addresses[half:]),
                ports[1],
                sequence,
                acknowledgement,
                frame[start + 13],
                bytes(frame[data:end]),
            )

    def search(self, markers: Iterable[bytes]) -> dict[bytes, int]:
        """How often each marker is in the capture: within any frame, headers included, and across TCP
        segments.

        Every frame counts, retransmissions too. What lies across a segment boundary is found in stream order,
        however the segments were captured.
        """
        wanted = list(markers)
        counts = dict.fromkeys(wanted, 0)
        streams: dict[bytes, dict[int, tuple[int, bytes, bytes]]] = defaultdict(dict)
        edge = max(map(len, wanted), default=1) - 1
        for _, frame in self.frames():
            data = bytes(frame)
            for marker in wanted:
                counts[marker] += data.count(marker)
            where = locate(frame)
            if where and where[1] < where[2] and edge:
                start, begin, end = where
                addresses = data[26:34] if data[14] >> 4 == 4 else data[22:54]
                payload = data[begin:end]
                sequence = int.from_bytes(data[start + 4 : start + 8], "big")
                streams[addresses + data[start : start + 4]].setdefault(
                    sequence, (len(payload), payload[:edge], payload[-edge:])
                )
        for stream in streams.values():
            for marker, count in _straddling(stream, wanted, edge).items():
                counts[marker] += count
        return counts


def _straddling(stream: dict[int, tuple[int, bytes, bytes]], markers: list[bytes], edge: int) -> dict[bytes, int]:
    """Markers that begin in one segment of a stream and end in a later one."""
    counts = dict.fromkeys(markers, 0)
    first = next(iter(stream))
    # order around the sequence number seen first, so that a wrap at 2^32 is no boundary
    ordered = sorted(stream, key=lambda number: (number - first + (1 << 31)) & 0xFFFFFFFF)
    tail, expected = b"", None
    for sequence in ordered:
        length, head, end = stream[sequence]
        if sequence != expected:
            if expected is not None and (expected - sequence) & 0xFFFFFFFF < 1 << 31:
                # the rest of a segment that was sent again in another cut
                if (expected - sequence - length) & 0xFFFFFFFF < 1 << 31:
                    continue
                skip = (expected - sequence) & 0xFFFFFFFF
                head = head[skip:]
            else:
                tail = b""
        window = tail + head
        for marker in markers:
            place = window.find(marker)
            while 0 <= place < len(tail):
                counts[marker] += place + len(marker) > len(tail)
                place = window.find(marker, place + 1)
        tail = ((tail + head)[-edge:] if length <= edge else end) if edge else b""
        expected = (sequence + length) & 0xFFFFFFFF
    return counts


def _text(address: bytes) -> str:
    return str(ipaddress.ip_address(address))


class Capture(Recording):
    """Records everything that passes an interface of a host while the context lasts (`with Capture(...) as
    wire`).

    When the context is entered the recording runs; when it is left the file is complete. `path` is in the
    lab's directory unless given.
    """

    def __init__(self, host: Host, interface: str, path: Path | None = None, *, snaplen: int = 262144) -> None:
        super().__init__(path or host.lab.log_file(host.name, interface).with_suffix(".pcap"))
        self.host = host
        self.interface = interface
        self.snaplen = snaplen
        #: Packets recorded, known when it has stopped.
        self.packets = 0
        #: Packets the kernel dropped because the recorder was too slow.
        self.dropped = 0
        self._recorder: nursery.Started | None = None

    def start(self) -> None:
        """Begin; returns when packets are being recorded."""
        argv = [
            sys.executable,
            "-m",
            "lab.recorder",
            self.interface,
            str(self.path),
            "--snaplen",
            str(self.snaplen),
        ]
        stdin, end = os.pipe()
        said, stdout = os.pipe()
        self._end, self._said = open(end, "wb"), open(said)  # noqa: SIM115  # both are closed when it has ended
        with open(stdin, "rb"), open(stdout, "wb"), open(self._problems, "wb") as problems, self.host.enter():
            self._recorder = nursery.start(argv, (stdin, stdout, problems.fileno()), env=os.environ | importable())
        if not self._said.readline():
            recorder, self._recorder = self._recorder, None
            self._ended(recorder)
            raise LabError(f"no capture of {self.interface} on {self.host.name}: {self._problem()}")

    def stop(self) -> None:
        """End; what had passed before is in the file."""
        if self._recorder is None:
            return
        recorder, self._recorder = self._recorder, None
        out, code = self._ended(recorder)
        if code:
            raise LabError(f"capture of {self.interface} on {self.host.name} failed: {self._problem()}")
        counts = json.loads(out)
        self.packets, self.dropped = counts["packets"], counts["dropped"]

    def _ended(self, recorder: nursery.Started) -> tuple[str, int]:
        with self._end, self._said:
            self._end.close()
            return self._said.read(), recorder.wait(PATIENCE)

    @property
    def _problems(self) -> Path:
        return self.path.with_suffix(".problems")

    def _problem(self) -> str:
        return self._problems.read_text(errors="replace").strip()[-300:]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
