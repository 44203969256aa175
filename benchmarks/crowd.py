"""Many connections at once: who serves them, and who dials them. Programs for hosts of the lab.

    python -m benchmarks.crowd serve PORT
    python -m benchmarks.crowd dial ADDRESS PORT --count 10000 --at-once 64

The server returns what it gets. The dialler opens its connections, so many attempts at once, sends a byte on each, says
how long that took, and holds them until it is ended. A line of JSON each.
"""

from __future__ import annotations

import argparse
import errno
import json
import resource
import select
import signal
import socket
import time


def _say(**details: object) -> None:
    print(json.dumps(details), flush=True)


def serve(options: argparse.Namespace) -> None:
    """For ever."""
    listening = socket.create_server(("::", options.port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    listening.setblocking(False)
    waiting, sockets = select.epoll(), dict[int, socket.socket]()
    waiting.register(listening, select.EPOLLIN)
    _say(event="listening")
    while True:
        for fd, _ in waiting.poll():
            if fd == listening.fileno():
                try:
                    while True:
                        one, _ = listening.accept()
                        sockets[one.fileno()] = one
                        waiting.register(one, select.EPOLLIN)
                except BlockingIOError:
                    continue
            try:
                data = sockets[fd].recv(65536)
                sockets[fd].sendall(data)
            except OSError:
                data = b""
            if not data:
                sockets.pop(fd).close()


def dial(options: argparse.Namespace) -> None:
    """All connections, then wait for the end."""
    signal.signal(signal.SIGTERM, lambda *_: exit(0))
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    waiting, begun, failed = select.epoll(), time.monotonic(), 0
    pending, held = dict[int, socket.socket](), list[socket.socket]()
    while len(held) + failed < options.count:
        while len(pending) < options.at_once and len(held) + failed + len(pending) < options.count:
            one = socket.socket(family)
            one.setblocking(False)
            if one.connect_ex((options.address, options.port)) not in (0, errno.EINPROGRESS):
                failed += 1
                continue
            pending[one.fileno()] = one
            waiting.register(one, select.EPOLLOUT)
        for fd, _ in waiting.poll():
            one = pending.pop(fd)
            waiting.unregister(fd)
            if one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                failed += 1
                one.close()
            else:
                one.send(b"x")  # its first record: until that is there a peer has proven nothing, and is one of a few
                held.append(one)
    _say(event="dialled", connected=len(held), failed=failed, seconds=time.monotonic() - begun)
    signal.pause()


def main() -> None:
    """Run the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = made.add_subparsers(required=True)
    server, dialler = what.add_parser("serve"), what.add_parser("dial")
    server.add_argument("port", type=int)
    server.set_defaults(run=serve)
    dialler.add_argument("address")
    dialler.add_argument("port", type=int)
    dialler.add_argument("--count", type=int, default=10_000)
    dialler.add_argument("--at-once", type=int, default=64)
    dialler.set_defaults(run=dial)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    options = made.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
