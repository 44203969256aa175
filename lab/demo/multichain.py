"""Two real MultiChain nodes: a chain of their own, joined over the lab's router."""

from __future__ import annotations

import base64
import http.client
import json
import re
from pathlib import Path
from typing import Any

from lab import Host, LabError, TwoHosts, wait_for

from .nodes import MARKER, PATIENCE

CHAIN = "demo"
P2P_PORT = 7447
_RPC_PORT = 7446
_LARGE = 1_000_000
PROGRAMS = ("multichaind", "multichain-util")


def find(folder: str) -> Path:
    """The folder that MULTICHAIND names, or that of the program it names. Raises LabError if one is missing there."""
    path = Path(folder).absolute()
    path = path.parent if path.is_file() else path
    for name in PROGRAMS:
        if not (path / name).is_file():
            raise LabError(f"MULTICHAIND={folder}: no {name} there: name the folder that holds MultiChain's programs")
    return path


class MultiChainNodes:
    """Node b makes a chain and a joins it; both publish to its stream `root`, and b mines."""

    ports: tuple[int, ...] = (P2P_PORT,)
    markers: tuple[bytes, ...] = (MARKER.encode(), b"version\0\0\0\0\0", b"/MultiChain:", b"X" * 64)
    seconds_to_reconnect = 10.0

    def __init__(self, net: TwoHosts, programs: Path) -> None:
        self._a, self._b = net.a, net.b
        self._programs = programs
        self._data: dict[str, Path] = {}
        for host in (net.a, net.b):
            self._data[host.name] = net.lab.directory / f"multichain-{host.name}"
            self._data[host.name].mkdir()
        self._old: dict[str, set[int]] = {}
        self._published = 0

    def start(self) -> list[str]:
        a, b = self._a, self._b
        b.run(
            [
                *(self._programs / "multichain-util", "create", CHAIN, f"-datadir={self._data['b']}"),
                *("-target-block-time=2", "-mine-empty-rounds=-1", "-setup-first-blocks=1"),
                *(f"-default-network-port={P2P_PORT}", f"-default-rpc-port={_RPC_PORT}"),
            ]
        )
        self._run(b, CHAIN)
        # A node without permission says which address to grant it to, and ends. (-discover=0: behind NAT, a must
        # not announce the address that it sees itself; b would dial it, and the two connections fight.)
        join = [f"{CHAIN}@{b.v4}:{P2P_PORT}", "-discover=0"]
        refused = a.run([self._programs / "multichaind", *join, f"-datadir={self._data['a']}"], check=False)
        wanted = re.search(r"grant (\w+) connect", refused.stdout)
        if wanted is None:
            raise LabError(f"multichaind on a did not ask for permission: {(refused.stdout + refused.stderr)[-400:]}")
        self._call(b, "grant", wanted[1], "connect,send,receive")
        self._run(a, *join)
        for host in (a, b):
            self._call(host, "subscribe", "root")
        self.wait_connected()
        version = self._call(b, "getinfo")["version"]
        return [
            f"MultiChain {version}: b created the chain {CHAIN!r} on port {P2P_PORT}, a joined it from behind the",
            f"router, b granted {wanted[1]} its permissions",
        ]

    def exchange(self) -> list[str]:
        height = self._call(self._b, "getblockcount")
        self._publish(self._a, self._b, {"text": f"{MARKER} from a"})
        self._publish(self._b, self._a, {"text": f"{MARKER} from b"})
        self._publish(self._a, self._b, (b"X" * _LARGE).hex())

        def advanced() -> bool:
            heights = [self._call(host, "getblockcount") for host in (self._a, self._b)]
            tips = {self._call(host, "getbestblockhash") for host in (self._a, self._b)}
            return min(heights) > height and len(tips) == 1

        wait_for(advanced, "a block that both nodes have", 2 * PATIENCE)
        now = self._call(self._a, "getblockcount")
        return [
            "an item published on each node is on the other, and one of 1 MB",
            f"the chain went from block {height} to {now}, with the same best block on both",
        ]

    def expect_reset(self) -> None:
        self._old = {host.name: {peer["id"] for peer in self._peers(host)} for host in (self._a, self._b)}

    def wait_connected(self) -> list[str]:
        def connected() -> bool:
            peers = {host.name: {peer["id"] for peer in self._peers(host)} for host in (self._a, self._b)}
            return all(found and not found & self._old.get(name, set()) for name, found in peers.items())

        wait_for(connected, "the nodes to be peers", PATIENCE)
        return []

    def _run(self, host: Host, *words: str) -> None:
        process = host.spawn([self._programs / "multichaind", *words, f"-datadir={self._data[host.name]}"])
        wait_for(lambda: process.exit_code is not None or self._answers(host), f"multichaind on {host.name}", PATIENCE)
        if process.exit_code is not None:
            process.failed("multichaind ended")

    def _peers(self, host: Host) -> list[Any]:
        """Those that have completed both handshakes, Bitcoin's and MultiChain's."""
        return [peer for peer in self._call(host, "getpeerinfo") if peer["version"] and peer["handshake"]]

    def _publish(self, source: Host, target: Host, data: object) -> None:
        self._published += 1
        key = f"item-{self._published}"

        def accepted() -> bool:
            # until the grant is in a block, and while its own change is unconfirmed, a node refuses to send
            try:
                self._call(source, "publish", "root", key, data)
            except LabError:
                return False
            return True

        wait_for(accepted, f"{source.name} to publish", PATIENCE)
        wait_for(lambda: self._has(target, key, data), f"an item of {source.name} to be on {target.name}", PATIENCE)

    def _has(self, host: Host, key: str, data: object) -> bool:
        for item in self._call(host, "liststreamkeyitems", "root", key):
            found = item["data"]
            if isinstance(found, dict) and "txid" in found:  # too large for a listing
                found = self._call(host, "gettxoutdata", found["txid"], found["vout"])
            if found == data or (isinstance(found, dict) and found.get("json") == data):
                return True
        return False

    def _answers(self, host: Host) -> bool:
        try:
            self._call(host, "getinfo")
        except (LabError, OSError):
            return False
        return True

    def _call(self, host: Host, method: str, *parameters: object) -> Any:
        """The result of a JSON-RPC call, over the host's own loopback.

        Raises LabError if the node refused, or cannot be reached.
        """
        try:
            settings = (self._data[host.name] / CHAIN / "multichain.conf").read_text()
            login = dict(re.findall(r"(rpc\w+)=(\S+)", settings))
            token = base64.b64encode(f"{login['rpcuser']}:{login['rpcpassword']}".encode()).decode()
            connection = http.client.HTTPConnection("127.0.0.1", _RPC_PORT, timeout=PATIENCE)
            with host.enter():
                connection.connect()
            body = json.dumps({"method": method, "params": parameters, "id": 1, "chain_name": CHAIN})
            connection.request("POST", "/", body, {"Authorization": f"Basic {token}"})
            answer = json.loads(connection.getresponse().read())
            connection.close()
        except (OSError, ValueError, KeyError, http.client.HTTPException) as problem:
            raise LabError(f"multichaind on {host.name}: {method}: {problem!r}") from None
        if answer["error"]:
            raise LabError(f"multichaind on {host.name}: {method}: {answer['error']['message']}")
        return answer["result"]
