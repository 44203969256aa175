"""What an operator changes while connections live: the mode, and whatever of the configuration can be.

Encrypted connections go on through all of it, but for those on a port that is given up. Plaintext ones end as soon as
the new policy does not allow them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import fields as fields_of
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from mcencrypt.control import replies
from mcencrypt.control.server import Arguments
from mcencrypt.core.addresses import endpoints
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.policy import MODES, Mode, Policy
from mcencrypt.core.status import Connection, State
from mcencrypt.daemon.jobs import Jobs
from mcencrypt.daemon.names import endpoint, identity
from mcencrypt.daemon.switch import Ended, Position
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Steps
from mcencrypt.logs import fields
from mcencrypt.nodes.automatic import follow
from mcencrypt.nodes.node import Node
from mcencrypt.store.autoports import read_ports, write_ports
from mcencrypt.store.config import NOT_SET, Config
from mcencrypt.store.peers import ListedPeers, load_peers
from mcencrypt.store.position import read_mode, write_mode
from mcencrypt.store.values import Trust

log = logging.getLogger(__name__)

DAY: Final = 86400.0
#: Seconds before its end from when on a signed list is warned of.
SOON: Final = 14 * DAY

#: What a reload applies; every other key needs a restart.
_LIVE: Final = frozenset(
    {
        "ports",
        "other_ports",
        "chains",
        "multichain_dir",
        "mode",
        "allow_plaintext",
        "relayed",
        "probes",
        "trust",
        "pin",
        "peers_file",
        "peers_signed_by",
        "log_level",
    }
)


def first_policy(config: Config, peers: ListedPeers) -> Policy:
    """The policy with which a daemon starts.  Raises OperatorError."""
    return _policy(config, read_mode(config.state_dir), peers)


def remember(state_dir: Path, nodes: list[Node]) -> bool:
    """Keep what these nodes' ports are; whether that is something new. Raises OperatorError."""
    known = read_ports(state_dir)
    now = follow(nodes, known)
    if now != known:
        write_ports(state_dir, now)
    return now != known


def _policy(config: Config, remembered: Mode | None, peers: ListedPeers) -> Policy:
    return Policy(
        remembered or config.mode, config.allow_plaintext, config.relayed, config.probes, _listed(config, peers),
        config.pin, peers.pinned,
    )  # fmt: skip


def _listed(config: Config, peers: Mapping[bytes, str]) -> frozenset[bytes] | None:
    return frozenset(peers) if config.trust == "listed" else None


class Switch(Protocol):
    """What is used of a `daemon.switch.Switch`."""

    @property
    def position(self) -> Position: ...

    @property
    def ports(self) -> tuple[int, ...]: ...

    @property
    def policy(self) -> Policy: ...

    def plaintext(self) -> list[bytes]: ...

    def take_policy(self, policy: Policy) -> Ended: ...

    def take_ports(self, ports: tuple[int, ...]) -> Steps[int]: ...


class Live:
    """The configuration in force, and what of the policy follows from it."""

    def __init__(
        self,
        config: Config,
        reread: Callable[[], Config],
        switch: Switch,
        peers: ListedPeers,
        knows: Callable[[bytes], bool],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`switch` has the policy in force, which began as `first_policy`.  `peers`: names by public key.

        `knows`: whether a network key's id is of one that the daemon uses, or was started with.
        `clock`: seconds since 1970.

        Raises OperatorError.
        """
        self._config, self._reread, self._switch, self._peers = config, reread, switch, peers
        self._remembered = read_mode(config.state_dir)
        self._knows, self._clock = knows, clock
        self._signed: replies.PeersList | None = None
        #: Days until the signed list expires, of the last warning.
        self._warned: int | None = None

    def name_of(self, identity: bytes) -> str | None:
        """What the peers file calls this public key."""
        return self._peers.get(identity)

    @property
    def trust(self) -> Trust:
        """Who is trusted: "network-key" or "listed"."""
        return self._config.trust

    @property
    def netns(self) -> str | None:
        """The network namespace that is served, as it was named; None: that in which the daemon was started."""
        return str(self._config.netns) if self._config.netns else None

    @property
    def mode_source(self) -> replies.ModeSource:
        """Who decided the mode: "command" (`mcencrypt mode`, remembered) or "configuration"."""
        return "command" if self._remembered else "configuration"

    def plaintext_peers(self) -> list[replies.PlaintextPeer]:
        """The connections in plaintext; `allowed`: whether they may stay so under "require" as well."""
        return [self._plaintext_peer(key) for key in self._switch.plaintext()]

    def _plaintext_peer(self, key: bytes) -> replies.PlaintextPeer:
        local, remote = endpoints(key)
        return {"peer": endpoint(remote), "local": endpoint(local), "allowed": self._switch.policy.exempts(remote[:-2])}

    # -- the mode

    def command_mode(self, arguments: Arguments) -> replies.ModeShown:
        """The control command ``mode``: shows it, or changes it by `mode` or `from_config`.

        If that would end plaintext connections, it does nothing but name them as `would_end`, unless `confirmed`.
        Raises OperatorError.
        """
        wanted, from_config = arguments.get("mode"), arguments.get("from_config") is True
        if wanted is not None and wanted not in MODES:
            raise OperatorError(f"there is no mode {wanted!r}: say one of {', '.join(MODES)}")
        ended: list[bytes] = []
        if wanted is not None or from_config:
            mode: Mode = self._config.mode if from_config or wanted is None else wanted
            if arguments.get("confirmed") is not True and (would_end := self._would_end(mode)):
                return {**self._mode(), "would_end": would_end}
            write_mode(self._config.state_dir, None if from_config else wanted)
            self._remembered = None if from_config else wanted
            ended = self._switch.take_policy(replace(self._switch.policy, mode=mode)).plaintext
            log.info("mode set", extra=fields(mode=mode, by=self.mode_source, plaintext_ended=len(ended)))
        return {**self._mode(), "ended": [self._plaintext_peer(key) for key in ended]}

    def _mode(self) -> replies.ModeShown:
        return {
            "mode": self._switch.policy.mode,
            "mode_source": self.mode_source,
            "configured": self._config.mode,
            "plaintext_peers": self.plaintext_peers(),
        }

    def _would_end(self, mode: Mode) -> list[replies.PlaintextPeer]:
        if mode != "require" or self._switch.position is not Position.ON:
            return []
        return [one for one in self.plaintext_peers() if not one["allowed"]]

    # -- the configuration

    def reload(self) -> Steps[replies.Reloaded]:
        """Read the configuration again and apply it.  Says what changed, what needs a restart, and what it ended.

        Raises OperatorError if it is wrong or cannot be applied; then the old one stays, and the log says so.
        """
        try:
            return (yield from self._apply(self._reread()))
        except OperatorError as problem:
            log.error("configuration not reloaded, the old one stays", extra=fields(error=str(problem)))
            raise OperatorError(f"the old configuration stays: {problem}") from None

    def _apply(self, read: Config) -> Steps[replies.Reloaded]:
        before = self._config
        differing = [
            one.name
            for one in fields_of(Config)
            if one.name not in NOT_SET and getattr(read, one.name) != getattr(before, one.name)
        ]
        restart = [name for name in differing if name not in _LIVE]
        config = replace(read, **{name: getattr(before, name) for name in restart})
        ports, peers = config.p2p_ports(), config.peers()
        reset = 0
        if set(ports) != set(self._switch.ports):
            differing = list(dict.fromkeys([*differing, "ports"]))  # a chain's files may say something else now
            reset = yield from self._switch.take_ports(ports)
        if peers != self._peers or peers.pinned != self._peers.pinned:
            differing.append("peers")
        policy = _policy(config, self._remembered, peers)
        ended = self._switch.take_policy(replace(policy, enabled=self._switch.policy.enabled))
        self._peers = peers
        logging.getLogger().setLevel(config.log_level.upper())
        self._config = config
        changed = [name for name in differing if name not in restart]
        numbers: replies.EndedByReload = {
            "plaintext_ended": len(ended.plaintext), "encrypted_reset": reset,
            "distrusted_ended": len(ended.distrusted),
        }  # fmt: skip
        warnings = self._next_start(read)
        log.info(
            "configuration reloaded",
            extra=fields(changed=",".join(changed) or "nothing", needs_restart=",".join(restart) or None, **numbers),
        )
        return {
            "file": str(config.file) if config.file else None,
            "changed": changed,
            "needs_restart": restart,
            "warnings": warnings,
            "ports": list(self._switch.ports),
            **self._mode(),
            **numbers,
        }

    def _next_start(self, read: Config) -> list[str]:
        """What the daemon has had since its start, and would not get again, or would get another one of."""
        try:
            key_id = NetworkSecret(read.key_on_disk().secret).key_id
        except OperatorError as problem:
            if read.key_copied:
                return [f"{problem} (systemd hands the daemon a copy of it, unless LoadCredential= names another)"]
            log.warning("the next start will fail", extra=fields(error=str(problem)))
            return [f"the daemon would not start again: {problem}"]
        if self._knows(key_id):
            return []
        file = read.key_file_on_disk
        log.warning("the key file holds another key", extra=fields(file=str(file), key_id=key_id.hex()))
        return [
            f"{file} holds network key {key_id.hex()}, which this daemon does not use before its next start: restart "
            "it; or, to change the key without an outage, put the old one back and see `mcencrypt key --help`"
        ]

    @property
    def other_ports(self) -> tuple[int, ...]:
        """Ports of other programs, which nobody has to cover."""
        return self._config.other_ports

    def follower(self, jobs: Jobs) -> Callable[[list[Node]], None]:
        """What is to be told of the nodes that run here: with ``ports = "auto"`` their ports are taken from then on."""

        def failed(problem: OperatorError) -> None:
            log.error("the nodes' ports cannot be taken", extra=fields(error=str(problem)))

        def follow_them(nodes: list[Node]) -> None:
            if self._config.ports != "auto":
                return
            try:
                if remember(self._config.state_dir, nodes):
                    jobs.run(self._follow(), lambda nothing: None, failed)
            except OperatorError as problem:
                failed(problem)

        return follow_them

    def _follow(self) -> Steps[None]:
        ports, before = self._config.p2p_ports(), self._switch.ports
        if set(ports) == set(before):
            return
        reset = yield from self._switch.take_ports(ports)
        ended = self._switch.take_policy(self._switch.policy)
        log.info("ports follow the nodes", extra=fields(
            ports=list(ports), before=list(before), plaintext_ended=len(ended.plaintext), encrypted_reset=reset,
        ))  # fmt: skip

    # -- peers

    @property
    def signed_list(self) -> replies.PeersList | None:
        """The signed list in force; None where lists are not signed."""
        return self._signed

    def look_at_list(self) -> None:
        """Take a later signed list, and trust nobody once the last one has expired. To be called now and then."""
        try:
            listed = self._config.signed_list()
        except OperatorError as problem:
            log.error("the signed list of peers cannot be read", extra=fields(error=str(problem)))
            return
        if listed is None:
            self._signed = None
            return
        left = listed.expires - self._clock()
        before, self._signed = self._signed, {"serial": listed.serial, "expires": listed.expires}
        peers = listed.peers if left > 0 else ListedPeers()
        if self._signed != before or peers != self._peers:
            ended = self._take_peers(peers)
            log.info("signed list of peers", extra=fields(serial=listed.serial, peers=len(peers), ended=ended))
        warned = int(left // DAY) if left < SOON else None
        if warned is not None and warned != self._warned:
            what = "has expired, and nobody is trusted" if left <= 0 else f"expires within {warned + 1} days"
            log.warning(f"the signed list of peers {what}: get a new one from the admin")
        self._warned = warned

    def _take_peers(self, peers: ListedPeers) -> int:
        """Trust these from now on; how many connections were ended."""
        policy = replace(self._switch.policy, listed=_listed(self._config, peers), pinned=peers.pinned)
        self._peers = peers
        return len(self._switch.take_policy(policy).distrusted)

    def command_peers_changed(self, arguments: Arguments) -> replies.PeersChanged:
        """The control command ``peers-changed``: read the peers file again, and nothing else.

        Unlike at start an empty list is taken: who revokes the last key means it.  Raises OperatorError; then the old
        list stays.
        """
        if self._config.peers_signed_by is not None:
            self.look_at_list()
            return {"trust": self._config.trust, "peers": len(self._peers), "ended": 0}
        try:
            peers = load_peers(self._config.peers_path)
        except FileNotFoundError:
            peers = ListedPeers()
        except OperatorError as problem:
            log.error("peers file not reloaded, the old list stays", extra=fields(error=str(problem)))
            raise OperatorError(f"the old list stays: {problem}") from None
        ended = self._take_peers(peers)
        if not peers and self._config.trust == "listed":
            log.warning("nobody is trusted: the peers file lists nobody")
        log.info("peers file reloaded", extra=fields(peers=len(peers), ended=ended))
        return {"trust": self._config.trust, "peers": len(peers), "ended": ended}

    def command_peers(self, shown: list[Connection], answered: list[replies.Answered], now: float) -> replies.Peers:
        """The control command ``peers``: who is connected, proven, and which listed peers are not; who answered where.

        `now`: seconds since 1970.
        """
        connected: dict[bytes, list[Connection]] = {}
        for one in shown:
            if one.identity and one.state is not State.CLOSING:
                connected.setdefault(one.identity, []).append(one)
        absent = sorted(set(self._peers) - set(connected), key=lambda key: self._peers[key])
        return {
            "trust": self._config.trust,
            "file": str(self._config.peers_path),
            "peers": [
                {
                    "name": self._peers.get(key),
                    "key": identity(key),
                    "connections": [_of_peer(one, now) for one in connected.get(key, [])],
                }
                for key in [*connected, *absent]
            ],
            "answered": answered,
        }


def _of_peer(shown: Connection, now: float) -> replies.PeerConnection:
    return {
        "peer": endpoint(shown.remote),
        "local": endpoint(shown.local),
        "state": shown.state,
        "carrier": shown.carrier,
        "since": round(now - shown.age, 3),
        "bytes_out": shown.counters.bytes_out,
        "bytes_in": shown.counters.bytes_in,
    }
