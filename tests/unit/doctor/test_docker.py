"""Docker's own proxy in front of a port."""

from __future__ import annotations

from mcencrypt.doctor.docker import check_docker
from mcencrypt.doctor.finding import Severity
from tests.helpers.recorded_machine import NETNS, Recorded, by_id, case, status

FIB_TRIE = """Main:
  +-- 172.17.0.0/16 2 0 2
     |-- 172.17.0.2
        /32 host LOCAL
     |-- 172.17.0.3
        /32 universe UNICAST
"""


def test_docker_proxy_in_front_of_a_port(machine: Recorded) -> None:
    words = ["-host-ip", "0.0.0.0", "-host-port", "7331", "-container-ip", "172.17.0.2", "-container-port", "7331"]
    assert not list(check_docker(case(machine, status())))
    machine.add_process(50, "docker-proxy", "/usr/bin/docker-proxy", *words)
    found = list(check_docker(case(machine, status())))
    assert by_id(found, "docker.proxy").severity is Severity.WARNING
    assert "172.17.0.2:7331" in by_id(found, "docker.proxy").text and by_id(found, "docker.published")
    machine.add_process(50, "docker-proxy", "/usr/bin/docker-proxy", *[word.replace("7331", "80") for word in words])
    assert not list(check_docker(case(machine, status())))
    machine.add_process(51, "slirp4netns", "slirp4netns", netns="net:[1]")
    assert not list(check_docker(case(machine, status()))), "it is somewhere else"
    machine.add_process(51, "slirp4netns", "slirp4netns")
    assert by_id(list(check_docker(case(machine, status()))), "docker.rootless")


def proxy(machine: Recorded, pid: int, host_ip: str, netns: str, container: str = "172.17.0.2") -> None:
    words = ["-host-ip", host_ip, "-host-port", "7331", "-container-ip", container, "-container-port", "7331"]
    machine.add_process(pid, "docker-proxy", "/usr/bin/docker-proxy", *words, netns=netns)


def test_a_port_that_is_published_over_both_families_is_one_finding(machine: Recorded) -> None:
    proxy(machine, 50, "0.0.0.0", NETNS)
    proxy(machine, 51, "::", NETNS)
    found = list(check_docker(case(machine, status())))
    assert [one.id for one in found] == ["docker.proxy", "docker.published"]
    assert "port 7331 of 0.0.0.0 (pid 50) and :: (pid 51)" in found[0].text


def test_proxies_elsewhere_count_if_they_lead_here(machine: Recorded) -> None:
    """Seen from a container's network, into which the host's proxies lead: its own, and those of others."""
    proxy(machine, 50, "0.0.0.0", "net:[1]")
    proxy(machine, 51, "0.0.0.0", "net:[1]", "172.17.0.3")
    assert not list(check_docker(case(machine, status())))
    machine.files["/proc/thread-self/net/fib_trie"] = FIB_TRIE
    [found] = check_docker(case(machine, status()))
    assert found.id == "docker.proxy" and "172.17.0.2:7331" in found.text and "in relayed here" in found.advice
