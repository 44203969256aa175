"""What systemctl says, as an operator gets to hear it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.system import service


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a shell program in its place, on a machine that systemd runs."""
    monkeypatch.setattr(service, "runs_here", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def be(program: str) -> None:
        file = tmp_path / "systemctl"
        file.write_text(f"#!/bin/sh\n{program}\n")
        file.chmod(0o755)

    return be


def test_a_unit_is_that_of_its_namespace() -> None:
    assert service.unit_of(None) == service.unit_of("") == "mcencrypt.service"
    assert service.unit_of("docker:node1") == "mcencrypt@docker:node1.service"


@pytest.mark.subprocesses
def test_a_unit_is_installed_if_systemd_knows_it(
    systemctl: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl('[ "$*" = "cat mcencrypt.service" ]')
    assert service.is_installed() and not service.is_installed("mcencrypt@blue.service")
    monkeypatch.setattr(service, "runs_here", lambda: False)
    assert not service.is_installed()


@pytest.mark.subprocesses
def test_who_cannot_say_whether_it_is_installed_says_no(
    systemctl: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(service, "_TIMEOUT", 0.05)
    systemctl("exec tail -f /dev/null")
    assert not service.is_installed()
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert not service.is_installed()


@pytest.mark.subprocesses
def test_a_start_that_works_says_nothing(systemctl: Callable[[str], None], tmp_path: Path) -> None:
    systemctl(f'echo "$@" >{tmp_path}/said; echo warning >&2')
    service.start("mcencrypt@blue.service", 60)
    assert (tmp_path / "said").read_text() == "start mcencrypt@blue.service\n"


@pytest.mark.subprocesses
def test_a_start_that_fails_quotes_the_last_line(systemctl: Callable[[str], None]) -> None:
    systemctl("echo one >&2; echo 'Job for x failed. ' >&2; echo >&2; exit 1")
    with pytest.raises(OperatorError, match=r"^`systemctl start x` failed: Job for x failed\.; see `journalctl -u x`$"):
        service.start("x", 60)
    systemctl("exit 4")
    with pytest.raises(OperatorError, match="`systemctl start x` failed: exit status 4; see"):
        service.start("x", 60)


@pytest.mark.subprocesses
def test_a_start_that_fails_quotes_the_daemon_where_the_journal_has_it(
    systemctl: Callable[[str], None], tmp_path: Path
) -> None:
    systemctl("echo 'Job for x failed.' >&2; exit 1")
    journal = tmp_path / "journalctl"
    journal.write_text("#!/bin/sh\necho Starting x; echo mcencrypt: queue 5 is taken: choose another; echo Failed\n")
    journal.chmod(0o755)
    with pytest.raises(OperatorError, match=r"^x does not start: queue 5 is taken: choose another$"):
        service.start("x", 60)
    journal.write_text("#!/bin/sh\necho Starting x\n")
    with pytest.raises(OperatorError, match=r"Job for x failed\.; see"):
        service.start("x", 60)


@pytest.mark.subprocesses
def test_a_start_that_hangs_is_given_up(systemctl: Callable[[str], None]) -> None:
    systemctl("exec tail -f /dev/null")
    with pytest.raises(OperatorError, match="takes too long: see `journalctl -u x`"):
        service.start("x", 0.05)
