"""Waiting for what sends no event (another process's state): a bounded poll that says what it waited for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = 10.0, every_s: float = 0.02) -> T:
    """Return the first true value of ``condition``.

    Raises:
        AssertionError: it was not true within ``timeout_s``; the message names ``what``.
    """
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline_s:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(every_s)
