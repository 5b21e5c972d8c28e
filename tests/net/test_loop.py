"""The loop: timers that move, order within a turn, bugs that stay where they are, events of fds that are gone."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.net import loop as loop_module
from minato.net.loop import ENDED, READ, WRITE, Loop
from tests.net.support import Clock, settle

Pair = Callable[[], tuple[socket.socket, socket.socket]]


class Alarm:
    """A timer that counts how often it ran."""

    def __init__(self, loop: Loop, name: str = "", runs: list[str] | None = None) -> None:
        self.runs = runs if runs is not None else []
        self.timer = loop.timer(lambda: self.runs.append(name))

    @property
    def count(self) -> int:
        return len(self.runs)


def pass_time(loop: Loop, clock: Clock, seconds: float) -> None:
    clock.advance(seconds)
    loop.turn(0.0)


def test_a_timer_runs_once_when_it_is_due(loop: Loop, clock: Clock) -> None:
    alarm = Alarm(loop)
    alarm.timer.set(2.0)
    pass_time(loop, clock, 1.9)
    assert (alarm.count, alarm.timer.is_set) == (0, True)
    pass_time(loop, clock, 0.1)
    assert (alarm.count, alarm.timer.is_set) == (1, False)
    pass_time(loop, clock, 10)
    assert alarm.count == 1


def test_a_timer_that_was_moved_later_runs_later(loop: Loop, clock: Clock) -> None:
    alarm = Alarm(loop)
    alarm.timer.set(1.0)
    pass_time(loop, clock, 0.5)
    alarm.timer.set(1.0)
    pass_time(loop, clock, 0.6)
    assert alarm.count == 0
    pass_time(loop, clock, 0.4)
    assert alarm.count == 1


def test_a_timer_that_was_moved_earlier_runs_once_and_earlier(loop: Loop, clock: Clock) -> None:
    alarm = Alarm(loop)
    alarm.timer.set(10.0)
    alarm.timer.set(1.0)
    pass_time(loop, clock, 1.0)
    assert alarm.count == 1
    pass_time(loop, clock, 20.0)
    assert alarm.count == 1


def test_earlier_then_later_again_runs_at_the_last_deadline(loop: Loop, clock: Clock) -> None:
    alarm = Alarm(loop)
    for delay_s in (10.0, 1.0, 5.0):
        alarm.timer.set(delay_s)
    pass_time(loop, clock, 4.9)
    assert alarm.count == 0
    pass_time(loop, clock, 0.1)
    assert alarm.count == 1
    pass_time(loop, clock, 10)
    assert alarm.count == 1


def test_a_cancelled_timer_does_not_run_but_may_be_set_again(loop: Loop, clock: Clock) -> None:
    alarm = Alarm(loop)
    alarm.timer.set(1.0)
    alarm.timer.cancel()
    assert not alarm.timer.is_set
    pass_time(loop, clock, 5.0)
    assert alarm.count == 0
    alarm.timer.set(1.0)
    alarm.timer.cancel()
    alarm.timer.set(3.0)
    pass_time(loop, clock, 2.0)
    assert alarm.count == 0
    pass_time(loop, clock, 1.0)
    assert alarm.count == 1


def test_timers_run_in_the_order_of_their_deadlines(loop: Loop, clock: Clock) -> None:
    runs: list[str] = []
    for name, delay_s in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("b2", 2.0)):
        Alarm(loop, name, runs).timer.set(delay_s)
    pass_time(loop, clock, 5.0)
    assert runs == ["a", "b", "b2", "c"]


def test_a_timer_may_set_itself_again(loop: Loop, clock: Clock) -> None:
    runs: list[float] = []

    def tick() -> None:
        runs.append(clock.now_s)
        timer.set(1.0)

    timer = loop.timer(tick)
    timer.set(1.0)
    for _ in range(3):
        pass_time(loop, clock, 1.0)
    assert len(runs) == 3


def test_the_loop_waits_until_the_next_timer_and_not_at_all_for_what_was_put_off(loop: Loop, clock: Clock) -> None:
    assert loop.next_wait_s(7.0) == 7.0
    Alarm(loop).timer.set(2.0)
    assert loop.next_wait_s(7.0) == 2.0
    assert loop.next_wait_s(1.0) == 1.0
    clock.advance(3.0)
    assert loop.next_wait_s(7.0) == 0.0
    settle(loop)
    loop.call_soon(lambda: None)
    assert loop.next_wait_s(7.0) == 0.0


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 2), st.integers(0, 9)),
        st.tuples(st.just("cancel"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("pass"), st.just(0), st.integers(0, 5)),
    ),
    max_size=40,
)


@given(STEPS)
def test_timers_agree_with_a_plain_model(steps: list[tuple[str, int, int]]) -> None:
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop_module, "time", clock)
        loop = Loop()
        runs: list[str] = []
        alarms = [Alarm(loop, str(number), runs) for number in range(3)]
        due: dict[int, float] = {}
        for step, number, amount in steps:
            if step == "set":
                alarms[number].timer.set(amount)
                due[number] = clock.now_s + amount
            elif step == "cancel":
                alarms[number].timer.cancel()
                due.pop(number, None)
            else:
                runs.clear()
                pass_time(loop, clock, amount)
                expected = {number for number, due_s in due.items() if due_s <= clock.now_s}
                assert sorted(runs) == sorted(str(number) for number in expected)
                due = {number: due_s for number, due_s in due.items() if number not in expected}
        loop.close()


# -- events


def test_a_handler_hears_of_its_events(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    masks: list[int] = []
    loop.add(near.fileno(), READ, masks.append)
    settle(loop)
    assert masks == []
    far.send(b"x")
    loop.turn(1.0)
    assert masks == [READ]
    loop.modify(near.fileno(), READ | WRITE)
    loop.turn(1.0)
    assert masks == [READ, READ | WRITE]


def test_a_removed_fd_is_heard_of_no_more_and_may_be_removed_again(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    loop.add(near.fileno(), READ, lambda _: pytest.fail("called"))
    far.send(b"x")
    loop.remove(near.fileno())
    loop.remove(near.fileno())
    settle(loop)


def test_an_event_of_an_fd_that_was_removed_in_the_same_turn_is_dropped(loop: Loop, pair: Pair) -> None:
    pairs = [pair(), pair()]
    called: list[int] = []

    def handler_of(number: int) -> Callable[[int], None]:
        def handler(_: int) -> None:
            called.append(number)
            loop.remove(pairs[1 - number][0].fileno())

        return handler

    for number, (near, far) in enumerate(pairs):
        loop.add(near.fileno(), READ, handler_of(number))
        far.send(b"x")
    loop.turn(1.0)
    assert len(called) == 1


def test_a_stale_event_does_not_reach_who_has_the_fd_now(loop: Loop, pair: Pair) -> None:
    """One handler closes the other's socket, and a new connection gets its fd, all in one turn."""
    pairs = [pair(), pair()]
    fresh, _ = pair()
    wrong: list[int] = []
    called: list[int] = []

    def handler_of(number: int) -> Callable[[int], None]:
        def handler(_: int) -> None:
            called.append(number)
            other = pairs[1 - number][0].fileno()
            loop.remove(other)
            os.dup2(fresh.fileno(), other)
            loop.add(other, READ, wrong.append)

        return handler

    for number, (near, far) in enumerate(pairs):
        loop.add(near.fileno(), READ, handler_of(number))
        far.send(b"x")
    loop.turn(1.0)
    assert (len(called), wrong) == (1, [])


# -- readers


def test_a_reader_hears_of_bytes_alone_and_the_handler_of_all_else(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    told: list[object] = []
    loop.add(near.fileno(), READ, told.append)
    loop.set_reader(near.fileno(), lambda: told.append("reader"))
    far.send(b"x")
    loop.turn(1.0)
    assert told == ["reader"]
    loop.modify(near.fileno(), READ | WRITE)
    loop.turn(1.0)
    loop.modify(near.fileno(), WRITE)
    loop.turn(1.0)
    assert told == ["reader", READ | WRITE, WRITE]
    loop.modify(near.fileno(), READ | ENDED)
    far.close()
    loop.turn(1.0)
    assert told[3] == READ | ENDED


def test_without_its_reader_an_fd_is_the_handlers_again(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    told: list[object] = []
    loop.add(near.fileno(), READ, told.append)
    loop.set_reader(near.fileno(), lambda: told.append("one"))
    loop.set_reader(near.fileno(), lambda: told.append("other"))
    far.send(b"x")
    loop.turn(1.0)
    loop.set_reader(near.fileno(), None)
    loop.set_reader(near.fileno(), None)
    loop.turn(1.0)
    assert told == ["other", READ]


@pytest.mark.parametrize("way", ["remove", "forget"])
def test_a_reader_goes_with_its_fd(loop: Loop, pair: Pair, way: str) -> None:
    """Who gets the number next has no reader unless it sets one."""
    near, _ = pair()
    other, far_of_other = pair()
    fd = near.fileno()
    loop.add(fd, READ, lambda _: pytest.fail("the old handler"))
    loop.set_reader(fd, lambda: pytest.fail("the old reader"))
    if way == "remove":
        loop.remove(fd)
    os.dup2(other.fileno(), fd)
    if way == "forget":
        loop.forget(fd)
    masks: list[int] = []
    loop.add(fd, READ, masks.append)
    far_of_other.send(b"x")
    settle(loop)
    assert masks
    assert set(masks) == {READ}


@pytest.mark.parametrize("way", ["remove", "forget"])
def test_a_stale_event_does_not_reach_the_reader_of_who_has_the_fd_now(loop: Loop, pair: Pair, way: str) -> None:
    pairs = [pair(), pair()]
    fresh, far_of_fresh = pair()
    wrong: list[int] = []
    called: list[int] = []

    def reader_of(number: int) -> Callable[[], None]:
        def reader() -> None:
            called.append(number)
            other = pairs[1 - number][0].fileno()
            if way == "remove":
                loop.remove(other)
            os.dup2(fresh.fileno(), other)
            if way == "forget":
                loop.forget(other)
            loop.add(other, READ, wrong.append)
            loop.set_reader(other, lambda: wrong.append(other))

        return reader

    for number, (near, far) in enumerate(pairs):
        loop.add(near.fileno(), READ, lambda _: pytest.fail("the handler"))
        loop.set_reader(near.fileno(), reader_of(number))
        far.send(b"x")
    loop.turn(1.0)
    assert (len(called), wrong) == (1, [])
    loop.remove(pairs[called[0]][0].fileno())
    far_of_fresh.send(b"y")
    loop.turn(1.0)
    assert len(wrong) == 1, "its own event does"


def test_a_reader_that_is_taken_away_in_the_turn_of_its_event_is_not_called(loop: Loop, pair: Pair) -> None:
    pairs = [pair(), pair()]
    told: list[object] = []

    def reader_of(number: int) -> Callable[[], None]:
        def reader() -> None:
            told.append("reader")
            loop.set_reader(pairs[1 - number][0].fileno(), None)

        return reader

    for number, (near, far) in enumerate(pairs):
        loop.add(near.fileno(), READ, told.append)
        loop.set_reader(near.fileno(), reader_of(number))
        far.send(b"x")
    loop.turn(1.0)
    assert told == ["reader", READ]


def test_set_handler_hands_an_fd_over(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    masks: list[int] = []
    loop.add(near.fileno(), READ, lambda _: pytest.fail("called"))
    loop.set_handler(near.fileno(), masks.append)
    far.send(b"x")
    loop.turn(1.0)
    assert masks == [READ]


def test_the_loop_itself_can_be_waited_for(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    outer = Loop()
    turns: list[int] = []
    loop.add(near.fileno(), READ, lambda _: near.recv(10))
    outer.add(loop.fileno(), READ, lambda mask: (turns.append(mask), loop.turn(0.0)))
    settle(outer)
    far.send(b"x")
    outer.turn(1.0)
    settle(outer)
    outer.close()
    assert turns == [READ]


# -- what is put off


def test_what_was_put_off_runs_after_the_events_of_its_turn_in_order(loop: Loop, pair: Pair) -> None:
    order: list[str] = []
    for _ in range(2):
        near, far = pair()
        loop.add(near.fileno(), READ, lambda _: (order.append("event"), loop.call_soon(lambda: order.append("later"))))
        far.send(b"x")
    loop.turn(1.0)
    assert order == ["event", "event", "later", "later"]


def test_what_is_put_off_while_that_runs_still_runs_in_this_turn(loop: Loop) -> None:
    order: list[str] = []
    loop.call_soon(lambda: (order.append("one"), loop.call_soon(lambda: order.append("two"))))
    loop.turn(0.0)
    assert order == ["one", "two"]


def test_run_turns_until_stop(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    loop.run()


# -- bugs


class Buggy:
    """A handler, timer action and put-off action that fails."""

    def __init__(self, crash_too: bool = False) -> None:
        self.crashes = 0
        self._crash_too = crash_too

    def handle(self, _: int = 0) -> None:
        raise ZeroDivisionError("a bug")

    def act(self) -> None:
        raise ZeroDivisionError("a bug")

    def on_crash(self) -> None:
        self.crashes += 1
        if self._crash_too:
            raise ZeroDivisionError("another bug")


@pytest.mark.parametrize("crash_too", [False, True])
def test_a_bug_in_a_reader_ends_its_owner_alone(
    loop: Loop, pair: Pair, caplog: pytest.LogCaptureFixture, crash_too: bool
) -> None:
    buggy = [Buggy(crash_too), Buggy(crash_too)]
    for owner in buggy:
        near, far = pair()
        loop.add(near.fileno(), READ, owner.handle)
        loop.set_reader(near.fileno(), owner.act)
        far.send(b"x")
    loop.turn(1.0)
    assert [owner.crashes for owner in buggy] == [1, 1]
    assert "ZeroDivisionError: a bug" in caplog.text


@pytest.mark.parametrize("crash_too", [False, True])
def test_a_bug_in_a_handler_ends_its_owner_alone(
    loop: Loop, pair: Pair, caplog: pytest.LogCaptureFixture, crash_too: bool
) -> None:
    buggy = [Buggy(crash_too), Buggy(crash_too)]
    for owner in buggy:
        near, far = pair()
        loop.add(near.fileno(), READ, owner.handle)
        far.send(b"x")
    loop.turn(1.0)
    assert [owner.crashes for owner in buggy] == [1, 1]
    assert "ZeroDivisionError: a bug" in caplog.text


def test_a_bug_in_a_timer_or_in_what_was_put_off_ends_its_owner_alone(
    loop: Loop, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    timed, put_off, alarm = Buggy(), Buggy(), Alarm(loop)
    loop.timer(timed.act).set(1.0)
    alarm.timer.set(1.0)
    loop.call_soon(put_off.act)
    ran: list[bool] = []
    loop.call_soon(lambda: ran.append(True))
    pass_time(loop, clock, 1.0)
    assert (timed.crashes, put_off.crashes, alarm.count, ran) == (1, 1, 1, [True])
    assert caplog.text.count("a bug; the connection") == 2


def test_a_bug_of_nobody_is_logged(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.call_soon(lambda: 1 // 0)  # type: ignore[arg-type,return-value]
    loop.turn(0.0)
    assert "ZeroDivisionError" in caplog.text


def test_what_is_put_first_is_handled_before_all_else_after_a_pause(clock: Clock, loop: Loop, pair: Pair) -> None:
    handled: list[str] = []
    ends = [pair() for _ in range(600)]  # more than one look at epoll tells
    for number, (ours, theirs) in enumerate(ends):
        name = "first" if number == 599 else "other"
        ours.setblocking(False)

        def handle(_: int, name: str = name, ours: socket.socket = ours) -> None:
            with contextlib.suppress(BlockingIOError):
                ours.recv(1)
                handled.append(name)

        loop.add(ours.fileno(), READ, handle)
        theirs.send(b"x")
    loop.put_first(ends[599][0].fileno())
    clock.advance(0.5)
    loop.turn(0.0)
    assert handled[0] == "other", "without a pause it costs nothing and is in no hurry"
    clock.advance(1.5)
    loop.turn(0.0)
    assert handled[handled.index("first") - 1] == "other"
    assert handled.index("first") == 64
    assert handled.count("first") == 1


@pytest.fixture
def forgiving(clock: Clock) -> Iterator[Loop]:
    loop = Loop(forgives_pauses=True)
    yield loop
    loop.close()


def test_time_in_which_the_process_did_not_run_counts_for_no_timer(clock: Clock, forgiving: Loop) -> None:
    alarm = Alarm(forgiving)
    alarm.timer.set(5.0)
    pass_time(forgiving, clock, 0.5)
    pass_time(forgiving, clock, 3600.0)
    assert alarm.count == 0
    for _ in range(9):
        pass_time(forgiving, clock, 0.5)
    assert alarm.count == 1
    assert forgiving.now_s == clock.monotonic() - 3600.0
    assert forgiving.wall_s == clock.time(), "the wall clock forgives nothing"
    assert forgiving.paused_s == 3600.0
    assert forgiving.machine_ms(forgiving.now_s) == int(clock.monotonic() * 1000), (
        "what others compare forgives nothing"
    )


def test_a_loop_that_is_merely_busy_is_late_for_its_timers_all_the_same(clock: Clock, forgiving: Loop) -> None:
    alarm = Alarm(forgiving)
    alarm.timer.set(0.9)
    pass_time(forgiving, clock, 0.95)
    assert alarm.count == 1


def test_a_wait_as_long_as_it_was_meant_to_be_is_no_pause(
    clock: Clock, forgiving: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm = Alarm(forgiving)
    alarm.timer.set(30.0)
    monkeypatch.setattr(forgiving, "_poll", lambda wait_s, most: clock.advance(wait_s) or [])
    forgiving.turn()
    assert alarm.count == 1
    assert forgiving.now_s == clock.monotonic()


def test_who_waits_outside_says_for_how_long_and_what_is_longer_is_a_pause(clock: Clock, forgiving: Loop) -> None:
    alarm = Alarm(forgiving)
    alarm.timer.set(20.0)
    clock.advance(forgiving.next_wait_s(10.0))
    forgiving.turn(0.0)
    assert forgiving.now_s == clock.monotonic()
    clock.advance(forgiving.next_wait_s(10.0) + 100.0)
    forgiving.turn(0.0)
    assert (alarm.count, forgiving.now_s) == (0, clock.monotonic() - 110.0), "the wait counts as little as the pause"
    clock.advance(100.0)
    forgiving.refresh()  # somebody sets a timer before the loop turns
    assert forgiving.now_s == clock.monotonic() - 210.0
    clock.advance(forgiving.next_wait_s())
    forgiving.turn(0.0)
    assert alarm.count == 1


@pytest.mark.parametrize("jump_s", [-86_400.0, 86_400.0])
def test_a_wall_clock_that_jumps_moves_no_timer(
    clock: Clock, forgiving: Loop, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    alarm = Alarm(forgiving)
    alarm.timer.set(1.0)
    monkeypatch.setattr(clock, "time", lambda: clock.now_s + 1_000_000_000 + jump_s)
    pass_time(forgiving, clock, 0.5)
    assert alarm.count == 0
    pass_time(forgiving, clock, 0.5)
    assert alarm.count == 1
