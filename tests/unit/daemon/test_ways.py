"""By which way packets go: what is asked of the kernel, and how often."""

from __future__ import annotations

from typing import Any, cast

import pytest

from mcencrypt.core.addresses import Ends
from mcencrypt.daemon.ways import Ways
from mcencrypt.kernel.handling import Handling

KEYS = [Ends(b"\x0a\0\0\1", 50001 + n, b"\x0a\0\0\2", 7331).key() for n in range(2)]
TOLD = Handling(0, mark=7, priority=5, uid=1000)


class Kernel:
    """Sockets and routes that count questions."""

    def __init__(self) -> None:
        self.socket: Handling | None = TOLD
        self.fails = False
        self.looks: list[Ends] = []
        self.routes: list[tuple[bytes, bytes, Handling]] = []
        self.ways = Ways(cast(Any, self), cast(Any, self))

    def handling(self, ends: Ends) -> Handling | None:
        return self.handling_lately(ends)

    def handling_lately(self, ends: Ends) -> Handling | None:
        self.looks.append(ends)
        if self.fails:
            raise TimeoutError
        return self.socket

    def device(self, ends: Ends, handling: Handling) -> int:
        return 3

    def mtu(self, address: bytes, source: bytes, handling: Handling) -> int:
        self.routes.append((address, source, handling))
        return 1400


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_a_socket_is_looked_at_once_for_its_owner_and_its_path(kernel: Kernel) -> None:
    assert kernel.ways.owner_of(KEYS[0]) == 1000
    kernel.ways.look_ahead(KEYS[0], 4)
    assert kernel.looks == [Ends.of(KEYS[0])]
    assert kernel.routes == [(b"\x0a\0\0\2", b"\x0a\0\0\1", TOLD._replace(interface=4, priority=0))]
    path = kernel.ways.path_of(KEYS[0])
    assert path.device == 4 and len(kernel.looks) == 1, "which is known by then"


def test_what_was_said_of_one_socket_is_taken_for_no_other(kernel: Kernel) -> None:
    kernel.ways.owner_of(KEYS[0])
    kernel.socket = TOLD._replace(mark=8)
    kernel.ways.look_ahead(KEYS[1], 4)
    assert kernel.looks == [Ends.of(key) for key in KEYS]
    assert [handling.mark for _, _, handling in kernel.routes] == [8]


@pytest.mark.parametrize("fails", [True, False])
def test_of_a_socket_that_is_gone_no_path_is_asked(kernel: Kernel, fails: bool) -> None:
    kernel.socket, kernel.fails = None, fails
    assert kernel.ways.owner_of(KEYS[0]) is None
    kernel.ways.look_ahead(KEYS[0], 4)
    kernel.ways.look_ahead(KEYS[1], 4)
    assert kernel.routes == []


def test_it_is_looked_at_anew_after_it_was_used(kernel: Kernel) -> None:
    kernel.ways.owner_of(KEYS[0])
    kernel.ways.look_ahead(KEYS[0], 4)
    kernel.ways.look_ahead(KEYS[0], 5)
    assert len(kernel.looks) == 2, "the ports may be another socket's by now"
