"""A Docker engine's socket that answers as a test says."""

from __future__ import annotations

import http.server
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mcencrypt.kernel.containers import Engine

#: Gives, for the path that is asked for, a status and an object (or bytes).
Answer = Callable[[str], tuple[int, Any]]


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextmanager
def engine_at(path: Path, answer: Answer) -> Iterator[Engine]:
    """An engine that listens there; what is given asks it."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

        def address_string(self) -> str:
            return "unix"

        def log_message(self, *_: object) -> None:
            pass

    with _Server(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield Engine({"DOCKER_HOST": f"unix://{path}"})
        finally:
            server.shutdown()
            thread.join()


def state(running: bool, pid: int) -> dict[str, Any]:
    """A container, as the engine describes it."""
    return {"State": {"Running": running, "Pid": pid, "Status": "running" if running else "exited"}}
