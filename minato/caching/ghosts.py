"""Ghosts: what was evicted lately without ever proving its worth, remembered by fingerprint alone."""

from __future__ import annotations

from array import array

from minato.caching.stored import StoredResponse

_MIN_SLOTS = 64
_SLOT_BYTES = 8


class Ghosts:
    """A table of fingerprints, each in the one slot that it falls on: a newer one there makes the older forgotten.

    So it needs neither order nor deletion, takes 8 bytes for each, and remembers for about as many evictions as it has
    slots.

    Attributes:
        size_bytes: all memory that it takes.
    """

    def __init__(self) -> None:
        self._slots = array("q")
        self.size_bytes = 0

    def add(self, stored: StoredResponse, stored_count: int) -> None:
        """Remember a response among the ghosts of a cache in which that many are stored."""
        slots = self._slots
        if not stored_count <= len(slots) <= stored_count * 4 + _MIN_SLOTS or not slots:
            self._resize(stored_count)
        fingerprint = _fingerprint(stored)
        slots[fingerprint % len(slots)] = fingerprint

    def has(self, stored: StoredResponse) -> bool:
        """Tell whether a response is remembered."""
        fingerprint = _fingerprint(stored)
        return bool(self._slots) and self._slots[fingerprint % len(self._slots)] == fingerprint

    def take(self, stored: StoredResponse) -> bool:
        """Tell whether a response is remembered, and forget it."""
        slots = self._slots
        if not slots:
            return False
        fingerprint = _fingerprint(stored)
        slot = fingerprint % len(slots)
        if slots[slot] != fingerprint:
            return False
        slots[slot] = ~fingerprint  # falls on another slot, so that it is nobody's
        return True

    def _resize(self, stored_count: int) -> None:
        """Halve the table or double it, which each response that it is for pays once."""
        slots = self._slots
        if not slots:
            slots.frombytes(bytes(_MIN_SLOTS * _SLOT_BYTES))
        elif stored_count > len(slots):
            slots.extend(slots)
        elif len(slots) > _MIN_SLOTS:
            del slots[len(slots) // 2 :]
        self.size_bytes = len(slots) * _SLOT_BYTES


def _fingerprint(stored: StoredResponse) -> int:
    return hash((stored.key, stored.names, stored.values))
