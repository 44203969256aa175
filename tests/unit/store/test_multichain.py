"""Ports of chains, as MultiChain's files have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.store.config import Config

PARAMS = """# ==== MultiChain configuration file ====

chain-description = MultiChain a = b    # default-network-port = 1
default-network-port = 7331             # Default TCP/IP port for peer-to-peer connection with other nodes.
default-rpc-port = 7330                 # Default TCP/IP port for incoming JSON-RPC API requests.
"""


def chain(directory: Path, name: str = "chain1", params: str = PARAMS, conf: str | None = None) -> None:
    (directory / name).mkdir()
    (directory / name / "params.dat").write_text(params)
    if conf is not None:
        (directory / name / "multichain.conf").write_text(conf)


def ports(directory: Path, *chains: str, own: tuple[int, ...] = ()) -> tuple[int, ...]:
    return Config(ports=own, chains=chains or ("chain1",), multichain_dir=directory).p2p_ports()


def test_the_port_of_a_chain(tmp_path: Path) -> None:
    chain(tmp_path)
    assert ports(tmp_path) == (7331,)


@pytest.mark.parametrize(
    ("conf", "found"),
    [
        ("rpcport=1\nport=9000\n", (7331, 9000)),
        ("port = 9000 # mine\nport=9001", (7331, 9000)),
        ("#port=9000\nrpcport=8000", (7331,)),
        ("port=7331", (7331,)),
        ("bind=[::]:9000\nbind=0.0.0.0:9001\nbind=10.0.0.1", (7331, 9000, 9001)),
        ("whitebind=10.0.0.1:9000\nrpcbind=0.0.0.0:8000", (7331, 9000)),
        ("addnode=peer.example:30447\nconnect=[2001:db8::1]:30448\nseednode=2001:db8::1", (7331, 30447, 30448)),
        ("[test]\nport=9000", (7331,)),
        ("", (7331,)),
    ],
)
def test_port_in_multichain_conf_counts_as_well(tmp_path: Path, conf: str, found: tuple[int, ...]) -> None:
    chain(tmp_path, conf=conf)
    assert ports(tmp_path) == found


def test_the_conf_of_all_chains_counts_as_well(tmp_path: Path) -> None:
    chain(tmp_path, conf="port=9000")
    (tmp_path / "multichain.conf").write_text("port=9500")
    assert ports(tmp_path) == (7331, 9000, 9500)


def test_ports_of_everything_each_once(tmp_path: Path) -> None:
    chain(tmp_path, "a")
    chain(tmp_path, "b", PARAMS.replace("7331", "7441"), "port=7331")
    assert ports(tmp_path, "a", "b", own=(8571, 7441)) == (8571, 7441, 7331)


@pytest.mark.parametrize(
    ("params", "conf", "problem"),
    [
        ("chain-name = x", None, r"chain1/params\.dat: no default-network-port"),
        (PARAMS.replace("7331", "x"), None, r"chain1/params\.dat: default-network-port = x is not a port"),
        (PARAMS.replace("7331", "0"), None, r"chain1/params\.dat: default-network-port = 0 is not a port"),
        (PARAMS, "port=65536", r"chain1/multichain\.conf: port = 65536 is not a port"),
        (PARAMS, "bind=[::]:90000", r"chain1/multichain\.conf: bind = 90000 is not a port"),
        (PARAMS, "port=", r"chain1/multichain\.conf: port =  is not a port"),
    ],
)
def test_a_mistake_in_a_chains_file_names_that_file(
    tmp_path: Path, params: str, conf: str | None, problem: str
) -> None:
    chain(tmp_path, params=params, conf=conf)
    with pytest.raises(OperatorError, match=problem):
        ports(tmp_path)


def test_a_chain_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"chain9/params\.dat: not found: set multichain_dir"):
        ports(tmp_path, "chain9")
