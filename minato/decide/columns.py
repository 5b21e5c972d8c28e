"""Which upstream has which column of a board: given out, withdrawn, and given out again once nobody uses it."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Columns:
    """The columns of one board.

    A column that was withdrawn still has exchanges in flight that count there. It stays its upstream's, which gets it
    back if it comes again, until it is known to be idle.

    Attributes:
        by_key: the columns that are given out.
    """

    def __init__(self, keys: Sequence[str], total: int) -> None:
        """The first columns have these keys, the others up to ``total`` are spare."""
        if len(set(keys)) != len(keys) or total < len(keys):
            raise ValueError(f"{len(keys)} keys do not fit into {total} columns, each into its own")
        self.by_key = {key: column for column, key in enumerate(keys)}
        self._withdrawn: dict[str, int] = {}
        self._free = list(range(total - 1, len(keys) - 1, -1))

    def __repr__(self) -> str:
        return f"<Columns {len(self.by_key)} given out, {len(self._withdrawn)} withdrawn, {len(self._free)} free>"

    @property
    def is_waiting(self) -> bool:
        """Whether there are withdrawn ones."""
        return bool(self._withdrawn)

    def assign(self, key: str) -> int | None:
        """Give an upstream a column, the one that it has or had where it still is its own; None where none is free."""
        if key in self.by_key:
            return self.by_key[key]
        if key in self._withdrawn:
            column = self._withdrawn.pop(key)
        elif self._free:
            column = self._free.pop()
        else:
            return None
        self.by_key[key] = column
        return column

    def withdraw(self, key: str) -> None:
        """An upstream gets no more requests."""
        self._withdrawn[key] = self.by_key.pop(key)

    def release(self, is_idle: Callable[[int], bool]) -> list[int]:
        """Free the withdrawn columns that are idle, and return them."""
        idle = {key: column for key, column in self._withdrawn.items() if is_idle(column)}
        for key in idle:
            del self._withdrawn[key]
        self._free.extend(idle.values())
        return list(idle.values())
