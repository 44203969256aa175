"""Programs that nobody here wrote, to be carried unchanged: bcoin, a Bitcoin node in JavaScript, and iperf3.

bcoin speaks the message framing that MultiChain inherited from Bitcoin, comes from npm without a compiler,
and starts in a second, so two of them are a P2P network that any machine can run.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import secrets
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .host import Host
from .namespace import PATIENCE, LabError, wait_for
from .process import Process

VERSION = "1.0.2"
P2P_PORT = 18444
IPERF_PORT = 5201
_RPC_PORT = 18332
_REACH = "is the npm registry within reach?"
_COINBASE = "R9vME8mUyeranLhysQr1Yzpqj5taHW4Ubu"  # regtest, of no known key: nobody is to spend it

# bcoin requires leveldown when it loads, and leveldown its compiled half, which `--ignore-scripts` never
# builds. A node that keeps its chain in memory opens no database, so it is enough that opening one throws.
_SHIM = """'use strict';
const Module = require('module');
const load = Module._load;
Module._load = function (request, ...rest) {
  if (request !== 'leveldown') return load.call(this, request, ...rest);
  return function LevelDOWN() { throw new Error('leveldown is not built here: run with --memory=true'); };
};
"""


def missing_bcoin() -> str | None:
    """Why bcoin cannot be run here, or None if it can (once npm has fetched it)."""
    for tool, package in (("node", "nodejs"), ("npm", "npm")):
        if not shutil.which(tool):
            return f"bcoin needs {tool} (apt install {package})"
    return None


def missing_iperf3() -> str | None:
    """Why iperf3 cannot be run here, or None if it can."""
    return None if shutil.which("iperf3") else "iperf3 is not installed (apt install iperf3)"


def cache_directory() -> Path:
    """Where `install` puts bcoin unless told otherwise: `~/.cache/mcencrypt`, or under XDG_CACHE_HOME."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mcencrypt"


@dataclass(frozen=True)
class Bcoin:
    """An installed bcoin."""

    directory: Path

    @property
    def program(self) -> Path:
        """What node runs as a full node."""
        return self._package / "bin" / "node"

    @property
    def version(self) -> str | None:
        """The version that is there, or None."""
        try:
            found = json.loads((self._package / "package.json").read_text())["version"]
        except (OSError, ValueError, KeyError):
            return None
        return str(found)

    @property
    def _package(self) -> Path:
        return self.directory / "node_modules" / "bcoin"


def install(cache: Path | None = None, *, seconds: float = 300) -> Bcoin:
    """bcoin from the npm registry in a directory of its own below `cache`; at once if it is there already.

    No script of any package is run, so nothing is compiled. Several may install at the same time: the
    directory appears whole or not at all.

    Raises LabError if node or npm is missing, npm failed or took longer than `seconds`, or the directory cannot be
    written.
    """
    cache = cache or cache_directory()
    there = Bcoin(cache / f"bcoin-{VERSION}")
    if there.version == VERSION:
        return there
    if reason := missing_bcoin():
        raise LabError(reason)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="bcoin-", dir=cache) as scratch:
            fresh = Path(scratch) / "fresh"
            fresh.mkdir()
            (fresh / "package.json").write_text('{"private": true}\n')
            _npm_install(fresh, seconds)
            if there.directory.exists() and there.version != VERSION:
                shutil.rmtree(there.directory)
            _move_into_place(fresh, there)
    except OSError as problem:
        raise LabError(
            f"{problem.filename or cache}: bcoin cannot be installed there: {problem.strerror}; "
            "free the place or set XDG_CACHE_HOME"
        ) from None
    return there


def _npm_install(directory: Path, seconds: float) -> None:
    argv = [
        "npm",
        "install",
        "--ignore-scripts",
        "--no-audit",
        "--no-fund",
        "--loglevel=error",
        f"--prefix={directory}",
        f"bcoin@{VERSION}",
    ]
    try:
        done = subprocess.run(
            argv, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"npm install bcoin@{VERSION}: not done after {seconds:g} s; {_REACH}") from None
    if done.returncode:
        said = " | ".join((done.stderr or done.stdout).strip().splitlines()[:4])
        raise LabError(f"npm install bcoin@{VERSION}: exit {done.returncode}: {said}; {_REACH}")
    if (found := Bcoin(directory).version) != VERSION:
        raise LabError(f"npm install bcoin@{VERSION}: npm reported success, but version {found} is there")


def _move_into_place(fresh: Path, there: Bcoin) -> None:
    try:
        fresh.rename(there.directory)
    except OSError:
        if there.version != VERSION:  # somebody else's, installed meanwhile, is as good
            raise


@dataclass(frozen=True)
class Tip:
    """The end of a node's chain."""

    height: int
    block: str


class Node:
    """A bcoin node that runs on a host of the lab."""

    def __init__(self, host: Host, process: Process, key: str) -> None:
        self.host = host
        self.process = process
        self._key = key

    def rpc(self, method: str, *parameters: object, seconds: float = PATIENCE) -> Any:
        """The result of a JSON-RPC call, made inside the host over loopback.

        Raises LabError if the node did not answer within `seconds`, or answered with an error.
        """
        body = json.dumps({"method": method, "params": parameters})
        token = base64.b64encode(f"x:{self._key}".encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", _RPC_PORT, timeout=seconds)
        try:
            with self.host.enter():
                connection.connect()
            connection.request("POST", "/", body, {"Authorization": f"Basic {token}"})
            reply = connection.getresponse()
            text = reply.read()
            answer = json.loads(text)
        except (OSError, ValueError, http.client.HTTPException) as problem:
            raise LabError(f"bcoin on host {self.host.name}: {method}: {problem!r}") from None
        finally:
            connection.close()
        if not isinstance(answer, dict) or answer.get("error") or "result" not in answer:
            raise LabError(f"bcoin on host {self.host.name}: {method}: HTTP {reply.status}: {text.decode()}")
        return answer["result"]

    def mine(self, blocks: int) -> list[str]:
        """Mine that many blocks on top of the chain; returns their hashes."""
        return list(self.rpc("generatetoaddress", blocks, _COINBASE))

    def tip(self) -> Tip:
        """Height and hash of the best block."""
        chain = self.rpc("getblockchaininfo")
        return Tip(chain["blocks"], chain["bestblockhash"])

    def chain(self) -> list[str]:
        """The hashes of all blocks, the genesis block first."""
        return [str(self.rpc("getblockhash", height)) for height in range(self.tip().height + 1)]

    def peers(self) -> list[dict[str, Any]]:
        """The peers that it has completed the version handshake with, as `getpeerinfo` describes them."""
        return [peer for peer in self.rpc("getpeerinfo") if peer["subver"]]

    def stop(self) -> None:
        """End it."""
        self.process.stop()


def start_node(
    bcoin: Bcoin,
    host: Host,
    *,
    dial: str | None = None,
    port: int = P2P_PORT,
) -> Node:
    """Start a regtest node that keeps everything in memory; returns when it can be used.

    `dial` is the address of the one peer to connect to, and to redial every 3 s for as long as there is no connection;
    with None it listens on all addresses instead. `port` is the P2P port, here or there. Raises LabError if it did not
    start, with what it wrote.
    """
    key = secrets.token_hex(16)
    if dial is None:
        # With a public address of its own, here one that nobody can have (RFC 1112, class E), it does not ask
        # a name server on the Internet for one, which would cost two seconds.
        role = ["--listen=true", "--host=::", f"--port={port}", "--public-host=240.0.0.1"]
        ready = "Pool server listening"
    else:
        role = ["--listen=false", f"--only={f'[{dial}]' if ':' in dial else dial}:{port}"]
        ready = "Node is loaded"
    shim = host.lab.directory / f"without-leveldown-{host.name}.js"
    shim.write_text(_SHIM)
    process = host.spawn(
        [
            "node",
            f"--require={shim}",
            bcoin.program,
            "--network=regtest",
            "--memory=true",
            "--no-wallet=true",
            "--workers=false",
            "--log-level=info",
            f"--prefix={host.lab.directory / f'bcoin-{host.name}'}",
            "--http-host=127.0.0.1",
            f"--http-port={_RPC_PORT}",
            f"--api-key={key}",
            *role,
        ],
        log=host.lab.log_file(host.name, "bcoin"),
        env={"NODE_BACKEND": "js"},
    )
    process.wait_for(ready)
    return Node(host, process, key)


def connect(listener: Node, dialler: Node, *, seconds: float = PATIENCE) -> None:
    """Wait until two nodes have shaken hands at both ends. Raises LabError if they had not within `seconds`."""
    wait_for(
        lambda: dialler.peers() and listener.peers(),
        f"bcoin on {dialler.host.name} and {listener.host.name} to connect",
        seconds,
    )


def follow(follower: Node, leader: Node, *, seconds: float = PATIENCE) -> Tip:
    """Wait until `follower` has the same best block as `leader`, and return it.

    Raises LabError, with both tips, if it had not within `seconds`.
    """
    goal = leader.tip()
    try:
        wait_for(lambda: follower.tip() == goal, "the blocks", seconds)
    except LabError:
        raise LabError(
            f"after {seconds:g} s bcoin on {follower.host.name} has {follower.tip()}, on {leader.host.name} {goal}"
        ) from None
    return goal


@dataclass(frozen=True)
class Goodput:
    """What the receiver of one direction counted."""

    #: Bytes.
    received: int
    bits_per_second: float


@dataclass(frozen=True)
class BothWays:
    """Goodput between two hosts."""

    a_to_b: Goodput
    b_to_a: Goodput


def iperf3_both_ways(
    a: Host,
    b: Host,
    seconds: float = 2,
    *,
    address: str | None = None,
    port: int = IPERF_PORT,
    streams: int = 1,
) -> BothWays:
    """iperf3 from host a to host b, then (`-R`) from b to a. a dials in both: a NAT router may lie between.

    Each direction takes `seconds`. `address` is b's as a sees it, its first IPv4 address by default; `streams` are
    parallel TCP connections, and iperf3 adds one for control, on the same port. Raises LabError if iperf3 is missing,
    failed, or was not done long after it should have been.
    """
    if reason := missing_iperf3():
        raise LabError(reason)
    server = b.spawn(["iperf3", "--server", "--port", port, "--forceflush"], log=b.lab.log_file(b.name, "iperf3"))
    try:
        server.wait_for("Server listening")
        rates = [_iperf3(a, address or b.v4, port, seconds, streams, direction) for direction in ([], ["--reverse"])]
    finally:
        server.stop()
    return BothWays(*rates)


def _iperf3(client: Host, address: str, port: int, seconds: float, streams: int, direction: list[str]) -> Goodput:
    words = [
        "iperf3",
        "--client",
        address,
        "--port",
        port,
        "--time",
        f"{seconds:g}",
        "--parallel",
        streams,
        "--json",
    ]
    done = client.run([*words, *direction], timeout=seconds + PATIENCE, check=False)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr or done.stdout).strip()
        raise LabError(f"iperf3 on {client.name}: exit {done.returncode}: {said}") from None
    # with --json it exits with 0 whatever happened (seen with 3.12)
    if done.returncode or "error" in report:
        raise LabError(f"iperf3 on {client.name}: {report.get('error', f'exit {done.returncode}')}")
    counted = report["end"]["sum_received"]
    return Goodput(int(counted["bytes"]), float(counted["bits_per_second"]))
