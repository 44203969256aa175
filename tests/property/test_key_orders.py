"""Changes of keys on three nodes, in whatever order somebody asks for them: what is not refused cuts nobody off."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random
from struct import pack
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from mcencrypt.control.server import Later
from mcencrypt.core.engine import Engine
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.keyring import KeyRing
from mcencrypt.core.packet import ACK, RST, SYN, Segment, bare, rebuild
from mcencrypt.core.policy import Policy, Surroundings
from mcencrypt.core.probing import ProbeResult
from mcencrypt.core.verdict import Verdict
from mcencrypt.daemon.rotation import Rotation
from mcencrypt.errors import OperatorError

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
        dice = Random(1)
        self.now = 1000.0
        self.due: list[Callable[[], None]] = []
        self.ports = 40000
        self.stored = [InMemory() for _ in NODES]
        self.engines: list[Engine] = []
        for stored in self.stored:
            static = X25519PrivateKey.from_private_bytes(dice.randbytes(32))
            around = Surroundings(dice.randbytes, lambda: int(self.now * 1000), lambda peer, own: 1500)
            self.engines.append(Engine(Policy(), stored.ring, static, around))
        self.rotations = [
            Rotation(self.engines[node], self.stored[node], _Prober(self, node), self, lambda: (PORT,))  # type: ignore[arg-type]
            for node in NODES
        ]
        #: Handshakes of which the SYN-ACK is on its way: who dialled, whom, our SYN, the SYN-ACK.
        self.half_done: list[tuple[int, int, Segment, Verdict]] = []
        for one in NODES:
            for other in NODES:
                if one != other:
                    self.dial(one, other)
                    self.finish()

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def key(self, one: int, other: int) -> bytes:
        self.ports += 1
        return address(one) + address(other) + pack("!HH", self.ports, PORT)

    def dial(self, one: int, other: int) -> None:
        """A SYN, which must be let in, and its SYN-ACK."""
        self.now += 1
        plain = Segment(bare(self.key(one, other), 1000, 0, SYN, 65535))
        sent = self.engines[one].egress(plain.packet, 0, self.now)
        assert isinstance(sent, bytes)
        let_in = self.engines[other].ingress(sent, 0, self.now)
        assert isinstance(let_in, bytes), f"node {other} refused node {one}: {self.engines[other].outcome.events}"
        answer = bare(plain.source_first[4:8] + plain.source_first[:4] + pack("!HH", PORT, self.ports), 5000, 1001,
                      SYN | ACK, 65535)  # fmt: skip
        self.half_done.append((one, other, plain, self.engines[other].egress(answer, 0, self.now)))

    def finish(self) -> None:
        """The oldest handshake is completed, and its first data proves the initiator."""
        if not self.half_done:
            return
        one, other, plain, syn_ack = self.half_done.pop(0)
        assert isinstance(syn_ack, bytes)
        seen = self.engines[one].ingress(syn_ack, 0, self.now)
        assert isinstance(seen, bytes) and not Segment(seen).flags & RST, self.engines[one].outcome.events
        empty = Segment(bare(plain.source_first, 1001, 5001, ACK, 65535))
        data = self.engines[one].egress(rebuild(empty, 1001, 5001, b"hello"), 0, self.now)
        assert isinstance(data, bytes)
        read = self.engines[other].ingress(data, 0, self.now)
        assert isinstance(read, bytes) and bytes(Segment(read).payload()) == b"hello"

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
        self, to: str, port: int, secret: NetworkSecret, timeout: float, done: Callable[[ProbeResult], None]
    ) -> None:
        trio, here = self.trio, self.trio.engines[self.node]
        other = int(to.rsplit(".", 1)[1]) - 1
        there = trio.engines[other]
        key = trio.key(self.node, other)
        trio.now += 1
        assert here.probing.begin(key, secret, trio.now, timeout, lambda result: trio.due.append(lambda: done(result)))
        syn = here.outcome.injections.pop()
        let_in = there.ingress(syn.packet, 0, trio.now)
        if isinstance(let_in, bytes):
            seen = Segment(let_in)
            answer = bare(key[4:8] + key[:4] + key[-2:] + key[-4:-2], 5000, seen.seq + 1, SYN | ACK, 65535)
            verdict = there.egress(answer, 0, trio.now)
            assert isinstance(verdict, bytes)
            here.ingress(verdict, 0, trio.now)
            there.ingress(here.outcome.injections.pop().packet, 0, trio.now)
        else:
            here.probing.tick(trio.now + timeout)


ORDERS = st.tuples(st.sampled_from(NODES), st.sampled_from(["add", "use", "retire"]), st.sampled_from(KEYS))
DIALS = st.tuples(st.sampled_from(NODES), st.just("dial"), st.sampled_from(NODES))
#: Long enough for wrong orders to be possible in most of them.
STEPS = st.lists(st.one_of(ORDERS, ORDERS, ORDERS, DIALS, st.just((0, "finish", 0))), min_size=30, max_size=60)


@settings(max_examples=40 * EFFORT, deadline=None)
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


@settings(max_examples=15 * EFFORT, deadline=None)
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
