"""N nodes with daemons on one bridge, and the network key that they share."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from lab import Lab, Process, lan, wait_for
from mcencrypt.store.keys import create_network_key
from tests.helpers.nodes import PORT, Node, start_all
from tests.helpers.pairs import event_count


class Fleet(list[Node]):
    """Nodes h1, h2, ... with addresses 10.66.0.1, 10.66.0.2, ... (and fd66::1, ...)."""

    @property
    def lab(self) -> Lab:
        """The lab that they stand in, for its directory."""
        lab = self[0].host.lab
        assert isinstance(lab, Lab)
        return lab

    def check(self) -> None:
        """Nothing happened that never may: errors inside a daemon, verdicts it could not give."""
        for node in self:
            assert "internal error" not in node.log(), node.log()[-3000:]
            assert "Traceback" not in node.log(), node.log()[-3000:]
            if node.answers():
                assert node.status()["queue"]["bad_verdicts"] == 0


@contextlib.contextmanager
def fleet(count: int, *, start: bool = True, **settings: Any) -> Iterator[Fleet]:
    """That many nodes, each able to dial each other.

    `start`: start their daemons; otherwise a node has none until its `start()` or `mcencrypt("on")`. `settings` are
    those of `Node`. All is taken down at the end, and the nodes' logs are shown if something raised.
    """
    with lan(count) as hosts:
        lab = hosts[0].lab
        key = lab.directory / "network.key"
        create_network_key(key)
        nodes = Fleet(Node(host, **{"network_key": key} | settings) for host in hosts)
        try:
            if start:
                start_all(nodes)
            yield nodes
        except BaseException:
            for node in nodes:
                print(f"--- log of {node.host.name}\n{node.log()[-4000:]}")
            raise
        nodes.check()


@contextlib.contextmanager
def asking(nodes: Fleet, *words: object) -> Iterator[list[Process]]:
    """On every node a program that listens, dials all others, and asks them (`lab.requests`).

    Entered once everybody has had an answer of everybody. `words`: more of its options.
    """
    programs: list[Process] = []
    try:
        for node in nodes:
            others = [word for other in nodes if other is not node for word in ("--connect", f"{other.v4}:{PORT}")]
            words_of_it = ("--name", node.host.name, "--listen", PORT, *others, *words)
            programs.append(node.python("lab.requests", *words_of_it))
        everybody = len(nodes) - 1
        for program in programs:
            wait_for(partial(answered_by, program, everybody), f"answers for {program}")
        yield programs
    finally:
        for program in programs:
            program.stop()


def answered_by(program: Process, peers: int) -> bool:
    """Whether that many peers have answered the program at least once."""
    return len({one["peer"] for one in program.events() if one["event"] == "answered"}) == peers


def counts(program: Process) -> dict[str, dict[str, float]]:
    """What the program has counted so far, by peer."""
    before = event_count(program, "counts")
    program.signal(signal.SIGHUP)
    wait_for(lambda: event_count(program, "counts") > before, f"counts of {program}")
    peers: dict[str, dict[str, float]] = [one for one in program.events() if one["event"] == "counts"][-1]["peers"]
    return peers


def await_progress(
    programs: list[Process], answers: int = 2, seconds: float = 30, peers: Sequence[str] | None = None
) -> None:
    """Wait until every peer, or those at the addresses `peers`, has answered every program that many times more."""

    def answered(program: Process) -> dict[str, float]:
        shown = counts(program).items()
        return {peer: one["answered"] for peer, one in shown if not peers or peer.rpartition(":")[0] in peers}

    before = [answered(program) for program in programs]

    def further(program: Process, then: dict[str, float]) -> bool:
        now = answered(program)
        return all(now[peer] >= then[peer] + answers for peer in then)

    for program, then in zip(programs, before, strict=True):
        wait_for(partial(further, program, then), f"{program} to be answered", seconds)
