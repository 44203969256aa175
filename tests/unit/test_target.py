"""What operators call a network namespace."""

from __future__ import annotations

import pytest

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
