"""Networks with daemons that several tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab import Process, interrupted_pair, two_hosts
from lab.middlebox import passing
from tests.helpers.netns import inside, namespace
from tests.helpers.nodes import PORT
from tests.helpers.pairs import EncryptedPair, encrypted


@pytest.fixture(scope="module")
def encrypted_pair() -> Iterator[EncryptedPair]:
    """Two nodes under `require`, a strict NAT router between them. One for all tests of a module."""
    with two_hosts() as net, encrypted(net) as pair:
        yield pair


@pytest.fixture(scope="module")
def module_boxed() -> Iterator[EncryptedPair]:
    with interrupted_pair() as net, encrypted(net) as pair:
        yield pair


@pytest.fixture
def boxed(module_boxed: EncryptedPair) -> Iterator[EncryptedPair]:
    """Two hosts with a daemon each and a middlebox between them, which passes everything until a test wants more."""
    running = list(module_boxed.lab.processes)
    yield module_boxed
    module_boxed.box.behaviour = passing
    for process in module_boxed.lab.processes:
        if process not in running:
            process.stop()
    module_boxed.box.raise_failure()
    for node in (module_boxed.a, module_boxed.b):
        assert node.answers()


@pytest.fixture
def in_namespace() -> Iterator[None]:
    """The test runs in a network namespace of its own."""
    with namespace() as name, inside(name):
        yield


@pytest.fixture
def echo(pair: EncryptedPair) -> Iterator[Process]:
    """A server on b of the module's own `pair`, which returns what it gets."""
    process = pair.b.python("lab.apps", "echo", PORT)
    process.wait_for('"listening"')
    yield process
    process.stop()
