"""The same on every way that carries a TCP stream: all arrives, nothing is readable, whatever ends is noticed."""

from __future__ import annotations

import contextlib

import pytest

from lab import PATIENCE, Capture, Host, start, transfer, wait_for
from lab.apps import receive
from lab.streams import content
from tests.helpers.nodes import PACING, PORT, needs_lab, sized
from tests.helpers.ways import WAYS, Way, missing
from tests.helpers.wire import assert_encrypted

pytestmark = needs_lab

#: Of what both ends send, and so the first that a wire would show.
MARKERS = [bytes(next(content(1, side, 0, 4096))[16:64]) for side in ("client", "server")]
SIZE = sized(1e6, 1e8)
#: Seconds that the exchange may take.
DEADLINE = sized(PATIENCE, 1200)
#: Of the packets, on each leg and in each direction.
LOSS = 0.01
#: Timeouts of retransmission, each twice as long as the one before, that a kernel has in 15 s from 200 ms on.
TIMEOUTS = 6


@pytest.mark.parametrize("kind", WAYS)
def test_all_arrives_and_what_ends_is_noticed(kind: str) -> None:
    """100 MB each way with MCENCRYPT_FULL=1; then either daemon, and what is in between, ends and begins anew."""
    if lacking := missing(kind):
        pytest.skip(f"not installed: {', '.join(lacking)}")
    with WAYS[kind](kind) as way:
        way.lose(LOSS)
        with contextlib.ExitStack() as captures:
            wires = [captures.enter_context(Capture(*leg)) for leg in way.legs]
            # the server closes first: nginx, pasta and what is before them pass no half-closed connections
            result = transfer(way.a, way.b, PORT, address=way.entrance, size=SIZE, mode="closing", deadline=DEADLINE)
            assert result.differences == []
            assert (result.client["received"], result.server["received"]) == (SIZE, SIZE)
        for wire in wires:
            assert_encrypted(wire, PORT, MARKERS)
        print(f"{kind}: {SIZE} B each way in {result.client['seconds']:.1f} s")
        for ending in ("a", "b", "way"):
            disturbed(way, ending)


def disturbed(way: Way, ending: str) -> None:
    """What is in use when one of three ends: both ends hear of it, or it goes on; and then all is as before."""
    before = way.b.status()["totals"]["bytes_in"]
    running = start(way.a, way.b, PORT, address=way.entrance, endless=True, pacing=PACING, deadline=PATIENCE)
    wait_for(lambda: way.b.status()["totals"]["bytes_in"] > before + 2e5, "a transfer under way")
    (carrier,) = {one["carrier"] for one in way.a.connections("encrypted")}
    assert carrier == way.carrier
    timeouts = timeouts_of(way.a), timeouts_of(way.b)
    if ending == "way":
        way.end()
        if way.ends and way.heard != "then":
            wait_for(lambda: running.client.exit_code is not None, "the dialling end to notice")
        if way.ends and way.heard == "at once":
            wait_for(lambda: running.server.exit_code is not None, "the other end to notice")
        way.begin()
        if way.heard == "never":
            running.server.kill()
    else:
        (way.a if ending == "a" else way.b).restart()
    if ending == "way" and not way.ends:
        had = way.b.status()["totals"]["bytes_in"]
        wait_for(lambda: way.b.status()["totals"]["bytes_in"] > had + 2e5, "the transfer to go on")
        running.end()
        assert running.result().differences == []
    else:
        noticed = [(way.a, running.client, timeouts[0]), (way.b, running.server, timeouts[1])]
        for node, end, earlier in noticed[: 1 if way.heard == "never" and ending == "way" else 2]:
            end.wait(2 * PATIENCE)
            errors = end.events()[-1]["errors"]
            assert errors, "neither end may take that for the other's"
            assert not any("in time" in error for error in errors), f"not noticed: {errors}"
            assert timeouts_of(node) - earlier <= TIMEOUTS, "it took too long"
    dial_again(way)


def timeouts_of(host: Host) -> int:
    """How often a kernel has sent something again because nothing was heard of it."""
    return host.tcp_counts()["TCPTimeouts"]


def dial_again(way: Way) -> None:
    """A program that redials until it is connected has all that it sends echoed."""
    data = bytes(range(256)) * 40

    def echoed() -> bool:
        with way.a.socket() as a:
            a.settimeout(PATIENCE)
            try:
                a.connect((way.entrance, PORT))
                a.sendall(data)
                return receive(a, len(data)) == data
            except OSError:
                return False

    echo = way.b.python("lab.apps", "echo", PORT)
    echo.wait_for('"listening"')
    wait_for(echoed, "what was sent to come back")
    echo.stop()
