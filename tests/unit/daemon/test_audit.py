"""Who changed what, in the log."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.control import replies
from mcencrypt.control.caller import Caller
from mcencrypt.control.client import READ_ONLY
from mcencrypt.daemon.audit import CHANGES, audit, audit_signal
from mcencrypt.logs import JsonFormatter
from tests.helpers.served import serving_audited

WHO = Caller(4242, 0, 1000, "mcencrypt off --now")


def fields(caplog: pytest.LogCaptureFixture) -> dict[str, Any]:
    [record] = caplog.records
    caplog.clear()
    assert record.getMessage() == "audit" and record.name == "mcencrypt.audit"
    return dict(record.__dict__["fields"])


def test_every_command_that_changes_something_is_told(caplog: pytest.LogCaptureFixture) -> None:
    assert set(CHANGES) == set(replies.REPLIES) - {*READ_ONLY, "probe"}
    for command in CHANGES:
        audit(WHO, command, {"mode": "prefer", "key": "SECRET", "id": "5f0c", "now": True, "force": False})
        told = fields(caplog)
        assert (told["command"], told["uid"], told["login_uid"], told["pid"]) == (command, 0, 1000, 4242)
        assert told["program"] == "mcencrypt off --now" and "SECRET" not in str(told)
    audit(WHO, "key-use", {"id": "5f0c", "force": True})
    assert {"with_id": "5f0c", "with_force": "True"}.items() <= fields(caplog).items()


def test_what_only_shows_is_no_event(caplog: pytest.LogCaptureFixture) -> None:
    for command in (*READ_ONLY, "probe", "nonsense", "mode"):
        audit(WHO, command, {})
    assert not caplog.records
    audit(WHO, "mode", {"from_config": True})
    assert fields(caplog)["with_from_config"] == "True"
    audit_signal("SIGHUP", "reload")
    assert fields(caplog) == {"command": "reload", "signal": "SIGHUP"}


def test_it_is_told_whatever_the_level_of_the_log_is(caplog: pytest.LogCaptureFixture) -> None:
    before = logging.getLogger().level
    logging.getLogger().setLevel(logging.ERROR)
    try:
        audit(WHO, "on", {})
    finally:
        logging.getLogger().setLevel(before)
    [record] = caplog.records
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "audit" and line["fields"]["login_uid"] == 1000


def test_the_kernel_says_who_asks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from mcencrypt.control.client import request

    with serving_audited(tmp_path / "run", lambda command, arguments: {"enabled": True, "ended": []}, audit):
        request(tmp_path / "run", "on")
    told = fields(caplog)
    assert (told["pid"], told["uid"]) == (os.getpid(), os.geteuid()) and "py" in told["program"]
