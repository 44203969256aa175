"""The clock, by which replays are told."""

from __future__ import annotations

from mcencrypt.doctor.clock import check_clock
from mcencrypt.doctor.finding import Severity
from tests.helpers.recorded_machine import Recorded, by_id, case, status


def test_the_clock(machine: Recorded) -> None:
    assert by_id(list(check_clock(case(machine, status()))), "clock.synchronized")
    machine.clock = 0x40
    assert by_id(list(check_clock(case(machine, status()))), "clock.unsynchronized").severity is Severity.WARNING
    machine.add_process(60, "vmtoolsd", "vmtoolsd")
    assert by_id(list(check_clock(case(machine, status()))), "clock.outside").severity is Severity.OK
    skewed = list(check_clock(case(machine, status(refused={"clock-skew": 2}))))
    assert by_id(skewed, "clock.skew").severity is Severity.PROBLEM
    machine.time = 1000.0
    assert by_id(list(check_clock(case(machine, status()))), "clock.past").severity is Severity.PROBLEM
