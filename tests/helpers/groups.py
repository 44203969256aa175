"""pytest-xdist's scheduler for groups of tests, the longest first (see `schedule`)."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.helpers.schedule import group


class Groups(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives a worker one group after the other, in the order in which the tests were collected."""

    def __init__(self, config: pytest.Config, log: object) -> None:
        # by number of tests says nothing here
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)
