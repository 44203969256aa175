"""What pytest must know before any test is collected, and how tests are shared out under `pytest -n`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lab import nursery

# No deadlines, which a busy machine breaks. HYPOTHESIS_PROFILE=deep tries other examples each time; without it they are
# the same ones, so that a change is judged by what it changed.
for _name, _same in (("same", True), ("deep", False)):
    settings.register_profile(
        _name, deadline=None, print_blob=True, derandomize=_same, suppress_health_check=list(HealthCheck)
    )
settings.load_profile("deep" if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else "same")

# asserts of the helpers are told as those of the tests are
pytest.register_assert_rewrite("tests.helpers")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    from tests.helpers.groups import Groups

    return Groups(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from tests.helpers.schedule import rank

    if hasattr(config, "workerinput"):  # of a run that is shared out
        items.sort(key=lambda item: rank(item.nodeid))


def pytest_configure() -> None:
    """Nothing is tested that was compiled from what the sources were before.

    Daemons and other programs of ours are copies of a process that has imported them, but for MCENCRYPT_FULL=1.
    """
    if os.environ.get("MCENCRYPT_FULL", "") in ("", "0"):
        nursery.use()
    sources = Path(__file__).parents[1] / "src" / "mcencrypt"
    for types in sources.rglob("*.pxd"):
        for made in types.parent.glob(f"{types.stem}.*.so"):
            if any(one.stat().st_mtime > made.stat().st_mtime for one in types.parent.glob(f"{types.stem}.p*")):
                pytest.exit(f"{made.relative_to(sources)} is older than its source: `make dev`", returncode=1)
