"""Whether the next boot encrypts as well."""

from __future__ import annotations

import pytest

from mcencrypt.doctor.boot import check_boot
from mcencrypt.doctor.finding import Severity
from mcencrypt.doctor.machine import Output
from mcencrypt.target import Target
from tests.helpers.recorded_machine import Recorded, by_id, case, status


@pytest.fixture
def booted(machine: Recorded) -> Recorded:
    """A machine that systemd runs, with the package installed."""
    machine.files["/run/systemd/system/x"] = ""
    for unit in ("mcencrypt.service", "mcencrypt-fence.service"):
        machine.outputs[f"systemctl is-enabled {unit}"] = Output(0, "enabled\n")
    return machine


def test_an_enabled_unit_is_right(booted: Recorded) -> None:
    assert by_id(list(check_boot(case(booted, status()))), "boot.enabled").severity is Severity.OK


def test_a_disabled_unit_means_plaintext_after_the_next_boot(booted: Recorded) -> None:
    booted.outputs["systemctl is-enabled mcencrypt-fence.service"] = Output(1, "disabled\n")
    found = by_id(list(check_boot(case(booted, status()))), "boot.disabled")
    assert found.severity is Severity.WARNING and found.advice == "systemctl enable mcencrypt-fence.service"
    booted.outputs["systemctl is-enabled mcencrypt.service"] = Output(1, "masked\n")
    found = by_id(list(check_boot(case(booted, status()))), "boot.disabled")
    assert "mcencrypt.service and mcencrypt-fence.service are masked" in found.text
    assert not list(check_boot(case(booted, status(enabled=False)))), "switched off, the next boot is no other"


def test_a_container_is_served_by_a_unit_of_its_own(booted: Recorded) -> None:
    unit = "mcencrypt@docker:node1.service"
    booted.outputs[f"systemctl is-enabled {unit}"] = Output(1, "disabled\n")
    examined = case(booted, status(), netns=Target.parse("docker:node1"))
    assert by_id(list(check_boot(examined)), "boot.disabled").advice == f"systemctl enable {unit}"


def test_where_it_cannot_be_told_nothing_is_said(booted: Recorded) -> None:
    """A daemon of another service manager, or started by hand; and a container."""
    booted.outputs["systemctl is-enabled mcencrypt.service"] = Output(1, "")
    booted.outputs["systemctl is-enabled mcencrypt-fence.service"] = Output(4, "not-found\n")
    assert not list(check_boot(case(booted, status())))
    del booted.files["/run/systemd/system/x"]
    assert not list(check_boot(case(booted, status())))
    assert not list(check_boot(case(booted, None)))
