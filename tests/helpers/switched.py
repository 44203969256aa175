"""A switch for tests: a real engine with one encrypted connection, over rules and sockets that only play."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mcencrypt.core.engine import CSUM_NOT_READY, Engine
from mcencrypt.core.verdict import DROP
from mcencrypt.daemon.switch import DRAIN_EVERY, Cause, Position, Switch
from tests.helpers.habits import Habits
from tests.helpers.network import Network
from tests.helpers.packets import SYN
from tests.helpers.sides import make
from tests.helpers.standins import FakeFence, FakeFirewall, FakeKernel, FakeLoop, FakeSockets
from tests.helpers.world import World

PORT = 8571
OWN, PEER = bytes((10, 0, 0, 11)), bytes((10, 0, 0, 10))


class Bench:
    """A switch, what is around it, and one encrypted connection that has a socket."""

    def __init__(self, state_dir: Path) -> None:
        world = World(1, Network(), (Habits(), Habits()), (100, 100), (1000, 5000))
        world.settle_handshake()
        self.engine: Engine = world.engines[1]
        self.state_dir = state_dir
        self.loop = FakeLoop()
        self.kernel = FakeKernel(self.loop)
        self.sockets = FakeSockets(self.kernel)
        self.encrypted = self.sockets.add(OWN, PORT, PEER, 40000)
        assert self.engine.table.encrypted_keys() == [self.encrypted]
        self.engine.take_policy(replace(self.engine.policy, enabled=False), self.loop.now())
        firewall, fence = FakeFirewall(self.kernel, (PORT,)), FakeFence(self.kernel, (PORT,))
        self.switch = Switch(self.engine, firewall, fence, self.sockets, self.loop, self.kernel.jobs, state_dir)

    def bring_to(self, position: Position) -> None:
        """From off, where it stands at first."""
        if position is not Position.OFF:
            self.kernel.do(self.switch.on())
        if position is Position.DRAINING:
            self.kernel.do(self.switch.off(now=False))
        assert self.switch.position is position
        self.kernel.acts.clear()

    def cause(self, cause: Cause) -> None:
        if cause is Cause.ON:
            self.kernel.do(self.switch.on())
        elif cause is Cause.OFF:
            self.kernel.do(self.switch.off(now=False))
        else:
            self.end_encrypted()
            self.loop.run(DRAIN_EVERY)

    def end_encrypted(self) -> None:
        """The application closes the encrypted connection."""
        self.sockets.table = [one for one in self.sockets.table if one.rport != 40000]

    def begins(self, port: int) -> bool:
        """Whether our socket's SYN on that port passes."""
        syn = make((OWN, port), (PEER, 41000), 5, 0, SYN)
        return self.engine.egress(syn.build(), CSUM_NOT_READY, self.loop.now()) is not DROP
