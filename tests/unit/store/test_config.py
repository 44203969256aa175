"""The configuration: where values come from, and that every mistake is one line that names it."""

from __future__ import annotations

import base64
import errno
import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.store import config
from mcencrypt.store.config import Config, load
from mcencrypt.store.keys import create_network_key
from mcencrypt.store.peers import add_peer, remove_peer
from mcencrypt.target import Kind, Target
from tests.helpers.sides import identity


@pytest.fixture(autouse=True)
def no_default_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "default.toml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def read(file: Path, text: str) -> Config:
    file.write_text(text)
    return load(file, {})


def message(file: Path, text: str) -> str:
    with pytest.raises(OperatorError) as caught:
        read(file, text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


EVERYTHING = """
ports = [7331, 8571]
chains = ["chain1"]
multichain_dir = "/srv/multichain"
network_key_file = "/etc/key"
identity_file = "/etc/identity"
mode = "prefer"
allow_plaintext = ["10.1.0.0/16", "2001:db8::/32", "192.0.2.7"]
relayed = ["10.2.0.0/16"]
probes = ["10.3.0.0/24"]
state_dir = "/s"
run_dir = "/r"
log_level = "warning"
log_format = "json"
queue_number = 5
fence_mark = 0x40
"""


def everything(file: Path | None) -> Config:
    return Config(
        ports=(7331, 8571),
        chains=("chain1",),
        multichain_dir=Path("/srv/multichain"),
        network_key_file=Path("/etc/key"),
        identity_file=Path("/etc/identity"),
        mode="prefer",
        allow_plaintext=(ip_network("10.1.0.0/16"), ip_network("2001:db8::/32"), ip_network("192.0.2.7")),
        relayed=(ip_network("10.2.0.0/16"),),
        probes=(ip_network("10.3.0.0/24"),),
        state_dir=Path("/s"),
        run_dir=Path("/r"),
        log_level="warning",
        log_format="json",
        queue_number=5,
        fence_mark=0x40,
        file=file,
    )


def test_every_key_from_the_file(file: Path) -> None:
    assert read(file, EVERYTHING) == everything(file)


def test_every_key_from_the_environment() -> None:
    environ = {
        "MCENCRYPT_PORTS": "7331, 8571",
        "MCENCRYPT_CHAINS": "chain1",
        "MCENCRYPT_MULTICHAIN_DIR": "/srv/multichain",
        "MCENCRYPT_NETWORK_KEY_FILE": "/etc/key",
        "MCENCRYPT_IDENTITY_FILE": "/etc/identity",
        "MCENCRYPT_MODE": "prefer",
        "MCENCRYPT_ALLOW_PLAINTEXT": "10.1.0.0/16,2001:db8::/32,192.0.2.7",
        "MCENCRYPT_RELAYED": "10.2.0.0/16",
        "MCENCRYPT_PROBES": "10.3.0.0/24",
        "MCENCRYPT_STATE_DIR": "/s",
        "MCENCRYPT_RUN_DIR": "/r",
        "MCENCRYPT_LOG_LEVEL": "WARNING",
        "MCENCRYPT_LOG_FORMAT": "json",
        "MCENCRYPT_QUEUE_NUMBER": "5",
        "MCENCRYPT_FENCE_MARK": "0x40",
    }
    assert load(None, environ) == everything(None)


def test_defaults_without_any_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    made = load(None, {})
    assert made == Config(multichain_dir=Path("/home/somebody/.multichain"))
    assert (made.mode, made.queue_number, made.ports) == ("require", 27971, ())
    assert made.control_socket == Path("/run/mcencrypt/control.sock")


def test_command_line_goes_before_environment_and_that_before_the_file(file: Path) -> None:
    file.write_text('run_dir = "/file"\nstate_dir = "/file"\nmode = "prefer"\n')
    environ = {"MCENCRYPT_RUN_DIR": "/env", "MCENCRYPT_STATE_DIR": "/env", "MCENCRYPT_MODE": ""}
    made = load(file, environ, run_dir=Path("/line"), state_dir=None)
    assert (made.run_dir, made.state_dir, made.mode) == (Path("/line"), Path("/env"), "prefer")


def test_which_file_is_read(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("queue_number = 2")
    file.write_text("queue_number = 1")
    assert load(None, {"MCENCRYPT_CONFIG": str(file)}).queue_number == 1
    assert load(other, {"MCENCRYPT_CONFIG": str(file)}).queue_number == 2
    (tmp_path / "default.toml").write_text("queue_number = 3")
    assert load(None, {}).queue_number == 3
    for path, environ in ((tmp_path / "no.toml", {}), (None, {"MCENCRYPT_CONFIG": str(tmp_path / "no.toml")})):
        with pytest.raises(OperatorError, match=r"no\.toml: not found"):
            load(path, environ)


def test_relative_paths_start_at_the_file_that_says_them(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/somebody")
    file.write_text('network_key_file = "k"\nstate_dir = "~/s"')
    made = load(file, {"MCENCRYPT_RUN_DIR": "run"})
    assert made.network_key_file == tmp_path / "k"
    assert made.state_dir == Path("/home/somebody/s")
    assert made.run_dir == tmp_path / "here" / "run"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prots = [1]", "prots: no such key, did you mean ports?"),
        ("network-key-file = 'x'", "network-key-file: no such key, did you mean network_key_file?"),
        ("colour = 1", "colour: no such key"),
        ("file = '/x'", "file: no such key"),
        ("ports = 7331", "ports: must be a list, as in [7331, 8571]"),
        ('ports = ["7331"]', "ports: must be a list"),
        ("ports = [true]", "ports: must be a list"),
        ("ports = [0]", "ports: 0 is not a port (1 to 65535)"),
        ("ports = [65536]", "ports: 65536 is not a port"),
        ("ports = [-1]", "ports: -1 is not a port"),
        ("ports = [1, 2, 1]", "ports: 1 is listed twice"),
        ('chains = "chain1"', "chains: must be a list"),
        ('chains = ["../x"]', "chains: '../x' is not a chain name"),
        ('chains = [""]', "chains: '' is not a chain name"),
        ('chains = ["a", "a"]', "chains: a is listed twice"),
        ('allow_plaintext = ["10.1.2.3/16"]', "'10.1.2.3/16' is not a network: for the network write 10.1.0.0/16"),
        ('allow_plaintext = ["peer.example"]', "allow_plaintext: 'peer.example' is not a network: write it as"),
        ('allow_plaintext = ["10.0.0.0/33"]', "allow_plaintext: '10.0.0.0/33' is not a network"),
        (
            'allow_plaintext = ["10.1.0.0/16"]\nrelayed = ["10.1.2.0/24"]',
            "relayed: 10.1.2.0/24 overlaps 10.1.0.0/16 in allow_plaintext: change one of them",
        ),
        ("allow_plaintext = [10]", "allow_plaintext: must be a list"),
        ('mode = "requre"', "mode: 'requre' is not one of require, prefer, did you mean require?"),
        ("mode = true", "mode: True is not one of require, prefer"),
        ('log_level = "loud"', "log_level: 'loud' is not one of debug, info, warning, error"),
        ('log_format = "jsonl"', "log_format: 'jsonl' is not one of text, json, did you mean json?"),
        ("queue_number = 65536", "queue_number: 65536 is not a queue number"),
        ('queue_number = "1"', "queue_number: '1' is not a queue number"),
        ("queue_number = true", "queue_number: True is not a queue number"),
        ("fence_mark = 0x60", "fence_mark: 96 is not one bit of a packet's mark: write it as 0x20"),
        ("fence_mark = 0", "fence_mark: 0 is not one bit"),
        ("fence_mark = 0x100000000", "fence_mark: 4294967296 is not one bit"),
        ('fence_mark = "0x20"', "fence_mark: '0x20' is not one bit"),
        ("run_dir = 7", "run_dir: must be a path"),
        ('run_dir = ""', "run_dir: must be a path"),
        ("[ports]\na = 1", "ports: must be a list"),
        ("ports = [", "not valid TOML"),
        (
            "ports = [1]\nmode = 'prefer'\nports = [2]",
            "not valid TOML: ports is there twice (lines 1 and 3): remove one",
        ),
        ("mode = \u201cprefer\u201d", "that line has '\u201c' (LEFT DOUBLE QUOTATION MARK): type quotes"),
        ("mode =\u00a0'prefer'", "(NO-BREAK SPACE)"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(file: Path, text: str, problem: str) -> None:
    assert problem in message(file, text)
    assert message(file, text).startswith(f"{file}: ")


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("MCENCRYPT_PORTS", "x", "MCENCRYPT_PORTS: 'x' is not a number"),
        ("MCENCRYPT_PORTS", "7331,", "MCENCRYPT_PORTS: '' is not a number"),
        ("MCENCRYPT_PORTS", "7331 7332", "MCENCRYPT_PORTS: '7331 7332': separate by commas, as in 7331,7332"),
        ("MCENCRYPT_PORTS", "7331;7332", "MCENCRYPT_PORTS: '7331;7332': separate by commas, as in 7331,7332"),
        ("MCENCRYPT_PORTS", "[7331, 7332]", "MCENCRYPT_PORTS: '[7331, 7332]': separate by commas, as in 7331,7332"),
        ("MCENCRYPT_CHAINS", '"a" "b"', """MCENCRYPT_CHAINS: '"a" "b"': separate by commas, as in a,b"""),
        ("MCENCRYPT_ALLOW_PLAINTEXT", "10.0.0.0/8 ::1", "MCENCRYPT_ALLOW_PLAINTEXT: '10.0.0.0/8 ::1': separate by"),
        ("MCENCRYPT_PORTS", "70000", "MCENCRYPT_PORTS: 70000 is not a port"),
        ("MCENCRYPT_PORTS", "1,1", "MCENCRYPT_PORTS: 1 is listed twice"),
        ("MCENCRYPT_MODE", "off", "MCENCRYPT_MODE: 'off' is not one of require, prefer"),
        ("MCENCRYPT_QUEUE_NUMBER", "many", "MCENCRYPT_QUEUE_NUMBER: 'many' is not a number"),
        ("MCENCRYPT_PORT", "7331", "MCENCRYPT_PORT: no such variable, did you mean MCENCRYPT_PORTS?"),
        ("MCENCRYPT_ports", "7331", "MCENCRYPT_ports: no such variable, did you mean MCENCRYPT_PORTS?"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(name: str, value: str, problem: str) -> None:
    with pytest.raises(OperatorError) as caught:
        load(None, {name: value})
    assert str(caught.value).startswith(problem)


def test_variables_of_others_do_not_disturb() -> None:
    load(
        None,
        {
            "MCENCRYPT_PORT": "tcp://10.0.0.1:7331",  # Kubernetes, for a service named mcencrypt
            "MCENCRYPT_SERVICE_HOST": "10.0.0.1",
            "MCENCRYPT_SERVICE_PORT": "7331",
            "MCENCRYPT_PORT_7331_TCP_ADDR": "10.0.0.1",
            "MCENCRYPT_IPTABLES": "iptables-legacy",
            "MCENCRYPT_BENCHMARK_SECONDS": "3",
            "PORTS": "x",
        },
    )


def test_an_unknown_override_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        load(None, {}, nonsense=1)
    with pytest.raises(OperatorError, match="--run-dir: must be a path"):
        load(None, {}, run_dir="")


def test_no_port_at_all_is_an_error_once_ports_are_needed(file: Path) -> None:
    with pytest.raises(OperatorError, match=r"config\.toml: no ports: set ports"):
        read(file, "ports = []").p2p_ports()
    with pytest.raises(OperatorError, match=r"default\.toml: no ports: set ports"):
        load(None, {}).p2p_ports()


def test_key_errors_name_the_key_and_the_file(tmp_path: Path) -> None:
    key = tmp_path / "network.key"
    made = Config(network_key_file=key)
    with pytest.raises(OperatorError, match=rf"network_key_file: {key}: not found"):
        made.network_key()
    key.write_bytes(base64.b64encode(bytes(32)) + b"\n")
    key.chmod(0o644)
    with pytest.raises(OperatorError, match=rf"network_key_file: {key}: other users can reach it"):
        made.network_key()
    key.chmod(0o600)
    assert made.network_key().secret == bytes(32)


def test_a_file_in_a_folder_that_is_closed_to_us_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for users other than root: `Path.is_dir` raises there, and 3.11's `exists` as well."""

    def closed(path: object, *words: object, **more: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    file = tmp_path / "config.toml"
    monkeypatch.setattr(os, "stat", closed)
    monkeypatch.setattr(Path, "read_bytes", closed)
    with pytest.raises(OperatorError, match=r"config\.toml: Permission denied: run as root"):
        load(file, {})


def test_an_identity_may_come_from_elsewhere_and_is_then_never_made(tmp_path: Path) -> None:
    """As from a Secret, so that a node without a disk keeps its own; and no node has what every node has."""
    own, shared = tmp_path / "identity", tmp_path / "network.key"
    create_network_key(shared)
    made = Config(identity_file=own, network_key_file=shared, state_dir=tmp_path / "state")
    with pytest.raises(OperatorError, match=rf"identity_file: {own}: not found: make one for this node alone"):
        made.identity()
    create_network_key(own)
    assert made.identity().public == made.identity().public and not (tmp_path / "state").exists()
    own.chmod(0o640)
    with pytest.raises(OperatorError, match=rf"identity_file: {own}: other users can reach it"):
        made.identity()
    with pytest.raises(OperatorError, match="holds the network key, which every node has"):
        Config(identity_file=shared, network_key_file=shared).identity()
    assert Config(state_dir=tmp_path / "state").identity().public != Config(state_dir=tmp_path / "s2").identity().public


def test_a_systemd_credential_is_the_network_key_unless_one_is_set(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("ports = [7331]\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    assert load(config, environ).network_key_file == Path("/etc/mcencrypt/network.key")
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "network.key").write_text("x\n")
    assert load(config, environ).network_key_file == tmp_path / "credentials" / "network.key"
    config.write_text('ports = [7331]\nnetwork_key_file = "/srv/other.key"\n')
    assert load(config, environ).network_key_file == Path("/srv/other.key")


def test_files_of_a_namespace_are_in_folders_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('netns = "docker:node1"\n')
    config = load(file, {})
    assert config.netns == Target(Kind.DOCKER, "node1")
    assert config.state_dir == Path("/var/lib/mcencrypt/netns/docker:node1")
    assert config.run_dir == Path("/run/mcencrypt/netns/docker:node1")
    assert load(file, {}, netns="blue").run_dir == Path("/run/mcencrypt/netns/blue")
    assert load(file, {"MCENCRYPT_NETNS": "1"}).netns == Target(Kind.PID, "1")
    host = load(file, {}, netns="")
    assert (host.netns, host.run_dir) == (None, Path("/run/mcencrypt"))
    file.write_text('netns = "docker:node1"\nrun_dir = "/r"\n')
    assert load(file, {}).run_dir == Path("/r")


@pytest.mark.parametrize(("value", "said"), [("7", "must be a name in quotes"), ('"a/b"', "'a/b' is no network name")])
def test_a_wrong_setting_is_named(tmp_path: Path, value: str, said: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"netns = {value}\n")
    with pytest.raises(OperatorError, match=f"{file}: netns: {said}"):
        load(file, {})


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("9464", "is not an address and a port"),
        ("localhost:9464", "'localhost' is not an IP address"),
        ("::1:9464", "is not an address and a port"),
        ("[127.0.0.1]:9464", "is not an address and a port"),
        (":9464", "'' is not an IP address"),
        ("127.0.0.1:0", "0 is not a port"),
        ("127.0.0.1:65536", "65536 is not a port"),
    ],
)
def test_a_bad_address_is_named(value: str, part: str) -> None:
    with pytest.raises(OperatorError) as caught:
        load(None, {"MCENCRYPT_METRICS_LISTEN": value})
    assert str(caught.value).startswith("MCENCRYPT_METRICS_LISTEN: ") and part in str(caught.value)


@pytest.mark.parametrize("text", ["127.0.0.1:9464", "[::1]:9464", "0.0.0.0:80"])
def test_an_address_is_taken_as_it_was_written(text: str) -> None:
    assert str(load(None, {"MCENCRYPT_METRICS_LISTEN": f" {text} "}).metrics_listen) == text


def test_trust_listed_needs_a_list_with_somebody_on_it(tmp_path: Path) -> None:
    listed = Config(trust="listed", state_dir=tmp_path)
    with pytest.raises(OperatorError, match=r"peers\.toml: not found, and trust = \"listed\""):
        listed.peers()
    add_peer(tmp_path / "peers.toml", "org-a", identity(1))
    assert listed.peers() == {identity(1): "org-a"}
    remove_peer(tmp_path / "peers.toml", "org-a")
    with pytest.raises(OperatorError, match="lists nobody"):
        listed.peers()
    assert Config(state_dir=tmp_path).peers() == {}
    assert Config(state_dir=tmp_path / "other").peers() == {}
    with pytest.raises(OperatorError, match="not found"):
        Config(state_dir=tmp_path, peers_file=tmp_path / "none.toml").peers()


@pytest.mark.parametrize(
    "content",
    [b"\xef\xbb\xbfports = [7331]\n", b"ports = [7331]\r\nmode = 'prefer'\r\n", b"ports = [7331]\rmode = 'prefer'\r"],
    ids=["BOM", "CRLF", "CR"],
)
def test_what_an_editor_of_another_system_leaves_is_taken(tmp_path: Path, content: bytes) -> None:
    made = tmp_path / "other.toml"
    made.write_bytes(content)
    assert load(made, {}).ports == (7331,)


def test_another_encoding_and_a_folder_are_named(tmp_path: Path) -> None:
    made = tmp_path / "other.toml"
    made.write_bytes("ports = [7331]".encode("utf-16"))
    with pytest.raises(OperatorError, match=r"other\.toml: is in UTF-16"):
        load(made, {})
    with pytest.raises(OperatorError, match="is a folder, as Docker makes"):
        load(tmp_path, {})


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("false", False), (" True ", True)])
def test_pin_in_the_environment(text: str, expected: bool) -> None:
    assert load(None, {"MCENCRYPT_PIN": text}).pin is expected


def test_pin_is_true_or_false(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    for line, expected in (("pin = true", True), ("pin = false", False), ("", False)):
        file.write_text(line)
        assert load(file, {}).pin is expected
    for wrong in ('pin = "yes"', "pin = 1", "pin = []"):
        file.write_text(wrong)
        with pytest.raises(OperatorError, match=r"pin: .* is not one of true, false"):
            load(file, {})


def test_a_long_name_of_a_container_leaves_room_for_its_socket() -> None:
    name = "k8s_" + "x" * 124
    made, other = (load(None, {"MCENCRYPT_NETNS": f"docker:{one}"}) for one in (name, name[:-1] + "y"))
    assert len(str(made.run_dir / "control.sock")) <= 107 and made.run_dir != other.run_dir
    assert made.state_dir.name == f"docker:{name}", "that path has no such limit, and is known from before"
    assert load(None, {"MCENCRYPT_NETNS": "docker:node1"}).run_dir.name == "docker:node1"
