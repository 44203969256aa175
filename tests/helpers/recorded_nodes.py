"""A multichaind on a recorded machine."""

from __future__ import annotations

from ipaddress import ip_address

from tests.helpers.recorded_machine import TCP, Recorded

PID = 500
PARAMS = "default-network-port = 7331   # Default TCP/IP port\ndefault-rpc-port = 7330\n"


def endpoint(address: str, port: int, six: bool) -> str:
    packed = ip_address(address).packed
    if six and len(packed) == 4:
        packed = bytes(10) + b"\xff\xff" + packed
    words = (int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def row(local: tuple[str, int], remote: tuple[str, int], state: int, inode: str, six: bool = False) -> str:
    return (
        f"   0: {endpoint(*local, six)} {endpoint(*remote, six)} {state:02X} 00000000:00000000 00:00000000 00000000"
        f"     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )


class Node:
    """A multichaind on a recorded machine: listens for peers on 7331 of both families and for RPC on 7330."""

    def __init__(self, *words: str, netns: str = "net:[4026531840]") -> None:
        self.machine = Recorded()
        words = ("multichaind", "chain1", *words)
        self.machine.add_process(PID, "multichaind", *words, netns=netns, sockets=("1", "2", "3", "4"))
        self.machine.files[f"/proc/{PID}/status"] = "Name:\tmultichaind\nUid:\t0\t0\t0\t0\n"
        self.machine.files[f"/proc/{PID}/root/root/.multichain/chain1/params.dat"] = PARAMS
        self.four = row(("0.0.0.0", 7331), ("0.0.0.0", 0), 10, "1") + row(("0.0.0.0", 7330), ("0.0.0.0", 0), 10, "3")
        self.six = row(("::", 7331), ("::", 0), 10, "2", six=True)
        self.publish()

    def publish(self) -> None:
        for name in (str(PID), "thread-self"):
            self.machine.files[f"/proc/{name}/net/tcp"] = TCP + self.four
            self.machine.files[f"/proc/{name}/net/tcp6"] = TCP + self.six
