"""A daemon's inside without its outside: engine, switch, keys and commands; the kernel only plays."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mcencrypt.control import replies
from mcencrypt.control.server import Later
from mcencrypt.core.engine import Engine
from mcencrypt.daemon.commands import Commands
from mcencrypt.daemon.lookout import Lookout
from mcencrypt.daemon.memory import Memory
from mcencrypt.daemon.notify import Notifier
from mcencrypt.daemon.prober import Prober
from mcencrypt.daemon.rotation import Rotation
from mcencrypt.daemon.settings import Live, first_policy
from mcencrypt.daemon.snapshot import Snapshots
from mcencrypt.daemon.switch import Switch
from mcencrypt.store.config import Config
from mcencrypt.store.keyring import StoredKeyring
from mcencrypt.store.keys import NetworkKey
from tests.helpers.recorded_machine import Recorded
from tests.helpers.sides import new_engine
from tests.helpers.standins import FakeFence, FakeFirewall, FakeKernel, FakeLoop, FakeSockets

KEY = NetworkKey(b"o" * 32)
QUEUE: replies.Queue = {
    "number": 27971, "waiting": 0, "dropped_kernel": 1, "dropped_user": 2, "enobufs": 3, "bad_verdicts": 4,
    "injections": 6, "injections_failed": 5,
}  # fmt: skip


class Station:
    """One node, switched off as at the start of its daemon."""

    def __init__(self, directory: Path, engine: Engine | None = None, **settings: Any) -> None:
        """`engine`: one that a test has made, with keys of its own; `settings`: the configuration's."""
        given: dict[str, Any] = {"ports": (7331,), "state_dir": directory, "run_dir": directory}
        self.config = Config(**given | settings)
        stored = StoredKeyring(self.config.state_dir, KEY)
        self.loop = FakeLoop()
        self.kernel = FakeKernel(self.loop)
        self.sockets = FakeSockets(self.kernel)
        self.engine = engine or new_engine(1, stored.ring, first_policy(self.config, self.config.peers()))
        ports = self.config.p2p_ports()
        firewall, fence = FakeFirewall(self.kernel, ports), FakeFence(self.kernel, ports)
        jobs, state_dir = self.kernel.jobs, self.config.state_dir
        self.switch = Switch(self.engine, firewall, fence, self.sockets, self.loop, jobs, state_dir)
        self.live = Live(self.config, lambda: self.config, self.switch, self.config.peers(), stored.knows)
        self.prober = Prober(self.engine, self.switch, self.loop)
        rotation = Rotation(self.engine, stored, self.prober, self.loop, lambda: self.switch.ports, self.live.name_of)
        self.machine = Recorded()
        self.lookout = Lookout(
            self.machine, self.sockets, self.loop, lambda: self.switch.ports, lambda: self.live.other_ports,
            self.live.follower(jobs),
        )  # fmt: skip
        public = "A" * 43 + "="
        self.memory = memory = Memory(self.engine, self.live, self.loop, jobs, state_dir)
        self.snapshots = Snapshots(
            public, self.engine, self.switch, self.live, rotation, lambda: QUEUE.copy(), self.loop, self.lookout, memory
        )
        self.commands = Commands(
            self.switch, self.live, self.prober, rotation, self.snapshots, Notifier({}), jobs, memory
        )

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Carry out a command, with the time that it takes. Raises OperatorError, AssertionError if it failed later."""
        result = self.commands(command, arguments)
        if isinstance(result, Later):
            self.loop.run(60)
            assert result.reply is not None
            if not result.reply["ok"]:
                raise AssertionError(result.reply["error"])
            result = result.reply["result"]
        return dict(result)


def snapshot_of(engine: Engine) -> dict[str, Any]:
    """What an exporter gets of a daemon with that engine, and with a version that needs escaping."""
    with TemporaryDirectory() as directory:
        made = Station(Path(directory), engine).snapshots.metrics()
    return dict(
        json.loads(json.dumps({**made, "version": '1.0"\\', "build": "compiled", "started": 1.7e9, "rules_lost": 2}))
    )
