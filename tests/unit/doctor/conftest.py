"""A machine that is healthy until a test changes it."""

from __future__ import annotations

import pytest

from tests.helpers.recorded_machine import Recorded


@pytest.fixture
def machine() -> Recorded:
    return Recorded()
