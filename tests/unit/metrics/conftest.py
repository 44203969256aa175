"""What the metrics are made of."""

from __future__ import annotations

from typing import Any

import pytest

from tests.helpers.packets import SYN
from tests.helpers.sides import OTHER, B, connected, make, say
from tests.helpers.station import snapshot_of


@pytest.fixture
def snapshot() -> dict[str, Any]:
    a, b = connected()
    say(a, b, b"hello")
    b.ingress(make(OTHER, B, 1, 0, SYN, b"garbage"))
    return snapshot_of(b.engine)
