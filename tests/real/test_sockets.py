"""Sockets of a real kernel, in namespaces of their own."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from lab import wait_for
from mcencrypt.core.addresses import Ends
from mcencrypt.errors import OperatorError
from mcencrypt.kernel import sockets
from mcencrypt.kernel.handling import Handling
from mcencrypt.kernel.sockets import Sockets, Tcp
from tests.helpers.netns import needs_root, pack, shell

pytestmark = [needs_root, pytest.mark.usefixtures("in_namespace")]

V4 = socket.AF_INET
V6 = socket.AF_INET6


@pytest.fixture
def table() -> Iterator[Sockets]:
    table = Sockets()
    yield table
    table.close()


@contextmanager
def connection(listen: str, dial: str, scope: int = 0) -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """A TCP connection from `dial` to itself: (client, accepted socket, listening port)."""
    family = V6 if ":" in listen else V4
    to = V6 if ":" in dial else V4
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server((listen, 0), family=family))
        port = server.getsockname()[1]
        client = stack.enter_context(socket.socket(to))
        client.connect((dial, port, 0, scope) if to == V6 else (dial, port))
        accepted = stack.enter_context(server.accept()[0])
        yield client, accepted, port


@pytest.mark.parametrize(
    ("listen", "dial"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", "127.0.0.1"), ("::", "::1")]
)
def test_both_ends_of_a_connection_are_found(table: Sockets, listen: str, dial: str) -> None:
    if listen == "::":
        opened = socket.create_server(("::", 0), family=V6, dualstack_ipv6=True)
    else:
        opened = socket.create_server((listen, 0), family=V6 if ":" in listen else V4)
    with opened as server, socket.create_connection((dial, server.getsockname()[1])) as client:
        accepted, _ = server.accept()
        port, other = server.getsockname()[1], client.getsockname()[1]
        ip = pack(dial)
        with accepted:
            assert table.state(ip, port, ip, other) == Tcp.ESTABLISHED
            assert table.state(ip, other, ip, port) == Tcp.ESTABLISHED
            assert table.state(ip, port, ip, other ^ 1) is None, "only the listener is left"
            assert table.state(ip, port ^ 1, ip, other) is None
            assert sorted(table.connected([port])) == sorted(
                [(ip, port, ip, other, Tcp.ESTABLISHED), (ip, other, ip, port, Tcp.ESTABLISHED)]
            )
            assert table.connected([port ^ 1]) == []


def test_states_from_half_close_to_time_wait(table: Sockets) -> None:
    with connection("127.0.0.1", "127.0.0.1") as (client, accepted, port):
        ip, other = pack("127.0.0.1"), client.getsockname()[1]
        client.shutdown(socket.SHUT_WR)
        wait_for(lambda: table.state(ip, other, ip, port) == Tcp.FIN_WAIT2, "FIN-WAIT-2")
        assert table.state(ip, port, ip, other) == Tcp.CLOSE_WAIT
        accepted.close()
        wait_for(lambda: table.state(ip, other, ip, port) == Tcp.TIME_WAIT, "TIME-WAIT")
        assert table.state(ip, port, ip, other) is None
        assert (ip, other, ip, port, Tcp.TIME_WAIT) in table.connected([port])


def test_half_open_on_either_side(table: Sockets) -> None:
    """A dial into the void is SYN_SENT; one whose answer is swallowed leaves SYN_RECV at the listener."""
    shell(
        "ip link add name va type veth peer name vb",
        "ip addr add 192.0.2.1/24 dev va; ip link set va up; ip link set vb up",
        "ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev va",
    )
    with socket.socket() as dialling:
        dialling.setblocking(False)
        assert dialling.connect_ex(("192.0.2.2", 7331)) == errno.EINPROGRESS
        port = dialling.getsockname()[1]
        assert table.state(pack("192.0.2.1"), port, pack("192.0.2.2"), 7331) == Tcp.SYN_SENT
        assert table.destroy(pack("192.0.2.1"), port, pack("192.0.2.2"), 7331)
        assert dialling.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNABORTED
    if not shutil.which("iptables"):
        pytest.skip("needs iptables to swallow a packet")
    shell("iptables -A OUTPUT -p tcp --tcp-flags SYN,ACK SYN,ACK -j DROP")
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as dialling:
        dialling.setblocking(False)
        dialling.connect_ex(server.getsockname())
        ip, port, other = pack("127.0.0.1"), server.getsockname()[1], dialling.getsockname()[1]
        assert table.state(ip, port, ip, other) == Tcp.SYN_RECV
        assert (ip, port, ip, other, Tcp.SYN_RECV) in table.connected([port])
        assert table.destroy(ip, port, ip, other)
        assert table.state(ip, port, ip, other) is None


@pytest.mark.parametrize(("listen", "dial"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_destroying_ends_the_connection_and_only_once(table: Sockets, listen: str, dial: str) -> None:
    assert table.can_destroy()
    with connection(listen, dial) as (client, accepted, port):
        ip, other = pack(dial), client.getsockname()[1]
        assert table.destroy(ip, port, ip, other)
        with pytest.raises(ConnectionAbortedError):
            accepted.recv(1)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        assert not table.destroy(ip, port, ip, other)


def test_destroying_an_accepted_socket_of_a_dual_stack_listener(table: Sockets) -> None:
    with (
        socket.create_server(("::", 0), family=V6, dualstack_ipv6=True) as server,
        socket.create_connection(("127.0.0.1", server.getsockname()[1])) as client,
    ):
        accepted, _ = server.accept()
        with accepted:
            ip = pack("127.0.0.1")
            assert table.destroy(ip, server.getsockname()[1], ip, client.getsockname()[1])
            with pytest.raises(ConnectionAbortedError):
                accepted.recv(1)


def test_destroying_what_is_not_connected_spares_the_listener(table: Sockets) -> None:
    """The kernel's lookup ends at the listener, and would close it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not table.destroy(pack("127.0.0.1"), port, pack("127.0.0.1"), 1)
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()


def test_destroying_time_wait(table: Sockets) -> None:
    with connection("127.0.0.1", "127.0.0.1") as (client, accepted, port):
        ip, other = pack("127.0.0.1"), client.getsockname()[1]
        client.close()
        accepted.close()
        wait_for(lambda: table.state(ip, other, ip, port) == Tcp.TIME_WAIT, "TIME-WAIT")
        assert table.destroy(ip, other, ip, port)
        assert table.state(ip, other, ip, port) is None


def test_link_local_peers(table: Sockets) -> None:
    shell(
        "ip link add name va type veth peer name vb; ip link set va addrgenmode none",
        "ip addr add fe80::7/64 dev va nodad; ip link set va up; ip link set vb up",
    )
    scope = socket.if_nametoindex("va")
    with connection("::", "fe80::7", scope) as (client, _, port):
        ip, other = pack("fe80::7"), client.getsockname()[1]
        assert table.state(ip, other, ip, port) == Tcp.ESTABLISHED
        assert table.destroy(ip, other, ip, port)
        assert table.state(ip, other, ip, port) is None


@contextmanager
def bound_connection(family: int, address: str) -> Iterator[tuple[bytes, int, int, socket.socket, socket.socket]]:
    """A connection whose client is bound to `lo`: packed address, client's port, listening port, both sockets."""
    with (
        socket.create_server((address, 0), family=V6 if ":" in address else V4) as server,
        socket.socket(family) as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        port = server.getsockname()[1]
        client.connect((f"::ffff:{address}" if family == V6 and ":" not in address else address, port))
        with server.accept()[0] as accepted:
            yield pack(address), client.getsockname()[1], port, client, accepted


BOUND = pytest.mark.parametrize(("family", "address"), [(V4, "127.0.0.1"), (V6, "127.0.0.1"), (V6, "::1")])


@BOUND
def test_a_bound_socket_is_found_by_its_addresses_alone(table: Sockets, family: int, address: str) -> None:
    """The kernel's exact look-up compares devices, and finds nothing, or the listener."""
    with bound_connection(family, address) as (ip, other, port, _, accepted):
        assert table.state(ip, other, ip, port) == Tcp.ESTABLISHED
        assert table.state(ip, port, ip, other) == Tcp.ESTABLISHED, "not bound"
        assert table.state(ip, other ^ 1, ip, port) is None
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        # the listener on its port hides it
        wait_for(lambda: table.state(ip, port, ip, other) == Tcp.ESTABLISHED, "the connection")
    assert table.state(ip, other, ip, port) in (None, Tcp.TIME_WAIT)


@BOUND
def test_a_bound_socket_is_destroyed(table: Sockets, family: int, address: str) -> None:
    with bound_connection(family, address) as (ip, other, port, client, _):
        assert table.destroy(ip, other, ip, port)
        with pytest.raises(ConnectionAbortedError):
            client.recv(1)
        assert not table.destroy(ip, other, ip, port)


def test_many_that_have_no_socket_cost_one_dump(table: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets of nobody's connections are looked up as well, and anybody can send those."""
    dumps = []
    dump = table._netlink.dump
    monkeypatch.setattr(table._netlink, "dump", lambda *request: dumps.append(request) or dump(*request))
    with bound_connection(V4, "127.0.0.1") as (ip, other, port, _, _):
        now = 100.0
        monkeypatch.setattr(sockets, "monotonic", lambda: now)  # it stands still
        for stranger in range(1, 1000):
            assert table.state(ip, stranger, ip, 1) is None
        assert len(dumps) <= 2, "one for each family"
        assert table.state(ip, other, ip, port) == Tcp.ESTABLISHED
    now += 1
    assert table.state(ip, 1, ip, 1) is None
    assert len(dumps) <= 4


def test_what_is_asked_of_many_at_once_is_as_of_now(table: Sockets) -> None:
    """Whoever ends connections for good must not go by what was known a moment ago."""
    with bound_connection(V4, "127.0.0.1") as (ip, first, port, _, _):
        assert table.state(ip, 1, ip, 1) is None
        with bound_connection(V4, "127.0.0.1") as (_, other, last, _, _):
            wanted = [Ends(ip, first, ip, port), Ends(ip, other, ip, last), Ends(ip, last, ip, other)]
            found = dict(table.find([*wanted, Ends(ip, 1, ip, 1)]))
            lo = socket.if_nametoindex("lo")
            assert [(found[ends].state, found[ends].handling.interface) for ends in wanted] == [
                (Tcp.ESTABLISHED, interface) for interface in (lo, lo, 0)
            ]
            assert found[Ends(ip, 1, ip, 1)] is None
            with bound_connection(V4, "127.0.0.1") as (_, newest, at, _, _):
                known = table.handling(Ends(ip, newest, ip, at))
                assert known is not None and known.interface == lo


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_how_packets_of_a_socket_are_handled(table: Sockets, address: str) -> None:
    v6 = ":" in address
    with (
        socket.create_server((address, 0), family=V6 if v6 else V4) as server,
        socket.socket(V6 if v6 else V4) as client,
    ):
        if v6:
            client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x48)
        else:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x48)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x12345678)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 5)
        os.fchown(client.fileno(), 1234, -1)
        client.connect(server.getsockname())
        ends = Ends(pack(address), client.getsockname()[1], pack(address), server.getsockname()[1])
        expected = Handling(0, 0x12345678, 5, 1234, 0x48)
        assert table.handling(ends) == expected
        assert table.destroy(*ends)
        assert table.handling(ends) == expected, "the reset that follows goes the same way"
    assert table.handling(ends._replace(local_port=1)) is None


def test_a_missing_module_is_an_error_not_an_empty_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A protocol without a handler stands for TCP without tcp_diag: the kernel answers both alike."""
    monkeypatch.setattr(socket, "IPPROTO_TCP", 251)
    with pytest.raises(OperatorError, match="modprobe tcp_diag"):
        Sockets()


def test_a_kernel_without_destroy_says_so(table: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(kind: int, flags: int, body: bytes) -> bytes:
        if kind == sockets._SOCK_DESTROY:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return ask(kind, flags, body)

    ask = table._netlink.request
    with connection("127.0.0.1", "127.0.0.1") as (client, _, port):
        monkeypatch.setattr(table._netlink, "request", refuse)
        ip = pack("127.0.0.1")
        assert not table.can_destroy()
        with pytest.raises(sockets.CannotDestroyError, match="CONFIG_INET_DIAG_DESTROY"):
            table.destroy(ip, port, ip, client.getsockname()[1])


def test_a_dump_longer_than_one_datagram_is_complete(table: Sockets) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as server, ExitStack() as stack:
        ports = set()
        for _ in range(400):
            client = stack.enter_context(socket.create_connection(server.getsockname()))
            stack.enter_context(server.accept()[0])
            ports.add(client.getsockname()[1])
        found = table.connected([server.getsockname()[1]])
        assert len(found) == 800
        assert {one.lport for one in found} - {server.getsockname()[1]} == ports


def test_requests_are_what_pyroute2_would_send() -> None:
    diag = pytest.importorskip("pyroute2.netlink.diag")
    request = diag.inet_diag_req()
    request["sdiag_family"], request["sdiag_protocol"] = V4, socket.IPPROTO_TCP
    request["idiag_states"], request["idiag_ext"] = 0xFFFFFFFF, 1 << 4 | 1 << 5  # INET_DIAG_TOS, INET_DIAG_TCLASS
    request["idiag_sport"], request["idiag_dport"] = 7331, 50001
    request["idiag_src"], request["idiag_dst"] = (0xC0000201, 0, 0, 0), (0xC6336402, 0, 0, 0)
    request["idiag_if"], request["idiag_cookie"] = 3, 0xFFFFFFFFFFFFFFFF
    request.encode()
    ours = sockets._encode(Ends(pack("192.0.2.1"), 7331, pack("198.51.100.2"), 50001), 3, sockets._NO_COOKIE)
    assert ours == bytes(request.data)[16:]
