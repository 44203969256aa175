"""The programs that put rules in and show them."""

from __future__ import annotations

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.iptables import V6, Backend, backends


def test_command_names_of_a_backend() -> None:
    backend = Backend("iptables-legacy", "/bin")
    assert backend._name(V6, "restore") == "ip6tables-legacy-restore"
    assert Backend("/opt/x/iptables", "")._name(V6, "save") == "/opt/x/ip6tables-save"


def test_missing_iptables_is_one_line_that_says_what_to_do(tmp_path: object) -> None:
    with pytest.raises(OperatorError, match=r"no-such-tables-save was not found.*install iptables"):
        backends({"MCENCRYPT_IPTABLES": "no-such-tables", "PATH": str(tmp_path)})
