"""What changes while connections live: mode, configuration, listed peers."""

from __future__ import annotations

import base64
import logging
from ipaddress import ip_network
from pathlib import Path

import pytest

from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.status import Connection, Counters, State
from mcencrypt.daemon.settings import DAY
from mcencrypt.errors import OperatorError
from mcencrypt.store.config import Config
from mcencrypt.store.keys import create_network_key
from mcencrypt.store.peers import ListedPeers, add_peer, remove_peer
from mcencrypt.store.position import read_mode
from mcencrypt.store.signedpeers import create_signing_key, sign
from tests.helpers.settings import Bench
from tests.helpers.sides import A, B, identity

ONE, TWO = identity(1), identity(2)


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


def test_require_names_what_it_would_end_and_does_nothing_until_confirmed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, allow_plaintext=(ip_network("192.0.2.0/24"),))
    asked = bench.live.command_mode({"mode": "require"})
    assert [one["peer"] for one in asked["would_end"]] == ["10.0.0.2:40000"]
    assert (asked["mode"], bench.policy.mode, read_mode(tmp_path)) == ("prefer", "prefer", None)

    done = bench.live.command_mode({"mode": "require", "confirmed": True})
    assert [one["peer"] for one in done["ended"]] == ["10.0.0.2:40000"]
    assert [one["peer"] for one in done["plaintext_peers"]] == ["192.0.2.1:40000"]
    assert (done["mode"], done["mode_source"], done["configured"]) == ("require", "command", "prefer")
    assert bench.policy.mode == "require"


def test_the_mode_is_remembered_until_the_configuration_decides_again(tmp_path: Path) -> None:
    Bench(tmp_path).live.command_mode({"mode": "require", "confirmed": True})
    again = Bench(tmp_path)
    assert (again.policy.mode, again.live.mode_source) == ("require", "command")
    shown = again.live.command_mode({"from_config": True})
    assert (shown["mode"], shown["mode_source"]) == ("prefer", "configuration")
    assert Bench(tmp_path).policy.mode == "prefer"


def test_switched_off_nothing_ends_and_nothing_is_asked(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.switch.off()
    done = bench.live.command_mode({"mode": "require"})
    assert (done["mode"], done["ended"]) == ("require", [])
    assert len(bench.switch.plaintext()) == 2


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no mode 'strict'"):
        Bench(tmp_path).live.command_mode({"mode": "strict"})


def test_a_reload_applies_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    network = ip_network("10.0.0.0/8")
    done = bench.reload(
        mode="require",
        allow_plaintext=(network,),
        probes=(network,),
        log_level="error",
        queue_number=5,
        run_dir=Path("/elsewhere"),
    )
    assert logging.getLogger().level == logging.ERROR
    assert done["changed"] == ["mode", "allow_plaintext", "probes", "log_level"]
    assert done["needs_restart"] == ["run_dir", "queue_number"]
    assert (done["plaintext_ended"], done["encrypted_reset"]) == (1, 0), "192.0.2.1 is in no allowed network"
    assert bench.policy.mode == "require" and bench.policy.allow_plaintext == bench.policy.probes == (network,)
    assert bench.reload_again()["needs_restart"] == ["run_dir", "queue_number"], "still"


def test_a_reload_takes_other_ports(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    done = bench.reload(ports=(7331, 8571))
    assert (done["changed"], done["ports"], done["encrypted_reset"]) == (["ports"], [7331, 8571], 3)


def test_a_reload_leaves_a_mode_that_was_set_by_command(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.live.command_mode({"mode": "prefer"})
    done = bench.reload(mode="require")
    assert (done["mode"], done["configured"], done["plaintext_ended"]) == ("prefer", "require", 0)


def test_a_wrong_configuration_keeps_the_old_one_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path)

    def wrong() -> Config:
        raise OperatorError("config.toml: mode: 'strict' is not one of require, prefer")

    bench.next = wrong
    with pytest.raises(OperatorError, match=r"the old configuration stays: config\.toml: mode"):
        bench.reload_again()
    assert "the old one stays" in caplog.text
    assert bench.policy.mode == "prefer"


def test_ports_that_cannot_be_taken_leave_everything_as_it_was(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.switch.problem = "iptables-restore failed"
    with pytest.raises(OperatorError, match="the old configuration stays: iptables-restore failed"):
        bench.reload(ports=(1,), mode="require")
    assert (bench.policy.mode, bench.switch.ports, len(bench.switch.plaintext())) == ("prefer", (7331,), 2)
    bench.switch.problem = None
    assert bench.reload(ports=(1,), mode="require")["changed"] == ["ports", "mode"]


def test_a_reload_says_what_would_keep_the_daemon_from_starting_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "network.key"
    bench = Bench(tmp_path, network_key_file=file)
    bench.keys.add(NetworkSecret(create_network_key(file).secret).key_id)
    assert bench.reload(network_key_file=file)["warnings"] == []
    file.unlink()
    [warning] = bench.reload(network_key_file=file)["warnings"]
    assert "would not start again: network_key_file: " in warning and "network.key: not found: make one" in warning
    assert "the next start will fail" in caplog.text


def test_a_reload_says_that_another_key_in_the_file_waits_for_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "network.key"
    bench = Bench(tmp_path, network_key_file=file)
    other = NetworkSecret(create_network_key(file).secret).key_id
    [warning] = bench.reload(network_key_file=file)["warnings"]
    assert f"holds network key {other.hex()}, which this daemon does not use before its next start" in warning
    bench.keys.add(other)
    assert bench.reload(network_key_file=file)["warnings"] == []


def test_a_reload_looks_behind_a_copy_of_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under systemd, which hands over a copy that outlives the file."""
    file, copy = tmp_path / "network.key", tmp_path / "copy" / "network.key"
    monkeypatch.setattr(Config, "network_key_file", file)
    copied = {"network_key_file": copy, "key_copied": True}
    bench = Bench(tmp_path, **copied)
    bench.keys.add(NetworkSecret(create_network_key(copy).secret).key_id)
    [warning] = bench.reload(**copied)["warnings"]
    assert f"{file}: not found" in warning and "unless LoadCredential= names another" in warning
    create_network_key(file)
    [warning] = bench.reload(**copied)["warnings"]
    assert f"{file} holds network key" in warning


def test_switching_to_listed_ends_connections_of_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.switch.distrusted = 2
    with pytest.raises(OperatorError, match=r"the old configuration stays: .*not found"):
        bench.reload(trust="listed")
    assert bench.policy.listed is None
    add_peer(tmp_path / "peers.toml", "org-a", ONE)
    done = bench.reload(trust="listed")
    assert (done["changed"], done["distrusted_ended"]) == (["trust", "peers"], 2)
    assert bench.policy.listed == {ONE} and bench.live.name_of(ONE) == "org-a"
    remove_peer(tmp_path / "peers.toml", "org-a")
    with pytest.raises(OperatorError, match="lists nobody"):
        bench.reload(trust="listed")
    assert bench.policy.listed == {ONE}


def test_a_changed_list_is_taken_even_if_it_is_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "peers.toml"
    add_peer(file, "org-a", ONE)
    bench = Bench(tmp_path, trust="listed")
    add_peer(file, "org-b", TWO)
    assert bench.live.command_peers_changed({})["peers"] == 2
    assert bench.policy.listed == {ONE, TWO}
    file.write_text("[peers]\n")
    bench.switch.distrusted = 4
    assert bench.live.command_peers_changed({}) == {"trust": "listed", "peers": 0, "ended": 4}
    assert bench.policy.listed == frozenset() and "nobody is trusted" in caplog.text
    file.write_text("[peers")
    with caplog.at_level(logging.ERROR), pytest.raises(OperatorError, match=r"the old list stays: .*not valid TOML"):
        bench.live.command_peers_changed({})
    assert "old list stays" in caplog.text


def test_pins_are_applied_while_connections_live(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert not bench.policy.pin and bench.policy.pinned == {}
    assert bench.reload(pin=True)["changed"] == ["pin"] and bench.policy.pin
    add_peer(tmp_path / "peers.toml", "org-a", ONE, ["192.0.2.7"])
    bench.live.command_peers_changed({})
    assert bench.policy.pinned == {b"\xc0\0\2\7": {ONE}} and bench.policy.pin
    remove_peer(tmp_path / "peers.toml", "org-a")
    add_peer(tmp_path / "peers.toml", "org-a", ONE, ["192.0.2.8"])
    assert bench.reload_again()["changed"] == ["peers"], "the same peer at another address"
    assert bench.policy.pinned == {b"\xc0\0\2\x08": {ONE}}


def test_peers_are_those_proven_and_those_listed(tmp_path: Path) -> None:
    add_peer(tmp_path / "peers.toml", "org-b", TWO)
    add_peer(tmp_path / "peers.toml", "org-a", ONE)
    bench = Bench(tmp_path)
    local, remote = B[0] + B[1].to_bytes(2, "big"), A[0] + A[1].to_bytes(2, "big")
    shown = [
        Connection(local, remote, State.ENCRYPTED, identity(3), 60.0, counters=Counters(7, 8)),
        Connection(local, remote, State.UNCONFIRMED, b"", 60.0),
        Connection(local, remote, State.ENCRYPTED, TWO, 5.0, counters=Counters(1, 2)),
    ]
    result = bench.live.command_peers(shown, [], 1000.0)
    assert [(one["name"], one["key"], len(one["connections"])) for one in result["peers"]] == [
        (None, text(identity(3)), 1), ("org-b", text(TWO), 1), ("org-a", text(ONE), 0),
    ]  # fmt: skip
    assert result["peers"][0]["connections"] == [
        {"peer": "10.0.0.1:40000", "local": "10.0.0.2:7331", "state": "encrypted", "carrier": "syn",
         "since": 940.0, "bytes_out": 7, "bytes_in": 8}
    ]  # fmt: skip
    assert (result["trust"], result["file"]) == ("network-key", str(tmp_path / "peers.toml"))


def test_a_signed_list_is_followed_warned_of_and_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key, file, now = tmp_path / "admin.key", tmp_path / "list", 1_800_000_000.0
    public = base64.b64decode(create_signing_key(key))

    def signed(serial: int, *keys: bytes) -> None:
        peers = ListedPeers()
        peers.update({one: f"org-{one[0]}" for one in keys})
        text, _ = sign(peers, serial, int(now + 20 * DAY), key)
        file.write_bytes(text)

    signed(1, ONE)
    bench = Bench(tmp_path, trust="listed", peers_file=file, peers_signed_by=public)
    clock = [now]
    bench.live._clock = lambda: clock[0]
    bench.switch.distrusted = 1
    bench.live.look_at_list()
    assert bench.live.signed_list == {"serial": 1, "expires": int(now + 20 * DAY)}
    signed(2, TWO)
    bench.live.look_at_list()
    assert bench.policy.listed == {TWO} and "get a new one" not in caplog.text
    signed(1, ONE)
    bench.live.look_at_list()
    assert bench.policy.listed == {TWO}, "never back"
    clock[0] += 10 * DAY
    bench.live.look_at_list()
    bench.live.look_at_list()
    assert caplog.text.count("expires within 11 days: get a new one") == 1
    clock[0] += 10 * DAY
    bench.live.look_at_list()
    assert bench.policy.listed == frozenset() and "has expired, and nobody is trusted" in caplog.text
    signed(3, ONE)
    clock[0] = now
    bench.live.look_at_list()
    assert bench.policy.listed == {ONE}
    assert bench.live.command_peers_changed({})["peers"] == 1
