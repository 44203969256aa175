"""The netfilter queue: packets come in as GSO batches, and each gets its verdict here and nowhere else.

NetfilterQueue binds the queue. What it cannot do is done on its netlink socket: asking for unsegmented packets
(NFQA_CFG_F_GSO) with a copy range that holds them, reading NFQA_SKB_INFO, receiving into a buffer that is kept, and
sending a packet that stands in two places (`nfq`).
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, Protocol

from netfilterqueue import COPY_PACKET, NetfilterQueue

import mcencrypt.kernel.nfq as nfq
from mcencrypt.core.fast import Express
from mcencrypt.core.packet import VERDICT_LIMIT
from mcencrypt.core.prim import Reply
from mcencrypt.core.verdict import ACCEPT, DROP, Verdict
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.queueowner import why_not

#: Decides about one packet: the packet (valid until it returns), NFQA_SKB_INFO, whether it leaves this host, and now.
Decide = Callable[[memoryview, int, bool, float], Verdict]

log = logging.getLogger(__name__)

_SUBSYSTEM_CONFIG: Final = 3 << 8 | 2  # NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG
_REQUEST_ACK: Final = 1 | 4
_NLMSG_ERROR: Final = 2
_CFG_PARAMS, _CFG_MAXLEN, _CFG_MASK, _CFG_FLAGS = 2, 3, 4, 5
_F_GSO: Final = 1 << 2
#: Packets that may wait for us in the kernel, and bytes of its socket buffer.
MAX_WAITING: Final = 4096
SOCKET_BUFFER: Final = 32 << 20
#: Packets handled in one go before timers and the control socket get their turn.
BURST: Final = 64
_BUFFER: Final = 1 << 17
#: Seconds of waiting after which a packet is taken to come alone: no look whether another is there already.
ALONE: Final = 40e-6
#: Seconds for which what a relay sends waits for what it is about to send, in the middle of much.
LINGER: Final = 100e-6

_native_i32 = Struct("=i").unpack_from
_message_header = Struct("=IHHII")


class Binding(Protocol):
    """What is used of a `netfilterqueue.NetfilterQueue`."""

    def bind(
        self, queue_num: int, user_callback: Callable[[Any], None], *, max_len: int, mode: int, sock_len: int
    ) -> None: ...

    def get_fd(self) -> int: ...

    def unbind(self) -> None: ...


class Queue:
    """One bound queue in the network namespace of the calling process."""

    def __init__(
        self, number: int, decide: Decide, binding: Binding | None = None, express: Express | None = None
    ) -> None:
        """`express` is asked before `decide`; `binding` is what stands in for the kernel in tests.

        Raises OperatorError if the queue cannot be had.
        """
        self.number = number
        self._decide, self._express = decide, express
        self._reply = Reply()
        #: Called right behind each verdict of `decide`, before the next packet.
        self.behind: Callable[[], None] = _nothing
        #: Times that the kernel said it had dropped packets because our socket was full.
        self.enobufs = 0
        #: Verdicts that could not be given as decided: the packet was dropped.
        self.bad_verdicts = 0
        self._logged = False
        try:
            self._queue: Binding = binding or NetfilterQueue()
            self._queue.bind(number, _nobody, max_len=MAX_WAITING, mode=COPY_PACKET, sock_len=SOCKET_BUFFER)
        except OSError as problem:
            raise OperatorError(why_not(number, str(problem))) from None
        self._socket = socket.socket(fileno=os.dup(self._queue.get_fd()))
        self._socket.setblocking(False)
        #: Room for two packets, and the one that is being decided.
        self._first, self._second = nfq.Message(self._socket), nfq.Message(self._socket)
        self._message = self._first
        self._configure()

    def fileno(self) -> int:
        return self._socket.fileno()

    @property
    def outgoing(self) -> bool:
        """Whether the packet being decided leaves this host."""
        return self._message.outgoing

    def device(self) -> int:
        """Index of the device that the packet being decided came by, or, if `outgoing`, leaves by; 0 for none."""
        return self._message.device

    def close(self) -> None:
        """Unbind: what waits in the kernel is dropped, and so is all that the rules send here from now on."""
        self._queue.unbind()
        self._socket.close()

    def serve(self, other: int, seconds: float) -> bool:
        """Handle packets as they come, until the descriptor `other` is readable, or for `seconds` (negative: for ever).

        Returns early when it is others' turn: after a burst, or when the engine was asked, since more than verdicts
        may follow from that. Whether `other` is readable.

        What a packet from the network brings waits for what the next one brings, if that is here already, or is about
        to be, and of the same stream: then both go to the socket as one, with one acknowledgement to come back.
        """
        message, held, reply, express = self._message, None, self._reply, self._express
        asked = alone = waited = False
        patience = 0
        before = nfq.monotonic()
        for _ in range(BURST):
            kind = 0 if alone and not asked else nfq.receive(message)
            while not kind:
                if held is not None and patience > 1:
                    patience = 1
                    nfq.pause(LINGER)
                elif held is not None:
                    asked = self._give(held) or asked
                    held = None
                elif asked:
                    return False
                else:
                    ready = nfq.wait(message, other, seconds)
                    if ready != 1:
                        return ready > 1
                    waited = True
                kind = nfq.receive(message)
            now = nfq.monotonic()
            alone = waited and now - before > ALONE
            before, waited = now, False
            if kind == 1:
                if held is not None:
                    if self._grows(message):
                        nfq.drop(self.number, held)
                        held = message
                        self._message = message = self._second if held is self._first else self._first
                        continue
                    asked = self._give(held) or asked
                    held = None
                try:
                    if express is not None and express.take(
                        message.packet, message.length, message.skb_info, message.outgoing, now, reply
                    ):
                        patience = express.patience(reply, alone, now)
                        if not patience:
                            asked = self._give(message) or asked
                        else:
                            held = message
                            self._message = message = self._second if held is self._first else self._first
                    else:
                        asked = True
                        self._ask(message, None)
                except Exception:
                    self._failed(message)
            elif kind == -1:
                self.enobufs += 1
        if held is not None:
            self._give(held)
        return False

    def ready(self) -> None:
        """Handle the packets that wait."""
        self.serve(-1, 0.0)

    def _grows(self, message: nfq.Message) -> bool:
        """Whether the reply has what this packet brings as well."""
        express = self._express
        try:
            return express is not None and express.grow(
                message.packet, message.length, message.skb_info, message.outgoing, self._reply
            )
        except Exception:
            self._note_failure()
            return False

    def _give(self, message: nfq.Message) -> bool:
        """Let the reply go in a packet's place. Whether the engine was asked: the reply has no record to its end."""
        express = self._express
        try:
            whole = None if express is None else express.bare(self._reply)
            if whole is not None:
                self._ask(message, memoryview(whole))
            elif (
                express is None
                or not express.complete(self._reply)
                or not nfq.replace_by(self.number, message, self._reply)
            ):
                self._failed(message)
            return whole is not None
        except Exception:
            self._failed(message)
            return True

    def _ask(self, message: nfq.Message, packet: memoryview | None) -> None:
        """Ask `decide` about a packet, or about another one in its place, and give the verdict."""
        verdict: Verdict = DROP
        current, self._message = self._message, message  # so that its device is that of the packet being decided
        try:
            if message.length:
                seen = message.view() if packet is None else packet
                verdict = self._decide(seen, message.skb_info, message.outgoing, time.monotonic())
        finally:
            self._message = current
        if verdict is DROP:
            nfq.drop(self.number, message)
        elif verdict is ACCEPT:
            nfq.accept(self.number, message)
        elif not isinstance(verdict, bytes) or not nfq.replace(self.number, message, verdict):
            self._failed(message)
        self.behind()

    def _failed(self, message: nfq.Message) -> None:
        """Whatever happens, a packet gets a verdict: without one it would stay in the kernel's queue for ever."""
        nfq.drop(self.number, message)
        self._note_failure()

    def _note_failure(self) -> None:
        """Count it, and say so once."""
        self.bad_verdicts += 1
        if not self._logged:
            self._logged = True
            log.error(
                "internal error; the packet was dropped, and the next such error is only counted",
                exc_info=sys.exc_info()[0] is not None,
            )

    def _configure(self) -> None:
        """Unsegmented packets, copied up to VERDICT_LIMIT bytes; checked by the kernel's acknowledgement."""
        parameters = VERDICT_LIMIT.to_bytes(4, "big") + bytes((COPY_PACKET,))
        body = b"".join(
            (
                b"\0\0" + self.number.to_bytes(2, "big"),
                _encode(_CFG_PARAMS, parameters),
                _encode(_CFG_FLAGS, _F_GSO.to_bytes(4, "big")),
                _encode(_CFG_MASK, _F_GSO.to_bytes(4, "big")),
            )
        )
        sequence = 0x6D63
        self._socket.send(_message_header.pack(16 + len(body), _SUBSYSTEM_CONFIG, _REQUEST_ACK, sequence, 0) + body)
        while True:
            try:
                message = self._socket.recv(_BUFFER, socket.MSG_PEEK)
            except BlockingIOError:  # the kernel answers before send returns (netlink_unicast_kernel)
                break
            _, kind, _, number, _ = _message_header.unpack_from(message)
            if kind != _NLMSG_ERROR:
                if nfq.receive(self._message) == 1:
                    nfq.drop(self.number, self._message)  # it was copied short
                continue
            self._socket.recv(_BUFFER)
            if number == sequence:
                code = -_native_i32(message, 16)[0]
                if code:
                    raise OperatorError(
                        f"the kernel refused GSO packets on netfilter queue {self.number}: {os.strerror(code)}; "
                        "mcencrypt needs Linux 3.10 or later with CONFIG_NETFILTER_NETLINK_QUEUE"
                    )
                return
        raise OperatorError(f"the kernel did not answer the configuration of netfilter queue {self.number}")


def _nothing() -> None:
    """Nothing waits for a verdict."""


def _nobody(packet: Any) -> None:
    """NetfilterQueue's callback: it only binds, and never reads."""


def _encode(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded."""
    return Struct("=HH").pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


#: Of the calling thread's network namespace, which need not be that of the process' start.
PROC_QUEUES: Final = "/proc/thread-self/net/netfilter/nfnetlink_queue"


def statistics(number: int, path: str = PROC_QUEUES) -> tuple[int, int, int]:
    """(packets waiting, dropped because the queue was full, dropped because our socket was full).

    Columns 3, 6 and 7 of /proc/net/netfilter/nfnetlink_queue (seq_show in nfnetlink_queue.c); zeros if unreadable.
    """
    columns = _columns(number, path)
    return columns[2], columns[5], columns[6]


def progress(number: int, path: str = PROC_QUEUES) -> tuple[int, int, int]:
    """(packets waiting, verdicts given, packets that came); zeros if unreadable.

    Column 8 is the id of the last packet, counted from 1 when the queue was bound. What our socket had no room for has
    an id as well, and never waits (__nfqnl_enqueue_packet).
    """
    columns = _columns(number, path)
    waiting, dropped_user, arrived = columns[2], columns[6], columns[7]
    return waiting, arrived - waiting - dropped_user, arrived


def _columns(number: int, path: str) -> list[int]:
    try:
        with open(path) as lines:
            for line in lines:
                columns = [int(word) for word in line.split()]
                if columns[0] == number and len(columns) >= 8:
                    return columns
    except (OSError, ValueError, IndexError):
        pass
    return [0] * 8
