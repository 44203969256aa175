"""Programs that nobody here wrote, over the lab: two bcoin nodes share a chain, iperf3 runs both ways."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import PATIENCE, Capture, LabError, TwoHosts, missing, thirdparty, two_hosts
from lab.thirdparty import Bcoin, Tip
from tests.helpers.third_party import BLOCKS, IN_CLEAR, mine_and_compare, needs_bcoin, needs_iperf3

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture(scope="module")
def bcoin() -> Bcoin:
    return thirdparty.install()


@pytest.fixture
def network() -> Iterator[TwoHosts]:
    with two_hosts() as built:
        yield built


@needs_bcoin
@pytest.mark.parametrize("version", [4, 6])
def test_bcoin_nodes_share_their_blocks_in_plaintext(network: TwoHosts, bcoin: Bcoin, version: int) -> None:
    with Capture(network.router, "b") as wire:
        mine_and_compare(network.a, network.b, bcoin, address=network.b.address(version))
    found = wire.search(IN_CLEAR)
    assert found[b"mined by bcoin"] >= 2 * BLOCKS
    assert all(found.values())
    assert network.router.invalid_count() == 0


@needs_bcoin
def test_comparison_fails_while_the_path_is_cut(network: TwoHosts, bcoin: Bcoin) -> None:
    listener = thirdparty.start_node(bcoin, network.b)
    dialler = thirdparty.start_node(bcoin, network.a, dial=network.b.v4)
    thirdparty.connect(listener, dialler)
    with network.router.cut():
        mined = dialler.mine(BLOCKS)
        with pytest.raises(LabError, match=rf"on b has Tip\(height=0, .* on a Tip\(height={BLOCKS},"):
            thirdparty.follow(listener, dialler, seconds=1)
    assert thirdparty.follow(listener, dialler) == Tip(BLOCKS, mined[-1])


@needs_bcoin
def test_bcoin_redials_a_node_that_went_away(network: TwoHosts, bcoin: Bcoin) -> None:
    listener = thirdparty.start_node(bcoin, network.b)
    dialler = thirdparty.start_node(bcoin, network.a, dial=network.b.v4)
    thirdparty.connect(listener, dialler)
    listener.stop()
    thirdparty.wait_for(lambda: not dialler.peers(), "the connection to end")
    listener = thirdparty.start_node(bcoin, network.b)
    thirdparty.connect(listener, dialler)
    mined = dialler.mine(BLOCKS)
    assert thirdparty.follow(listener, dialler) == Tip(BLOCKS, mined[-1])


@needs_bcoin
def test_node_that_does_not_start_says_why(network: TwoHosts, bcoin: Bcoin) -> None:
    before = thirdparty.start_node(bcoin, network.b)
    with pytest.raises(LabError, match="EADDRINUSE"):
        thirdparty.start_node(bcoin, network.b)
    assert before.tip().height == 0


@needs_bcoin
def test_bcoin_refuses_an_unknown_call(network: TwoHosts, bcoin: Bcoin) -> None:
    node = thirdparty.start_node(bcoin, network.b)
    with pytest.raises(LabError, match=r"bcoin on host b: nonsense: HTTP 200: .*Method not found"):
        node.rpc("nonsense")
    node.stop()
    with pytest.raises(LabError, match="bcoin on host b: getinfo: ConnectionRefusedError"):
        node.rpc("getinfo")


@needs_bcoin
def test_install_is_done_once(bcoin: Bcoin, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert thirdparty.install() == bcoin
    with pytest.raises(LabError, match=r"bcoin needs node \(apt install nodejs\)"):
        thirdparty.install(tmp_path / "cache")


@needs_bcoin
@pytest.mark.parametrize(
    ("script", "seconds", "message"),
    [
        ("echo E404 no such thing >&2; exit 1", PATIENCE, "exit 1: E404 no such thing; is the npm registry within"),
        ("exec sleep 300", 0.1, "not done after 0.1 s; is the npm registry within reach"),
        ("exit 0", PATIENCE, "npm reported success, but version None is there"),
    ],
)
def test_install_leaves_nothing_behind_when_npm_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, seconds: float, message: str
) -> None:
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(LabError, match=message):
        thirdparty.install(tmp_path / "cache", seconds=seconds)
    assert not list((tmp_path / "cache").iterdir())


@needs_iperf3
def test_iperf3_tells_the_directions_apart(network: TwoHosts) -> None:
    network.a.shape("eth0", 10e6)
    network.b.shape("eth0", 40e6)
    rates = thirdparty.iperf3_both_ways(network.a, network.b, 1)
    # what the bucket of 2 ms and the queue hold comes on top
    assert 0 < rates.a_to_b.bits_per_second < 12e6 < rates.b_to_a.bits_per_second < 48e6
    assert network.router.invalid_count() == 0


@needs_iperf3
def test_iperf3_says_that_there_is_no_path(network: TwoHosts) -> None:
    with pytest.raises(LabError, match="iperf3 on a: unable to connect"):
        thirdparty.iperf3_both_ways(network.a, network.b, 1, address="10.66.2.77")
