"""Every board in use at a time: health goes to all of them, refusals are summed over all of them."""

from __future__ import annotations

from collections import Counter as Tally

from minato.shared.board import Board


class Boards:
    """The boards of the generations that have workers, by which the health checker publishes and hears.

    The health thread calls ``publish`` and ``refused_counts`` while it holds its fork lock; the master holds that lock
    while it adds, drops or zeroes. So no board goes away under the thread.
    """

    def __init__(self) -> None:
        self._columns: list[tuple[Board, dict[str, int]]] = []
        self._retired: Tally[str] = Tally()
        # Of each column, the refusals that are not of the upstream that has it now.
        self._before: dict[Board, list[int]] = {}

    def in_use(self) -> list[Board]:
        """Return the boards, the oldest first."""
        return [board for board, _ in self._columns]

    def add(self, board: Board) -> None:
        """Publish to this board, too; it begins with what the newest of the others says."""
        if self._columns:
            board.copy_health_from(self._columns[-1][0])
        self._columns.append((board, _columns_of(board)))
        self._before[board] = [0] * len(board.upstream_keys)

    def set_key(self, board: Board, column: int, key: str) -> None:
        """Give a column of a board to an upstream, which begins with what the newest other board says; ``""``: spare.

        So does one that comes back to a column that is still its own. The refusals of the upstream that had it before
        stay counted as long as it has a column anywhere.
        """
        before = board.upstream_keys[column]
        columns = next(columns for known, columns in self._columns if known is board)
        if key != before:
            self._hand_over(board, columns, column, key)
        board.set_health(column, False)
        for other, others in reversed(self._columns):
            if other is not board and key in others:
                board.set_health(column, other.is_healthy(others[key]))
                break

    def _hand_over(self, board: Board, columns: dict[str, int], column: int, key: str) -> None:
        before = board.upstream_keys[column]
        refused = board.refused(column)
        board.set_key(column, key)
        if before:
            self._retired[before] += refused - self._before[board][column]
            del columns[before]
            if not any(before in others for _, others in self._columns):
                del self._retired[before]
        self._before[board][column] = refused
        if key:
            columns[key] = column

    def drop(self, board: Board) -> None:
        """Publish to this board no more, and remove it; the refusals that it counted stay counted."""
        for row in range(board.slots):
            self.zero_row(board, row)
        self._columns = [entry for entry in self._columns if entry[0] is not board]
        for key, column in _columns_of(board).items():
            self._retired[key] -= self._before[board][column]
        del self._before[board]
        board.close()
        board.unlink()

    def zero_row(self, board: Board, row: int) -> None:
        """Forget a dead worker's row, but not the refusals in it: the sums never fall."""
        before = [board.refused(index) for index in range(len(board.upstream_keys))]
        board.zero_row(row)
        for key, index in _columns_of(board).items():
            if before[index] != (after := board.refused(index)):
                self._retired[key] += before[index] - after

    def publish(self, key: str, up: bool) -> None:
        """Say on every board that knows the upstream whether it may get traffic."""
        for board, columns in self._columns:
            if (index := columns.get(key)) is not None:
                board.set_health(index, up)

    def refused_counts(self) -> dict[str, int]:
        """Return how many connections each upstream refused, ever, by key."""
        counts = dict(self._retired)
        for board, columns in self._columns:
            for key, index in columns.items():
                counts[key] = counts.get(key, 0) + board.refused(index) - self._before[board][index]
        return counts

    def forget(self, kept: Board) -> None:
        """In a new worker: unmap every board but its own."""
        for board, _ in self._columns:
            if board is not kept:
                board.close()
        self._columns.clear()


def _columns_of(board: Board) -> dict[str, int]:
    return {key: column for column, key in enumerate(board.upstream_keys) if key}
