"""The commands of the control socket: what each does, and what it is answered by."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from mcencrypt.control import replies
from mcencrypt.control.server import Arguments, Later, Result
from mcencrypt.daemon.jobs import Jobs
from mcencrypt.daemon.memory import Memory
from mcencrypt.daemon.names import endpoint
from mcencrypt.daemon.notify import Notifier
from mcencrypt.daemon.prober import Prober
from mcencrypt.daemon.rotation import Rotation
from mcencrypt.daemon.settings import Live
from mcencrypt.daemon.snapshot import Snapshots
from mcencrypt.daemon.switch import Switch
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Steps

R = TypeVar("R", bound=Result)


class Commands:
    """All of them, of one daemon."""

    def __init__(
        self,
        switch: Switch,
        live: Live,
        prober: Prober,
        rotation: Rotation,
        snapshots: Snapshots,
        notifier: Notifier,
        jobs: Jobs,
        memory: Memory,
    ) -> None:
        self._switch, self._live, self._snapshots, self._notifier = switch, live, snapshots, notifier
        self._memory = memory
        self._jobs = jobs
        self._known: dict[str, Callable[[Arguments], Result | Later[Any]]] = {
            "ping": self._ping,
            "on": self._on,
            "off": self._off,
            "status": self._status,
            "mode": live.command_mode,
            "reload": lambda arguments: self.reload(),
            "peers": self._peers,
            "peers-changed": live.command_peers_changed,
            "peers-forget": memory.command_forget,
            "probe": prober.command,
            "key-add": rotation.add,
            "key-use": rotation.use,
            "key-retire": rotation.retire,
        }

    def __call__(self, command: str, arguments: Arguments) -> Result | Later[Any]:
        """Carry out a command: what `ControlServer` calls. Raises OperatorError."""
        known = self._known.get(command)
        if known is None:
            raise OperatorError(f"the daemon does not know the command {command!r}: are both of one version?")
        return known(arguments)

    def reload(self) -> Later[replies.Reloaded]:
        """Read the configuration again; the service manager hears of the begin and the end."""
        return self._later(self._reloaded())

    def _reloaded(self) -> Steps[replies.Reloaded]:
        self._notifier.reloading()
        try:
            return (yield from self._live.reload())
        finally:
            self._notifier.ready(self._snapshots.line())

    def _later(self, steps: Steps[R]) -> Later[R]:
        """The answer of a command whose steps are done beside the packets."""
        later: Later[R] = Later()
        self._jobs.run(steps, later.result, later.error)
        return later

    def _ping(self, arguments: Arguments) -> replies.Ping:
        return {"pid": os.getpid()}

    def _on(self, arguments: Arguments) -> Later[replies.On]:
        def steps() -> Steps[replies.On]:
            before = self._live.plaintext_peers()
            yield from self._switch.on()
            left = self._live.plaintext_peers()
            return {"enabled": True, "ended": [one for one in before if one not in left]}

        return self._later(steps())

    def _off(self, arguments: Arguments) -> Later[replies.Off]:
        def steps() -> Steps[replies.Off]:
            now = bool(arguments.get("now"))
            reset = [endpoint(one.remote) for one in self._snapshots.connections() if one.state.has_keys and now]
            left = yield from self._switch.off(now)
            return {"enabled": False, "draining": left, "reset": reset}

        return self._later(steps())

    def _status(self, arguments: Arguments) -> replies.Status:
        return self._snapshots.status()

    def _peers(self, arguments: Arguments) -> replies.Peers:
        return self._live.command_peers(self._snapshots.connections(), self._memory.describe(), time.time())
