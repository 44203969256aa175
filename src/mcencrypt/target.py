"""How an operator names a network namespace: ``NAME``, ``PID`` or ``docker:CONTAINER``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

#: Names of `ip netns` may hold more; containers' names and systemd's instance names hold this.
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DOCKER = "docker:"


class Kind(Enum):
    """Where a namespace is found."""

    #: /run/netns/NAME, made by ``ip netns add`` (ip-netns(8)).
    NAME = "name"
    #: /proc/PID/ns/net.
    PID = "pid"
    #: The one of a container's first process, which the Docker engine knows.
    DOCKER = "docker"


@dataclass(frozen=True)
class Target:
    """A network namespace as it was named."""

    kind: Kind
    name: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """Raises ValueError, whose text says what is allowed."""
        kind, name = Kind.NAME, text
        if text.startswith(_DOCKER):
            kind, name = Kind.DOCKER, text.removeprefix(_DOCKER)
        elif text.isascii() and text.isdigit() and int(text):
            kind, name = Kind.PID, str(int(text))
        if not _WORD.fullmatch(name):
            raise ValueError(f"{text!r} is no network namespace: give NAME (see `ip netns`), PID, or docker:CONTAINER")
        return cls(kind, name)

    def __str__(self) -> str:
        """As it was written; also the name of the folders in which its daemon keeps its files."""
        return f"{_DOCKER}{self.name}" if self.kind is Kind.DOCKER else self.name

    @property
    def described(self) -> str:
        """For messages: ``container node1``."""
        words = {Kind.NAME: "network namespace", Kind.PID: "process", Kind.DOCKER: "container"}
        return f"{words[self.kind]} {self.name}"
