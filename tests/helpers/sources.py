"""What the sources import of each other, read from their text: nothing is run, and imports inside functions count."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Import(NamedTuple):
    """One import, of one name."""

    importer: str
    imported: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.importer} imports {self.imported}"


def modules(base: Path, package: str) -> dict[str, Path]:
    """The modules of a package whose folder is in `base`, by their full name."""
    found = {}
    for path in sorted((base / package).rglob("*.py")):
        parts = path.relative_to(base).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(sources: Mapping[str, Path]) -> Iterator[Import]:
    """Everything that these modules import, wherever in the file, for types only as well.

    ``from package import module`` is an import of that module if it is one of `sources`.
    """
    for module, path in sources.items():
        shown = os.path.relpath(path, ROOT)
        for node in _statements(ast.parse(path.read_text(), str(path))):
            place = f"{shown}:{node.lineno}"
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(module, alias.name, place)
            elif isinstance(node, ast.ImportFrom):
                package = _absolute(module, path, node)
                for alias in node.names:
                    full = f"{package}.{alias.name}"
                    yield Import(module, full if full in sources else package, place)


def _statements(node: ast.AST) -> Iterator[ast.stmt]:
    """All statements, those inside others as well; no expression holds any."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _statements(child)


def _absolute(module: str, path: Path, node: ast.ImportFrom) -> str:
    """The full name of what ``from .x import y`` names."""
    if not node.level:
        assert node.module
        return node.module
    parts = module.split(".")
    keep = len(parts) - node.level + (path.name == "__init__.py")
    return ".".join([*parts[:keep], *(node.module or "").split(".")]).rstrip(".")


def within(module: str, *packages: str) -> bool:
    """Whether the module is one of these, or in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def circles(found_imports: Iterable[Import]) -> list[list[str]]:
    """Groups of modules of which each imports, by way of others, each (Tarjan's strongly connected components)."""
    arrows: dict[str, set[str]] = {}
    for one in found_imports:
        arrows.setdefault(one.importer, set()).add(one.imported)
        arrows.setdefault(one.imported, set())
    found: list[list[str]] = []
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for other in arrows[module]:
            if other not in index:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in stack:
                lowest[module] = min(lowest[module], index[other])
        if lowest[module] == index[module]:
            at = stack.index(module)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1 or module in arrows[module]:
                found.append(sorted(group))

    for module in list(arrows):
        if module not in index:
            visit(module)
    return found
