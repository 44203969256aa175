"""Packets from the network interfaces as they pass: what tcpdump would write, without a file.

An AF_PACKET socket (packet(7)) of the network layer: it sees incoming packets before netfilter and outgoing ones
behind it, and so what is on the wire, merged and unsegmented as offloads have them.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections import Counter
from collections.abc import Iterator, Sequence

from mcencrypt.errors import OperatorError
from mcencrypt.reading.capture import Segment, read_segment
from mcencrypt.reading.frames import carried
from mcencrypt.reading.packetfilter import NOTHING, tcp_filter

_ETH_P_ALL = 3
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_LARGEST = 256 * 1024
#: Bytes of packets that may wait for us in the kernel.
BUFFER = 32 << 20
BURST = 256

# struct sockaddr_ll: family, protocol (big-endian), interface (0: all), hardware type, packet type, address.
_ADDRESS = struct.Struct("=H2siHBB8x")
_STATISTICS = struct.Struct("=II")
_PROGRAM = struct.Struct("@HP")


class Tap:
    """TCP segments from or to some ports on all interfaces but loopback, of the network namespace of this thread."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Raises OperatorError without CAP_NET_RAW."""
        self._ports = frozenset(ports)
        #: Packets that could not be read, by reason.
        self.oddities: Counter[str] = Counter()
        #: Packets that came in.
        self.packets = 0
        #: Packets for which there was no room while we were busy, known once it has stopped.
        self.dropped = 0
        self._buffer = bytearray(_LARGEST)
        self._view = memoryview(self._buffer)
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        except PermissionError:
            raise OperatorError("you may not capture packets: run this as root (CAP_NET_RAW)") from None
        try:
            self._open(ports)
        except OSError as error:
            self._socket.close()
            raise OperatorError(f"packets cannot be captured: {error.strerror}: run this as root") from None

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> Iterator[Segment]:
        """What has come in, a burst of it at most. Never blocks."""
        for _ in range(BURST):
            try:
                length, address = self._socket.recvfrom_into(self._buffer)
            except BlockingIOError:
                return
            except OSError:
                continue  # an interface went down (ENETDOWN), which the socket reports once
            self.packets += 1
            # A tag that was not left to the network card stands before the packet on some kernels.
            packet = carried(address[1], bytes(self._view[:length]), self.oddities)
            segment = read_segment(packet, 0, self.oddities) if packet is not None else None
            if segment is not None and (segment.source_port in self._ports or segment.destination_port in self._ports):
                yield segment

    def stop(self) -> None:
        """Take in nothing more; what waits can still be had from `rest`."""
        self._attach(NOTHING)
        _, dropped = _STATISTICS.unpack(self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size))
        self.dropped += dropped

    def rest(self) -> Iterator[Segment]:
        """All that had come in when it was stopped."""
        before = -1
        while before != self.packets:
            before = self.packets
            yield from self.read()

    def close(self) -> None:
        self._socket.close()

    def _open(self, ports: Sequence[int]) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._attach(tcp_filter(ports))
        self._socket.setblocking(False)
        # Only now does it begin to receive. socket.bind() takes one interface by name; this takes all.
        address = _ADDRESS.pack(socket.AF_PACKET, _ETH_P_ALL.to_bytes(2), 0, 0, 0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.bind(self._socket.fileno(), address, len(address)):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def _attach(self, code: bytes) -> None:
        """Replace the filter, in one step."""
        kept = ctypes.create_string_buffer(code, len(code))
        program = _PROGRAM.pack(len(code) // 8, ctypes.addressof(kept))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
