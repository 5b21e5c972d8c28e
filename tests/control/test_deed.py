"""What a killed master leaves: sockets that outlive whoever held them, a notice board, and a claim of one process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from minato.config.model import ListenAddress
from minato.control.deed import SOCKETS_PER_BOX, Deed
from minato.control.handover import Inheritance, describe_state
from minato.control.last_will import LastWill
from minato.control.link import Link
from minato.control.listeners import Listeners
from minato.control.succession import Succession, find_deeds
from minato.decide.orphanage import Notice
from minato.errors import BootError
from tests.ports import free_port
from tests.system.harness.waiting import wait_until


@pytest.fixture
def last_will() -> Iterator[LastWill]:
    made = LastWill.make()
    yield made
    made.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def bind(stack: ExitStack, last_will: LastWill, *ports: int, slots: int = 1) -> Listeners:
    """Listeners of which the last_will tells."""
    listeners = Listeners()
    listeners.on_changed = lambda: last_will.write(listeners.bound())
    listeners.bind([ListenAddress("127.0.0.1", port) for port in ports], slots)
    stack.callback(listeners.close)
    return listeners


def read(deed: Deed) -> list[tuple[int, int]]:
    """Slots and ports of the sockets that lie there; each is seen to be of that port."""
    found = deed.read()
    for (_, address), listener in found.items():
        assert listener.sock.getsockname() == (address.host, address.port)
        listener.sock.close()
    return [(slot, address.port) for slot, address in found]


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True


def in_child(does: object) -> int:
    """Call it in a child and return what it returns, up to 255."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            status = does()  # type: ignore[operator]
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_sockets_are_there_for_everybody_again_and_again(stack: ExitStack, last_will: LastWill) -> None:
    first, second = free_port(), free_port()
    bind(stack, last_will, first, second, slots=2)
    expected = [(0, first), (1, first), (0, second), (1, second)]
    assert read(last_will.deed) == expected
    assert in_child(lambda: int(read(last_will.deed) != expected)) == 0
    assert read(last_will.deed) == expected


def test_sockets_outlive_the_master_that_bound_them_as_long_as_one_worker_lives(stack: ExitStack) -> None:
    port = free_port()
    last_will = LastWill.make()
    listeners = bind(stack, last_will, port)
    listeners.on_changed = lambda: None
    last_will.become_worker()
    listeners.close()
    ((_, listener),) = last_will.deed.read().items()
    client = socket.create_connection(("127.0.0.1", port))
    listener.sock.accept()[0].close()
    client.close()
    listener.sock.close()
    last_will.close()
    assert not connects(port)


def test_what_the_master_closes_is_closed(stack: ExitStack, last_will: LastWill) -> None:
    kept, dropped = free_port(), free_port()
    listeners = bind(stack, last_will, kept, dropped, slots=3)
    listeners.keep_only([ListenAddress("127.0.0.1", kept)])
    assert connects(kept) and not connects(dropped)
    assert read(last_will.deed) == [(slot, kept) for slot in range(3)]
    listeners.close()
    assert read(last_will.deed) == [] and not connects(kept)


def test_very_many_sockets_and_many_changes(stack: ExitStack, last_will: LastWill) -> None:
    port = free_port()
    before = len(os.listdir("/proc/self/fd"))
    listeners = bind(stack, last_will, port, slots=2 * SOCKETS_PER_BOX + 5)
    bound = len(listeners.bound())
    for _ in range(200):
        last_will.write(listeners.bound())
    assert len(read(last_will.deed)) == bound
    assert len(os.listdir("/proc/self/fd")) == before + bound
    listeners.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert not connects(port)


def test_sockets_that_cannot_be_left_are_told_about_once_and_harm_nobody(
    stack: ExitStack, last_will: LastWill, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("minato.control.deed._pack", fail)
    port = free_port()
    bind(stack, last_will, port)
    bind(stack, last_will, free_port())
    assert connects(port) and read(last_will.deed) == []
    assert caplog.text.count("will not get the sockets") == 1


def test_what_is_burnt_is_closed_though_somebody_holds_the_deed(stack: ExitStack, last_will: LastWill) -> None:
    port = free_port()
    listeners = bind(stack, last_will, port)
    listeners.on_changed = lambda: None
    listeners.close()
    assert connects(port)
    last_will.deed.burn()
    assert not connects(port) and read(last_will.deed) == []


def test_share_is_the_same_deed(stack: ExitStack, last_will: LastWill) -> None:
    port = free_port()
    bind(stack, last_will, port)
    with last_will.deed.box() as box:
        share = Deed.receive(box)
    assert share is not None
    stack.callback(share.close)
    assert read(share) == [(0, port)]
    assert not share.was_in_office
    last_will.deed.note_office()
    kept = [ListenAddress("", 80), ListenAddress("::1", 81)]
    share.post(Notice.SUCCEEDED, kept)
    assert share.was_in_office and last_will.deed.look() is Notice.SUCCEEDED and last_will.deed.kept() == kept
    share.post(Notice.SEALED)
    assert last_will.deed.look() is Notice.SEALED and last_will.deed.kept() == []
    share.post(Notice.SUCCEEDED, [ListenAddress("127.0.0.1", port) for port in range(60_000)])
    assert last_will.deed.look() is Notice.SUCCEEDED and last_will.deed.kept() == []


@pytest.mark.parametrize("data", [b"", b"minato deed 2", b"x" * 10_000])
def test_what_is_no_deed_is_none(data: bytes) -> None:
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(theirs, [data or b"\0"], [ours.fileno()])
        assert Deed.receive(ours) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_process_at_a_time_claims_it_and_its_end_ends_the_claim(last_will: LastWill) -> None:
    deed = last_will.deed
    assert in_child(lambda: int(deed.claim())) == 1
    assert not deed.is_claimed()
    assert deed.claim()
    assert in_child(lambda: int(deed.is_claimed()) + 2 * int(deed.claim())) == 1
    # A look of another process takes nothing away.
    assert in_child(lambda: int(deed.is_claimed())) == 1
    deed.unclaim()
    assert in_child(lambda: int(deed.is_claimed())) == 0


def test_upgrade_hands_the_deed_on(stack: ExitStack, last_will: LastWill) -> None:
    ours, theirs = Link.pair()
    with last_will.deed.box() as box:
        for says, sockets in describe_state({}, {}, {}, box):
            ours.send(says, sockets)
    inheritance = Inheritance()
    while not inheritance.is_whole:
        message = theirs.receive()
        assert message is not None
        inheritance.take(message)
    assert inheritance.deed is not None
    inheritance.deed.note_office()
    assert last_will.deed.was_in_office
    ours.close()
    theirs.close()
    inheritance.renounce()


def test_new_master_whose_old_one_was_followed_by_another_already_is_not_needed(
    last_will: LastWill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minato.control.succession.TRIES_PAUSE_S", 0.0)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        while not last_will.deed.claim():  # a look of the parent may be in the way
            pass
        os.read(reader, 1)
        os._exit(0)
    wait_until(last_will.deed.is_claimed, "the claim")
    with last_will.deed.box() as box:
        share = Deed.receive(box)
    succession = Succession()
    with pytest.raises(BootError, match="another one takes its place"):
        succession.inherit(share)
    succession.renounce()
    os.close(reader)
    os.close(writer)
    os.waitpid(pid, 0)


def names() -> set[str]:
    found = {}
    for name, deed in find_deeds():
        found[name] = deed
    for deed in found.values():
        deed.close()
    return set(found)


def test_door_is_closed_while_the_master_lives(last_will: LastWill) -> None:
    assert last_will.name not in names()


def serve_door(last_will: LastWill) -> int:
    """Listen at the door in a child, as a worker whose master is gone; returns its pid."""
    fd = last_will.open_door()
    assert fd is not None
    pid = os.fork()
    if pid == 0:
        import select

        while select.select([fd], [], [], 20)[0]:
            last_will.answer()
        os._exit(0)
    return pid


def test_door_is_found_and_opens_to_the_same_user_alone(last_will: LastWill, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = serve_door(last_will)
    try:
        assert last_will.name in names()
        monkeypatch.setattr("minato.control.succession.peer_uid", lambda sock: os.geteuid() + 1)
        assert last_will.name not in names(), "somebody else listens there"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    monkeypatch.undo()
    monkeypatch.setattr("minato.control.last_will.peer_uid", lambda sock: os.geteuid() + 1)
    pid = serve_door(last_will)
    try:
        assert last_will.name not in names(), "somebody else knocks"
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def test_sockets_of_several_that_were_killed_get_slots_of_their_own(stack: ExitStack) -> None:
    port, made = free_port(), []
    for number in range(2):
        last_will = LastWill.make()
        listeners = Listeners()
        if made:
            listeners.adopt(made[0].deed.read())  # it had these from the one before
        listeners.bind([ListenAddress("127.0.0.1", port)], 1 + number)
        last_will.write(listeners.bound())
        listeners.close()
        made.append(last_will)
    pids = [serve_door(last_will) for last_will in made]
    heirs, succession = Listeners(), Succession()
    try:
        succession.bind(heirs, [ListenAddress("127.0.0.1", port)], 3)
        assert succession.is_heir and heirs.slots() == [0, 1, 2]
        inodes = {os.fstat(listener.sock.fileno()).st_ino for listener in heirs.bound().values()}
        assert len(inodes) == 3
        succession.succeed(heirs.addresses())
        assert {last_will.deed.look() for last_will in made} == {Notice.SUCCEEDED}
        assert not succession.is_heir
    finally:
        for pid in pids:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        heirs.close()
        for last_will in made:
            last_will.close()
    assert not connects(port)
