"""Compiles the packet path while the package is built: every module under src/ that has a .pxd beside it.

The sources stay plain Python (or, for the few functions under them, a .pyx with an interpreted twin); Cython makes C of
them. The results go into the wheel beside their sources or, for an editable installation, into the tree.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("src")
#: Where C code and objects stay that go into the tree, so that only what has changed is compiled again.
SCRATCH = Path("build/compiled")
#: Libraries that a module is linked with.
LIBRARIES = {"mcencrypt.core.noisecrypto": ["crypto"], "mcencrypt.core.prim": ["crypto"]}
#: What the compiler is told, unless whoever builds says it in CFLAGS.
FLAGS = () if os.environ.get("CFLAGS") else ("-O3", "-g0")
DIRECTIVES = {"annotation_typing": False, "language_level": 3}


def modules() -> dict[str, Path]:
    """The modules to compile, by name, and the source of each."""
    found = {}
    for types in sorted(SOURCES.rglob("*.pxd")):
        name = ".".join(types.relative_to(SOURCES).with_suffix("").parts)
        compiled = types.with_suffix(".pyx")
        found[name] = compiled if compiled.exists() else types.with_suffix(".py")
    return found


def compile_into(target: Path, scratch: Path, flags: Sequence[str] = FLAGS) -> list[Path]:
    """Compile all modules below `target`, with `flags` for the compiler and the linker; returns the files made."""
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    extensions = [
        Extension(
            name,
            [str(source)],
            libraries=LIBRARIES.get(name, []),
            extra_compile_args=list(flags),
            extra_link_args=list(flags),
        )
        for name, source in modules().items()
    ]
    made = cythonize(
        extensions,
        include_path=[str(SOURCES)],
        compiler_directives=DIRECTIVES,
        build_dir=str(scratch),
        nthreads=os.cpu_count() or 1,
        quiet=True,
    )
    builder = build_ext(Distribution({"ext_modules": made}))
    builder.build_lib, builder.build_temp = str(target), str(scratch)
    builder.parallel = os.cpu_count()
    builder.ensure_finalized()
    builder.run()
    return [Path(file) for file in builder.get_outputs()]


class CompiledPath(BuildHookInterface[Any]):
    """Hatch calls this before it packs."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        os.chdir(self.root)
        if version == "editable":
            compile_into(SOURCES, SCRATCH)
        else:
            self._scratch = tempfile.TemporaryDirectory()
            target = Path(self._scratch.name, "lib")
            for file in compile_into(target, Path(self._scratch.name, "c")):
                build_data["force_include"][str(file)] = str(file.relative_to(target))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True


if __name__ == "__main__":  # `make dev`, after a change: what is newer than what was made of it, into the tree
    compile_into(SOURCES, SCRATCH)
