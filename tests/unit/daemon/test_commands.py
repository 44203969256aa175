"""Every command is answered by what `control.replies` says, no more and no less; and so is who asks by JSON."""

from __future__ import annotations

import json
import runpy
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from mcencrypt.control import client, replies
from mcencrypt.core.addresses import Ends
from mcencrypt.core.status import Connection, Counters, State
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.sockets import Tcp
from mcencrypt.store.keys import NetworkKey
from mcencrypt.store.values import Trust
from tests.helpers.station import Station

ROOT = Path(__file__).parents[3]
NEW = NetworkKey(b"n" * 32)
#: On lo, and not the address that this host would ask it from.
NEIGHBOUR = "127.0.0.2"
LOCAL, PEER = bytes((10, 0, 0, 1)), bytes((10, 0, 0, 2))
IDENTITY = b"A" * 32


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    """One with a connection in each state."""
    made = Station(tmp_path, mode="prefer")
    shown = []
    for port, state in enumerate(State, 40000):
        local, remote = LOCAL + (7331).to_bytes(2), PEER + port.to_bytes(2)
        known = state in (State.ENCRYPTED, State.CLOSING)
        key_id = b"12345678" if state.has_keys else b""
        made.sockets.add(LOCAL, 7331, PEER, port, Tcp.ESTABLISHED)
        shown.append(Connection(local, remote, state, IDENTITY if known else b"", 2.5, Counters(1, 2, 3, 4), key_id))
    made.engine.connections = lambda now: iter(shown)  # type: ignore[method-assign]
    made.engine.outcome.drop("replayed")
    made.engine.admission.identities.answers.note(bytes((192, 0, 2, 7, 0, 1)), IDENTITY, 0)
    made.kernel.do(made.switch.on())
    yield made


@pytest.fixture(scope="module")
def schema() -> Callable[..., dict[str, Any]]:
    made = runpy.run_path(str(ROOT / "tools/schema"))["schema"]
    assert callable(made)
    return made


def check(schema: Callable[..., dict[str, Any]], kind: type, reply: dict[str, Any]) -> None:
    """As a reader of JSON sees it: each field that is there is documented, and of that type."""
    Draft202012Validator(schema(kind, closed=True)).validate(json.loads(json.dumps(reply)))


#: Calls of every command, by which its answers are known.
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("ping", {}), ("status", {}), ("on", {}), ("off", {}), ("off", {"now": True}), ("mode", {}),
    ("mode", {"mode": "require"}), ("mode", {"mode": "require", "confirmed": True}), ("mode", {"from_config": True}),
    ("reload", {}), ("peers", {}), ("peers-changed", {}),
    ("peers-forget", {"address": "192.0.2.7"}),
    ("probe", {"address": NEIGHBOUR, "port": 7331, "seconds": 1}), ("key-add", {"key": NEW.text()}),
]  # fmt: skip


@pytest.mark.parametrize(("command", "arguments"), CALLS, ids=str)
def test_a_command_is_answered_as_documented(
    station: Station, schema: Callable[..., dict[str, Any]], command: str, arguments: dict[str, Any]
) -> None:
    check(schema, replies.REPLIES[command], station.ask(command, **arguments))


def test_changes_of_keys_are_answered_as_documented(station: Station, schema: Callable[..., dict[str, Any]]) -> None:
    added = station.ask("key-add", key=NEW.text())["id"]
    old = station.ask("status")["key_id"]
    for command, key_id in (("key-use", added), ("key-retire", old)):
        reply = station.ask(command, id=key_id, force=True)
        check(schema, replies.REPLIES[command], reply)
    check(schema, replies.Status, station.ask("status"))


def test_a_change_that_asks_is_answered_as_documented(tmp_path: Path, schema: Callable[..., dict[str, Any]]) -> None:
    station = Station(tmp_path)
    added = station.ask("key-add", key=NEW.text())["id"]
    station.engine.admission.offers.note(IDENTITY, b"12345678", station.loop.now(), bytes((127, 0, 0, 2)))
    check(schema, replies.KeyUsed, station.ask("key-use", id=added))


def test_the_commands_are_those_that_have_an_answer_and_that_a_client_knows(station: Station) -> None:
    known = {
        typing.get_args(hints["command"])[0]: hints["return"]
        for one in typing.get_overloads(client.request)
        for hints in [typing.get_type_hints(one, {**vars(typing), "replies": replies, **vars(client)})]
    }
    assert known == dict(replies.REPLIES)
    assert {command for command, _ in CALLS} | {"key-use", "key-retire"} == set(known)
    with pytest.raises(OperatorError, match="does not know the command 'dance'"):
        station.commands("dance", {})


def test_a_status_says_everything_that_is_known(station: Station) -> None:
    status = station.ask("status")
    shown = {one["state"]: one for one in status["connections"]}
    assert list(shown) == [state.value for state in State]
    assert shown["encrypted"]["identity"] and not shown["unconfirmed"]["identity"]
    assert shown["handshake"]["key_id"] is None and shown["encrypted"]["key_id"] == b"12345678".hex()
    assert status["totals"] == {
        "connections": 3, "bytes_out": 3, "bytes_in": 6, "records_out": 9, "records_in": 12, "retransmissions": 0,
        "auth_failures": 0,
    }  # fmt: skip
    assert status["refused"] == {"replayed": 1}
    assert {one["peer"] for one in status["plaintext_peers"]} == {
        f"10.0.0.2:{Ends.of(key).remote_port}" for key in station.switch.plaintext()
    }  # fmt: skip


def test_words_have_the_same_names_everywhere() -> None:
    assert typing.get_args(replies.Trust) == typing.get_args(Trust)


# -- the document


def test_the_schema_in_the_documents_is_that_of_the_types() -> None:
    tool = runpy.run_path(str(ROOT / "tools/schema"))
    assert (ROOT / "docs/status.schema.json").read_text() == tool["status"](), "run tools/schema"


def test_the_schema_describes_every_field_and_a_status_is_valid(station: Station) -> None:
    documented = json.loads((ROOT / "docs/status.schema.json").read_text())
    Draft202012Validator.check_schema(documented)
    for kind in (documented, *documented["$defs"].values()):
        bare = [name for name, field in kind["properties"].items() if not field.get("description")]
        assert not bare, f"{kind['description']}: {bare} are not described"
    status = json.loads(json.dumps(station.ask("status")))
    Draft202012Validator(documented).validate(status)
    assert set(status) == set(documented["properties"]) == set(documented["required"])


def test_what_is_wrong_is_seen(station: Station, schema: Callable[..., dict[str, Any]]) -> None:
    good = station.ask("status")
    for wrong in (
        {**good, "pid": "4242"}, {**good, "more": 1}, {**good, "mode": "perhaps"}, {**good, "refused": {"weather": 1}},
        {**good, "connections": [{**good["connections"][0], "state": "sleeping"}]},
        {name: value for name, value in good.items() if name != "queue"},
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            check(schema, replies.Status, wrong)


def test_on_and_off_name_what_they_ended(tmp_path: Path) -> None:
    station = Station(tmp_path)
    station.ask("off")
    station.sockets.add(LOCAL, 7331, PEER, 40000, Tcp.ESTABLISHED)
    done = station.ask("on")
    assert [one["peer"] for one in done["ended"]] == ["10.0.0.2:40000"] and station.sockets.table == []
    assert station.ask("on")["ended"] == []
    encrypted = Connection(LOCAL + (7331).to_bytes(2), PEER + (40001).to_bytes(2), State.ENCRYPTED, IDENTITY, 1.0)
    station.engine.connections = lambda now: iter([encrypted])  # type: ignore[method-assign]
    assert station.ask("off")["reset"] == []
    assert station.ask("off", now=True)["reset"] == ["10.0.0.2:40001"]


@pytest.mark.parametrize("state", [None, Tcp.TIME_WAIT])
def test_a_plaintext_connection_whose_socket_has_gone_is_not_shown(tmp_path: Path, state: Tcp | None) -> None:
    station = Station(tmp_path, mode="prefer")
    shown = [
        Connection(LOCAL + (7331).to_bytes(2), PEER + port.to_bytes(2), State.PLAINTEXT, b"", 2.5)
        for port in (40000, 40001)
    ]
    station.engine.connections = lambda now: iter(shown)  # type: ignore[method-assign]
    station.sockets.add(LOCAL, 7331, PEER, 40000, Tcp.ESTABLISHED)
    if state is not None:
        station.sockets.add(LOCAL, 7331, PEER, 40001, state)
    assert [one["peer"] for one in station.ask("status")["connections"]] == ["10.0.0.2:40000"]


def test_a_connection_that_closes_is_nobody_connected(station: Station) -> None:
    [peer] = station.ask("peers")["peers"]
    assert [one["state"] for one in peer["connections"]] == ["encrypted"]
