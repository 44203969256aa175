"""What pytest must know before any test is collected."""

import pytest

# asserts of the helpers are told as those of the tests are
pytest.register_assert_rewrite("tests.helpers")
