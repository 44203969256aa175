"""Which changes of keys are refused: by what peers answer, what they offered, and whether they can be asked at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.control.server import Later
from mcencrypt.core.handshake import Carrier, NetworkSecret
from mcencrypt.core.probe import ProbeResult
from mcencrypt.core.status import Connection, State
from mcencrypt.daemon.rotation import Rotation
from mcencrypt.daemon.survey import AT_ONCE, Answers, Busy, Question, Survey
from mcencrypt.errors import OperatorError
from mcencrypt.store.keyring import StoredKeyring
from mcencrypt.store.keys import NetworkKey
from tests.helpers.sides import new_engine
from tests.helpers.standins import FakeLoop

OLD, NEW = NetworkKey(b"o" * 32), NetworkKey(b"n" * 32)
OLD_ID, NEW_ID = (NetworkSecret(key.secret).key_id for key in (OLD, NEW))
ALICE, BOB = b"A" * 32, b"B" * 32
ALICE_AT, BOB_AT = bytes((10, 0, 0, 2)), bytes((10, 0, 0, 3))


class Network:
    """Answers probes as the peers would: `peers` has (public key, accepted key ids, offered one) by address.

    Those in `relayed` answer in the stream only.
    """

    def __init__(self, loop: FakeLoop) -> None:
        self.loop = loop
        self.peers: dict[str, tuple[bytes, set[bytes], bytes]] = {}
        self.port = 7331
        self.relayed: set[str] = set()
        self.asked: list[tuple[str, int, bytes]] = []
        self.carriers: list[tuple[str, Carrier]] = []

    def begin(
        self,
        address: str,
        port: int,
        secret: NetworkSecret,
        timeout: float,
        done: Callable[[ProbeResult], None],
        carrier: Carrier,
    ) -> None:
        self.asked.append((address, port, secret.key_id))
        self.carriers.append((address, carrier))
        peer = self.peers.get(address)
        if peer is None or port != self.port or secret.key_id not in peer[1]:
            result = ProbeResult("silent", "", secret.key_id)
        elif address in self.relayed and carrier is Carrier.SYN:
            result = ProbeResult("no-mcencrypt", "", secret.key_id)
        else:
            result = ProbeResult("encrypted", "", secret.key_id, peer[0], peer[2] == secret.key_id, 0.001)
        self.loop.call_at(self.loop.now(), lambda: done(result))


class Station:
    """A node's keys, with connections that a test makes up."""

    def __init__(self, state_dir: Path) -> None:
        self.state_dir = state_dir
        self.stored = StoredKeyring(state_dir, OLD)
        self.engine = new_engine(1, self.stored.ring)
        self.shown: list[Connection] = []
        self.engine.connections = lambda now: iter(self.shown)  # type: ignore[method-assign]
        self.loop = FakeLoop()
        self.network = Network(self.loop)
        names = {BOB: "bob"}.get
        self.rotation = Rotation(self.engine, self.stored, self.network, self.loop, lambda: (7331, 8571), names)

    def connected(
        self, identity: bytes, address: bytes, *, dialled: bool = False, state: State = State.ENCRYPTED
    ) -> None:
        ends = (40000, 7331) if dialled else (7331, 40000)
        local, remote = bytes((10, 0, 0, 1)) + ends[0].to_bytes(2), address + ends[1].to_bytes(2)
        self.shown.append(Connection(local, remote, state, identity, 1.0, key_id=OLD_ID, outgoing=dialled))

    def offered_by(self, identity: bytes, address: bytes, key_id: bytes = OLD_ID) -> None:
        self.engine.admission.offers.note(identity, key_id, self.loop.now(), address)

    def trusts(self, *identities: bytes) -> None:
        self.engine.take_policy(replace(self.engine.policy, listed=frozenset(identities)), 0.0)

    def peer(self, identity: bytes, address: str, *accepts: bytes, offers: bytes = OLD_ID) -> None:
        self.network.peers[address] = (identity, set(accepts), offers)

    def order(self, what: str, key_id: bytes, **more: Any) -> dict[str, Any]:
        """Raises OperatorError."""
        result = getattr(self.rotation, what)({"id": key_id.hex(), **more})
        if isinstance(result, Later):
            self.loop.run()
            assert result.reply is not None, "an answer came"
            if not result.reply["ok"]:
                raise OperatorError(result.reply["error"])
            result = result.reply["result"]
        assert isinstance(result, dict)
        return result


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path)
    station.rotation.add({"key": NEW.text()})
    yield station
    # whatever was done is what a restart finds
    again = StoredKeyring(tmp_path, OLD)
    assert {one.key_id for one in again.ring} == {one.key_id for one in station.stored.ring}
    assert again.ring.offered.key_id == station.stored.ring.offered.key_id


def test_a_key_that_every_peer_answers_is_used(node: Station) -> None:
    node.connected(ALICE, ALICE_AT, dialled=True)
    node.connected(BOB, BOB_AT)
    node.peer(ALICE, "10.0.0.2", OLD_ID, NEW_ID)
    node.peer(BOB, "10.0.0.3", OLD_ID, NEW_ID)
    assert node.order("use", NEW_ID) == {
        "id": NEW_ID.hex(), "before": OLD_ID.hex(), "asked": 2, "unreachable": []
    }  # fmt: skip
    assert node.engine.ring.offered.key_id == NEW_ID
    assert [one for one in node.network.asked if one[0] == "10.0.0.2"] == [("10.0.0.2", 7331, NEW_ID)], (
        "where we dialled it, and nowhere else"
    )


@pytest.mark.parametrize("dialled", [True, False])
def test_a_peer_without_the_key_holds_it_up_and_is_named(node: Station, dialled: bool) -> None:
    node.connected(ALICE, ALICE_AT)
    node.connected(BOB, BOB_AT, dialled=dialled)
    node.peer(ALICE, "10.0.0.2", OLD_ID, NEW_ID)
    node.peer(BOB, "10.0.0.3", OLD_ID)
    with pytest.raises(OperatorError, match="1 of 2 peers would be cut off") as caught:
        node.order("use", NEW_ID)
    assert "10.0.0.3" in str(caught.value) and "10.0.0.2" not in str(caught.value)
    assert node.engine.ring.offered.key_id == OLD_ID
    assert node.order("use", NEW_ID, force=True)["asked"] == 0
    assert node.engine.ring.offered.key_id == NEW_ID


def test_a_peer_that_we_dialled_and_that_is_silent_now_holds_it_up(node: Station) -> None:
    node.connected(ALICE, ALICE_AT, dialled=True)
    with pytest.raises(OperatorError, match="1 of 1 peer would"):
        node.order("use", NEW_ID)


def test_a_peer_that_cannot_be_dialled_is_not_harmed_by_what_we_offer(node: Station) -> None:
    node.connected(ALICE, ALICE_AT)
    result = node.order("use", NEW_ID)
    assert result["asked"] == 0 and len(result["unreachable"]) == 1 and "10.0.0.2" in result["unreachable"][0]


def test_another_peer_behind_the_same_address_does_not_answer_for_it(node: Station) -> None:
    node.connected(ALICE, ALICE_AT, dialled=True)
    node.peer(BOB, "10.0.0.2", OLD_ID, NEW_ID)
    with pytest.raises(OperatorError, match="cut off"):
        node.order("use", NEW_ID)


def test_who_is_not_proven_is_not_asked(node: Station) -> None:
    node.connected(b"", ALICE_AT, state=State.UNCONFIRMED)
    assert node.order("use", NEW_ID)["asked"] == 0 and not node.network.asked


def test_a_key_is_retired_once_no_peer_offers_it(node: Station) -> None:
    node.order("use", NEW_ID, force=True)
    node.connected(ALICE, ALICE_AT, dialled=True)
    node.connected(BOB, BOB_AT)
    node.offered_by(BOB, BOB_AT)  # long ago: it has changed since, on the same connection
    node.peer(ALICE, "10.0.0.2", OLD_ID, NEW_ID, offers=NEW_ID)
    node.peer(BOB, "10.0.0.3", OLD_ID, NEW_ID, offers=OLD_ID)
    with pytest.raises(OperatorError, match="1 of 2 peers") as caught:
        node.order("retire", OLD_ID)
    assert "10.0.0.3" in str(caught.value) and f"key use {NEW_ID.hex()}" in str(caught.value)
    node.peer(BOB, "10.0.0.3", OLD_ID, NEW_ID, offers=NEW_ID)
    result = node.order("retire", OLD_ID)
    assert result == {
        "id": OLD_ID.hex(), "asked": 2, "base": True, "offered": NEW_ID.hex(), "connections": 2
    }  # fmt: skip
    assert OLD_ID not in node.engine.ring


def test_a_peer_that_took_the_key_off_already_does_not_offer_it(node: Station) -> None:
    node.order("use", NEW_ID, force=True)
    node.connected(ALICE, ALICE_AT)
    node.offered_by(ALICE, ALICE_AT)
    third = b"t" * 8  # what it offers instead, to others
    node.peer(ALICE, "10.0.0.2", NEW_ID, third, offers=third)
    assert node.order("retire", OLD_ID)["asked"] == 1


@pytest.mark.parametrize("connected", [True, False])
def test_a_peer_that_cannot_be_asked_counts_by_what_it_offered(node: Station, connected: bool) -> None:
    node.order("use", NEW_ID, force=True)
    if connected:
        node.connected(ALICE, ALICE_AT)
    node.offered_by(ALICE, ALICE_AT)
    with pytest.raises(OperatorError, match=r"10\.0\.0\.2"):
        node.order("retire", OLD_ID)
    node.offered_by(ALICE, ALICE_AT, NEW_ID)
    assert node.order("retire", OLD_ID)["asked"] == 0


def test_a_peer_that_is_trusted_no_more_holds_nothing_up(node: Station) -> None:
    node.order("use", NEW_ID, force=True)
    node.offered_by(ALICE, ALICE_AT)
    node.offered_by(BOB, BOB_AT)
    node.trusts(BOB)
    with pytest.raises(OperatorError, match=r"1 of 1 peer .* bob at 10\.0\.0\.3"):
        node.order("retire", OLD_ID)
    node.trusts()
    node.order("retire", OLD_ID)


def test_force_asks_nobody_but_the_offered_key_stays(node: Station) -> None:
    node.connected(ALICE, ALICE_AT)
    node.offered_by(ALICE, ALICE_AT)
    with pytest.raises(OperatorError, match="another first"):
        node.order("retire", OLD_ID, force=True)
    node.order("use", NEW_ID, force=True)
    node.order("retire", OLD_ID, force=True)
    assert not node.network.asked


@pytest.mark.parametrize("what", ["use", "retire"])
@pytest.mark.parametrize("key_id", [b"x" * 8, b""])
def test_a_key_that_is_not_there_is_said(node: Station, what: str, key_id: bytes) -> None:
    with pytest.raises(OperatorError, match="there is no key"):
        node.order(what, key_id)


def test_one_change_at_a_time(node: Station) -> None:
    node.connected(ALICE, ALICE_AT)
    node.rotation.use({"id": NEW_ID.hex()})
    with pytest.raises(OperatorError, match="under way"):
        node.rotation.use({"id": NEW_ID.hex()})
    node.loop.run()
    assert node.engine.ring.offered.key_id == NEW_ID


def test_a_change_that_asks_nobody_waits_for_none(node: Station) -> None:
    node.connected(ALICE, ALICE_AT, dialled=True)
    later = node.rotation.use({"id": NEW_ID.hex()})
    assert node.rotation.use({"id": NEW_ID.hex(), "force": True})["asked"] == 0
    node.loop.run()
    assert isinstance(later, Later) and later.reply is not None and not later.reply["ok"], "Alice did not answer"


def test_an_error_of_ours_ends_a_change_and_the_next_one_can_begin(
    node: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.connected(ALICE, ALICE_AT)
    with monkeypatch.context() as patched:
        patched.setattr(node.stored, "offer", lambda secret: 1 // 0)
        later = node.rotation.use({"id": NEW_ID.hex()})
        with pytest.raises(ZeroDivisionError):  # for the loop, which writes it to the log
            node.loop.run()
    assert isinstance(later, Later) and later.reply is not None and "its log says why" in str(later.reply)
    node.order("use", NEW_ID)


def test_what_the_disk_refuses_is_not_done(node: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(secret: NetworkSecret) -> None:
        raise OperatorError("the disk is full")

    node.connected(ALICE, ALICE_AT)
    with monkeypatch.context() as patched:
        patched.setattr(node.stored, "offer", full)
        with pytest.raises(OperatorError, match="disk is full"):
            node.order("use", NEW_ID)
    assert node.engine.ring.offered.key_id == OLD_ID
    node.order("use", NEW_ID)


def test_adding_refuses_what_is_no_key_without_showing_it(node: Station) -> None:
    assert node.rotation.add({"key": NEW.text()}) == {"id": NEW_ID.hex(), "new": False}
    with pytest.raises(OperatorError, match="not a key") as caught:
        node.rotation.add({"key": "c2VjcmV0"})
    assert "c2VjcmV0" not in str(caught.value)


def test_status_counts_connections_and_peers_by_key(node: Station) -> None:
    node.connected(ALICE, ALICE_AT)
    node.offered_by(ALICE, ALICE_AT, NEW_ID)
    node.engine.admission.making.last_used[OLD_ID] = 90.0
    old, new = node.rotation.describe(100.0)["keys"]
    assert old == {
        "id": OLD_ID.hex(), "accepted": True, "offered": True, "base": True, "connections": 1, "peers": 0,
        "last_used": 10.0,
    }  # fmt: skip
    assert (new["id"], new["base"], new["connections"], new["last_used"]) == (NEW_ID.hex(), False, 0, None)
    node.order("use", NEW_ID, force=True)
    node.order("retire", OLD_ID, force=True)
    shown = node.rotation.describe(100.0)
    assert [(one["accepted"], one["connections"]) for one in shown["keys"]] == [(True, 0), (False, 1)]
    assert shown["base_key_retired"]


def test_a_survey_asks_so_many_at_once_and_waits_where_there_is_no_room() -> None:
    loop = FakeLoop()
    network, room, most, under_way = Network(loop), [3], [0], [0]
    begin = network.begin

    def scarce(
        address: str,
        port: int,
        secret: NetworkSecret,
        timeout: float,
        done: Callable[[ProbeResult], None],
        carrier: Carrier,
    ) -> None:
        if not room[0]:
            room[0] = 1000
            raise Busy("no room")
        room[0] -= 1
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])

        def ended(result: ProbeResult) -> None:
            under_way[0] -= 1
            done(result)

        begin(address, port, secret, timeout, ended, carrier)

    network.begin = scarce  # type: ignore[method-assign]
    peers = {number.to_bytes(32): [(f"10.0.1.{number}", 7331), (f"10.0.1.{number}", 8571)] for number in range(100)}
    for number in range(0, 100, 2):
        network.peers[f"10.0.1.{number}"] = (number.to_bytes(32), {OLD_ID}, OLD_ID)
    found: list[Answers] = []
    Survey(network, loop, Question(NetworkSecret(OLD.secret), peers), found.append)
    loop.run(1.0)
    assert [sorted(one) for one in found] == [[number.to_bytes(32) for number in range(0, 100, 2)]]
    assert most[0] == AT_ONCE


def test_a_survey_asks_again_in_the_stream_whom_a_relay_may_be_in_front_of() -> None:
    loop = FakeLoop()
    network, found = Network(loop), []  # type: ignore[var-annotated]
    network.peers["10.0.1.1"], network.relayed = (ALICE, {OLD_ID}, OLD_ID), {"10.0.1.1"}
    peers = {ALICE: [("10.0.1.1", 7331)], BOB: [("10.0.1.2", 7331)]}
    Survey(network, loop, Question(NetworkSecret(OLD.secret), peers), found.append)
    loop.run(1.0)
    assert [set(one) for one in found] == [{ALICE}]
    assert sorted(network.carriers, key=str) == [
        ("10.0.1.1", Carrier.STREAM), ("10.0.1.1", Carrier.SYN), ("10.0.1.2", Carrier.SYN),
    ]  # fmt: skip
