"""Network namespaces found by what operators call them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.kernel.containers import Engine
from mcencrypt.kernel.namespace import AbsentError, find
from mcencrypt.target import Target
from tests.helpers.docker_engine import Answer, state


def test_the_namespace_of_a_container(engine: Callable[[Answer], Engine]) -> None:
    asked = engine(lambda path: (200, state(True, os.getpid())))
    namespace = find(Target.parse("docker:node1"), asked)
    with open("/proc/self/ns/net") as own:
        assert namespace.same_as(own.fileno())
    assert not namespace.gone()
    namespace.close()


@pytest.mark.subprocesses
def test_a_process_that_has_ended() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(AbsentError, match=f"{child}: there is no process {child}: it has ended"):
        find(Target.parse(str(child)))


def test_a_name_that_is_just_being_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mcencrypt.kernel.namespace.NAMED", tmp_path)
    (tmp_path / "blue").touch(mode=0)
    with pytest.raises(AbsentError, match="blue: the network namespace is just being made or deleted"):
        find(Target.parse("blue"))


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AbsentError, match="there is no network namespace mcencrypt-none"):
        find(Target.parse("mcencrypt-none"))


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([(404, {"message": "No such container"})], "docker:node1: no such container"),
        ([(200, state(False, 0))], "docker:node1: the container does not run"),
        ([(200, state(True, 4194303))], "docker:node1: there is no process 4194303"),
        ([(200, state(True, os.getpid())), (200, state(True, os.getppid()))], "just stopping or starting"),
        ([(200, state(True, os.getpid())), (200, state(False, 0))], "the container does not run"),
    ],
)
def test_a_container_that_is_not_there(engine: Callable[[Answer], Engine], answers: list[Any], said: str) -> None:
    asked = engine(lambda path: answers.pop(0))
    with pytest.raises(AbsentError, match=said):
        find(Target.parse("docker:node1"), asked)
