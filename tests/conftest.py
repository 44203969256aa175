"""What pytest must know before any test is collected."""

import pytest
from hypothesis import HealthCheck, settings

# asserts of the helpers are told as those of the tests are
pytest.register_assert_rewrite("tests.helpers")

# how long an example takes is the machine's affair: a busy one is no fault of the code
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
