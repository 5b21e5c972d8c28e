"""Which slots want a worker, and which row of the board a worker gets."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from minato.config.model import Config
from minato.control.channel import Channel
from minato.control.generation import Generation, WorkerHandle, WorkerState, make_generation
from minato.control.places import Places
from minato.shared.board import Board

_pids = itertools.count(1)


@pytest.fixture
def generation() -> Iterator[Generation]:
    board = Board.create(slots=4, upstream_keys=["u"], serial=9500)
    yield make_generation(1, Config("c.yaml", ()), 2, board, Places(Config("c.yaml", ()), lambda host: ()))
    board.close()
    board.unlink()


def add(generation: Generation, slot: int, state: WorkerState = WorkerState.READY) -> WorkerHandle:
    ours, theirs = Channel.pair()
    ours.close()
    theirs.close()
    row = generation.free_row(slot)
    assert row is not None
    worker = WorkerHandle(pid=next(_pids), slot=slot, row=row, channel=ours, forked_s=0.0, state=state)
    generation.workers[worker.pid] = worker
    return worker


def test_row_is_the_slots_own_if_it_can_be(generation: Generation) -> None:
    assert [add(generation, slot).row for slot in range(2)] == [0, 1]


def test_slot_taken_again_while_its_old_worker_drains_gets_a_row_of_its_own(generation: Generation) -> None:
    old = add(generation, 1, WorkerState.DRAINING)
    new = add(generation, 1)
    assert (old.row, new.row) == (1, 2)


def test_no_row_is_shared_and_none_is_left_when_all_are_taken(generation: Generation) -> None:
    rows = [add(generation, 0, WorkerState.DRAINING).row for _ in range(4)]
    assert sorted(rows) == [0, 1, 2, 3]
    assert generation.free_row(0) is None


@pytest.mark.parametrize("state", list(WorkerState))
def test_slot_wants_a_worker_unless_one_serves_or_starts(generation: Generation, state: WorkerState) -> None:
    add(generation, 0)
    add(generation, 1, state)
    is_served = state in (WorkerState.STARTING, WorkerState.READY)
    assert generation.vacant_slots(0.0) == ([] if is_served else [1])


def test_slot_is_not_vacant_before_its_back_off_is_over(generation: Generation) -> None:
    generation.respawn(0).note_boot_failure(10.0)
    assert generation.vacant_slots(10.4) == [1]
    assert generation.vacant_slots(10.5) == [0, 1]
