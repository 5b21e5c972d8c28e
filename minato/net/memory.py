"""Gives memory that was freed back to the system, which the C library by itself keeps for the next allocation."""

from __future__ import annotations

import contextlib
import ctypes


def give_memory_back() -> None:
    """Have the C library return what it can (malloc_trim(3)); takes milliseconds. Others than glibc cannot."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
