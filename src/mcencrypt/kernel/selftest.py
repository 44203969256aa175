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
from collections.abc import Iterable, Mapping
from typing import Final

from mcencrypt.core.verdict import DROP, Verdict
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Steps, perform
from mcencrypt.kernel.iptables import SECONDS, V4, Backend, backends
from mcencrypt.kernel.queue import Queue
from mcencrypt.kernel.ruleset import PREFIX, Ruleset, Table

_SENT: Final = b"mcencrypt probe, as it was sent"
_CHANGED: Final = b"mcencrypt probe, as it arrives."
#: Seconds until the packet counts as dropped.
PATIENCE: Final = 2.0
#: Where the probe's rule is: whoever puts our rules in or takes them out finds what a killed probe has left.
CHAIN: Final = f"{PREFIX}PROBE"
_UDP_AT: Final = 20


def _change(packet: memoryview) -> Verdict:
    """The verdict for the probe: the same UDP datagram with other contents, and no checksum (RFC 768: zero)."""
    if bytes(packet[_UDP_AT + 8 :]) != _SENT:
        return DROP
    changed = bytearray(packet)
    changed[_UDP_AT + 6 : _UDP_AT + 8] = b"\0\0"
    changed[_UDP_AT + 8 :] = _CHANGED
    return bytes(changed)


def try_queue(number: int, environ: Mapping[str, str] = os.environ) -> None:
    """Bind the queue of that number, send the probe through it, and leave it. Raises OperatorError.

    Needs lo to be up; where it is not there is nothing to see, and nothing is said.
    """
    queue = Queue(number, lambda packet, skb_info, outgoing, now: _change(packet))
    try:
        _probe(queue, environ)
    finally:
        queue.close()


def _probe(queue: Queue, environ: Mapping[str, str]) -> None:
    """Send the probe through `queue`, which decides by `_change`."""
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
        comment = '-m comment --comment "mcencrypt probe"'
        jump = f"-o lo -p udp -m udp --dport {receiver.getsockname()[1]} {comment} -j {CHAIN}"
        rule = f"{comment} -j NFQUEUE --queue-num {queue.number}"
        text = f":{CHAIN} - [0:0]\n-A {CHAIN} {rule}\n-I OUTPUT 1 {jump}\n"
        perform(backend.restore(V4, f"*raw\n{text}COMMIT\n"), SECONDS)
        try:
            arrived = _pass_through(queue, sender, receiver)
        finally:
            perform(_clear(backend, [f"OUTPUT {jump}"]), SECONDS)
    if arrived != _CHANGED:
        what = "let a changed packet pass unchanged" if arrived else "drops packets that are changed in a queue"
        raise OperatorError(
            f"the kernel {what}, so nothing could be encrypted: run mcencrypt as real root, "
            "not in a user namespace (rootless container, userns-remap)"
        )


def _clear(backend: Backend, jumps: list[str]) -> Steps[None]:
    """Take our chain out, and the jumps to it. Raises OperatorError.

    There are more if an earlier probe was killed; then they are looked for.
    """
    try:
        yield from backend.restore(V4, _without(jumps))
    except OperatorError:
        saved = Ruleset.parse((yield from backend.save(V4, "raw"))).tables.get("raw", Table())
        found = [f"{rule.chain} {rule.spec}" for rule in saved.jumps() if rule.value("-j") == CHAIN]
        yield from backend.restore(V4, _without(found))


def _without(jumps: Iterable[str]) -> str:
    """The change after which there is neither the chain nor these jumps. Declaring the chain empties it."""
    gone = "".join(f"-D {jump}\n" for jump in jumps)
    return f"*raw\n:{CHAIN} - [0:0]\n{gone}-X {CHAIN}\nCOMMIT\n"


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
