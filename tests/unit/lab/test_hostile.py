"""The scenarios of a hostile network, and what judges them: a judge that sees nothing makes all of it worthless."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from lab.hostile import SCENARIOS, Verdict, frames
from lab.hostile.judge import judged
from lab.packets import ACK, SYN, TcpFrame, parse
from lab.streams import Comparison, content

SOURCE, DESTINATION = b"\x0a\0\0\1", b"\x0a\0\0\2"
IP = b"\x45\0\0\0\0\0\x40\0\x40\6\0\0" + SOURCE + DESTINATION
ETHERNET = bytes(12) + b"\x08\0"
OPTIONS = b"\x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\1\0\0\0\2\x01\x03\x03\x07"


def segment(**fields: Any) -> TcpFrame:
    whole = TcpFrame(ETHERNET, IP, SOURCE, DESTINATION, (4000, 7331), 100, 200, ACK, 500, 0, b"", b"data")
    return replace(whole, **fields)


def passed(behaviour: Any, one: TcpFrame, toward: str = "b") -> list[TcpFrame | None]:
    return [parse(frame) for _, frame in behaviour(one.packed(), toward, 0.0)]


# -- the judge


@pytest.mark.parametrize("cuts", [[1] * 40, [7, 9, 500], [70_000]])
@pytest.mark.parametrize("index", [0, 3])
def test_every_wrong_byte_is_counted(cuts: list[int], index: int) -> None:
    true = b"".join(content(1, "client", index, 60_000))
    false = bytearray(true)
    for place in (8, 9, 30_000, 59_999):
        false[place] ^= 0x40
    for stream, wrong in ((true, 0), (bytes(false), 4)):
        comparison, at = Comparison(1, "client", 0), 0
        for size in [*cuts, len(stream)]:
            comparison.take(stream[at : at + size])
            at += size
        assert comparison.wrong == wrong


def report(**fields: Any) -> dict[str, Any]:
    return {"error": None, "received": 10, "expected": 10, "tampered": 0, "seconds": 2.0} | fields


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({}, Verdict.IDENTICAL),
        ({"error": "ConnectionResetError", "received": 3}, Verdict.ENDED),
        ({"error": "not done in time"}, Verdict.STALLED),
        ({"received": 9}, Verdict.CUT),
        ({"error": "ConnectionResetError", "tampered": 1}, Verdict.TAMPERED),
    ],
)
def test_the_worst_connection_counts(fields: dict[str, Any], verdict: Verdict) -> None:
    found = judged([report(), report(**fields), report()], 3)
    assert found.verdict is verdict and found.invalid == 3
    assert found.goodput == (20 + fields.get("received", 10)) / 2


# -- what happens to frames


def test_options_are_found_and_blanked() -> None:
    syn = segment(flags=SYN, options=OPTIONS, payload=b"")
    assert [kind for kind, _, _ in frames.options_of(syn)] == [2, 4, 8, 3]
    [blank] = passed(frames.blanked(8, 3), syn)
    assert blank is not None and [kind for kind, _, _ in frames.options_of(blank)] == [2, 4]
    [clamped] = passed(frames.clamped(1200), syn)
    assert clamped is not None and clamped.options[:4] == b"\x02\x04\x04\xb0"
    [untouched] = passed(frames.clamped(1200), segment())
    assert untouched == parse(segment().packed())


def test_what_an_earlier_connection_sends_is_not_renumbered() -> None:
    """It would be out of every window, and counted as what the next connection did."""
    behaviour = frames.Renumbered(random.Random(1))
    [late] = passed(behaviour, segment())
    assert late == parse(segment().packed())


def test_renumbered_both_ways() -> None:
    behaviour = frames.Renumbered(random.Random(1))
    [there] = passed(behaviour, segment(flags=SYN, payload=b""))
    assert there is not None and there.sequence != 100
    back = segment(
        source=DESTINATION, destination=SOURCE, ports=(7331, 4000), ip=IP[:12] + DESTINATION + SOURCE, sequence=900,
        acknowledgement=there.sequence + 1, options=b"\1\1\5\x0a" + (there.sequence + 5).to_bytes(4, "big") * 2,
    )  # fmt: skip
    [seen] = passed(behaviour, back, "a")
    assert seen is not None and seen.acknowledgement == 101 and seen.options[4:8] == (105).to_bytes(4, "big")


def test_losses() -> None:
    first = frames.First(frames.syn)
    assert [len(passed(first, segment(flags=SYN))) for _ in range(3)] == [0, 1, 1]
    outage = frames.Outage(2, 5.0)
    assert [len(outage(segment().packed(), "b", now)) for now in (0.0, 1.0, 2.0, 5.9, 6.0, 7.0)] == [1, 0, 0, 0, 1, 1]
    bursts = frames.Bursts(0.05, 5, dice=random.Random(2))
    lost = [not passed(bursts, segment()) for _ in range(2000)]
    assert 200 < sum(lost) < 900
    swap = frames.Swap(2)
    order = [frame.sequence for number in range(5) for frame in passed(swap, segment(sequence=number)) if frame]
    assert order == [0, 2, 1, 3]
    assert [parse(frame) for _, frame in swap.tick(0.0)] == [parse(segment(sequence=4).packed())]


def test_a_forged_copy_runs_ahead() -> None:
    forged, true = passed(frames.Ahead(1.0, dice=random.Random(1)), segment())
    assert forged is not None and true is not None
    assert forged.sequence == true.sequence and forged.payload != true.payload == b"data"


def test_the_table() -> None:
    assert len(SCENARIOS) >= 40 and len({one.name for one in SCENARIOS}) == len(SCENARIOS)
    for one in SCENARIOS:
        behaviour = one.behaviour and one.behaviour(random.Random(1))
        if behaviour is not None:
            assert isinstance(behaviour(segment().packed(), "b", 0.0), list), one.name
