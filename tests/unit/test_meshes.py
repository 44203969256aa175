"""What benchmarks/mesh computes and draws."""

import xml.etree.ElementTree as ElementTree

import pytest

from benchmarks.meshes import Cost, law
from benchmarks.plot import curves


def cost(hosts: int, each: float, pair: float, tunnels: bool = True) -> Cost:
    pairs = hosts * (hosts - 1) // 2
    value = each * hosts + pair * pairs
    return Cost(hosts, pairs if tunnels else 0, round(value), round(value), value, value)


@pytest.mark.parametrize(("each", "pair"), [(3.0, 7.0), (5.0, 0.0), (0.0, 2.0)])
def test_what_hosts_and_pairs_cost_is_found_again(each: float, pair: float) -> None:
    found = law([cost(hosts, each, pair) for hosts in (3, 6, 12)])
    assert found.at(1000).memory == pytest.approx(1000 * each + 499_500 * pair)
    assert found.at(1000).tunnels == 499_500


def test_nothing_costs_less_than_nothing() -> None:
    """Two sizes of which the larger cost less a host than the smaller."""
    found = law([cost(10, 5.0, 0.0, False), cost(50, 4.0, 0.0, False)])
    assert found.memory[1] == 0.0 and 4.0 <= found.memory[0] <= 5.0
    assert found.at(1000).tunnels == 0


def test_one_size_is_all_the_hosts() -> None:
    assert law([cost(4, 2.5, 0.0)]).at(8).memory == pytest.approx(20.0)


def test_curves_and_points_are_drawn_where_they_belong() -> None:
    curve = [(2.0, 1.0), (10.0, 10.0), (1000.0, 100.0)]
    drawing = ElementTree.fromstring(curves({"a < b": {"one": (curve, curve[1:2]), "other": (curve[:2], [])}}))
    spaces = {"s": "http://www.w3.org/2000/svg"}
    first, second = drawing.findall("s:polyline", spaces)
    assert first.attrib["points"].startswith(second.attrib["points"])
    (circle,) = drawing.findall("s:circle", spaces)
    assert f"{circle.attrib['cx']},{circle.attrib['cy']}" in first.attrib["points"].split()
    assert "a < b" in [text.text for text in drawing.findall("s:text", spaces)]
