"""Entering another network namespace, and noticing that it has gone.

A process that is in a namespace keeps it alive, without its interfaces: from inside nothing shows that the container
has stopped. So what named the namespace is watched: the container's first process through a pidfd, a name in
/run/netns by its inode.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import select
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from mcencrypt.errors import OperatorError
from mcencrypt.target import Kind, Target

if TYPE_CHECKING:
    from mcencrypt.kernel.containers import Engine

NAMED: Final = Path("/run/netns")
#: Seconds between two looks at a name in /run/netns.
LOOK_EVERY: Final = 0.25
CLONE_NEWNET: Final = 0x40000000  # sched.h

#: That of the calling thread.
OWN: Final = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


class AbsentError(OperatorError):
    """The namespace is not there now, and may come: the container does not run, the name does not exist."""


class Loop(Protocol):
    """What is asked of the daemon's event loop."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None: ...

    def remove_reader(self, fd: int) -> None: ...

    def call_every(self, seconds: float, callback: Callable[[], None]) -> None: ...


class Namespace:
    """An open network namespace, and what tells of its end."""

    def __init__(self, target: Target, descriptor: int, process: int | None) -> None:
        self.target = target
        self._descriptor, self._process = descriptor, process
        self._identity = _identity(os.fstat(descriptor))
        #: A descriptor of the namespace that was left for this one.
        self.home: int | None = None

    def same_as(self, descriptor: int) -> bool:
        """Whether that descriptor is of the same namespace."""
        return self._identity == _identity(os.fstat(descriptor))

    def enter(self) -> None:
        """Move the calling thread there; threads and processes that it starts will be there too.

        Raises OperatorError without the permission.
        """
        problem = setns(self._descriptor)
        if problem == errno.EPERM:
            raise OperatorError(
                f"{self.target}: you may not enter its network namespace: run this as root (CAP_SYS_ADMIN, for a "
                "rootless container in the user namespace that owns it)"
            )
        if problem:
            raise OperatorError(f"{self.target} is not a network namespace: {os.strerror(problem)}: see `ip netns`")

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """The calling thread is in `home` while the context lasts."""
        if self.home is not None:
            setns(self.home)
        try:
            yield
        finally:
            setns(self._descriptor)

    def gone(self) -> bool:
        """Whether what named it has ended or names another namespace now."""
        if self._process is not None:
            return bool(select.select([self._process], [], [], 0)[0])
        try:
            return self._identity != _identity(os.stat(NAMED / self.target.name))
        except OSError:
            return True

    def watch(self, loop: Loop, callback: Callable[[], None]) -> None:
        """Let `loop` call back once, when `gone` has become true."""
        process = self._process
        if process is not None:

            def ended() -> None:
                loop.remove_reader(process)
                callback()

            loop.add_reader(process, ended)
            return
        waiting = [callback]

        def look() -> None:
            if waiting and self.gone():
                waiting.pop()()

        loop.call_every(LOOK_EVERY, look)

    def close(self) -> None:
        """Let go of it. Who has entered it stays there."""
        for descriptor in (self._descriptor, self._process):
            if descriptor is not None:
                os.close(descriptor)


def find(target: Target, engine: Engine | None = None) -> Namespace:
    """Open the namespace that `target` names now.

    Raises AbsentError if there is none now; OperatorError if it may not be opened, or the Docker engine cannot be
    asked.
    """
    if target.kind is Kind.NAME:
        return _find_named(target)
    if target.kind is Kind.PID:
        return _find_process(target, int(target.name))
    if engine is None:
        from mcencrypt.kernel.containers import Engine

        engine = Engine()
    process = _first_process(engine, target)
    namespace = _find_process(target, process)
    # Between the engine's answer and pidfd_open(2) the process may have ended, and its number gone to another.
    if namespace.gone() or _first_process(engine, target) != process:
        namespace.close()
        raise AbsentError(f"{target}: the container is just stopping or starting: try again")
    return namespace


def enter(target: Target) -> None:
    """Find the namespace and move the calling thread there. Raises as `find` and `Namespace.enter` do."""
    namespace = find(target)
    try:
        namespace.enter()
    finally:
        namespace.close()


def setns(descriptor: int) -> int:
    """setns(2) for a network namespace and the calling thread: 0, or the errno."""
    return ctypes.get_errno() if _libc.setns(descriptor, CLONE_NEWNET) else 0


def _find_named(target: Target) -> Namespace:
    path = NAMED / target.name
    try:
        # `ip netns` makes a file that nobody may read, and only then mounts the namespace over it
        if not stat.S_IMODE(path.stat().st_mode):
            raise AbsentError(f"{target}: the network namespace is just being made or deleted: try again")
        return Namespace(target, os.open(path, os.O_RDONLY | os.O_CLOEXEC), None)
    except FileNotFoundError:
        raise AbsentError(
            f"there is no network namespace {target}: `ip netns` lists them; a container is docker:{target}"
        ) from None
    except OSError as error:
        raise OperatorError(f"{path}: {error.strerror}: run this as root") from None


def _first_process(engine: Engine, target: Target) -> int:
    process = engine.first_process(target.name)
    if process is None:
        raise AbsentError(f"{target}: no such container: `docker ps --all` shows their names")
    if not process:
        raise AbsentError(
            f"{target}: the container does not run: start it, or have `mcencrypt daemon --wait` wait for it"
        )
    return process


def _find_process(target: Target, number: int) -> Namespace:
    with contextlib.ExitStack() as undo:
        try:
            process = os.pidfd_open(number)
            undo.callback(os.close, process)
            descriptor = os.open(f"/proc/{number}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except (ProcessLookupError, FileNotFoundError):
            raise AbsentError(f"{target}: there is no process {number}: it has ended") from None
        except PermissionError:
            raise OperatorError(
                f"{target}: you may not look at process {number}: run this as root (CAP_SYS_PTRACE)"
            ) from None
        except OSError as error:
            raise OperatorError(f"{target}: process {number} cannot be watched: {error.strerror}") from None
        undo.pop_all()
    return Namespace(target, descriptor, process)


def _identity(info: os.stat_result) -> tuple[int, int]:
    return info.st_dev, info.st_ino
