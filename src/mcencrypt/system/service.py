"""systemctl(1): what `on`, `install` and `uninstall` ask of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from mcencrypt.errors import OperatorError

UNIT = "mcencrypt.service"
FENCE = "mcencrypt-fence.service"
_TIMEOUT = 60.0
#: How the one line begins that every command of ours ends with if it fails.
_SPEAKS = "mcencrypt: "


def runs_here() -> bool:
    """Whether systemd runs this machine: sd_booted(3)."""
    return Path("/run/systemd/system").is_dir()


def check() -> None:
    """Raises OperatorError without systemd."""
    if not runs_here():
        raise OperatorError(
            "systemd does not run this system: have your service manager run `mcencrypt daemon`, or use `mcencrypt on`;"
            " --root DIR writes the files all the same"
        )


def enable() -> None:
    """Make systemd read the units again and start ours at boot, the ports closed before. Raises OperatorError."""
    reload()
    _systemctl("enable", "--quiet", UNIT, FENCE)


def disable(unit: str = UNIT) -> None:
    """Not at boot any more. Raises OperatorError."""
    if runs_here() and _systemctl("is-enabled", "--quiet", unit, check=False) == 0:
        _systemctl("disable", "--quiet", unit)


def unit_of(netns: str | None) -> str:
    """The unit whose daemon serves that network namespace; None: the host's own."""
    return f"mcencrypt@{netns}.service" if netns else UNIT


def is_installed(unit: str = UNIT) -> bool:
    """Whether systemd runs this machine and knows this unit of ours. Raises nothing: who cannot say does not."""
    try:
        return runs_here() and _systemctl("cat", unit, check=False) == 0
    except OperatorError:
        return False


def start(unit: str, seconds: float) -> None:
    """Start a service; it may take that long to say that it is ready. Raises OperatorError."""
    advice = f"see `journalctl -u {unit}`"
    try:
        done = _run("start", unit, seconds=seconds)
    except subprocess.TimeoutExpired:
        raise OperatorError(f"`systemctl start {unit}` takes too long: {advice}") from None
    if done.returncode:
        if why := _last_words(unit):
            raise OperatorError(f"{unit} does not start: {why}")
        said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1].strip()
        raise OperatorError(f"`systemctl start {unit}` failed: {said}; {advice}")


def _last_words(unit: str) -> str | None:
    """Why its daemon last gave up, as that said it; None if the journal does not have it, or nobody may read it."""
    words = ["journalctl", "--unit", unit, "--lines", "20", "--output", "cat", "--no-pager", "--quiet"]
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT,
            check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = [line.removeprefix(_SPEAKS) for line in done.stdout.splitlines() if line.startswith(_SPEAKS)]
    return told[-1] if told else None


def stop(unit: str = UNIT) -> None:
    """Stop the service if there is one. Raises OperatorError."""
    if runs_here() and _systemctl("cat", unit, check=False) == 0:
        _systemctl("stop", unit)


def reload() -> None:
    """Make systemd read the units again, and forget old failures of ours. Raises OperatorError."""
    if runs_here():
        _systemctl("daemon-reload")
        _systemctl("reset-failed", UNIT, FENCE, check=False)


def is_active() -> bool:
    """Whether the service runs."""
    return _systemctl("is-active", "--quiet", UNIT, check=False) == 0


def _systemctl(*words: str, check: bool = True) -> int:
    """Its exit status. Raises OperatorError: there is none, it hangs, or (if `check`) it failed."""
    try:
        done = _run(*words, seconds=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise OperatorError(f"`systemctl {' '.join(words)}` takes too long: see `systemctl list-jobs`") from None
    if check and done.returncode:
        said = " ".join(done.stderr.split())
        raise OperatorError(f"`systemctl {' '.join(words)}` failed: {said}")
    return done.returncode


def _run(*words: str, seconds: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["systemctl", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except FileNotFoundError:
        raise OperatorError("systemctl was not found: install systemd's tools") from None
