"""The next boot: whether what is encrypted now will be."""

from __future__ import annotations

from collections.abc import Iterator

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, ok, warning
from mcencrypt.system.service import FENCE, unit_of

#: What `systemctl is-enabled` says of a unit that is not started at boot; of one that it does not know it says nothing,
#: or "not-found".
_NOT_STARTED = {"disabled": "enable", "masked": "unmask", "masked-runtime": "unmask"}


def check_boot(case: Case) -> Iterator[Finding]:
    """Under systemd a daemon that runs now is no promise: its unit may be disabled, after a removal for instance."""
    if case.status is None or not case.status["enabled"]:
        return
    try:
        case.machine.names("/run/systemd/system")  # sd_booted(3)
    except OSError:
        return
    netns = str(case.config.netns) if case.config.netns else None
    units = [unit_of(netns)] + ([] if netns else [FENCE])
    states = {unit: case.machine.run("systemctl", "is-enabled", unit).text.strip() for unit in units}
    asleep = [unit for unit, state in states.items() if state in _NOT_STARTED]
    if asleep:
        verb = _NOT_STARTED[states[asleep[0]]]
        yield warning(
            "boot.disabled",
            f"{' and '.join(asleep)} {'is' if len(asleep) == 1 else 'are'} {states[asleep[0]]}: after the next boot "
            "the P2P ports are in plaintext until somebody starts it",
            f"systemctl {verb} {' '.join(asleep)}",
        )
    elif all(state.startswith("enabled") for state in states.values()):
        yield ok("boot.enabled", f"{' and '.join(units)}: enabled at boot")
