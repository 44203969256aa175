"""Programs for hosts of the lab: checked transfers, throughput, latency, connection set-up.

    python -m lab.apps serve PORT --bytes 1000000          one end of a checked transfer
    python -m lab.apps dial HOST PORT --bytes 1000000      the other
    python -m lab.apps echo PORT | sink PORT               servers of what follows, until ended
    python -m lab.apps ping | connect | messages HOST PORT against echo
    python -m lab.apps blast HOST PORT --streams 4         against sink

Each prints JSON, one object a line; the last is the result. A failed transfer or run exits with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

from . import streams

_BLOCK = 1 << 20
_SO_MAX_PACING_RATE = 47  # asm-generic/socket.h


def say(**event: Any) -> None:
    """Print one line of JSON."""
    print(json.dumps(event), flush=True)


def listen(options: argparse.Namespace) -> socket.socket:
    """A listening socket for IPv4 and IPv6, announced on stdout."""
    listener = socket.socket(socket.AF_INET6)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    tune(listener, options)
    listener.bind(("::", options.port))
    listener.listen(1024)
    say(event="listening", port=options.port)
    return listener


def tune(sock: socket.socket, options: argparse.Namespace) -> None:
    """Set the socket options of the command line; buffers count only before the connection is made."""
    for name, level, option in (
        ("rcvbuf", socket.SOL_SOCKET, socket.SO_RCVBUF),
        ("sndbuf", socket.SOL_SOCKET, socket.SO_SNDBUF),
        ("nodelay", socket.IPPROTO_TCP, socket.TCP_NODELAY),
        ("pacing", socket.SOL_SOCKET, _SO_MAX_PACING_RATE),
    ):
        if value := getattr(options, name, 0):
            sock.setsockopt(level, option, int(value))


def direct(sock: socket.socket, options: argparse.Namespace) -> None:
    """Set what decides by which way a connection's packets leave, and how they are treated there."""
    if options.device:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, options.device.encode())
    if options.mark:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, options.mark)
    if options.tos and sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, options.tos)
    elif options.tos:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, options.tos)
    if options.priority:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, options.priority)
    if options.source:
        sock.bind((options.source, 0))


def dial(options: argparse.Namespace) -> socket.socket:
    """A new connection to the server of the command line."""
    family, kind, protocol, _, address = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
    if options.uid:
        os.seteuid(options.uid)
    sock = socket.socket(family, kind, protocol)
    if options.uid:
        os.seteuid(0)
    tune(sock, options)
    direct(sock, options)
    sock.settimeout(options.deadline)
    sock.connect(address)
    return sock


def plan(options: argparse.Namespace, side: str) -> streams.Plan:
    """What the command line asks of this side."""

    def size(index: int) -> int:
        if options.endless:
            return streams.ENDLESS
        return streams.mixed_size(options.seed, side, index) if options.mixed else int(options.bytes)

    return streams.Plan(
        side, options.mode, options.seed, size, not options.no_hash, options.compare, int(options.awaited)
    )


def exchange_of(options: argparse.Namespace, side: str) -> streams.Exchange:
    """The transfers of this side, which SIGUSR1 ends where they are."""
    exchange = streams.Exchange(plan(options, side), options.connections, options.deadline)
    signal.signal(signal.SIGUSR1, exchange.end)
    return exchange


def finish(report: dict[str, Any]) -> int:
    """Print a transfer's report; returns the exit code."""
    say(**report)
    return 1 if report["errors"] or report["missing"] else 0


def serve(options: argparse.Namespace) -> int:
    """The listening end of a checked transfer."""
    exchange = exchange_of(options, "server")
    exchange.accept_from(listen(options))
    return finish(exchange.run())


def dial_all(options: argparse.Namespace) -> int:
    """The dialling end of a checked transfer."""
    exchange = exchange_of(options, "client")
    for _ in range(options.connections):
        exchange.add(dial(options))
    return finish(exchange.run())


def per_connection(options: argparse.Namespace, work: Any) -> int:
    """Serve every connection in a thread of its own, for ever."""
    listener = listen(options)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=work, args=(sock,), daemon=True).start()


def echo(options: argparse.Namespace) -> int:
    """Send everything back."""

    def work(sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock:
            try:
                while data := sock.recv(65536):
                    sock.sendall(data)
            except OSError as problem:
                say(event="error", error=type(problem).__name__)

    return per_connection(options, work)


def sink(options: argparse.Namespace) -> int:
    """Read everything; when the dialler has shut down, tell it how many bytes came."""

    def work(sock: socket.socket) -> None:
        buffer = bytearray(_BLOCK)
        total = 0
        with sock:
            try:
                while count := sock.recv_into(buffer):
                    total += count
                sock.sendall(total.to_bytes(8, "big"))
            except OSError as problem:
                say(event="error", error=type(problem).__name__, received=total)

    return per_connection(options, work)


def blast(options: argparse.Namespace) -> int:
    """Send as fast as possible; the rate is what had arrived when the far end said so."""
    block = bytes(_BLOCK)
    received: list[int] = []

    def work(sock: socket.socket, end: float) -> None:
        with sock:
            while time.monotonic() < end:
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)
            received.append(int.from_bytes(receive(sock, 8), "big"))

    sockets = [dial(options) for _ in range(options.streams)]
    begun = time.monotonic()
    threads = [threading.Thread(target=work, args=(sock, begun + options.seconds)) for sock in sockets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    say(
        event="blast",
        streams=options.streams,
        bytes=sum(received),
        seconds=round(seconds, 6),
        gbps=sum(received) * 8e-9 / seconds,
        finished=len(received),
    )
    return 0 if len(received) == options.streams else 1


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly that many bytes. Raises ConnectionError if the connection ended before."""
    got = bytearray()
    while len(got) < size:
        more = sock.recv(size - len(got))
        if not more:
            raise ConnectionError(f"closed after {len(got)} of {size} bytes")
        got += more
    return bytes(got)


def ping(options: argparse.Namespace) -> int:
    """Microseconds of round trips of `--size` bytes on one connection, after 50 that do not count."""
    options.nodelay = True
    message = bytes(range(256)) * (options.size // 256 + 1)
    message = message[: options.size]
    times = []
    with dial(options) as sock:
        for _ in range(options.count + 50):
            begun = time.perf_counter_ns()
            sock.sendall(message)
            if receive(sock, len(message)) != message:
                raise ConnectionError("the echo differs")
            times.append((time.perf_counter_ns() - begun) / 1000)
    say(event="ping", count=options.count, size=options.size, **spread(times[50:]))
    return 0


def connect(options: argparse.Namespace) -> int:
    """Microseconds from connect() to established, and to the first byte back, one connection after
    another.
    """
    options.nodelay = True
    established, first = [], []
    for _ in range(options.count):
        begun = time.perf_counter_ns()
        with dial(options) as sock:
            established.append((time.perf_counter_ns() - begun) / 1000)
            sock.sendall(b"c")
            receive(sock, 1)
            first.append((time.perf_counter_ns() - begun) / 1000)
    say(event="connect", count=options.count, established=spread(established), first_byte=spread(first))
    return 0


def messages(options: argparse.Namespace) -> int:
    """Send `--count` messages of `--size` bytes, each in a segment of its own, and await all of the echo."""
    options.nodelay = True
    sent = b"".join(
        index.to_bytes(4, "big").ljust(options.size, b"m")[: options.size] for index in range(options.count)
    )
    with dial(options) as sock:
        begun = time.monotonic()
        for start in range(0, len(sent), options.size):
            sock.sendall(sent[start : start + options.size])
            if options.interval:
                time.sleep(options.interval)
        identical = receive(sock, len(sent)) == sent
        seconds = time.monotonic() - begun
    say(
        event="messages",
        count=options.count,
        size=options.size,
        seconds=round(seconds, 6),
        identical=identical,
    )
    return 0 if identical else 1


def spread(times: list[float]) -> dict[str, float]:
    """Median, 99th percentile and extremes."""
    ordered = sorted(times)
    middle = ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]
    return {
        "median_us": round(middle / 2, 1),
        "p99_us": round(ordered[int(len(ordered) * 0.99)], 1),
        "min_us": round(ordered[0], 1),
        "max_us": round(ordered[-1], 1),
    }


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = top.add_subparsers(required=True)

    def command(name: str, run: Any, *, dials: bool) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=run.__doc__.splitlines()[0])
        made.set_defaults(run=run)
        if dials:
            made.add_argument("host")
            made.add_argument("--source", metavar="ADDRESS", help="the connection's own address")
            made.add_argument("--device", help="SO_BINDTODEVICE")
            made.add_argument("--mark", type=int, default=0, help="SO_MARK")
            made.add_argument("--priority", type=int, default=0, help="SO_PRIORITY")
            made.add_argument("--tos", type=int, default=0, help="IP_TOS or IPV6_TCLASS")
            made.add_argument("--uid", type=int, default=0, help="user whose socket it is")
        made.add_argument("port", type=int)
        made.add_argument("--rcvbuf", type=int, default=0, help="SO_RCVBUF, bytes")
        made.add_argument("--sndbuf", type=int, default=0, help="SO_SNDBUF, bytes")
        made.add_argument("--nodelay", action="store_true", help="TCP_NODELAY")
        made.add_argument(
            "--pacing", type=float, default=0, help="bytes per second and connection that it sends at most"
        )
        made.add_argument("--deadline", type=float, default=120, help="seconds for everything")
        return made

    for name, run, dials in (("serve", serve, False), ("dial", dial_all, True)):
        made = command(name, run, dials=dials)
        made.add_argument(
            "--mode",
            choices=streams.MODES,
            default="both",
            help="; ".join(f"{mode}: {what}" for mode, what in streams.MODES.items()),
        )
        made.add_argument("--bytes", type=float, default=1_000_000, help="to send on each connection")
        made.add_argument("--awaited", type=float, default=0, help="bytes that the other end sends; for `closing`")
        made.add_argument("--mixed", action="store_true", help="sizes from 1 B to 8 MB instead")
        made.add_argument("--endless", action="store_true", help="until SIGUSR1 instead")
        made.add_argument("--connections", type=int, default=1)
        made.add_argument("--seed", type=int, default=1)
        made.add_argument("--no-hash", action="store_true", help="count only")
        made.add_argument("--compare", action="store_true", help="count bytes that the other end did not send")
    command("echo", echo, dials=False)
    command("sink", sink, dials=False)
    made = command("blast", blast, dials=True)
    made.add_argument("--seconds", type=float, default=5)
    made.add_argument("--streams", type=int, default=1)
    for name, run, count, size in (
        ("ping", ping, 2000, 64),
        ("connect", connect, 200, 1),
        ("messages", messages, 60, 32),
    ):
        made = command(name, run, dials=True)
        made.add_argument("--count", type=int, default=count)
        made.add_argument("--size", type=int, default=size, help="bytes of a message")
        made.add_argument("--interval", type=float, default=0, help="seconds between messages")
    return top


def main() -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args()
    try:
        return int(options.run(options))
    except OSError as problem:
        say(event="error", error=type(problem).__name__, reason=str(problem))
        return 1


if __name__ == "__main__":
    sys.exit(main())
