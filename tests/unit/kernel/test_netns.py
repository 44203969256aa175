"""Naming a network namespace, and asking the Docker engine for a container's. The engine is a small program here."""

from __future__ import annotations

import http.server
import json
import os
import select
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mcencrypt.cli import cli
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.containers import Engine, NoEngineError
from mcencrypt.kernel.namespace import AbsentError, find
from mcencrypt.store.config import load
from mcencrypt.target import Kind, Target


@pytest.mark.parametrize(
    ("text", "kind", "name", "described"),
    [
        ("blue", Kind.NAME, "blue", "network namespace blue"),
        ("node-1.example", Kind.NAME, "node-1.example", "network namespace node-1.example"),
        ("4711", Kind.PID, "4711", "process 4711"),
        ("docker:node1", Kind.DOCKER, "node1", "container node1"),
        ("docker:4711", Kind.DOCKER, "4711", "container 4711"),
    ],
)
def test_a_target_is_what_was_written(text: str, kind: Kind, name: str, described: str) -> None:
    target = Target.parse(text)
    assert (target.kind, target.name, target.described, str(target)) == (kind, name, described, text)


@pytest.mark.parametrize("text", ["", ".", "..", "../x", "a/b", "docker:", "docker:a/b", "podman:x", "-x", "a b", "é"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(ValueError, match=r"give NAME \(see `ip netns`\), PID, or docker:CONTAINER"):
        Target.parse(text)


def test_files_of_a_namespace_are_in_folders_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('netns = "docker:node1"\n')
    config = load(file, {})
    assert config.netns == Target(Kind.DOCKER, "node1")
    assert config.state_dir == Path("/var/lib/mcencrypt/netns/docker:node1")
    assert config.run_dir == Path("/run/mcencrypt/netns/docker:node1")
    assert load(file, {}, netns="blue").run_dir == Path("/run/mcencrypt/netns/blue")
    assert load(file, {"MCENCRYPT_NETNS": "1"}).netns == Target(Kind.PID, "1")
    host = load(file, {}, netns="")
    assert (host.netns, host.run_dir) == (None, Path("/run/mcencrypt"))
    file.write_text('netns = "docker:node1"\nrun_dir = "/r"\n')
    assert load(file, {}).run_dir == Path("/r")


@pytest.mark.parametrize(("value", "said"), [("7", "must be a name in quotes"), ('"a/b"', "'a/b' is no network name")])
def test_a_wrong_setting_is_named(tmp_path: Path, value: str, said: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"netns = {value}\n")
    with pytest.raises(OperatorError, match=f"{file}: netns: {said}"):
        load(file, {})


def test_waiting_needs_something_to_wait_for(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("ports = [7331]\n")
    result = CliRunner().invoke(cli, ["daemon", "--wait", "--config", str(tmp_path / "config.toml")])
    assert result.exit_code == 2
    assert result.stderr.startswith("mcencrypt: --wait needs --netns")


# ------------------------------------------------------------ the engine

Answer = Callable[[str], tuple[int, Any]]


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[[Answer], Engine]]:
    """Start an engine that answers requests as it is told: a path gives a status and an object."""
    servers: list[_Server] = []

    def start(answer: Answer) -> Engine:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(self.path)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

            def address_string(self) -> str:
                return "unix"

            def log_message(self, *_: object) -> None:
                pass

        path = tmp_path / "docker.sock"
        server = _Server(str(path), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        return Engine({"DOCKER_HOST": f"unix://{path}"})

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def state(running: bool, pid: int) -> dict[str, Any]:
    return {"State": {"Running": running, "Pid": pid, "Status": "running" if running else "exited"}}


def test_a_containers_first_process(engine: Callable[[Answer], Engine]) -> None:
    known = {"/containers/node1/json": state(True, 4242), "/containers/old/json": state(False, 0)}
    asked = engine(lambda path: (200, known[path]) if path in known else (404, {"message": "No such container"}))
    assert [asked.first_process(name) for name in ("node1", "old", "other")] == [4242, 0, None]


def test_the_namespace_of_a_container(engine: Callable[[Answer], Engine]) -> None:
    asked = engine(lambda path: (200, state(True, os.getpid())))
    namespace = find(Target.parse("docker:node1"), asked)
    with open("/proc/self/ns/net") as own:
        assert namespace.same_as(own.fileno())
    assert not namespace.gone()
    namespace.close()


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
