"""What becomes of workers, case by case; the courses of tests/control/simulation go through all of it together."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from minato.decide.crew import Crew, Member, WorkerState
from minato.decide.recycling import MEMORY_RESPITE_S, RESPITE_S, Allowance, Load, RecycleReason
from minato.decide.supervision import STALE_S, STOP_GRACE_S, Loan, Supervision

Fleet = Supervision[Crew[Member], Member]
HEARTBEAT_S = 5.0
_pids = itertools.count(1)


class Scene:
    """A current generation whose workers all serve at second 0."""

    def __init__(self, slots: int = 2, rows: int = 4, allowance: Allowance | None = None) -> None:
        self.fleet: Fleet = Supervision()
        self.crew: Crew[Member] = Crew(number=1, target=slots, rows=rows, heartbeat_s=HEARTBEAT_S, drain_s=3.0)
        self.fleet.generations.append(self.crew)
        self.allowance = allowance or Allowance()
        self.workers = [self.ready(slot, 0.0) for slot in range(slots)]
        self.fleet.switch(self.crew, 0.0)

    def fork(self, slot: int, mono_s: float) -> Member:
        row = self.crew.free_row(slot)
        assert row is not None
        worker = Member(pid=next(_pids), slot=slot, row=row, forked_s=mono_s, allowance=self.allowance)
        self.fleet.note_forked(self.crew, worker)
        return worker

    def ready(self, slot: int, mono_s: float) -> Member:
        worker = self.fork(slot, mono_s)
        self.fleet.note_ready(self.crew, worker, mono_s)
        return worker

    def beat(self, mono_s: float, *workers: Member) -> None:
        for worker in workers or self.workers:
            worker.hear(worker.beat + 1, mono_s)


def test_state_of_a_worker_never_goes_back() -> None:
    worker = Member(pid=1, slot=0, row=0, forked_s=0.0)
    worker.become(WorkerState.DRAINING)
    for state in (WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING):
        with pytest.raises(ValueError, match=f"draining cannot become {state.value}"):
            worker.become(state)


def test_heartbeat_counts_when_it_changes_whatever_it_says() -> None:
    """Clocks of the worker, stopped or set back, are nothing to the master."""
    scene = Scene(slots=1)
    (worker,) = scene.workers
    for mono_s, beat in enumerate((900_000, 5, 5, 6)):
        worker.hear(beat, float(mono_s))
    assert worker.heard_s == 3.0
    worker.hear(6, 50.0)
    assert worker.silent_s(50.0) == 47.0


def test_queue_of_a_silent_worker_is_lent_once_and_given_back_when_it_is_heard_of() -> None:
    scene = Scene(slots=3)
    one, two, silent = scene.workers
    now_s = STALE_S + 0.1
    scene.beat(now_s, one, two)
    assert scene.fleet.loans([0, 1, 2], now_s) == [Loan(one, (2,), ()), Loan(two, (2,), ())]
    assert scene.fleet.loans([0, 1, 2], now_s) == []
    scene.beat(now_s, silent)
    assert scene.fleet.loans([0, 1, 2], now_s) == [Loan(one, (), (2,)), Loan(two, (), (2,))]
    assert scene.fleet.overdue(now_s) == []


def test_silent_worker_is_killed_after_the_heartbeats_time_and_counts_as_crashed() -> None:
    scene = Scene(slots=2)
    one, silent = scene.workers
    scene.fleet.probation.begin(None, workers=2, mono_s=0.0)
    scene.beat(HEARTBEAT_S, one)
    assert scene.fleet.overdue(HEARTBEAT_S) == []
    ((_, victim, why),) = scene.fleet.overdue(HEARTBEAT_S + 0.1)
    assert victim is silent and why == "hangs: no heartbeat for 5.1 s"
    silent.become(WorkerState.KILLED)
    assert scene.fleet.overdue(HEARTBEAT_S + 0.1) == []


def test_worker_told_to_end_is_no_loss_however_it_ends() -> None:
    scene = Scene(slots=1)
    (worker,) = scene.workers
    assert scene.fleet.drain([worker], 3.0, 10.0) == [worker]
    assert scene.fleet.drain([worker], 3.0, 11.0) == []
    ((_, _, why),) = scene.fleet.overdue(13.0 + STOP_GRACE_S)
    assert why == "did not end in time"
    worker.become(WorkerState.KILLED)
    assert scene.fleet.note_dead(scene.crew, worker, 15.0, is_crash=True) == 0.0
    assert scene.fleet.probation.crashes == 0 and scene.fleet.vacancies(15.0) == [0]


def test_fresh_worker_takes_the_place_of_the_one_that_had_enough_once_it_serves() -> None:
    scene = Scene(slots=2, allowance=Allowance(requests=10))
    old, other = scene.workers
    loads = {old.pid: Load(10, 0), other.pid: Load(99, 0)}
    due = scene.fleet.due_recycle(loads, 0.5)
    assert due is not None and (due.worker, due.reason) == (old, RecycleReason.REQUESTS)
    fresh = scene.fork(old.slot, 0.5)
    assert fresh.row != old.row and old.state is WorkerState.READY
    assert scene.fleet.due_recycle(loads, 5.0) is None, "one at a time"
    assert scene.fleet.note_ready(scene.crew, fresh, 0.9) == [old]
    scene.fleet.drain([old], 3.0, 0.9)
    due = scene.fleet.due_recycle(loads, 1.0)
    assert due is not None and due.worker is other


@pytest.mark.parametrize(("load", "respite_s"), [(Load(10, 0), RESPITE_S), (Load(0, 10), MEMORY_RESPITE_S)])
def test_worker_whose_predecessor_was_just_replaced_is_left_alone_for_a_while(load: Load, respite_s: float) -> None:
    scene = Scene(slots=1, rows=9, allowance=Allowance(10, 10))

    def is_due(mono_s: float) -> bool:
        (serving,) = scene.crew.serving()
        scene.beat(mono_s, serving)
        return scene.fleet.due_recycle({serving.pid: load}, mono_s) is not None

    assert is_due(1.0)
    fresh = scene.fork(0, 1.0)
    scene.fleet.drain(scene.fleet.note_ready(scene.crew, fresh, 1.0), 30.0, 1.0)
    assert not is_due(1.0 + respite_s - 0.1)
    assert is_due(1.0 + respite_s)


def test_worker_for_which_the_board_has_no_row_is_told_of_once_and_replaced_when_there_is_one() -> None:
    scene = Scene(slots=2, rows=2, allowance=Allowance(requests=1))
    one, two = scene.workers
    loads = {worker.pid: Load(5, 0) for worker in scene.workers}
    for _ in range(2):
        due = scene.fleet.due_recycle(loads, 0.5)
        assert due is not None and (due.worker, due.has_row) == (one, False)
        assert scene.fleet.due_recycle(loads, 0.6) is None, "once"
        scene.fleet.drain([two], 3.0, 0.7)
        scene.fleet.note_dead(scene.crew, two, 0.8, is_crash=False)
        due = scene.fleet.due_recycle(loads, 0.9)
        assert due is not None and (due.worker, due.has_row) == (one, True)
        two = scene.fork(1, 1.0)
        scene.fleet.note_ready(scene.crew, two, 1.0)
        scene.crew._recycle_due_s.clear()


def test_worker_is_not_replaced_while_it_hangs() -> None:
    silent = Scene(slots=1, allowance=Allowance(requests=1))
    assert silent.fleet.due_recycle({silent.workers[0].pid: Load(5, 0)}, STALE_S + 0.1) is None


def test_fresh_worker_that_cannot_boot_leaves_the_old_one_where_it_is() -> None:
    scene = Scene(slots=1, allowance=Allowance(requests=1))
    (old,) = scene.workers
    fresh = scene.fork(0, 0.5)
    assert scene.fleet.note_dead(scene.crew, fresh, 0.6, is_crash=True) == 0.5
    assert old.state is WorkerState.READY and scene.fleet.vacancies(0.6) == []
    assert scene.fleet.due_recycle({old.pid: Load(5, 0)}, 0.9) is None, "after a pause"
    scene.beat(1.1)
    assert scene.fleet.due_recycle({old.pid: Load(5, 0)}, 1.1) is not None


def test_surplus_stays_until_one_of_those_that_are_to_stay_serves() -> None:
    scene = Scene(slots=2)
    first, second = scene.workers
    scene.crew.target = 1
    assert scene.fleet.surplus(0.5) == [second]
    scene.fleet.note_dead(scene.crew, first, 0.5, is_crash=False)
    assert scene.fleet.surplus(0.5) == []
    scene.fork(0, 0.6)
    assert scene.fleet.surplus(0.6) == []
    scene.fleet.note_ready(scene.crew, scene.crew.serving()[-1], 0.7)
    assert scene.fleet.surplus(0.7) == [second]


def test_generation_is_stranded_when_none_of_its_workers_serves() -> None:
    scene = Scene(slots=1)
    assert not scene.fleet.is_stranded(0.5) and scene.fleet.is_stranded(STALE_S + 0.1)
    none: Supervision[Any, Any] = Supervision()
    assert not none.is_stranded(0.0)
