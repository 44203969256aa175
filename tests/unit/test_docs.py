"""What the documents say exists: commands, options, configuration keys, metrics, files, headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from mcencrypt.cli import cli
from mcencrypt.store import config, values

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
#: All but the one that makes up a command and a setting, to show how; test_recipes.py follows it.
MANUALS = [document for document in DOCUMENTS if document.name != "CONTRIBUTING.md"]
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "2>&1", "#"}
_VARIABLE = re.compile(r"\bMCENCRYPT_([A-Z_]+)\b")
_METRIC = re.compile(r"\bmcencrypt_[a-z][a-z_]+\b")


class Invocation(NamedTuple):
    """A call of mcencrypt in a document."""

    document: Path
    line: int
    #: What follows the program's name, as far as the call goes.
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.document.name}:{self.line}: mcencrypt {' '.join(self.words)}"


def code(document: Path) -> Iterator[tuple[int, str]]:
    """(line number, text) of everything that is set as code: blocks line by line, and words in backticks."""
    fenced = False
    for number, line in enumerate(document.read_text().splitlines(), start=1):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif fenced or (line.startswith("    ") and not re.match(r"\s*([-*]|\d+\.) ", line)):
            yield number, line.strip()
        else:
            for match in _CODE.finditer(line):
                yield number, match[1]


def invocations(document: Path) -> Iterator[Invocation]:
    for number, text in code(document):
        for match in re.finditer(r"(?:^|[\s/(])mcencrypt(?=\s(.*))", text):
            try:
                words = shlex.split(match[1], comments=True)
            except ValueError:
                words = match[1].split()
            call: list[str] = []
            for word in words:
                if word in _ENDS or word.startswith(("#", ">", "(")):
                    break
                call.append(word.rstrip(";,"))
                if word.endswith(";"):
                    break
            # a program, package or host of that name, in a command of another program or in a listing
            if call and (command_of(call[0]) or call[0].startswith("-") or text.startswith("mcencrypt ")):
                yield Invocation(document, number, tuple(call))


def command_of(word: str) -> click.Command | None:
    return cli.get_command(click.Context(cli), word)


def leaves(command: click.Command = cli, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, and the words that call it."""
    if not isinstance(command, click.Group) or (path and command.invoke_without_command):
        yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves(found, (*path, name))


def problem(words: tuple[str, ...]) -> str:
    """What is wrong with a call, "" if nothing is."""
    command: click.Command = cli
    options = _options(command)
    for word in words:
        # usage notation: [--now], on|off, NAME|PID
        for bare in filter(None, re.split(r"[\[\]|]|\.\.\.", word)):
            if bare.startswith("-") and bare != "-":
                if bare.partition("=")[0] not in options:
                    return f"no option {bare}"
            elif isinstance(command, click.Group):
                found = command.get_command(click.Context(command), bare)
                if found is None:
                    if not command.invoke_without_command or bare.islower():
                        return f"no command {bare}"
                    continue
                if bare == word.strip("[]"):
                    command = found
                    options = _options(command)
                else:
                    options |= _options(found)
    return ""


def _options(command: click.Command) -> set[str]:
    named = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    return {name for name in named if name.startswith("-")} | {"--help", "-h"}


def slugs(document: Path) -> set[str]:
    """The anchors that GitHub gives a document's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.+)$", _FENCE.sub("", document.read_text()), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = 1
        while (candidate := slug if number == 1 else f"{slug}-{number - 1}") in found:
            number += 1
        found.add(candidate)
    return found


@pytest.mark.parametrize("document", MANUALS, ids=lambda path: path.name)
def test_every_call_is_possible(document: Path) -> None:
    wrong = [f"{call}: {what}" for call in invocations(document) if (what := problem(call.words))]
    assert not wrong


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("on", ""),
        ("off [--now]", ""),
        ("status --json", ""),
        ("frobnicate", "no command frobnicate"),
        ("off --later", "no option --later"),
        ("on|off", ""),
        ("on|away", "no command away"),
    ],
)
def test_what_is_impossible_is_found(words: str, wrong: str) -> None:
    assert problem(tuple(words.split())) == wrong


def test_calls_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Run `mcencrypt on`.\n\n    sudo mcencrypt status --json | jq .totals   # mcencrypt bends\n"
        "    docker compose exec mcencrypt mcencrypt off --now\n"
    )
    assert [call.words for call in invocations(page)] == [("on",), ("status", "--json"), ("off", "--now")]


def test_every_command_is_in_the_readme() -> None:
    called = {word for call in invocations(ROOT / "README.md") for word in "|".join(call.words[:1]).split("|")}
    assert set(cli.list_commands(click.Context(cli))) <= called


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    table = re.findall(r"^\| `([a-z_0-9]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(values.KEYS)


def test_defaults_in_the_readme_are_true() -> None:
    plain = config.Config()
    for key, shown in re.findall(r"^\| `([a-z_0-9]+)` \| `([^`]*)` \|", (ROOT / "README.md").read_text(), re.MULTILINE):
        value = getattr(plain, key)
        written = shown.strip('"')
        assert written == ("[]" if value == () else f"{value:#x}" if "mark" in key else str(value)), key


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_variable_exists(document: Path) -> None:
    known = {key.upper() for key in values.KEYS} | config._NOT_KEYS | {"FULL", "TEST_SCALE"}
    assert {name for name in _VARIABLE.findall(document.read_text()) if name != "KEY"} <= known


@pytest.mark.parametrize("document", MANUALS, ids=lambda path: path.name)
def test_every_setting_in_a_block_exists(document: Path) -> None:
    """Lines `key = value` in code, of which at least one key is ours: then all of that block must be."""
    found = [text for _, text in code(document)]
    assigned = {match[1] for text in found if (match := re.match(r"([a-z_]+) = [\"\[0-9]", text))}
    assert assigned <= set(values.KEYS) | {"name", "key"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    wrong = []
    for pair in _LINK.findall(_FENCE.sub("", document.read_text())):
        target = pair[0] or pair[1]
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        if not file.exists() or (anchor and anchor not in slugs(file)):
            wrong.append(target)
    assert not wrong


def test_every_document_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        document = waiting.pop()
        if document in reached or document.suffix != ".md" or not document.exists():
            continue
        reached.add(document)
        for pair in _LINK.findall(document.read_text()):
            target = (pair[0] or pair[1]).partition("#")[0]
            if target and ":" not in target:
                waiting.append((document.parent / target).resolve())
    assert set(DOCUMENTS) <= reached


COMMANDS = dict(leaves())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_a_possible_example(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    with click.Context(command, info_name=f"mcencrypt {' '.join(words)}") as context:
        text = command.get_help(context)
    _, _, example = text.partition("Example:\n")
    calls = [line.strip() for line in example.splitlines() if "mcencrypt " in line]
    assert calls, f"mcencrypt {' '.join(words)} --help shows no example"
    for line in calls:
        after = shlex.split(line.split("mcencrypt ", 1)[1].partition("|")[0].partition("&&")[0], comments=True)
        assert not problem(tuple(after)), line
    assert command.help and command.help.strip().endswith((".", ")")), "a command says in sentences what it does"


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_refuses_what_it_does_not_know(words: tuple[str, ...]) -> None:
    from click.testing import CliRunner

    result = CliRunner().invoke(cli, [*words, "--no-such-option"])
    assert result.exit_code == 2 and result.stdout == ""
    assert result.stderr.startswith("mcencrypt: ") and result.stderr.count("\n") == 1
    assert f"mcencrypt {' '.join(words)} --help" in result.stderr


def test_metrics_are_those_in_the_documents() -> None:
    pytest.importorskip("prometheus_client")
    from mcencrypt.metrics.families import families
    from tests.helpers.sides import Side
    from tests.helpers.station import snapshot_of

    samples = {sample.name for family in families(snapshot_of(Side().engine)) for sample in family.samples}
    ours = {name for name in samples if name.startswith("mcencrypt_")}
    named = {name for document in DOCUMENTS for name in _METRIC.findall(document.read_text())}
    assert named == ours


def test_tests_that_are_named_exist() -> None:
    """In docs/security.md each attack names what holds it, as a file of tests, or a program of benchmarks/."""
    table = (ROOT / "docs" / "security.md").read_text().partition("\n## Attacks\n")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 30
    kinds = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()} | {"benchmarks"}
    for row in rows:
        assert [bool(cell.strip()) for cell in row.split("|")] == [False, True, True, True, True, False], row
        named = [text for text in _CODE.findall(row.rsplit("|", 2)[1]) if text.partition("/")[0] in kinds]
        files = [ROOT / one if one.startswith("benchmarks/") else ROOT / "tests" / f"{one}.py" for one in named]
        assert files and all(file.is_file() for file in files), row
