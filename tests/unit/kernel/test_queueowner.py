"""Who reads a queue, on a recorded /proc."""

from __future__ import annotations

import os
from pathlib import Path

from mcencrypt.kernel.queueowner import owner, why_not


def recorded(proc: Path) -> Path:
    (proc / "thread-self/net/netfilter").mkdir(parents=True)
    (proc / "thread-self/net/netfilter/nfnetlink_queue").write_text(
        "    3   999     0 2 65531 0 0 9 1\n27971   4242  0 2 1\n"
    )
    (proc / "thread-self/net/netlink").write_text(
        "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n"
        "0 0 4242 0 0 0 0 2 0 7\n0 12 4242 00000000 0 0 0 2 0 9001\n"
    )
    for pid, words, inode in ((4242, "/usr/bin/python3\0-m\0mcencrypt\0daemon\0", 9001), (1, "init\0", 5)):
        (proc / str(pid) / "fd").mkdir(parents=True)
        (proc / str(pid) / "cmdline").write_text(words)
        os.symlink(f"socket:[{inode}]", proc / str(pid) / "fd/3")
    return proc


def test_the_program_that_reads_a_queue_is_named(tmp_path: Path) -> None:
    assert owner(27971, recorded(tmp_path)) == "/usr/bin/python3 -m mcencrypt daemon (pid 4242)"


def test_why_a_queue_cannot_be_had_is_said_with_what_to_do(tmp_path: Path) -> None:
    proc = recorded(tmp_path)
    assert "another mcencrypt (/usr/bin/python3 -m mcencrypt daemon (pid 4242)) serves this" in why_not(
        27971, "?", proc
    )
    (proc / "4242/cmdline").write_text("suricata\0-q\0")
    assert "suricata -q (pid 4242) reads it: set queue_number" in why_not(27971, "?", proc)
    (proc / "4242/fd/3").unlink()
    assert "cannot be seen from here" in why_not(27971, "?", proc) and "remove one of the two" in why_not(
        27971, "?", proc
    )
    assert "no permission; run as root" in why_not(5, "no permission", proc)
    (proc / "thread-self/net/netfilter/nfnetlink_queue").unlink()
    assert "modprobe nfnetlink_queue" in why_not(27971, "?", proc)
    assert all("\n" not in why_not(number, "?", proc) for number in (5, 27971))


def test_what_cannot_be_told_is_not_said(tmp_path: Path) -> None:
    assert owner(27971, tmp_path) == ""
    proc = recorded(tmp_path)
    assert owner(5, proc) == "" and owner(3, proc) == ""
    (proc / "4242/fd/3").unlink()
    assert owner(27971, proc) == ""
