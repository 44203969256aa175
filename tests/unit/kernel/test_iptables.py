"""The programs that put rules in and show them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Output, Steps
from mcencrypt.kernel.iptables import V6, Backend, backends


def test_command_names_of_a_backend() -> None:
    backend = Backend("iptables-legacy", "/bin")
    assert backend._name(V6, "restore") == "ip6tables-legacy-restore"
    assert Backend("/opt/x/iptables", "")._name(V6, "save") == "/opt/x/ip6tables-save"


def test_missing_iptables_is_one_line_that_says_what_to_do(tmp_path: object) -> None:
    with pytest.raises(OperatorError, match=r"no-such-tables-save was not found.*install iptables"):
        backends({"MCENCRYPT_IPTABLES": "no-such-tables", "PATH": str(tmp_path)})


def restoring(folder: Path) -> Steps[str]:
    """Rules that are about to be restored, by a program that stands in that folder."""
    program = folder / "ip6tables-restore"
    program.touch(0o755)
    steps = Backend("iptables", str(folder)).restore(V6, "")
    next(steps)
    return steps


@pytest.mark.parametrize(
    "said",
    [  # as a kernel 6.1 without these modules had them say it
        "Warning: Extension NFQUEUE revision 0 not supported, missing kernel module?\nline 5 failed\n",
        "iptables-restore v1.8.9 (legacy): iptables-restore: unable to initialize table 'raw'\n",
        "line 2: TABLE_ADD failed (Operation not supported): table raw\n",
        "iptables-save/1.8.9 (nf_tables) Failed to initialize nft: Protocol not supported\n",
    ],
)
def test_a_missing_module_is_named_as_one(said: str, tmp_path: Path) -> None:
    steps = restoring(tmp_path)
    with pytest.raises(OperatorError, match=r"the kernel lacks a part .* NFQUEUE\); load its module"):
        steps.send(Output(1, b"", said.encode()))


def test_what_is_said_again_for_each_rule_is_told_once(tmp_path: Path) -> None:
    steps = restoring(tmp_path)
    lines = ["Warning: Extension multiport is not supported"] * 3 + [f"line {n}: failed" for n in range(9)]
    with pytest.raises(OperatorError, match=r"supported; line 0: failed; line 1: failed; line 2: failed; \.\.\.: see"):
        steps.send(Output(1, b"", "\n".join(lines).encode()))
