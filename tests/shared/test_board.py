"""The shared-memory board: one writer per cell, sums over slots, nothing left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from minato.errors import MinatoError
from minato.shared.board import Board, Counter
from minato.shared.layout import CELL_BYTES, LINE_CELLS, Header, Layout

KEYS = ("http://127.0.0.1:9001/health", "http://127.0.0.1:9002/health", "https://[::1]:9003/é")


@pytest.fixture
def board() -> Iterator[Board]:
    board = Board.create(slots=3, upstream_keys=KEYS, serial=900)
    yield board
    board.unlink()
    board.close()


def test_a_new_board_has_no_healthy_upstream_and_all_counts_zero(board: Board) -> None:
    assert board.health.tolist() == [0, 0, 0]
    assert [board.active(upstream) for upstream in range(3)] == [0, 0, 0]
    assert all(board.row(slot).get(counter) == 0 for slot in range(3) for counter in Counter)


def test_health_is_read_in_place_and_not_writable_by_readers(board: Board) -> None:
    health = board.health
    board.set_health(1, True)
    assert health[1] == 1
    assert [board.is_healthy(upstream) for upstream in range(3)] == [False, True, False]
    with pytest.raises(TypeError):
        health[1] = 0
    board.set_health(1, False)
    assert health[1] == 0


def test_health_of_an_upstream_that_is_not_there_is_refused(board: Board) -> None:
    for upstream in (-1, 3):
        with pytest.raises(IndexError):
            board.set_health(upstream, True)


def test_active_and_refused_sum_over_all_slots(board: Board) -> None:
    for slot in range(3):
        board.row(slot).upstream_begin(2)
    board.row(1).upstream_begin(2)
    board.row(2).upstream_end(2)
    board.row(0).count_refused(0)
    board.row(2).count_refused(0)
    assert [board.active(upstream) for upstream in range(3)] == [0, 0, 3]
    assert [board.refused(upstream) for upstream in range(3)] == [2, 0, 0]


def test_every_cell_has_a_place_of_its_own(board: Board) -> None:
    """Write a different number into every cell of every row; read them all back."""
    for slot in range(3):
        row = board.row(slot)
        row.beat(slot * 1000 + 1)
        row.pid = slot * 1000 + 2
        row.generation = slot * 1000 + 3
        for counter in Counter:
            row.add(counter, slot * 1000 + 10 + counter)
        for upstream in range(3):
            for _ in range(slot * 10 + upstream + 1):
                row.upstream_begin(upstream)
            for _ in range(slot * 10 + upstream + 5):
                row.count_refused(upstream)
        board.set_health(slot, slot % 2 == 0)
    for slot in range(3):
        row = board.row(slot)
        assert (row.heartbeat_ms, row.pid, row.generation) == (slot * 1000 + 1, slot * 1000 + 2, slot * 1000 + 3)
        assert [row.get(counter) for counter in Counter] == [slot * 1000 + 10 + counter for counter in Counter]
    assert [board.active(upstream) for upstream in range(3)] == [30 + 3 * (upstream + 1) for upstream in range(3)]
    assert [board.refused(upstream) for upstream in range(3)] == [30 + 3 * (upstream + 5) for upstream in range(3)]
    assert board.health.tolist() == [1, 0, 1]
    assert board.total(Counter.REQUESTS) == 3000 + 3 * (10 + Counter.REQUESTS)


def test_a_level_is_put_not_added(board: Board) -> None:
    board.row(0).put(Counter.CACHE_BYTES, 500)
    board.row(0).put(Counter.CACHE_BYTES, 300)
    assert board.row(0).get(Counter.CACHE_BYTES) == 300


def test_zeroing_a_row_leaves_the_others_and_health_alone(board: Board) -> None:
    board.set_health(0, True)
    for slot in range(3):
        row = board.row(slot)
        row.beat(5)
        row.pid = 7
        row.add(Counter.REQUESTS, slot + 1)
        row.upstream_begin(2)
        row.count_refused(2)
    board.zero_row(1)
    row = board.row(1)
    assert (row.heartbeat_ms, row.pid, row.get(Counter.REQUESTS)) == (0, 0, 0)
    assert (board.active(2), board.refused(2), board.total(Counter.REQUESTS)) == (2, 2, 4)
    assert board.health.tolist() == [1, 0, 0]
    assert board.upstream_keys == KEYS


def test_health_is_copied_by_key_not_by_column(board: Board) -> None:
    board.set_health(0, True)
    board.set_health(2, True)
    other = Board.create(slots=1, upstream_keys=(KEYS[2], "http://new:80/", KEYS[1], KEYS[0]), serial=901)
    other.set_health(2, True)
    other.copy_health_from(board)
    assert other.health.tolist() == [1, 0, 0, 1]
    other.unlink()
    other.close()


@pytest.mark.parametrize("upstreams", [0, 1, 5, 8, 9, 200])
def test_rows_never_share_a_cache_line(upstreams: int) -> None:
    layout = Layout(slots=4, upstreams=upstreams, keys_bytes=11)
    starts = [layout.health_at, *(layout.row_at(slot) for slot in range(4)), layout.keys_at]
    assert all(start % LINE_CELLS == 0 for start in starts)
    assert layout.rows_at >= layout.health_at + upstreams
    assert layout.row_cells >= layout.refused_at + upstreams
    assert layout.size_bytes >= layout.keys_at * CELL_BYTES + 11


def test_a_board_without_upstreams_works() -> None:
    board = Board.create(slots=2, upstream_keys=(), serial=902)
    board.row(1).add(Counter.REQUESTS)
    assert board.total(Counter.REQUESTS) == 1
    board.unlink()
    board.close()


def test_counts_of_forked_workers_are_seen_by_the_master(board: Board) -> None:
    pids = []
    for slot in range(3):
        pid = os.fork()
        if pid == 0:
            row = board.row(slot)
            for _ in range(10_000):
                row.upstream_begin(0)
                row.add(Counter.REQUESTS)
            os._exit(0 if board.is_healthy(1) else 1)
        pids.append(pid)
        board.set_health(1, True)  # before the next fork; the first child may see either
    statuses = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert statuses[1:] == [0, 0]
    assert board.active(0) == 30_000
    assert board.total(Counter.REQUESTS) == 30_000


def test_attached_board_reads_everything_and_writes_nothing(board: Board) -> None:
    board.set_health(2, True)
    board.row(1).pid = 4711
    attached = Board.attach(board.name)
    assert attached.upstream_keys == KEYS
    assert attached.slots == 3
    assert attached.health.tolist() == [0, 0, 1]
    assert attached.row(1).pid == 4711
    with pytest.raises(TypeError):
        attached.row(1).pid = 1
    with pytest.raises(TypeError):
        attached.set_health(0, True)
    attached.unlink()
    attached.close()
    assert os.path.exists(f"/dev/shm/{board.name}")


def test_attaching_to_what_is_no_board_says_so() -> None:
    with pytest.raises(MinatoError, match="cannot open the board minato-0-0-0"):
        Board.attach("minato-0-0-0")
    for content in (b"", b"x" * 7, b"x" * 8192):
        path = f"/dev/shm/test-{os.getpid()}-not-a-board"
        with open(path, "wb") as file:
            file.write(content)
        try:
            with pytest.raises(MinatoError, match="board"):
                Board.attach(os.path.basename(path))
        finally:
            os.unlink(path)


def test_attaching_to_another_version_is_refused(board: Board) -> None:
    board._cells[1] += 1
    with pytest.raises(MinatoError, match="another version"):
        Board.attach(board.name)


def test_unlink_removes_the_name_once_and_the_memory_stays_usable(board: Board) -> None:
    board.unlink()
    assert not os.path.exists(f"/dev/shm/{board.name}")
    board.unlink()
    board.row(0).add(Counter.REQUESTS)
    assert board.total(Counter.REQUESTS) == 1


def test_a_child_does_not_unlink_its_masters_board(board: Board) -> None:
    pid = os.fork()
    if pid == 0:
        board.unlink()
        board.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.path.exists(f"/dev/shm/{board.name}")


def test_close_works_with_rows_and_health_in_other_hands_and_twice() -> None:
    board = Board.create(slots=2, upstream_keys=KEYS, serial=903)
    row, health = board.row(0), board.health
    board.unlink()
    fds_before = len(os.listdir("/proc/self/fd"))
    board.close()
    board.close()
    assert len(os.listdir("/proc/self/fd")) < fds_before
    for use in (lambda: row.add(Counter.REQUESTS), lambda: health[0]):
        with pytest.raises(ValueError, match="released"):
            use()


def test_dropping_a_board_unclosed_is_silent_and_leaks_no_fd() -> None:
    fds_before = len(os.listdir("/proc/self/fd"))
    board = Board.create(slots=2, upstream_keys=KEYS, serial=904)
    board.unlink()
    del board
    assert len(os.listdir("/proc/self/fd")) == fds_before


def test_creating_and_unlinking_starts_no_tracker_process_and_leaves_nothing() -> None:
    script = (
        "import psutil\n"
        "from multiprocessing import resource_tracker, shared_memory\n"
        "from minato.shared.board import Board\n"
        "board = Board.create(slots=2, upstream_keys=['a'], serial=1)\n"
        "reader = Board.attach(board.name)\n"
        "reader.close(); board.unlink(); board.close()\n"
        "assert not psutil.Process().children(), psutil.Process().children()\n"
        "assert shared_memory.resource_tracker is resource_tracker\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("slots", "keys"), [(0, ("a",)), (1, ("a", "a"))])
def test_a_board_that_makes_no_sense_is_refused(slots: int, keys: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="distinct"):
        Board.create(slots=slots, upstream_keys=keys, serial=905)


@pytest.fixture
def spacious() -> Iterator[Board]:
    made = Board.create(slots=1, upstream_keys=["a"], serial=906, spare=2, key_bytes=40)
    yield made
    made.unlink()
    made.close()


def test_spare_columns_have_no_key_until_they_are_given_one(spacious: Board) -> None:
    assert spacious.upstream_keys == ("a", "", "")
    spacious.set_key(2, "http://name.test:80/ [10.0.0.1]")
    spacious.set_key(0, "")
    expected = ("", "", "http://name.test:80/ [10.0.0.1]")
    assert spacious.upstream_keys == expected
    attached = Board.attach(spacious.name)
    assert attached.upstream_keys == expected
    attached.close()


def test_column_that_changes_hands_is_down(spacious: Board) -> None:
    spacious.set_health(0, True)
    spacious.set_key(0, "b")
    assert not spacious.is_healthy(0)


def test_key_too_long_for_its_room_or_there_already_is_refused_and_changes_nothing(spacious: Board) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        spacious.set_key(1, "x" * 500)
    with pytest.raises(ValueError, match="already"):
        spacious.set_key(1, "a")
    assert spacious.upstream_keys == ("a", "", "")


def test_every_spare_column_has_room_for_the_longest_key(spacious: Board) -> None:
    for column in range(3):
        spacious.set_key(column, f"{column}".ljust(40, "x"))


def test_keys_that_are_being_written_are_not_read(spacious: Board) -> None:
    spacious._cells[Header.EDITION] += 1
    with pytest.raises(MinatoError, match="being written"):
        Board.attach(spacious.name)
