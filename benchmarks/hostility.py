"""What `benchmarks/hostile` has found, as lines, as failures and as a page."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import NamedTuple

from lab.hostile import GROUPS, SCENARIOS, Judgement, Scenario, Verdict

_BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
_HEAD = """# A network that behaves badly

Written by `benchmarks/hostile`; the scenarios are in `lab/hostile`. Each is played on a plain port and on an encrypted
one of the same two hosts, over IPv4 and IPv6, with hosts that hand batches to netfilter and with such that do not. All
of it runs on one machine, over links of 10 Mbit/s with a middlebox in Python between them, so only what stands side by
side can be compared.

- **Streams**: *identical*, both ways, to the last byte; or *ended*: a connection was reset, its application knows, and
  all that was read before is true. *stalled*: neither, within the time that the scenario gives. *cut short*: an end of
  stream that nobody wrote. *tampered*: bytes were read that nobody wrote. The worst of all runs is shown, and in
  brackets that of plain TCP where it differs.
- **Tampered**: bytes that applications read and nobody wrote, in brackets those of plain TCP. Allowed: 0.
- **INVALID**: packets that the connection tracking of a strict router could not make sense of, in brackets those of
  plain TCP. Allowed: 0, unless plain TCP has some as well (what is under way when a connection is reset, for one).
- **Goodput**, as a fraction of plain TCP's in the same run (the median of those by turns): the geometric mean of all
  combinations, and the least and the largest of them. Where there is no target it is shown for information: a
  single run says little.
"""


class Variant(NamedTuple):
    """What was played: a scenario by its name, the name of a shape, and the IP version."""

    scenario: str
    shape: str
    version: int


@dataclass
class Runs:
    """What it came to, by turns."""

    plain: list[Judgement] = field(default_factory=list)
    sealed: list[Judgement] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Goodput beside plain TCP; None where one of them did not deliver all."""
        runs = [self.plain, self.sealed]
        if not all(runs) or any(one.verdict is not Verdict.IDENTICAL for some in runs for one in some):
            return None
        plain, sealed = (statistics.median(one.goodput for one in some) for some in runs)
        return sealed / plain if plain else None

    def line(self, variant: Variant) -> str:
        """For who watches."""
        ratio = f"{self.ratio:.2f}" if self.ratio and not _BY_NAME[variant.scenario].play else "-"
        errors = {error for one in self.sealed for error in one.errors}
        counts = (_tampered(self.sealed), _tampered(self.plain), _invalid(self.sealed), _invalid(self.plain))
        return (
            f"{variant.scenario:34} IPv{variant.version} {variant.shape:8} {_worst(self.sealed)} "
            f"({_worst(self.plain)}) tampered, INVALID {counts} goodput {ratio} {' '.join(sorted(errors))}"
        )


Found = dict[Variant, Runs]


def failures(found: Found) -> list[str]:
    """What came out otherwise than it may, a line each. Goodput is not among it: see the table."""
    wrong = []
    for variant, runs in found.items():
        scenario = _BY_NAME[variant.scenario]
        name = f"{variant.scenario}, IPv{variant.version}, {variant.shape}"
        allowed = {Verdict.IDENTICAL} | ({Verdict.ENDED} if scenario.may_end else set())
        allowed |= {one.verdict for one in runs.plain} - {Verdict.TAMPERED, Verdict.CUT}
        bad = {one.verdict for one in runs.sealed} - allowed
        wrong += [f"{name}: streams {verdict}" for verdict in sorted(bad)]
        if _tampered(runs.sealed):
            wrong.append(f"{name}: {_tampered(runs.sealed)} tampered bytes were read")
        if _invalid(runs.sealed) and not _invalid(runs.plain) and not scenario.resets:
            wrong.append(f"{name}: {_invalid(runs.sealed)} packets INVALID, none of plain TCP")
    return wrong


def page(found: Found, state: str) -> str:
    """The whole of it, in Markdown; `state` says when and where."""
    lines = [_HEAD, f"{state}.", ""]
    for group, scenarios in GROUPS.items():
        rows = [row for scenario in scenarios if (row := _row(scenario, found))]
        if rows:
            lines += [
                f"## {group}",
                "",
                "| scenario | what happens | streams | tampered | INVALID | goodput | target |",
                "| --- | --- | --- | --- | --- | --- | --- |",
                *rows,
                "",
            ]
    short = _short(found)
    lines += ["## Goodput below the target", "", *(short or ["None."]), ""]
    wrong = failures(found)
    lines += ["## What came out otherwise than it may", "", *([f"- {one}" for one in wrong] or ["Nothing."]), ""]
    return "\n".join(lines)


def _row(scenario: Scenario, found: Found) -> str:
    runs = [one for variant, one in found.items() if variant.scenario == scenario.name]
    if not runs:
        return ""
    sealed = [run for one in runs for run in one.sealed]
    plain = [run for one in runs for run in one.plain]
    streams = _worst(sealed) + (f" ({_worst(plain)})" if plain and _worst(plain) != _worst(sealed) else "")
    cells = [
        f"`{scenario.name}`",
        scenario.what,
        streams,
        f"{_tampered(sealed)} ({_tampered(plain)})" if plain else f"{_tampered(sealed)}",
        f"{_invalid(sealed)} ({_invalid(plain)})" if plain else f"{_invalid(sealed)}",
        _goodput([one.ratio for one in runs if one.ratio and not scenario.play]),
        f"{scenario.target:g}" if scenario.target else "",
    ]
    return "| " + " | ".join(cells) + " |"


def _goodput(ratios: list[float]) -> str:
    if not ratios:
        return ""
    return f"{statistics.geometric_mean(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _short(found: Found) -> list[str]:
    lines = []
    for scenario in SCENARIOS:
        ratios = [one.ratio for variant, one in found.items() if variant.scenario == scenario.name and one.ratio]
        if scenario.target and ratios and statistics.geometric_mean(ratios) < scenario.target:
            lines.append(f"- `{scenario.name}`: {statistics.geometric_mean(ratios):.2f} of {scenario.target:g}")
    return lines


def _worst(runs: list[Judgement]) -> str:
    order = list(Verdict)
    return max((one.verdict for one in runs), key=order.index).value if runs else "-"


def _tampered(runs: list[Judgement]) -> int:
    return sum(one.tampered for one in runs)


def _invalid(runs: list[Judgement]) -> int:
    return sum(one.invalid for one in runs)
