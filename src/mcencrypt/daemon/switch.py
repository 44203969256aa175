"""On and off: the rules, the sockets that must go, and the wait until the last encrypted connection has closed."""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from mcencrypt.core.engine import Engine
from mcencrypt.core.packet import reversed_key
from mcencrypt.daemon.loop import Loop
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.firewall import Check, Firewall
from mcencrypt.kernel.ruleset import State
from mcencrypt.kernel.sockets import Sockets, Tcp
from mcencrypt.logs import fields
from mcencrypt.store.position import read_switch, write_switch

log = logging.getLogger(__name__)

#: Seconds between two looks at the rules where changes are not announced (iptables-legacy), and where they are.
LOOK_EVERY = 0.7
LOOK_EVERY_ANNOUNCED = 5.0
#: Seconds between two looks at whether the last encrypted connection is gone, while switching off.
DRAIN_EVERY = 0.05


class Position(enum.Enum):
    """Where the switch stands."""

    ON = "on"
    DRAINING = "draining"
    OFF = "off"


class Switch:
    """Keeps kernel and engine in step with what the operator wants."""

    def __init__(self, engine: Engine, firewall: Firewall, sockets: Sockets, loop: Loop, state_dir: Path) -> None:
        self._engine, self._firewall, self._sockets = engine, firewall, sockets
        self._loop, self._state_dir = loop, state_dir
        self._check: Check | None = None
        self.position = Position.OFF
        #: Times that somebody else removed our rules.
        self.rules_lost = 0
        self._rules_seen: float | None = None
        self._events = firewall.events()
        loop.add_reader(self._events.fileno(), self._rules_changed)
        loop.call_every(LOOK_EVERY_ANNOUNCED if firewall.announces_changes() else LOOK_EVERY, self._look)

    @property
    def ports(self) -> tuple[int, ...]:
        return self._firewall.ports

    def rules_seen(self, now: float) -> float | None:
        """Seconds since the rules were last known to be in place; None if they are not.

        While encryption is on it stays below the time between two looks, unless they cannot be looked at.
        """
        return None if self._rules_seen is None else now - self._rules_seen

    def start(self) -> None:
        """Take the position in which the operator left it."""
        if read_switch(self._state_dir):
            self.on()
        else:
            self._engine.policy.enabled = False
            self._remove()

    def on(self) -> None:
        """Encrypt: rules in, then end what runs in plaintext and may not.  Raises OperatorError."""
        self._install()
        write_switch(self._state_dir, True)
        if self.position is Position.ON:
            return
        self._engine.policy.enabled = True
        self.position = Position.ON
        self.end_plaintext()
        log.info("encryption is on", extra=fields(ports=list(self._firewall.ports), mode=self._engine.policy.mode))

    def take_ports(self, ports: Sequence[int]) -> int:
        """Take other ports from now on.  Returns how many encrypted connections were reset.

        Those are on ports that are given up: without rules their sockets would go on in plaintext, in the middle of
        a stream.  Plaintext ones on new ports are left to `end_plaintext`.  Raises OperatorError; then the old rules
        stay, or come back at the next look.
        """
        old, new = self._firewall, Firewall(ports, self._firewall.queue_number)
        if self.position is Position.OFF:
            self._firewall = new
            return 0
        self._cancel_check()
        leaving = self._engine.leave_all_but(new.ports, time.monotonic())
        for key in leaving:
            self.destroy(key)
        self._firewall = new
        try:
            self._install()
        except OperatorError:
            self._firewall = old
            raise
        return len(leaving)

    def off(self, now: bool) -> int:
        """New connections in plaintext; returns how many encrypted ones are left to finish.  Raises OperatorError.

        With `now` those are reset.
        """
        write_switch(self._state_dir, False)
        self._engine.policy.enabled = False
        if self.position is Position.OFF:
            self._remove()
            return 0
        self.position = Position.DRAINING
        if now:
            for key in self._engine.encrypted_keys():
                self.destroy(key)
        left = self._drain()
        log.info("encryption is off for new connections", extra=fields(still_encrypted=left))
        if left:
            self._loop.call_at(time.monotonic() + DRAIN_EVERY, self._drain_again)
        return left

    def _drain_again(self) -> None:
        if self.position is Position.DRAINING and self._drain():
            self._loop.call_at(time.monotonic() + DRAIN_EVERY, self._drain_again)

    def _drain(self) -> int:
        """Forget flows whose sockets are done; with the last one the rules go."""
        left = 0
        for key in self._engine.encrypted_keys():
            if self._socket_state(key) in (None, Tcp.TIME_WAIT, Tcp.CLOSE):
                self._engine.forget(key)
            else:
                left += 1
        if not left:
            self._cancel_check()
            self._remove()
            self.position = Position.OFF
            self._engine.forget_plaintext()
            log.info("rules removed")
        return left

    # -- sockets

    def _socket_state(self, key: bytes) -> int | None:
        return self._sockets.state(*_tuple(key))

    def look_up(self, keys: list[bytes], now: float) -> None:
        """Forget connections that have no socket any more."""
        for key in keys:
            if self._socket_state(key) is None:
                self._engine.forget(key)
            else:
                self._engine.touch(key, now)

    def destroy(self, key: bytes) -> None:
        """End a local socket; its application sees an error and redials."""
        try:
            self._sockets.destroy(*_tuple(key))
        except OSError as problem:
            log.warning("a socket could not be ended", extra=fields(error=problem.strerror))
        except OperatorError as problem:
            log.warning(str(problem))

    def destroy_endpoints(self, local: bytes, remote: bytes) -> None:
        """`destroy` for a packed address and port of each side."""
        self.destroy(local[:-2] + remote[:-2] + local[-2:] + remote[-2:])

    def plaintext(self) -> list[bytes]:
        """The connections on the ports that are not encrypted: all that the kernel has, idle ones from before too."""
        known = {*self._engine.encrypted_keys(), *self._engine.attempts()}
        found = {
            one.local + one.remote + one.lport.to_bytes(2, "big") + one.rport.to_bytes(2, "big"): one
            for one in self._sockets.connected(self._firewall.ports)
        }
        return [
            key
            for key, one in found.items()
            if key not in known
            and one.state not in (Tcp.TIME_WAIT, Tcp.SYN_SENT)
            and reversed_key(key) not in found  # both ends are here, so it never leaves this host
            and one.local != one.remote
            and not _is_loopback(one.local)
        ]

    def end_plaintext(self) -> list[bytes]:
        """End what runs in plaintext and may not; returns those connections."""
        ended = [key for key in self.plaintext() if not self._engine.keeps_plaintext(key)]
        # Of a connection that has no socket any more the kernel still answers what comes; that is not for us to pass.
        gone = [key for key in self._engine.plaintext_keys() if not self._engine.keeps_plaintext(key)]
        for key in dict.fromkeys(ended + gone):
            self._engine.disown(key, time.monotonic())
        for key in ended:
            self.destroy(key)
        return ended

    def end_distrusted(self) -> int:
        """End what is encrypted with peers that are not trusted (any more); returns how many connections that were."""
        ended = self._engine.end_distrusted(time.monotonic())
        for key in ended:
            self.destroy(key)
        return len(ended)

    # -- rules

    def _rules_changed(self) -> None:
        if self._events.handle_events():
            self._look()

    def _look(self) -> None:
        if self._check is not None:
            self._look_result()
        elif self.position is not Position.OFF:
            try:
                self._check = self._firewall.start_check()
            except OperatorError as problem:
                log.error(str(problem))
                return
            self._loop.add_reader(self._check.fileno(), self._look_result)

    def _look_result(self) -> None:
        check = self._check
        if check is None:
            return
        fd = check.fileno()
        state = check.poll()
        if state is None:
            return
        self._check = None
        self._loop.remove_reader(fd, closed=True)
        if state is State.PRESENT:
            self._rules_seen = time.monotonic()
        if self.position is Position.OFF or state in (State.PRESENT, State.UNKNOWN):
            return
        if state is State.MISSING:
            self._rules_lost()
        try:
            self._install()
        except OperatorError as problem:
            log.error(str(problem))

    def _rules_lost(self) -> None:
        """Somebody removed our rules: first the sockets go that would now speak in plaintext."""
        keys = self._engine.encrypted_keys()
        for key in keys:
            self.destroy(key)
        self.rules_lost += 1
        log.error("somebody removed our rules; they are put back", extra=fields(connections_reset=len(keys)))
        self._loop.call_at(time.monotonic(), lambda: self._abort(keys))

    def _abort(self, keys: list[bytes]) -> None:
        for key in keys:
            self._engine.abort(key, time.monotonic())

    def _install(self) -> None:
        self._rules_seen = None
        self._firewall.install()
        self._rules_seen = time.monotonic()

    def _remove(self) -> None:
        self._rules_seen = None
        self._firewall.remove()

    def _cancel_check(self) -> None:
        if self._check is not None:
            self._loop.remove_reader(self._check.fileno())
            self._check.cancel()
            self._check = None


def _tuple(key: bytes) -> tuple[bytes, int, bytes, int]:
    """A connection key as the socket lookups take it."""
    half = (len(key) - 4) // 2
    return key[:half], int.from_bytes(key[-4:-2], "big"), key[half : 2 * half], int.from_bytes(key[-2:], "big")


def _is_loopback(address: bytes) -> bool:
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\1"
