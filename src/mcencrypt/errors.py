"""The one exception that an operator is meant to read."""

from __future__ import annotations


class OperatorError(Exception):
    """Something an operator can put right.

    Its text is one line for stderr: what is wrong, where, and what to do.
    """
