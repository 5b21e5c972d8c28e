"""What a worker is told of addresses: the newest, each once, never more at a time than it confirms."""

from __future__ import annotations

from itertools import count

import hypothesis.strategies as st
from hypothesis import given

from minato.control.channel import MAX_MESSAGE_BYTES, Channel, Message, Verb
from minato.control.telling import WINDOW_BYTES, Telling


class Worker:
    """A channel with room for so many messages; what names are now, and what the worker believes they are."""

    def __init__(self, room: int = 1_000) -> None:
        self.room = room
        self.inbox: list[Message] = []
        self.truth: dict[str, str] = {}
        self.believed: dict[str, str] = {}
        self._serials = count(1)

    def send(self, message: Message) -> bool:
        if len(self.inbox) >= self.room:
            return False
        self.inbox.append(message)
        return True

    def make(self, key: str) -> Message:
        return Message(Verb.ADDRESSES, serial=next(self._serials), upstream=key, places=((self.truth[key], 1),))

    def read(self, telling: Telling) -> None:
        for message in self.inbox:
            self.believed[message.upstream] = message.places[0][0]
            telling.confirm(message.serial)
        self.inbox.clear()


def test_change_is_told_at_once_and_confirmed() -> None:
    worker = Worker()
    telling = Telling(worker.send)
    worker.truth["app"] = "10.0.0.1"
    telling.add(["app"])
    telling.flush(worker.make)
    assert [message.upstream for message in worker.inbox] == ["app"]
    assert not telling.is_settled
    worker.read(telling)
    assert telling.is_settled


def test_worker_that_reads_nothing_is_told_the_newest_alone() -> None:
    worker = Worker(room=0)
    telling = Telling(worker.send)
    for number in range(1_000):
        worker.truth["app"] = f"10.0.0.{number}"
        telling.add(["app"])
        telling.flush(worker.make)
    worker.room = 10
    telling.flush(worker.make)
    worker.read(telling)
    assert worker.believed == {"app": "10.0.0.999"}
    assert telling.is_settled


def test_no_more_is_under_way_than_the_window() -> None:
    worker = Worker()
    telling = Telling(worker.send)
    keys = [f"app{number}" for number in range(200)]
    worker.truth = dict.fromkeys(keys, "10.0.0.1")
    telling.add(keys)
    telling.flush(worker.make)
    assert 0 < sum(message.size_bytes for message in worker.inbox) <= WINDOW_BYTES
    while not telling.is_settled:
        worker.read(telling)
        telling.flush(worker.make)
    assert worker.believed == worker.truth


def test_largest_message_fits_the_channel_and_passes_the_window() -> None:
    places = tuple((f"fe80:1111:2222:3333:4444:5555:6666:{number:04x}%1234567890", 9_999) for number in range(256))
    message = Message(Verb.ADDRESSES, serial=1, upstream="x" * 8_192, places=places)
    ours, theirs = Channel.pair()
    telling = Telling(ours.send)
    telling.add(["x"])
    telling.flush(lambda key: message)
    assert theirs.receive() == message
    assert message.size_bytes < MAX_MESSAGE_BYTES
    ours.close()
    theirs.close()


@given(st.lists(st.tuples(st.sampled_from(["change", "read", "block", "flush"]), st.sampled_from("abc")), max_size=50))
def test_worker_ends_up_with_what_is_true(steps: list[tuple[str, str]]) -> None:
    worker = Worker()
    telling = Telling(worker.send)
    for number, (step, key) in enumerate(steps):
        if step == "change":
            worker.truth[key] = str(number)
            telling.add([key])
        elif step == "read":
            worker.read(telling)
        elif step == "block":
            worker.room = 0 if worker.room else 2
        telling.flush(worker.make)
        if telling.is_settled:
            assert worker.believed == worker.truth
    worker.room = 2
    while not telling.is_settled:
        telling.flush(worker.make)
        worker.read(telling)
    assert worker.believed == worker.truth
