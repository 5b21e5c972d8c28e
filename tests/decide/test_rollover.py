"""The rollover's state machine, without processes."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.decide.rollover import (
    BOOT_TIMEOUT_S,
    HAND_OVER_TIMEOUT_S,
    MAX_DRAINING_GENERATIONS,
    PREPARE_TIMEOUT_S,
    Facts,
    Phase,
    Preparation,
    Reason,
    Rollover,
    Step,
)

PROBE_S = 7.0
DONE = Preparation.DONE


def drive(plan: Rollover, facts: Facts) -> Step:
    return plan.next_step(facts, PROBE_S)


def advance_to(phase: Phase) -> Rollover:
    """Return a rollover, begun at second 0, that is in that phase."""
    plan = Rollover()
    plan.request()
    course = (Facts(0.0), Facts(0.0, preparation=DONE), Facts(0.0, is_probed=True), Facts(0.0, accepting=1))
    for facts in course:
        if plan.phase is phase:
            break
        drive(plan, facts)
    assert plan.phase is phase
    return plan


def test_nothing_happens_unasked() -> None:
    assert drive(Rollover(), Facts(0.0)) is Step.WAIT


def test_steps_of_a_rollover_come_in_order() -> None:
    plan = Rollover()
    assert plan.request()
    assert drive(plan, Facts(0.0)) is Step.PREPARE
    assert drive(plan, Facts(0.1)) is Step.WAIT
    assert drive(plan, Facts(0.2, preparation=DONE)) is Step.BIND
    assert drive(plan, Facts(0.3)) is Step.WAIT
    assert drive(plan, Facts(0.4, is_probed=True)) is Step.FORK
    assert drive(plan, Facts(0.5, wanted=2, ready=1)) is Step.WAIT
    assert drive(plan, Facts(0.6, wanted=2, ready=2, accepting=2)) is Step.SWITCH
    assert drive(plan, Facts(0.7, accepting=1)) is Step.WAIT
    assert drive(plan, Facts(0.8)) is Step.FINISH
    assert drive(plan, Facts(0.9)) is Step.WAIT
    assert plan.phase is Phase.IDLE


def test_config_that_cannot_be_used_is_given_up() -> None:
    plan = advance_to(Phase.PREPARING)
    assert drive(plan, Facts(1.0, preparation=Preparation.FAILED)) is Step.ABANDON
    assert plan.reason is Reason.UNUSABLE
    assert plan.phase is Phase.IDLE


def test_step_that_fails_is_given_up() -> None:
    plan = advance_to(Phase.PROBING)
    plan.fail()
    assert (plan.phase, plan.reason) == (Phase.IDLE, Reason.UNUSABLE)


@pytest.mark.parametrize(
    ("phase", "timeout_s", "step", "reason"),
    [
        (Phase.PREPARING, PREPARE_TIMEOUT_S, Step.ABANDON, Reason.PREPARE_TIMEOUT),
        (Phase.PROBING, PROBE_S, Step.FORK, Reason.NONE),
        (Phase.BOOTING, BOOT_TIMEOUT_S, Step.ABANDON, Reason.BOOT_TIMEOUT),
        (Phase.HANDING_OVER, HAND_OVER_TIMEOUT_S, Step.FINISH, Reason.NONE),
    ],
)
def test_every_phase_ends_at_its_deadline_and_not_before(
    phase: Phase, timeout_s: float, step: Step, reason: Reason
) -> None:
    plan = advance_to(phase)
    assert drive(plan, Facts(timeout_s - 0.001, wanted=1, accepting=1)) is Step.WAIT
    assert drive(plan, Facts(timeout_s, wanted=1, accepting=1)) is step
    assert plan.reason is reason


def test_one_dead_worker_gives_the_generation_up_even_when_the_rest_is_ready() -> None:
    plan = advance_to(Phase.BOOTING)
    assert drive(plan, Facts(1.0, wanted=2, ready=2, died=1)) is Step.ABANDON
    assert plan.reason is Reason.WORKER_DIED


@pytest.mark.parametrize("facts", [Facts(1.0, wanted=2, ready=1, died=1), Facts(BOOT_TIMEOUT_S, wanted=2, ready=1)])
def test_some_of_the_new_workers_are_better_than_none_of_the_old(facts: Facts) -> None:
    assert drive(advance_to(Phase.BOOTING), facts) is Step.ABANDON
    assert drive(advance_to(Phase.BOOTING), dataclasses.replace(facts, is_stranded=True)) is Step.SWITCH
    none_at_all = dataclasses.replace(facts, is_stranded=True, ready=0)
    assert drive(advance_to(Phase.BOOTING), none_at_all) is Step.ABANDON


def test_requests_during_a_rollover_make_one_more() -> None:
    plan = advance_to(Phase.BOOTING)
    assert not plan.request()
    assert not plan.request()
    assert drive(plan, Facts(1.0, wanted=1, ready=1)) is Step.SWITCH
    assert drive(plan, Facts(1.0)) is Step.FINISH
    assert drive(plan, Facts(1.0)) is Step.PREPARE
    assert not plan.is_requested


def test_request_is_remembered_when_the_present_rollover_is_given_up() -> None:
    plan = advance_to(Phase.BOOTING)
    plan.request()
    assert drive(plan, Facts(1.0, wanted=1, died=1)) is Step.ABANDON
    assert drive(plan, Facts(1.0)) is Step.PREPARE
    assert plan.reason is Reason.NONE


def test_what_is_to_be_done_first_waits_for_the_present_rollover_alone() -> None:
    plan = advance_to(Phase.HANDING_OVER)
    plan.request()
    assert drive(plan, Facts(0.1, may_begin=False)) is Step.FINISH
    assert drive(plan, Facts(0.2, may_begin=False)) is Step.WAIT
    assert plan.phase is Phase.IDLE
    assert drive(plan, Facts(0.3)) is Step.PREPARE


def test_rollover_waits_while_too_many_generations_drain() -> None:
    plan = Rollover()
    plan.request()
    assert drive(plan, Facts(0.0, draining=MAX_DRAINING_GENERATIONS)) is Step.WAIT
    assert drive(plan, Facts(0.0, draining=MAX_DRAINING_GENERATIONS - 1)) is Step.PREPARE


@pytest.mark.parametrize("phase", list(Phase))
def test_cancelled_rollover_takes_no_further_step(phase: Phase) -> None:
    plan = advance_to(phase) if phase is not Phase.IDLE else Rollover()
    plan.request()
    plan.cancel()
    assert drive(plan, Facts(100.0, preparation=DONE, is_probed=True, wanted=1, ready=1)) is Step.WAIT


FACTS = st.builds(
    Facts,
    mono_s=st.floats(0, 100),
    preparation=st.sampled_from(Preparation),
    is_probed=st.booleans(),
    wanted=st.integers(0, 3),
    ready=st.integers(0, 3),
    died=st.integers(0, 1),
    draining=st.integers(0, MAX_DRAINING_GENERATIONS),
)


@given(st.lists(FACTS, max_size=30))
def test_whatever_happens_workers_are_forked_before_the_switch_and_a_preparation_comes_before_that(
    course: list[Facts],
) -> None:
    plan = Rollover()
    order = [Step.WAIT, Step.PREPARE, Step.BIND, Step.FORK, Step.SWITCH, Step.FINISH]
    before = dict(zip(order[1:], order, strict=False))
    last = Step.WAIT
    for facts in course:
        plan.request()
        step = drive(plan, facts)
        if step is Step.WAIT:
            continue
        if step is not Step.ABANDON:
            assert last is before[step]
        last = step if step not in (Step.FINISH, Step.ABANDON) else Step.WAIT
