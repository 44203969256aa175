"""Commands called as an operator calls them, and what a daemon would answer them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

import mcencrypt
from mcencrypt.cli import cli
from mcencrypt.control.replies import Status
from tests.helpers import replies

#: What PYTHONPATH is for a child that imports the mcencrypt under test.
SOURCE = Path(mcencrypt.__file__).parents[1]


def run(*words: str, stdin: str | bytes | None = None) -> Result:
    """``mcencrypt`` with these words, in this process."""
    return CliRunner().invoke(cli, list(words), input=stdin)


def fails(result: Result, status: int, *parts: str) -> None:
    """One line on stderr, the right exit status, nothing on stdout."""
    assert result.exit_code == status, result.output
    assert result.stderr.startswith("mcencrypt: ") and result.stderr.count("\n") == 1
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr, result.stderr


def status_result(**changes: Any) -> Status:
    """A busy daemon's answer to ``status``."""
    carried = {"bytes_out": 2_304_863, "bytes_in": 1000, "records_out": 1800, "records_in": 1, "retransmissions": 3}
    connections = [
        replies.connection(
            peer=f"10.0.{n // 250}.{n % 250}:7331", local="10.0.9.9:40000", age=12800.5,
            identity="A" * 43 + "=" if n % 2 else None, name="org-c" if n == 3 else None, **carried,
        )
        for n in range(400)
    ]  # fmt: skip
    busy: dict[str, Any] = {
        "ports": [7331, 8571], "version": "0.1.0", "build": "compiled", "connections": connections,
        "totals": {**replies.status()["totals"], "connections": 400, **carried},
        "refused": {"replayed": 2, "not-a-handshake": 7, "incomplete": 0},
        "queue": replies.queue(dropped_kernel=5, enobufs=1),
        "plaintext_peers": [{"peer": "10.9.9.9:7331", "local": "10.0.9.9:40001", "allowed": True}],
    }  # fmt: skip
    return replies.status(**busy | changes)
