"""The real /proc."""

from __future__ import annotations

import os
from pathlib import Path


class Proc:
    """Files as `nodes.processes.Files` has them."""

    def text(self, path: str) -> str:
        return Path(path).read_text(errors="replace")

    def names(self, path: str) -> list[str]:
        return os.listdir(path)

    def target(self, path: str) -> str:
        return os.readlink(path)
