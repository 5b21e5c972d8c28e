"""The binary upgrade's two state machines, without processes: each by itself, then both in a model of two masters."""

from __future__ import annotations

import dataclasses
import random

import pytest

from minato.decide.upgrade import (
    END_GRACE_S,
    HAND_OVER_TIMEOUT_S,
    LAST_WORDS_S,
    Facts,
    Phase,
    Reason,
    Said,
    Step,
    Takeover,
    TakeoverFacts,
    TakeoverPhase,
    TakeoverStep,
    Upgrade,
)

TIMEOUT_S = 20.0
DRAIN_S = 5.0
ALIVE = Facts(0.0, can_begin=True, is_alive=True, is_linked=True, timeout_s=TIMEOUT_S, drain_s=DRAIN_S)


def facts(mono_s: float, **changes: object) -> Facts:
    return dataclasses.replace(ALIVE, mono_s=mono_s, **changes)  # type: ignore[arg-type]


def advance_to(phase: Phase) -> Upgrade:
    """Return an upgrade, begun at second 0, that is in that phase."""
    plan = Upgrade()
    plan.request()
    course = (facts(0.0), facts(0.0, said=Said.HELLO), facts(0.0, said=Said.READY, accepting=2), facts(0.0))
    for seen in course:
        if plan.phase is phase:
            break
        plan.next_step(seen)
    assert plan.phase is phase
    return plan


def test_nothing_happens_unasked() -> None:
    assert Upgrade().next_step(ALIVE) is Step.WAIT


def test_steps_of_an_upgrade_come_in_order() -> None:
    plan = Upgrade()
    assert plan.request()
    assert plan.next_step(facts(0.0)) is Step.START
    assert plan.next_step(facts(0.1)) is Step.WAIT
    assert plan.next_step(facts(0.2, said=Said.HELLO)) is Step.SEND_STATE
    assert plan.next_step(facts(0.3, said=Said.HELLO)) is Step.WAIT
    assert plan.next_step(facts(0.4, said=Said.READY, accepting=2)) is Step.RETIRE
    assert plan.next_step(facts(0.5, said=Said.READY, accepting=1)) is Step.WAIT
    assert plan.next_step(facts(0.6, said=Said.READY)) is Step.SETTLE
    assert plan.next_step(facts(0.7, is_alive=False, is_linked=False)) is Step.WAIT
    assert plan.phase is Phase.OVER


def test_it_waits_until_it_can_begin() -> None:
    plan = Upgrade()
    plan.request()
    assert plan.next_step(facts(0.0, can_begin=False)) is Step.WAIT
    assert plan.next_step(facts(1.0)) is Step.START


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.BOOTING, Phase.HANDING_OVER, Phase.OVER])
def test_a_second_one_is_refused(phase: Phase) -> None:
    assert not advance_to(phase).request()


def test_a_second_one_is_refused_before_the_first_begins_and_while_its_master_ends() -> None:
    plan = Upgrade()
    assert plan.request()
    assert not plan.request()
    plan = advance_to(Phase.BOOTING)
    plan.next_step(facts(TIMEOUT_S))
    assert not plan.request()
    assert plan.next_step(facts(TIMEOUT_S, is_alive=False)) is Step.FORGET
    assert plan.request()


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.BOOTING])
@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (facts(1.0, is_alive=False), Reason.DIED),
        (facts(1.0, is_alive=False, is_linked=False, said=Said.READY), Reason.DIED),
        (facts(1.0, is_foreign=True, said=Said.HELLO), Reason.FOREIGN),
        (facts(TIMEOUT_S), Reason.TIMEOUT),
    ],
)
def test_a_new_master_that_is_not_ready_is_given_up(phase: Phase, seen: Facts, reason: Reason) -> None:
    plan = advance_to(phase)
    assert plan.next_step(seen) is Step.GIVE_UP
    assert plan.reason is reason
    assert plan.phase is (Phase.ENDING if seen.is_alive else Phase.IDLE)


def test_one_that_closes_its_link_has_a_moment_to_end_so_that_its_status_is_known() -> None:
    plan = advance_to(Phase.BOOTING)
    assert plan.next_step(facts(1.0, is_linked=False)) is Step.WAIT
    assert plan.next_step(facts(1.1, is_linked=False, is_alive=False)) is Step.GIVE_UP
    assert plan.reason is Reason.DIED
    plan = advance_to(Phase.BOOTING)
    plan.next_step(facts(1.0, is_linked=False))
    assert plan.next_step(facts(1.0 + LAST_WORDS_S, is_linked=False)) is Step.GIVE_UP
    assert plan.reason is Reason.LEFT


@pytest.mark.parametrize("changes", [{"is_alive": False}, {"is_linked": False}])
def test_one_that_ends_while_the_workers_drain_is_followed_by_the_old_one(changes: dict[str, bool]) -> None:
    plan = advance_to(Phase.HANDING_OVER)
    assert plan.next_step(facts(0.1, said=Said.READY, **changes)) is Step.RESUME
    assert plan.reason is Reason.DIED_READY


def test_a_worker_that_hangs_does_not_hold_up_the_hand_over() -> None:
    plan = advance_to(Phase.HANDING_OVER)
    assert plan.next_step(facts(HAND_OVER_TIMEOUT_S - 0.1, said=Said.READY, accepting=1)) is Step.WAIT
    assert plan.next_step(facts(HAND_OVER_TIMEOUT_S, said=Said.READY, accepting=1)) is Step.SETTLE


def test_what_was_given_up_is_killed_once_if_it_does_not_end() -> None:
    plan = advance_to(Phase.STARTING)
    plan.next_step(facts(TIMEOUT_S))
    assert plan.next_step(facts(TIMEOUT_S + END_GRACE_S - 0.1)) is Step.WAIT
    assert plan.next_step(facts(TIMEOUT_S + END_GRACE_S)) is Step.KILL
    assert plan.next_step(facts(TIMEOUT_S + END_GRACE_S + 1)) is Step.WAIT
    assert plan.next_step(facts(TIMEOUT_S + END_GRACE_S + 2, is_alive=False)) is Step.FORGET


def test_one_that_may_serve_clients_has_the_drain_time_to_end() -> None:
    plan = advance_to(Phase.BOOTING)
    plan.next_step(facts(TIMEOUT_S, said=Said.HELLO))
    assert plan.next_step(facts(TIMEOUT_S + DRAIN_S, said=Said.HELLO)) is Step.WAIT
    assert plan.next_step(facts(TIMEOUT_S + DRAIN_S + END_GRACE_S, said=Said.HELLO)) is Step.KILL


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.BOOTING, Phase.HANDING_OVER])
def test_a_stop_ends_the_new_master_first(phase: Phase) -> None:
    plan = advance_to(phase)
    assert plan.abort(facts(1.0))
    assert (plan.phase, plan.reason) == (Phase.ENDING, Reason.STOPPING)


def test_a_stop_forgets_what_was_asked_for_and_leaves_a_new_master_that_took_over() -> None:
    plan = Upgrade()
    plan.request()
    assert not plan.abort(facts(0.0))
    assert plan.next_step(facts(0.0)) is Step.WAIT
    plan = advance_to(Phase.OVER)
    assert not plan.abort(facts(0.0))
    assert plan.phase is Phase.OVER


def test_new_master_says_ready_and_takes_over_when_it_is_settled() -> None:
    plan = Takeover()
    assert plan.next_step(TakeoverFacts()) is TakeoverStep.WAIT
    assert plan.next_step(TakeoverFacts(is_ready=True)) is TakeoverStep.SAY_READY
    assert plan.next_step(TakeoverFacts(is_ready=True)) is TakeoverStep.WAIT
    assert plan.next_step(TakeoverFacts(is_ready=True, is_settled=True)) is TakeoverStep.TAKE_OVER
    assert plan.next_step(TakeoverFacts(is_ready=True, is_linked=False)) is TakeoverStep.WAIT


def test_new_master_takes_over_from_an_old_one_that_died() -> None:
    plan = Takeover()
    assert plan.next_step(TakeoverFacts(is_linked=False)) is TakeoverStep.WAIT
    assert plan.next_step(TakeoverFacts(is_ready=True, is_linked=False)) is TakeoverStep.TAKE_OVER
    plan = Takeover()
    plan.next_step(TakeoverFacts(is_ready=True))
    assert plan.next_step(TakeoverFacts(is_ready=True, is_linked=False)) is TakeoverStep.TAKE_OVER


def test_new_master_that_was_given_up_ends_whatever_follows() -> None:
    plan = Takeover()
    assert plan.next_step(TakeoverFacts(is_ready=True, is_linked=False, is_given_up=True)) is TakeoverStep.END
    assert plan.next_step(TakeoverFacts(is_ready=True, is_linked=False)) is TakeoverStep.WAIT
    assert plan.phase is TakeoverPhase.REFUSED


class Old:
    """The old master: two workers, its state machine, and what the driver does with the steps."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.plan = Upgrade()
        self.is_alive = True
        self.is_stopping = False
        self.accepting = 2
        self.retired_s = 0.0
        self.inbox: list[str] = []
        self.said = Said.NOTHING
        self.is_linked = False

    def look(self) -> None:
        """One turn of the main loop."""
        world, new = self.world, self.world.new
        while self.inbox:
            message = self.inbox.pop(0)
            if message == "closed":
                self.is_linked = False
            else:
                self.said = Said[message]
        if new is not None and not new.is_alive and not new.is_reaped:
            new.is_reaped = True
            world.reaped += 1
            self.is_linked = False
        if self.is_stopping and self.plan.is_under_way and self.plan.abort(self.facts()):
            self.end_new()
        while (step := self.plan.next_step(self.facts())) is not Step.WAIT:
            self.take(step)

    def facts(self) -> Facts:
        new = self.world.new
        return Facts(
            self.world.now_s,
            can_begin=not self.is_stopping,
            is_alive=new is not None and not new.is_reaped,
            is_linked=self.is_linked,
            said=self.said,
            accepting=self.accepting,
            timeout_s=TIMEOUT_S,
            drain_s=DRAIN_S,
        )

    def take(self, step: Step) -> None:
        world = self.world
        if step is Step.START:
            world.forked += 1
            world.new = New(world)
            self.said, self.is_linked, self.inbox = Said.NOTHING, True, []
        elif step is Step.SEND_STATE:
            self.tell("state")
        elif step is Step.RETIRE:
            world.is_old_draining = True
            self.retired_s = world.now_s
        elif step is Step.SETTLE:
            world.settled += 1
            # A worker that still accepts is one that hangs, which it may for so long.
            assert not self.accepting or world.now_s - self.retired_s > HAND_OVER_TIMEOUT_S - 0.001
            self.tell("settled")
        elif step is Step.RESUME:
            world.is_old_draining = False
            self.accepting = 2  # new workers; the kernel kept the queues meanwhile
            self.end_new()
        elif step is Step.GIVE_UP:
            self.end_new()
        elif step is Step.KILL and world.new is not None:
            world.new.die()

    def end_new(self) -> None:
        new = self.world.new
        self.tell("given up")
        if new is not None and new.is_alive:
            new.is_told_to_end = True

    def tell(self, message: str) -> None:
        new = self.world.new
        if new is not None and new.is_alive and self.is_linked:
            new.inbox.append(message)


class New:
    """The new master: hello, state, two workers, ready."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.plan = Takeover()
        self.is_alive = True
        self.is_reaped = False
        self.is_told_to_end = False
        self.is_hung = False
        self.inbox: list[str] = []
        self.heard: set[str] = set()
        self.is_greeted = False
        self.booted = 0

    @property
    def accepting(self) -> int:
        return self.booted if self.is_alive else 0

    def look(self) -> None:
        if not self.is_alive or self.is_hung:
            return
        world = self.world
        self.heard.update(self.inbox)
        self.inbox.clear()
        if not self.is_greeted:
            self.is_greeted = True
            self.say("HELLO")
        if not world.old.is_alive and "state" not in self.heard:
            self.die()  # it has nothing to serve with
            return
        step = self.plan.next_step(
            TakeoverFacts(
                is_ready=self.booted == 2,
                is_linked=world.old.is_alive,
                is_settled="settled" in self.heard,
                is_given_up="given up" in self.heard,
            )
        )
        if step is TakeoverStep.SAY_READY:
            self.say("READY")
        elif step is TakeoverStep.TAKE_OVER:
            world.took_over += 1
        if step is TakeoverStep.END or self.is_told_to_end:
            self.die()

    def boot_worker(self) -> None:
        if self.is_alive and not self.is_hung and "state" in self.heard and self.booted < 2:
            self.booted += 1

    def die(self) -> None:
        if self.is_alive:
            self.is_alive = False
            self.world.old.inbox.append("closed")

    def say(self, message: str) -> None:
        self.world.old.inbox.append(message)


class World:
    """Two masters, a clock, and everything that may happen in any order."""

    def __init__(self, seed: int, *, deadly: bool) -> None:
        self.rng = random.Random(seed)
        self.deadly = deadly
        self.now_s = 0.0
        self.forked = self.reaped = self.settled = self.took_over = 0
        self.is_old_draining = False
        self.killed_in_hand_over = False
        self.new: New | None = None
        self.old = Old(self)

    def step(self) -> None:
        events = [self.pass_time, self.look_old, self.look_old, self.look_new, self.look_new, self.boot, self.drain_one]
        if self.deadly:
            events += [self.upgrade, self.hang_new, self.kill_new, self.stop_old]
        self.rng.choice(events)()
        self.check()

    def pass_time(self) -> None:
        self.now_s += self.rng.choice([0.01, 0.1, 1.0]) if self.deadly else 0.01

    def look_old(self) -> None:
        if self.old.is_alive:
            self.old.look()

    def look_new(self) -> None:
        if self.new is not None:
            self.new.look()

    def boot(self) -> None:
        if self.new is not None:
            self.new.boot_worker()

    def drain_one(self) -> None:
        if (self.is_old_draining or self.old.is_stopping) and self.old.accepting:
            self.old.accepting -= 1

    def upgrade(self) -> None:
        if self.old.is_alive and not self.old.is_stopping:
            self.old.plan.request()

    def hang_new(self) -> None:
        if self.new is not None and self.rng.random() < 0.1:
            self.new.is_hung = True

    def kill_new(self) -> None:
        if self.new is not None and self.rng.random() < 0.1 and not self.settled:
            self.killed_in_hand_over |= self.old.plan.phase is Phase.HANDING_OVER and self.new.is_alive
            self.new.die()

    def stop_old(self) -> None:
        if self.rng.random() < 0.01:
            self.old.is_stopping = True

    def check(self) -> None:
        """What holds at every moment."""
        new = self.new
        if self.took_over:
            assert not self.old.is_alive or self.old.plan.phase is Phase.OVER
        if self.old.plan.phase is not Phase.OVER and self.old.is_alive and not self.old.is_stopping:
            # A killed new master may leave a gap of one look of the old one; the queues keep what comes in it.
            gap = self.old.plan.phase is Phase.HANDING_OVER and new is not None and not new.is_alive
            assert self.old.accepting or (new is not None and new.accepting) or gap
        assert self.took_over <= 1 and self.settled <= 1
        assert self.reaped <= self.forked <= self.reaped + 1


@pytest.mark.parametrize("block", range(10))
def test_random_events_never_leave_two_masters_or_none(block: int) -> None:
    """Thousands of orders of events, the new master hanging, dying, the old one stopping."""
    settled = given_up = resumed = 0
    for seed in range(block * 200, block * 200 + 200):
        world = World(seed, deadly=True)
        world.old.plan.request()
        for _ in range(300):
            world.step()
        # Whatever happened: left alone, everything comes to an end.
        for _ in range(400):
            world.now_s += 0.1
            world.boot()
            world.look_new()
            world.look_old()
            world.drain_one()
            world.check()
        phase = world.old.plan.phase
        assert phase in (Phase.IDLE, Phase.OVER), (seed, world.old.plan)
        if phase is Phase.IDLE:
            assert world.reaped == world.forked, seed
            assert world.old.is_stopping or world.old.accepting == 2, seed
        settled += phase is Phase.OVER
        given_up += world.reaped > 0
        resumed += world.killed_in_hand_over
    assert settled and given_up and resumed  # else the events would be too tame to show anything


def test_left_alone_every_upgrade_settles() -> None:
    for seed in range(300):
        world = World(seed, deadly=False)
        world.old.plan.request()
        for _ in range(400):
            world.step()
            if world.took_over:
                break
        assert world.took_over == world.settled == 1, seed
        assert world.old.accepting == 0, seed


def test_old_master_killed_at_any_moment_leaves_one_master_or_none_that_waits() -> None:
    """The new one takes over if it has the sockets, and ends if it has not."""
    took_over = ended = 0
    for seed in range(1000):
        world = World(seed, deadly=False)
        world.old.plan.request()
        for _ in range(world.rng.randrange(60)):
            world.step()
        world.old.is_alive = False
        world.old.accepting = 0  # its workers see the link closed and drain
        for _ in range(50):
            world.boot()
            world.look_new()
        if world.new is None:
            continue
        assert world.new.is_alive is (world.new.plan.phase is TakeoverPhase.SERVING), seed
        took_over += world.new.is_alive
        ended += not world.new.is_alive
    assert took_over and ended


def test_new_master_that_cannot_serve_is_given_up_as_soon_as_it_says_so() -> None:
    plan = advance_to(Phase.BOOTING)
    assert plan.next_step(facts(1.0, said=Said.HELLO, is_unfit=True)) is Step.GIVE_UP
    assert (plan.reason, plan.phase) == (Reason.UNFIT, Phase.ENDING)


def test_upgrade_waits_while_as_many_generations_drain_as_may() -> None:
    plan = Upgrade()
    plan.request()
    assert plan.next_step(facts(0.0, draining=8)) is Step.WAIT
    assert plan.is_requested
    assert plan.next_step(facts(1.0, draining=7)) is Step.START
