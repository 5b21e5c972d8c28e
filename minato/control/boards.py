"""Every board in use at a time: standings go to all of them, what workers count is summed over all of them."""

from __future__ import annotations

from minato.decide.outliers import Outcomes
from minato.decide.standing import Standing
from minato.shared.board import Board

_NOTHING = Outcomes()


class Boards:
    """The boards of the generations that have workers, by which the health checker publishes and hears.

    The health thread calls ``publish`` and ``outcomes`` while it holds its fork lock; the master holds that lock
    while it adds, drops or zeroes. So no board goes away under the thread.
    """

    def __init__(self) -> None:
        self._columns: list[tuple[Board, dict[str, int]]] = []
        self._retired: dict[str, Outcomes] = {}
        # Of each column, what was counted that is not of the upstream that has it now.
        self._before: dict[Board, list[Outcomes]] = {}

    def in_use(self) -> list[Board]:
        """Return the boards, the oldest first."""
        return [board for board, _ in self._columns]

    def add(self, board: Board) -> None:
        """Publish to this board, too; it begins with what the newest of the others says."""
        if self._columns:
            board.copy_health_from(self._columns[-1][0])
        self._columns.append((board, _columns_of(board)))
        self._before[board] = [_NOTHING] * len(board.upstream_keys)

    def set_key(self, board: Board, column: int, key: str) -> None:
        """Give a column of a board to an upstream, which begins with what the newest other board says; ``""``: spare.

        So does one that comes back to a column that is still its own. What was counted of the upstream that had it
        before stays counted as long as that has a column anywhere.
        """
        before = board.upstream_keys[column]
        columns = next(columns for known, columns in self._columns if known is board)
        if key != before:
            self._hand_over(board, columns, column, key)
        board.set_health(column, False)
        for other, others in reversed(self._columns):
            if other is not board and key in others:
                board.set_standing(column, *other.standing_of(others[key]))
                break

    def _hand_over(self, board: Board, columns: dict[str, int], column: int, key: str) -> None:
        before = board.upstream_keys[column]
        counted = board.outcomes(column)
        board.set_key(column, key)
        if before:
            self._retire(before, counted - self._before[board][column])
            del columns[before]
            if not any(before in others for _, others in self._columns):
                self._retired.pop(before, None)
        self._before[board][column] = counted
        if key:
            columns[key] = column

    def drop(self, board: Board) -> None:
        """Publish to this board no more, and remove it; what was counted of upstreams there stays counted."""
        for row in range(board.slots):
            self.zero_row(board, row)
        self._columns = [entry for entry in self._columns if entry[0] is not board]
        for key, column in _columns_of(board).items():
            self._retire(key, _NOTHING - self._before[board][column])
        del self._before[board]
        board.close()
        board.unlink()

    def zero_row(self, board: Board, row: int) -> None:
        """Forget a dead worker's row, but not what it counted of upstreams: the sums never fall."""
        before = [board.outcomes(index) for index in range(len(board.upstream_keys))]
        board.zero_row(row)
        for key, index in _columns_of(board).items():
            self._retire(key, before[index] - board.outcomes(index))

    def _retire(self, key: str, counted: Outcomes) -> None:
        """Keep what was counted of an upstream where nobody can read it any more."""
        if counted != _NOTHING:
            self._retired[key] = self._retired.get(key, _NOTHING) + counted

    def publish(self, key: str, standing: Standing, recovered_ms: int) -> None:
        """Say on every board that knows the upstream where it stands, and since when it is up again."""
        for board, columns in self._columns:
            if (index := columns.get(key)) is not None:
                board.set_standing(index, standing, recovered_ms)

    def outcomes(self) -> dict[str, Outcomes]:
        """Return what was counted of each upstream, ever, by key."""
        counts = dict(self._retired)
        for board, columns in self._columns:
            for key, index in columns.items():
                counts[key] = counts.get(key, _NOTHING) + board.outcomes(index) - self._before[board][index]
        return counts

    def active(self, key: str) -> int:
        """Return the exchanges in flight with an upstream, over all generations."""
        return sum(board.active(columns[key]) for board, columns in self._columns if key in columns)

    def forget(self, kept: Board) -> None:
        """In a new worker: unmap every board but its own."""
        for board, _ in self._columns:
            if board is not kept:
                board.close()
        self._columns.clear()


def _columns_of(board: Board) -> dict[str, int]:
    return {key: column for column, key in enumerate(board.upstream_keys) if key}
