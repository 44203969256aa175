"""Probes on the real network: a local address and port for each, timers, and the control command `probe`.

The SYN goes out through a raw socket like every packet of our own; its answer comes in through our own rules, so a
probe sees the path as connections do.  The local port is held by a socket that is bound and never connected: no
connection can get it meanwhile.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from mcencrypt.control import replies
from mcencrypt.control.server import Arguments, Later
from mcencrypt.core.engine import Engine
from mcencrypt.core.handshake import Carrier, NetworkSecret
from mcencrypt.core.keyring import RingError
from mcencrypt.core.probe import ProbeResult
from mcencrypt.daemon.interfaces import Timers
from mcencrypt.daemon.names import identity
from mcencrypt.daemon.reminder import Reminder
from mcencrypt.daemon.survey import Busy
from mcencrypt.daemon.switch import Position
from mcencrypt.errors import OperatorError

#: Seconds that a probe waits for an answer.
TIMEOUT: Final = 3.0
LONGEST: Final = 60.0
_DISCARD_PORT: Final = 9
_CARRIERS: Final[dict[str, Carrier]] = {carrier.word: carrier for carrier in Carrier}


class Switched(Protocol):
    """What a prober needs of `Switch`."""

    @property
    def position(self) -> Position: ...

    @property
    def ports(self) -> Sequence[int]: ...


class Prober:
    """Probes of one daemon."""

    def __init__(self, engine: Engine, switch: Switched, timers: Timers) -> None:
        self._engine, self._switch, self._timers = engine, switch, timers
        self._reminder = Reminder(engine.probing.next_time, engine.probing.tick, timers)

    def begin(
        self,
        address: str,
        port: int,
        secret: NetworkSecret,
        timeout: float,
        done: Callable[[ProbeResult], None],
        carrier: Carrier = Carrier.SYN,
    ) -> None:
        """Probe `address`:`port` with a handshake that travels so; `done` is called from the event loop, later.

        That is within about `timeout` seconds.
        Raises OperatorError: encryption is off, a port that is not ours, no route, an address of this host.
        """
        if self._switch.position is Position.OFF:
            raise OperatorError("encryption is off, so no answer would reach us: `mcencrypt on` first")
        if port not in self._switch.ports:
            known = ", ".join(map(str, self._switch.ports))
            raise OperatorError(f"port {port} is not one of the P2P ports here ({known}): set it in ports")
        peer = _packed(address)
        reserved, local = _reserve(address, peer)
        key = local[:-2] + peer + local[-2:] + port.to_bytes(2, "big")

        def ended(result: ProbeResult) -> None:
            reserved.close()
            # Not from within the packet path.
            self._timers.call_at(self._timers.now(), lambda: done(result))

        if not self._engine.probing.begin(key, secret, self._timers.now(), timeout, ended, carrier):
            reserved.close()
            raise Busy("too many probes are under way: try again in a few seconds")
        self._reminder.wake()

    def command(self, arguments: Arguments) -> Later[replies.Probed]:
        """The control command `probe`: `address`, `port`, perhaps `key_id`, `carrier` and `seconds` to wait."""
        ring = self._engine.ring
        try:
            address, port = str(arguments["address"]), int(arguments["port"])
            timeout = min(max(float(arguments.get("seconds") or TIMEOUT), 0.1), LONGEST)
            key_id, carrier = arguments.get("key_id"), _CARRIERS[str(arguments.get("carrier") or Carrier.SYN.word)]
            secret = ring.offered if key_id is None else ring.find(str(key_id))
        except (KeyError, TypeError, ValueError):
            raise OperatorError("a probe needs an address and a port, both as numbers") from None
        except RingError as problem:
            raise OperatorError(f"{problem}: see `mcencrypt key list`") from None
        later: Later[replies.Probed] = Later()
        self.begin(address, port, secret, timeout, lambda result: later.result(self._shown(address, result)), carrier)
        return later

    def refused_key(self, address: str) -> bytes | None:
        """The id of the last network key for which a handshake from that address was refused."""
        return self._engine.admission.refused_keys.of(_packed(address))

    def _shown(self, address: str, result: ProbeResult) -> replies.Probed:
        refused = self.refused_key(address)
        return {
            "outcome": result.outcome,
            "detail": result.detail,
            "identity": identity(result.identity) if result.identity else None,
            "key_id": result.key_id.hex(),
            "offered": result.offered,
            "round_trip": None if result.round_trip is None else round(result.round_trip, 6),
            "attempts": result.attempts,
            "last_refused_key_id": refused.hex() if refused else None,
        }


def _packed(address: str) -> bytes:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        raise OperatorError(f"{address!r} is not an IP address") from None
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped is not None:
        known = known.ipv4_mapped
    return known.packed


def _reserve(address: str, peer: bytes) -> tuple[socket.socket, bytes]:
    """A socket that holds a free local port on the way to a peer, and its packed address and port."""
    family = socket.AF_INET if len(peer) == 4 else socket.AF_INET6
    name = socket.inet_ntop(family, peer)
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asking:
            asking.connect((name, _DISCARD_PORT))  # sends nothing; chooses the source address (ip(7))
            source = asking.getsockname()[0]
    except OSError as error:
        raise OperatorError(f"cannot reach {address} from here: {error.strerror}") from None
    if socket.inet_pton(family, source) == peer:
        raise OperatorError(f"{address} is an address of this host, to which nothing is encrypted")
    reserved = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        reserved.bind((source, 0))
    except OSError as error:
        reserved.close()
        raise OperatorError(f"no local port is free at {source}: {error.strerror}") from None
    return reserved, socket.inet_pton(family, source) + reserved.getsockname()[1].to_bytes(2, "big")
