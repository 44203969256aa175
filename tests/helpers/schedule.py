"""Which tests run beside each other under `pytest -n`, and in which order.

What shares a network or a Docker daemon goes to one worker as one group; groups are begun the longest first, so that no
long one is left for the end. A test on real kernels mostly waits for others, so more workers than cores pay.
"""

from __future__ import annotations

#: Files in which each test builds what it needs: a test is a group of its own.
EACH_BY_ITSELF = frozenset(
    f"tests/{name}.py"
    for name in (
        "fuzz/test_fuzz",
        "property/test_streams",
        "real/test_firewall",
        "real/test_health",
        "real/test_limits",
        "real/test_live",
        "real/test_peers",
        "real/test_policy",
        "real/test_rekeying",
        "real/test_rollout",
        "real/test_rotation",
        "real/test_routes",
        "real/test_sockets",
        "real/test_thirdparty",
        "real/test_ways",
    )
)

#: Files and tests that share more than a network: a Docker daemon and the images that are made for them.
TOGETHER = {
    f"tests/containers/test_{name}": daemon
    for daemon, names in {
        "containers of compose": (
            "join.py",
            "network.py",
            "userland_proxy.py",
            "one_node.py",
            "trubudget.py",
            "contents.py",
        ),
        "containers with systemd": (
            *("systemd.py", "systemd_netns.py", "harness.py", "netns.py"),
            "contents.py::test_the_debian_package",
        ),
    }.items()
    for name in names
}

#: The groups that take long, the longest first; all others are short. A test of `EACH_BY_ITSELF` is in it by its file.
LONGEST_FIRST = (
    "containers of compose",
    "containers with systemd",
    *(
        f"tests/real/test_{name}.py"
        for name in (
            *(
                "doctor",
                "matrix",
                "path_mtu",
                "paths",
                "gate",
                "relays",
                "gate_daemons",
                "rollout",
                "blind",
                "lab",
                "loss",
                "relay_attacks",
                "probe",
                "gate_lesser",
            ),
            *("demo", "ways", "fence", "hostile", "netns", "bound", "two_links", "lifecycle", "healthchecks"),
            *("rotation", "relay_programs", "transfer", "policy", "thirdparty", "limits", "verify", "metrics"),
        )
    ),
)


def group(nodeid: str) -> str:
    """What a test runs together with: those of its file, of several files, or nothing else."""
    file = nodeid.partition("::")[0]
    return nodeid if file in EACH_BY_ITSELF else TOGETHER.get(nodeid) or TOGETHER.get(file, file)


def rank(nodeid: str) -> int:
    """The place of a test's group in the order in which groups are begun."""
    name = group(nodeid).partition("::")[0]
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)
