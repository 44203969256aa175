"""Links of a real kernel, in namespaces of their own."""

from __future__ import annotations

import socket
import struct
import subprocess

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.kernel import links
from mcencrypt.kernel.links import Link, check_links, read_links
from mcencrypt.kernel.netlink import NETLINK_ROUTE, NLM_F_ACK, Netlink
from tests.helpers.netns import needs_root, shell

pytestmark = [needs_root, pytest.mark.usefixtures("in_namespace")]


def test_ordinary_links_pass() -> None:
    shell("ip link add name va type veth peer name vb")
    check_links()
    assert {(link.name, link.kind, link.loopback) for link in read_links()} >= {
        ("lo", "", True),
        ("va", "veth", False),
    }


@pytest.mark.parametrize("setting", ["gso_max_size", "gro_max_size", "gso_ipv4_max_size", "gro_ipv4_max_size"])
def test_big_tcp_is_refused_with_the_command_that_mends_it(setting: str) -> None:
    shell("ip link add name va type veth peer name vb")
    set_size("va", setting, 185000)
    with pytest.raises(OperatorError, match=r"interface va uses BIG TCP .*ip link set dev va") as caught:
        check_links()
    assert f"{setting} 65536" in str(caught.value)
    if "ipv4" in setting:
        set_size("va", setting, 65536)  # an ip that is older than the kernel does not know the word
    else:
        shell(str(caught.value).split("encrypted: ")[1])
    check_links()


def set_size(name: str, setting: str, size: int) -> None:
    number = next(number for number, known in links._SIZES.items() if known == setting)
    netlink = Netlink(NETLINK_ROUTE)
    try:
        body = links._LINK.pack(0, 0, socket.if_nametoindex(name), 0, 0) + struct.pack("=HHI", 8, number, size)
        netlink.request(16, NLM_F_ACK, body)
    except OSError as error:
        pytest.skip(f"this kernel cannot set {setting}: {error}")
    finally:
        netlink.close()


def test_big_tcp_on_loopback_does_not_matter() -> None:
    set_size("lo", "gso_max_size", 185000)
    check_links()


def test_vrf_devices_are_refused() -> None:
    with pytest.raises(OperatorError, match="interface red is a VRF device"):
        check_links([Link("eth0", "", False, {}), Link("red", "vrf", False, {"gso_max_size": 65536})])
    add = ["ip", "link", "add", "red", "type", "vrf", "table", "9"]
    if not subprocess.run(add, capture_output=True).returncode:
        with pytest.raises(OperatorError, match="interface red is a VRF device"):
            check_links()
