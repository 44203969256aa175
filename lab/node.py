"""A node that speaks MultiChain's message framing as a real one does, and says what happens to it.

    python -m lab.node --listen 7331 --connect 10.66.2.2:7331 --blocks-every 2 --items-every 0.5

It dials and redials (0.2-0.6 s after a connection ended), shakes hands (version, verack, verackack), pings,
publishes items and blocks (inv, getdata, tx, block), and prints an event per line as JSON: listening,
connected, version, ready, ping, item, block, published, reset, closed, refused, garbage, timeout, end.
Messages are one write each, without TCP_NODELAY.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import random
import secrets
import signal
import socket
import time
from collections import Counter, OrderedDict

from . import messages

#: Items and blocks that may be asked for later: more than all nodes of a mesh publish at once.
_KEEP = 256
_REDIAL = (0.2, 0.6)
_DIAL_TIMEOUT = 5.0


class Peer:
    """One connection."""

    def __init__(self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, outbound: bool) -> None:
        self._node = node
        self._reader = reader
        self._writer = writer
        self._outbound = outbound
        self._pings: dict[bytes, float] = {}
        self.ready = False
        # asyncio turns it on, MultiChain does not
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
        self._here = writer.get_extra_info("sockname")[:2]
        self._there = writer.get_extra_info("peername")[:2]
        self.name = "{}:{}".format(*self._there) if "." in self._there[0] else "[{}]:{}".format(*self._there)

    def send(self, command: str, payload: bytes = b"") -> None:
        """Send a message."""
        self._writer.write(messages.frame(self._node.magic, command, payload))

    def send_version(self) -> None:
        """Send `version`, 139 bytes with its header."""
        self.send("version", messages.version(self._here, self._there, self._node.nonce, self._node.height))

    def ping(self) -> None:
        """Send a ping of 32 bytes."""
        nonce = secrets.token_bytes(8)
        self._pings[nonce] = time.monotonic()
        self.send("ping", nonce)

    def close(self) -> None:
        """End the connection."""
        self._writer.close()

    async def talk(self) -> None:
        """Until the connection ends, for whatever reason."""
        self._node.say("connected", peer=self.name, local="{}:{}".format(*self._here), outbound=self._outbound)
        if self._outbound:
            self.send_version()
        try:
            while True:
                async with asyncio.timeout(self._node.options.timeout):
                    command, payload = await self._receive()
                # Not drained: two nodes that wait for each other to read before they read would wait for ever.
                self._handle(command, payload)
        except TimeoutError as problem:
            # a TCP timeout is one too, with a number
            what = "reset" if problem.errno else "timeout"
            self._node.say(what, peer=self.name, error=str(problem) or "no message in time")
        except asyncio.IncompleteReadError as problem:
            self._node.say("closed", peer=self.name, unfinished=len(problem.partial))
        except messages.MessageError as problem:
            self._node.say("garbage", peer=self.name, error=str(problem))
        except OSError as problem:
            self._node.say("reset", peer=self.name, error=type(problem).__name__)
        finally:
            self.close()

    async def _receive(self) -> tuple[str, bytes]:
        header = messages.read_header(self._node.magic, await self._reader.readexactly(messages.HEADER))
        payload = await self._reader.readexactly(header.length)
        messages.check(header, payload)
        return header.command, payload

    def _handle(self, command: str, payload: bytes) -> None:
        node = self._node
        if command == "version":
            if messages.nonce(payload) == node.nonce:
                raise messages.MessageError("dialled myself")
            node.say("version", peer=self.name, agent=messages.agent(payload))
            if not self._outbound:
                self.send_version()
            self.send("verack", messages.parameters(node.magic, node.options.chain))
        elif command == "verack":
            self.send("verackack", secrets.token_bytes(140))
        elif command == "verackack":
            self.ready = True
            node.say("ready", peer=self.name)
            self.send("getaddr")
            self.ping()
        elif command == "ping":
            self.send("pong", payload)
        elif command == "pong":
            if (sent := self._pings.pop(payload, None)) is not None:
                node.say("ping", peer=self.name, milliseconds=round((time.monotonic() - sent) * 1000, 3))
        elif command == "inv":
            wanted = [entry for entry in messages.read_inventory(payload) if entry[1] not in node.known]
            if wanted:
                self.send("getdata", messages.inventory(wanted))
        elif command == "getdata":
            for kind, digest in messages.read_inventory(payload):
                if digest in node.known:
                    self.send("block" if kind == messages.BLOCK else "tx", node.known[digest])
        elif command in ("block", "tx"):
            node.take(command, payload, self)


class Node:
    """Its connections, and what it has published or received."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.magic = bytes.fromhex(options.magic)
        self.nonce = secrets.randbits(64)
        self.height = 0
        #: The last 32 items and blocks by hash.
        self.known: OrderedDict[bytes, bytes] = OrderedDict()
        self.peers: list[Peer] = []
        self._counts: Counter[str] = Counter()
        self._begun = time.monotonic()

    def say(self, event: str, **details: object) -> None:
        """Print an event."""
        self._counts[event] += 1
        seconds = round(time.monotonic() - self._begun, 4)
        print(json.dumps({"event": event, "node": self.options.name, "at": seconds, **details}), flush=True)

    def keep(self, payload: bytes) -> bytes:
        """Remember an item or block; returns its hash."""
        digest = messages.double_sha256(payload)
        self.known[digest] = payload
        while len(self.known) > _KEEP:
            self.known.popitem(last=False)
        return digest

    def take(self, command: str, payload: bytes, peer: Peer) -> None:
        """An item or a block came."""
        if messages.double_sha256(payload) in self.known:
            return
        self.keep(payload)
        details: dict[str, object] = {
            "peer": peer.name,
            "bytes": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        if command == "tx":
            details["text"] = payload[:120].rstrip(b"\0").decode(errors="replace")
        else:
            self.height += 1
        self.say("item" if command == "tx" else "block", **details)

    def publish(self, kind: int, number: int) -> None:
        """Make an item or a block and announce it to all."""
        text = f"{self.options.marker} {self.options.name} {number} ".encode()
        if kind == messages.BLOCK:
            self.height += 1
            size = int(self.options.block_size)
            payload = b"\x03\0\0\0" + secrets.token_bytes(76) + (text + secrets.token_bytes(1000)) * (size // 1000)
            payload = payload[: max(size, 80)]
        else:
            payload = text + secrets.token_bytes(8).hex().encode()
        digest = self.keep(payload)
        self.say(
            "published",
            kind="block" if kind == messages.BLOCK else "item",
            bytes=len(payload),
            sha256=hashlib.sha256(payload).hexdigest(),
        )
        for peer in self.peers:
            if peer.ready:
                peer.send("inv", messages.inventory([(kind, digest)]))

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, outbound: bool) -> None:
        """One connection, from its beginning to its end."""
        try:
            peer = Peer(self, reader, writer, outbound)
        except (OSError, TypeError):
            # reset before we looked at it: it has no peer any more
            writer.close()
            return
        self.peers.append(peer)
        try:
            await peer.talk()
        finally:
            self.peers.remove(peer)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection that the other side dialled."""
        await self.converse(reader, writer, outbound=False)

    async def dial(self, host: str, port: int) -> None:
        """Dial, and dial again, for ever."""
        while True:
            try:
                async with asyncio.timeout(_DIAL_TIMEOUT):
                    reader, writer = await asyncio.open_connection(host, port)
            except OSError as problem:
                self.say("refused", peer=f"{host}:{port}", error=type(problem).__name__)
            else:
                await self.converse(reader, writer, outbound=True)
            await asyncio.sleep(random.uniform(*_REDIAL))

    async def every(self, seconds: float, kind: int) -> None:
        """Publish items or blocks at that pace while somebody listens."""
        number = 0
        while True:
            await asyncio.sleep(seconds)
            if any(peer.ready for peer in self.peers):
                number += 1
                self.publish(kind, number)

    async def ping_all(self) -> None:
        """Ping everybody, every 10 s or as asked."""
        while True:
            await asyncio.sleep(self.options.ping_every)
            for peer in self.peers:
                if peer.ready:
                    peer.ping()

    async def run(self) -> None:
        """Until SIGTERM or SIGINT. SIGUSR1 publishes an item."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        asked = itertools.count(1)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: self.publish(messages.ITEM, next(asked)))
        if self.options.listen:
            await asyncio.start_server(self.accept, ["0.0.0.0", "::"], self.options.listen)
            self.say("listening", port=self.options.listen)
        jobs = [self.ping_all(), *(self.dial(*address) for address in self.options.connect)]
        for seconds, kind in (
            (self.options.blocks_every, messages.BLOCK),
            (self.options.items_every, messages.ITEM),
        ):
            if seconds:
                jobs.append(self.every(seconds, kind))
        tasks = [asyncio.create_task(job) for job in jobs]
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
        self.say("end", counts=dict(self._counts))
        for task in tasks:
            if task.done():
                # a job only ends by a mistake of ours: show it
                task.result()
            task.cancel()
        for peer in self.peers:
            peer.close()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)


def address(text: str) -> tuple[str, int]:
    """HOST:PORT or [HOST]:PORT."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--name", default="node")
    made.add_argument("--listen", type=int, metavar="PORT")
    made.add_argument("--connect", type=address, action="append", default=[], metavar="HOST:PORT")
    made.add_argument("--magic", default=messages.MAGIC.hex(), help="network-message-start, 4 bytes in hexadecimal")
    made.add_argument("--chain", default="chain1")
    made.add_argument("--marker", default="INVOICE-4711", help="text in every item and block")
    made.add_argument("--items-every", type=float, default=0, metavar="S")
    made.add_argument("--blocks-every", type=float, default=0, metavar="S")
    made.add_argument("--block-size", type=float, default=2_000_000, metavar="BYTES")
    made.add_argument("--ping-every", type=float, default=10, metavar="S")
    made.add_argument("--timeout", type=float, default=60, metavar="S", help="silence that ends a connection")
    return made


def main() -> None:
    """Run the command line."""
    asyncio.run(Node(parser().parse_args()).run())


if __name__ == "__main__":
    main()
