"""The kernel, and what the daemon has of it."""

from __future__ import annotations

from mcencrypt.doctor.finding import Severity
from mcencrypt.doctor.kernel import check_kernel, check_process
from tests.helpers.recorded_machine import DAEMON, PROC_STATUS, Recorded, by_id, case, status


def test_a_daemon_that_waits_for_its_turn(machine: Recorded) -> None:
    machine.policies[DAEMON] = 0
    assert "rt_runtime" in by_id(list(check_process(case(machine, status()))), "process.scheduling").advice
    machine.files[f"/proc/{DAEMON}/status"] = PROC_STATUS.replace("000001ffffffffff", "0000000000003000")
    assert by_id(list(check_process(case(machine, status()))), "process.scheduling").advice == "give it CAP_SYS_NICE"


def test_little_memory(machine: Recorded) -> None:
    machine.files["/proc/meminfo"] = "MemAvailable:  50000 kB\n"
    machine.files["/sys/fs/cgroup/memory.max"] = "67108864\n"
    found = list(check_process(case(machine, status())))
    assert {"memory.low", "memory.limit"} <= {one.id for one in found}
    machine.files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert "memory.limit" not in {one.id for one in check_process(case(machine, status()))}


def test_a_user_namespace(machine: Recorded) -> None:
    machine.files["/proc/self/uid_map"] = "         0     100000      65536\n"
    assert by_id(list(check_kernel(case(machine, status()))), "kernel.user-namespace").severity is Severity.WARNING
