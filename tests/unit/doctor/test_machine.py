"""Doctor: configuration, files, daemon, kernel, network, docker and clock, on recorded outputs; and the command."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mcencrypt.cli import cli
from mcencrypt.cli import doctor as command
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.reasons import REASONS
from mcencrypt.doctor.checks import TOPICS, examine, run_check
from mcencrypt.doctor.clock import check_clock
from mcencrypt.doctor.configuration import check_configuration, check_files
from mcencrypt.doctor.docker import check_docker
from mcencrypt.doctor.finding import Finding, Severity, note
from mcencrypt.doctor.kernel import check_kernel, check_process
from mcencrypt.doctor.machine import Output
from mcencrypt.doctor.network import check_interfaces, check_settings, check_tracking
from mcencrypt.doctor.processes import Process
from mcencrypt.doctor.running import _REASONS, check_daemon, check_refusals
from mcencrypt.kernel.links import Link
from mcencrypt.store.keys import create_network_key
from tests.helpers import replies
from tests.helpers.recorded_machine import DAEMON, ETHTOOL, PROC_STATUS, Recorded, by_id, case, status, worst


@pytest.fixture
def machine() -> Recorded:
    return Recorded()


# ------------------------------------------------------------ configuration and files


def test_a_good_configuration(machine: Recorded) -> None:
    [found] = check_configuration(case(machine, status()))
    assert found.severity is Severity.OK and "7331, 8571" in found.text


@pytest.mark.parametrize(
    ("changes", "name", "severity"),
    [
        ({"ports": ()}, "config.ports", Severity.PROBLEM),
        ({"chains": ("nowhere",)}, "config.ports", Severity.PROBLEM),
        ({"allow_plaintext": (ip_network("::/0"),)}, "config.allow-plaintext", Severity.PROBLEM),
        ({"mode": "prefer"}, "config.prefer", Severity.NOTE),
        ({"ports": (7331,)}, "config.ports-changed", Severity.WARNING),
    ],
)
def test_what_is_wrong_with_a_configuration(
    machine: Recorded, changes: dict[str, Any], name: str, severity: Severity
) -> None:
    found = by_id(list(check_configuration(case(machine, status(), **changes))), name)
    assert found.severity is severity and found.advice


def test_a_configuration_that_cannot_be_read(machine: Recorded) -> None:
    broken = replace(case(machine, None), config_error="/etc/mcencrypt/config.toml: prots: no such key")
    [found] = check_configuration(broken)
    assert found.id == "config.invalid" and found.severity is Severity.PROBLEM
    assert not list(check_files(broken))


def test_key_and_folders(machine: Recorded, tmp_path: Path) -> None:
    key = tmp_path / "network.key"
    own = NetworkSecret(create_network_key(key).secret).key_id.hex()
    settings = {"network_key_file": key, "state_dir": tmp_path / "state", "run_dir": Path("/run/mcencrypt")}
    machine.modes = {str(settings["state_dir"]): (0o700, 0), "/run/mcencrypt": (0o700, 0)}
    found = list(check_files(case(machine, status(key_id=own), **settings)))
    assert own in by_id(found, "key.file").text and worst(found) is Severity.OK
    found = list(check_files(case(machine, status(), **settings)))
    assert by_id(found, "key.not-in-use").severity is Severity.WARNING
    both = [replies.key(id=one, offered=one != own) for one in (own, replies.KEY_ID)]
    found = list(check_files(case(machine, status(keys=both), **settings)))
    assert by_id(found, "key.rotation").severity is Severity.NOTE
    machine.modes[str(settings["state_dir"])] = (0o777, 0)
    assert by_id(list(check_files(case(machine, None, **settings))), "files.state_dir").severity is Severity.PROBLEM
    machine.modes["/run/mcencrypt"] = (0o700, 1000)
    assert by_id(list(check_files(case(machine, None, **settings))), "files.run_dir").severity is Severity.PROBLEM
    found = list(check_files(case(machine, None, **settings | {"run_dir": tmp_path})))
    assert by_id(found, "files.run_dir-on-disk").severity is Severity.NOTE
    os.chmod(key, 0o644)
    found = list(check_files(case(machine, None, **settings)))
    assert by_id(found, "key.file").severity is Severity.PROBLEM and "chmod 600" in by_id(found, "key.file").advice
    found = list(check_files(case(machine, None, **settings | {"network_key_file": tmp_path / "none"})))
    assert "keygen" in by_id(found, "key.file").advice


# ------------------------------------------------------------ the daemon


def test_a_healthy_daemon(machine: Recorded) -> None:
    examined = case(machine, status())
    found = [*check_daemon(examined), *check_refusals(examined), *check_process(examined), *check_kernel(examined)]
    assert worst(found) is Severity.OK
    assert "55 MB" in by_id(found, "process.memory").text


def test_no_daemon(machine: Recorded) -> None:
    assert by_id(list(check_daemon(case(machine, None))), "daemon.none").severity is Severity.NOTE
    machine.user = 1000
    machine.files["/proc/1/status"] = PROC_STATUS.replace("000001ffffffffff", "0000000000000000")
    found = [*check_process(case(machine, None)), *check_kernel(case(machine, None))]
    assert by_id(found, "process.not-root").severity is Severity.NOTE
    assert by_id(found, "kernel.unseen").severity is Severity.NOTE
    machine.user = 0
    found = list(check_process(case(machine, None)))
    assert by_id(found, "process.capabilities").severity is Severity.PROBLEM


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"version": "0.0.1"}, "daemon.version"),
        ({"rules_lost": 3}, "daemon.rules-lost"),
        ({"queue": replies.queue(bad_verdicts=2)}, "daemon.errors"),
        (
            {"connections": [replies.connection(peer=f"192.0.2.{n}:7331", state="plaintext") for n in range(30)]},
            "daemon.plaintext",
        ),
        ({"refused": {"wrong-key": 4}}, "refused.wrong-key"),
        ({"refused": {"not-a-handshake": 4}}, "refused.not-a-handshake"),
        ({"totals": {**replies.status()["totals"], "auth_failures": 9}}, "refused.tampered"),
    ],
)
def test_what_a_daemon_counts(machine: Recorded, changes: dict[str, Any], name: str) -> None:
    examined = case(machine, status(**changes))
    found = by_id([*check_daemon(examined), *check_refusals(examined)], name)
    assert found.severity is Severity.WARNING and found.advice
    if name == "daemon.plaintext":
        assert "192.0.2.9:7331 and 20 more" in found.text


def test_every_reason_that_is_explained_exists() -> None:
    assert set(_REASONS) <= set(REASONS)


def test_a_daemon_that_waits_for_its_turn(machine: Recorded) -> None:
    machine.policies[DAEMON] = 0
    assert "rt_runtime" in by_id(list(check_process(case(machine, status()))), "process.scheduling").advice
    machine.files[f"/proc/{DAEMON}/status"] = PROC_STATUS.replace("000001ffffffffff", "0000000000003000")
    assert by_id(list(check_process(case(machine, status()))), "process.scheduling").advice == "give it CAP_SYS_NICE"


def test_little_memory(machine: Recorded) -> None:
    machine.files["/proc/meminfo"] = "MemAvailable:  50000 kB\n"
    machine.files["/sys/fs/cgroup/memory.max"] = "67108864\n"
    found = list(check_process(case(machine, status())))
    assert {"memory.low", "memory.limit"} <= {one.id for one in found}
    machine.files["/sys/fs/cgroup/memory.max"] = "max\n"
    assert "memory.limit" not in {one.id for one in check_process(case(machine, status()))}


def test_a_user_namespace(machine: Recorded) -> None:
    machine.files["/proc/self/uid_map"] = "         0     100000      65536\n"
    assert by_id(list(check_kernel(case(machine, status()))), "kernel.user-namespace").severity is Severity.WARNING


# ------------------------------------------------------------ network


def test_healthy_network(machine: Recorded) -> None:
    examined = case(machine, status())
    found = [*check_interfaces(examined), *check_tracking(examined), *check_settings(examined)]
    assert worst(found) is Severity.OK


@pytest.mark.parametrize(
    ("link", "name", "severity"),
    [
        (Link("eth1", "", False, {"gso_max_size": 200_000}, 1500), "links.big-tcp", Severity.PROBLEM),
        (Link("blue", "vrf", False, {}, 1500), "links.vrf", Severity.PROBLEM),
        (Link("ppp0", "", False, {}, 400), "links.tiny-mtu", Severity.PROBLEM),
        (Link("ppp0", "", False, {}, 1000), "links.low-mtu", Severity.NOTE),
        (Link("wg0", "wireguard", False, {}, 1420), "links.mtus", Severity.NOTE),
    ],
)
def test_interfaces(machine: Recorded, link: Link, name: str, severity: Severity) -> None:
    machine.interfaces.append(link)
    assert by_id(list(check_interfaces(case(machine, status()))), name).severity is severity
    machine.interfaces[-1] = link._replace(up=False)
    assert name not in {one.id for one in check_interfaces(case(machine, status()))}


def test_offloads_that_are_off(machine: Recorded) -> None:
    text = ETHTOOL.replace("receive-offload: on", "receive-offload: off")
    machine.outputs["ethtool -k eth0"] = Output(0, text)
    found = by_id(list(check_interfaces(case(machine, status()))), "links.offloads")
    assert found.advice == "ethtool -K eth0 gro on"


@pytest.mark.parametrize(
    ("file", "value", "name"),
    [
        ("net/netfilter/nf_conntrack_count", "262000", "conntrack.full"),
        ("net/netfilter/nf_conntrack_tcp_loose", "0", "conntrack.strict"),
        ("net/ipv4/ip_no_pmtu_disc", "1", "settings.no-pmtu-discovery"),
        ("net/ipv4/tcp_sack", "0", "settings.sack"),
    ],
)
def test_settings_of_the_kernel(machine: Recorded, file: str, value: str, name: str) -> None:
    machine.files[f"/proc/sys/{file}"] = value
    examined = case(machine, status())
    assert by_id([*check_tracking(examined), *check_settings(examined)], name).severity > Severity.OK


def test_docker_proxy_in_front_of_a_port(machine: Recorded) -> None:
    words = ["-host-ip", "0.0.0.0", "-host-port", "7331", "-container-ip", "172.17.0.2", "-container-port", "7331"]
    assert not list(check_docker(case(machine, status())))
    machine.add_process(50, "docker-proxy", "/usr/bin/docker-proxy", *words)
    found = list(check_docker(case(machine, status())))
    assert by_id(found, "docker.proxy").severity is Severity.WARNING
    assert "172.17.0.2:7331" in by_id(found, "docker.proxy").text and by_id(found, "docker.published")
    machine.add_process(50, "docker-proxy", "/usr/bin/docker-proxy", *[word.replace("7331", "80") for word in words])
    assert not list(check_docker(case(machine, status())))
    machine.add_process(51, "slirp4netns", "slirp4netns")
    assert by_id(list(check_docker(case(machine, status()))), "docker.rootless")


def test_the_clock(machine: Recorded) -> None:
    assert by_id(list(check_clock(case(machine, status()))), "clock.synchronized")
    machine.clock = 0x40
    assert by_id(list(check_clock(case(machine, status()))), "clock.unsynchronized").severity is Severity.WARNING
    machine.add_process(60, "vmtoolsd", "vmtoolsd")
    assert by_id(list(check_clock(case(machine, status()))), "clock.outside").severity is Severity.OK
    skewed = list(check_clock(case(machine, status(refused={"clock-skew": 2}))))
    assert by_id(skewed, "clock.skew").severity is Severity.PROBLEM
    machine.time = 1000.0
    assert by_id(list(check_clock(case(machine, status()))), "clock.past").severity is Severity.PROBLEM


# ------------------------------------------------------------ all together


def test_a_healthy_machine_has_no_problem_and_no_warning(machine: Recorded, tmp_path: Path) -> None:
    key = tmp_path / "network.key"
    own = NetworkSecret(create_network_key(key).secret).key_id.hex()
    topics = list(examine(case(machine, status(key_id=own), network_key_file=key)))
    assert [topic.name for topic in topics] == list(TOPICS)
    assert not [one for topic in topics for one in topic.findings if one.severity >= Severity.WARNING]


def test_a_check_that_cannot_look_says_so_and_harms_no_other(machine: Recorded) -> None:
    def check_something(_: object) -> Any:
        yield note("first", "seen")
        raise PermissionError(13, "Permission denied", "/proc/secret")

    found = run_check(check_something, case(machine, status()))
    assert [one.id for one in found] == ["first", "something.unseen"]
    assert "/proc/secret" in found[1].text


def test_what_a_terminal_gets_is_wrapped_and_printable() -> None:
    from mcencrypt.doctor.checks import Topic

    finding = Finding("x", Severity.PROBLEM, "evil \x1b[31m name " + "word " * 60, "do this")
    lines = command.describe([Topic("things", (finding, note("y", "quiet")))], Severity.WARNING)
    assert lines[0] == "things" and lines[1].startswith("  PROBLEM  evil ?[31m name word")
    assert max(map(len, lines)) <= 120 and "           -> do this" in lines
    assert lines[-1] == "1 problem, 0 warnings" and not any("quiet" in line for line in lines)


def run(machine: Recorded, monkeypatch: pytest.MonkeyPatch, running: dict[str, Any] | None, *words: str) -> Any:
    monkeypatch.setattr("mcencrypt.cli.doctor.open_case", lambda settings: case(machine, running))
    monkeypatch.setattr(Process, "__hash__", None)
    return CliRunner().invoke(cli, ["doctor", *words])


def test_the_command_fails_if_there_is_a_problem(machine: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.saved = [one._replace(text="") for one in machine.saved]
    result = run(machine, monkeypatch, status(), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["problems"] == len([one for one in report["findings"] if one["severity"] == "problem"]) >= 2
    assert {one["id"] for one in report["findings"]} >= {"rules.ipv4", "rules.ipv6", "queue.reader"}
    assert all(set(one) == {"topic", "id", "severity", "text", "advice"} for one in report["findings"])
    result = run(machine, monkeypatch, status(), "--quiet")
    assert result.exit_code == 1 and "PROBLEM  ipv4: rules of mcencrypt are missing" in result.stdout
    assert "  ok  " not in result.stdout


@pytest.mark.subprocesses
def test_the_command_without_configuration_or_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real machine: whatever it is like, the configuration is the finding."""
    monkeypatch.setattr("mcencrypt.doctor.kernel.try_kernel", lambda case: "")
    config = tmp_path / "config.toml"
    config.write_text("prots = [7331]\n")
    result = CliRunner().invoke(cli, ["doctor", "--json", "--config", str(config), "--run-dir", str(tmp_path / "run")])
    assert result.exit_code == 1, result.output
    found = {one["id"]: one for one in json.loads(result.stdout)["findings"]}
    assert found["config.invalid"]["severity"] == "problem" and "prots" in found["config.invalid"]["text"]
    assert str(tmp_path / "run") in found["daemon.none"]["text"]


def test_the_documentation_names_findings_that_exist() -> None:
    root = Path(__file__).parents[3]
    sources = "".join(path.read_text() for path in (root / "src/mcencrypt/doctor").glob("*.py"))
    words = re.findall(r"`([a-z]+\.[a-z0-9_-]+)`", (root / "docs/troubleshooting.md").read_text())
    topics = {name.split(".")[0] for name in re.findall(r'f?"([a-z]+\.[a-z0-9_{}-]+)"', sources)}
    named = [word for word in words if word.split(".")[0] in topics]
    assert len(named) > 30
    for word in named:
        family = re.sub(r"ipv[46]", r"{[a-z.]*family}", word)
        assert f'"{word}"' in sources or re.search(f'"{family}"', sources), word


def test_usage() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--nonsense"])
    assert result.exit_code == 2 and "mcencrypt doctor --help" in result.stderr
    assert "Example:\n    mcencrypt doctor" in CliRunner().invoke(cli, ["doctor", "--help"]).stdout
