"""Doctor on the real kernel: sick conditions made true, and named."""

import contextlib
import json
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from lab import direct_pair, interrupted_pair, wait_for
from lab.middlebox import passing
from lab.packets import ACK, SYN, parse
from mcencrypt.store.keys import create_network_key
from tests.helpers.nodes import PORT, PORTS, needs_lab
from tests.helpers.pairs import encrypted

pytestmark = needs_lab

AS_NOBODY = """
import os, sys
from click.testing import CliRunner
from mcencrypt.cli import cli
CliRunner().invoke(cli, sys.argv[1:])
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
done = CliRunner().invoke(cli, sys.argv[1:])
sys.stdout.write(done.output)
if done.exception is not None and not isinstance(done.exception, SystemExit):
    raise done.exception
"""


def examine(node, *words):
    """(exit status, findings by id; of several with one id the last)."""
    done = node.mcencrypt("doctor", "--json", *words, check=False)
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert (done.returncode == 1) == bool(report["problems"]), report
    return {one["id"]: one for one in report["findings"]}


@pytest.fixture(scope="module")
def pair():
    with direct_pair() as net, encrypted(net) as made:
        yield made


def severity(node, name):
    """How bad the finding of that id is, None without one."""
    return examine(node).get(name, {}).get("severity")


def test_a_healthy_node(pair):
    found = examine(pair.a)
    assert not [one for one in found.values() if one["severity"] == "problem"]
    for name in ("config.read", "key.file", "daemon.answers", "rules.ipv4", "rules.ipv6", "queue.reader"):
        assert found[name]["severity"] == "ok", found[name]


def test_without_root_it_says_what_it_cannot_see(pair):
    """As user nobody, in a process that had all modules loaded before: it may not be able to read our sources."""
    # not below pytest's folder, which each session that begins closes to other users
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        config = Path(folder) / "config.toml"
        config.write_text(f"ports = [{PORT}]\nstate_dir = '/nonexistent/state'\nrun_dir = '{pair.a.run_dir}'\n")
        config.chmod(0o644)
        words = [sys.executable, "-c", AS_NOBODY, "--config", config, "doctor", "--json"]
        done = pair.a.host.run(words, check=False, env=pair.a._env)
    assert done.stdout, done.stderr
    found = {one["id"]: one for one in json.loads(done.stdout)["findings"]}
    for name in ("process.not-root", "kernel.unseen", "iptables.unseen"):
        assert found[name]["severity"] == "note", found
    assert "rules.ipv4" not in found


def test_another_programs_rules(pair):
    rules = (
        ("filter", "INPUT", ["-p", "tcp", "--dport", PORT, "-s", "192.0.2.1", "-j", "DROP"], "foreign.drop"),
        ("mangle", "FORWARD", ["-j", "NFQUEUE", "--queue-num", 5], "foreign.nfqueue"),
        ("nat", "PREROUTING", ["-p", "tcp", "--dport", PORTS[1], "-j", "REDIRECT"], "foreign.redirect"),
    )
    with contextlib.ExitStack() as undo:
        for table, chain, rule, _ in rules:
            for tables in ("iptables", "ip6tables"):
                if tables == "ip6tables" and "192.0.2.1" in rule:
                    continue
                pair.a.run([tables, "-w", "-t", table, "-A", chain, *rule])
                undo.callback(pair.a.run, [tables, "-w", "-t", table, "-D", chain, *rule])
        found = examine(pair.a)
        for _, chain, _, name in rules:
            assert f"-A {chain}" in found[name]["text"], found
    assert not any(name.startswith("foreign.") for name in examine(pair.a))


def test_rules_behind_ours_do_not_see_what_comes_back(pair):
    for table, chain in (("raw", "OUTPUT"), ("mangle", "INPUT")):
        rule = (chain, "-p", "tcp", "--dport", PORT, "-j", "ACCEPT")
        pair.a.run(["iptables", "-w", "-t", table, "-A", *rule])
        try:
            found = examine(pair.a)["foreign.behind"]
            assert found["severity"] == "warning" and f"{table}: -A {chain}" in found["text"]
        finally:
            pair.a.run(["iptables", "-w", "-t", table, "-D", *rule])
    assert "foreign.behind" not in examine(pair.a)


@pytest.mark.parametrize("who", ["rule", "routing", "nft"])
def test_another_program_that_uses_the_bit(pair, who):
    assert "fence.mark" not in examine(pair.a), "our own use of it is none"
    words, undo, said = {
        "rule": (
            ["iptables", "-w", "-t", "mangle", "-A", "PREROUTING", "-i", "eth9", "-j", "MARK", "--or-mark", "0x20"],
            ["iptables", "-w", "-t", "mangle", "-F", "PREROUTING"],
            "ipv4 mangle: -A PREROUTING",
        ),
        "routing": (
            ["ip", "-6", "rule", "add", "fwmark", "0x20/0x20", "lookup", "main", "pref", 99],
            ["ip", "-6", "rule", "delete", "pref", 99],
            "ip -6 rule: 99:",
        ),
        "nft": (
            ["nft", "add table ip theirs; add chain ip theirs c; add rule ip theirs c meta mark 0x20 accept"],
            ["nft", "delete table ip theirs"],
            "table ip theirs",
        ),
    }[who]
    if shutil.which(words[0]) is None:
        pytest.skip(f"needs {words[0]}")
    pair.a.run(words)
    try:
        found = examine(pair.a)["fence.mark"]
        assert found["severity"] == "warning" and said in found["text"], found
    finally:
        pair.a.run(undo)


def test_big_tcp(pair):
    pair.a.ip("link", "set", "dev", "eth0", "gso_max_size", 100_000)
    try:
        found = examine(pair.a)["links.big-tcp"]
        assert found["severity"] == "problem" and "eth0" in found["text"]
    finally:
        pair.a.ip("link", "set", "dev", "eth0", "gso_max_size", 65536)


@pytest.mark.parametrize(("offload", "said"), [("gso", "warning"), ("gro", None)])
def test_offloads_that_are_off(pair, offload, said):
    """Of a veth, as the lab's are: what comes through it was merged before."""
    pair.a.run(["ethtool", "-K", "eth0", offload, "off"])
    try:
        assert severity(pair.a, "links.offloads") == said
    finally:
        pair.a.run(["ethtool", "-K", "eth0", offload, "on"])


def test_rules_of_routing_are_read(pair):
    """By pyroute2, in the daemon's network namespace."""
    pair.a.ip("rule", "add", "uidrange", "4000-4001", "lookup", "77", "priority", "500")
    pair.a.ip("-6", "rule", "add", "dport", str(PORTS[0]), "ipproto", "tcp", "lookup", "78", "priority", "501")
    try:
        found = json.loads(pair.a.mcencrypt("doctor", "--json", check=False).stdout)["findings"]
        texts = [one["text"] for one in found if one["id"] == "routing.rules"]
        assert any("ip rule 500 (table 77) goes by users 4000-4001" in text for text in texts), texts
        assert any(f"ip -6 rule 501 (table 78) goes by destination ports {PORTS[0]}" in text for text in texts), texts
    finally:
        pair.a.ip("rule", "delete", "priority", "500")
        pair.a.ip("-6", "rule", "delete", "priority", "501")
    assert severity(pair.a, "routing.rules") == "ok"


def test_a_node_on_another_port(pair, tmp_path):
    """A program of multichaind's name, which listens on a port that is not taken."""
    program = tmp_path / "multichaind"
    program.write_text(f"#!{sys.executable}\nimport runpy, sys\nsys.argv[1:] = ['echo', '9876']\n"
                       "runpy.run_module('lab.apps', run_name='__main__')\n")  # fmt: skip
    program.chmod(0o755)
    node = pair.a.spawn([program, "chain1", "-port=9876"], env=pair.a._env)
    try:
        pair.a.wait_listening(9876)
        found = examine(pair.a)["nodes.port-not-taken"]
        assert found["severity"] == "problem"
        assert f"multichaind chain1 (pid {node.pid}) talks to peers on port 9876" in found["text"]
        # seen from another network namespace: with a daemon there, and without one
        seen = {"nodes.served": ", with a mcencrypt of its own", "nodes.elsewhere": " (a container): from"}
        for name, said in seen.items():
            elsewhere = json.loads(pair.b.mcencrypt("doctor", "--json", check=False).stdout)["findings"]
            texts = [one["text"] for one in elsewhere if one["id"] == name]
            assert any(f"(pid {node.pid}) is in another network namespace{said}" in text for text in texts), elsewhere
            if name == "nodes.served":
                pair.a.kill()
    finally:
        node.stop()
        if not pair.a.answers():
            pair.a.start()


def test_called_in_another_network_namespace_it_goes_to_the_daemons(pair):
    done = pair.b.host.run(pair.a._words("doctor", "--json"), check=False, env=pair.a._env)
    found = {one["id"]: one for one in json.loads(done.stdout)["findings"]}
    assert str(pair.a.pid) in found["kernel.netns"]["text"]
    assert found["rules.ipv4"]["severity"] == found["queue.reader"]["severity"] == "ok"


def test_rules_without_a_daemon_and_a_foreign_reader():
    with direct_pair() as net, encrypted(net) as pair:
        pair.a.kill()
        found = examine(pair.a)
        assert found["rules.no-daemon"]["severity"] == found["fence.no-daemon"]["severity"] == "problem"
        assert found["kernel.works"]["severity"] == "ok", "tried on the kernel"
        before = pair.a.rules()
        number = 27971
        code = (
            "import netfilterqueue, time; q = netfilterqueue.NetfilterQueue(); "
            f"q.bind({number}, lambda p: p.drop()); print('bound', flush=True); time.sleep(600)"
        )
        thief = pair.a.spawn([sys.executable, "-c", code])
        thief.wait_for("bound")
        taken = examine(pair.a)["queue.taken"]
        assert taken["severity"] == "problem" and f"(pid {thief.pid})" in taken["text"]
        thief.stop()
        assert examine(pair.a)["kernel.works"]["severity"] == "ok"
        assert pair.a.rules() == before, "the try left nothing behind"
        pair.a.mcencrypt("off")
        assert severity(pair.a, "rules.none") == "note"


def test_rules_that_somebody_removed(pair):
    status = pair.a.status()
    pair.a.run(["ip6tables", "-w", "-t", "raw", "-F", "MCENCRYPT-OUT"])
    wait_for(lambda: pair.a.status()["rules_lost"] > status["rules_lost"], "the daemon to notice")
    wait_for(lambda: severity(pair.a, "rules.ipv6") == "ok", "the rules to be back")
    assert severity(pair.a, "daemon.rules-lost") == "warning"


# ------------------------------------------------------------ peers


@contextlib.contextmanager
def listening(node, port=PORT):
    program = node.python("lab.apps", "echo", port)
    program.wait_for('"listening"')
    try:
        yield
    finally:
        program.stop()


def strip(toward, flags):
    """A middlebox that removes the data of SYNs (`flags` 2) or SYN-ACKs (18) on their way to one side."""

    def behaviour(frame, direction, now):
        segment = parse(frame)
        if segment is None or direction != toward or segment.flags & 0x17 != flags or not segment.payload:
            return [(0.0, frame)]
        return [(0.0, segment.with_payload(segment.sequence, b"", segment.flags).packed())]

    return behaviour


@pytest.fixture(scope="module")
def boxed():
    with interrupted_pair() as net, encrypted(net) as made:
        yield made


@pytest.fixture
def clean_box(boxed):
    yield boxed
    boxed.box.behaviour = passing
    boxed.b.mcencrypt("on")


@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_that_encrypts(clean_box, version):
    pair = clean_box
    with listening(pair.b):
        found = examine(pair.a, pair.b.address(version))
        assert pair.b.status()["identity"] in found["peer.encrypted"]["text"]
        assert found["peer.mtu"]["severity"] == "ok" and "1500" in found["peer.mtu"]["text"]
    assert examine(pair.a, pair.b.address(version))["peer.refused"]["severity"] == "problem", "nothing listens"


@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_without_mcencrypt(clean_box, version):
    pair = clean_box
    pair.b.mcencrypt("off")
    with listening(pair.b):
        found = examine(pair.a, pair.b.address(version))["peer.no-mcencrypt"]
    assert found["severity"] == "problem" and "the path does carry data in SYNs" in found["text"], found


@pytest.mark.parametrize("version", [4, 6])
def test_a_middlebox_that_strips_data_from_syns(clean_box, version):
    """b is silent under `require`, so the daemon's probe alone could not tell."""
    pair = clean_box
    with listening(pair.b):
        pair.box.behaviour = strip("b", SYN)
        found = examine(pair.a, pair.b.address(version))
        assert found["peer.syn-data"]["severity"] == "problem", found
        assert "removes data from SYNs" in found["peer.syn-data"]["text"]
        pair.box.behaviour = strip("a", SYN | ACK)
        assert examine(pair.a, pair.b.address(version))["peer.stripped"]["severity"] == "problem"


def test_a_silent_port_and_a_host_that_is_down(clean_box):
    pair = clean_box
    pair.b.run(["iptables", "-w", "-t", "raw", "-A", "PREROUTING", "-p", "tcp", "--dport", PORT, "-j", "DROP"])
    try:
        found = examine(pair.a, f"{pair.b.v4}:{PORT}")["peer.silent"]
        assert "the host answers otherwise, and the path carries data in SYNs" in found["text"], found
        assert examine(pair.b)["foreign.drop"]["severity"] == "warning"
    finally:
        pair.b.run(["iptables", "-w", "-t", "raw", "-D", "PREROUTING", "-p", "tcp", "--dport", PORT, "-j", "DROP"])
    found = examine(pair.a, "10.66.0.99")["peer.silent"]
    assert "nothing of that host answers" in found["text"]


def test_a_path_with_a_smaller_mtu(clean_box):
    """What is too large is lost without a word: an ICMP black hole."""
    pair = clean_box
    pair.box.behaviour = lambda frame, toward, now: [(0.0, frame)] if len(frame) <= 1300 + 14 else []
    with listening(pair.b):
        found = examine(pair.a, pair.b.v4)
    assert found["peer.mtu"]["severity"] == "warning" and "peer.encrypted" in found, found


def test_a_peer_with_another_key():
    with direct_pair() as net:
        other = net.lab.directory / "other.key"
        create_network_key(other)
        with encrypted(net, b={"network_key": other}) as pair, listening(pair.b):
            examine(pair.b, pair.a.v4)  # b dials a, and so shows the id of its key
            found = examine(pair.a, pair.b.v4)["peer.other-key"]
            assert found["severity"] == "problem" and pair.b.status()["key_id"] in found["text"]


def test_without_a_daemon_the_path_is_tried_all_the_same():
    with direct_pair() as net, encrypted(net) as pair:
        pair.a.mcencrypt("off")
        pair.a.kill()
        found = examine(pair.a, pair.b.v4)
        assert found["peer.no-daemon"]["severity"] == "warning"
        assert found["peer.syn-data"]["severity"] == "ok" and found["peer.mtu"]["severity"] == "ok"


def test_a_peer_that_lacks_the_key_that_is_offered_here():
    with direct_pair() as net, encrypted(net) as pair, listening(pair.b):
        new = net.lab.directory / "new.key"
        create_network_key(new)
        pair.a.mcencrypt("key", "add", new)
        offered = pair.a.status()["key_id"]
        [added] = [one["id"] for one in pair.a.status()["keys"] if one["id"] != offered]
        pair.a.mcencrypt("key", "use", added, "--force")
        found = examine(pair.a, pair.b.v4)
        assert found["peer.lacks-offered-key"]["severity"] == "problem", found
        assert added in found["peer.lacks-offered-key"]["text"] and found["key.rotation"]["severity"] == "note"
        pair.b.mcencrypt("key", "add", new)
        assert examine(pair.a, pair.b.v4)["peer.encrypted"]["severity"] == "ok"


def test_rules_of_the_other_backend(pair):
    backend = pair.a.run(["iptables", "--version"]).stdout
    other = "iptables-legacy" if "nf_tables" in backend else "iptables-nft"
    rule = ["INPUT", "-s", "192.0.2.1", "-j", "DROP"]
    pair.a.run([other, "-w", "-A", *rule])
    try:
        assert severity(pair.a, "iptables.mixed") == "note"
    finally:
        pair.a.run([other, "-w", "-D", *rule])


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_rules_whose_comments_are_any_bytes_are_shown_and_hinder_no_command(pair, locale):
    """They were no UTF-8, and whatever read them ended with an exception: the watch, on, off, doctor."""
    comment = b"R\xe9seau \xff\x1b[31m"
    rule = ["INPUT", "-p", "tcp", "--dport", PORT, "-s", "192.0.2.1", "-m", "comment", "--comment", comment]
    rule += ["-j", "DROP"]
    spoken = dict(pair.a._env)
    pair.a._env |= {"LC_ALL": locale, "LANG": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    with contextlib.ExitStack() as undo:
        undo.callback(pair.a._env.update, spoken)
        for table in ("filter", "mangle", "raw"):
            words = rule if table != "raw" else ["OUTPUT", *rule[1:]]
            pair.a.run(["iptables", "-w", "-t", table, "-A", *words])
            undo.callback(pair.a.run, ["iptables", "-w", "-t", table, "-D", *words])
        lost = pair.a.status()["rules_lost"]
        assert examine(pair.a)["foreign.drop"]["severity"] == "warning"
        for command in (["doctor"], ["status"], ["off"], ["status"], ["on"], ["status", "--check"]):
            done = pair.a.mcencrypt(*command, check=False)
            assert done.returncode == 0 or (command == ["doctor"] and "seau" in done.stdout), (command, done)
            assert "Traceback" not in done.stderr and "\x1b[31m" not in done.stdout
        assert pair.a.status()["rules_lost"] == lost and not pair.a.status()["gate"]["trouble"]
