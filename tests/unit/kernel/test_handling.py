"""How packets of a connection are handled: what is asked, and what is used when there is no answer."""

from __future__ import annotations

from mcencrypt.core.addresses import Ends
from mcencrypt.kernel import handling
from mcencrypt.kernel.handling import ANYHOW, FRESH, Handling, Handlings

KEY = Ends(b"\x0a\0\0\1", 7331, b"\x0a\0\0\2", 50001).key()
LINK_LOCAL = Ends(b"\xfe\x80" + bytes(13) + b"\1", 7331, b"\xfe\x80" + bytes(13) + b"\2", 50001).key()
TOLD = Handling(0, mark=7, priority=5, uid=1000, traffic_class=8)


class Kernel:
    """Answers what a test has put in, or fails."""

    def __init__(self) -> None:
        self.socket: Handling | None = TOLD
        self.device = 3
        self.fails = False
        self.asked = 0
        self.handlings = Handlings(self._socket, self._device)

    def _socket(self, ends: Ends) -> Handling | None:
        self.asked += 1
        if self.fails:
            raise TimeoutError
        return self.socket

    def _device(self, ends: Ends, handling: Handling) -> int:
        assert handling == (self.socket or ANYHOW)
        return self.device


def test_what_the_socket_says_and_where_that_leads() -> None:
    kernel = Kernel()
    assert kernel.handlings.of(KEY, 100.0) == TOLD._replace(interface=3)
    kernel.device = 4
    assert kernel.handlings.of(KEY, 100.0 + FRESH / 2).interface == 3 and kernel.asked == 1
    assert kernel.handlings.of(KEY, 100.0 + FRESH).interface == 4
    kernel.device = 0
    kernel.socket = TOLD._replace(interface=9)
    assert kernel.handlings.of(KEY, 200.0).interface == 9, "no route, but the socket is bound"


def test_what_the_socket_has_just_said_is_not_asked_again() -> None:
    kernel = Kernel()
    kernel.fails = True
    assert kernel.handlings.of(KEY, 100.0, 4, TOLD) == TOLD._replace(interface=4) and not kernel.asked


def test_a_packet_that_is_seen_to_leave_knows_best_until_routes_change() -> None:
    kernel = Kernel()
    assert kernel.handlings.of(KEY, 100.0).interface == 3
    assert kernel.handlings.of(KEY, 100.0, seen=4).interface == 4
    assert kernel.handlings.of(KEY, 100.0).interface == 4
    assert kernel.handlings.of(KEY, 200.0).interface == 4
    asked = kernel.asked
    assert kernel.handlings.of(KEY, 200.0, seen=4).interface == 4 and kernel.asked == asked
    kernel.handlings.grow_old()
    assert kernel.handlings.of(KEY, 200.0).interface == 3


def test_what_was_known_is_used_when_the_socket_is_gone_or_the_kernel_silent() -> None:
    kernel = Kernel()
    known = kernel.handlings.of(KEY, 100.0)
    kernel.socket = None
    assert kernel.handlings.of(KEY, 200.0) == known
    kernel.handlings.grow_old()
    assert kernel.handlings.of(KEY, 200.0) == known
    kernel.fails = True
    assert kernel.handlings.of(KEY, 300.0) == known
    assert kernel.handlings.of(KEY[:-1] + b"x", 300.0) == ANYHOW


def test_a_connection_that_has_no_socket_goes_where_its_addresses_lead() -> None:
    kernel = Kernel()
    kernel.socket = None
    assert kernel.handlings.of(KEY, 100.0) == Handling(3)


def test_only_the_socket_knows_the_link_of_a_link_local_address() -> None:
    kernel = Kernel()
    kernel.socket = TOLD._replace(interface=9)
    assert kernel.handlings.of(LINK_LOCAL, 100.0).interface == 9


def test_the_table_is_bounded(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(handling, "CAPACITY", 3)
    kernel = Kernel()
    for number in range(10):
        kernel.handlings.of(KEY[:-1] + bytes((number,)), 100.0)
    assert len(kernel.handlings._known) == 3
