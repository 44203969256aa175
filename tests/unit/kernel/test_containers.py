"""What the Docker engine is asked, by a socket that answers as it does."""

from __future__ import annotations

import select
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.containers import Engine, NoEngineError
from tests.helpers.docker_engine import Answer, state


def test_a_containers_first_process(engine: Callable[[Answer], Engine]) -> None:
    known = {"/containers/node1/json": state(True, 4242), "/containers/old/json": state(False, 0)}
    asked = engine(lambda path: (200, known[path]) if path in known else (404, {"message": "No such container"}))
    assert [asked.first_process(name) for name in ("node1", "old", "other")] == [4242, 0, None]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, {"message": "disk full"}), "refused: disk full"),
        ((200, b"<html>"), "is not a Docker engine"),
        ((200, []), "is not a Docker engine"),
        ((418, {}), r"is not a Docker engine \(HTTP status 418\)"),
    ],
)
def test_an_engine_that_cannot_help(engine: Callable[[Answer], Engine], answer: tuple[int, Any], said: str) -> None:
    asked = engine(lambda path: answer)
    with pytest.raises(NoEngineError, match=said):
        asked.first_process("node1")


def test_an_engine_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NoEngineError, match=f"there is no Docker engine at {tmp_path}/none: start it"):
        Engine({"DOCKER_HOST": f"unix://{tmp_path}/none"}).first_process("node1")
    with pytest.raises(OperatorError, match=r"DOCKER_HOST is tcp://10.0.0.1:2375, but the container must run on this"):
        Engine({"DOCKER_HOST": "tcp://10.0.0.1:2375"})
    assert Engine({}).path == "/var/run/docker.sock"


def test_an_engine_that_may_not_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mcencrypt.kernel.containers._UnixConnection.connect", refuse)
    with pytest.raises(OperatorError, match=r"you may not use the Docker engine at .*: run this as root"):
        Engine({}).first_process("node1")


def test_starts_are_told_of(engine: Callable[[Answer], Engine]) -> None:
    seen: list[str] = []

    def answer(path: str) -> tuple[int, Any]:
        seen.append(path)
        return 200, b'{"status":"start"}\n'

    asked = engine(answer)
    starts = asked.starts("node1")
    while select.select([starts], [], [], 10)[0] and starts.read():
        pass
    assert not starts.read()  # the engine has gone
    starts.close()
    assert seen[0].startswith("/events?filters=") and "node1" in seen[0]
