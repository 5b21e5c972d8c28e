"""The queue for room: order, bounds, deadlines; and whose turn it is among workers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from minato.decide.queueing import ALIVE_MS, OVERTAKING_MS, Entrance, WaitQueue, must_let_others_first


def drain(queue: WaitQueue[str]) -> list[str]:
    order = []
    while (item := queue.first(())) is not None:
        order.append(item)
        queue.leave(item)
    return order


def test_first_come_first_served_but_retries_before_all_in_their_own_order() -> None:
    queue: WaitQueue[str] = WaitQueue(10, 5.0)
    for item in ("a", "b", "r1", "c", "r2"):
        assert queue.enter(item, 0.0, 0.0, is_retry=item.startswith("r")) is Entrance.WAITS
    assert drain(queue) == ["r1", "r2", "a", "b", "c"]


def test_no_more_than_its_size_wait_but_retries_are_let_in() -> None:
    queue: WaitQueue[str] = WaitQueue(2, 5.0)
    entrances = [queue.enter(item, 0.0, 0.0) for item in ("a", "b", "c")]
    assert entrances == [Entrance.WAITS, Entrance.WAITS, Entrance.FULL]
    assert "c" not in queue
    assert queue.enter("r", 0.0, 0.0, is_retry=True) is Entrance.WAITS
    queue.leave("a")
    assert queue.enter("c", 0.0, 0.0) is Entrance.WAITS


def test_with_a_size_of_nothing_nobody_waits() -> None:
    queue: WaitQueue[str] = WaitQueue(0, 5.0)
    assert queue.enter("a", 0.0, 0.0) is Entrance.FULL
    assert queue.enter("r", 0.0, 0.0, is_retry=True) is Entrance.FULL
    assert not queue


def test_who_has_waited_for_something_else_waits_for_what_is_left() -> None:
    queue: WaitQueue[str] = WaitQueue(9, 5.0)
    assert queue.enter("late", 105.0, 100.0) is Entrance.TOO_LATE
    assert queue.enter("rather late", 104.0, 100.0) is Entrance.WAITS
    assert queue.enter("retry", 109.0, 100.0, is_retry=True) is Entrance.WAITS  # it has the whole timeout
    assert queue.take_expired(104.9) == []
    assert queue.take_expired(105.0) == ["rather late"]
    assert queue.take_expired(113.9) == []
    assert queue.take_expired(114.0) == ["retry"]


def test_one_that_is_passed_over_does_not_hold_up_those_behind_it() -> None:
    queue: WaitQueue[str] = WaitQueue(9, 5.0)
    queue.enter("a", 0.0, 0.0)
    for retry in ("r1", "r2"):
        queue.enter(retry, 0.0, 0.0, is_retry=True)
    assert [queue.first(passed) for passed in ([], ["r1"], ["r1", "r2"])] == ["r1", "r2", "a"]


class Queueing(RuleBasedStateMachine):
    """The queue against plain lists."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: WaitQueue[int] = WaitQueue(4, 5.0)
        self.retries: list[tuple[int, float]] = []
        self.others: list[tuple[int, float]] = []
        self.now_s = 100.0
        self.number = 0

    @rule(is_retry=st.booleans(), ago_s=st.floats(0, 6))
    def enter(self, is_retry: bool, ago_s: float) -> None:
        self.number += 1
        since_s = self.now_s - ago_s
        entrance = self.queue.enter(self.number, self.now_s, since_s, is_retry=is_retry)
        if is_retry:
            assert entrance is Entrance.WAITS
            self.retries.append((self.number, self.now_s + 5.0))
        elif len(self.others) == 4:
            assert entrance is Entrance.FULL
        elif since_s + 5.0 <= self.now_s:
            assert entrance is Entrance.TOO_LATE
        else:
            assert entrance is Entrance.WAITS
            self.others.append((self.number, since_s + 5.0))

    @rule(pause_s=st.floats(0, 4))
    def expire(self, pause_s: float) -> None:
        self.now_s += pause_s
        both = self.retries + self.others
        expired = self.queue.take_expired(self.now_s)
        assert expired == [item for item, due_s in both if due_s <= self.now_s]
        self.retries = [one for one in self.retries if one[0] not in expired]
        self.others = [one for one in self.others if one[0] not in expired]

    @precondition(lambda self: self.retries or self.others)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from([item for item, _ in self.retries + self.others]))
        assert self.queue.leave(item)
        assert not self.queue.leave(item)
        self.retries = [one for one in self.retries if one[0] != item]
        self.others = [one for one in self.others if one[0] != item]

    @invariant()
    def order_is_kept(self) -> None:
        both = [item for item, _ in self.retries + self.others]
        assert len(self.queue) == len(both)
        assert self.queue.first(()) == next(iter(both), None)
        assert all(item in self.queue for item in both)
        assert list(self.queue.retries()) == [item for item, _ in self.retries]


TestQueueing = Queueing.TestCase

NOW_MS = 50_000


def test_one_that_waits_longer_in_another_worker_goes_first() -> None:
    beats = [NOW_MS, NOW_MS]
    assert must_let_others_first(NOW_MS, NOW_MS, [0, NOW_MS - OVERTAKING_MS - 1], beats)
    assert not must_let_others_first(NOW_MS, NOW_MS, [0, NOW_MS - OVERTAKING_MS], beats)
    assert not must_let_others_first(NOW_MS - 300, NOW_MS, [NOW_MS - 300, NOW_MS - 200], beats)


def test_nothing_is_left_to_a_worker_that_hangs_or_is_gone() -> None:
    waiting = [0, NOW_MS - 400]
    assert not must_let_others_first(NOW_MS, NOW_MS, waiting, [NOW_MS, NOW_MS - ALIVE_MS])
    assert not must_let_others_first(NOW_MS, NOW_MS, waiting, [NOW_MS, 0])
    assert must_let_others_first(NOW_MS, NOW_MS, waiting, [0, NOW_MS - ALIVE_MS + 1])


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=8))
def test_among_live_workers_that_wait_at_least_one_may_take_the_room(ago_ms: list[int]) -> None:
    """Otherwise room would lie idle for ever: the one that waits longest leaves it to nobody."""
    waiting = [NOW_MS - ago for ago in ago_ms]
    beats = [NOW_MS] * len(waiting)
    free = [since for since in waiting if not must_let_others_first(since, NOW_MS, waiting, beats)]
    assert min(waiting) in free
    assert all(since - min(waiting) <= OVERTAKING_MS for since in free)


@pytest.mark.parametrize("waiting", [[0], [0, 0, 0]])
def test_where_nobody_waits_anybody_may_take_it(waiting: list[int]) -> None:
    assert not must_let_others_first(NOW_MS, NOW_MS, waiting, [NOW_MS] * len(waiting))
