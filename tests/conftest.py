"""What pytest must know before any test is collected, and how tests are shared out under `pytest -n`."""

from __future__ import annotations

import pytest

# asserts of the helpers are told as those of the tests are
pytest.register_assert_rewrite("tests.helpers")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> object:
    from tests.helpers.groups import Groups

    return Groups(config)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    from tests.helpers.schedule import rank

    if hasattr(config, "workerinput"):  # of a run that is shared out
        items.sort(key=lambda item: rank(item.nodeid))
