"""Daemons whose session keys change every MiB, instead of every 4 GiB."""

from __future__ import annotations

import sys
from typing import Final

from tests.helpers.nodes import Node

EPOCH_BITS: Final = 20
# The size is part of the protocol, and so no setting.
_SMALL_EPOCHS: Final = f"""
from functools import partial
from mcencrypt.core import making
from mcencrypt.core.record import Keys
assert making.Keys is Keys, "that is not where they are made any more"
making.Keys = lambda key, bits: Keys(key, {EPOCH_BITS})
from mcencrypt.cli import main
main()
"""


def with_small_epochs(node: Node) -> None:
    """Restart its daemon with small epochs."""
    usual = node._words
    node._words = lambda *words: [sys.executable, "-c", _SMALL_EPOCHS, *usual(*words)[3:]]  # type: ignore[method-assign]
    node.restart()
    node._words = usual  # type: ignore[method-assign]
