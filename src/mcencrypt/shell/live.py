"""What an operator changes while connections live: the mode, and whatever of the configuration can be.

Encrypted connections go on through all of it, but for those on a port that is given up. Plaintext ones end as soon as
the new policy does not allow them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields as fields_of
from dataclasses import replace
from typing import Any, Final

from mcencrypt.config import MODES, Config
from mcencrypt.core.policy import Policy, endpoints
from mcencrypt.errors import OperatorError
from mcencrypt.logs import fields
from mcencrypt.remembered import read_mode, write_mode
from mcencrypt.shell.reports import endpoint
from mcencrypt.shell.switch import Position, Switch

log = logging.getLogger(__name__)

#: What a reload applies; every other key needs a restart.
_LIVE: Final = frozenset({"ports", "chains", "multichain_dir", "mode", "allow_plaintext", "log_level"})


class Live:
    """The configuration in force, and the policy that follows from it."""

    def __init__(self, config: Config, reread: Callable[[], Config], policy: Policy, switch: Switch) -> None:
        """Sets the mode of `policy`.  Raises OperatorError."""
        self._config, self._reread, self._policy, self._switch = config, reread, policy, switch
        self._remembered = read_mode(config.state_dir)
        policy.mode = self._remembered or config.mode

    @property
    def mode_source(self) -> str:
        """Who decided the mode: "command" (`mcencrypt mode`, remembered) or "configuration"."""
        return "command" if self._remembered else "configuration"

    def plaintext_peers(self) -> list[dict[str, Any]]:
        """The connections in plaintext; `allowed`: whether they may stay so under "require" as well."""
        return [self._plaintext_peer(key) for key in self._switch.plaintext()]

    def _plaintext_peer(self, key: bytes) -> dict[str, Any]:
        local, remote = endpoints(key)
        return {"peer": endpoint(remote), "local": endpoint(local), "allowed": self._policy.exempts(remote[:-2])}

    # -- the mode

    def command_mode(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The control command ``mode``: shows it, or changes it by `mode` or `from_config`.

        If that would end plaintext connections, it does nothing but name them as `would_end`, unless `confirmed`.
        Raises OperatorError.
        """
        wanted, from_config = arguments.get("mode"), arguments.get("from_config") is True
        if wanted is not None and wanted not in MODES:
            raise OperatorError(f"there is no mode {wanted!r}: say one of {', '.join(MODES)}")
        ended: list[bytes] = []
        if wanted is not None or from_config:
            mode: str = self._config.mode if from_config or wanted is None else wanted
            if arguments.get("confirmed") is not True and (would_end := self._would_end(mode)):
                return {**self._mode(), "would_end": would_end}
            write_mode(self._config.state_dir, None if from_config else wanted)
            self._remembered = None if from_config else wanted
            ended = self._enforce(mode)
            log.info("mode set", extra=fields(mode=mode, by=self.mode_source, plaintext_ended=len(ended)))
        return {**self._mode(), "ended": [self._plaintext_peer(key) for key in ended]}

    def _mode(self) -> dict[str, Any]:
        return {
            "mode": self._policy.mode,
            "mode_source": self.mode_source,
            "configured": self._config.mode,
            "plaintext_peers": self.plaintext_peers(),
        }

    def _would_end(self, mode: str) -> list[dict[str, Any]]:
        if mode != "require" or self._switch.position is not Position.ON:
            return []
        return [one for one in self.plaintext_peers() if not one["allowed"]]

    def _enforce(self, mode: str) -> list[bytes]:
        self._policy.mode = mode
        return self._switch.end_plaintext() if self._switch.position is Position.ON else []

    # -- the configuration

    def reload(self) -> dict[str, Any]:
        """Read the configuration again and apply it.  Says what changed, what needs a restart, and what it ended.

        Raises OperatorError if it is wrong or cannot be applied; then the old one stays, and the log says so.
        """
        try:
            return self._apply(self._reread())
        except OperatorError as problem:
            log.error("configuration not reloaded, the old one stays", extra=fields(error=str(problem)))
            raise OperatorError(f"the old configuration stays: {problem}") from None

    def _apply(self, read: Config) -> dict[str, Any]:
        before = self._config
        differing = [
            one.name
            for one in fields_of(Config)
            if one.name != "file" and getattr(read, one.name) != getattr(before, one.name)
        ]
        restart = [name for name in differing if name not in _LIVE]
        config = replace(read, **{name: getattr(before, name) for name in restart})
        ports = config.p2p_ports()
        policy = self._policy
        old = policy.mode, policy.allow_plaintext
        policy.mode, policy.allow_plaintext = self._remembered or config.mode, config.allow_plaintext
        reset = 0
        try:
            if set(ports) != set(self._switch.ports):
                differing = list(dict.fromkeys([*differing, "ports"]))  # a chain's files may say something else now
                reset = self._switch.take_ports(ports)
        except OperatorError:
            policy.mode, policy.allow_plaintext = old
            raise
        ended = self._enforce(policy.mode)
        logging.getLogger().setLevel(config.log_level.upper())
        self._config = config
        changed = [name for name in differing if name in _LIVE]
        numbers = {"plaintext_ended": len(ended), "encrypted_reset": reset}
        log.info(
            "configuration reloaded",
            extra=fields(changed=",".join(changed) or "nothing", needs_restart=",".join(restart) or None, **numbers),
        )
        return {
            "file": str(config.file) if config.file else None,
            "changed": changed,
            "needs_restart": restart,
            "ports": list(self._switch.ports),
            **self._mode(),
            **numbers,
        }
