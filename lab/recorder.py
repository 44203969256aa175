"""The program behind `wire.Capture`: writes what passes an interface to a pcap file, until its input is
closed.

A process of its own, so that a busy test does not make it lose packets. Prints one JSON line when it listens
and one with the counts when it is done.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import struct
import sys
import time

_ETH_P_ALL, _SOL_PACKET, _PACKET_STATISTICS = 3, 263, 6
_SO_RCVBUFFORCE = 33
_BUFFER = 256 << 20
_LARGEST = 262144
_LINKTYPE_ETHERNET = 1
_NANOSECONDS = 0xA1B23C4D


def record(interface: str, path: str, snaplen: int) -> dict[str, int]:
    """Record until stdin is closed; returns how many packets were seen, and how many the kernel had to
    drop.
    """
    packet = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    packet.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    packet.bind((interface, _ETH_P_ALL))
    packet.setblocking(False)
    seen = 0
    buffer = bytearray(_LARGEST)
    view = memoryview(buffer)
    with open(path, "wb", buffering=1 << 20) as out, selectors.DefaultSelector() as selector:
        out.write(struct.pack("<IHHiIII", _NANOSECONDS, 2, 4, 0, 0, snaplen, _LINKTYPE_ETHERNET))
        out.flush()
        selector.register(packet, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print(json.dumps({"event": "listening"}), flush=True)
        running = True
        while running:
            ready = [key.fileobj for key, _ in selector.select()]
            # what is in the buffer when the end is asked for still counts
            running = sys.stdin not in ready
            while True:
                try:
                    length = packet.recv_into(buffer)
                except BlockingIOError:
                    break
                except OSError:
                    # the interface went away
                    running = False
                    break
                seconds, rest = divmod(time.time_ns(), 1_000_000_000)
                kept = min(length, snaplen)
                out.write(struct.pack("<IIII", seconds, rest, kept, length))
                out.write(view[:kept])
                seen += 1
            out.flush()
    _, dropped = struct.unpack("II", packet.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
    return {"packets": seen, "dropped": dropped}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("interface")
    parser.add_argument("path")
    parser.add_argument("--snaplen", type=int, default=_LARGEST)
    options = parser.parse_args()
    print(json.dumps(record(options.interface, options.path, options.snaplen)), flush=True)


if __name__ == "__main__":
    main()
