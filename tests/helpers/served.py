"""A control socket that answers as a test says, for commands that ask a daemon."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mcencrypt.control.client import SOCKET_NAME
from mcencrypt.control.server import ControlServer, Handler


@contextmanager
def serving(run_dir: Path, handler: Handler) -> Iterator[None]:
    """A daemon's control socket in a thread."""
    server = ControlServer(run_dir / SOCKET_NAME, handler)
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
