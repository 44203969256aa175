"""What systemd is told: ready, alive, reloading, stopping.  The sd_notify(3) protocol; nothing where nobody listens.

One datagram of ``NAME=value`` lines to the UNIX socket that NOTIFY_SOCKET names.  The variables are taken out of the
environment when they are read, so that no child can speak for the daemon or be taken for it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping
from typing import Final

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """The service manager that started this process, if one did and wants to hear from it."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Reads and removes NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID.  Raises nothing."""
        self._taken = {name: environ.pop(name) for name in _VARIABLES if name in environ}
        address, microseconds, pid = (self._taken.get(name, "") for name in _VARIABLES)
        self._socket: socket.socket | None = None
        self._said = ""
        #: Seconds within which the manager wants to hear `alive`; None if it does not watch.
        self.watchdog: float | None = None
        if address[:1] not in ("/", "@"):
            return  # unset; or AF_VSOCK, which is a virtual machine's own manager speaking to its host
        # sd_watchdog_enabled(3): WATCHDOG_PID, if set, names the process that is meant
        if microseconds.isdecimal() and int(microseconds) and pid in ("", str(os.getpid())):
            self.watchdog = int(microseconds) / 1e6
        self._address = "\0" + address[1:] if address[0] == "@" else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def ready(self, status: str) -> None:
        """Start-up, or the reload that `reloading` began, is done."""
        self._said = status
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def status(self, status: str) -> None:
        """One line that `systemctl status` shows; sent if it has changed."""
        if status != self._said:
            self._said = status
            self._send(f"STATUS={_line(status)}")

    def reloading(self) -> None:
        """A reload begins; `ready` must follow.  MONOTONIC_USEC is what Type=notify-reload asks for."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._send(f"RELOADING=1\nMONOTONIC_USEC={now}")

    def stopping(self) -> None:
        """The daemon begins to stop."""
        self._send("STOPPING=1\nSTATUS=stopping; the rules stay")

    def alive(self) -> None:
        """One heartbeat for the watchdog."""
        if self.watchdog is not None:
            self._send("WATCHDOG=1")

    def hand_over(self, environ: MutableMapping[str, str] = os.environ) -> None:
        """Put the variables back, for the program that this process is about to become."""
        environ.update(self._taken)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, message: str) -> None:
        if self._socket is None:
            return
        try:
            self._socket.sendto(message.encode(), self._address)
        except OSError:
            return  # a manager that cannot be told must not stop the packets; it will ask why by its own means


class Heartbeat:
    """A heartbeat that stops when packets come in and none gets its verdict, though timers still run.

    `counters` gives the kernel's counts: (packets waiting, verdicts given, packets that came).
    """

    def __init__(self, notifier: Notifier, counters: Callable[[], tuple[int, int, int]]) -> None:
        self._notifier, self._counters = notifier, counters
        self._decided = self._arrived = -1

    def beat(self) -> None:
        """Call this a few times in each interval of the watchdog.

        One beat left out means nothing: a packet may have come a moment ago.
        """
        waiting, decided, arrived = self._counters()
        if waiting and decided == self._decided and arrived != self._arrived:
            return
        self._decided, self._arrived = decided, arrived
        self._notifier.alive()


def _line(text: str) -> str:
    return " ".join(text.split())
