"""A node that asks its peers and answers them, over connections that stay open, and counts what fails.

    python -m lab.requests --name h1 --listen 7331 --connect 10.66.0.2:7331 --every 0.05

To each `--connect` it keeps one connection, or `--connections`. It sends a request, awaits the answer (SHA-256 of what
was asked), and asks again. If the connection breaks it redials and asks the same again: a request has *failed* if a
second connection broke under it as well, or if no answer came within `--deadline` seconds of its first byte. An event
per line, as JSON: listening, connected, answered (the first on each connection), lost (a connection broke), failed, and
at SIGTERM `end` with the counts of each peer. SIGHUP prints the same counts as `counts`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import secrets
import signal
import time
from dataclasses import asdict, dataclass

from .namespace import PATIENCE
from .node import address

#: Seconds between two attempts to dial.
_REDIAL = 0.1
_DIAL_TIMEOUT = 5.0
#: Bytes of the largest request: several segments.
_LARGEST = 20_000


@dataclass
class Counts:
    """What one connection of ours, with all that replaced it, has done."""

    answered: int = 0
    #: Connections that broke.
    lost: int = 0
    #: Requests that were asked again on another connection, and answered there.
    retried: int = 0
    failed: int = 0
    #: Answers that were not those to the request.
    wrong: int = 0
    #: Seconds of the slowest request, redials included.
    longest: float = 0.0


class Requester:
    """Everything that one node does."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        #: By peer, behind the first connection to it with the connection's number.
        self.counts = {
            f"{host}:{port}" + f" {number}" * (number > 1): Counts()
            for host, port in options.connect
            for number in range(1, options.connections + 1)
        }

    def say(self, event: str, **details: object) -> None:
        """Print an event."""
        print(json.dumps({"event": event, "node": self.options.name, **details}), flush=True)

    def say_counts(self, event: str = "counts") -> None:
        """Print the counts of all peers."""
        self.say(event, peers={peer: asdict(counts) for peer, counts in self.counts.items()})

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a peer's, until it ends."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                writer.write(hashlib.sha256(await reader.readexactly(length)).digest())
                await writer.drain()
        writer.close()

    async def ask_for_ever(self, host: str, port: int, counts: Counts) -> None:
        """Keep a connection to that peer, and ask."""
        peer = f"{host}:{port}"
        asked, begun, losses = b"", 0.0, 0
        while True:
            try:
                async with asyncio.timeout(_DIAL_TIMEOUT):
                    reader, writer = await asyncio.open_connection(host, port)
            except OSError:  # TimeoutError is one
                await asyncio.sleep(_REDIAL)
                continue
            self.say("connected", peer=peer, local=writer.get_extra_info("sockname")[1])
            first = True
            try:
                while True:
                    if not asked:
                        asked, begun, losses = secrets.token_bytes(1 + secrets.randbelow(_LARGEST)), time.monotonic(), 0
                    async with asyncio.timeout(self.options.deadline):
                        writer.write(len(asked).to_bytes(4, "big") + asked)
                        answer = await reader.readexactly(32)
                    took = time.monotonic() - begun
                    counts.answered += 1
                    counts.wrong += answer != hashlib.sha256(asked).digest()
                    counts.retried += losses == 1
                    counts.longest = max(counts.longest, round(took, 3))
                    if losses > 1 or took > self.options.deadline:
                        counts.failed += 1
                        self.say("failed", peer=peer, seconds=round(took, 3), connections_lost=losses)
                    if first:
                        self.say("answered", peer=peer)
                    first, asked = False, b""
                    await asyncio.sleep(self.options.every)
            except (OSError, asyncio.IncompleteReadError) as problem:
                counts.lost += 1
                losses += 1
                self.say("lost", peer=peer, error=type(problem).__name__)
            writer.close()
            await asyncio.sleep(_REDIAL)

    async def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.say_counts)
        server = await asyncio.start_server(self.answer, ["0.0.0.0", "::"], self.options.listen)
        self.say("listening", port=self.options.listen)
        peers = [peer for peer in self.options.connect for _ in range(self.options.connections)]
        tasks = [
            asyncio.create_task(self.ask_for_ever(host, port, counts))
            for (host, port), counts in zip(peers, self.counts.values(), strict=True)
        ]
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                # it only ends by a mistake of ours: show it
                task.result()
            task.cancel()
        self.say_counts("end")
        server.close()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--name", default="node")
    made.add_argument("--listen", type=int, metavar="PORT", required=True)
    made.add_argument("--connect", type=address, action="append", default=[], metavar="HOST:PORT")
    made.add_argument("--connections", type=int, default=1, metavar="N", help="to each of them")
    made.add_argument("--every", type=float, default=0.05, metavar="S", help="pause between answer and next request")
    made.add_argument("--deadline", type=float, default=PATIENCE, metavar="S", help="for one answer, redials included")
    return made


def main() -> None:
    """Run the command line."""
    asyncio.run(Requester(parser().parse_args()).run())


if __name__ == "__main__":
    main()
