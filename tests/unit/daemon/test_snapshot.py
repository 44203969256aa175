"""Numbers about the process, and what metrics count."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path
from typing import Any

from mcencrypt.daemon.snapshot import process
from mcencrypt.nodes.sight import Uncovered
from mcencrypt.store.peers import ListedPeers
from mcencrypt.store.signedpeers import create_signing_key, sign
from tests.helpers.sides import identity
from tests.helpers.station import Station


def test_process_numbers_are_this_process() -> None:
    with open(os.devnull):
        more = process()
    less = process()
    assert more["open_fds"] == less["open_fds"] + 1 < less["max_fds"]
    assert 1 << 20 < less["resident"] <= less["virtual"] and less["cpu"] > 0


def test_metrics_count_uncovered_sockets_that_are_multichains_beyond_doubt(tmp_path: Path) -> None:
    station = Station(tmp_path)
    sure = Uncovered("listens", 9000, "", "multichaind chain1 (pid 7)", True)
    station.lookout._found = [sure, sure._replace(port=9001, sure=False)]
    assert station.snapshots.metrics()["uncovered"] == 1
    assert [one["port"] for one in station.snapshots.status()["uncovered"]] == [9000, 9001]


def test_metrics_know_when_the_signed_list_of_peers_expires(tmp_path: Path) -> None:
    assert Station(tmp_path).snapshots.metrics()["peers_list_expires"] == 0
    key, file, expires = tmp_path / "admin.key", tmp_path / "org.peers", int(time.time()) + 1000
    public, listed = base64.b64decode(create_signing_key(key)), ListedPeers()
    listed[identity(1)] = "org-a"
    file.write_bytes(sign(listed, 1, expires, key)[0])
    settings: dict[str, Any] = {"trust": "listed", "peers_file": file, "peers_signed_by": public}
    station = Station(tmp_path, **settings)
    station.live.look_at_list()
    assert station.snapshots.metrics()["peers_list_expires"] == expires
