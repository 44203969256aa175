from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcencrypt.core import egress
from tests.helpers.world import set_calm


@pytest.fixture(autouse=True)
def the_true_calm() -> Iterator[None]:
    """Worlds change when records become larger; other tests must not see that."""
    kept = egress.CALM_AFTER
    yield
    set_calm(kept)
