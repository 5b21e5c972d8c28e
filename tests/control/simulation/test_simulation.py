"""Thousands of random courses of events; whatever happens, some things hold. Each is seen to fail, too, on a mutant."""

from __future__ import annotations

from typing import Any

import pytest

from minato.decide import supervision
from minato.decide.crew import Crew, Member, WorkerState
from minato.decide.probation import Probation
from minato.decide.rollover import PREPARE_TIMEOUT_S, Phase, Rollover, Step
from minato.decide.supervision import Supervision
from tests.control.simulation.course import TURN_S, Course, patched, run_course
from tests.control.simulation.world import Plan

COURSES = 1200


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(100, "minato")


@pytest.mark.parametrize("block", range(4))
def test_whatever_happens(block: int) -> None:
    each = COURSES // 4
    worlds = [run_course(seed) for seed in range(block * each, (block + 1) * each)]
    # The courses are worth something: they go through everything that there is.
    assert sum(len(world.processes) for world in worlds) > 12 * each
    assert any(world.killed for world in worlds)
    assert any(world.returns for world in worlds)
    assert any(world.recycled for world in worlds)


@pytest.mark.parametrize("order", [(None, 4), (4, None)])
def test_new_config_and_one_worker_more_asked_for_together_are_both_had(order: tuple[int | None, int | None]) -> None:
    course = Course(1)
    course.world.write_file(Plan(2))
    with patched(course.world.patches()):
        course.world.driver.request()
        course.settle()
        course.world.write_file(Plan(3))
        course.world.driver.request()  # it begins, and what is asked for from now on makes one more
        course.step(TURN_S)
        course.world.write_file(Plan(1, drain_s=7.0))
        for workers in order:
            course.world.driver.request(workers)
        course.settle()
        generation = course.world.supervisor.current
        assert generation is not None and generation.config.timeouts.drain_s == 7.0
        assert generation.target == (4 if order[-1] == 4 else 1), "whoever came last says how many"


def never(*_: object, **__: object) -> bool:
    return False


def drain_all_surplus(fleet: Supervision[Any, Any], mono_s: float) -> list[Any]:
    generation = fleet.current
    return [worker for worker in generation.serving() if worker.slot >= generation.target] if generation else []


def forget_to_bury(
    fleet: Supervision[Any, Any], generation: Crew[Any], worker: Member, mono_s: float, **_: Any
) -> float:
    generation.died += 1
    return 0.0


def begin_always(plan: Rollover, facts: Any) -> Step:
    if not plan.is_requested:
        return Step.WAIT
    plan.is_requested = False
    plan._enter(Phase.PREPARING, facts.mono_s + PREPARE_TIMEOUT_S)
    return Step.PREPARE


def enter_without_deadline(plan: Rollover, phase: Phase, deadline_s: float) -> None:
    plan.phase = phase
    plan._deadline_s = float("inf")


def note_ready_beside(fleet: Supervision[Any, Any], generation: Crew[Any], worker: Member, mono_s: float) -> list[Any]:
    worker.ready_s = mono_s
    if worker.state is WorkerState.STARTING:
        worker.become(WorkerState.READY)
    return []


def kill_nobody(fleet: Supervision[Any, Any], mono_s: float) -> list[Any]:
    return []


MUTANTS = [
    (Supervision, "surplus", drain_all_surplus, "the last worker that served"),
    (Rollover, "_begin", begin_always, "generations pile up"),
    (Rollover, "_enter", enter_without_deadline, "a rollover does not end"),
    (Supervision, "note_ready", note_ready_beside, "two workers of one generation"),
    (Supervision, "note_dead", forget_to_bury, "a process is forgotten, or known that is gone"),
    (Supervision, "stop", lambda *_: [], "every fork is reaped exactly once"),
    (Member, "silent_s", lambda worker, mono_s: mono_s - worker.forked_s, "was killed for nothing"),
    (Supervision, "loans", lambda *_: [], "a queue is served by nobody"),
    (supervision, "STALE_S", 4.0, "a queue is served by nobody"),
    (Crew, "free_row", lambda generation, slot: min(slot, generation.rows - 1), "a row is used again"),
    (Supervision, "overdue", kill_nobody, "it does not settle"),
    (Probation, "is_lost", never, "it does not settle"),
    (Crew, "vacant_slots", lambda *_: [], "it does not settle"),
    (Supervision, "bury", never, "generation"),
]


@pytest.mark.parametrize(("owner", "name", "mutation", "complaint"), MUTANTS)
def test_what_must_hold_is_seen_to_fail_on_a_mutant(owner: Any, name: str, mutation: Any, complaint: str) -> None:
    with patched([(owner, name, mutation)]), pytest.raises(AssertionError, match=complaint):
        for seed in range(60):
            run_course(seed)
