"""The command line: words, exit codes and one-line errors. Daemons here are small programs of the tests."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import mcencrypt
from mcencrypt.cli import cli, offline, start, text
from mcencrypt.cli.settings import Settings
from mcencrypt.control import runlock
from mcencrypt.control.client import request
from mcencrypt.control.runlock import RunLock
from mcencrypt.errors import OperatorError
from mcencrypt.store.keys import create_network_key
from mcencrypt.store.position import read_switch, write_switch
from mcencrypt.system import service
from tests.helpers.served import serving

COMMANDS = ("on", "off", "status", "top", "mode", "reload", "peers", "daemon", "keygen", "identity", "rules", "decode",
            "doctor", "verify", "install", "uninstall", "key")  # fmt: skip
SOURCE = Path(mcencrypt.__file__).parents[1]

DAEMON = """#!{python}
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {source!r})
from mcencrypt.errors import OperatorError
print("arguments", json.dumps(sys.argv[1:]), os.getcwd(), os.getsid(0) == os.getpid(), flush=True)
{before}
from mcencrypt.control.server import ControlServer
import select
seen = []
def handler(command, args):
    seen.append(command)
    if command == "status":
        return {{"pid": os.getpid(), "mode": "require", "ports": [7331], "enabled": "on" in seen, "connections": []}}
    return {{}}
run_dir = Path(os.environ["MCENCRYPT_RUN_DIR"])
try:
    server = ControlServer(run_dir / "control.sock", handler)
except OperatorError as error:
    sys.exit(f"mcencrypt: {{error}}")
while True:
    select.select([server], [], [])
    server.ready()
"""


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("MCENCRYPT_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MCENCRYPT_CONFIG", str(tmp_path / "config.toml"))
    (tmp_path / "config.toml").write_text(
        f'ports = [7331, 8571]\nnetwork_key_file = "{tmp_path}/network.key"\n'
        f'state_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n'
    )


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def fails(result: Result, status: int, *parts: str) -> None:
    """One line on stderr, the right exit status, nothing on stdout."""
    assert result.exit_code == status, result.output
    assert result.stderr.startswith("mcencrypt: ") and result.stderr.count("\n") == 1
    assert result.stdout == ""
    for part in parts:
        assert part in result.stderr


def status_result(**changes: Any) -> dict[str, Any]:
    numbers = {"bytes_out": 2_304_863, "bytes_in": 1000, "records_out": 1800, "records_in": 1}
    failures = {"retransmissions": 3, "auth_failures": 0}
    connections = [
        {"peer": f"10.0.{n // 250}.{n % 250}:7331", "local": "10.0.9.9:40000", "state": "encrypted", "age": 12800.5,
         "identity": "A" * 43 + "=" if n % 2 else None, "name": "org-c" if n == 3 else None, **numbers, **failures}
        for n in range(400)
    ]  # fmt: skip
    return {
        "enabled": True, "draining": False, "mode": "require", "ports": [7331, 8571], "key_id": "1a2b3c4d5e6f7081",
        "identity": "B" * 43 + "=", "pid": 4242, "version": "0.1.0", "uptime": 61.2, "connections": connections,
        "totals": {"connections": 400, **numbers, **failures}, "refused": {"replayed": 2, "no handshake": 7, "old": 0},
        "queue": {"number": 27971, "waiting": 0, "dropped_kernel": 5, "dropped_user": 0, "enobufs": 1},
        "plaintext_peers": [{"peer": "10.9.9.9:7331", "local": "10.0.9.9:40001", "allowed": True}],
        "rules_seen": 0.4, **changes,
    }  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0 and "Example" in result.stdout and f"mcencrypt {name}" in result.stdout
    for option in ("--config", "--run-dir", "MCENCRYPT_CONFIG", "MCENCRYPT_RUN_DIR"):
        assert option in result.stdout


def test_the_help_lists_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout
    assert run("--version").exit_code == 0 and run("--version").stdout.startswith("mcencrypt")


@pytest.mark.parametrize(
    "words",
    [["frobnicate"], ["--frobnicate", "on"], ["status", "--frobnicate"], ["on", "extra"], ["decode"], ["--config"],
     ["keygen", "a", "b"], ["decode", "--port", "70000", "x"], ["decode", "--port", "x", "x"]],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_status_2(words: list[str]) -> None:
    fails(run(*words), 2, "--help`")


def test_no_command_shows_the_help_and_is_wrong_usage() -> None:
    result = run()
    assert result.exit_code == 2 and "Usage: mcencrypt" in result.stderr


@pytest.mark.parametrize("words", [["on"], ["off"], ["status"], ["daemon"], ["keygen"], ["identity"], ["rules"]])
def test_a_named_config_that_is_missing_is_an_error_before_anything_else(tmp_path: Path, words: list[str]) -> None:
    missing = str(tmp_path / "none.toml")
    fails(run("--config", missing, *words), 1, missing)
    fails(run(*words, "--config", missing), 1, missing)
    assert {path.name for path in tmp_path.iterdir()} == {"config.toml"}


def test_a_wrong_setting_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCENCRYPT_PORTS", "99999")
    fails(run("rules"), 1, "MCENCRYPT_PORTS", "99999")


def test_the_run_dir_is_taken_before_and_after_and_the_last_one_wins(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    fails(run("--run-dir", one, "status"), 1, f"no daemon answers at {one}/control.sock", "mcencrypt on")
    fails(run("status", "--run-dir", two), 1, f"{two}/control.sock")
    fails(run("--run-dir", one, "status", "--run-dir", two), 1, f"{two}/control.sock")
    fails(run("status"), 1, f"{tmp_path}/run/control.sock")


def test_the_run_dir_from_the_environment_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCENCRYPT_RUN_DIR", str(tmp_path / "other"))
    fails(run("status", "--json"), 1, f"{tmp_path}/other/control.sock")


def test_keygen_makes_a_private_key_once(tmp_path: Path) -> None:
    result = run("keygen")
    key = tmp_path / "network.key"
    assert result.exit_code == 0 and str(key) in result.stdout and "copy it to every node" in result.stdout
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert before.decode().strip() not in result.output
    fails(run("keygen"), 1, str(key))
    assert key.read_bytes() == before
    other = tmp_path / "other.key"
    assert run("keygen", str(other)).exit_code == 0 and other.read_bytes() != before


def test_keygen_with_a_file_needs_no_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCENCRYPT_CONFIG", str(tmp_path / "none.toml"))
    assert run("keygen", str(tmp_path / "fresh.key")).exit_code == 0


def test_the_identity_is_made_at_first_use_and_stays(tmp_path: Path) -> None:
    first = run("identity")
    assert first.exit_code == 0 and len(first.stdout.strip()) == 44
    assert run("identity").stdout == first.stdout


def test_rules_are_printed_for_both_families_without_installing_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = run("rules")
    assert result.exit_code == 0
    assert "# ipv4" in result.stdout and "# ipv6" in result.stdout
    assert result.stdout.count("7331,8571") >= 8 and "NFQUEUE" in result.stdout


def test_rules_without_ports_say_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    fails(run("rules"), 1, "ports")


def test_status_as_json_is_the_result(tmp_path: Path) -> None:
    with serving(tmp_path / "run", lambda command, args: status_result()):
        result = run("status", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout) == status_result()


def test_status_for_people_shows_every_number(tmp_path: Path) -> None:
    with serving(tmp_path / "run", lambda command, args: status_result()):
        result = run("status")
    lines = result.stdout.splitlines()
    assert lines[0] == "mcencrypt is on (require); daemon 0.1.0, pid 4242, up 1m01s"
    assert "7331, 8571" in result.stdout and "1a2b3c4d5e6f7081" in result.stdout
    head = next(line for line in lines if line.startswith("PEER"))
    rows = [line for line in lines if line.startswith("10.0.")]
    assert len(rows) == 400
    assert {row.index("encrypted") for row in rows} == {head.index("STATE")}
    assert rows[1].split() == [
        "10.0.0.1:7331", "10.0.9.9:40000", "encrypted", "3h33m", "2.3", "MB", "1.0", "kB", "1800/1", "3", "0",
        "A" * 43 + "=",
    ]  # fmt: skip
    assert rows[0].endswith("-") and rows[3].endswith("  org-c")
    assert "refused      no handshake 7, replayed 2" in lines
    assert "plaintext    1 connection: 10.9.9.9:7331 (allow_plaintext)" in lines
    assert "5 by the kernel" in lines[-1] and "1 overruns" in lines[-1]


def test_check_is_one_line_and_fails_unless_the_rules_are_known_to_be_there() -> None:
    from mcencrypt.cli.status import RULES_STALE, healthy

    assert healthy(status_result()) == "mcencrypt is on (require); daemon 0.1.0, pid 4242, up 1m01s"
    assert healthy(status_result(enabled=False, rules_seen=None)).startswith("mcencrypt is off;")
    with pytest.raises(OperatorError, match="not in place"):
        healthy(status_result(rules_seen=None))
    with pytest.raises(OperatorError, match="last seen 42s ago"):
        healthy(status_result(rules_seen=42.0))
    assert healthy(status_result(rules_seen=RULES_STALE))
    fails(run("status", "--check", "--json"), 2, "--json and --check")


def test_status_without_connections_and_off() -> None:
    from mcencrypt.cli.status import describe

    idle = describe(status_result(enabled=False, connections=[], refused={}))
    assert idle[0].startswith("mcencrypt is off;") and "no connections" in idle and "refused      nothing" in idle
    assert "until they close" in describe(status_result(enabled=False, draining=True))[0]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_940, "999.9 kB"), (999_960, "1.0 MB"), (2 * 10**9, "2.0 GB"),
     (10**18, "1000.0 PB")],
)  # fmt: skip
def test_bytes_for_people(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (86399, "23h59m"), (90000, "1d01h")],
)
def test_ages_for_people(seconds: float, shown: str) -> None:
    assert text.age(seconds) == shown


def test_off_passes_now_and_says_what_goes_on(tmp_path: Path) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    def handler(command: str, args: dict[str, Any]) -> dict[str, Any]:
        seen.append((command, args))
        return status_result(enabled=False) if command == "status" else {}

    with serving(tmp_path / "run", handler):
        result = run("off")
        assert run("off", "--now").exit_code == 0
    assert result.exit_code == 0
    assert "400 encrypted connections go on until closed" in result.stdout
    assert [args for command, args in seen if command == "off"] == [{"now": False}, {"now": True}]


def test_on_with_a_daemon_asks_it(tmp_path: Path) -> None:
    seen: list[str] = []

    def handler(command: str, args: dict[str, Any]) -> dict[str, Any]:
        seen.append(command)
        return status_result() if command == "status" else {}

    with serving(tmp_path / "run", handler):
        result = run("on")
    assert result.exit_code == 0 and seen == ["ping", "on", "status"]
    assert result.stdout == "mcencrypt is on (require) for ports 7331, 8571; daemon pid 4242\n"


def test_a_daemon_that_refuses_is_quoted(tmp_path: Path) -> None:
    def handler(command: str, args: dict[str, Any]) -> dict[str, Any]:
        if command in ("on", "off"):
            raise OperatorError("iptables is missing: install it")
        return {}

    with serving(tmp_path / "run", handler):
        fails(run("on"), 1, "iptables is missing: install it")
        fails(run("off"), 1, "iptables is missing: install it")


def test_off_without_a_daemon_takes_the_rules_out_and_remembers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    in_place = [True, False]

    class Firewall:
        def __init__(self, ports: tuple[int, ...], queue_number: int) -> None:
            done.append(ports)

        def remove(self) -> None:
            assert runlock.is_held(tmp_path / "run")
            done.append("removed")

    monkeypatch.setattr(offline, "_rules_in_place", lambda: in_place.pop(0))
    monkeypatch.setattr(offline, "_close_connections", lambda ports: done.append("closed"))
    monkeypatch.setattr("mcencrypt.kernel.firewall.Firewall", Firewall)
    write_switch(tmp_path / "state", True)
    for _ in range(2):
        result = run("off")
        assert result.exit_code == 0 and "no daemon runs" in result.stdout
        assert not read_switch(tmp_path / "state") and not runlock.is_held(tmp_path / "run")
    assert done == ["closed", (7331, 8571), "removed"]


def test_rules_stay_if_old_connections_cannot_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(ports: tuple[int, ...]) -> None:
        raise OperatorError("cannot close the old connections: run this as root")

    monkeypatch.setattr(offline, "_rules_in_place", lambda: True)
    monkeypatch.setattr(offline, "_close_connections", refuse)
    monkeypatch.setattr("mcencrypt.kernel.firewall.Firewall.remove", lambda self: pytest.fail("rules were removed"))
    fails(run("off"), 1, "cannot close")
    assert read_switch(tmp_path / "state")


def test_off_waits_for_a_daemon_that_holds_the_lock_but_does_not_answer_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcencrypt.cli.switch._SWITCH_TIMEOUT", 0.3)
    with RunLock.acquire(tmp_path / "run"):
        fails(run("off"), 1, "already runs", f"pid {os.getpid()}")


@pytest.fixture
def fake_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes `on` start a program of this test, whose beginning the caller gives."""
    program = tmp_path / "daemon-program"
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start_one(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*words, **options))
        return started[-1]

    def make(before: str) -> None:
        program.write_text(DAEMON.format(python=sys.executable, source=str(SOURCE), before=before))
        program.chmod(0o700)
        monkeypatch.setattr(start.sys, "executable", str(program))
        monkeypatch.setattr(start.subprocess, "Popen", start_one)

    yield make
    for process in started:  # one that lost a race may only now be about to take the other's place
        process.kill()
        process.wait()


def test_on_starts_a_daemon_in_the_background_and_waits_for_it(
    tmp_path: Path, fake_daemon: Callable[[str], None]
) -> None:
    fake_daemon("")
    result = run("on", "--run-dir", str(tmp_path / "run"))
    log = tmp_path / "state" / "daemon.log"
    assert result.exit_code == 0, result.output
    assert f"started in the background, log in {log}" in result.stdout
    said = log.read_text()
    assert f'["-m", "mcencrypt", "--config", "{tmp_path}/config.toml", "--run-dir", "{tmp_path}/run", "daemon"]' in said
    assert said.rstrip().endswith("/ True") and stat.S_IMODE(log.stat().st_mode) == 0o600
    again = run("on")
    assert again.exit_code == 0 and "started" not in again.stdout
    assert request(tmp_path / "run", "status")["enabled"] is True


def test_a_daemon_that_dies_is_explained_by_its_last_line(tmp_path: Path, fake_daemon: Callable[[str], None]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "daemon.log").write_text("mcencrypt: something from last week\n")
    fake_daemon('sys.exit("mcencrypt: network.key: not found: run keygen")')
    fails(run("on"), 1, "the daemon stopped at once: network.key: not found: run keygen")


def test_a_daemon_that_dies_in_json_is_explained_by_its_message(
    tmp_path: Path, fake_daemon: Callable[[str], None]
) -> None:
    fake_daemon(r"""sys.exit('{"level": "ERROR", "message": "network.key: not found: run keygen"}')""")
    fails(run("on"), 1, "the daemon stopped at once: network.key: not found: run keygen")


def test_with_json_logs_the_daemon_says_in_json_why_it_does_not_start(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mcencrypt", "--run-dir", str(tmp_path / "run"), "daemon"]
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "MCENCRYPT_LOG_FORMAT": "json", "MCENCRYPT_PORTS": "7331"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    found = json.loads(line)
    assert found["level"] == "ERROR" and "network_key_file" in found["message"]


def test_a_daemon_that_never_answers_is_stopped(
    tmp_path: Path, fake_daemon: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "DEADLINE", 1.0)
    fake_daemon('print("pid", os.getpid(), flush=True); signal.pause()')
    fails(run("on"), 1, "did not answer within 1 s")
    log = (tmp_path / "state" / "daemon.log").read_text()
    pid = int(log.rsplit("pid ", 1)[1])
    deadline = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_two_calls_of_on_at_once_start_one_daemon(tmp_path: Path, fake_daemon: Callable[[str], None]) -> None:
    fake_daemon("")
    settings = Settings()
    config = settings.load()
    outcomes: list[Any] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(start.ensure_daemon(settings, config))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 2


def test_the_systemd_unit_is_used_unless_settings_were_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().custom
    monkeypatch.delenv("MCENCRYPT_CONFIG")
    assert not Settings().custom
    assert Settings(run_dir=Path("/x")).custom and Settings(config=Path("/x")).custom


def test_a_unit_that_fails_to_start_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text("#!/bin/sh\necho 'Job for mcencrypt.service failed.' >&2\nexit 1\n")
    systemctl.chmod(0o755)
    config = Settings().load()
    monkeypatch.delenv("MCENCRYPT_CONFIG")
    monkeypatch.setenv("PATH", str(systemctl.parent), prepend=os.pathsep)
    monkeypatch.setattr(service, "is_installed", lambda unit: True)
    with pytest.raises(OperatorError, match=r"network.key: not found: make one"):
        start.ensure_daemon(Settings(), config)
    create_network_key(config.network_key_file)
    with pytest.raises(OperatorError, match=r"failed: Job for mcencrypt.service failed.; see `journalctl"):
        start.ensure_daemon(Settings(), config)


def test_decode_says_what_it_found_and_check_judges(tmp_path: Path) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.utils import wrpcap

    ends = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.1", dst="10.0.0.2")
    header = b"mcen\1\1" + bytes.fromhex("1a2b3c4d5e6f7081")
    record = bytes([0x80, 5, 0, 0, 0, 0]) + bytes(21)
    packets = [
        ends / TCP(sport=40000, dport=7331, seq=10, flags="S") / Raw(header.ljust(138, b"x")),
        ends / TCP(sport=40000, dport=7331, seq=149, flags="PA") / Raw(record),
    ]
    good, bad = str(tmp_path / "good.pcap"), str(tmp_path / "bad.pcap")
    wrpcap(good, packets)
    message = b"\xf4\xfe\xf8\xe1version".ljust(40, b"\0")
    wrpcap(bad, [ends / TCP(sport=40001, dport=7331, seq=1, flags="PA") / Raw(message), *packets])
    result = run("decode", "--check", "--records", good)
    assert result.exit_code == 0, result.output
    assert "handshake message 1, network key 1a2b3c4d5e6f7081, 138 B" in result.stdout
    assert "#1 10.0.0.1:40000  record  wire 138  plain 0  length 5  FINAL" in result.stdout
    assert result.stdout.splitlines()[-1] == "verdict: encrypted: every data byte is handshake or record"
    result = run("decode", bad)
    assert result.exit_code == 0 and "verdict: of 2 connections: 1 PLAINTEXT" in result.stdout
    assert "MultiChain/Bitcoin message 'version'" in result.stdout
    assert run("decode", "--check", bad).exit_code == 1
    assert run("decode", "--check", "--port", "9999", good).exit_code == 1
    fails(run("decode", str(tmp_path / "absent")), 1, "No such file")


def test_the_command_line_starts_without_scapy_and_netfilter() -> None:
    program = (
        "import sys\nfrom mcencrypt.cli import main\nsys.argv = ['mcencrypt', 'status']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = [name for name in ('scapy', 'netfilterqueue', 'pyroute2') if name in sys.modules]\nprint(code, heavy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert done.stdout == "1 []\n" and "no daemon answers" in done.stderr


def test_output_that_nobody_reads_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "mcencrypt", "rules"],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=False,
    )
    os.close(write)
    assert done.returncode == 1 and done.stderr == b""
