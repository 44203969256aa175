"""The control commands that change network keys, and refuse what would cut peers off.

A key is *used* (offered) only once the peers answer a handshake under it, and *retired* only once no peer offers it.
Both are found out by probes, because connections live long and keep the key of their handshake.  A peer that cannot
be dialled from here is not harmed by what we offer; what it offers itself is known from when it last dialled us.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Final, TypeVar

from mcencrypt.control import replies
from mcencrypt.control.server import Arguments, Later, Result
from mcencrypt.core.engine import Engine
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.keyring import RingError
from mcencrypt.core.status import State
from mcencrypt.daemon.interfaces import Timers
from mcencrypt.daemon.names import address, identity
from mcencrypt.daemon.survey import Answers, Asking, Question, Survey, Target
from mcencrypt.errors import OperatorError
from mcencrypt.logs import fields
from mcencrypt.store.keyring import StoredKeyring
from mcencrypt.store.keys import parse_network_key

log = logging.getLogger(__name__)

#: Peers that an error names.
NAMED: Final = 8

R = TypeVar("R", bound=Result)
T = TypeVar("T")
#: A piece of a change: it yields what it wants asked, is sent the answers, and returns what came of it.
Asks = Generator[Question, Answers, T]


class _Peer:
    """Where a peer may listen, and whether we have dialled it ourselves."""

    def __init__(self, packed: bytes) -> None:
        self.packed, self.address = packed, address(packed)
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

    def describe(self, now: float) -> replies.Keys:
        """The part of a status about keys: those accepted, then retired ones that still carry connections."""
        connections = self._connections(now)
        accepted = [secret.key_id for secret in self._ring]
        last_used = self._engine.admission.making.last_used
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

    def add(self, arguments: Arguments) -> replies.KeyAdded:
        """`key`: the text of a key file."""
        key = parse_network_key(str(arguments.get("key", "")).encode(), "the key")
        known = len(self._ring)
        added = self._stored.add(key).key_id.hex()
        if len(self._ring) > known:
            log.info("network key added", extra=fields(key_id=added))
        return {"id": added, "new": len(self._ring) > known}

    def use(self, arguments: Arguments) -> replies.KeyUsed | Later[replies.KeyUsed]:
        """`id`, perhaps abbreviated; `force`: ask nobody."""
        return self._carry_out(self._use(self._find(arguments), bool(arguments.get("force"))))

    def retire(self, arguments: Arguments) -> replies.KeyRetired | Later[replies.KeyRetired]:
        """`id`, perhaps abbreviated; `force`: ask nobody."""
        return self._carry_out(self._retire(self._find(arguments), bool(arguments.get("force"))))

    # -- the two changes before which peers are asked

    def _use(self, secret: NetworkSecret, force: bool) -> Asks[replies.KeyUsed]:
        before = self._ring.offered
        asked, unreachable = 0, list[str]()
        if secret is not before:
            if not force:
                asked, unreachable = yield from self._all_take(secret)
            self._stored.offer(secret)
            log.info("another network key is offered", extra=fields(key_id=secret.key_id.hex()))
        return {
            "id": secret.key_id.hex(), "before": before.key_id.hex(), "asked": asked, "unreachable": unreachable
        }  # fmt: skip

    def _all_take(self, secret: NetworkSecret) -> Asks[tuple[int, list[str]]]:
        """How many peers take this key, and who can be dialled with no key. Raises OperatorError: one has another."""
        peers, before = self._peers(), self._ring.offered
        new = yield Question(secret, _targets(peers))
        missing = [peer for peer in peers if peer not in new]
        old = yield Question(before, _targets(peers, missing))
        harmed = [peer for peer in missing if peer in old or peers[peer].dialled]
        if harmed:
            raise OperatorError(
                f"{_of(len(harmed), len(peers))} would be cut off, not answering with key {secret.key_id.hex()}: "
                f"{self._names(peers, harmed)}; add the key there first (`mcencrypt key add`), or insist with --force"
            )
        return len(peers) - len(missing), [self._called(peers, peer) for peer in missing]

    def _retire(self, secret: NetworkSecret, force: bool) -> Asks[replies.KeyRetired]:
        offered = self._ring.offered
        if secret is offered:
            raise OperatorError(
                f"key {secret.key_id.hex()} is the one that this node offers: `mcencrypt key use` another first"
            )
        asked = 0 if force else (yield from self._nobody_offers(secret))
        self._stored.retire(secret)
        log.info("network key retired", extra=fields(key_id=secret.key_id.hex()))
        return {
            "id": secret.key_id.hex(),
            "offered": self._ring.offered.key_id.hex(),
            "asked": asked,
            "base": self._stored.base_retired,
            "connections": self._connections(self._timers.now()).get(secret.key_id, 0),
        }

    def _nobody_offers(self, secret: NetworkSecret) -> Asks[int]:
        """How many peers said what they offer. Raises OperatorError: one offers this key, or did when last heard of."""
        peers, offered = self._peers(), self._ring.offered
        current = yield Question(offered, _targets(peers))
        for peer, result in current.items():
            if result.offered:
                self._offers.note(peer, result.key_id, self._timers.now(), peers[peer].packed)
        unclear = [peer for peer in peers if peer not in current or not current[peer].offered]
        old = yield Question(secret, _targets(peers, unclear))
        silent = [peer for peer in peers if peer not in current and peer not in old]
        remembered = set(self._offers.peers(secret.key_id, self._timers.now()))
        offering = [peer for peer, result in old.items() if result.offered]
        offering += [peer for peer in silent if peer in remembered]
        if offering:
            raise OperatorError(
                f"{_of(len(offering), len(peers))} would be cut off, offering key {secret.key_id.hex()} when last "
                f"heard of: {self._names(peers, offering)}; `mcencrypt key use {offered.key_id.hex()}` there first, or "
                "insist with --force"
            )
        return len(peers) - len(silent)

    # -- what they have in common

    def _find(self, arguments: Arguments) -> NetworkSecret:
        try:
            return self._ring.find(str(arguments.get("id", "")))
        except RingError as problem:
            raise OperatorError(str(problem)) from None

    def _carry_out(self, change: Asks[R]) -> R | Later[R]:
        """Run a change, with a survey for each question. One that asks nothing is done at once.

        Raises OperatorError: the change does, or another one is under way and this one wants to ask.
        """
        try:
            question = next(change)
        except StopIteration as done:
            result: R = done.value
            return result
        if self._busy:
            raise OperatorError("another change of keys is under way: try again in a few seconds")
        self._busy = True
        later: Later[R] = Later()
        self._ask(question, change, later)
        return later

    def _ask(self, question: Question, change: Asks[R], later: Later[R]) -> None:
        Survey(self._prober, self._timers, question, lambda answers: self._go_on(answers, change, later))

    def _go_on(self, answers: Answers, change: Asks[R], later: Later[R]) -> None:
        """A change has its answers: it asks again, or ends."""
        try:
            question = change.send(answers)
        except StopIteration as done:
            self._busy = False
            later.result(done.value)
        except (OperatorError, RingError) as problem:
            self._busy = False
            later.error(OperatorError(str(problem)))
        except Exception:
            self._busy = False
            later.error(OperatorError("the daemon failed at this command; its log says why"))
            raise
        else:
            self._ask(question, change, later)

    def _connections(self, now: float) -> dict[bytes, int]:
        """How many began under which key, of those that have keys."""
        counted: dict[bytes, int] = {}
        for shown in self._engine.connections(now):
            if shown.state.has_keys:
                counted[shown.key_id] = counted.get(shown.key_id, 0) + 1
        return counted

    def _peers(self) -> dict[bytes, _Peer]:
        """Everybody who is connected, or dialled us lately, by public key."""
        now = self._timers.now()
        ports = list(self._ports())
        peers: dict[bytes, _Peer] = {}
        for shown in self._engine.connections(now):
            if shown.state is not State.ENCRYPTED:
                continue
            peer = peers.setdefault(shown.identity, _Peer(shown.remote[:-2]))
            port = int.from_bytes(shown.remote[-2:], "big")
            if port in ports and shown.outgoing:
                if not peer.dialled:
                    peer.targets.clear()  # it is known to listen here
                peer.targets.append((peer.address, port))
                peer.dialled = True
            elif not peer.dialled:
                peer.targets += [(peer.address, port) for port in ports]
        for secret in self._ring:
            for public in self._offers.peers(secret.key_id, now):
                offer = self._offers.of(public, now)
                # One that is trusted no more has nothing left to be cut off from.
                if public not in peers and offer is not None and self._engine.policy.trusts(public):
                    peers[public] = _Peer(offer.address)
                    peers[public].targets = [(address(offer.address), port) for port in ports]
        for peer in peers.values():
            peer.targets = list(dict.fromkeys(peer.targets))
        return peers

    def _called(self, peers: dict[bytes, _Peer], peer: bytes) -> str:
        return f"{self._name_of(peer) or identity(peer)} at {peers[peer].address}"

    def _names(self, peers: dict[bytes, _Peer], some: list[bytes]) -> str:
        more = f" and {len(some) - NAMED} more" if len(some) > NAMED else ""
        return ", ".join(self._called(peers, peer) for peer in some[:NAMED]) + more


def _targets(peers: dict[bytes, _Peer], some: Iterable[bytes] | None = None) -> dict[bytes, Sequence[Target]]:
    """Where each of them, or of `some` of them, may listen."""
    return {peer: peers[peer].targets for peer in (peers if some is None else some)}


def _of(some: int, all_of_them: int) -> str:
    return f"{some} of {all_of_them} {'peer' if all_of_them == 1 else 'peers'}"
