"""Who changed what: a line of its own kind in the log, whatever the log's level is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from mcencrypt.control.caller import Caller
from mcencrypt.control.server import Arguments
from mcencrypt.logs import fields

log = logging.getLogger("mcencrypt.audit")
log.setLevel(logging.INFO)

#: Commands that change something, and what of their arguments is told. Never told is `key`.
CHANGES: Final[Mapping[str, tuple[str, ...]]] = {
    "on": (),
    "off": ("now",),
    "mode": ("mode", "from_config", "confirmed"),
    "reload": (),
    "peers-changed": (),
    "peers-forget": ("address",),
    "key-add": (),
    "key-use": ("id", "force"),
    "key-retire": ("id", "force"),
}


def audit(caller: Caller, command: str, arguments: Arguments) -> None:
    """Somebody asks for a command; what shows and changes nothing is no event."""
    told = CHANGES.get(command)
    if told is None or (command == "mode" and not arguments.get("mode") and arguments.get("from_config") is not True):
        return
    given = {name: arguments[name] for name in told if arguments.get(name) not in (None, False)}
    log.info(
        "audit",
        extra=fields(
            command=command, uid=caller.uid, login_uid=caller.login_uid, pid=caller.pid, program=caller.words or None,
            **{f"with_{name}": str(value)[:64] for name, value in given.items()},
        ),
    )  # fmt: skip


def audit_signal(name: str, command: str) -> None:
    """A signal asks for a command; the kernel does not say whose it was."""
    log.info("audit", extra=fields(command=command, signal=name))
