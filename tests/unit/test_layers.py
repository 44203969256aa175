"""Which module may import which, and why: the map of the code, held to it.

An import that has to be added here is a decision; the reason beside it says what it gives up.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.helpers.sources import ROOT, Import, circles, imports, modules, within

#: A screen or two per idea.
LONGEST_FILE = 420


class Room(NamedTuple):
    """A package of mcencrypt, or a module beside them."""

    name: str
    #: What it may import of the others.
    knows: tuple[str, ...]
    #: Why no more.
    why: str


#: From the bottom to the top: a room knows only such as stand before it, so that each can be read, tested and changed
#: without what stands on it.
ROOMS = (
    Room("errors", (), "everything raises them"),
    Room("version", (), "it is a line that builds read"),
    Room("interpreted", (), "it decides how the others are loaded, before any of them is"),
    Room("target", (), "the name of a namespace is text, whoever enters it"),
    Room("logwriter", (), "it writes what it gets, for whoever logs"),
    Room("logs", ("logwriter",), "whatever logs would be imported in a circle"),
    Room("core", (), "it gets packets, time, randomness and says what to do: two of it talk to each other in a test"),
    Room("kernel", ("core", "errors", "target"), "it is told what to ask the kernel: it knows no configuration"),
    Room("control", ("core", "errors", "interpreted"), "it carries commands and answers, and gives none"),
    Room("store", ("core", "errors", "target"), "files are read and written where there is no daemon and no queue"),
    Room("nodes", ("store",), "it looks at processes and files, where no daemon runs too"),
    Room("reading", ("core", "errors"), "captures are read without keys, without a daemon, on any machine"),
    Room(
        "metrics",
        ("core", "control", "store", "errors", "interpreted", "logs"),
        "its exporter faces the network; it gets numbers, no objects",
    ),
    Room("system", ("errors", ""), "it puts files into a system where mcencrypt may never have run"),
    Room(
        "doctor",
        ("core", "kernel", "control", "store", "nodes", "system", "errors", "target", "version"),
        "it examines where no daemon can run",
    ),
    Room(
        "daemon",
        (
            "core",
            "kernel",
            "control",
            "store",
            "nodes",
            "metrics",
            "errors",
            "interpreted",
            "logs",
            "target",
            "version",
        ),
        "it is driven by its socket and its signals, not by the command line that started it",
    ),
    Room(
        "cli",
        (
            *("core", "kernel", "control", "store", "reading", "system", "doctor", "daemon"),
            *("errors", "interpreted", "logs", "logwriter", "version"),
        ),
        "it is the top",
    ),
    Room("__main__", ("cli",), "it is the command line under another name"),
    Room("", ("interpreted",), "what a package does when it is imported, every module of it does"),
)


class Rule(NamedTuple):
    """Modules that may not import others."""

    who: str
    what: tuple[str, ...]
    why: str
    #: Modules that may.
    but: tuple[str, ...] = ()


RULES = (
    Rule(
        "core",
        ("socket", "ssl", "select", "selectors", "asyncio", "fcntl", "mmap", "signal"),
        "the core does no I/O: its verdicts are a function of packets, and a fault can be played again",
    ),
    Rule(
        "core",
        ("os", "pathlib", "io", "shutil", "tempfile", "subprocess", "multiprocessing", "logging", "sys"),
        "the core does no I/O: what it has to report are events",
    ),
    Rule("core", ("time", "datetime"), "time is passed in: tests let hours pass in no time"),
    Rule("core", ("random", "secrets", "uuid"), "randomness is passed in: tests repeat a handshake byte for byte"),
    Rule("core", ("threading", "concurrent", "queue"), "the engine belongs to one thread; a lock per packet is speed"),
    Rule(
        "",
        ("threading", "concurrent", "multiprocessing", "asyncio"),
        "one thread and one loop: a namespace is entered by a thread, and a packet waits for no lock and no scheduler",
        but=("metrics.exporter",),  # a process of its own, with a thread per client
    ),
    Rule(
        "",
        ("random",),
        "what others must not guess comes from os.urandom or secrets",
        but=("doctor.path",),  # the ports of a SYN that only has to differ from the one before
    ),
    Rule("", ("pickle", "marshal", "shelve", "dbm"), "what is read from a file or a socket must never be code"),
    Rule("", ("lab", "tests"), "they are not in the package: an operator does not have them"),
    Rule(
        "daemon",
        ("subprocess", "multiprocessing"),
        "no packet gets a verdict while a child is waited for: it runs iptables by way of `kernel`, the exporter by way"
        " of `metrics`, and nothing else",
    ),
    Rule(
        "cli",
        ("mcencrypt.daemon",),
        "a command asks the daemon over its socket: what runs may be another version, in another namespace",
        but=("cli.daemon",),  # is the daemon
    ),
    Rule(
        "metrics",
        ("mcencrypt.store", "mcencrypt.core.keyring", "mcencrypt.core.handshake", "mcencrypt.core.noise"),
        "the exporter faces the network and has no keys, nor code that reads them",
        but=("metrics.supervisor",),  # the daemon's part of it
    ),
    Rule("", ("mcencrypt.reading.dissector",), "it loads scapy, which no command but `decode` may (THIRD-PARTY.md)"),
    Rule("reading", ("mcencrypt.core.noise", "mcencrypt.core.keyring"), "captures are judged without any key"),
)


class Foreign(NamedTuple):
    """A package of others, and who may import it."""

    package: str
    users: tuple[str, ...]
    why: str


FOREIGN = (
    Foreign(
        "cryptography",
        ("core", "store.keys", "store.signedpeers"),
        "keys stay where they are used and where they are read",
    ),
    Foreign("netfilterqueue", ("kernel.queue",), "one place gives verdicts: one that is too long lets plaintext out"),
    Foreign("click", ("cli", "system"), "only the command line, and what is made of its help, has options"),
    Foreign("rich", ("cli.top", "cli.top_screen"), "it doubles the start of whatever imports it; only `top` draws"),
    Foreign("tomlkit", ("store.peers",), "slow, and needed only where a file of the operator's is changed"),
    Foreign("prometheus_client", ("metrics.exporter", "metrics.families"), "5 MB, in the exporter's process alone"),
    Foreign(
        "scapy",
        ("reading.capture", "reading.dissector"),
        "half a second, 30 MB, and packets that strangers shape: it reads captures and is never in the packet path",
    ),
    Foreign(
        "pyroute2", ("doctor.routingrules",), "0.2 s and 25 MB at start, an asyncio loop in each call: doctor has time"
    ),
)


@functools.cache
def sources(package: str) -> dict[str, Path]:
    return modules(ROOT / "src" if package == "mcencrypt" else ROOT, package)


@functools.cache
def imported(package: str) -> list[Import]:
    return list(imports(sources(package)))


def broken(found: Sequence[object], why: str) -> str:
    return "\n".join([*map(str, found), f"must not be: {why}"])


def room_of(module: str) -> str:
    """The room that a module of mcencrypt is in."""
    return [*module.split("."), ""][1]


def test_every_room_is_on_the_map_and_knows_only_what_stands_below() -> None:
    names = [room.name for room in ROOMS]
    assert sorted(names) == sorted({room_of(module) for module in sources("mcencrypt")})
    for number, room in enumerate(ROOMS):
        below = {*names[:number], ""}
        assert set(room.knows) <= below, f"{room.name or 'mcencrypt'} knows a room above itself"


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.name or "mcencrypt")
def test_a_room_knows_the_rooms_that_the_map_shows(room: Room) -> None:
    used = [
        one for one in imported("mcencrypt") if room_of(one.importer) == room.name and within(one.imported, "mcencrypt")
    ]
    wrong = [one for one in used if room_of(one.imported) not in (room.name, *room.knows)]
    assert not wrong, broken(wrong, room.why)
    idle = set(room.knows) - {room_of(one.imported) for one in used}
    assert not idle, f"{room.name} imports nothing of {', '.join(idle)} any more: take that permission away"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.who or 'mcencrypt'}-{rule.what[0]}")
def test_forbidden_imports(rule: Rule) -> None:
    who = f"mcencrypt.{rule.who}".rstrip(".")
    named = [one for one in imported("mcencrypt") if within(one.importer, who) and within(one.imported, *rule.what)]
    wrong = [one for one in named if not within(one.importer, *(f"mcencrypt.{module}" for module in rule.but))]
    assert not wrong, broken(wrong, rule.why)
    for module in rule.but:
        assert any(within(one.importer, f"mcencrypt.{module}") for one in named), f"{module} needs no exception now"


def test_packages_of_others_are_imported_where_the_table_says() -> None:
    users = {one.package: one for one in FOREIGN}
    for one in imported("mcencrypt"):
        package = one.imported.split(".")[0]
        if package in ("mcencrypt", *sys.stdlib_module_names):
            continue
        assert package in users, broken([one], "no package of others enters without a line in the table above")
        allowed = [f"mcencrypt.{module}" for module in users[package].users]
        assert within(one.importer, *allowed), broken([one], users[package].why)


@pytest.mark.parametrize("package", ["mcencrypt", "lab", "tests"])
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    assert not (found := circles(imported(package))), broken(
        found, "in a circle, which is imported first decides what fails"
    )


def test_no_test_imports_another() -> None:
    rooms = ("tests.unit", "tests.property", "tests.real", "tests.containers")
    wrong = [one for one in imported("tests") if within(one.imported, *rooms)]
    assert not wrong, broken(wrong, "a test is read, run and changed alone; what several need stands in tests/helpers")


#: Files of tests/unit that test something else than the module of their name.
NO_MIRROR = {
    "tests.unit.cli.test_cli": "the command line as a whole",
    "tests.unit.cli.test_screens": "what several commands show, at several widths",
    "tests.unit.core.test_carriers": "a handshake message of one carrier in the other, in several modules",
    "tests.unit.core.test_plaintext": "what plaintext connections go through, in several modules",
    "tests.unit.lab.test_programs": "the lab's small programs, run as such",
    "tests.unit.metrics.test_monitoring": "dashboard and alerts of docs/monitoring",
}


def test_tests_stand_where_what_they_test_stands() -> None:
    tested = {module.removeprefix("mcencrypt.") for module in sources("mcencrypt")} | set(sources("lab"))
    files = [module for module in sources("tests") if module.startswith("tests.unit.") and ".test_" in module]
    mirrored = {module: module.removeprefix("tests.unit.").replace("test_", "") for module in files}
    odd = {module for module, of in mirrored.items() if "." in of and not {of, of.rpartition("_")[0]} & tested}
    assert odd == set(NO_MIRROR), "tests/unit/ROOM/test_NAME.py, or test_NAME_PART.py, tests that room's module NAME"


def test_the_lab_knows_no_tests() -> None:
    wrong = [one for one in imported("lab") if within(one.imported, "tests", "pytest")]
    assert not wrong, broken(wrong, "demo and benchmarks are built from the lab, where no pytest is")


def test_no_file_is_too_long() -> None:
    written = [
        path for room in ("src", "lab", "tests") for kind in ("py", "pyx") for path in (ROOT / room).rglob(f"*.{kind}")
    ]
    scripts = [path for room in ("benchmarks", "tools") for path in (ROOT / room).iterdir() if path.is_file()]
    lines = {path.relative_to(ROOT): path.read_text().count("\n") for path in (*written, *scripts)}
    wrong = [f"{path}: {count} lines" for path, count in lines.items() if count > LONGEST_FILE]
    assert not wrong, broken(wrong, f"a file is one idea, of {LONGEST_FILE} lines at most")


class Start(NamedTuple):
    """What a program must not load to start, its dependencies' imports included."""

    module: str
    unwanted: tuple[str, ...]
    why: str


STARTS = (
    Start(
        "mcencrypt.cli",
        ("mcencrypt.daemon", "mcencrypt.core", "mcencrypt.kernel", "mcencrypt.store", "cryptography", "rich", "tomlkit",
         "prometheus_client", "netfilterqueue", "scapy", "asyncio", "subprocess", "importlib.metadata"),
        "every command pays for it, and the shell's completion with each press of Tab",
    ),
    Start(
        "mcencrypt.control.client",
        ("mcencrypt.core", "mcencrypt.store", "cryptography", "asyncio", "subprocess"),
        "a health check asks every few seconds",
    ),
    Start(
        "mcencrypt.store.config",
        ("cryptography",),
        "most commands read the configuration, and few of them a private key: a third of the time that they take",
    ),
    Start(
        "mcencrypt.daemon.elsewhere",
        ("click", "rich", "scapy", "asyncio", "prometheus_client", "tomlkit", "pyroute2", "importlib.metadata",
         "mcencrypt.cli", "mcencrypt.doctor", "mcencrypt.reading", "mcencrypt.system", "mcencrypt.metrics.exporter"),
        "the daemon stays for years: memory that it does not use, and code that a stranger's packet could reach",
    ),
    Start(
        "mcencrypt.reading.judge",
        ("scapy",),
        "`verify` looks at the wire without scapy's licence and weight (THIRD-PARTY.md)",
    ),
    Start(
        "mcencrypt.metrics.exporter",
        ("cryptography", "netfilterqueue", "mcencrypt.store", "mcencrypt.kernel", "mcencrypt.daemon", "asyncio"),
        "it faces the network as nobody: no keys, no rights, and no code for either",
    ),
)  # fmt: skip


@pytest.mark.subprocesses
@pytest.mark.parametrize("start", STARTS, ids=lambda start: start.module)
def test_what_a_program_loads_to_start(start: Start) -> None:
    code = f"import sys; import {start.module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    wrong = [module for module in loaded if within(module, *start.unwanted)]
    assert not wrong, broken(wrong, f"loaded by {start.module}: {start.why}")


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "house" / "room").mkdir(parents=True)
    (tmp_path / "house" / "__init__.py").write_text("from .room import door\n")
    (tmp_path / "house" / "room" / "__init__.py").touch()
    (tmp_path / "house" / "room" / "door.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..wall import Brick\n"
        "def open():\n    import socket, os.path\n    from . import handle as h\n"
    )
    (tmp_path / "house" / "room" / "handle.py").write_text("from house import room\nimport house.room.door\n")
    (tmp_path / "house" / "wall.py").write_text("from house.room.door import open\n")
    found = list(imports(modules(tmp_path, "house")))
    assert [(one.importer, one.imported) for one in found if one.imported != "typing"] == [
        ("house", "house.room.door"), ("house.room.door", "house.wall"), ("house.room.door", "socket"),
        ("house.room.door", "os.path"), ("house.room.door", "house.room.handle"), ("house.room.handle", "house.room"),
        ("house.room.handle", "house.room.door"), ("house.wall", "house.room.door"),
    ]  # fmt: skip
    assert found[3].place.endswith("house/room/door.py:5")
    assert circles(found) == [["house.room.door", "house.room.handle", "house.wall"]]
