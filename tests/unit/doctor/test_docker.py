"""Docker's own proxy in front of a port."""

from __future__ import annotations

from mcencrypt.doctor.docker import check_docker
from mcencrypt.doctor.finding import Severity
from tests.helpers.recorded_machine import Recorded, by_id, case, status


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
