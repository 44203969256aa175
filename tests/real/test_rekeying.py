"""Session keys that change under way, on real kernels: with epochs made small, and, if asked for, at the true 4 GiB."""

import pytest

from lab import direct_pair, start, transfer, wait_for
from tests.helpers.nodes import FULL, PORT, needs_lab, sized
from tests.helpers.pairs import encrypted
from tests.helpers.rekeyed import EPOCH_BITS, with_small_epochs
from tests.helpers.wire import assert_encrypted

pytestmark = needs_lab


def test_keys_change_dozens_of_times_and_applications_notice_nothing():
    size = sized(40e6, 400e6)
    with direct_pair() as net, encrypted(net) as pair:
        for node in (pair.a, pair.b):
            with_small_epochs(node)
        with pair.wire() as wire:
            assert transfer(pair.a, pair.b, PORT, size=size, deadline=300).differences == []
        for node in (pair.a, pair.b):
            assert node.status()["totals"]["auth_failures"] == 0
            assert node.status()["totals"]["bytes_out"] > 30 << EPOCH_BITS
        assert_encrypted(wire)


def test_behind_the_boundary_the_key_really_is_another():
    """Only one end changes keys: until the boundary both agree, and not one record behind it opens."""
    with direct_pair() as net, encrypted(net) as pair:
        with_small_epochs(pair.a)
        assert transfer(pair.a, pair.b, PORT, mode="half-close", size=900_000, server_size=1000).differences == []
        assert pair.b.status()["totals"]["auth_failures"] == 0
        before = pair.b.status()["totals"]["bytes_in"]
        running = start(pair.a, pair.b, PORT, mode="half-close", size=3_000_000)
        # the same record again and again, as TCP does with what is lost
        wait_for(lambda: pair.b.status()["totals"]["auth_failures"] > 2, "records that do not open")
        for process in (running.client, running.server):
            assert process.exit_code is None
            process.kill()
        assert pair.b.status()["totals"]["bytes_in"] - before < 1 << EPOCH_BITS


@pytest.mark.skipif(not FULL, reason="4.6 GB on one connection: with MCENCRYPT_FULL=1")
def test_the_true_boundary_is_crossed():
    with direct_pair() as net, encrypted(net) as pair:
        result = transfer(pair.a, pair.b, PORT, mode="half-close", size=4.6e9, server_size=1000, deadline=1200)
        assert result.differences == []
        assert pair.a.status()["totals"]["bytes_out"] > 1 << 32
        assert all(node.status()["totals"]["auth_failures"] == 0 for node in (pair.a, pair.b))
