"""The kernel, and what it lets this process do."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, ok, problem, warning
from mcencrypt.doctor.trial import try_kernel
from mcencrypt.nodes.processes import own_netns

_CAPABILITIES = {12: "CAP_NET_ADMIN", 13: "CAP_NET_RAW"}
_SYS_NICE = 23
_SCHED_RR = 2
_RESET_ON_FORK = 0x40000000
_ENOUGH_MEMORY = 128 << 20


def check_kernel(case: Case) -> Iterator[Finding]:
    """NFQUEUE with batches, changed packets, conntrack, the matches that the rules need."""
    machine = case.machine
    try:
        release = machine.text("/proc/sys/kernel/osrelease").strip()
    except OSError:
        release = "unknown"
    if case.status:
        yield ok("kernel.works", f"Linux {release}: the daemon runs, so queue and rules work")
    elif machine.uid() or not _capable(case, machine.pid()):
        yield note(
            "kernel.unseen", f"Linux {release}: whether it can do all that is needed was not tried", "run this as root"
        )
    else:
        refused = try_kernel(case)
        if refused:
            what, _, advice = refused.partition(": ")
            yield problem("kernel.lacks", f"Linux {release}: {what}", advice or "use a kernel with NFQUEUE")
        else:
            yield ok("kernel.works", f"Linux {release}: queue, batches, changed packets and the rules' matches work")
    yield from _check_namespace(case)


def _check_namespace(case: Case) -> Iterator[Finding]:
    try:
        owned = case.machine.text("/proc/self/uid_map").split()
    except OSError:
        return
    if owned and owned[:3] != ["0", "0", "4294967295"]:
        yield warning(
            "kernel.user-namespace",
            "this runs in a user namespace (rootless container or userns-remap), where kernels may refuse "
            "to change packets",
            "run the daemon with the host's root: rootful docker, or a service on the host",
        )
    if case.not_entered:
        what, _, advice = case.not_entered.rpartition(": ")
        yield warning("kernel.netns", f"{what}; what is said here about rules and ports may be wrong", advice)
    elif case.elsewhere:
        yield ok("kernel.netns", f"examined the network namespace of {case.elsewhere}")
    elif not own_netns(case.machine):
        yield note("kernel.netns", "the network namespace cannot be named: /proc is restricted")


def check_process(case: Case) -> Iterator[Finding]:
    """Capabilities, turn before others, memory: of the daemon if one runs, else of this process."""
    machine = case.machine
    pid = case.daemon_pid or machine.pid()
    whose = f"the daemon (pid {pid})" if case.daemon_pid else "this process"
    try:
        text = machine.text(f"/proc/{pid}/status")
    except OSError:
        yield note("process.unseen", f"{whose} cannot be seen in /proc")
        return
    held = _held(text)
    lacking = [name for bit, name in _CAPABILITIES.items() if not held >> bit & 1]
    if lacking and case.daemon_pid is None and machine.uid():
        yield note(
            "process.not-root",
            "this runs without root: rules, queue, other users' processes and the key may stay unseen",
            "run it as root to see all",
        )
    elif lacking:
        names = " and ".join(lacking)
        yield problem("process.capabilities", f"{whose} lacks {names}", "give it both, or run it as root")
    else:
        yield ok("process.capabilities", f"{whose} has CAP_NET_ADMIN and CAP_NET_RAW")
    if case.daemon_pid:
        policy = machine.scheduler(pid)
        if policy is not None and policy & ~_RESET_ON_FORK != _SCHED_RR:
            yield note(
                "process.scheduling",
                f"{whose} waits for its turn like any process (no SCHED_RR), so a busy machine delays each packet",
                "give it CAP_SYS_NICE" if not held >> _SYS_NICE & 1 else _why_not_rr(case),
            )
        if resident := re.search(r"VmRSS:\s*(\d+) kB", text):
            yield ok("process.memory", f"{whose} uses {int(resident.group(1)) / 1000:.0f} MB")
    yield from _check_memory(case)


def _why_not_rr(case: Case) -> str:
    try:
        if case.machine.text("/proc/sys/kernel/sched_rt_runtime_us").strip() == "0":
            return "kernel.sched_rt_runtime_us is 0, which forbids it: sysctl -w kernel.sched_rt_runtime_us=950000"
    except OSError:
        pass
    return "it has CAP_SYS_NICE, but the kernel refused: with RT group scheduling, give its cgroup cpu.rt_runtime_us"


def _check_memory(case: Case) -> Iterator[Finding]:
    available = _number(case, "/proc/meminfo", r"MemAvailable:\s*(\d+) kB")
    if available is not None and available * 1024 < _ENOUGH_MEMORY:
        yield warning(
            "memory.low",
            f"{available // 1024} MB of memory are available; a daemon takes up to 80 MB",
            "free memory, or the kernel may kill the daemon, and then nothing connects",
        )
    limit = _number(case, "/sys/fs/cgroup/memory.max", r"(\d+)")
    if limit is not None and limit < _ENOUGH_MEMORY:
        yield warning(
            "memory.limit",
            f"this container or service may use {limit >> 20} MB; a daemon takes up to 80 MB, this check some more",
            "raise the limit to 128 MB or more",
        )


def _number(case: Case, path: str, pattern: str) -> int | None:
    try:
        match = re.search(pattern, case.machine.text(path))
    except OSError:
        return None
    return int(match.group(1)) if match else None


def _held(status: str) -> int:
    match = re.search(r"CapEff:\s*([0-9a-f]+)", status)
    return int(match.group(1), 16) if match else 0


def _capable(case: Case, pid: int) -> bool:
    try:
        held = _held(case.machine.text(f"/proc/{pid}/status"))
    except OSError:
        return False
    return all(held >> bit & 1 for bit in _CAPABILITIES)
