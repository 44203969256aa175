"""The control commands that change network keys, and refuse what would cut peers off.

A key is *used* (offered) only once the peers answer a handshake under it, and *retired* only once no peer offers it.
Both are found out by probes, because connections live long and keep the key of their handshake.  A peer that cannot
be dialled from here is not harmed by what we offer; what it offers itself is known from when it last dialled us.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from mcencrypt.control.server import Later
from mcencrypt.core.engine import Engine
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.keyring import RingError
from mcencrypt.core.probing import ProbeResult
from mcencrypt.core.status import State
from mcencrypt.daemon.events import identity
from mcencrypt.daemon.survey import Asking, Survey, Target, Timers
from mcencrypt.errors import OperatorError
from mcencrypt.logs import fields
from mcencrypt.store.keyring import StoredKeyring
from mcencrypt.store.keys import parse_network_key

log = logging.getLogger(__name__)

#: Peers that an error names.
NAMED: Final = 8

Answers = dict[bytes, ProbeResult]


class _Peer:
    """Where a peer may listen, and whether we have dialled it ourselves."""

    def __init__(self, packed: bytes) -> None:
        self.packed, self.address = packed, _shown(packed)
        self.targets: list[Target] = []
        self.dialled = False


class Rotation:
    """The keys of one daemon."""

    def __init__(
        self,
        engine: Engine,
        stored: StoredKeyring,
        prober: Asking,
        timers: Timers,
        ports: Callable[[], Iterable[int]],
        name_of: Callable[[bytes], str | None] = lambda public: None,
    ) -> None:
        """`ports` gives the P2P ports, at any of which a peer that dialled us may listen; `name_of` names a key."""
        self._engine, self._stored, self._prober, self._timers, self._ports = engine, stored, prober, timers, ports
        self._ring, self._offers = stored.ring, engine.admission.offers
        self._busy, self._name_of = False, name_of
        if stored.base_retired:
            log.warning(
                "network_key_file holds a key that was retired on this node; put the offered key there",
                extra=fields(retired=stored.base.key_id.hex(), offered=self._ring.offered.key_id.hex()),
            )

    # -- commands

    def describe(self, now: float) -> dict[str, Any]:
        """The part of a status about keys: those accepted, then retired ones that still carry connections."""
        connections: dict[bytes, int] = {}
        for shown in self._engine.connections(now):
            if shown.state.has_keys:
                connections[shown.key_id] = connections.get(shown.key_id, 0) + 1
        accepted = [secret.key_id for secret in self._ring]
        last_used = self._engine.admission.last_used
        return {
            "keys": [
                {
                    "id": key_id.hex(),
                    "accepted": key_id in self._ring,
                    "offered": key_id == self._ring.offered.key_id,
                    "base": key_id == self._stored.base.key_id,
                    "connections": connections.get(key_id, 0),
                    "peers": len(self._offers.peers(key_id, now)),
                    "last_used": round(now - last_used[key_id], 3) if key_id in last_used else None,
                }
                for key_id in (*accepted, *(key_id for key_id in connections if key_id and key_id not in accepted))
            ],
            "base_key_retired": self._stored.base_retired,
        }

    def add(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """`key`: the text of a key file."""
        key = parse_network_key(str(arguments.get("key", "")).encode(), "the key")
        known = len(self._ring)
        added = self._stored.add(key).key_id.hex()
        if len(self._ring) > known:
            log.info("network key added", extra=fields(key_id=added))
        return {"id": added, "new": len(self._ring) > known}

    def use(self, arguments: dict[str, Any]) -> Later | dict[str, Any]:
        """`id`, perhaps abbreviated; `force`: ask nobody."""
        secret = self._find(arguments)
        before = self._ring.offered

        def change(asked: int, unreachable: Iterable[str]) -> dict[str, Any]:
            self._stored.offer(secret)
            log.info("another network key is offered", extra=fields(key_id=secret.key_id.hex()))
            return {
                "id": secret.key_id.hex(), "before": before.key_id.hex(), "asked": asked,
                "unreachable": list(unreachable),
            }  # fmt: skip

        if secret is before:
            return {"id": secret.key_id.hex(), "before": secret.key_id.hex(), "asked": 0, "unreachable": []}
        if arguments.get("force"):
            return change(0, ())
        peers = self._peers()
        later = Later()

        def with_new(new: Answers) -> None:
            without = {peer: known.targets for peer, known in peers.items() if peer not in new}
            Survey(self._prober, self._timers, before, without, lambda old: with_both(new, old))

        def with_both(new: Answers, old: Answers) -> None:
            missing = [peer for peer in peers if peer not in new]
            harmed = [peer for peer in missing if peer in old or peers[peer].dialled]
            if harmed:
                self._fail(
                    later,
                    f"{_of(len(harmed), len(peers))} would be cut off, not answering with key {secret.key_id.hex()}: "
                    f"{self._names(peers, harmed)}; add the key there first (`mcencrypt key add`), or insist with "
                    "--force",
                )
            else:
                asked = len(peers) - len(missing)
                self._end(later, lambda: change(asked, (self._called(peers, peer) for peer in missing)))

        return self._begin(later, lambda: Survey(self._prober, self._timers, secret, _targets(peers), with_new))

    def retire(self, arguments: dict[str, Any]) -> Later | dict[str, Any]:
        """`id`, perhaps abbreviated; `force`: ask nobody."""
        secret = self._find(arguments)
        offered = self._ring.offered
        if secret is offered:
            raise OperatorError(
                f"key {secret.key_id.hex()} is the one that this node offers: `mcencrypt key use` another first"
            )

        def change(asked: int) -> dict[str, Any]:
            self._stored.retire(secret)
            log.info("network key retired", extra=fields(key_id=secret.key_id.hex()))
            return {
                "id": secret.key_id.hex(), "asked": asked, "base": self._stored.base_retired,
                "offered": self._ring.offered.key_id.hex(),
                "connections": sum(
                    one.state.has_keys and one.key_id == secret.key_id
                    for one in self._engine.connections(time.monotonic())
                ),
            }  # fmt: skip

        if arguments.get("force"):
            return change(0)
        peers = self._peers()
        later = Later()

        def with_offered(current: Answers) -> None:
            now = time.monotonic()
            for peer, result in current.items():
                if result.offered:
                    self._offers.note(peer, result.key_id, now, peers[peer].packed)
            unclear = {
                peer: known.targets for peer, known in peers.items() if peer not in current or not current[peer].offered
            }
            Survey(self._prober, self._timers, secret, unclear, lambda old: with_both(current, old))

        def with_both(current: Answers, old: Answers) -> None:
            now = time.monotonic()
            offering = [peer for peer, result in old.items() if result.offered]
            silent = [peer for peer in peers if peer not in current and peer not in old]
            remembered = set(self._offers.peers(secret.key_id, now))
            offering += [peer for peer in silent if peer in remembered]
            if offering:
                self._fail(
                    later,
                    f"{_of(len(offering), len(peers))} would be cut off, offering key {secret.key_id.hex()} when last "
                    f"heard of: {self._names(peers, offering)}; `mcencrypt key use {offered.key_id.hex()}` there "
                    "first, or insist with --force",
                )
            else:
                self._end(later, lambda: change(len(peers) - len(silent)))

        return self._begin(later, lambda: Survey(self._prober, self._timers, offered, _targets(peers), with_offered))

    # -- what they have in common

    def _find(self, arguments: dict[str, Any]) -> NetworkSecret:
        try:
            return self._ring.find(str(arguments.get("id", "")))
        except RingError as problem:
            raise OperatorError(str(problem)) from None

    def _begin(self, later: Later, start: Callable[[], object]) -> Later:
        if self._busy:
            raise OperatorError("another change of keys is under way: try again in a few seconds")
        self._busy = True
        start()
        return later

    def _fail(self, later: Later, text: str) -> None:
        self._busy = False
        later.error(OperatorError(text))

    def _end(self, later: Later, change: Callable[[], dict[str, Any]]) -> None:
        self._busy = False
        try:
            later.result(change())
        except OperatorError as problem:
            later.error(problem)
        except RingError as problem:
            later.error(OperatorError(str(problem)))

    def _peers(self) -> dict[bytes, _Peer]:
        """Everybody who is connected, or dialled us lately, by public key."""
        now = time.monotonic()
        ports = list(self._ports())
        peers: dict[bytes, _Peer] = {}
        for shown in self._engine.connections(now):
            if shown.state is not State.ENCRYPTED:
                continue
            peer = peers.setdefault(shown.identity, _Peer(shown.remote[:-2]))
            address, port = _shown(shown.remote[:-2]), int.from_bytes(shown.remote[-2:], "big")
            if port in ports and shown.outgoing:
                if not peer.dialled:
                    peer.targets.clear()  # it is known to listen here
                peer.targets.append((address, port))
                peer.dialled = True
            elif not peer.dialled:
                peer.targets += [(address, port) for port in ports]
        for secret in self._ring:
            for public in self._offers.peers(secret.key_id, now):
                offer = self._offers.of(public, now)
                # One that is trusted no more has nothing left to be cut off from.
                if public not in peers and offer is not None and self._engine.policy.trusts(public):
                    peers[public] = _Peer(offer.address)
                    peers[public].targets = [(_shown(offer.address), port) for port in ports]
        for peer in peers.values():
            peer.targets = list(dict.fromkeys(peer.targets))
        return peers

    def _called(self, peers: dict[bytes, _Peer], peer: bytes) -> str:
        return f"{self._name_of(peer) or identity(peer)} at {peers[peer].address}"

    def _names(self, peers: dict[bytes, _Peer], some: list[bytes]) -> str:
        more = f" and {len(some) - NAMED} more" if len(some) > NAMED else ""
        return ", ".join(self._called(peers, peer) for peer in some[:NAMED]) + more


def _targets(peers: dict[bytes, _Peer]) -> dict[bytes, list[Target]]:
    return {peer: known.targets for peer, known in peers.items()}


def _of(some: int, all_of_them: int) -> str:
    return f"{some} of {all_of_them} {'peer' if all_of_them == 1 else 'peers'}"


def _shown(packed: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(packed) == 4 else socket.AF_INET6, packed)
