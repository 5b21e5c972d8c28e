"""One random course of events over a pretended world, and what must hold all the while."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from minato.decide.probation import WATCH_S
from minato.decide.rollover import BOOT_TIMEOUT_S, HAND_OVER_TIMEOUT_S, MAX_DRAINING_GENERATIONS, PREPARE_TIMEOUT_S
from minato.decide.supervision import STALE_S
from tests.control.simulation.world import Plan, Process, World

STEPS = 90
TURN_S = 0.25
LONGEST_ROLLOVER_S = PREPARE_TIMEOUT_S + 6 + 1 + BOOT_TIMEOUT_S + HAND_OVER_TIMEOUT_S + 2
FATES = ("good", "good", "good", "broken", "unbindable", "unresolved", "no boot", "slow boot", "crash")


class Course:
    """One random course of events over one world, watched."""

    def __init__(self, seed: int) -> None:
        self.world = World(seed)
        self.rng = self.world.rng
        self.busy_since_s = self.world.now_s
        self.events: list[Callable[[], None]]
        self.unserved: dict[int, float] = {}  # slots that nobody serves, by when that began
        if seed % 6 == 0:  # a storm of reloads, beside clients that never leave
            self.world.drains_s = (60.0,)
            self.events = [self.reload_well, self.reload_well, self.reload_well, self.kill, self.hang, self.go_on]
            return
        self.events = [
            *[self.nothing] * 6,
            self.reload,
            self.reload,
            self.kill,
            self.crash,
            self.hang,
            self.go_on,
            self.drain_one,
            self.add_worker,
            self.remove_worker,
            self.refuse_forks,
            self.pause,
        ]

    # -- what happens

    def nothing(self) -> None: ...

    def any_process(self) -> Process | None:
        alive = self.world.alive()
        return self.rng.choice(alive) if alive else None

    def reload(self) -> None:
        plan = Plan(self.rng.randint(1, 3), fate=self.rng.choice(FATES), recycle=self.rng.choice((0, 0, 40)))
        self.world.write_file(plan)
        for _ in range(self.rng.choice((1, 1, 5))):
            self.world.driver.request()

    def reload_well(self) -> None:
        self.world.write_file(Plan(self.rng.randint(1, 3), drain_s=60.0))
        self.world.driver.request()

    def pause(self) -> None:
        """All stand still for as long as the clock does not forgive; the master is the first to go on."""
        self.world.stand_still(0.9)
        self.world.turn_master()

    def kill(self) -> None:
        if process := self.any_process():
            process.end(-signal.SIGKILL)

    def crash(self) -> None:
        if process := self.any_process():
            process.end(self.rng.choice((1, 0, -signal.SIGSEGV)))

    def hang(self) -> None:
        if process := self.any_process():
            process.is_hung = True

    def go_on(self) -> None:
        for process in self.world.alive():
            process.is_hung = False

    def drain_one(self) -> None:
        process = self.any_process()
        if process and process.serves:
            process.drain()

    def add_worker(self) -> None:
        generation = self.world.supervisor.current
        if generation is None:
            return
        if generation.target + 1 > generation.board.slots:
            self.world.driver.request(workers=generation.target + 1)
        else:
            generation.target += 1
            self.world.slots_bound(generation.target)

    def remove_worker(self) -> None:
        generation = self.world.supervisor.current
        if generation is not None and generation.target > 1:
            generation.target -= 1

    def refuse_forks(self) -> None:
        self.world.forks_fail = self.rng.randint(1, 3)

    # -- how it goes on

    def run(self) -> None:
        self.world.driver.request()
        for _ in range(STEPS):
            self.rng.choice(self.events)()
            self.step(self.rng.choice((0.01, 0.1, TURN_S, TURN_S, 0.9)))
            if self.world.cannot_start:
                return self.finish()
        self.settle()
        return self.finish()

    def step(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        served = self.count_seeming()
        self.world.turn_master()
        self.check(served)

    def settle(self) -> None:
        """Nothing happens any more: what was asked for comes to its end, and all slots are served."""
        self.world.forks_fail = 0
        self.go_on()
        for _ in range(int((LONGEST_ROLLOVER_S * 2 + WATCH_S + 100.0) / TURN_S)):
            self.step(TURN_S)
            if self.is_settled():
                return
        assert self.is_settled(), f"it does not settle: {self.world.supervisor.fleet!r}, {self.world.driver._plan!r}"

    def is_settled(self) -> bool:
        generation = self.world.supervisor.current
        if self.world.driver.is_busy or self.world.driver._plan.is_requested:
            return False
        if generation is None or self.world.fate_of(generation) == "crash":
            # It never began to serve, or there is nothing to go back to: it goes on trying, with pauses.
            return generation is None or self.world.supervisor.fleet.probation.reserve is None
        slots = sorted(process.slot for process in self.world.serving() if process.generation == generation.number)
        return slots == list(range(generation.target)) and self.world.supervisor.generations == [generation]

    def finish(self) -> None:
        """The master stops."""
        supervisor = self.world.supervisor
        self.world.driver.cancel()
        supervisor.current = None
        for generation in list(supervisor.generations):
            supervisor.bury_if_empty(generation)
        supervisor.stop([worker for _, worker in supervisor.workers()])
        for _ in range(20):
            self.world.pass_time(TURN_S)
            supervisor.reap()
            supervisor.murder()
        assert sorted(self.world.reaped) == sorted(self.world.processes), "every fork is reaped exactly once"
        assert supervisor.generations == [], "a generation is left"
        assert all(board.is_dropped for board in self.world.boards), "a board is left"

    # -- what holds

    def check(self, served_before: int) -> None:
        self.check_kills()
        self.check_somebody_serves(served_before)
        self.check_slots()
        self.check_generations()
        self.check_queues()
        self.check_bookkeeping()

    def count_seeming(self) -> int:
        return sum(process.seems_to_serve for process in self.world.alive())

    def check_somebody_serves(self, served_before: int) -> None:
        if self.world.supervisor.current is None:
            return  # what starts and fails to has served nobody
        assert self.count_seeming() or not served_before, "the master took away the last worker that served"

    def check_slots(self) -> None:
        taken = [(process.generation, process.slot) for process in self.world.serving()]
        assert len(taken) == len(set(taken)), "two workers of one generation accept for one slot"

    def check_generations(self) -> None:
        supervisor, driver = self.world.supervisor, self.world.driver
        assert len(supervisor.generations) <= MAX_DRAINING_GENERATIONS + 2, "generations pile up"
        if not driver.is_busy:
            self.busy_since_s = self.world.now_s
        self.busy_since_s = max(self.busy_since_s, self.world.over_s)
        assert self.world.now_s - self.busy_since_s <= LONGEST_ROLLOVER_S, "a rollover does not end"

    def check_kills(self) -> None:
        for process, was_due in self.world.killed:
            assert was_due, f"worker {process.pid} was killed for nothing"

    def check_queues(self) -> None:
        """Nobody waits in a slot's queue for longer than it takes to see that its worker is silent."""
        serving = [one for one in self.world.serving() if one.generation == self.world.current_number()]
        attended = {process.slot for process in serving}.union(*(process.borrowed for process in serving))
        unserved = set(self.world.slots()) - attended if serving else set()
        now_s = self.world.now_s
        self.unserved = {slot: self.unserved.get(slot, now_s) for slot in unserved}
        longest_s = max((now_s - since_s for since_s in self.unserved.values()), default=0.0)
        assert longest_s <= STALE_S + 1.0, "a queue is served by nobody"

    def check_bookkeeping(self) -> None:
        known = [worker.pid for _, worker in self.world.supervisor.workers()]
        unreaped = [pid for pid in self.world.processes if pid not in self.world.reaped]
        assert sorted(known) == unreaped, "a process is forgotten, or known that is gone"
        assert len(set(self.world.reaped)) == len(self.world.reaped), "a process is reaped twice"


@contextlib.contextmanager
def patched(patches: list[tuple[Any, str, Any]]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in patches:
            patch.setattr(module, name, value)
        yield


def run_course(seed: int) -> World:
    course = Course(seed)
    with patched(course.world.patches()):
        try:
            course.run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
    return course.world
