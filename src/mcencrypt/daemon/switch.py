"""On, draining, off: the rules, the sockets that must go, and the wait until the last encrypted connection is gone."""

from __future__ import annotations

import contextlib
import enum
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from mcencrypt.core.addresses import Ends, endpoints, peer_of, reversed_key
from mcencrypt.core.engine import Engine
from mcencrypt.core.policy import Policy
from mcencrypt.daemon.guard import Guard
from mcencrypt.daemon.interfaces import Fence, Firewall, Loop, Sockets
from mcencrypt.daemon.jobs import Jobs
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Steps
from mcencrypt.kernel.sockets import Tcp
from mcencrypt.logs import fields
from mcencrypt.store.position import read_switch, write_ports, write_switch

log = logging.getLogger(__name__)

#: Seconds between two looks at whether the last encrypted connection is gone, while switching off.
DRAIN_EVERY = 0.05


#: Attempts of ours whose sockets seem to be gone and are looked for once more, each time.
DIALS_AT_ONCE = 256


class Position(enum.Enum):
    """Where the switch stands."""

    ON = "on"
    DRAINING = "draining"
    OFF = "off"


class Cause(enum.Enum):
    """What moves the switch."""

    ON = "on"
    OFF = "off"
    LAST_ENDED = "the last encrypted connection has ended"


class Move(NamedTuple):
    """Where a cause leads, and what has been done when the switch stands there, for a reader."""

    target: Position
    effect: str


#: Every move; docs/design.md has it as a drawing (`tools/drawings`).
MOVES: Final[Mapping[tuple[Position, Cause], Move]] = {
    (Position.OFF, Cause.ON): Move(Position.ON, "fence and rules in; plaintext connections that may not be are ended"),
    (Position.ON, Cause.ON): Move(Position.ON, "fence and rules repaired"),
    (Position.DRAINING, Cause.ON): Move(Position.ON, "rules repaired; plaintext connections that may not be are ended"),
    (Position.OFF, Cause.OFF): Move(Position.OFF, "rules and fence taken out, whoever left them"),
    (Position.ON, Cause.OFF): Move(Position.DRAINING, "new connections are plaintext; --now: encrypted ones are reset"),
    (Position.DRAINING, Cause.OFF): Move(Position.DRAINING, "--now: encrypted ones are reset"),
    (Position.DRAINING, Cause.LAST_ENDED): Move(Position.OFF, "rules out, then the fence"),
}


class Ended(NamedTuple):
    """The connections, ours first, that a policy did not allow."""

    plaintext: list[bytes]
    #: Encrypted ones.
    distrusted: list[bytes]


class Switch:
    """Keeps kernel and engine in step with what the operator wants."""

    def __init__(
        self,
        engine: Engine,
        firewall: Firewall,
        fence: Fence,
        sockets: Sockets,
        loop: Loop,
        jobs: Jobs,
        state_dir: Path,
    ) -> None:
        self._engine, self._sockets = engine, sockets
        self._loop, self._jobs, self._state_dir = loop, jobs, state_dir
        #: The watch over rules and fence.
        self.guard = Guard(firewall, fence, loop, jobs, self._rules_lost, self._rules_back)
        self._will_drain = False
        #: Connections whose sockets were ended because rules were gone, and whose far sides do not know yet.
        self._ended_by_loss: set[bytes] = set()
        self.position = Position.OFF

    @property
    def ports(self) -> tuple[int, ...]:
        return self.guard.ports

    def start(self) -> Steps[None]:
        """Take the position in which the operator left it. Raises OperatorError."""
        if read_switch(self._state_dir):
            yield from self.on()
        else:
            self._allow_plaintext()
            yield from self.guard.remove()

    def on(self) -> Steps[None]:
        """Encrypt: fence and rules in, then end what runs in plaintext and may not. Raises OperatorError."""
        yield from self.guard.install()
        write_switch(self._state_dir, True)
        self._remember_ports()
        if self._move(Cause.ON) is Position.ON:
            return
        self.take_policy(replace(self.policy, enabled=True))
        log.info("encryption is on", extra=fields(ports=list(self.ports), mode=self.policy.mode))

    def take_ports(self, ports: Sequence[int]) -> Steps[int]:
        """Take other ports from now on. Returns how many encrypted connections were reset.

        Those are on ports that are given up: without rules their sockets would go on in plaintext, in the middle of
        a stream. Plaintext ones on new ports are left to `take_policy`. Raises OperatorError; then the old rules
        stay, or come back at the next look.
        """
        leaving: list[bytes] = []
        if self.position is not Position.OFF:
            leaving = self._engine.leave_all_but(ports, self._loop.now())
            self._destroy_all(leaving)
        try:
            yield from self.guard.take_ports(ports)
        finally:
            self._engine.have_left()
        if self.position is Position.ON:
            self._remember_ports()
        return len(leaving)

    def _remember_ports(self) -> None:
        """For the next start of the system, should the configuration be wrong by then."""
        try:
            write_ports(self._state_dir, self.ports)
        except OperatorError as problem:
            log.warning(str(problem))

    def off(self, now: bool) -> Steps[int]:
        """New connections in plaintext; returns how many encrypted ones are left to finish. Raises OperatorError.

        With `now` those are reset.
        """
        write_switch(self._state_dir, False)
        self._allow_plaintext()
        if self.position is Position.OFF:
            yield from self.guard.remove()
            self._move(Cause.OFF)
            return 0
        self._move(Cause.OFF)
        if now:
            self._destroy_all(self._engine.table.encrypted_keys())
        left = self._left()
        log.info("encryption is off for new connections", extra=fields(still_encrypted=left))
        try:
            yield from self._drained()
        finally:
            self._drain_later()
        return left

    def _allow_plaintext(self) -> None:
        self._engine.take_policy(replace(self.policy, enabled=False), self._loop.now())

    def _move(self, cause: Cause) -> Position:
        """Take the position that `MOVES` names; returns the one before."""
        before = self.position
        self.position = MOVES[before, cause].target
        return before

    # -- draining

    def _left(self) -> int:
        """Forget flows whose sockets are done; returns how many encrypted ones are left."""
        left = 0
        for ends, found in self._sockets.find(map(Ends.of, self._engine.table.encrypted_keys())):
            if found is None or found.state in (Tcp.TIME_WAIT, Tcp.CLOSE):
                self._engine.table.forget(ends.key())
            else:
                left += 1
        return left

    def _drained(self) -> Steps[None]:
        """With the last encrypted connection rules and fence go. Raises OperatorError."""
        if self.position is not Position.DRAINING or self._left():
            return
        # packets go on meanwhile, and what became a connection now would lose its rules in a moment
        self._engine.admission.forget_attempts()
        yield from self.guard.remove()
        self._move(Cause.LAST_ENDED)
        table = self._engine.table
        for key in table.plaintext_keys() + table.check_keys():
            table.leave_alone(key)
        log.info("rules removed")

    def _drain_later(self) -> None:
        if self.position is Position.DRAINING and not self._will_drain:
            self._will_drain = True
            self._loop.call_at(self._loop.now() + DRAIN_EVERY, self._drain_again)

    def _drain_again(self) -> None:
        self._will_drain = False
        if self.position is not Position.DRAINING:
            return
        if self._left():
            self._drain_later()
        else:
            self._jobs.run(self._drained(), lambda nothing: self._drain_later(), self._not_drained)

    def _not_drained(self, problem: OperatorError) -> None:
        log.error(str(problem))
        self._drain_later()

    # -- sockets

    def end(self, keys: Sequence[bytes]) -> None:
        """End the sockets of connections that an earlier process encrypted.

        Before anything is done to rules: without those they would go on in plaintext, in the middle of a stream.
        """
        self._destroy_all(keys)

    def look_up(self, keys: list[bytes], now: float) -> None:
        """Forget connections that have no socket any more."""
        for ends, found in self._sockets.find(map(Ends.of, keys)):
            if found is None:
                self._engine.table.forget(ends.key())
            else:
                self._engine.table.touch(ends.key(), now)

    def look_up_dials(self, begun_before: float) -> None:
        """Forget our sockets' attempts, of those that began before that time, that have no socket any more.

        A socket that is closed before its SYN was answered sends nothing.
        """
        attempts = self._engine.admission.dialling.items()
        keys = [key for key, attempt in attempts if attempt.begun < begun_before]
        if not keys:
            return
        with _logged("sockets could not be looked up"):
            waiting = self._sockets.dialling()
            missing = [ends for ends in map(Ends.of, keys) if ends not in waiting]
            for ends, found in self._sockets.find(missing[:DIALS_AT_ONCE]):
                if found is None:
                    self._engine.admission.dials.forget(ends.key())

    def destroy(self, key: bytes) -> None:
        """End a local socket; its application sees an error and redials.

        One that is just being made may be missed, and is met again by its next packet.
        """
        with _logged():
            self._sockets.destroy(*Ends.of(key))

    def destroy_suspect(self, key: bytes) -> bool:
        """The same for one that a stranger's packet named. Whether there was one.

        Of one that has its other end here as well no packet comes from the network; but over IPv6 anybody can send one
        that has our own address as its source.
        """
        with _logged():
            other = self._sockets.state(*Ends.of(reversed_key(key)))
            return other is None and self._sockets.destroy(*Ends.of(key))
        return False

    def _destroy_all(self, keys: Sequence[bytes]) -> None:
        """End local sockets, and miss none."""
        with _logged():
            for ends, found in self._sockets.find(map(Ends.of, keys)):
                if found is not None:
                    with _logged():
                        self._sockets.destroy_found(ends, found)

    def with_sockets(self) -> set[tuple[bytes, bytes]]:
        """The connections on the ports that have a socket which does not merely linger: our end and theirs, packed."""
        return {
            endpoints(Ends(one.local, one.lport, one.remote, one.rport).key())
            for one in self._sockets.connected(self.ports)
            if one.state not in (Tcp.TIME_WAIT, Tcp.CLOSE)
        }

    def plaintext(self) -> list[bytes]:
        """The connections on the ports that are not encrypted: all that the kernel has, idle ones from before too.

        Health checks, which carry nothing, are none of them.
        """
        engine = self._engine
        known = {
            *engine.table.encrypted_keys(), *engine.table.check_keys(), *engine.admission.keys(), *engine.streams.keys()
        }  # fmt: skip
        found = {
            Ends(one.local, one.lport, one.remote, one.rport).key(): one for one in self._sockets.connected(self.ports)
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

    # -- policy

    @property
    def policy(self) -> Policy:
        """What the operator allows; `enabled` is the switch's own part of it."""
        return self._engine.policy

    def take_policy(self, policy: Policy) -> Ended:
        """Another policy from now on; what runs and is not allowed any more ends."""
        now = self._loop.now()
        distrusted = self._engine.take_policy(policy, now)
        self._destroy_all(distrusted)
        plaintext: list[bytes] = []
        if policy.enabled:
            # all that the kernel has: of idle connections the engine has seen no packet
            plaintext = [
                key for key in self.plaintext() if not policy.plaintext_allowed(peer_of(key)) and key not in distrusted
            ]
        for key in plaintext:
            self._engine.table.disown(key, now)
        self._destroy_all(plaintext)
        return Ended(plaintext, distrusted)

    # -- rules

    def _rules_lost(self) -> None:
        """Rules were gone and no fence stood: first the sockets go that would now speak in plaintext."""
        keys = self._engine.table.encrypted_keys()
        self._destroy_all(keys + self._engine.table.check_keys())
        log.error(
            "somebody removed our rules and no fence stood; they are put back",
            extra=fields(connections_reset=len(keys)),
        )
        self._ended_by_loss.update(keys)

    def _rules_back(self) -> None:
        """The far sides are reset only now, because without rules nothing of ours passes the fence."""
        keys, self._ended_by_loss = self._ended_by_loss, set()
        for key in keys:
            self._engine.table.abort(key, self._loop.now(), "its rules were removed")


@contextlib.contextmanager
def _logged(what: str = "a socket could not be ended") -> Iterator[None]:
    """What the kernel refuses is logged, and is no reason to stop."""
    try:
        yield
    except OSError as problem:
        log.warning(what, extra=fields(error=problem.strerror))
    except OperatorError as problem:
        log.warning(str(problem))


def _is_loopback(address: bytes) -> bool:
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\1"
