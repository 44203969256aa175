"""What is told to the kernel about a path is not taken for the path's own MTU, and what it does not hold is known."""

import pytest

from mcencrypt.core import paths
from mcencrypt.core.addresses import Path
from mcencrypt.core.paths import LOWEST_IPV4, LOWEST_IPV6, REMEMBERED, TELL_EVERY, Limits, News, Paths
from mcencrypt.core.record import OVERHEAD

OWN = b"\x0a\0\0\x63"
HERE, THERE = Path(b"\x0a\0\0\1", OWN), Path(b"\x0a\0\0\2", OWN)
SIX = Path(bytes(15) + b"\1", bytes(15) + b"\2")


class Kernel:
    """Takes over what it is told if that is less (ip_rt_update_pmtu), and forgets it."""

    def __init__(self, mtu: int) -> None:
        self.routes = dict.fromkeys((HERE, THERE, SIX), mtu)
        self.learnt: dict[Path, int] = {}
        self.deaf = False
        self.paths = Paths(lambda path: self.learnt.get(path, self.routes[path]))
        self.paths.tick(1000.0)

    def told(self, path: Path, mtu: int | None) -> int | None:
        if mtu is not None and not self.deaf and mtu < self.learnt.get(path, self.routes[path]):
            self.learnt[path] = mtu
        return mtu

    def packet_too_long(self, path: Path) -> int | None:
        """A single segment has no room for our overhead."""
        return self.told(path, self.paths.lower(path))

    def router_says(self, path: Path, mtu: int) -> int | None:
        return self.told(path, self.paths.learn(path, mtu))


def test_many_connections_lower_a_path_once() -> None:
    kernel = Kernel(1400)
    assert kernel.packet_too_long(HERE) == 1400 - OVERHEAD
    assert [kernel.packet_too_long(HERE) for _ in range(5)] == [None] * 5
    assert kernel.paths.limits(HERE) == Limits(1400 - OVERHEAD, 1400)
    assert kernel.paths.limits(THERE) == Limits(1400, 1400), "another peer's path is its own"


def test_a_path_that_changes_again_is_told_anew() -> None:
    kernel = Kernel(1400)
    kernel.packet_too_long(HERE)
    kernel.learnt[HERE] = 1300
    assert kernel.paths.limits(HERE) == Limits(1300, 1300)
    assert kernel.packet_too_long(HERE) == 1300 - OVERHEAD
    del kernel.learnt[HERE]  # the kernel forgets what it learnt
    kernel.routes[HERE] = 1500
    assert kernel.paths.limits(HERE) == Limits(1300 - OVERHEAD, 1300), "it may not have heard of it as yet"
    kernel.paths.tick(1000.0 + REMEMBERED)
    assert kernel.paths.limits(HERE) == Limits(1500, 1500)


def test_what_a_router_says() -> None:
    kernel = Kernel(1500)
    assert kernel.router_says(HERE, 1300) == 1300 - OVERHEAD
    assert kernel.paths.limits(HERE) == Limits(1300 - OVERHEAD, 1300)
    assert kernel.packet_too_long(HERE) is None, "it knows"
    assert kernel.router_says(HERE, 1300) == 1300 - OVERHEAD, "again: the first may be lost"
    assert kernel.router_says(HERE, 1200) == 1200 - OVERHEAD
    assert kernel.paths.limits(HERE) == Limits(1200 - OVERHEAD, 1200)


def test_more_than_is_known_is_no_news() -> None:
    kernel = Kernel(1500)
    kernel.router_says(HERE, 1300)
    kernel.router_says(HERE, 1400)
    kernel.router_says(THERE, 9000)
    assert kernel.paths.limits(HERE) == Limits(1300 - OVERHEAD, 1300)
    assert kernel.paths.limits(THERE) == Limits(1500, 1500)


@pytest.mark.parametrize(("path", "lowest"), [(HERE, LOWEST_IPV4), (SIX, LOWEST_IPV6)])
def test_the_least_that_the_kernel_can_be_told(path: Path, lowest: int) -> None:
    kernel = Kernel(1500)
    assert kernel.router_says(path, lowest + 5) == lowest
    assert kernel.paths.limits(path) == Limits(lowest, lowest + 5), "packets of our own can be that long"
    assert kernel.packet_too_long(path) is None


def test_below_it_ipv4_is_told_as_it_is_and_ipv6_is_not() -> None:
    """Our kernel then lets routers fragment (IPv4), or has to refuse (RFC 8201, section 4)."""
    kernel = Kernel(1500)
    assert kernel.paths.learn(HERE, 400) == 400
    assert kernel.paths.learn(SIX, 400) == LOWEST_IPV6
    assert kernel.paths.limits(HERE).path == LOWEST_IPV4 and kernel.paths.limits(SIX).path == LOWEST_IPV6


def test_a_kernel_that_does_not_believe_it_is_told_again_now_and_then() -> None:
    """A route with `mtu lock`, or ICMP that the host's own firewall drops."""
    kernel = Kernel(1400)
    kernel.deaf = True
    assert [kernel.packet_too_long(HERE) for _ in range(3)] == [1400 - OVERHEAD, None, None]
    assert kernel.paths.limits(HERE) == Limits(1400 - OVERHEAD, 1400)
    kernel.paths.tick(1000.0 + TELL_EVERY)
    assert [kernel.packet_too_long(HERE) for _ in range(3)] == [1400 - OVERHEAD, None, None]


def test_changed_routes_are_believed() -> None:
    kernel = Kernel(1500)
    kernel.router_says(HERE, 1300)
    kernel.router_says(THERE, 1300)
    del kernel.learnt[HERE]  # by a route that has come instead
    version = kernel.paths.version
    kernel.paths.routes_changed()
    assert kernel.paths.version > version
    assert kernel.paths.limits(HERE) == Limits(1500, 1500)
    assert kernel.paths.limits(THERE) == Limits(1300 - OVERHEAD, 1300), "the kernel still knows of this"


def test_answers_given_before_are_void_once_there_is_news() -> None:
    kernel = Kernel(1500)
    before = kernel.paths.version
    kernel.router_says(HERE, 1300)
    assert kernel.paths.version > before
    before = kernel.paths.version
    kernel.packet_too_long(THERE)
    assert kernel.paths.version > before


def test_a_process_begins_with_what_the_one_before_had_learnt() -> None:
    kernel, kept = Kernel(1500), {}
    kernel.paths.take_over((), kept.__setitem__, 1000.0)
    kernel.router_says(HERE, 1300)
    assert kept == {HERE.place: News(1300, 1300 - OVERHEAD, 1000.0 + REMEMBERED)}
    again = Paths(lambda path: kernel.learnt.get(path, 1500))
    again.take_over(kept.items(), lambda path, news: None, 1100.0)
    assert again.limits(HERE) == Limits(1300 - OVERHEAD, 1300)
    assert again.lower(HERE) is None


def test_packets_of_another_user_or_class_are_no_other_path_to_the_kernel() -> None:
    """Connections that differ in these would by turns take for the path's own what the other had the kernel told."""
    shown = {1: 1400, 2: 1400}
    paths = Paths(lambda path: shown[path.device])
    ways = [HERE._replace(way=user, device=1) for user in ("one user", "another")]
    for _ in range(3):
        for path in ways:
            shown[1] = paths.lower(path) or shown[1]
            assert paths.limits(path) == Limits(1400 - OVERHEAD, 1400)
    assert paths.limits(HERE._replace(device=2)) == Limits(1400, 1400), "by another device it is another path"


def test_the_table_is_bounded(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(paths, "CAPACITY", 3)
    many = [Path(bytes((10, 0, 1, number)), OWN) for number in range(5)]
    kernel = Kernel(1400)
    kernel.routes.update(dict.fromkeys(many, 1400))
    for path in many:
        assert kernel.packet_too_long(path) == 1400 - OVERHEAD
    assert len(kernel.paths._news) == 3
    assert kernel.packet_too_long(many[-1]) is None
