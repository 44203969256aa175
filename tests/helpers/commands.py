"""Commands called as an operator calls them, and what a daemon would answer them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

import mcencrypt
from mcencrypt.cli import cli

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


def status_result(**changes: Any) -> dict[str, Any]:
    """A busy daemon's answer to ``status``."""
    numbers = {"bytes_out": 2_304_863, "bytes_in": 1000, "records_out": 1800, "records_in": 1}
    failures = {"retransmissions": 3, "auth_failures": 0}
    connections = [
        {"peer": f"10.0.{n // 250}.{n % 250}:7331", "local": "10.0.9.9:40000", "state": "encrypted", "age": 12800.5,
         "identity": "A" * 43 + "=" if n % 2 else None, "name": "org-c" if n == 3 else None, **numbers, **failures}
        for n in range(400)
    ]  # fmt: skip
    return {
        "enabled": True, "draining": False, "mode": "require", "ports": [7331, 8571], "key_id": "1a2b3c4d5e6f7081",
        "identity": "B" * 43 + "=", "pid": 4242, "version": "0.1.0", "uptime": 61.2, "connections": connections,
        "totals": {"connections": 400, **numbers, **failures}, "refused": {"replayed": 2, "no handshake": 7, "old": 0},
        "queue": {"number": 27971, "waiting": 0, "dropped_kernel": 5, "dropped_user": 0, "enobufs": 1},
        "plaintext_peers": [{"peer": "10.9.9.9:7331", "local": "10.0.9.9:40001", "allowed": True}],
        "rules_seen": 0.4, **changes,
    }  # fmt: skip
