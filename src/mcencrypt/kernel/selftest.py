"""One packet of our own, changed on its way through lo, before anything depends on it.

A kernel may refuse that packets are changed from a user namespace (nfqnl_mangle returns -EPERM), and then drops every
packet whose verdict carries a new one.  Nothing would leave in plaintext, and nothing would work, for no reason that
could be seen.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Mapping
from typing import Final

from mcencrypt.core.verdict import DROP, Verdict
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import perform
from mcencrypt.kernel.iptables import SECONDS, V4, backends
from mcencrypt.kernel.queue import Queue

_SENT: Final = b"mcencrypt probe, as it was sent"
_CHANGED: Final = b"mcencrypt probe, as it arrives."
#: Seconds until the packet counts as dropped.
PATIENCE: Final = 2.0
_UDP_AT: Final = 20


def change(packet: memoryview) -> Verdict:
    """The verdict for the probe: the same UDP datagram with other contents, and no checksum (RFC 768: zero)."""
    if bytes(packet[_UDP_AT + 8 :]) != _SENT:
        return DROP
    changed = bytearray(packet)
    changed[_UDP_AT + 6 : _UDP_AT + 8] = b"\0\0"
    changed[_UDP_AT + 8 :] = _CHANGED
    return bytes(changed)


def probe(queue: Queue, environ: Mapping[str, str] = os.environ) -> None:
    """Send the probe through `queue`, which must decide by `change`.

    Needs lo to be up; where it is not there is nothing to see, and nothing is said.  Raises OperatorError.
    """
    backend = backends(environ)[0]
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        try:
            receiver.bind(("127.0.0.1", 0))
            sender.connect(receiver.getsockname())
        except OSError:
            return  # lo is down
        rule = (
            f"OUTPUT -o lo -p udp -m udp --dport {receiver.getsockname()[1]} "
            f'-m comment --comment "mcencrypt probe" -j NFQUEUE --queue-num {queue.number}'
        )
        perform(backend.restore(V4, f"*raw\n-I {rule}\nCOMMIT\n"), SECONDS)
        try:
            arrived = _pass_through(queue, sender, receiver)
        finally:
            perform(backend.restore(V4, f"*raw\n-D {rule}\nCOMMIT\n"), SECONDS)
    if arrived != _CHANGED:
        what = "let a changed packet pass unchanged" if arrived else "drops packets that are changed in a queue"
        raise OperatorError(
            f"the kernel {what}, so nothing could be encrypted: run mcencrypt as real root, "
            "not in a user namespace (rootless container, userns-remap)"
        )


def _pass_through(queue: Queue, sender: socket.socket, receiver: socket.socket) -> bytes:
    """What arrives of the probe; nothing if it does not."""
    try:
        sender.send(_SENT)
    except OSError:
        return b""
    deadline = time.monotonic() + PATIENCE
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([queue.fileno(), receiver.fileno()], [], [], left)
        if receiver.fileno() in ready:
            return receiver.recv(1024)
        if queue.fileno() in ready:
            queue.ready()
    return b""
