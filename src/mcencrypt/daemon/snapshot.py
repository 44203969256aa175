"""What the daemon shows of itself: the reply to `status`, and what its exporter makes metrics of."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterable
from typing import Final

from mcencrypt.control import replies
from mcencrypt.core.engine import Engine
from mcencrypt.core.status import Connection, Counters, State
from mcencrypt.daemon.growth import Growth
from mcencrypt.daemon.interfaces import Timers
from mcencrypt.daemon.lookout import Lookout
from mcencrypt.daemon.memory import Memory
from mcencrypt.daemon.names import endpoint, identity
from mcencrypt.daemon.rotation import Rotation
from mcencrypt.daemon.settings import Live
from mcencrypt.daemon.switch import Position, Switch
from mcencrypt.interpreted import build
from mcencrypt.metrics.snapshot import Process, Snapshot
from mcencrypt.version import VERSION

#: The states of connections that are not encrypted.
_BARE: Final = (State.PLAINTEXT, State.HEALTH_CHECK)


class Snapshots:
    """One daemon's, made when they are asked for."""

    def __init__(
        self,
        public: str,
        engine: Engine,
        switch: Switch,
        live: Live,
        rotation: Rotation,
        queue: Callable[[], replies.Queue],
        timers: Timers,
        lookout: Lookout,
        memory: Memory,
    ) -> None:
        """`public`: this node's public key, as people see it; `queue` gives the numbers of the netfilter queue.

        The daemon counts as started now.
        """
        self._public, self._engine, self._switch, self._live = public, engine, switch, live
        self._rotation, self._queue, self._timers = rotation, queue, timers
        self._lookout, self._memory = lookout, memory
        self._growth = Growth()
        self._started, self._started_at = timers.now(), time.time()

    def line(self) -> str:
        """One line for the service manager."""
        ports = ", ".join(map(str, self._switch.ports))
        return f"{self._switch.position.value} ({self._engine.policy.mode}), ports {ports}"

    def connections(self) -> list[Connection]:
        """All that there are, as of now.

        One in plaintext, or a health check, whose socket has gone is none, though it is forgotten later only.
        """
        now = self._timers.now()
        self._switch.look_up_dials(begun_before=now)
        shown = list(self._engine.connections(now))
        if not any(one.state in _BARE for one in shown):
            return shown
        alive = self._switch.with_sockets()
        return [one for one in shown if one.state not in _BARE or (one.local, one.remote) in alive]

    def status(self) -> replies.Status:
        """Everything, for the operator."""
        now, shown = self._timers.now(), self.connections()
        return {
            "enabled": self._engine.policy.enabled,
            "draining": self._switch.position is Position.DRAINING,
            "mode": self._engine.policy.mode,
            "mode_source": self._live.mode_source,
            "trust": self._live.trust,
            "peers_list": self._live.signed_list,
            "plaintext_peers": self._live.plaintext_peers(),
            "ports": list(self._switch.ports),
            "uncovered": self._lookout.describe(),
            "key_id": self._engine.ring.offered.key_id.hex(),
            "identity": self._public,
            "netns": self._live.netns,
            "pid": os.getpid(),
            "version": VERSION,
            "build": build(),
            "uptime": round(now - self._started, 3),
            **self._rotation.describe(now),
            "connections": [connection(one, self._live.name_of) for one in shown],
            "totals": totals(self._engine, shown),
            "changed_keys": self._memory.changes(),
            "own_addresses": [
                {"address": endpoint(one), "dials": found.dials, "last": round(now - found.last, 3)}
                for one, found in self._engine.admission.identities.own_addresses.items()
            ],
            "refused": dict(self._engine.outcome.refused),
            "grew": self._grown(now),
            "queue": self._queue(),
            "gate": self._gate(now),
            "rules_lost": self._switch.guard.rules_lost,
            "rules_seen": self._switch.guard.seen(now),
        }

    def look(self) -> None:
        """Notice which counters have grown. To be called about every second."""
        self._grown(self._timers.now())

    def _grown(self, now: float) -> dict[str, float]:
        queue, guard = self._queue(), self._switch.guard
        counters = {f"refused.{reason}": count for reason, count in self._engine.outcome.refused.items()}
        counters |= {
            "rules_lost": guard.rules_lost,
            "fence_lost": guard.fence_lost,
            "bad_verdicts": queue["bad_verdicts"],
            "queue_dropped": queue["dropped_kernel"] + queue["dropped_user"],
        }
        self._growth.look(counters, now)
        return self._growth.ages(now)

    def _gate(self, now: float) -> replies.Gate:
        guard = self._switch.guard
        return {
            "rules_in_place": guard.rules_in_place(now),
            "fence": guard.fence,
            "no_fence": guard.no_fence or None,
            "fence_lost": guard.fence_lost,
            "trouble": guard.trouble or None,
        }

    def metrics(self) -> Snapshot:
        """Numbers only."""
        summary = self._engine.summary()
        return {
            "version": VERSION,
            "build": build(),
            "started": self._started_at,
            "identity": self._public,
            "key_id": self._engine.ring.offered.key_id.hex(),
            "enabled": self._engine.policy.enabled,
            "draining": self._switch.position is Position.DRAINING,
            "mode": self._engine.policy.mode,
            "states": summary.states,
            "streamed": summary.streamed,
            "peers": summary.peers,
            "encrypted": summary.encrypted,
            "carried": counters(summary.carried),
            "plaintext": summary.plaintext,
            "plaintext_now": summary.plaintext_now,
            "health_checks": summary.checks,
            "plaintext_carried": counters(summary.plaintext_carried),
            "changed_keys": self._engine.admission.identities.answers.differing(),
            "refused": dict(self._engine.outcome.refused),
            "queue": self._queue(),
            "gate": self._gate(self._timers.now()),
            "rules_lost": self._switch.guard.rules_lost,
            "peers_list_expires": (self._live.signed_list or {"expires": 0})["expires"],
            "uncovered": sum(one.sure for one in self._lookout.uncovered),
            "process": process(),
        }


def counters(carried: Counters) -> replies.Counters:
    """What was carried, by name."""
    return {
        "bytes_out": carried.bytes_out,
        "bytes_in": carried.bytes_in,
        "records_out": carried.records_out,
        "records_in": carried.records_in,
        "retransmissions": carried.retransmissions,
        "auth_failures": carried.auth_failures,
    }


def connection(shown: Connection, name_of: Callable[[bytes], str | None]) -> replies.Connection:
    """One connection as a status shows it; `name_of` names a proven public key, if it is listed."""
    return {
        "peer": endpoint(shown.remote),
        "local": endpoint(shown.local),
        "state": shown.state,
        "identity": identity(shown.identity) if shown.identity else None,
        "name": name_of(shown.identity),
        "key_id": shown.key_id.hex() or None,
        "carrier": None if shown.state in _BARE else shown.carrier,
        "age": round(shown.age, 3),
        **counters(shown.counters),
    }


def totals(engine: Engine, shown: Iterable[Connection]) -> replies.Totals:
    """Connections that were encrypted: those that are gone, and those of `shown` that are."""
    alive = [one for one in shown if one.state.has_keys]
    carried = Counters()
    for one in (engine.table.gone.counters, *(connection.counters for connection in alive)):
        carried.add(one)
    return {"connections": engine.table.gone.connections + len(alive), **counters(carried)}


def process() -> Process:
    """This process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    page = resource.getpagesize()
    with open("/proc/self/statm") as statm:
        virtual, resident = (int(word) * page for word in statm.read().split()[:2])
    return {
        "cpu": used.ru_utime + used.ru_stime,
        "virtual": virtual,
        "resident": resident,
        "open_fds": len(os.listdir("/proc/self/fd")) - 1,  # one of them is this listing's own
        "max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }
