"""Purges on their way to a worker that reads, reads slowly, or does not read at all."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from minato.caching.purge import PurgeKind, PurgeRequest
from minato.control.channel import Channel, Message, Verb
from minato.control.outbox import MAX_WAITING_BYTES, WINDOW_BYTES, Outbox


class Worker:
    """A channel with room for so many messages, and what a worker made of them."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.inbox: list[Message] = []

    def send(self, message: Message) -> bool:
        if len(self.inbox) >= self.room:
            return False
        self.inbox.append(message)
        return True


def purge(serial: int, size: int = 10) -> Message:
    return Message(Verb.PURGE, serial=serial, purges=(PurgeRequest(PurgeKind.URL, b"x" * size),))


def test_purges_are_sent_at_once_while_there_is_room() -> None:
    worker = Worker(room=10)
    outbox = Outbox(worker.send)
    for serial in range(1, 4):
        outbox.put(purge(serial))
    assert worker.inbox == [purge(1), purge(2), purge(3)]
    assert not outbox.is_waiting


def test_channel_that_is_full_is_tried_again() -> None:
    worker = Worker(room=0)
    outbox = Outbox(worker.send)
    outbox.put(purge(1))
    assert outbox.is_waiting
    worker.room = 1
    outbox.flush()
    assert worker.inbox == [purge(1)]
    assert not outbox.is_waiting


def test_no_more_than_the_window_is_under_way_and_a_confirmation_makes_room() -> None:
    worker = Worker(room=1000)
    outbox = Outbox(worker.send)
    for serial in range(1, 5):
        outbox.put(purge(serial, WINDOW_BYTES // 2))
    assert [message.serial for message in worker.inbox] == [1]
    outbox.confirm(1)
    outbox.confirm(2)
    assert [message.serial for message in worker.inbox] == [1, 2, 3]


def test_too_much_becomes_one_purge_of_everything_with_the_newest_serial() -> None:
    worker = Worker(room=0)
    outbox = Outbox(worker.send)
    for serial in range(1, 13):
        outbox.put(purge(serial, MAX_WAITING_BYTES // 10))
    worker.room = 1000
    outbox.flush()
    while outbox.is_waiting:
        outbox.confirm(worker.inbox[-1].serial)
    kinds = [(message.serial, message.purges[0].kind) for message in worker.inbox]
    assert kinds == [(10, PurgeKind.ALL), (11, PurgeKind.URL), (12, PurgeKind.URL)]


def test_window_leaves_room_in_a_real_channel() -> None:
    """Commands other than purges are not sent again: a worker that reads nothing for a while must find them later."""
    ours, theirs = Channel.pair()
    for size in (1, 1_000, 40_000):
        outbox = Outbox(ours.send)
        for serial in range(1, 500):
            outbox.put(purge(serial, size))
        for _ in range(20):
            assert ours.send(Message(Verb.GIVE_BACK, 1))
        while theirs.receive() is not None:
            pass
    ours.close()
    theirs.close()


@given(st.lists(st.tuples(st.sampled_from(["put", "read", "room"]), st.integers(0, 60_000)), max_size=80))
def test_nothing_is_lost_reordered_or_kept_without_bound(steps: list[tuple[str, int]]) -> None:
    worker = Worker(room=3)
    outbox = Outbox(worker.send)
    serial = done = 0
    carried_out: set[int] = set()

    def read() -> None:
        nonlocal done
        message = worker.inbox.pop(0)
        assert message.serial > done
        is_all = message.purges[0].kind is PurgeKind.ALL
        carried_out.update(range(done + 1, message.serial + 1) if is_all else [message.serial])
        assert carried_out == set(range(1, message.serial + 1))
        done = message.serial
        outbox.confirm(message.serial)

    for step, number in steps:
        if step == "put":
            serial += 1
            outbox.put(purge(serial, number))
        elif step == "read" and worker.inbox:
            read()
        elif step == "room":
            worker.room = number % 4
        assert outbox._waiting_bytes <= MAX_WAITING_BYTES
        assert sum(message.size_bytes for message in outbox._waiting) == outbox._waiting_bytes
    worker.room = 3
    outbox.flush()
    while worker.inbox:
        read()
    assert carried_out == set(range(1, serial + 1))
    assert repr(outbox) == "<Outbox 0 waiting, 0 sent>"
