"""The configuration, and the files and folders that it names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, ok, problem, warning
from mcencrypt.errors import OperatorError
from mcencrypt.store.config import DEFAULT_FILE

_GROUP_OR_OTHERS_WRITE = 0o022


def check_configuration(case: Case) -> Iterator[Finding]:
    """Can it be read, does it name ports, does the daemon run with it."""
    config = case.config
    if case.config_error:
        yield _from_error("config.invalid", case.config_error)
        return
    where = str(config.file) if config.file else f"no {DEFAULT_FILE}; defaults and environment"
    try:
        ports = config.p2p_ports()
    except OperatorError as error:
        yield _from_error("config.ports", str(error))
        ports = ()
    else:
        yield ok("config.read", f"ports {_list(ports)}, mode {config.mode} ({where})")
    for network in config.allow_plaintext:
        if network.prefixlen == 0:
            yield problem(
                "config.allow-plaintext",
                f"allow_plaintext has {network}, so any peer may talk in plaintext",
                'name the few networks that need it, or use mode = "prefer" for the time of the rollout',
            )
    for network in config.probes:
        if network.prefixlen == 0:
            yield warning(
                "config.probes",
                f"probes has {network}, so anybody finds the ports, and can fill the backlog of the node's socket",
                "name the addresses that health checks come from, such as the cluster's nodes",
            )
    if config.mode == "prefer":
        yield note(
            "config.prefer",
            "mode is prefer: connections with peers without mcencrypt run in plaintext",
            "set mode to require once `mcencrypt status` shows no plaintext connection",
        )
    yield from _check_list(case)
    status = case.status
    if status and ports and set(status["ports"]) != set(ports):
        yield warning(
            "config.ports-changed",
            f"the daemon takes ports {_list(status['ports'])}, the configuration now says {_list(ports)}",
            "restart the daemon, or run `mcencrypt reload` where that is known",
        )


def _check_list(case: Case) -> Iterator[Finding]:
    """A signed list of peers ends, and with it all trust."""
    listed = case.status["peers_list"] if case.status else None
    if listed is None:
        return
    days = (listed["expires"] - case.machine.now()) / 86400
    if days <= 0:
        text = "the signed list of peers has expired: nobody is trusted"
        yield problem("config.peers-list", text, "get a new one from the admin (`mcencrypt peers sign`)")
    elif days < 14:
        text = f"the signed list of peers expires in {days:.0f} days; then nobody is trusted"
        yield warning("config.peers-list", text, "get a new one from the admin (`mcencrypt peers sign`)")
    else:
        yield ok("config.peers-list", f"the signed list of peers counts for {days:.0f} days more")


def check_files(case: Case) -> Iterator[Finding]:
    """Network key, state and run directory."""
    config, machine = case.config, case.machine
    if case.config_error:
        return
    yield from _check_key(case)
    for name, folder in (("state_dir", config.state_dir), ("run_dir", config.run_dir)):
        try:
            mode, owner = machine.mode(str(folder))
        except FileNotFoundError:
            yield note(f"files.{name}", f"{folder} ({name}) does not exist yet; the daemon makes it")
            continue
        except OSError as error:
            yield note(f"files.{name}", f"{folder} ({name}) cannot be seen: {error.strerror}", "run this as root")
            continue
        if mode & _GROUP_OR_OTHERS_WRITE or owner not in (0, machine.uid()):
            yield problem(
                f"files.{name}",
                f"{folder} ({name}) can be written by others (mode {mode:04o}, user {owner})",
                f"chown root {folder} && chmod 0700 {folder}",
            )
        else:
            yield ok(f"files.{name}", f"{folder} ({name}) belongs to user {owner}, mode {mode:04o}")
    yield from _check_run_dir(case)


def _check_key(case: Case) -> Iterator[Finding]:
    from mcencrypt.core.handshake import NetworkSecret

    file, running = case.config.network_key_file, case.status["key_id"] if case.status else None
    try:
        key_id = NetworkSecret(case.config.network_key().secret).key_id.hex()
    except OperatorError as error:
        if case.machine.uid() and "run as root" in str(error):
            yield note("key.unseen", f"{file} (network_key_file) cannot be read by this user", "run this as root")
        else:
            yield _from_error("key.file", str(error))
        return
    yield ok("key.file", f"network key {key_id} in {file}; it must be the same on every node")
    accepted = [one["id"] for one in case.status["keys"] if one["accepted"]] if case.status else []
    if running and key_id not in (running, *accepted):
        yield warning(
            "key.not-in-use",
            f"the daemon does not use the key {key_id} in {file}; it offers {running}",
            "if the file was changed, restart the daemon; if the key was retired, put the network's key there",
        )
    elif running and (len(accepted) > 1 or running != key_id):
        yield note(
            "key.rotation",
            f"the daemon offers key {running} and accepts {', '.join(accepted)}",
            "finish the rotation: `mcencrypt key list` says what is next",
        )


def _check_run_dir(case: Case) -> Iterator[Finding]:
    """The daemon's table of connections must not outlive the machine's."""
    folder = case.config.run_dir
    try:
        mounts = case.machine.text("/proc/self/mounts")
    except OSError:
        return
    kind, longest = "", -1
    for line in mounts.splitlines():
        _, place, its_kind, *_ = line.split()
        mounted = Path(place.replace("\\040", " "))
        if (folder == mounted or mounted in folder.parents) and len(mounted.parts) >= longest:
            kind, longest = its_kind, len(mounted.parts)
    if kind and kind not in ("tmpfs", "ramfs"):
        yield note(
            "files.run_dir-on-disk",
            f"{folder} (run_dir) is on {kind}, not on a tmpfs: each change of a connection may be written to disk",
            "set run_dir to a folder on a tmpfs, as /run mostly is; in a container mount one at /run",
        )


def _from_error(name: str, text: str) -> Finding:
    """An operator's error as a problem: its text says itself what to do, after the last colon mostly."""
    what, colon, advice = text.rpartition(": ")
    return problem(name, what, advice) if colon else problem(name, text, "see docs/operations.md")


def _list(ports: object) -> str:
    return ", ".join(map(str, ports)) if isinstance(ports, list | tuple) else str(ports)
