"""Metrics of a node of the lab, as a Prometheus on its host gets them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families as parse_text

from lab import PATIENCE
from tests.helpers.nodes import Node

#: Where nodes serve them: `metrics_listen`.
ADDRESS = "127.0.0.1:9464"

_GET = f"""
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={{"Accept": sys.argv[2]}})
with urllib.request.urlopen(request, timeout={PATIENCE}) as answer:
    print(answer.headers["Content-Type"])
    print(answer.read().decode(), end="")
"""


def scrape(node: Node, accept: str = "text/plain", address: str = ADDRESS) -> str:
    """The metrics of a node, as a Prometheus on its host gets them."""
    done = node.run([sys.executable, "-c", _GET, f"http://{address}/metrics", accept])
    content_type, _, body = done.stdout.partition("\n")
    assert content_type.startswith(accept)
    return str(body)


def samples(text: str, parse: Callable[[str], Any] = parse_text) -> dict[str, float]:
    found = {}
    for family in parse(text):
        for one in family.samples:
            found[one.name + "".join(f"/{value}" for value in one.labels.values())] = one.value
    return found
