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
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from mcencrypt import logs
from mcencrypt.control.readonly import status_server
from mcencrypt.control.runlock import STATE_LOCK_NAME, RunLock
from mcencrypt.control.server import ControlServer
from mcencrypt.core.engine import Engine
from mcencrypt.core.policy import Surroundings
from mcencrypt.daemon.audit import audit, audit_signal
from mcencrypt.daemon.commands import Commands
from mcencrypt.daemon.datapath import Datapath
from mcencrypt.daemon.events import Reporter
from mcencrypt.daemon.jobs import Jobs
from mcencrypt.daemon.journal import Journal
from mcencrypt.daemon.learnt import Learnt
from mcencrypt.daemon.lookout import Lookout
from mcencrypt.daemon.loop import Loop
from mcencrypt.daemon.memory import Memory
from mcencrypt.daemon.notify import Heartbeat, Notifier
from mcencrypt.daemon.prober import Prober
from mcencrypt.daemon.readiness import announce, withdraw
from mcencrypt.daemon.reminder import Reminder
from mcencrypt.daemon.rotation import Rotation
from mcencrypt.daemon.settings import Live, first_policy, remember
from mcencrypt.daemon.snapshot import Snapshots
from mcencrypt.daemon.switch import Switch
from mcencrypt.daemon.ways import Ways
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.capabilities import check_capabilities
from mcencrypt.kernel.fence import Fence
from mcencrypt.kernel.firewall import Firewall
from mcencrypt.kernel.inject import Injector
from mcencrypt.kernel.links import check_links
from mcencrypt.kernel.patience import half_open_seconds
from mcencrypt.kernel.process import keep_large_buffers, put_packets_first
from mcencrypt.kernel.queue import Queue, progress
from mcencrypt.kernel.routes import Routes
from mcencrypt.kernel.selftest import try_queue
from mcencrypt.kernel.sockets import Sockets
from mcencrypt.logs import fields
from mcencrypt.metrics.supervisor import Metrics, listen
from mcencrypt.nodes.proc import Proc
from mcencrypt.nodes.sight import find_nodes
from mcencrypt.store.config import Config
from mcencrypt.store.keyring import StoredKeyring
from mcencrypt.store.values import Listen

if TYPE_CHECKING:
    from mcencrypt.kernel.namespace import Namespace

log = logging.getLogger(__name__)

#: Seconds between two calls of the engine's timers.
TICK: Final = 1.0
#: Seconds between two looks for a later signed list of peers.
LIST_EVERY: Final = 30.0


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
        self._queue_number, self._namespace = config.queue_number, namespace
        #: Whether `run` ended because the namespace has gone.
        self.homeless = False
        self._failure: OperatorError | None = None
        self._announced = False

        # What can be wrong with files comes first.
        if config.ports == "auto":
            remember(config.state_dir, find_nodes(Proc()))
        ports, peers, network_key = config.p2p_ports(), config.peers(), config.network_key()
        identity = config.identity()
        self._lock = RunLock.acquire(config.run_dir)
        self._state_lock = RunLock.acquire(config.state_dir, STATE_LOCK_NAME, "state_dir")
        stored = StoredKeyring(config.state_dir, network_key)
        check_capabilities()
        check_links()
        listener = _metrics_listener(config.metrics_listen, namespace)
        self._journal, self._learnt = Journal(config.run_dir), Learnt(config.run_dir)

        # Then the parts, each with those that it needs.
        self._loop, self._routes = Loop(), Routes()
        policy, record = first_policy(config, peers), self._journal.on_flow
        sockets = Sockets()
        self._ways = ways = Ways(sockets, self._routes)
        unix_ms = lambda: time.time_ns() // 1_000_000  # noqa: E731
        surroundings = Surroundings(os.urandom, unix_ms, ways.route_mtu, ways.path_of, ways.owner_of)
        self._engine = engine = Engine(policy, stored.ring, identity.private, surroundings, on_flow=record)
        engine.streams.deadline = min(engine.streams.deadline, half_open_seconds())
        now = time.monotonic()
        engine.admission.paths.take_over(self._learnt.remains(now), self._learnt.on_news, now)
        for one in self._journal.remains:
            engine.table.remember(one.key, one.seq, one.ack, now)
        firewall, fence = Firewall(ports, config.queue_number, mark=config.fence_mark), Fence(ports, config.fence_mark)
        self._jobs = jobs = Jobs(self._loop)
        self._switch = switch = Switch(engine, firewall, fence, sockets, self._loop, jobs, config.state_dir)
        self._live = live = Live(config, reread, switch, peers, stored.knows)
        reporter = Reporter(live.name_of)
        injector = Injector(ways.handlings)
        try_queue(config.queue_number)
        self._datapath = Datapath(
            engine,
            injector,
            lambda decide: Queue(config.queue_number, decide, express=engine.express),
            switch.destroy,
            switch.destroy_suspect,
            reporter,
        )
        ways.came_by, ways.leaves_by = self._datapath.came_by, self._datapath.leaves_by
        self._datapath.look_ahead = ways.look_ahead
        self._reminder = Reminder(engine.streams.next_time, engine.streams.tick, self._loop)
        prober = Prober(engine, switch, self._loop)
        rotation = Rotation(engine, stored, prober, self._loop, lambda: switch.ports, live.name_of)

        self._memory = memory = Memory(engine, live, self._loop, Jobs(self._loop), config.state_dir)

        # Last, what answers.
        shown_as, queue = identity.public_base64, self._datapath.numbers
        self._lookout = Lookout(
            Proc(), sockets, self._loop, lambda: switch.ports, lambda: live.other_ports, live.follower(jobs)
        )
        self._snapshots = Snapshots(shown_as, engine, switch, live, rotation, queue, self._loop, self._lookout, memory)
        self._metrics = Metrics(listener, self._snapshots.metrics, config.log_format) if listener else None
        self._commands = Commands(switch, live, prober, rotation, self._snapshots, self._notifier, jobs, memory)
        self._control = ControlServer(config.control_socket, self._commands, self._lock, audit=audit)
        self._shown = (
            status_server(config.run_dir, self._commands, self._lock, config.status_group)
            if config.status_group
            else None
        )
        self._known_as = fields(key_id=engine.ring.offered.key_id.hex(), identity=shown_as)

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or until the namespace has gone. Raises OperatorError if it could not begin."""
        loop = self._loop
        loop.stop_on(signal.SIGTERM, signal.SIGINT)
        loop.call_on(signal.SIGHUP, self._hang_up)
        loop.add_reader(self._routes.fileno(), self._routes_changed)
        loop.call_every(TICK, self._tick)
        # What an earlier daemon left is ended before anything is done to rules.
        self._switch.end([one.key for one in self._journal.remains])
        if self._namespace:
            self._namespace.watch(loop, self._namespace_gone)
        self._jobs.run(self._switch.start(), self._started, self._not_started)
        loop.run()
        if not self.homeless:
            self._notifier.stopping()
            log.info("daemon stops; the rules stay, so nothing leaves in plaintext")
        if self._announced:
            withdraw()
        self._close()
        if self._failure:
            raise self._failure
        return 0

    def _started(self, nothing: None) -> None:
        # Only now the far sides hear of it: a change of hooks takes from the kernel what waits in queues
        # (nf_queue_nf_hook_drop), and a reset is sent but once.
        self._loop.afterwards, self._loop.waiting = self._afterwards, self._datapath.serve
        self._loop.spare = self._engine.ephemerals
        self._datapath.carry_out()
        # What is in the journal was ended, and nothing can fail any more: now it may be forgotten.
        self._journal.begin()
        self._control.attach(self._loop)
        if self._shown is not None:
            self._shown.attach(self._loop)
        self._lookout.start()
        self._live.look_at_list()
        self._loop.call_every(LIST_EVERY, self._live.look_at_list)
        log.info("daemon is ready", extra=self._known_as)
        if self._metrics is not None:
            self._metrics.start(self._loop)
        put_packets_first()
        self._announced = announce()
        self._watch()
        self._notifier.ready(self._snapshots.line())

    def _not_started(self, problem: OperatorError) -> None:
        self._failure = problem
        self._loop.stop()

    def _close(self) -> None:
        self._jobs.close()
        self._control.close()
        if self._shown is not None:
            self._shown.close()
        if self._metrics is not None:
            self._metrics.close()
        self._datapath.close()
        self._learnt.close()
        self._memory.close()
        self._lock.release()
        self._state_lock.release()
        if not self.homeless:
            self._notifier.close()

    # -- what the loop calls

    def _tick(self) -> None:
        now = time.monotonic()
        self._switch.look_up(self._engine.tick(now), now)
        self._switch.look_up_dials(begun_before=now - TICK)
        self._notifier.status(self._snapshots.line())
        self._snapshots.look()
        logs.flush()

    def _afterwards(self) -> None:
        self._datapath.carry_out()
        self._reminder.wake()

    def _hang_up(self) -> None:
        audit_signal("SIGHUP", "reload")
        self._commands.reload()  # whether it failed is in the log

    def _routes_changed(self) -> None:
        if self._routes.handle_events():
            self._ways.handlings.grow_old()
            self._engine.routes_changed()
            try:
                check_links()
            except OperatorError as problem:
                log.error(str(problem))

    def _namespace_gone(self) -> None:
        self.homeless = True
        self._loop.stop()

    def _watch(self) -> None:
        """Send heartbeats if the service manager wants them, and say where we hang if it ends us for lack of them."""
        interval = self._notifier.watchdog
        if interval is None:
            return
        faulthandler.enable(all_threads=False)
        heartbeat = Heartbeat(self._notifier, lambda: progress(self._queue_number))
        self._loop.call_every(min(TICK, interval / 4), heartbeat.beat)


def _metrics_listener(address: Listen | None, namespace: Namespace | None) -> socket.socket | None:
    """Where metrics are asked for: where the daemon was started, and not in the container that it serves."""
    if address is None:
        return None
    with namespace.outside() if namespace else contextlib.nullcontext():
        return listen(address)


def run(config: Config, reread: Callable[[], Config]) -> int:
    """Run a daemon in the foreground; the exit status.  Raises OperatorError before any rule is touched.

    `reread` gives the configuration anew, for reloads.
    """
    return Daemon(config, reread).run()
