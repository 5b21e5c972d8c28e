"""Slow start: an upstream that has recovered gets a share that grows from a tenth to all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

FIRST_SHARE = 0.1


def warmth(recovered_ms: int, now_ms: float, slow_start_ms: float) -> float:
    """Return which share of its ordinary traffic an upstream may have, from FIRST_SHARE to 1.

    Args:
        recovered_ms: when it came up again, in monotonic milliseconds; 0: it was never down.
        now_ms: now, by the same clock.
        slow_start_ms: how long it takes until it has all of it.
    """
    age_ms = now_ms - recovered_ms
    if not recovered_ms or age_ms >= slow_start_ms:
        return 1.0
    return FIRST_SHARE + (1.0 - FIRST_SHARE) * max(age_ms, 0.0) / slow_start_ms


def thin_out(candidates: Sequence[int], warmth_of: Callable[[int], float], rng: Callable[[], float]) -> Sequence[int]:
    """Return the candidates that stand for this one pick: one that warms up does so as often as it is warm.

    Whatever the balancer, it then gets that share of what it would get otherwise. Where nobody would stand, all do.

    Args:
        candidates: positions, not empty.
        warmth_of: the warmth of the upstream at a position.
        rng: the source of chance: numbers from 0 up to, not including, 1.
    """
    standing = [position for position in candidates if (share := warmth_of(position)) >= 1.0 or rng() < share]
    return standing or candidates
