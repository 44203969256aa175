"""The look at sockets that no rule covers, as the daemon does it."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from mcencrypt.cli.status import describe, healthy
from mcencrypt.daemon.lookout import EVERY, FIRST
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.sockets import Listed, Tcp
from mcencrypt.store.autoports import read_ports
from mcencrypt.store.config import load
from tests.helpers import replies
from tests.helpers.recorded_nodes import Node
from tests.helpers.station import Station

NOWHERE = bytes(4)


def listed(port: int, inode: int, state: int = Tcp.LISTEN, remote: str = "", rport: int = 0) -> Listed:
    return Listed(NOWHERE, port, ip_address(remote).packed if remote else NOWHERE, rport, state, inode)


@pytest.fixture
def station(tmp_path: Path) -> Station:
    made = Station(tmp_path)
    made.machine.add_process(1, "sh", "sh", "/usr/local/bin/mcencrypt-entrypoint", sockets=())
    made.lookout.start()
    return made


def test_a_sidecar_on_the_wrong_port_is_seen_everywhere(station: Station, caplog: pytest.LogCaptureFixture) -> None:
    station.sockets.listed = [listed(7447, 81)]
    station.loop.run(FIRST + 2)
    [one] = station.ask("status")["uncovered"]
    assert (one["port"], one["owner"], one["sure"]) == (7447, None, False), "it may just be starting"
    station.loop.run(EVERY + 2)
    status = station.snapshots.status()
    assert status["uncovered"] == [{"doing": "listens", "port": 7447, "peer": None, "owner": None, "sure": True}]
    assert station.snapshots.metrics()["uncovered"] == 1
    assert "not covered" in caplog.text and "add 7447 to ports" in caplog.records[-1].__dict__["fields"]["advice"]
    seen = replies.status(uncovered=status["uncovered"])
    with pytest.raises(OperatorError, match=r"listens on port 7447, which is not covered, so in plaintext: add the"):
        healthy(seen)
    assert healthy({**seen, "uncovered": [{**status["uncovered"][0], "sure": False}]})
    assert "NOT COVERED  MultiChain on other ports than 7331: plaintext" in describe(status)
    caplog.clear()
    station.loop.run(EVERY + 2)
    assert caplog.text == "", "it is said once"


def test_what_is_covered_by_now_is_not_shown_any_more(station: Station) -> None:
    station.sockets.listed = [listed(7447, 81)]
    station.loop.run(2 * EVERY + 5)
    station.kernel.do(station.switch.take_ports((7331, 7447)))
    assert station.ask("status")["uncovered"] == []


def test_off_is_as_good_as_on(station: Station) -> None:
    station.sockets.listed = [listed(7447, 81)]
    station.loop.run(2 * EVERY + 5)
    status = station.snapshots.status()
    assert status["uncovered"][0]["sure"]
    assert healthy({**status, "enabled": False, "draining": False}).startswith("mcencrypt is off")


def test_a_node_that_can_be_seen_is_named_at_once(station: Station) -> None:
    station.machine.files |= Node("-port=9555").machine.files
    station.machine.targets |= Node("-port=9555").machine.targets
    station.sockets.listed = [listed(9555, 1), listed(7330, 3)]
    station.loop.run(FIRST + 2)
    [one] = station.snapshots.status()["uncovered"]
    assert (one["owner"], one["port"], one["sure"]) == ("multichaind chain1 (pid 500)", 9555, True)


def test_the_kernel_that_does_not_answer_is_asked_again(station: Station, caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> list[Listed]:
        raise PermissionError(1, "Operation not permitted")

    station.sockets.__dict__["open"] = refuse
    station.loop.run(FIRST + 1)
    assert "sockets cannot be looked at" in caplog.text
    del station.sockets.__dict__["open"]
    station.sockets.listed = [listed(7447, 81)]
    station.loop.run(2 * EVERY + 5)
    assert station.snapshots.status()["uncovered"][0]["sure"]


def test_ports_auto_follows_the_nodes_that_are_seen(tmp_path: Path) -> None:
    (tmp_path / "ports.json").write_text('{"chain1": [7331]}')
    station = Station(tmp_path, ports="auto")
    station.kernel.do(station.switch.on())
    station.lookout.start()
    assert station.switch.ports == (7331,)
    station.sockets.add(b"\x0a\0\0\1", 40000, b"\x0a\0\0\2", 9555)
    station.machine.files |= Node("-port=9555").machine.files
    station.machine.targets |= Node("-port=9555").machine.targets
    station.loop.run(FIRST + 2)
    assert (station.switch.ports, station.kernel.installed) == ((9555,), (9555,))
    assert station.sockets.table == [], "a plaintext connection on the new port ends"
    assert read_ports(tmp_path) == {"chain1": (9555,)}
    station.machine.files = {name: text for name, text in station.machine.files.items() if "/500/" not in name}
    station.loop.run(3 * EVERY)
    assert station.switch.ports == (9555,), "it is down, and must not come up in plaintext"


def test_auto_without_any_node_says_what_to_do(tmp_path: Path) -> None:
    config = load(None, {"MCENCRYPT_PORTS": "auto", "MCENCRYPT_STATE_DIR": str(tmp_path)})
    assert config.ports == "auto"
    with pytest.raises(OperatorError, match=r'ports = "auto": no multichaind .*: start the node first, or set ports'):
        config.p2p_ports()
    (tmp_path / "ports.json").write_text("[1]")
    with pytest.raises(OperatorError, match=r"ports\.json: not as mcencrypt wrote it: remove it"):
        config.p2p_ports()
    (tmp_path / "ports.json").write_text(json.dumps({"a": [7331, 9000], "b": [9000]}))
    assert config.p2p_ports() == (7331, 9000)
