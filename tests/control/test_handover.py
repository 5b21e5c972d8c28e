"""The link between two masters, and all that goes over it: in parts, whole, and only to who can read it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from minato.caching.purge import PurgeKind, PurgeRequest
from minato.config.model import ListenAddress
from minato.control import upgrade as upgrade_module
from minato.control.drains import KEYS_PER_MESSAGE, Drained, Drains
from minato.control.handover import Inheritance, describe_state
from minato.control.link import MAX_MESSAGE_BYTES, VERSION, Link, LinkClosedError
from minato.control.listeners import Listeners
from minato.control.peer import MasterPeer
from minato.control.purges import Purges
from minato.control.reexec import EXIT_CANNOT_EXECUTE, HANDOVER_VARIABLE, CommandLine, _logical_directory
from minato.control.takeover import Predecessor
from minato.decide.purging import PurgeOutcome
from minato.errors import BootError
from minato.net.bound import BoundListener
from minato.net.loop import Loop
from tests.ports import free_port


def local(port: int) -> ListenAddress:
    return ListenAddress("127.0.0.1", port)


def read_all(link: Link) -> Inheritance:
    inheritance = Inheritance()
    while (message := link.receive()) is not None:
        inheritance.take(message)
    return inheritance


def test_state_arrives_whole_in_parts_that_the_kernel_takes() -> None:
    """250 sockets and 20,000 upstreams are more than one message, and more than the link holds at once."""
    ours, theirs = Link.pair()
    listeners = Listeners()
    address = local(free_port())
    listeners.bind([address], 250)
    health = {f"http://upstream-{number}.example:8080/health": {"state": "up", "run": 0} for number in range(20_000)}
    for says, sockets in describe_state(listeners.bound(), {}, health):
        ours.send(says, sockets)
    assert ours.is_waiting
    inheritance = Inheritance()
    while not inheritance.is_whole:
        message = theirs.receive()
        if message is None:
            ours.flush()
        else:
            inheritance.take(message)
    assert not ours.is_waiting
    assert inheritance.health == health
    assert list(inheritance.listeners) == [(slot, address) for slot in range(250)]
    inodes = [os.fstat(bound.sock.fileno()).st_ino for bound in inheritance.listeners.values()]
    assert inodes == [os.fstat(bound.sock.fileno()).st_ino for bound in listeners.bound().values()]  # the very same
    assert not any(os.get_inheritable(bound.sock.fileno()) for bound in inheritance.listeners.values())
    for bound in inheritance.listeners.values():
        bound.sock.close()
    listeners.close()
    ours.close()
    theirs.close()


def test_connection_that_waits_is_accepted_by_who_inherits() -> None:
    ours, theirs = Link.pair()
    listeners, heirs = Listeners(), Listeners()
    address = local(free_port())
    listeners.bind([address], 1)
    for says, sockets in describe_state(listeners.bound(), {}, {}):
        ours.send(says, sockets)
    with socket.create_connection(("127.0.0.1", address.port)) as client:
        heirs.adopt(read_all(theirs).listeners)
        assert heirs.bind([address], 2) == [(1, address)]  # no conflict with the other master
        listeners.close()
        connection, _ = heirs.of_slot(0, [address])[0].sock.accept()
        connection.close()
        assert client.recv(1) == b""
    heirs.close()
    ours.close()
    theirs.close()


def test_admin_socket_is_told_from_the_others() -> None:
    ours, theirs = Link.pair()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        bound = {(0, local(1)): BoundListener(local(1), sock)}
        for says, sockets in describe_state({}, bound, {"key": {"state": "down"}}):
            ours.send(says, sockets)
    inheritance = read_all(theirs)
    assert (list(inheritance.admin), inheritance.listeners) == ([(0, local(1))], {})
    assert inheritance.health == {"key": {"state": "down"}}
    inheritance.admin[0, local(1)].sock.close()
    ours.close()
    theirs.close()


@pytest.mark.parametrize("data", [b"rubbish", b"[1]", b"1", b"\xff", b'{"a":'])
def test_what_is_no_message_ends_the_link_and_leaks_no_socket(data: bytes) -> None:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = Link(left)
    descriptors = len(os.listdir("/proc/self/fd"))
    socket.send_fds(right, [data], [right.fileno()])
    with pytest.raises(LinkClosedError):
        link.receive()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    link.close()
    right.close()


def test_link_says_when_the_other_is_gone() -> None:
    ours, theirs = Link.pair()
    theirs.close()
    with pytest.raises(LinkClosedError):
        ours.receive()
    with pytest.raises(LinkClosedError):
        ours.send({"hello": VERSION})
    ours.close()


def test_message_that_would_be_cut_short_is_refused() -> None:
    ours, theirs = Link.pair()
    with pytest.raises(ValueError, match="too large"):
        ours.send({"x": "y" * MAX_MESSAGE_BYTES})
    assert theirs.receive() is None
    ours.close()
    theirs.close()


def test_without_the_variable_there_is_no_predecessor() -> None:
    predecessor = Predecessor.from_environment({})
    assert not predecessor.is_master
    assert predecessor.inherit() == Inheritance()


@pytest.mark.parametrize("value", ["", "x", "-1", "99999", "0"])
def test_variable_that_names_no_link_is_of_no_account(value: str, caplog: pytest.LogCaptureFixture) -> None:
    with open(os.devnull, "rb") as null:
        environment = {HANDOVER_VARIABLE: str(null.fileno()) if value == "0" else value}
        assert not Predecessor.from_environment(environment).is_master
    assert HANDOVER_VARIABLE not in environment
    assert "no link to another master" in caplog.text


def from_link(link: Link) -> Predecessor:
    return Predecessor.from_environment({HANDOVER_VARIABLE: str(os.dup(link.fileno()))})


def test_old_master_that_gives_up_before_it_hands_over_is_the_end() -> None:
    ours, theirs = Link.pair()
    predecessor = from_link(theirs)
    theirs.close()
    ours.send({"given_up": True})
    with pytest.raises(BootError, match="given the upgrade up"):
        predecessor.inherit()
    hello = ours.receive()
    assert hello is not None and hello.says == {"hello": VERSION, "pid": os.getpid()}
    predecessor.close()
    ours.close()


def test_old_master_that_is_killed_before_it_hands_over_is_none(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = Link.pair()
    predecessor = from_link(theirs)
    theirs.close()
    assert predecessor.is_master
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = ListenAddress("127.0.0.1", sock.getsockname()[1])
        for says, sockets in describe_state({(0, address): BoundListener(address, sock)}, {}, {}):
            if says["state"] != "whole":
                ours.send(says, sockets)
    ours.close()
    inheritance = predecessor.inherit()
    assert not predecessor.is_master and inheritance.listeners == {}
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((address.host, address.port))
    assert "starts as any other" in caplog.text
    predecessor.close()


def test_old_master_that_says_nothing_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minato.control.takeover.STATE_TIMEOUT_S", 0.1)
    ours, theirs = Link.pair()
    predecessor = from_link(theirs)
    theirs.close()
    with pytest.raises(BootError, match="handed nothing over within"):
        predecessor.inherit()
    predecessor.close()
    ours.close()


def test_what_cannot_be_executed_says_so_and_ends(tmp_path: Path) -> None:
    for command, told in (
        (CommandLine(str(tmp_path / "none"), (), "/"), "none: No such file or directory"),
        (CommandLine(sys.executable, (), str(tmp_path / "gone")), "gone: No such file or directory"),
    ):
        ours, theirs = Link.pair()
        pid = command.start(theirs, contextlib.nullcontext())
        theirs.close()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == EXIT_CANNOT_EXECUTE
        message = ours.receive()
        assert message is not None and str(message.says["cannot"]).endswith(told)
        ours.close()


def test_executed_process_holds_the_link_alone_and_stop_signals_reach_it(tmp_path: Path) -> None:
    """Reload signals wait until it can take them."""
    ours, theirs = Link.pair()
    code = (
        f"import os, signal, socket, time; s = socket.socket(fileno=int(os.environ[{HANDOVER_VARIABLE!r}]));"
        "s.send(repr([sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))), os.getcwd(),"
        " len(os.listdir('/proc/self/fd'))]).replace(\"'\", '\"').join(['{\"x\":', '}']).encode()); time.sleep(60)"
    )
    pid = CommandLine(sys.executable, ("-c", code), str(tmp_path)).start(theirs, contextlib.nullcontext())
    theirs.close()
    ours.set_patience(20)
    message = ours.receive()
    assert message is not None
    mask, directory, descriptors = message.says["x"]
    assert mask == sorted(map(int, (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)))
    assert directory == str(tmp_path)
    listing = [sys.executable, "-c", "import os; print(len(os.listdir('/proc/self/fd')))"]
    with_those_of_the_test = subprocess.run(listing, close_fds=False, stdout=subprocess.PIPE, check=True).stdout
    assert descriptors == int(with_those_of_the_test) + 1
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
    with pytest.raises(LinkClosedError):
        ours.receive()
    ours.close()


def test_directory_goes_by_the_name_that_leads_there(tmp_path: Path) -> None:
    here = os.getcwd()
    link = tmp_path / "link"
    link.symlink_to(here)
    assert _logical_directory({"PWD": str(link)}) == str(link)
    for other in ({}, {"PWD": str(tmp_path)}, {"PWD": "."}, {"PWD": str(tmp_path / "none")}):
        assert _logical_directory(other) == here


def test_command_line_is_that_of_the_python(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("from minato.control.reexec import CommandLine\nprint(CommandLine.of_this_process().arguments)")
    command = [sys.executable, "-X", "utf8", str(program), "--workers", "2"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.strip() == repr(tuple(command[1:]))


def test_pid_1_is_not_upgraded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Unused:
        on_stranger = None
        retire = None

    monkeypatch.setattr(upgrade_module.os, "getpid", lambda: 1)
    unused = Unused()
    names = ("loop", "supervisor", "listeners", "admin", "checker", "purges", "drains", "deed", "master")
    upgrader = upgrade_module.Upgrader(**dict.fromkeys(names, unused))  # type: ignore[arg-type]
    upgrader.request()
    upgrader.advance(can_begin=True)  # would touch what is not there
    assert "pid 1" in caplog.text


class NoWorkers:
    """A supervisor without workers."""

    def hear(self) -> None:
        """Nobody says anything."""

    def workers(self) -> list[object]:
        return []


def test_boards_of_an_old_master_that_is_gone_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have been killed while it drained."""
    removed: list[bool] = []
    monkeypatch.setattr("minato.control.takeover.remove_dead_boards", lambda: removed.append(True))
    monkeypatch.setattr("minato.control.takeover.END_WAIT_S", 0.05)
    ours, theirs = Link.pair()
    predecessor = from_link(theirs)
    theirs.close()
    loop = Loop()
    predecessor.attach(loop, Purges(loop, NoWorkers()), Drains(loop, lambda keys, on: {}))  # type: ignore[arg-type]
    loop.turn(0.1)
    assert not removed
    ours.close()
    turn_until(loop, lambda: removed)
    loop.close()


def turn_until(loop: Loop, condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        loop.turn(0.02)


class Side:
    """One of two masters: its loop, its purges, its end of the link, what it heard, what it was asked to purge."""

    def __init__(self, link: Link, other_pid: int) -> None:
        self.loop = Loop()
        self.purges = Purges(self.loop, NoWorkers())  # type: ignore[arg-type]
        self.marked: list[tuple[list[str], bool]] = []
        self.drains = Drains(self.loop, self._mark)
        self.heard: list[dict[str, object]] = []
        self.peer = MasterPeer(self.loop, self.purges, self.drains, lambda message: self.heard.append(message.says))
        self.peer.connect(link, other_pid)
        self.peer.take_part_in_purges()
        self.peer.take_part_in_drains()
        self.outcomes: list[PurgeOutcome] = []
        self.drained: list[Drained] = []

    def _mark(self, keys: Sequence[str], on: bool) -> dict[str, int]:
        self.marked.append((list(keys), on))
        return {"web": 1}

    def purge(self) -> None:
        self.purges.begin([PurgeRequest(PurgeKind.ALL)], self.outcomes.append)


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    ours, theirs = Link.pair()
    old, new = Side(ours, 2), Side(theirs, 1)
    yield old, new
    for side in (old, new):
        side.peer.close()
        side.loop.close()


@pytest.mark.parametrize("asked_first", [0, 1])
def test_purge_waits_for_the_other_master(sides: tuple[Side, Side], asked_first: int) -> None:
    asked, other = sides[asked_first], sides[1 - asked_first]
    asked.purge()
    asked.loop.turn(0.0)
    assert asked.outcomes == []
    turn_until(other.loop, lambda: other.purges._purging.serial)
    turn_until(asked.loop, lambda: asked.outcomes)
    assert (asked.outcomes[0].workers, asked.outcomes[0].missing) == (1, ())
    assert other.outcomes == []


def test_purge_does_not_wait_for_another_master_that_is_gone(sides: tuple[Side, Side]) -> None:
    old, new = sides
    new.purge()
    old.peer.close()
    turn_until(new.loop, lambda: new.outcomes)
    assert new.outcomes[0].missing == ()
    new.purge()
    assert len(new.outcomes) == 2


def test_purge_names_another_master_that_does_not_answer(sides: tuple[Side, Side]) -> None:
    new = sides[1]
    new.purge()
    turn_until(new.loop, lambda: new.outcomes)
    assert new.outcomes[0].missing == (1,)


def test_messages_of_any_number_arrive_in_order(sides: tuple[Side, Side]) -> None:
    old, new = sides
    for number in range(2_000):
        old.peer.send({"number": number, "x": "y" * 1_000})
    while len(new.heard) < 2_000:
        new.loop.turn(0.0)
        old.loop.turn(0.0)
    assert [says["number"] for says in new.heard] == list(range(2_000))


@pytest.mark.parametrize("asked_first", [0, 1])
def test_drain_waits_for_the_other_master_however_many_upstreams_it_is_about(
    sides: tuple[Side, Side], asked_first: int
) -> None:
    asked, other = sides[asked_first], sides[1 - asked_first]
    keys = [f"http://{'long' * 50}{number}.test/health" for number in range(2 * KEYS_PER_MESSAGE + 1)]
    asked.drains.begin(keys, True, asked.drained.append)
    assert (asked.marked, asked.drained) == ([(keys, True)], [])
    turn_until(other.loop, lambda: len(other.marked) == 3)
    turn_until(asked.loop, lambda: asked.drained)
    assert [key for part, _ in other.marked for key in part] == keys
    assert asked.drained == [Drained({"web": 1})]
    assert len(asked.marked) == 1  # it does not come back


def test_drain_does_not_wait_for_another_master_that_is_gone_and_names_one_that_is_silent(
    sides: tuple[Side, Side],
) -> None:
    old, new = sides
    new.drains.begin(["a"], True, new.drained.append)
    turn_until(new.loop, lambda: new.drained)
    assert new.drained == [Drained({"web": 1}, missing=(1,))]
    new.drains.begin(["b"], False, new.drained.append)
    old.peer.close()
    turn_until(new.loop, lambda: len(new.drained) == 2)
    new.drains.begin(["c"], True, new.drained.append)
    assert new.drained[1:] == [Drained({"web": 1})] * 2
