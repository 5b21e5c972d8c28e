"""Workers without a master: step by step, then in a model of several, and of new masters that come, die and hang."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable

import pytest

from minato.decide.orphanage import Facts, Notice, Orphanage, Phase, Step

ORPHANED_S, UPGRADE_S = 10.0, 60.0
END_S = 200.0
COURSES = 600
GONE = Facts(0.0, is_gone=True, orphaned_s=ORPHANED_S, upgrade_s=UPGRADE_S)


def facts(mono_s: float, **changes: object) -> Facts:
    return dataclasses.replace(GONE, mono_s=mono_s, **changes)  # type: ignore[arg-type]


def orphaned() -> Orphanage:
    plan = Orphanage()
    assert plan.next_step(GONE) is Step.GO_ON
    return plan


def test_nothing_happens_while_the_master_lives() -> None:
    plan = Orphanage()
    for notice in Notice:
        assert plan.next_step(facts(100.0, is_gone=False, notice=notice)) is Step.WAIT
    assert plan.phase is Phase.WARDED


def test_workers_of_a_master_that_never_served_leave_the_field_to_those_before() -> None:
    plan = Orphanage()
    assert plan.next_step(facts(0.0, was_in_office=False)) is Step.YIELD
    assert plan.next_step(facts(100.0, was_in_office=False)) is Step.WAIT


def test_worker_that_nobody_can_take_over_from_is_in_nobodys_way() -> None:
    assert Orphanage().next_step(facts(0.0, can_hand_over=False)) is Step.YIELD


def test_worker_that_notices_late_finds_the_successor_there() -> None:
    assert Orphanage().next_step(facts(0.0, notice=Notice.SUCCEEDED)) is Step.YIELD


def test_successor_is_made_room_for() -> None:
    plan = orphaned()
    assert plan.next_step(facts(5.0, is_claimed=True)) is Step.WAIT
    assert plan.next_step(facts(5.1, is_claimed=True, notice=Notice.SUCCEEDED)) is Step.YIELD
    assert plan.next_step(facts(5.2, notice=Notice.SUCCEEDED)) is Step.WAIT


def test_when_nobody_comes_the_sockets_are_sealed_and_then_closed() -> None:
    plan = orphaned()
    assert plan.next_step(facts(9.9)) is Step.WAIT
    assert plan.next_step(facts(10.0)) is Step.SEAL
    assert plan.next_step(facts(10.1)) is Step.SEAL, "somebody looked just then: once more"
    assert plan.next_step(facts(10.2, notice=Notice.SEALED)) is Step.CLOSE
    assert plan.phase is Phase.LEAVING


def test_new_master_that_fails_gives_the_next_one_as_long() -> None:
    plan = orphaned()
    assert plan.next_step(facts(9.0, is_claimed=True)) is Step.WAIT
    assert plan.next_step(facts(30.0, is_claimed=True)) is Step.WAIT
    assert plan.next_step(facts(31.0)) is Step.WAIT
    assert plan.next_step(facts(40.9)) is Step.WAIT
    assert plan.next_step(facts(41.0)) is Step.SEAL


def test_new_master_that_hangs_is_not_waited_for_for_ever_and_keeps_its_sockets() -> None:
    plan = orphaned()
    assert plan.next_step(facts(1.0, is_claimed=True)) is Step.WAIT
    assert plan.next_step(facts(60.9, is_claimed=True)) is Step.WAIT
    assert plan.next_step(facts(61.0, is_claimed=True)) is Step.YIELD


def test_no_time_at_all() -> None:
    plan = Orphanage()
    assert plan.next_step(facts(0.0, orphaned_s=0.0)) is Step.GO_ON
    assert plan.next_step(facts(0.1, orphaned_s=0.0)) is Step.SEAL


def test_worker_that_was_told_to_end_waits_for_nobody() -> None:
    plan = orphaned()
    plan.leave()
    assert plan.next_step(facts(1.0, notice=Notice.SUCCEEDED)) is Step.WAIT


class NewMaster:
    """One that has taken the sockets."""

    def __init__(self, hangs: bool) -> None:
        self.is_alive = True
        self.hangs = hangs


class Worker:
    def __init__(self) -> None:
        self.plan = Orphanage()
        self.is_alive = True
        self.has_closed = False
        self.seen_s = 0.0  # when it last saw that somebody was about to take over

    @property
    def accepts(self) -> bool:
        return self.is_alive and self.plan.phase is not Phase.LEAVING


class World:
    """The workers of one killed master, and those who want its place; lock and notice are as in control/deed."""

    def __init__(self, seed: int, make_plan: Callable[[], Orphanage] = Orphanage) -> None:
        self.rng = random.Random(seed)
        self.now_s = 0.0
        self.notice = Notice.NONE
        self.workers = [Worker() for _ in range(self.rng.randint(1, 4))]
        for worker in self.workers:
            worker.plan = make_plan()
        self.master: NewMaster | None = None
        self.claimed_s = 0.0
        self.reached: set[str] = set()

    @property
    def is_claimed(self) -> bool:
        return self.master is not None and self.master.is_alive and self.notice is not Notice.SUCCEEDED

    def run(self) -> None:
        while self.now_s < END_S:
            self.now_s += self.rng.choice((0.05, 0.1, 0.5, 3.0))
            self._happen()
            for worker in self.rng.sample(self.workers, len(self.workers)):
                if worker.is_alive and (self.rng.random() < 0.8 or self.now_s > END_S - 5.0):
                    self._look(worker)
                self._check()
        assert self.is_claimed or not any(worker.accepts for worker in self.workers), "somebody is there for ever"

    def _happen(self) -> None:
        event = self.rng.random()
        if event < 0.01 and self.now_s < END_S / 2 and any(worker.accepts for worker in self.workers):
            if not self.is_claimed and self.notice is Notice.NONE:  # what the lock and the notice allow
                self.master = NewMaster(hangs=self.rng.random() < 0.3)
                self.claimed_s = self.now_s
        elif self.master is not None and self.is_claimed and not self.master.hangs:
            if event < 0.05:
                self.notice = Notice.SUCCEEDED
                self.reached.add("succeeded")
            elif event < 0.08:
                self.master.is_alive = False
                self.reached.add("failed")
        if 0.990 < event < 0.994:
            self.rng.choice(self.workers).is_alive = False

    def _look(self, worker: Worker) -> None:
        if self.is_claimed:
            worker.seen_s = self.now_s
        step = worker.plan.next_step(facts(self.now_s, is_claimed=self.is_claimed, notice=self.notice))
        if step is Step.SEAL and not self.is_claimed and self.notice is Notice.NONE:
            assert self.now_s >= worker.seen_s + ORPHANED_S, "sealed too early"
            self.notice = Notice.SEALED
        elif step is Step.CLOSE:
            worker.has_closed = True
            self.reached.add("closed")
        elif step is Step.YIELD and self.notice is not Notice.SUCCEEDED:
            assert self.is_claimed and self.now_s >= self.claimed_s + UPGRADE_S, "left nobody in its place"
            self.reached.add("late")

    def _check(self) -> None:
        has_copies = self.master is not None and self.master.is_alive
        assert not (has_copies and any(worker.has_closed for worker in self.workers)), "closed under a new master"
        if self.notice is Notice.NONE and any(worker.is_alive for worker in self.workers) and not has_copies:
            living = [worker for worker in self.workers if worker.is_alive]
            assert all(worker.accepts for worker in living) or "late" in self.reached, "nobody accepts"


def test_whatever_happens() -> None:
    reached: set[str] = set()
    for seed in range(COURSES):
        world = World(seed)
        world.run()
        reached |= world.reached
    assert reached == {"succeeded", "failed", "closed", "late"}, "the courses go through everything that there is"


class Hasty(Orphanage):
    """Leaves as soon as somebody comes."""

    def next_step(self, facts: Facts) -> Step:
        step = super().next_step(facts)
        if facts.is_claimed and self.phase is Phase.ORPHANED:
            self.leave()
            return Step.YIELD
        return step


class Closing(Orphanage):
    """Closes the sockets where it is only to leave them."""

    def next_step(self, facts: Facts) -> Step:
        step = super().next_step(facts)
        return Step.CLOSE if step is Step.YIELD else step


class Staying(Orphanage):
    """Never leaves."""

    def next_step(self, facts: Facts) -> Step:
        return super().next_step(facts) if self.phase is Phase.WARDED else Step.WAIT


class Impatient(Orphanage):
    """Counts from the beginning, whoever came and failed since."""

    def _note_claim(self, facts: Facts) -> None:
        super()._note_claim(facts)
        self._unclaimed_s = 0.0


@pytest.mark.parametrize("mutant", [Hasty, Closing, Staying, Impatient])
def test_what_is_wrong_would_be_found(mutant: Callable[[], Orphanage]) -> None:
    with pytest.raises(AssertionError):
        for seed in range(COURSES):
            World(seed, mutant).run()
