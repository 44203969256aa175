"""A daemon in another network namespace: moving in, and what happens when that goes away.

A container that starts again has a new namespace without rules. Whatever it sends before they are in is plaintext, so
they go in first of all; then a fresh daemon takes over from this process.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

from mcencrypt import logs
from mcencrypt.control import replies
from mcencrypt.control.server import Arguments, ControlServer
from mcencrypt.daemon.daemon import Daemon
from mcencrypt.daemon.loop import Loop
from mcencrypt.daemon.notify import Notifier
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.containers import Engine, NoEngineError, Starts
from mcencrypt.kernel.gate import Gate
from mcencrypt.kernel.namespace import OWN, AbsentError, Namespace, find, setns
from mcencrypt.logs import fields
from mcencrypt.store.autoports import read_ports
from mcencrypt.store.config import Config
from mcencrypt.store.position import read_switch
from mcencrypt.target import Kind, Target

log = logging.getLogger(__name__)

#: Seconds between two looks, and between those for a container whose start the engine should have told of.
LOOK_EVERY: Final = 0.1
LOOK_EVERY_TOLD: Final = 1.0


def serve(config: Config, reread: Callable[[], Config], target: Target, wait: bool) -> int:
    """Run a daemon in that namespace; the exit status.

    `reread` gives the configuration anew. Once the namespace was there it is waited for when it has gone, and from the
    beginning if `wait`; but a process number never comes back.

    Raises OperatorError if there is no such namespace, it has gone for good, or no daemon can run there.
    """
    notifier = Notifier()
    if config.ports != "auto":  # which are known when the node is seen
        config.p2p_ports()
    config.network_key()
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    namespace: Namespace | None
    try:
        namespace = find(target)
    except (AbsentError, NoEngineError) as error:
        if not wait or target.kind is Kind.PID:
            raise
        log.info("waiting for a network namespace", extra=fields(netns=target, reason=error))
        namespace = _Waiter(config, target, notifier).wait()
        if namespace is None:
            return 0
        config = reread()
    if namespace.same_as(home):
        log.warning("this is the host's own network namespace: netns is not needed", extra=fields(netns=target))
    namespace.home = home
    namespace.enter()
    daemon = Daemon(config, reread, namespace, notifier)
    status = daemon.run()
    if not daemon.homeless:
        return status
    namespace.close()
    if target.kind is Kind.PID:
        raise OperatorError(f"process {target} has ended, and its network namespace with it: name its successor")
    log.warning("the network namespace has gone; waiting for the next", extra=fields(netns=target))
    if _Waiter(config, target, notifier).wait() is None:
        return 0
    setns(home)
    notifier.hand_over()
    return _start_afresh()


class _Waiter:
    """Waits for a namespace to appear. Commands get an answer that says so."""

    def __init__(self, config: Config, target: Target, notifier: Notifier) -> None:
        self._config, self._target, self._notifier = config, target, notifier
        self._loop = Loop()
        self._found: Namespace | None = None
        self._failure: OperatorError | None = None
        self._starts: Starts | None = None
        self._looked = 0.0

    def wait(self) -> Namespace | None:
        """The namespace, entered and with rules in it, unless encryption is off; None on SIGTERM or SIGINT.

        Raises OperatorError if it is there but cannot be entered.
        """
        control = ControlServer(self._config.control_socket, self._answer)
        try:
            self._loop.stop_on(signal.SIGTERM, signal.SIGINT)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the configuration is read anew when the wait is over
            control.attach(self._loop)
            self._notifier.ready(f"waits for {self._target.described}")
            if self._notifier.watchdog:
                self._loop.call_every(self._notifier.watchdog / 4, self._notifier.alive)
            self._listen()
            self._loop.call_every(LOOK_EVERY, self._look_again)
            self._loop.call_every(LOOK_EVERY_TOLD, logs.flush)
            self._look()
            if not (self._found or self._failure):
                self._loop.run()
        finally:
            control.close()
            if self._starts:
                self._starts.close()
        if self._failure:
            raise self._failure
        return self._found

    def _answer(self, command: str, arguments: Arguments) -> replies.Ping:
        if command == "ping":
            return {"pid": os.getpid()}
        raise OperatorError(f"the daemon waits for {self._target.described}, which is not there now")

    def _listen(self) -> None:
        """Be told of the container's next start; what happens before that is found by the look that follows."""
        if self._target.kind is not Kind.DOCKER:
            return
        try:
            self._starts = Engine().starts(self._target.name)
        except OperatorError:
            return
        self._loop.add_reader(self._starts.fileno(), self._told)

    def _told(self) -> None:
        assert self._starts is not None
        if not self._starts.read():
            # The engine restarts; until it is back the clock drives us.
            self._loop.remove_reader(self._starts.fileno())
            self._starts.close()
            self._starts = None
        self._look()

    def _look_again(self) -> None:
        if self._starts is None:
            self._listen()
        elif time.monotonic() < self._looked + LOOK_EVERY_TOLD:
            return
        self._look()

    def _look(self) -> None:
        if self._found:
            return
        self._looked = time.monotonic()
        try:
            namespace = find(self._target)
        except (AbsentError, NoEngineError):
            return
        except OperatorError as error:
            self._failure = error
            self._loop.stop()
            return
        try:
            namespace.enter()
            config = self._config
            known = config.ports != "auto" or read_ports(config.state_dir)
            if known and read_switch(config.state_dir):
                Gate(config.p2p_ports(), config.queue_number, config.fence_mark).hold()
        except OperatorError as error:
            self._failure = error
        log.info("the network namespace is there", extra=fields(netns=self._target))
        self._found = namespace
        self._loop.stop()


def _start_afresh() -> NoReturn:
    """Become a new daemon; the process id stays."""
    words = sys.orig_argv if "--wait" in sys.orig_argv else [*sys.orig_argv, "--wait"]
    logs.flush()
    os.execv(sys.executable, words)
