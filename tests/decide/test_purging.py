"""Who was asked, who answered, who left: example by example, then against a literal reading of what happened."""

from __future__ import annotations

import math

import hypothesis.strategies as st
from hypothesis import given

from minato.decide.purging import PurgeOutcome, Purging


def test_purge_is_over_when_the_last_worker_confirms() -> None:
    purging = Purging()
    serial = purging.begin([10, 11], deadline_s=5.0)
    purging.confirm(10, serial, 3)
    assert purging.take_finished(1.0) == []
    purging.confirm(11, serial, 4)
    assert purging.take_finished(1.0) == [PurgeOutcome(serial, purged=7, workers=2)]
    assert purging.take_finished(9.0) == []


def test_purge_without_workers_is_over_at_once() -> None:
    purging = Purging()
    serial = purging.begin([], deadline_s=5.0)
    assert purging.take_finished(0.0) == [PurgeOutcome(serial, 0, 0)]


def test_worker_that_left_is_neither_waited_for_nor_counted() -> None:
    purging = Purging()
    serial = purging.begin([10, 11], deadline_s=5.0)
    purging.confirm(10, serial, 1)
    purging.leave(11)
    assert purging.take_finished(0.0) == [PurgeOutcome(serial, 1, 1)]


def test_deadline_names_who_is_missing_and_what_comes_later_is_not_counted() -> None:
    purging = Purging()
    serial = purging.begin([12, 11, 10], deadline_s=5.0)
    purging.confirm(10, serial, 1)
    assert purging.take_finished(4.99) == []
    assert purging.take_finished(5.0) == [PurgeOutcome(serial, 1, 1, missing=(11, 12))]
    purging.confirm(11, serial, 1)
    assert purging.take_finished(6.0) == []


def test_confirming_one_confirms_all_before_it() -> None:
    purging = Purging()
    first, second = purging.begin([10], 5.0), purging.begin([10], 6.0)
    purging.confirm(10, second, 9)
    assert purging.take_finished(0.0) == [PurgeOutcome(first, 0, 1), PurgeOutcome(second, 9, 1)]


def test_confirming_one_says_nothing_of_those_after_it() -> None:
    purging = Purging()
    first, second = purging.begin([10], 5.0), purging.begin([10], 6.0)
    purging.confirm(10, first, 9)
    assert purging.take_finished(0.0) == [PurgeOutcome(first, 9, 1)]
    assert purging.take_finished(6.0) == [PurgeOutcome(second, 0, 0, missing=(10,))]


def test_confirming_twice_counts_once() -> None:
    purging = Purging()
    serial = purging.begin([10, 11], 5.0)
    purging.confirm(10, serial, 2)
    purging.confirm(10, serial, 2)
    purging.confirm(11, serial, 0)
    assert purging.take_finished(0.0) == [PurgeOutcome(serial, 2, 2)]


def test_stranger_counts_for_nothing() -> None:
    purging = Purging()
    serial = purging.begin([10], 5.0)
    purging.confirm(99, serial, 7)
    purging.leave(99)
    assert purging.take_finished(5.0) == [PurgeOutcome(serial, 0, 0, missing=(10,))]


def test_next_deadline_is_the_earliest() -> None:
    purging = Purging()
    assert purging.next_deadline_s() == math.inf
    purging.begin([10], 7.0)
    purging.begin([10], 5.0)
    assert purging.next_deadline_s() == 5.0


WORKERS = st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.just("begin"), st.sets(WORKERS), st.integers(1, 9)),
    st.tuples(st.just("confirm"), WORKERS, st.integers(0, 9)),
    st.tuples(st.just("leave"), WORKERS, st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 5), st.just(0)),
)


@given(st.lists(STEPS, max_size=40))
def test_every_purge_is_told_once_and_as_the_record_of_all_that_happened_says(
    steps: list[tuple[str, object, int]],
) -> None:
    purging = Purging()
    now_s = 0.0
    record: dict[int, tuple[set[int], float, dict[int, int], set[int]]] = {}  # asked, deadline, confirmed, left
    told: dict[int, PurgeOutcome] = {}
    for step, value, number in steps:
        if step == "begin" and isinstance(value, set):
            serial = purging.begin(value, now_s + number)
            assert serial == len(record) + 1
            record[serial] = (value, now_s + number, {}, set())
        elif step == "wait" and isinstance(value, int):
            now_s += value
        elif isinstance(value, int):
            for serial, (asked, _, confirmed, left) in record.items():
                if serial in told or value not in asked or value in confirmed or value in left:
                    continue
                if step == "leave":
                    left.add(value)
                elif serial <= number:
                    confirmed[value] = number if serial == number else 0
            if step == "leave":
                purging.leave(value)
            else:
                purging.confirm(value, number, number)
        for outcome in purging.take_finished(now_s):
            assert outcome.serial not in told
            told[outcome.serial] = outcome
        for serial, (asked, deadline_s, confirmed, left) in record.items():
            waiting = asked - confirmed.keys() - left
            assert (serial in told) == (not waiting or serial in told or deadline_s <= now_s)
            if serial in told and told[serial].missing == tuple(sorted(waiting)):
                assert told[serial] == PurgeOutcome(
                    serial, sum(confirmed.values()), len(confirmed), tuple(sorted(waiting))
                )
            else:
                assert serial not in told
    assert len(purging) == len(record) - len(told)
