"""The service manager's side is a socket of ours; what arrives on it is what systemd would read."""

import os
import socket
import time

import pytest

from mcencrypt.daemon.notify import Heartbeat, Notifier


class Manager:
    """A socket as systemd binds it, and the environment it would give a service."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self.socket.setblocking(False)
        self.environ = {"NOTIFY_SOCKET": address, "PATH": "/bin"}

    def heard(self) -> list[dict[str, str]]:
        messages = []
        while True:
            try:
                text = self.socket.recv(4096).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in text.splitlines()))


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    address = str(tmp_path / "notify") if request.param == "path" else f"@mcencrypt-test-{os.getpid()}"
    found = Manager(address)
    yield found
    found.socket.close()


def test_ready_status_stopping_in_the_manager_s_words(manager):
    notifier = Notifier(manager.environ)
    notifier.ready("on, ports 7331")
    notifier.status("off\nREADY=1")
    notifier.stopping()
    ready, status, stopping = manager.heard()
    assert ready == {"READY": "1", "STATUS": "on, ports 7331"}
    assert status == {"STATUS": "off READY=1"}, "a line break must not smuggle in another assignment"
    assert stopping["STOPPING"] == "1"


def test_the_same_status_is_not_said_twice(manager):
    notifier = Notifier(manager.environ)
    notifier.ready("on")
    notifier.status("on")
    notifier.status("off")
    notifier.status("off")
    assert [message["STATUS"] for message in manager.heard()] == ["on", "off"]


def test_reloading_says_when_on_the_monotonic_clock(manager):
    before = time.monotonic_ns() // 1000
    Notifier(manager.environ).reloading()
    (message,) = manager.heard()
    assert message["RELOADING"] == "1"
    assert before <= int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_children_get_none_of_it(manager):
    manager.environ |= {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = Notifier(manager.environ)
    assert manager.environ == {"PATH": "/bin"}
    assert notifier.watchdog == 20.0


@pytest.mark.parametrize(("usec", "pid"), [("", ""), ("0", ""), ("soon", ""), ("-5", ""), ("1000000", "1")])
def test_no_watchdog_unless_it_is_meant_for_us(manager, usec, pid):
    notifier = Notifier(manager.environ | {"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid})
    assert notifier.watchdog is None
    notifier.alive()
    assert manager.heard() == []


@pytest.mark.parametrize("address", ["", "vsock:2:1", "relative"])
def test_without_a_manager_nothing_happens(address):
    notifier = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    assert notifier.watchdog is None
    notifier.ready("on")
    notifier.alive()
    notifier.stopping()
    notifier.close()


def test_a_manager_that_has_gone_is_no_error(tmp_path):
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone"), "WATCHDOG_USEC": "1000000"})
    notifier.ready("on")
    notifier.alive()
    notifier.close()
    notifier.stopping()


def test_the_heart_beats_while_packets_get_verdicts_and_stops_when_they_only_arrive(manager):
    now = [0, 0, 0]
    notifier = Notifier(manager.environ | {"WATCHDOG_USEC": "1000000"})
    heartbeat = Heartbeat(notifier, lambda: (now[0], now[1], now[2]))

    def beats(waiting: int, decided: int, arrived: int) -> bool:
        now[:] = waiting, decided, arrived
        heartbeat.beat()
        return manager.heard() == [{"WATCHDOG": "1"}]

    assert beats(0, 0, 0)
    assert beats(0, 0, 0), "idle is alive"
    assert beats(0, 7, 7)
    assert not beats(2, 7, 9), "packets came, none was decided"
    assert not beats(3, 7, 10)
    assert beats(1, 9, 10), "some were"
    assert beats(1, 9, 10), "one packet was lost without a verdict, and nothing came since"
    assert not beats(2, 9, 11)
    assert beats(1, 10, 11)


def test_what_was_taken_is_handed_over_to_the_program_that_follows() -> None:
    given = {"NOTIFY_SOCKET": "/run/systemd/notify", "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1", "OTHER": "x"}
    environ = dict(given)
    notifier = Notifier(environ)
    assert environ == {"OTHER": "x"}
    notifier.hand_over(environ)
    notifier.close()
    assert environ == given
