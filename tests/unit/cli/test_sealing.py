"""``mcencrypt key seal`` and ``key open``, as two people use them."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mcencrypt.store.keys import load_network_key
from tests.helpers.commands import fails, run

Use = Callable[[str], None]
_FINGERPRINT = re.compile(r"([0-9A-Z]{4}(?:-[0-9A-Z]{4}){3})")


@pytest.fixture
def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """From now on commands are run on that node."""

    def use(node: str) -> None:
        monkeypatch.setenv("MCENCRYPT_STATE_DIR", str(tmp_path / node))
        monkeypatch.setenv("MCENCRYPT_NETWORK_KEY_FILE", str(tmp_path / node / "network.key"))

    return use


def fingerprints(text: str) -> list[str]:
    return _FINGERPRINT.findall(text)


def test_a_key_goes_from_one_node_to_another(tmp_path: Path, at: Use) -> None:
    at("b")
    b = run("identity")
    identity, [b_print] = b.stdout.strip(), fingerprints(b.stderr)
    at("a")
    assert run("keygen").exit_code == 0
    [a_print] = fingerprints(run("identity").stderr)
    sealed = run("key", "seal", "--to", identity)
    assert sealed.exit_code == 0 and fingerprints(sealed.stderr) == [b_print, a_print]
    secret = load_network_key(tmp_path / "a/network.key")
    assert secret.text().strip() not in sealed.output
    (tmp_path / "mail.txt").write_text(f"Hello,\n{sealed.stdout}\nBye")
    at("b")
    opened = run("key", "open", str(tmp_path / "mail.txt"))
    assert opened.exit_code == 0 and fingerprints(opened.stdout) == [a_print, b_print]
    assert "compare the first fingerprint with the sender by phone, then `mcencrypt on`" in opened.stderr
    file = tmp_path / "b/network.key"
    assert load_network_key(file) == secret and stat.S_IMODE(file.stat().st_mode) == 0o600
    fails(run("key", "open", str(tmp_path / "mail.txt")), 1, "exists already")
    other = run("key", "open", "--out", str(tmp_path / "new.key"), "-", stdin=sealed.stdout)
    assert other.exit_code == 0 and f"`mcencrypt key add {tmp_path}/new.key`" in other.stderr


def test_a_listed_name_will_do_and_the_sender_is_named(tmp_path: Path, at: Use) -> None:
    at("a")
    a = run("identity").stdout.strip()
    at("b")
    b = run("identity").stdout.strip()
    assert run("peers", "add", "org-a", a).exit_code == 0
    at("a")
    run("keygen")
    assert run("peers", "add", "org-b", b).exit_code == 0
    assert run("key", "seal", "--to", "org-b", "--out", str(tmp_path / "x")).exit_code == 0
    fails(run("key", "seal", "--to", "org-b", "--out", str(tmp_path / "x")), 1, "exists already")
    at("b")
    assert "listed here as org-a" in run("key", "open", str(tmp_path / "x")).stdout


def test_errors_of_sealing(tmp_path: Path, at: Use) -> None:
    at("a")
    run("keygen")
    fails(run("key", "seal", "--to", "org-x"), 1, "no public key, and no listed peer")
    fails(run("key", "seal", "--to", "AAAA="), 1, "is not a public key")
    fails(run("key", "seal"), 2, "--to")
    fails(run("key", "open", str(tmp_path / "none")), 1, "none", "there is no such file in")
    fails(run("key", "open", "-", stdin="hello"), 1, "standard input: holds no sealed key")
