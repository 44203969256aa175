"""Connection keys: taken apart, put together and turned round, for both versions of IP."""

from __future__ import annotations

import pytest

from mcencrypt.core.addresses import Ends, Path, address_of, endpoints, on_ports, peer_of, reversed_key
from tests.helpers.sides import A6, B6, A, B, Host, key_of, make


@pytest.mark.parametrize(("local", "remote"), [(A, B), (A6, B6)])
def test_a_key_is_known_by_all_its_parts(local: Host, remote: Host) -> None:
    key = make(local, remote, 0, 0, 0).key
    assert key == key_of(local, remote) and len(key) in (12, 36)
    assert Ends.of(key) == (local[0], local[1], remote[0], remote[1])
    assert Ends(local[0], local[1], remote[0], remote[1]).key() == key
    assert (address_of(key), peer_of(key)) == (local[0], remote[0])
    assert Path.of(key) == Path(peer=remote[0], own=local[0])
    assert endpoints(key) == (local[0] + local[1].to_bytes(2, "big"), remote[0] + remote[1].to_bytes(2, "big"))


@pytest.mark.parametrize(("local", "remote"), [(A, B), (A6, B6)])
def test_the_other_direction_is_the_same_reversed(local: Host, remote: Host) -> None:
    key = key_of(local, remote)
    assert reversed_key(key) == make(remote, local, 0, 0, 0).key != key
    assert reversed_key(reversed_key(key)) == key


@pytest.mark.parametrize(("ports", "on"), [((7331,), True), ((40000,), True), ((1, 2), False), ((), False)])
def test_a_connection_is_on_a_port_at_either_end(ports: tuple[int, ...], on: bool) -> None:
    assert on_ports(key_of(A, B), ports) is on_ports(key_of(B6, A6), ports) is on
