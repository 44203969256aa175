"""The kernel's TCP sockets: look one up by its addresses, destroy it, list those on our ports.

NETLINK_SOCK_DIAG, net/ipv4/inet_diag.c. Addresses are packed (4 or 16 bytes) and IPv4 ones are always 4
bytes: for the kernel's exact lookup it does not matter whether the socket is AF_INET or a dual-stack
AF_INET6 one, and what it lists as ``::ffff:a.b.c.d`` is shortened here.
"""

from __future__ import annotations

import enum
import errno
import socket
import struct
from collections.abc import Iterable
from typing import NamedTuple

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.netlink import NETLINK_SOCK_DIAG, NLM_F_ACK, Netlink

_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_NO_COOKIE = b"\xff" * 8

# struct inet_diag_req_v2: family, protocol, ext, pad, states, then struct inet_diag_sockid: sport, dport,
# src, dst, interface, cookie.
_REQUEST = struct.Struct("=BBBxI2s2s16s16sI8s")
# struct inet_diag_msg: family, state, timer, retrans, then the same sockid.
_ANSWER = struct.Struct("=BBxxHH16s16sI8s")
_PORT = struct.Struct(">H")
_MAPPED = bytes(10) + b"\xff\xff"
_LINK_LOCAL = 0xFE80


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


class Socket(NamedTuple):
    """One TCP socket; addresses packed, `state` one of `Tcp`."""

    local: bytes
    lport: int
    remote: bytes
    rport: int
    state: int


class CannotDestroyError(OperatorError):
    """The kernel was built without CONFIG_INET_DIAG_DESTROY."""


class Sockets:
    """The sockets of the network namespace that this object was made in.

    Every call waits for the kernel's answer, which it gives at once. All raise OSError if the kernel refuses
    (EPERM without CAP_NET_ADMIN) or does not answer within a second.
    """

    def __init__(self) -> None:
        self._netlink = Netlink(NETLINK_SOCK_DIAG)
        # Without the module every lookup would answer ENOENT, which reads like "no such socket".
        try:
            self._dump(socket.AF_INET, 0)
        except FileNotFoundError:
            raise OperatorError(
                "the kernel cannot list TCP sockets: load its module (modprobe tcp_diag), or use a kernel "
                "with CONFIG_INET_DIAG and CONFIG_INET_TCP_DIAG"
            ) from None

    def state(self, local: bytes, lport: int, remote: bytes, rport: int, interface: int = 0) -> int | None:
        """The state of the connected socket with these addresses; None if there is none, or only a listener.

        `interface` is the index of the interface that its packets use. It is needed to find a socket that
        is bound to a device; for link-local IPv6 addresses without one, every interface is tried.
        """
        found = self._find(local, lport, remote, rport, interface)
        return found[0] if found else None

    def destroy(self, local: bytes, lport: int, remote: bytes, rport: int, interface: int = 0) -> bool:
        """Close that socket with an error for its application (ECONNABORTED); False if there was none.

        Raises CannotDestroyError if the kernel cannot. The kernel sends the peer a RST with the socket's
        own sequence number. A lookup by addresses alone ends at the *listener* when there is no connection,
        and would destroy that, so the socket is found first and then named by its cookie.
        """
        found = self._find(local, lport, remote, rport, interface)
        if not found:
            return False
        _, interface, cookie = found
        try:
            self._netlink.request(_SOCK_DESTROY, NLM_F_ACK, _encode(local, lport, remote, rport, interface, cookie))
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

    def can_destroy(self) -> bool:
        """True if the kernel has SOCK_DESTROY and lets us use it. Raises OSError for any other failure."""
        nobody = _encode(b"\x7f\0\0\1", 0, b"\x7f\0\0\1", 0, 0, bytes(8))
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
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                answers = self._dump(family, _CONNECTED)
            except OSError as error:
                if family == socket.AF_INET6 and error.errno == errno.ENOENT:
                    continue
                raise
            for answer in answers:
                _, state, sport, dport, source, destination, _, _ = _ANSWER.unpack_from(answer)
                lport, rport = socket.ntohs(sport), socket.ntohs(dport)
                if lport in wanted or rport in wanted:
                    local, remote = _address(family, source), _address(family, destination)
                    found.append(Socket(local, lport, remote, rport, state))
        return found

    def close(self) -> None:
        self._netlink.close()

    def _find(
        self, local: bytes, lport: int, remote: bytes, rport: int, interface: int
    ) -> tuple[int, int, bytes] | None:
        """(state, interface, cookie) of the connected socket."""
        interfaces = [interface]
        if not interface and _is_link_local(remote):
            interfaces = [index for index, _ in socket.if_nameindex()]
        for index in interfaces:
            request = _encode(local, lport, remote, rport, index, _NO_COOKIE)
            try:
                answer = self._netlink.request(_SOCK_DIAG_BY_FAMILY, 0, request)
            except FileNotFoundError:
                continue
            _, state, _, dport, _, _, _, cookie = _ANSWER.unpack_from(answer)
            if state != Tcp.LISTEN and socket.ntohs(dport) == rport:
                return state, index, cookie
        return None

    def _dump(self, family: int, states: int) -> list[bytes]:
        request = _REQUEST.pack(
            family, socket.IPPROTO_TCP, 0, states, b"\0\0", b"\0\0", bytes(16), bytes(16), 0, _NO_COOKIE
        )
        return self._netlink.dump(_SOCK_DIAG_BY_FAMILY, request)


def _encode(local: bytes, lport: int, remote: bytes, rport: int, interface: int, cookie: bytes) -> bytes:
    return _REQUEST.pack(
        socket.AF_INET if len(local) == 4 else socket.AF_INET6,
        socket.IPPROTO_TCP,
        0,
        0xFFFFFFFF,
        _PORT.pack(lport),
        _PORT.pack(rport),
        local,
        remote,
        interface,
        cookie,
    )


def _address(family: int, address: bytes) -> bytes:
    if family == socket.AF_INET:
        return address[:4]
    return address[12:] if address.startswith(_MAPPED) else address


def _is_link_local(address: bytes) -> bool:
    return len(address) == 16 and int.from_bytes(address[:2]) & 0xFFC0 == _LINK_LOCAL
