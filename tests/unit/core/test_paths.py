"""What is told to the kernel about a path is not taken for the path's own MTU."""

from mcencrypt.core import paths
from mcencrypt.core.addresses import Path
from mcencrypt.core.paths import Paths
from mcencrypt.core.record import OVERHEAD

OWN = b"\x0a\0\0\x63"
HERE, THERE = Path(b"\x0a\0\0\1", OWN), Path(b"\x0a\0\0\2", OWN)


class Kernel:
    """Takes over what it is told, as tcp_v4_mtu_reduced and ip_rt_update_pmtu do."""

    def __init__(self, path: int) -> None:
        self.route = {HERE: path, THERE: path}
        self.paths = Paths(lambda path: self.route[path])

    def packet_too_long(self, peer: Path) -> int | None:
        lower = self.paths.lower(peer)
        if lower is not None:
            self.route[peer] = lower
        return lower


def test_many_connections_lower_a_path_once() -> None:
    kernel = Kernel(1400)
    assert kernel.packet_too_long(HERE) == 1400 - OVERHEAD
    assert [kernel.packet_too_long(HERE) for _ in range(5)] == [None] * 5
    assert kernel.paths.mtu(HERE) == 1400 and kernel.route[HERE] == 1400 - OVERHEAD
    assert kernel.paths.mtu(THERE) == 1400 == kernel.route[THERE], "another peer's path is its own"


def test_a_path_that_changes_again_is_told_anew() -> None:
    kernel = Kernel(1400)
    kernel.packet_too_long(HERE)
    kernel.route[HERE] = 1300
    assert kernel.paths.mtu(HERE) == 1300
    assert kernel.packet_too_long(HERE) == 1300 - OVERHEAD
    kernel.route[HERE] = 1500  # the kernel forgets what it learnt (net.ipv4.route.mtu_expires)
    assert kernel.paths.mtu(HERE) == 1500


def test_the_table_is_bounded(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(paths, "CAPACITY", 3)
    many = [Path(bytes((10, 0, 1, number)), OWN) for number in range(5)]
    kernel = Kernel(1400)
    kernel.route.update(dict.fromkeys(many, 1400))
    for peer in many:
        assert kernel.packet_too_long(peer) == 1400 - OVERHEAD
    assert len(kernel.paths._told) == 3
    assert kernel.packet_too_long(many[-1]) is None
