"""Numbers about the process."""

from __future__ import annotations

import os

from mcencrypt.daemon.snapshot import process


def test_process_numbers_are_this_process() -> None:
    with open(os.devnull):
        more = process()
    less = process()
    assert more["open_fds"] == less["open_fds"] + 1 < less["max_fds"]
    assert 1 << 20 < less["resident"] <= less["virtual"] and less["cpu"] > 0
