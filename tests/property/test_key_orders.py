"""Changes of keys on three nodes, in whatever order somebody asks for them: what is not refused cuts nobody off."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mcencrypt.control.server import Later
from mcencrypt.core.handshake import Carrier, NetworkSecret
from mcencrypt.core.keyring import KeyRing
from mcencrypt.core.probe import ProbeResult
from mcencrypt.daemon.rotation import Rotation
from mcencrypt.errors import OperatorError
from tests.helpers.packets import ACK, RST, SYN, Packet
from tests.helpers.sides import Host, Side, key_of, make

EFFORT = 20 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 1
PORT = 7331
NODES = range(3)
KEYS = [NetworkSecret(bytes((number,)) * 32) for number in range(3)]


def address(node: int) -> bytes:
    return bytes((10, 0, 0, 1 + node))


class InMemory:
    """What `Rotation` needs of a `StoredKeyring`, without a disk."""

    def __init__(self) -> None:
        self.base = KEYS[0]
        self.ring = KeyRing([self.base])
        self.base_retired = False

    def offer(self, secret: NetworkSecret) -> None:
        self.ring.offer(secret.key_id)

    def retire(self, secret: NetworkSecret) -> None:
        self.ring.remove(secret.key_id)


class Trio:
    """Three nodes that can dial each other, with real engines and handshakes, and a network that loses nothing."""

    def __init__(self) -> None:
        self._now = 1000.0
        self.due: list[Callable[[], None]] = []
        self.ports = 40000
        self.stored = [InMemory() for _ in NODES]
        self.sides = [Side(node, stored.ring) for node, stored in enumerate(self.stored)]
        self.rotations = [
            Rotation(self.sides[node].engine, self.stored[node], _Prober(self, node), self, lambda: (PORT,))  # type: ignore[arg-type]
            for node in NODES
        ]
        #: Handshakes of which the SYN-ACK is on its way: who dialled, whom, both ends, the SYN-ACK.
        self.half_done: list[tuple[int, int, Host, Host, Packet]] = []
        for one in NODES:
            for other in NODES:
                if one != other:
                    self.dial(one, other)
                    self.finish()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def now(self) -> float:
        return self._now

    def later(self) -> None:
        """A second passes."""
        self._now += 1
        for side in self.sides:
            side.now, side.unix_ms = self._now, int(self._now * 1000)

    def ends(self, one: int, other: int) -> tuple[Host, Host]:
        """A new connection's."""
        self.ports += 1
        return (address(one), self.ports), (address(other), PORT)

    def dial(self, one: int, other: int) -> None:
        """A SYN, which must be let in, and its SYN-ACK."""
        self.later()
        local, remote = self.ends(one, other)
        here, there = self.sides[one], self.sides[other]
        there.gets(here.dials(1000, local, remote))
        self.half_done.append((one, other, local, remote, there.sends(make(remote, local, 5000, 1001, SYN | ACK))))

    def finish(self) -> None:
        """The oldest handshake is completed, and its first data proves the initiator."""
        if not self.half_done:
            return
        one, other, local, remote, syn_ack = self.half_done.pop(0)
        here, there = self.sides[one], self.sides[other]
        assert not here.gets(syn_ack).flags & RST, here.events()
        assert there.gets(here.sends(make(local, remote, 1001, 5001, ACK, b"hello"))).payload == b"hello"

    def order(self, node: int, what: str, secret: NetworkSecret) -> bool:
        """Whether the node took the order."""
        try:
            if what == "add":
                self.stored[node].ring.add(secret)
                return True
            result: Any = getattr(self.rotations[node], what)({"id": secret.key_id.hex()})
        except OperatorError:
            return False
        while self.due:
            self.due.pop(0)()
        if isinstance(result, Later):
            assert result.reply is not None
            return bool(result.reply["ok"])
        return True


class _Prober:
    """Probes between the engines."""

    def __init__(self, trio: Trio, node: int) -> None:
        self.trio, self.node = trio, node

    def begin(
        self,
        to: str,
        port: int,
        secret: NetworkSecret,
        timeout: float,
        done: Callable[[ProbeResult], None],
        carrier: Carrier,
    ) -> None:
        trio, here = self.trio, self.trio.sides[self.node]
        other = int(to.rsplit(".", 1)[1]) - 1
        there = trio.sides[other]
        trio.later()
        local, remote = trio.ends(self.node, other)
        assert here.engine.probing.begin(
            key_of(local, remote), secret, here.now, timeout, lambda result: trio.due.append(lambda: done(result))
        )
        [(_, syn)] = here.injected()
        if isinstance(seen := there.ingress(syn), Packet):
            here.ingress(there.sends(make(remote, local, 5000, seen.seq + 1, SYN | ACK)))
            [(_, reset)] = here.injected()
            there.gets(reset)
        else:
            here.engine.probing.tick(here.now + timeout)


ORDERS = st.tuples(st.sampled_from(NODES), st.sampled_from(["add", "use", "retire"]), st.sampled_from(KEYS))
DIALS = st.tuples(st.sampled_from(NODES), st.just("dial"), st.sampled_from(NODES))
#: Long enough for wrong orders to be possible in most of them.
STEPS = st.lists(st.one_of(ORDERS, ORDERS, ORDERS, DIALS, st.just((0, "finish", 0))), min_size=30, max_size=60)


@settings(max_examples=40 * EFFORT)
@given(st.booleans(), STEPS)
def test_whatever_is_not_refused_cuts_nobody_off(added: bool, steps: list[tuple[int, str, Any]]) -> None:
    trio = Trio()
    if added:
        steps = [(node, "add", secret) for node in NODES for secret in KEYS] + steps
    for node, what, argument in steps:
        if what == "dial":
            if node != argument:
                trio.dial(node, argument)
        elif what == "finish":
            trio.finish()
        else:
            trio.order(node, what, argument)
            for one in NODES:
                for other in NODES:
                    assert trio.stored[one].ring.offered.key_id in trio.stored[other].ring, (one, other)
    while trio.half_done:
        trio.finish()


@settings(max_examples=15 * EFFORT)
@given(st.data())
def test_the_right_order_is_never_refused(data: st.DataObject) -> None:
    """Each node takes its steps when all others have taken the one before, in any sequence, with traffic between."""
    trio = Trio()
    old = KEYS[0]
    for new in KEYS[1:]:
        for what, secret in (("add", new), ("use", new), ("retire", old)):
            for node in data.draw(st.permutations(NODES)):
                one, other = data.draw(st.permutations(NODES))[:2]
                trio.dial(one, other)
                assert trio.order(node, what, secret), (node, what)
                if data.draw(st.booleans()):
                    trio.finish()
        old = new
    while trio.half_done:
        trio.finish()
    assert all(list(stored.ring) == [KEYS[-1]] for stored in trio.stored)
