"""What the daemon asks of the kernel: routes' MTU, links, TCP sockets. One import for the three."""

from __future__ import annotations

from mcencrypt.shell.links import check_links
from mcencrypt.shell.routes import Routes
from mcencrypt.shell.sockets import CannotDestroyError, Socket, Sockets, Tcp

__all__ = ["CannotDestroyError", "Routes", "Socket", "Sockets", "Tcp", "check_links"]
