"""The packet path as Python on real kernels, a sample: compiled it runs in all other tests."""

import pytest

from lab import transfer, two_hosts, wait_for
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import await_again, encrypted, event_count, talking

pytestmark = needs_lab


@pytest.fixture(scope="module", params=[True, False], ids=["both", "one"])
def pair(request):
    """Two nodes, of which a runs the sources, and b runs them or what was compiled."""
    with two_hosts() as net, encrypted(net, a={"interpreted": True}, b={"interpreted": request.param}) as pair:
        assert pair.a.status()["build"] == "interpreted"
        yield pair


@pytest.mark.parametrize("version", [4, 6])
def test_streams_are_identical(pair, version):
    result = transfer(pair.a, pair.b, PORT, version=version, size=3e6, connections=3)
    assert result.differences == []
    assert pair.router.invalid_count() == 0


def test_streams_are_identical_under_loss(pair):
    pair.router.loss(0.02)
    try:
        # batches are few: until something was lost
        while not pair.router.loss_count():
            assert transfer(pair.a, pair.b, PORT, size=3e6, deadline=300).differences == []
    finally:
        pair.router.loss(0)


def test_both_applications_reconnect_after_a_restart(pair):
    with talking(pair) as (a, b):
        counts = [event_count(process, "ready") for process in (a, b)]
        pair.a.kill()
        pair.a.start()
        await_again(pair, a, counts[0])
        wait_for(lambda: event_count(b, "ready") > counts[1], "b to talk again")
