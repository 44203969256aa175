"""Configuration, key and folders."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.doctor.configuration import check_configuration, check_files
from mcencrypt.doctor.finding import Severity
from mcencrypt.store.keys import create_network_key
from tests.helpers import replies
from tests.helpers.recorded_machine import NOW, Recorded, by_id, case, status, worst


def test_a_good_configuration(machine: Recorded) -> None:
    [found] = check_configuration(case(machine, status()))
    assert found.severity is Severity.OK and "7331, 8571" in found.text


@pytest.mark.parametrize(
    ("changes", "name", "severity"),
    [
        ({"ports": ()}, "config.ports", Severity.PROBLEM),
        ({"chains": ("nowhere",)}, "config.ports", Severity.PROBLEM),
        ({"allow_plaintext": (ip_network("::/0"),)}, "config.allow-plaintext", Severity.PROBLEM),
        ({"probes": (ip_network("0.0.0.0/0"),)}, "config.probes", Severity.WARNING),
        ({"mode": "prefer"}, "config.prefer", Severity.NOTE),
        ({"ports": (7331,)}, "config.ports-changed", Severity.WARNING),
    ],
)
def test_what_is_wrong_with_a_configuration(
    machine: Recorded, changes: dict[str, Any], name: str, severity: Severity
) -> None:
    found = by_id(list(check_configuration(case(machine, status(), **changes))), name)
    assert found.severity is severity and found.advice


def test_a_configuration_that_cannot_be_read(machine: Recorded) -> None:
    broken = replace(case(machine, None), config_error="/etc/mcencrypt/config.toml: prots: no such key")
    [found] = check_configuration(broken)
    assert found.id == "config.invalid" and found.severity is Severity.PROBLEM
    assert not list(check_files(broken))


def test_key_and_folders(machine: Recorded, tmp_path: Path) -> None:
    key = tmp_path / "network.key"
    own = NetworkSecret(create_network_key(key).secret).key_id.hex()
    settings = {"network_key_file": key, "state_dir": tmp_path / "state", "run_dir": Path("/run/mcencrypt")}
    machine.modes = {str(settings["state_dir"]): (0o700, 0), "/run/mcencrypt": (0o700, 0)}
    found = list(check_files(case(machine, status(key_id=own), **settings)))
    assert own in by_id(found, "key.file").text and worst(found) is Severity.OK
    found = list(check_files(case(machine, status(), **settings)))
    assert by_id(found, "key.not-in-use").severity is Severity.WARNING
    both = [replies.key(id=one, offered=one != own) for one in (own, replies.KEY_ID)]
    found = list(check_files(case(machine, status(keys=both), **settings)))
    assert by_id(found, "key.rotation").severity is Severity.NOTE
    machine.modes[str(settings["state_dir"])] = (0o777, 0)
    assert by_id(list(check_files(case(machine, None, **settings))), "files.state_dir").severity is Severity.PROBLEM
    machine.modes["/run/mcencrypt"] = (0o700, 1000)
    assert by_id(list(check_files(case(machine, None, **settings))), "files.run_dir").severity is Severity.PROBLEM
    found = list(check_files(case(machine, None, **settings | {"run_dir": tmp_path})))
    assert by_id(found, "files.run_dir-on-disk").severity is Severity.NOTE
    os.chmod(key, 0o644)
    found = list(check_files(case(machine, None, **settings)))
    assert by_id(found, "key.file").severity is Severity.PROBLEM and "chmod 600" in by_id(found, "key.file").advice
    found = list(check_files(case(machine, None, **settings | {"network_key_file": tmp_path / "none"})))
    assert "keygen" in by_id(found, "key.file").advice


@pytest.mark.parametrize(
    ("days", "severity"), [(100, Severity.OK), (13, Severity.WARNING), (0, Severity.PROBLEM), (-5, Severity.PROBLEM)]
)
def test_a_signed_list_that_ends(machine: Recorded, days: int, severity: Severity) -> None:
    running = status(peers_list={"serial": 1, "expires": int(NOW + days * 86400)})
    assert by_id(list(check_configuration(case(machine, running))), "config.peers-list").severity is severity
