"""Disks that are full or can do little: what cannot be kept is said, what need not be is not, and packets go on.

Each daemon has a mount namespace of its own here: nobody else sees what is mounted.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab import Host, Lab, direct_pair, wait_for
from mcencrypt.control.client import request
from mcencrypt.errors import OperatorError
from mcencrypt.store.keys import create_network_key, load_identity
from mcencrypt.store.position import write_switch
from tests.helpers.nodes import Node, needs_lab
from tests.helpers.pairs import EncryptedPair, talking

pytestmark = needs_lab


def tmpfs(kilobytes: int) -> str:
    """A file system of that size, as `Apart` takes it."""
    return f'mount -t tmpfs -o mode=0700,size={kilobytes}k tmpfs "$0"'


class Apart(Node):
    """A node whose daemon has a mount namespace of its own; what is mounted in it nobody else sees."""

    def __init__(self, host: Host, network_key: Path, folder: Path | str, enter: Sequence[object] | str) -> None:
        """`folder`: "run" or "state", or the state directory's path.

        `enter`: the program that enters the namespace, or a shell command for a new one, which mounts something at $0.
        """
        settings = {"state_dir": str(folder)} if isinstance(folder, Path) else {}
        super().__init__(host, network_key, **settings)
        self.folder, self._outside = self.directory / folder, self.run_dir
        if isinstance(enter, str):
            self.folder.mkdir(mode=0o700)
            enter = ["unshare", "--mount", "sh", "-c", f'{enter} && exec "$@"', self.folder]
        self._enter = enter

    def _words(self, *words: object) -> list[object]:
        return [*self._enter, *super()._words(*words)] if words == ("daemon",) else super()._words(*words)

    def answers(self) -> bool:
        self.run_dir = self.inside(self._outside)
        return super().answers()

    def inside(self, path: Path) -> Path:
        """A path of the daemon's, as seen from outside."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    def fill(self) -> None:
        """Leave no byte free in the folder."""
        with contextlib.suppress(OSError), open(self.inside(self.folder) / "junk", "wb", buffering=0) as junk:
            while junk.write(bytes(4096)):
                pass
        assert self.free() == 0

    def free(self) -> int:
        """Blocks that are left in the folder."""
        return os.statvfs(self.inside(self.folder)).f_bavail


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    create_network_key(tmp_path / "network.key")
    with Lab() as lab:
        yield lab.host("a")


# -- run_dir


def test_a_run_dir_without_room_for_the_journal_is_said_at_the_start(host: Host, tmp_path: Path) -> None:
    node = Apart(host, tmp_path / "network.key", "run", tmpfs(512))
    process = node.host.spawn(node._words("daemon"), log=node.log_file, env=node._env)
    wait_for(lambda: process.exit_code is not None, "the daemon to give up", 20)
    assert process.exit_code == 1, "1 is an error, and -7 a SIGBUS"
    last = node.log().splitlines()[-1]
    assert "flows" in last and "No space left" in last and "run_dir" in last and "Traceback" not in node.log()


@pytest.mark.parametrize("version", [4, 6])
def test_a_run_dir_that_fills_up_later_kills_nobody(version: int) -> None:
    with direct_pair() as net:
        key = net.lab.directory / "network.key"
        create_network_key(key)
        a, b = Node(net.a, key), Apart(net.b, key, "run", tmpfs(1300))
        pair = EncryptedPair(net, a, b)
        for node in (a, b):
            node.start()
        b.fill()
        with talking(pair, version):
            assert b.answers() and b.connections("encrypted")
        pair.check()


# -- state_dir


@pytest.mark.parametrize("switched", ["", "on", "off"])
def test_a_daemon_starts_on_a_full_state_dir(host: Host, tmp_path: Path, switched: str) -> None:
    kept = tmp_path / "kept"
    identity = load_identity(kept).public_base64
    if switched:
        write_switch(kept, switched == "on")
    fill = f'cp -a {kept}/. "$0" && {{ cat /dev/zero >"$0/junk" 2>/dev/null || true; }}'
    node = Apart(host, tmp_path / "network.key", "state", f"{tmpfs(64)} && {fill}")
    node.start()
    assert node.free() == 0
    assert node.status()["enabled"] is (switched != "off") and node.status()["identity"] == identity
    # what cannot be remembered is not done
    with pytest.raises(OperatorError, match="switch: cannot be written: No space left"):
        request(node.run_dir, "on" if switched == "off" else "off")
    assert node.status()["enabled"] is (switched != "off")


#: Mounts $1 at $0 in a mount namespace of its own, says so, and takes it away when nobody holds its input any more. The
#: server of a file system must not be killed with the last process of its namespace: it would wait for itself for ever.
_HOLD = """
/usr/sbin/mount.exfat-fuse -o fmask=0177,dmask=0077 "$1" "$0" >&2 && echo mounted && read -r _
umount "$0" || umount -l "$0"
"""


@pytest.fixture
def without_links(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder on exFAT, which knows no hard links and no renameat2(RENAME_NOREPLACE), and how to enter where it is."""
    if shutil.which("mount.exfat-fuse", path="/usr/sbin:/sbin") is None or not Path("/dev/fuse").exists():
        pytest.skip("needs exFAT (Debian: exfat-fuse, exfatprogs)")
    image, place = tmp_path / "image", tmp_path / "mounted"
    image.touch()
    os.truncate(image, 8 << 20)
    place.mkdir()
    subprocess.run(["/usr/sbin/mkfs.exfat", image], check=True, capture_output=True)
    shown = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    if shown.returncode:
        pytest.skip(f"needs a loop device: {shown.stderr.strip()}")
    device = shown.stdout.strip()
    words = ["unshare", "--mount", "sh", "-c", _HOLD, place, device]
    try:
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout is not None and holder.stdout.readline() == "mounted\n"
            yield place, ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def test_a_state_dir_without_hard_links(without_links: tuple[Path, list[str]], tmp_path: Path) -> None:
    create_network_key(tmp_path / "network.key")
    with Lab() as lab:
        node = Apart(lab.host("a"), tmp_path / "network.key", *without_links)
        node.start()
        with pytest.raises(PermissionError):
            (node.inside(node.folder) / "again").hardlink_to(node.inside(node.folder) / "identity.key")
        names = {one.name for one in node.inside(node.folder).iterdir()}
        assert names == {"identity.key", "ports", "state.lock"}, "nothing half made is left"
        request(node.run_dir, "off")
        request(node.run_dir, "mode", mode="prefer", confirmed=True)
        assert (node.inside(node.folder) / "switch").read_text() == "off\n"
        assert (node.inside(node.folder) / "mode").read_text() == "prefer\n"
