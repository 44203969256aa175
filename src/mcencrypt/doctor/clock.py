"""The clock: handshakes more than ten minutes off are refused, for they might be recordings."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, ok, problem, warning

_UNSYNCHRONIZED = 0x40  # STA_UNSYNC of adjtimex(2)
_RELEASED = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def check_clock(case: Case) -> Iterator[Finding]:
    """Is it right, and kept right."""
    machine = case.machine
    shown = datetime.fromtimestamp(machine.now(), UTC).isoformat(timespec="seconds")
    if machine.now() < _RELEASED:
        yield problem(
            "clock.past", f"the clock says {shown}, which is before mcencrypt was made", "set it, and run an NTP client"
        )
        return
    skewed = case.status["refused"].get("clock-skew", 0) if case.status else 0
    if skewed:
        yield problem(
            "clock.skew",
            f"{skewed} handshakes were refused because the clocks differ by more than 10 minutes; here it is {shown}",
            "compare with the peer's clock (the daemon's log has the difference), and run an NTP client on both",
        )
    status = machine.clock_status()
    if status is not None and status & _UNSYNCHRONIZED:
        if _kept_outside(case):
            yield ok("clock.outside", f"{shown}; the kernel knows of no NTP, but a time service runs")
        else:
            yield warning(
                "clock.unsynchronized",
                f"no NTP client keeps this clock right (it says {shown}); at 10 minutes off peers are refused",
                "run chrony or systemd-timesyncd, on the host if this is a container",
            )
    elif status is not None:
        yield ok("clock.synchronized", f"{shown}, kept right by NTP")


def _kept_outside(case: Case) -> bool:
    """A client that steps the clock without telling the kernel, such as old ntpd or a hypervisor's agent."""
    names = {process.name for process in case.processes()}
    if names & {"chronyd", "ntpd", "systemd-timesyn", "openntpd", "ntpsec", "VBoxService", "vmtoolsd"}:
        return True
    output = case.machine.run("timedatectl", "show", "--property=NTPSynchronized", "--value")
    return output.status == 0 and output.text.strip() == "yes"
