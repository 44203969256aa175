"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the tree: what they add works and passes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("src", "lab", "tests", "docs", "docker", "iptables", "tools", "pyproject.toml", "README.md", "CHANGELOG.md",
          "CONTRIBUTING.md", "SECURITY.md", "THIRD-PARTY.md", "LICENSE")  # fmt: skip
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def blocks(heading: str) -> list[str]:
    """The blocks of code below a heading, without their indentation."""
    section = TEXT.split(f"### {heading}\n")[1].split("\n### ")[0].split("\n## ")[0]
    found = re.findall(r"(?:^ {7}.*\n|^\n(?=\n* {7}))+", section, re.MULTILINE)
    return [textwrap.dedent(block).strip("\n") + "\n" for block in found]


class Tree:
    """A copy of what the recipes touch."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
            else:
                shutil.copyfile(source, root / name)

    def create(self, path: str, text: str) -> None:
        assert not (self.root / path).exists(), f"{path} is there: the recipe needs another example"
        (self.root / path).write_text(text)

    def append(self, path: str, text: str) -> None:
        with open(self.root / path, "a") as file:
            file.write(f"\n\n{text}")

    def replace(self, path: str, old: str, new: str, count: int = 1) -> None:
        """What the recipe says in words: `old` is where it says that the change belongs."""
        file = self.root / path
        text = file.read_text()
        assert text.count(old) == count, (
            f"{path} has {old!r} {text.count(old)} times: does CONTRIBUTING.md still say it?"
        )
        file.write_text(text.replace(old, new))

    def passes(self, *words: str) -> None:
        for command in (["pytest", "-q", "-p", "no:cacheprovider", *words], ["ruff", "check", "src", "tests"]):
            done = subprocess.run(
                [sys.executable, "-m", *command], cwd=self.root, capture_output=True, text=True, timeout=90
            )
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.subprocesses
def test_translate_another_option(tree: Tree) -> None:
    first, function, second, to_wire, to_plain = blocks("Translate another TCP option")
    options, core = "src/mcencrypt/core/options.py", "src/mcencrypt/core"
    tree.replace(
        "tests/unit/core/test_options.py", "read_syn, translate_sack", "read_syn, translate_mark, translate_sack"
    )
    tree.append("tests/unit/core/test_options.py", first)
    tree.replace(f"{core}/kinds.py", "\n\n\ndef walk", "\nMARK = 253\n\n\ndef walk")
    tree.replace(options, "from .kinds import NOP", "from .kinds import MARK, NOP")
    tree.append(options, function)
    tree.append("tests/unit/core/test_flow.py", second)
    for file, name, shortest, new in (
        (f"{core}/flow.py", "_options_to_wire", "length < 10", to_wire),
        (f"{core}/receiving.py", "_options_to_plain", ">= 10", to_plain),
    ):
        tree.replace(file, "timestamps, translate_sack", "timestamps, translate_mark, translate_sack")
        tree.replace(file, shortest, shortest.replace("10", "6"))
        text = (tree.root / file).read_text()
        function = re.search(rf"    def {name}\(.*?(?=\n    def |\n    # -- |\n\n\n)", text, re.DOTALL)
        assert function is not None
        start = function[0].index("        return translate_sack(")
        tree.replace(file, function[0], function[0][:start] + textwrap.indent(new, " " * 8))
    tree.passes("tests/unit/core/test_options.py", "tests/unit/core/test_flow.py", "-k", "mark or sack")


@pytest.mark.subprocesses
def test_add_a_command(tree: Tree) -> None:
    test, module = blocks("Add a command")
    tree.create("tests/unit/cli/test_ports.py", test)
    tree.create("src/mcencrypt/cli/ports.py", module)
    tree.replace(
        "src/mcencrypt/cli/__init__.py", "_COMMANDS = {\n", '_COMMANDS = {\n    "ports": ("ports", "ports"),\n'
    )
    row = "| `mcencrypt rules` |"
    tree.replace("README.md", row, f"| `mcencrypt ports` | the P2P ports, one a line |\n{row}")
    tree.passes(
        "tests/unit/cli/test_ports.py", "tests/unit/test_docs.py", "-k", "port or readme or every_command_has_help"
    )


@pytest.mark.subprocesses
def test_add_a_check_to_doctor(tree: Tree) -> None:
    test, module = blocks("Add a check to doctor")
    tree.create("tests/unit/doctor/test_swap.py", test)
    (entry,) = re.findall(r'`("/proc/swaps": .*?,)`', TEXT)
    tree.replace(
        "tests/helpers/recorded_machine.py", '        "/proc/meminfo"', f'        {entry}\n        "/proc/meminfo"'
    )
    tree.create("src/mcencrypt/doctor/swap.py", module)
    checks = "src/mcencrypt/doctor/checks.py"
    tree.replace(checks, "    running,\n", "    running,\n    swap,\n")
    tree.replace(checks, '    "clock": (', '    "memory": (swap.check_swap,),\n    "clock": (')
    tree.passes("tests/unit/doctor/test_swap.py", "tests/unit/doctor/test_checks.py")
