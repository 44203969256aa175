"""What an operator changes while connections live, over a switch that only plays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcencrypt.control.replies import Reloaded
from mcencrypt.core.policy import Policy
from mcencrypt.daemon.settings import Live, first_policy
from mcencrypt.daemon.switch import Ended, Position
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Steps, perform
from mcencrypt.store.config import Config

KEY = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + (7331).to_bytes(2, "big") + (40000).to_bytes(2, "big")
EXEMPT = bytes((10, 0, 0, 1, 192, 0, 2, 1)) + (7331).to_bytes(2, "big") + (40000).to_bytes(2, "big")


class FakeSwitch:
    """Two plaintext connections; which of them end is the policy's to say."""

    position = Position.ON
    ports: tuple[int, ...] = (7331,)

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._plain = [KEY, EXEMPT]
        self.problem: str | None = None
        self.distrusted = 0

    def plaintext(self) -> list[bytes]:
        return list(self._plain)

    def off(self) -> None:
        self.position, self.policy = Position.OFF, replace(self.policy, enabled=False)

    def take_policy(self, policy: Policy) -> Ended:
        self.policy = policy
        ended = [key for key in self._plain if not policy.plaintext_allowed(key[4:8])]
        self._plain = [key for key in self._plain if key not in ended]
        return Ended(ended, [KEY] * self.distrusted if policy.listed is not None else [])

    def take_ports(self, ports: tuple[int, ...]) -> Steps[int]:
        if self.problem:
            raise OperatorError(self.problem)
        self.ports = tuple(ports)
        yield from ()
        return 3


class Bench:
    """A `Live` over a switch that only plays."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.config = _config(directory, settings)
        peers = self.config.peers()
        self.switch = FakeSwitch(first_policy(self.config, peers))
        #: Ids of the network keys that the daemon uses.
        self.keys: set[bytes] = set()
        self.next: Callable[[], Config] = lambda: self.config
        self.live = Live(self.config, lambda: self.next(), self.switch, peers, lambda key_id: key_id in self.keys)

    @property
    def policy(self) -> Policy:
        return self.switch.policy

    def reload(self, **settings: Any) -> Reloaded:
        changed = _config(self.config.state_dir, settings)
        self.next = lambda: changed
        return self.reload_again()

    def reload_again(self) -> Reloaded:
        """Read what there is to be read."""
        return perform(self.live.reload(), 60)


def _config(state_dir: Path, settings: dict[str, Any]) -> Config:
    given: dict[str, Any] = {"ports": (7331,), "state_dir": state_dir, "mode": "prefer"}
    return Config(**given | settings)
