"""A control socket that answers as a test says, for commands that ask a daemon."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from mcencrypt.control.client import SOCKET_NAME
from mcencrypt.control.server import Audit, ControlServer, Handler
from mcencrypt.errors import OperatorError


def serving(run_dir: Path, handler: Handler) -> AbstractContextManager[None]:
    """A daemon's control socket in a thread."""
    return serving_audited(run_dir, handler, None)


@contextmanager
def serving_audited(run_dir: Path, handler: Handler, audit: Audit | None) -> Iterator[None]:
    """The same; `audit` is told of each request."""
    server = ControlServer(run_dir / SOCKET_NAME, handler, audit=audit)
    wake_read, wake_write = os.pipe()

    def loop() -> None:
        while wake_read not in select.select([server.fileno(), wake_read], [], [])[0]:
            server.ready()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        os.write(wake_write, b"x")
        thread.join()
        os.close(wake_read)
        os.close(wake_write)
        server.close()


class SelectLoop:
    """The smallest event loop that fits `control.Readers`, run by a thread until `stop`."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        os.write(self._wake_write, b"x")
        self._thread.join(10)
        assert not self._thread.is_alive()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._wake_read, *self.readers], [], [])
            if self._wake_read in ready:
                return
            for fd in ready:
                self.readers[fd]()


def handler(command: str, args: dict[str, Any]) -> dict[str, Any]:
    """Commands of which one echoes, one is long, one is refused, and all others fail."""
    if command == "echo":
        return args
    if command == "large":
        return {"connections": ["x" * 300] * args["count"]}
    if command == "refuse":
        raise OperatorError("not now: try later")
    raise ZeroDivisionError("secret detail")
