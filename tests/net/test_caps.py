"""Caps over several workers on one board, one step at a time: who goes on, who backs out, who waits for whom."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import pytest

from minato.config.model import BalancerKind, Config, HostRule, ListenAddress, QueueConfig, Service, Upstream
from minato.decide.queueing import ALIVE_MS, OVERTAKING_MS
from minato.errors import NoRoomError
from minato.net.caps import Caps
from minato.net.loop import Loop
from minato.net.room import Rooms
from minato.net.runtime import ServiceRuntime, UpstreamRuntime, build_services
from minato.shared.board import Board
from tests.net.support import Clock

_SERIALS = count(9900)
RNG = random.Random(1)


class Waiter:
    """A request that takes room when it is its turn."""

    def __init__(self, worker: Worker, service: int = 0, tried: tuple[int, ...] = ()) -> None:
        self.worker = worker
        self.service = service
        self.tried = tried
        self.began_s = worker.loop.now_s
        self.upstream = -1
        self.is_over = False

    def may_ask(self, upstream: UpstreamRuntime) -> bool:
        return upstream.position not in self.tried

    def on_turn(self) -> None:
        try:
            self.upstream = self.worker.claim(self.service, self.tried)
        except NoRoomError:
            return

    def on_wait_over(self, error: NoRoomError) -> None:
        self.is_over = True

    def on_upstream_crash(self) -> None:
        raise AssertionError


class Worker:
    """What a worker has to do with caps, without the rest of it."""

    def __init__(self, board: Board, slot: int, config: Config) -> None:
        self.loop = Loop(forgives_pauses=True)
        self.row = board.row(slot)
        self.services: tuple[ServiceRuntime, ...] = build_services(config, slot, {}, board.active)
        self.rooms = Rooms(self.loop, self.row, self.services)
        self.caps = Caps(self.loop, board, self.row, self.rooms)

    def claim(self, service: int = 0, tried: tuple[int, ...] = ()) -> int:
        """Return the position of the upstream at which there is room."""
        runtime = self.services[service]
        return self.caps.claim(runtime, [one for one in runtime.positions if one not in tried], RNG).position

    def release(self, column: int = 0) -> None:
        self.row.upstream_end(column)

    def wait(self, service: int = 0, ago_s: float = 0.0, tried: tuple[int, ...] = ()) -> Waiter:
        waiter = Waiter(self, service, tried)
        waiter.began_s -= ago_s
        self.rooms.enter(waiter, self.services[service], is_retry=bool(tried))
        return waiter

    def look(self) -> None:
        """Beat and look, as a worker does every hundredth of a second while somebody waits."""
        self.loop.next_wait_s()
        self.beat()
        self.rooms._serve_all()

    def beat(self) -> None:
        self.row.beat(self.loop.machine_ms(self.loop.now_s))


def _config(*caps: int, services: int = 1) -> Config:
    upstreams = tuple(
        Upstream(f"http://u{number}:80", "http", f"u{number}", 80, max_connections=cap)
        for number, cap in enumerate(caps)
    )
    return Config(
        "x",
        tuple(
            Service(
                f"s{number}",
                ListenAddress("", 80 + number),
                BalancerKind.ROUND_ROBIN,
                (HostRule("h", "/"),),
                upstreams,
                queue=QueueConfig(10, 5.0),
            )
            for number in range(services)
        ),
    )


@pytest.fixture
def workers() -> Iterator[Callable[..., list[Worker]]]:
    boards: list[Board] = []
    made: list[Worker] = []

    def make(number: int, *caps: int, services: int = 1) -> list[Worker]:
        config = _config(*caps, services=services)
        board = Board.create(slots=number, upstream_keys=list(config.upstream_index()), serial=next(_SERIALS))
        boards.append(board)
        made.extend(Worker(board, slot, config) for slot in range(number))
        for worker in made:
            worker.beat()
        return made

    yield make
    for worker in made:
        worker.loop.close()
    for board in boards:
        board.close()
        board.unlink()


def test_the_cap_is_over_all_workers(workers: Callable[..., list[Worker]]) -> None:
    a, b, c = workers(3, 2)
    assert a.claim() == b.claim() == 0
    for worker in (a, b, c):
        with pytest.raises(NoRoomError):
            worker.claim()
    a.release()
    assert c.claim() == 0


def test_of_two_that_look_at_the_same_time_not_both_go_on(
    workers: Callable[..., list[Worker]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one takes the room between the look and the counting in."""
    a, b = workers(2, 1)
    begin = a.row.upstream_begin

    class Row:
        upstream_end = a.row.upstream_end

        def upstream_begin(self, upstream: int) -> None:
            assert b.claim() == 0
            begin(upstream)

    monkeypatch.setattr(a.caps, "_row", Row())
    with pytest.raises(NoRoomError):
        a.claim()
    assert a.caps._board.active(0) == 1


def test_one_that_is_full_is_passed_over_for_one_without_a_cap(workers: Callable[..., list[Worker]]) -> None:
    (a,) = workers(1, 1, 0)
    assert sorted(a.claim() for _ in range(10)) == [0] + [1] * 9


def test_who_waits_longer_in_another_worker_goes_first(workers: Callable[..., list[Worker]]) -> None:
    a, b = workers(2, 1)
    a.claim()
    old, new = b.wait(ago_s=1.0), a.wait()
    a.release()
    a.look()
    assert new.upstream == -1  # it has seen that there is room, and leaves it
    with pytest.raises(NoRoomError):
        a.claim()
    b.look()
    assert old.upstream == 0
    b.release()
    a.look()
    assert new.upstream == 0


def test_who_waits_about_as_long_need_not_be_asked(workers: Callable[..., list[Worker]]) -> None:
    a, b = workers(2, 1)
    a.claim()
    b.wait(ago_s=OVERTAKING_MS / 2000)
    new = a.wait()
    a.release()
    a.look()
    assert new.upstream == 0


def test_a_request_that_comes_when_another_worker_waits_goes_behind(workers: Callable[..., list[Worker]]) -> None:
    a, b = workers(2, 1)
    a.claim()
    b.wait(ago_s=1.0)
    a.release()
    with pytest.raises(NoRoomError):
        a.claim()


def test_room_is_not_left_to_a_worker_that_hangs(workers: Callable[..., list[Worker]]) -> None:
    a, b = workers(2, 1)
    a.claim()
    b.wait(ago_s=1.0)
    a.release()
    b.row.beat(int(b.loop.now_s * 1000) - ALIVE_MS - 1)
    assert a.claim() == 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("minato.net.loop.time", clock)
    return clock


def stop_and_go(clock: Clock, stopped: Worker, *others: Worker) -> None:
    """Let one worker stand still for a while."""
    for _ in range(60):
        clock.advance(0.5)
        for other in others:
            other.look()
    stopped.look()
    assert (stopped.loop.paused_s, *[other.loop.paused_s for other in others]) == (30.0, *[0.0 for _ in others])


def test_a_worker_that_stood_still_once_is_alive_for_the_others(
    clock: Clock, workers: Callable[..., list[Worker]]
) -> None:
    a, b = workers(2, 1)
    stop_and_go(clock, b, a)
    a.claim()
    old, new = b.wait(ago_s=1.0), a.wait()
    a.release()
    a.look()
    assert new.upstream == -1
    b.look()
    assert old.upstream == 0


def test_a_worker_that_stood_still_once_leaves_room_to_others_that_wait_longer(
    clock: Clock, workers: Callable[..., list[Worker]]
) -> None:
    a, b = workers(2, 1)
    stop_and_go(clock, b, a)
    b.claim()
    old, new = a.wait(ago_s=1.0), b.wait()
    b.release()
    b.look()
    assert new.upstream == -1
    with pytest.raises(NoRoomError):
        b.claim()
    a.look()
    assert old.upstream == 0


def test_who_waits_while_its_worker_stands_still_has_waited_for_that_much_less_and_is_served(
    clock: Clock, workers: Callable[..., list[Worker]]
) -> None:
    a, b = workers(2, 1)
    a.claim()
    waiter = b.wait()
    stop_and_go(clock, b, a)
    assert not waiter.is_over, "a pause counts for no timeout"
    a.release()
    b.look()
    assert waiter.upstream == 0


def test_a_retry_waits_for_those_it_may_still_ask_and_others_are_not_kept_from_the_rest(
    workers: Callable[..., list[Worker]],
) -> None:
    a, b = workers(2, 1, 1)
    assert {a.claim(), a.claim()} == {0, 1}
    retry = b.wait(ago_s=2.0, tried=(0,))
    assert [b.caps._board.waiting_since_ms(column)[1] > 0 for column in (0, 1)] == [False, True]
    a.release(0)
    assert a.claim() == 0  # nobody waits for that one
    a.release(1)
    with pytest.raises(NoRoomError):
        a.claim()
    b.look()
    assert retry.upstream == 1


def test_services_that_share_an_upstream_take_turns(workers: Callable[..., list[Worker]]) -> None:
    (a,) = workers(1, 1, services=2)
    a.claim(0)
    old = a.wait(service=1, ago_s=1.0)
    new = a.wait(service=0)
    a.release()
    a.look()
    a.look()
    assert (old.upstream, new.upstream) == (0, -1)
    a.release()
    a.look()
    assert new.upstream == 0


def test_the_board_tells_since_when_the_first_one_waits(workers: Callable[..., list[Worker]]) -> None:
    (a,) = workers(1, 1, services=2)
    a.claim()
    assert a.caps._board.waiting_since_ms(0) == [0]
    first, second = a.wait(ago_s=2.0), a.wait(ago_s=1.0)
    third = a.wait(service=1, ago_s=3.0)

    def shown() -> list[int]:
        return a.caps._board.waiting_since_ms(0)

    assert shown() == [int(third.began_s * 1000)]
    a.rooms.leave(third, a.services[1])
    assert shown() == [int(first.began_s * 1000)]
    a.rooms.leave(first, a.services[0])
    assert shown() == [int(second.began_s * 1000)]
    a.rooms.leave(second, a.services[0])
    assert shown() == [0]


def test_who_has_waited_long_enough_is_told(workers: Callable[..., list[Worker]]) -> None:
    (a,) = workers(1, 1)
    a.claim()
    late, later = a.wait(ago_s=4.999), a.wait()
    while not late.is_over:
        a.look()
    assert not later.is_over
    with pytest.raises(NoRoomError, match="within 5 s"):
        a.wait(ago_s=5.1)


def test_upstreams_that_are_gone_are_waited_for_no_more(workers: Callable[..., list[Worker]]) -> None:
    """Their columns may be given to others, for which nobody waits."""
    (a,) = workers(1, 1, 1)
    a.claim(), a.claim()
    waiter = a.wait()
    shown = a.caps._board.waiting_since_ms
    assert shown(0) == shown(1) == [int(waiter.began_s * 1000)]
    (service,) = a.services
    a.rooms._services = a.services = (replace(service, upstreams=service.upstreams[1:]),)
    a.rooms._waiting[0] = a.services[0]
    a.rooms.on_upstreams_changed()
    assert (shown(0), shown(1)) == ([0], [int(waiter.began_s * 1000)])
