"""Health on several boards at once, refusals summed over all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from minato.control.boards import Boards
from minato.decide.outliers import Outcomes
from minato.decide.standing import Standing
from minato.shared.board import Board, Counter

_serials = itertools.count(9000)


@pytest.fixture
def boards() -> Iterator[Boards]:
    made = Boards()
    yield made
    for board in list(made.in_use()):
        made.drop(board)


def make_board(*keys: str) -> Board:
    return Board.create(slots=2, upstream_keys=keys, serial=next(_serials))


def refusals(boards: Boards) -> dict[str, int]:
    return {key: count.refused for key, count in boards.outcomes().items()}


def test_health_goes_to_every_board_that_knows_the_upstream(boards: Boards) -> None:
    old, new = make_board("a", "b"), make_board("b", "c")
    boards.add(old)
    boards.add(new)
    for key in ("a", "b", "c", "nobody's"):
        boards.publish(key, Standing.UP, 0)
    assert (list(old.health), list(new.health)) == ([1, 1], [1, 1])
    boards.publish("b", Standing.DOWN, 0)
    assert (list(old.health), list(new.health)) == ([1, 0], [0, 1])


def test_new_board_begins_with_the_health_of_the_one_before(boards: Boards) -> None:
    boards.add(make_board("a", "b"))
    boards.publish("b", Standing.UP, 0)
    new = make_board("b", "c")
    boards.add(new)
    assert list(new.health) == [1, 0]


def test_refusals_never_fall_when_rows_and_boards_go(boards: Boards) -> None:
    old, new = make_board("a"), make_board("x", "a")
    boards.add(old)
    boards.add(new)
    old.row(0).count_refused(0)
    old.row(1).count_refused(0)
    new.row(1).count_refused(1)
    assert refusals(boards) == {"a": 3, "x": 0}
    boards.zero_row(old, 0)
    assert refusals(boards)["a"] == 3
    boards.drop(old)
    assert refusals(boards)["a"] == 3


def test_dropped_board_is_published_to_no_more_and_leaves_no_segment(boards: Boards) -> None:
    board = make_board("a")
    boards.add(board)
    boards.drop(board)
    boards.publish("a", Standing.UP, 0)
    assert len(boards.in_use()) == 0


def test_column_that_goes_to_another_upstream_brings_it_no_refusals(boards: Boards) -> None:
    board = Board.create(slots=2, upstream_keys=["a"], serial=next(_serials), spare=1, key_bytes=8)
    boards.add(board)
    board.row(0).count_refused(0)
    boards.set_key(board, 0, "b")
    assert refusals(boards) == {"b": 0}
    board.row(1).count_refused(0)
    assert refusals(boards) == {"b": 1}
    boards.zero_row(board, 0)
    boards.zero_row(board, 1)
    assert refusals(boards) == {"b": 1}
    boards.drop(board)
    assert refusals(boards) == {"b": 1}


def test_refusals_of_an_upstream_that_has_another_column_stay_counted(boards: Boards) -> None:
    old = Board.create(slots=1, upstream_keys=["a"], serial=next(_serials), key_bytes=8)
    new = make_board("a")
    boards.add(old)
    boards.add(new)
    old.row(0).count_refused(0)
    boards.set_key(old, 0, "b")
    assert refusals(boards) == {"a": 1, "b": 0}


def test_upstream_begins_in_a_new_column_as_other_boards_have_it(boards: Boards) -> None:
    old, new = (
        make_board("a", "b"),
        Board.create(slots=1, upstream_keys=["a"], serial=next(_serials), spare=2, key_bytes=8),
    )
    boards.add(old)
    boards.add(new)
    boards.publish("b", Standing.UP, 0)
    boards.set_key(new, 1, "b")
    boards.set_key(new, 2, "c")
    assert list(new.health) == [0, 1, 0]
    boards.publish("c", Standing.UP, 0)
    assert list(new.health) == [0, 1, 1]


def test_spare_column_is_nobodys(boards: Boards) -> None:
    board = Board.create(slots=1, upstream_keys=["a"], serial=next(_serials), spare=1, key_bytes=8)
    boards.add(board)
    boards.publish("", Standing.UP, 0)
    boards.publish("a", Standing.UP, 0)
    assert list(board.health) == [1, 0]
    boards.set_key(board, 0, "")
    assert list(board.health) == [0, 0]
    assert refusals(boards) == {}


def test_nothing_of_a_dead_workers_row_is_left_for_its_successor(boards: Boards) -> None:
    """It died between two writes: exchanges begun and not ended, levels that nobody lowers any more."""
    board = make_board("a", "b")
    boards.add(board)
    dead, alive = board.row(0), board.row(1)
    for row in (dead, alive):
        row.beat(5)
        row.pid, row.generation = 7, 3
        row.connection_begun()
        row.request_begun()
        row.upstream_begin(1)
        row.put(Counter.CACHE_BYTES, 1_000)
    dead.upstream_begin(0)
    boards.zero_row(board, 0)
    assert (board.active(0), board.active(1)) == (0, 1), "what LeastConnections sums"
    assert [board.total(counter) for counter in (Counter.CACHE_BYTES, Counter.REQUESTS_ACTIVE)] == [1_000, 1]
    assert (dead.heartbeat_ms, dead.pid, dead.generation) == (0, 0, 0)
    assert all(dead.get(counter) == 0 for counter in Counter)
    dead.upstream_begin(0)  # its successor's, from the first exchange on
    dead.upstream_end(0)
    assert board.active(0) == 0


def test_standing_and_recovery_go_along_to_another_board_and_column(boards: Boards) -> None:
    old = make_board("a", "b")
    boards.add(old)
    boards.publish("a", Standing.EJECTED, 0)
    boards.publish("b", Standing.UP, 5_000)
    new = Board.create(slots=1, upstream_keys=["a"], serial=next(_serials), spare=1, key_bytes=8)
    boards.add(new)
    boards.set_key(new, 1, "b")
    assert new.standing.tolist() == [Standing.EJECTED, Standing.UP]
    assert (new.health.tolist(), new.recovered_ms.tolist()) == ([0, 1], [0, 5_000])


def test_nothing_that_was_counted_of_one_upstream_is_of_the_next_in_its_column(boards: Boards) -> None:
    board = Board.create(slots=1, upstream_keys=["a"], serial=next(_serials), spare=0, key_bytes=8)
    boards.add(board)
    for count in (board.row(0).count_failed, board.row(0).count_answered, board.row(0).count_tripped):
        count(0)
    boards.set_key(board, 0, "b")
    board.row(0).count_failed(0)
    assert boards.outcomes()["b"] == Outcomes(failed=1)
    boards.zero_row(board, 0)
    assert boards.outcomes()["b"] == Outcomes(failed=1)
