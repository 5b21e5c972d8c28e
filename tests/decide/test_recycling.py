"""When a worker has had enough, and how chance keeps workers from having enough at the same time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from minato.config.model import RecycleConfig
from minato.decide.recycling import Allowance, Load, RecycleReason


def test_nothing_is_enough_where_there_is_no_bound() -> None:
    assert not RecycleConfig().is_on
    allowance = Allowance.draw(RecycleConfig(), 1.0)
    assert allowance.why_recycle(Load(10**15, 10**15)) is RecycleReason.NONE


def test_requests_and_memory_are_each_enough() -> None:
    allowance = Allowance.draw(RecycleConfig(100, 1_000, 0.0), 0.5)
    assert allowance.why_recycle(Load(99, 999)) is RecycleReason.NONE
    assert allowance.why_recycle(Load(100, 0)) is RecycleReason.REQUESTS
    assert allowance.why_recycle(Load(0, 1_000)) is RecycleReason.MEMORY


def test_memory_that_could_not_be_read_is_not_too_much() -> None:
    assert Allowance(memory_bytes=1).why_recycle(Load(5, 0)) is RecycleReason.NONE


@given(st.integers(1, 10**12), st.floats(0, 1), st.floats(0, 1))
def test_jitter_only_takes_off_and_never_all(bound: int, jitter: float, share: float) -> None:
    allowance = Allowance.draw(RecycleConfig(bound, bound, jitter), share)
    assert 1 <= allowance.requests == allowance.memory_bytes <= bound
    assert allowance.requests >= bound * (1 - jitter) - 1


def test_workers_that_draw_differently_end_at_different_times() -> None:
    config = RecycleConfig(requests=1_000, jitter=0.2)
    assert [Allowance.draw(config, share).requests for share in (0.0, 0.25, 0.5, 1.0)] == [1_000, 950, 900, 800]
