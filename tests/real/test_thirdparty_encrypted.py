"""bcoin and iperf3, which nobody here wrote, over encrypted connections: nothing is noticed, the wire shows nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import thirdparty, two_hosts
from tests.helpers.nodes import cannot_run
from tests.helpers.pairs import EncryptedPair, encrypted
from tests.helpers.third_party import IN_CLEAR, mine_and_compare, needs_bcoin, needs_iperf3
from tests.helpers.wire import assert_encrypted

pytestmark = pytest.mark.skipif(cannot_run() is not None, reason=str(cannot_run()))


@pytest.fixture(scope="module")
def pair() -> Iterator[EncryptedPair]:
    with two_hosts() as net, encrypted(net, ports=[thirdparty.P2P_PORT, thirdparty.IPERF_PORT]) as both:
        yield both


@needs_bcoin
@pytest.mark.parametrize("version", [4, 6])
def test_bcoin_nodes_share_their_blocks_encrypted(pair: EncryptedPair, version: int) -> None:
    bcoin = thirdparty.install()
    with pair.wire() as wire:
        mine_and_compare(pair.a.host, pair.b.host, bcoin, address=pair.b.host.address(version))
    assert_encrypted(wire, thirdparty.P2P_PORT, IN_CLEAR)
    assert pair.router.invalid_count() == 0


@needs_iperf3
@pytest.mark.parametrize("version", [4, 6])
def test_iperf3_runs_both_ways_encrypted(pair: EncryptedPair, version: int) -> None:
    before = pair.a.status()["totals"]
    rates = thirdparty.iperf3_both_ways(pair.a.host, pair.b.host, 1, address=pair.b.host.address(version))
    after = pair.a.status()["totals"]
    assert after["bytes_out"] - before["bytes_out"] >= rates.a_to_b.received > 0
    assert after["bytes_in"] - before["bytes_in"] >= rates.b_to_a.received > 0
    assert pair.router.invalid_count() == 0
