"""`mcencrypt daemon`: everything put together, in an order that lets nothing out in plaintext.

Whatever can fail without the kernel's help - configuration, keys - fails first.  Then the queue is bound, then
the rules go in, then sockets that would speak in plaintext are ended.  On the way out the rules stay: with no
daemon behind the queue the kernel drops.
"""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from mcencrypt.control.runlock import STATE_LOCK_NAME, RunLock
from mcencrypt.control.server import ControlServer, Later
from mcencrypt.core.engine import Engine
from mcencrypt.core.policy import Surroundings
from mcencrypt.daemon.datapath import Datapath
from mcencrypt.daemon.events import Reporter, connections_and_totals
from mcencrypt.daemon.journal import Journal, read_remains
from mcencrypt.daemon.loop import Loop
from mcencrypt.daemon.notify import Heartbeat, Notifier
from mcencrypt.daemon.prober import Prober
from mcencrypt.daemon.readiness import announce
from mcencrypt.daemon.rotation import Rotation
from mcencrypt.daemon.settings import Live, first_policy
from mcencrypt.daemon.snapshot import engine_numbers, process_numbers
from mcencrypt.daemon.switch import Position, Switch
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.firewall import Firewall
from mcencrypt.kernel.links import check_links
from mcencrypt.kernel.process import keep_large_buffers, put_packets_first
from mcencrypt.kernel.queue import progress
from mcencrypt.kernel.routes import Routes
from mcencrypt.kernel.sockets import Sockets
from mcencrypt.logs import fields
from mcencrypt.metrics.supervisor import Metrics, listen
from mcencrypt.store.config import Config
from mcencrypt.store.keyring import StoredKeyring
from mcencrypt.store.keys import load_identity
from mcencrypt.version import VERSION

if TYPE_CHECKING:
    from mcencrypt.kernel.namespace import Namespace

log = logging.getLogger(__name__)

#: Seconds between two calls of the engine's timers.
TICK: Final = 1.0


class Daemon:
    """One node's daemon, in the network namespace of the process."""

    def __init__(
        self,
        config: Config,
        reread: Callable[[], Config],
        namespace: Namespace | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        """`reread` gives the configuration as it is later.

        `namespace`: the one entered, if it is not that of the process' start; `notifier`: if there is one already.

        Raises OperatorError; no rule has been touched then.
        """
        keep_large_buffers()
        self._notifier = notifier or Notifier()  # before the first child: none of them speaks for the daemon
        self._config = config
        self._namespace = namespace
        #: Whether `run` ended because the namespace has gone.
        self.homeless = False
        ports, peers = config.p2p_ports(), config.peers()
        network_key = config.network_key()
        self._identity = load_identity(config.state_dir)
        self._started, self._started_at = time.monotonic(), time.time()
        self._lock = RunLock.acquire(config.run_dir)
        self._state_lock = RunLock.acquire(config.state_dir, STATE_LOCK_NAME, "state_dir")
        stored = StoredKeyring(config.state_dir, network_key)
        check_links()
        self._metrics: Metrics | None = None
        if config.metrics_listen is not None:
            # whoever asks for them is where the daemon was started, not in the container that it serves
            with namespace.outside() if namespace else contextlib.nullcontext():
                listener = listen(config.metrics_listen)
            self._metrics = Metrics(listener, self._snapshot, config.log_format)
        self._loop = Loop()
        self._routes = Routes()
        self._sockets = Sockets()
        surroundings = Surroundings(os.urandom, lambda: time.time_ns() // 1_000_000, self._routes.mtu)
        remains = read_remains(config.run_dir)
        self._journal = Journal(config.run_dir)
        policy, private = first_policy(config, peers), self._identity.private
        self._engine = Engine(policy, stored.ring, private, surroundings, on_flow=self._journal.on_flow)
        self._switch = Switch(
            self._engine, Firewall(ports, config.queue_number), self._sockets, self._loop, config.state_dir
        )
        self._live = Live(config, reread, self._switch, peers)
        reporter = Reporter(self._live.name_of)
        self._datapath = Datapath(self._engine, config.queue_number, self._switch.destroy, reporter.handle)
        self._loop.afterwards = self._datapath.carry_out
        self._prober = Prober(self._engine, self._switch, self._loop)
        self._rotation = Rotation(
            self._engine, stored, self._prober, self._loop, lambda: self._switch.ports, self._live.name_of
        )
        for key, seq, ack in remains:
            self._engine.table.remember(key, seq, ack, self._started)
        self._commands: dict[str, Callable[[dict[str, Any]], dict[str, Any] | Later]] = {
            "ping": self._ping,
            "status": self._status,
            "on": self._on,
            "off": self._off,
            "probe": self._prober.command,
            "mode": self._live.command_mode,
            "reload": lambda arguments: self._reload(),
            "key-add": self._rotation.add,
            "key-use": self._rotation.use,
            "key-retire": self._rotation.retire,
            "peers": self._peers,
            "peers-changed": self._live.command_peers_changed,
        }
        self._control = ControlServer(config.control_socket, self._command, self._lock)

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or until the namespace has gone."""
        loop = self._loop
        loop.stop_on(signal.SIGTERM, signal.SIGINT)
        loop.call_on(signal.SIGHUP, self._hang_up)
        loop.add_reader(self._datapath.fileno(), self._datapath.ready)
        loop.add_reader(self._routes.fileno(), self._routes_changed)
        loop.call_every(TICK, self._tick)
        self._switch.start()
        self._control.attach(loop)
        if self._namespace:
            self._namespace.watch(loop, self._namespace_gone)
        log.info(
            "daemon is ready",
            extra=fields(key_id=self._engine.ring.offered.key_id.hex(), identity=self._identity.public_base64),
        )
        if self._metrics is not None:
            self._metrics.start(loop)
        put_packets_first()
        ready = announce()
        self._watch()
        self._notifier.ready(self._summary())
        loop.run()
        if not self.homeless:
            self._notifier.stopping()
            log.info("daemon stops; the rules stay, so nothing leaves in plaintext")
        if ready:
            ready.close()
        self._control.close()
        if self._metrics is not None:
            self._metrics.close()
        self._datapath.close()
        self._journal.close()
        self._lock.release()
        self._state_lock.release()
        if not self.homeless:
            self._notifier.close()
        return 0

    def _namespace_gone(self) -> None:
        self.homeless = True
        self._loop.stop()

    def _watch(self) -> None:
        """Send heartbeats if the service manager wants them, and say where we hang if it ends us for lack of them."""
        interval = self._notifier.watchdog
        if interval is None:
            return
        faulthandler.enable(all_threads=False)
        heartbeat = Heartbeat(self._notifier, lambda: progress(self._config.queue_number))
        self._loop.call_every(min(TICK, interval / 4), heartbeat.beat)

    def _summary(self) -> str:
        ports = ", ".join(map(str, self._switch.ports))
        return f"{self._switch.position.value} ({self._engine.policy.mode}), ports {ports}"

    def _tick(self) -> None:
        now = time.monotonic()
        self._switch.look_up(self._engine.tick(now), now)
        self._notifier.status(self._summary())

    def _routes_changed(self) -> None:
        if self._routes.handle_events():
            try:
                check_links()
            except OperatorError as problem:
                log.error(str(problem))

    # -- commands

    def _command(self, command: str, arguments: dict[str, Any]) -> dict[str, Any] | Later:
        known = self._commands.get(command)
        if known is None:
            raise OperatorError(f"the daemon does not know the command {command!r}: are both of one version?")
        return known(arguments)

    def _ping(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid()}

    def _on(self, arguments: dict[str, Any]) -> dict[str, Any]:
        self._switch.on()
        return {"enabled": True}

    def _off(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return {"enabled": False, "draining": self._switch.off(bool(arguments.get("now")))}

    def _reload(self) -> dict[str, Any]:
        self._notifier.reloading()
        try:
            return self._live.reload()
        finally:
            self._notifier.ready(self._summary())

    def _peers(self, arguments: dict[str, Any]) -> dict[str, Any]:
        return self._live.command_peers(list(self._engine.connections(time.monotonic())), time.time())

    def _hang_up(self) -> None:
        with contextlib.suppress(OperatorError):  # it is in the log
            self._reload()

    def _status(self, arguments: dict[str, Any]) -> dict[str, Any]:
        now = time.monotonic()
        return {
            "enabled": self._engine.policy.enabled,
            "draining": self._switch.position is Position.DRAINING,
            "mode": self._engine.policy.mode,
            "mode_source": self._live.mode_source,
            "trust": self._live.trust,
            "plaintext_peers": self._live.plaintext_peers(),
            "ports": list(self._switch.ports),
            "key_id": self._engine.ring.offered.key_id.hex(),
            "identity": self._identity.public_base64,
            "netns": str(self._config.netns) if self._config.netns else None,
            "pid": os.getpid(),
            "version": VERSION,
            "uptime": round(now - self._started, 3),
            **self._rotation.describe(now),
            **connections_and_totals(self._engine, now, self._live.name_of),
            "queue": self._datapath.numbers(),
            "rules_lost": self._switch.rules_lost,
            "rules_seen": self._switch.rules_seen(now),
        }

    def _snapshot(self) -> dict[str, Any]:
        """What `metrics` shows."""
        return {
            "version": VERSION,
            "started": self._started_at,
            "identity": self._identity.public_base64,
            "enabled": self._engine.policy.enabled,
            "draining": self._switch.position is Position.DRAINING,
            **engine_numbers(self._engine),
            "queue": self._datapath.numbers(),
            "rules_lost": self._switch.rules_lost,
            "process": process_numbers(),
        }


def run(config: Config, reread: Callable[[], Config]) -> int:
    """Run a daemon in the foreground; the exit status.  Raises OperatorError before any rule is touched.

    `reread` gives the configuration anew, for reloads.
    """
    return Daemon(config, reread).run()
