"""What tests in plaintext and encrypted ask of programs that nobody here wrote."""

from __future__ import annotations

import pytest

from lab import Host, thirdparty
from lab.thirdparty import Bcoin, Tip

needs_bcoin = pytest.mark.skipif(thirdparty.missing_bcoin() is not None, reason=str(thirdparty.missing_bcoin()))
needs_iperf3 = pytest.mark.skipif(thirdparty.missing_iperf3() is not None, reason=str(thirdparty.missing_iperf3()))

BLOCKS = 30
#: What bcoin's messages cannot do without on regtest: the magic, a command name, every coinbase's flags.
IN_CLEAR = (bytes.fromhex("fabfb5da"), b"version\0", b"mined by bcoin")


def mine_and_compare(
    a: Host, b: Host, bcoin: Bcoin, *, address: str | None = None, port: int = thirdparty.P2P_PORT
) -> None:
    """Node a dials node b; what one mines, the other has, block for block, first a's blocks and then b's."""
    listener = thirdparty.start_node(bcoin, b, port=port)
    dialler = thirdparty.start_node(bcoin, a, dial=address or b.v4, port=port)
    try:
        thirdparty.connect(listener, dialler)
        mined: list[str] = []
        for leader, follower in ((dialler, listener), (listener, dialler)):
            mined += leader.mine(BLOCKS)
            assert thirdparty.follow(follower, leader) == Tip(len(mined), mined[-1])
            assert follower.chain()[1:] == mined
        assert len(set(mined)) == 2 * BLOCKS
    finally:
        dialler.stop()
        listener.stop()
