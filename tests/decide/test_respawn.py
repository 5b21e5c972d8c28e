"""Back-off of workers that die."""

from __future__ import annotations

from minato.decide.respawn import MAX_BACKOFF_S, TOLERATED_SHORT_LIVES, Respawn


def test_worker_that_served_is_replaced_at_once() -> None:
    respawn = Respawn()
    assert respawn.note_death(60.0, 100.0) == 0.0
    assert respawn.due_s == 100.0


def test_boot_failures_back_off_up_to_a_bound() -> None:
    respawn = Respawn()
    delays = [respawn.note_boot_failure(0.0) for _ in range(9)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_back_off_does_not_overflow() -> None:
    respawn = Respawn()
    assert [respawn.note_boot_failure(0.0) for _ in range(3000)][-1] == MAX_BACKOFF_S


def test_worker_that_got_ready_ends_the_back_off_of_boot_failures() -> None:
    respawn = Respawn()
    for _ in range(5):
        respawn.note_boot_failure(0.0)
    assert respawn.note_death(60.0, 10.0) == 0.0
    assert respawn.note_boot_failure(10.0) == 0.5


def test_short_lives_are_tolerated_a_few_times_then_back_off() -> None:
    respawn = Respawn()
    delays = [respawn.note_death(0.1, 0.0) for _ in range(TOLERATED_SHORT_LIVES + 2)]
    assert delays == [0.0] * TOLERATED_SHORT_LIVES + [0.5, 1.0]


def test_one_long_life_forgives_the_short_ones() -> None:
    respawn = Respawn()
    for _ in range(TOLERATED_SHORT_LIVES + 3):
        respawn.note_death(0.1, 0.0)
    assert respawn.note_death(60.0, 0.0) == 0.0
    assert respawn.note_death(0.1, 0.0) == 0.0
