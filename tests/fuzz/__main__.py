"""Fuzzing: `python -m tests.fuzz [TARGET ...] --runs 1000000`, or as long as `--seconds` says.

atheris leads the inputs to code that none has reached, and keeps those that did in `--corpus`; where it is not there,
Hypothesis makes them without. An input that fails is written to the current folder and named, and
`python -m tests.fuzz TARGET FILE` tries it again.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.targets import CORPUS, NAMES, load

LONGEST = 4096


def lead(name: str, runs: int, seconds: int, corpus: list[str]) -> None:
    """atheris, in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=["mcencrypt"]):
        target = load(name)
    words = [f"-max_len={LONGEST}", "-print_final_stats=1", "-timeout=60", f"-artifact_prefix=fuzz-{name}-"]
    words += [f"-runs={runs}"] if runs else []
    words += [f"-max_total_time={seconds}"] if seconds else []
    atheris.Setup([sys.argv[0], *words, *corpus], target)
    atheris.Fuzz()


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
    end = time.monotonic() + seconds if seconds else None
    done = 0
    while (end is None or time.monotonic() < end) and (not runs or done < runs):
        some = min(1000, runs - done) if runs else 1000

        @settings(max_examples=some, deadline=None, database=None, suppress_health_check=list(HealthCheck),
                  phases=(Phase.generate, Phase.shrink))  # fmt: skip
        @given(inputs)
        def tried(data: bytes) -> None:
            target(data)

        tried()
        done += some
    print(f"{name}: {done} inputs")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("words", nargs="*", metavar="TARGET|FILE", help=f"of {', '.join(NAMES)}; all without any")
    made.add_argument("--runs", type=int, default=0, help="inputs for each target")
    made.add_argument("--seconds", type=int, default=0, help="for each target")
    made.add_argument("--corpus", type=Path, help="where to keep inputs that reach new code, a folder for each target")
    made.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
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
    if options.here:
        (name,) = names
        kept = options.corpus / name
        kept.mkdir(parents=True, exist_ok=True)
        # new inputs go to the first folder, and that is never the one in the repository
        lead(name, options.runs, options.seconds, [str(kept), str(CORPUS / name)])
        return 0
    if importlib.util.find_spec("atheris") is None:
        for name in names or NAMES:
            wander(name, options.runs, options.seconds)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        # a process for each, since atheris ends its own
        words = ["--here", f"--runs={options.runs}", f"--seconds={options.seconds}"]
        words += [f"--corpus={options.corpus or scratch}"]
        started = [subprocess.Popen([sys.executable, "-m", "tests.fuzz", name, *words]) for name in names or NAMES]
        return max(abs(process.wait()) for process in started)


if __name__ == "__main__":
    sys.exit(main())
