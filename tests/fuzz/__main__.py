"""Fuzzing: `python -m tests.fuzz [TARGET ...] --runs 1000000`, or as long as `--seconds` says.

atheris leads the inputs to code that none has reached, and keeps those that did in `--corpus`; where it is not there,
Hypothesis makes them without. It sees into sources only, and takes its time: some targets get a quarter of their inputs
that way, and the rest, made from what was found so, without it and compiled. An input that fails is written to the
current folder and named, and `python -m tests.fuzz TARGET FILE` tries it again.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1
from pathlib import Path
from random import Random

from tests.fuzz.targets import CORPUS, LED_AT_FIRST, NAMES, load

#: Bytes of an input.
LONGEST = 4096
#: Of the inputs for those that are led at first, how many that is: one in so many.
SHOWN = 4


def lead(name: str, runs: int, seconds: int, corpus: list[str]) -> None:
    """atheris, in this process, which ends with it."""
    import atheris

    import mcencrypt  # where it chooses sources, that comes first, or atheris would not see them

    assert mcencrypt.__path__
    with atheris.instrument_imports(include=["mcencrypt"]):
        target = load(name)
    words = [f"-max_len={LONGEST}", "-print_final_stats=1", "-timeout=60", f"-artifact_prefix=fuzz-{name}-"]
    words += [f"-runs={runs}"] if runs else []
    words += [f"-max_total_time={seconds}"] if seconds else []
    atheris.Setup([sys.argv[0], *words, *corpus], target)
    atheris.Fuzz()


def changed(seed: bytes, other: bytes, dice: Random) -> bytes:
    """An input made from one or two others: spliced, with bytes changed, left out, put in or repeated."""
    data = bytearray(seed)
    if dice.random() < 0.3:
        data[dice.randint(0, len(data)) :] = other[dice.randint(0, len(other)) :]
    for _ in range(dice.choice((1, 1, 2, 4, 8))):
        at, size, kind = dice.randint(0, len(data)), dice.choice((1, 1, 2, 4, 16)), dice.randrange(6)
        if kind == 0:
            data[at : at + size] = dice.randbytes(size)
        elif kind == 1:
            data[at : at + 1] = bytes(byte ^ 1 << dice.randrange(8) for byte in data[at : at + 1])
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = dice.randbytes(size)
        elif kind == 4:
            data[at:at] = data[at : at + 4 * size]
        else:
            data[at : at + 1] = dice.choice((b"\0", b"\x7f", b"\x80", b"\xff"))
    return bytes(data[:LONGEST])


def last(runs: int, seconds: int) -> Iterator[int]:
    """So many times, or until so much time has passed."""
    end = time.monotonic() + seconds if seconds else None
    done = 0
    while (end is None or time.monotonic() < end) and (not runs or done < runs):
        yield done
        done += 1


def stray(name: str, runs: int, seconds: int, corpus: list[str]) -> None:
    """Inputs made from those in the corpus, without looking at what they reach."""
    target, dice, done = load(name), Random(), 0
    seeds = [file.read_bytes() for folder in corpus for file in sorted(Path(folder).iterdir())] or [b""]
    for _ in last(runs, seconds):
        data = changed(dice.choice(seeds), dice.choice(seeds), dice)
        try:
            target(data)
        except BaseException:
            found = Path(f"fuzz-{name}-crash-{sha1(data).hexdigest()}")
            found.write_bytes(data)
            print(f"{name}: {found} fails", file=sys.stderr)
            raise
        done += 1
    print(f"{name}: {done} inputs made from {len(seeds)}, to code as it is used", file=sys.stderr)


def wander(name: str, runs: int, seconds: int) -> None:
    """Hypothesis, with what is in the corpus as a start."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    target = load(name)
    seeds = [file.read_bytes() for file in sorted((CORPUS / name).iterdir())] or [b""]
    inputs = st.one_of(
        st.binary(max_size=LONGEST), st.builds(lambda one, two, at: one[:at] + two, *[st.sampled_from(seeds)] * 2,
                                               st.integers(0, LONGEST)),
    )  # fmt: skip
    done = 0
    for _ in last(-(-runs // 1000), seconds):
        some = min(1000, runs - done) if runs else 1000

        @settings(max_examples=some, deadline=None, database=None, suppress_health_check=list(HealthCheck),
                  phases=(Phase.generate, Phase.shrink))  # fmt: skip
        @given(inputs)
        def tried(data: bytes) -> None:
            target(data)

        tried()
        done += some
    print(f"{name}: {done} inputs")


def led(name: str, runs: int, seconds: int, corpus: Path) -> int:
    """A target by atheris; returns the exit status. Each part has a process, since atheris ends its own."""
    parts: list[tuple[str, int, int, dict[str, str]]] = [("lead", runs, seconds, {})]
    if name in LED_AT_FIRST:
        shown_runs, shown_s = -(-runs // SHOWN), -(-seconds // SHOWN)
        parts = [("lead", shown_runs, shown_s, {"MCENCRYPT_INTERPRETED": "1"})]
        if runs > 1 or seconds > 1:
            parts.append(("stray", runs - shown_runs, seconds - shown_s, {}))
    for part, some, time_s, environment in parts:
        words = ["--part", part, "--runs", str(some), "--seconds", str(time_s), "--corpus", str(corpus)]
        command = [sys.executable, "-m", "tests.fuzz", name, *words]
        if status := subprocess.call(command, env=os.environ | environment):
            return abs(status)
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("words", nargs="*", metavar="TARGET|FILE", help=f"of {', '.join(NAMES)}; all without any")
    made.add_argument("--runs", type=int, default=0, help="inputs for each target")
    made.add_argument("--seconds", type=int, default=0, help="for each target")
    made.add_argument("--corpus", type=Path, help="where to keep inputs that reach new code, a folder for each target")
    made.add_argument("--part", choices=("lead", "stray"), help=argparse.SUPPRESS)
    return made


def main() -> int:
    options = parser().parse_args()
    names = [word for word in options.words if word in NAMES]
    files = [Path(word) for word in options.words if word not in NAMES]
    if files:
        for file in files:
            load(names[0])(file.read_bytes())
            print(f"{file}: passes")
        return 0
    if options.part:
        (name,) = names
        kept = options.corpus / name
        kept.mkdir(parents=True, exist_ok=True)
        # new inputs go to the first folder, and that is never the one in the repository
        part: Callable[[str, int, int, list[str]], None] = lead if options.part == "lead" else stray
        part(name, options.runs, options.seconds, [str(kept), str(CORPUS / name)])
        return 0
    if importlib.util.find_spec("atheris") is None:
        for name in names or NAMES:
            wander(name, options.runs, options.seconds)
        return 0
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(len(NAMES)) as beside:
        kept = options.corpus or Path(scratch)
        return max(beside.map(lambda name: led(name, options.runs, options.seconds, kept), names or NAMES))


if __name__ == "__main__":
    sys.exit(main())
