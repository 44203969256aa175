"""A node that dials its own published address, as multichaind does each second: by NAT, and through a relay."""

from __future__ import annotations

import pytest

from lab import two_hosts, wait_for
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import EncryptedPair, encrypted
from tests.helpers.relays import Leg, skip_without, start_relay

pytestmark = needs_lab

DIALS = 8


def dial_itself(pair: EncryptedPair, address: str) -> None:
    """Host a dials, and is refused, again and again."""
    for _ in range(DIALS):
        with pair.a.socket() as sock:
            sock.settimeout(20)
            with pytest.raises(OSError) as failed:
                sock.connect((address, PORT))
                sock.recv(1) or sock.connect((address, PORT))
            assert not isinstance(failed.value, TimeoutError), "it fails at once"


def refusals(pair: EncryptedPair) -> list[str]:
    return [line for line in pair.a.log().splitlines() if "WARNING" in line and "connection refused" in line]


def test_nat_that_leads_back_is_recognised_and_one_line() -> None:
    with two_hosts() as net, encrypted(net) as pair:
        published = net.router.address(4, "a")
        net.router.run(f"iptables -w -t nat -A PREROUTING -i a -d {published} -p tcp --dport {PORT} -j DNAT --to "
                       f"{pair.a.v4}".split())  # fmt: skip
        net.router.run(f"iptables -w -t nat -A POSTROUTING -o a -p tcp --dport {PORT} -j MASQUERADE".split())
        pair.a.python("lab.apps", "echo", PORT).wait_for('"listening"')
        dial_itself(pair, published)
        [own] = pair.a.status()["own_addresses"]
        assert (own["address"], own["dials"]) == (f"{published}:{PORT}", DIALS)
        assert not pair.a.connections("handshake")
        assert f"{published}:{PORT} leads back here ({DIALS} dials" in pair.a.mcencrypt("status").stdout
        assert len(refusals(pair)) == 1 and "own-key" in refusals(pair)[0]


def test_a_relay_that_leads_back_is_recognised_where_it_is_named() -> None:
    """As docker-proxy, before a container that dials the address of its host."""
    skip_without("socat")
    with two_hosts() as net:
        gateway = net.router.address(4, "a")
        with encrypted(net, a={"relayed": [gateway]}) as pair:
            pair.a.python("lab.apps", "echo", PORT).wait_for('"listening"')
            start_relay("socat", net.router, Leg(gateway, PORT), Leg(pair.a.v4, PORT))
            dial_itself(pair, gateway)
            wait_for(lambda: pair.a.status()["own_addresses"], "a dial to come back")
            [own] = pair.a.status()["own_addresses"]
            assert (own["address"], own["dials"]) == (f"{gateway}:{PORT}", DIALS)
            assert len(refusals(pair)) <= 1
