"""What is known before the checks begin: the machine, the configuration, and what the daemon says of itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mcencrypt.doctor.machine import Machine
from mcencrypt.errors import OperatorError
from mcencrypt.nodes.processes import Process, own_netns, read_processes
from mcencrypt.store.config import Config

if TYPE_CHECKING:
    from mcencrypt.control.replies import Status


@dataclass
class Case:
    """One examination."""

    machine: Machine
    #: As configured; defaults where `config_error` says why there is none.
    config: Config
    config_error: str = ""
    #: The daemon's answer to `status`, None if none answers.
    status: Status | None = None
    #: Why no daemon answered.
    silence: str = ""
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    #: The network namespace that had to be entered, in words; "" if the daemon is in this one.
    elsewhere: str = ""
    #: Why it could not be entered, so that what is seen may be of another one.
    not_entered: str = ""
    _processes: list[Process] | None = None

    def processes(self) -> list[Process]:
        """All processes that can be seen, read once."""
        if self._processes is None:
            self._processes = read_processes(self.machine)
        return self._processes

    def is_here(self, process: Process) -> bool:
        """Whether a process is in the network namespace that is examined, or may be."""
        here = own_netns(self.machine)
        return not here or process.netns in ("", here)

    def configured_ports(self) -> tuple[int, ...]:
        """The ports that the configuration says, () if it does not say."""
        try:
            return self.config.p2p_ports()
        except OperatorError:
            return ()

    @property
    def ports(self) -> tuple[int, ...]:
        """The P2P ports: those that the daemon takes, or would take."""
        return tuple(self.status["ports"]) if self.status else self.configured_ports()

    @property
    def queue_number(self) -> int:
        return self.status["queue"]["number"] if self.status else self.config.queue_number

    @property
    def fence_mark(self) -> int | None:
        """The bit of the fence; None where there is no fence."""
        return None if self.status and self.status["gate"]["fence"] == "none" else self.config.fence_mark

    @property
    def daemon_pid(self) -> int | None:
        return self.status["pid"] if self.status else None

    @property
    def rules_expected(self) -> bool:
        """Whether the running daemon must have its rules in place now."""
        return bool(self.status and (self.status["enabled"] or self.status["draining"]))
