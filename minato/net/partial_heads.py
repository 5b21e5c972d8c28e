"""Heads that have begun and not ended: how much memory they take together, and which has to go when it is too much."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar


class Sheddable(Protocol):
    """A connection with an unfinished head."""

    def shed(self) -> None:
        """Give the head up, and with it the connection; it drops itself here."""


T = TypeVar("T", bound=Sheddable)


class PartialHeads(Generic[T]):
    """The unfinished heads of one worker.

    An honest head is whole within moments; one that drips stays. So it is the oldest that goes, until the rest fits.

    Attributes:
        held_bytes: of all of them.
    """

    def __init__(self, max_bytes: int) -> None:
        """``max_bytes``: 0 for no bound."""
        self._max_bytes = max_bytes
        self._sizes: dict[T, int] = {}  # the oldest first
        self.held_bytes = 0

    def __repr__(self) -> str:
        return f"<PartialHeads {len(self._sizes)}, {self.held_bytes} bytes>"

    def hold(self, owner: T, size: int) -> None:
        """So much has come of the owner's head; whoever has to go for it is told, perhaps the owner itself."""
        sizes = self._sizes
        self.held_bytes += size - sizes.get(owner, 0)
        sizes[owner] = size
        while self._max_bytes and self.held_bytes > self._max_bytes:
            oldest = next(iter(sizes))
            self.drop(oldest)
            oldest.shed()

    def drop(self, owner: T) -> None:
        """The owner's head is whole, or given up."""
        self.held_bytes -= self._sizes.pop(owner, 0)
