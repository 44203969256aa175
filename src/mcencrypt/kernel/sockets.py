"""The kernel's TCP sockets: look one up by its addresses, destroy it, list those on our ports.

NETLINK_SOCK_DIAG, net/ipv4/inet_diag.c. Addresses are packed (4 or 16 bytes) and IPv4 ones are always 4
bytes: for the kernel's exact lookup it does not matter whether the socket is AF_INET or a dual-stack
AF_INET6 one, and what it lists as ``::ffff:a.b.c.d`` is shortened here.

The exact lookup compares devices as well: a socket that is bound to one (SO_BINDTODEVICE, or a link-local IPv6
address) is found only by whoever knows which, and where there is a listener on its port, that is found instead. Where
an exact lookup finds no connection, a dump of the bound sockets tells the device.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Final, NamedTuple

from mcencrypt.core.addresses import Ends
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.handling import Handling
from mcencrypt.kernel.netlink import NETLINK_SOCK_DIAG, NLM_F_ACK, Netlink, attributes

_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_NO_COOKIE = b"\xff" * 8

# struct inet_diag_req_v2: family, protocol, ext, pad, states, then struct inet_diag_sockid: sport, dport,
# src, dst, interface, cookie.
_REQUEST = struct.Struct("=BBBxI2s2s16s16sI8s")
# struct inet_diag_msg: family, state, timer, retrans, then the same sockid.
_ANSWER = struct.Struct("=BBxxHH16s16sI8s")
# In struct inet_diag_msg, behind the sockid: expires, rqueue, wqueue, uid, inode.
_UID_AT: Final = 64
_INODE_AT: Final = 68
_ATTRIBUTES_AT: Final = 72
# Attributes of an answer, and the bits that ask for them. INET_DIAG_CLASS_ID comes along with INET_DIAG_TCLASS and is
# the socket's priority where it is in no class of the net_cls controller.
_TOS, _TCLASS, _MARK, _CLASS_ID = 5, 6, 15, 17
_WANTED: Final = 1 << _TOS - 1 | 1 << _TCLASS - 1
_PORT = struct.Struct(">H")
_U32 = struct.Struct("=I")
_MAPPED = bytes(10) + b"\xff\xff"

# Attribute of a dump's request: a filter, struct inet_diag_bc_op with its operand. "Not device 0", which is: if the
# device is 0, jump behind the end, which means no.
_REQ_BYTECODE = 1
_BC_DEV_COND = 9
_BC_JMP = 1
_ONLY_BOUND = struct.pack("=HHBBHIBBH", 20, _REQ_BYTECODE, _BC_DEV_COND, 8, 12, 0, _BC_JMP, 4, 8)

#: Seconds for which a dump of bound sockets serves lookups of single ones. It costs a millisecond, and strangers'
#: packets can ask for it.
DUMP_EVERY: Final = 0.1

#: The age of a dump that is always too old.
AS_OF_NOW: Final = -1.0

#: Sockets that were destroyed here and are remembered, for the resets that follow.
DESTROYED: Final = 16384


class Tcp(enum.IntEnum):
    """States of a TCP socket (include/net/tcp_states.h)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


# Unconnected sockets (CLOSE, and BOUND_INACTIVE of newer kernels) have no peer and are left out like
# listeners.
_CONNECTED = sum(1 << state for state in Tcp if state not in (Tcp.CLOSE, Tcp.LISTEN))
_OPEN = 1 << Tcp.LISTEN | 1 << Tcp.SYN_SENT | 1 << Tcp.ESTABLISHED


class Socket(NamedTuple):
    """One TCP socket; addresses packed, `state` one of `Tcp`."""

    local: bytes
    lport: int
    remote: bytes
    rport: int
    state: int


class Listed(NamedTuple):
    """One TCP socket that listens, dials or is connected, with the inode that /proc/PID/fd names it by."""

    local: bytes
    lport: int
    remote: bytes
    rport: int
    state: int
    inode: int


class Found(NamedTuple):
    """A connected socket as the kernel names it."""

    #: One of `Tcp`.
    state: int
    #: Its interface is the device that the socket is bound to.
    handling: Handling
    cookie: bytes


class CannotDestroyError(OperatorError):
    """The kernel was built without CONFIG_INET_DIAG_DESTROY."""


class Sockets:
    """The sockets of the network namespace that this object was made in.

    Every call waits for the kernel's answer, which it gives at once. All raise OSError if the kernel refuses
    (EPERM without CAP_NET_ADMIN) or does not answer within a second.
    """

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_SOCK_DIAG)
        self._bound: dict[Ends, int] = {}
        self._bound_at = float("-inf")
        #: How the packets of sockets were handled that were destroyed.
        self._destroyed: dict[Ends, Handling] = {}
        self._filters = True
        # Without the module every lookup would answer ENOENT, which reads like "no such socket".
        try:
            self._dump(socket.AF_INET, 0)
        except FileNotFoundError:
            raise OperatorError(
                "the kernel cannot list TCP sockets: load its module (modprobe tcp_diag), or use a kernel "
                "with CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG"
            ) from None

    def state(self, local: bytes, lport: int, remote: bytes, rport: int) -> int | None:
        """The state of the connected socket with these addresses; None if there is none, or only a listener.

        One that is bound to a device may be missed in its first tenth of a second.
        """
        found = self._find(Ends(local, lport, remote, rport), DUMP_EVERY)
        return found.state if found else None

    def find(self, many: Iterable[Ends]) -> Iterator[tuple[Ends, Found | None]]:
        """Each of these connections, looked up when it is its turn; None for one that has no socket. Misses none."""
        began = monotonic()
        for ends in many:
            yield ends, self._find(ends, monotonic() - began)

    def destroy(self, local: bytes, lport: int, remote: bytes, rport: int) -> bool:
        """Close that socket with an error for its application (ECONNABORTED); False if there was none.

        What `state` misses this misses as well; `find` and `destroy_found` do not. Raises CannotDestroyError if the
        kernel cannot. The kernel sends the peer a RST with the socket's own sequence number.
        """
        ends = Ends(local, lport, remote, rport)
        found = self._find(ends, DUMP_EVERY)
        return found is not None and self.destroy_found(ends, found)

    def destroy_found(self, ends: Ends, found: Found) -> bool:
        """`destroy` for one that is known.

        A lookup by addresses alone ends at the *listener* when there is no connection, and would destroy that, so a
        socket is found first and then named by its cookie.
        """
        if len(self._destroyed) >= DESTROYED:
            del self._destroyed[next(iter(self._destroyed))]
        self._destroyed[ends] = found.handling
        try:
            self._netlink.request(_SOCK_DESTROY, NLM_F_ACK, _encode(ends, found.handling.interface, found.cookie))
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise CannotDestroyError(
                    "the kernel cannot destroy sockets (CONFIG_INET_DIAG_DESTROY is not set): "
                    "restart multichaind, or use another kernel"
                ) from None
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return False
            raise
        return True

    def handling(self, ends: Ends) -> Handling | None:
        """How the kernel handles this connection's packets, or did until it was destroyed here; None for no socket."""
        found = self._find(ends, AS_OF_NOW)
        return self._destroyed.get(ends) if found is None else found.handling

    def handling_lately(self, ends: Ends) -> Handling | None:
        """The same of a socket that is there, None for any other; costs strangers' packets no look at all sockets each.

        One that is bound to a device may be missed in its first tenth of a second.
        """
        found = self._find(ends, DUMP_EVERY)
        return None if found is None else found.handling

    def can_destroy(self) -> bool:
        """True if the kernel has SOCK_DESTROY and lets us use it. Raises OSError for any other failure."""
        nobody = _encode(Ends(b"\x7f\0\0\1", 0, b"\x7f\0\0\1", 0), 0, bytes(8))
        try:
            self._netlink.request(_SOCK_DESTROY, NLM_F_ACK, nobody)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):
                return True
            if error.errno in (errno.EOPNOTSUPP, errno.EPERM):
                return False
            raise
        return True

    def connected(self, ports: Iterable[int]) -> list[Socket]:
        """All connected TCP sockets whose local or remote port is one of these, both families."""
        wanted = set(ports)
        found = (_socket(answer) for answer in self._dump_both())
        return [one for one in found if one.lport in wanted or one.rport in wanted]

    def dialling(self) -> set[Ends]:
        """The connections whose sockets wait for an answer to their SYN. It may miss one of many: ask `find`."""
        return {Ends(*_socket(answer)[:4]) for answer in self._dump_both(states=1 << Tcp.SYN_SENT)}

    def open(self) -> list[Listed]:
        """All TCP sockets that listen, dial or are connected, both families."""
        return [
            Listed(*_socket(answer), *_U32.unpack_from(answer, _INODE_AT)) for answer in self._dump_both(states=_OPEN)
        ]

    def close(self) -> None:
        self._netlink.close()

    def _find(self, ends: Ends, age: float) -> Found | None:
        """The connected socket; a dump that says which devices sockets are bound to may be `age` seconds old."""
        found = self._exact(ends, 0)
        if found is None:
            now = monotonic()
            if now - self._bound_at > age:
                self._bound = self._dump_bound()
                self._bound_at = now
            interface = self._bound.get(ends)
            if interface is not None:
                found = self._exact(ends, interface)
        return found

    def _exact(self, ends: Ends, interface: int) -> Found | None:
        try:
            answer = self._netlink.request(_SOCK_DIAG_BY_FAMILY, 0, _encode(ends, interface, _NO_COOKIE))
        except FileNotFoundError:
            return None
        _, state, _, dport, _, _, bound, cookie = _ANSWER.unpack_from(answer)
        if state == Tcp.LISTEN or socket.ntohs(dport) != ends.remote_port:
            return None
        told = {kind: int.from_bytes(value, sys.byteorder) for kind, value in attributes(answer, _ATTRIBUTES_AT)}
        (uid,) = _U32.unpack_from(answer, _UID_AT)
        traffic_class = told.get(_TOS if len(ends.local) == 4 else _TCLASS, 0)
        handling = Handling(bound, told.get(_MARK, 0), told.get(_CLASS_ID, 0), uid, traffic_class)
        return Found(state, handling, cookie)

    def _dump_bound(self) -> dict[Ends, int]:
        """The index of the device that each bound socket is bound to."""
        try:
            answers = self._dump_both(_ONLY_BOUND if self._filters else b"")
        except OSError as error:
            if error.errno != errno.EINVAL or not self._filters:
                raise
            self._filters = False  # a kernel before 4.8
            answers = self._dump_both()
        bound = {}
        for answer in answers:
            interface = _ANSWER.unpack_from(answer)[6]
            if interface:
                bound[Ends(*_socket(answer)[:4])] = interface
        return bound

    def _dump_both(self, filters: bytes = b"", states: int = _CONNECTED) -> list[bytes]:
        """The sockets of both families in these states."""
        answers = self._dump(socket.AF_INET, states, filters)
        try:
            return answers + self._dump(socket.AF_INET6, states, filters)
        except FileNotFoundError:
            return answers  # a kernel without IPv6

    def _dump(self, family: int, states: int, filters: bytes = b"") -> list[bytes]:
        request = _REQUEST.pack(
            family, socket.IPPROTO_TCP, 0, states, b"\0\0", b"\0\0", bytes(16), bytes(16), 0, _NO_COOKIE
        )
        return self._netlink.dump(_SOCK_DIAG_BY_FAMILY, request + filters)


def _encode(ends: Ends, interface: int, cookie: bytes) -> bytes:
    local, lport, remote, rport = ends
    return _REQUEST.pack(
        socket.AF_INET if len(local) == 4 else socket.AF_INET6,
        socket.IPPROTO_TCP,
        _WANTED,
        0xFFFFFFFF,
        _PORT.pack(lport),
        _PORT.pack(rport),
        local,
        remote,
        interface,
        cookie,
    )


def _socket(answer: bytes) -> Socket:
    family, state, sport, dport, source, destination, _, _ = _ANSWER.unpack_from(answer)
    return Socket(
        _address(family, source), socket.ntohs(sport), _address(family, destination), socket.ntohs(dport), state
    )


def _address(family: int, address: bytes) -> bytes:
    if family == socket.AF_INET:
        return address[:4]
    return address[12:] if address.startswith(_MAPPED) else address
