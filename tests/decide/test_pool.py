"""The pool of idle upstream connections: last in, first out; capped; each connection in one place at a time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from minato.decide.pool import IdlePool


def pool_of(*names: str, max_idle: int = 10, origin: str = "a") -> IdlePool[str]:
    pool: IdlePool[str] = IdlePool(max_idle)
    for name in names:
        assert pool.give(origin, name) is None
    return pool


def test_the_most_recently_used_connection_is_taken_first() -> None:
    pool = pool_of("one", "two", "three")
    assert [pool.take("a") for _ in range(4)] == ["three", "two", "one", None]


def test_origins_do_not_share_connections() -> None:
    pool = pool_of("one")
    assert pool.take("b") is None
    assert pool.take("a") == "one"


def test_over_the_cap_the_longest_idle_one_is_to_be_closed() -> None:
    pool = pool_of("one", "two", max_idle=2)
    assert pool.give("a", "three") == "one"
    assert [pool.take("a"), pool.take("a"), pool.take("a")] == ["three", "two", None]


def test_the_cap_is_per_origin() -> None:
    pool = pool_of("one", max_idle=1)
    assert pool.give("b", "two") is None
    assert len(pool) == 2


def test_without_room_a_connection_comes_straight_back() -> None:
    assert pool_of(max_idle=0).give("a", "one") == "one"


def test_a_dead_connection_is_forgotten_once() -> None:
    pool = pool_of("one", "two")
    assert pool.forget("a", "one")
    assert not pool.forget("a", "one")
    assert not pool.forget("b", "two")
    assert pool.take("a") == "two"


def test_take_all_empties_the_pool() -> None:
    pool = pool_of("one", "two")
    pool.give("b", "three")
    assert sorted(pool.take_all()) == ["one", "three", "two"]
    assert len(pool) == 0
    assert pool.take_all() == []


def test_the_repr_tells_how_many_are_idle() -> None:
    pool = pool_of("one", "two", "three")
    pool.give("b", "four")
    assert repr(pool) == "<IdlePool a: 3 idle, b: 1 idle>"
    pool.take("b")
    assert repr(pool) == "<IdlePool a: 3 idle>"
    pool.take_all()
    assert repr(pool) == "<IdlePool empty>"


MAX_IDLE = 3
ORIGINS = ["a", "b"]


class PoolModel(RuleBasedStateMachine):
    """Holds the pool against one plain list for each origin."""

    def __init__(self) -> None:
        super().__init__()
        self.pool: IdlePool[int] = IdlePool(MAX_IDLE)
        self.idle: dict[str, list[int]] = {origin: [] for origin in ORIGINS}
        self.serial = 0

    @rule(origin=st.sampled_from(ORIGINS))
    def give(self, origin: str) -> None:
        self.serial += 1
        self.idle[origin].append(self.serial)
        surplus = self.idle[origin].pop(0) if len(self.idle[origin]) > MAX_IDLE else None
        assert self.pool.give(origin, self.serial) == surplus

    @rule(origin=st.sampled_from(ORIGINS))
    def take(self, origin: str) -> None:
        expected = self.idle[origin].pop() if self.idle[origin] else None
        assert self.pool.take(origin) == expected

    @precondition(lambda self: self.serial)
    @rule(origin=st.sampled_from(ORIGINS), data=st.data())
    def forget(self, origin: str, data: st.DataObject) -> None:
        connection = data.draw(st.integers(1, self.serial))
        known = connection in self.idle[origin]
        assert self.pool.forget(origin, connection) is known
        if known:
            self.idle[origin].remove(connection)

    @rule()
    def take_all(self) -> None:
        assert sorted(self.pool.take_all()) == sorted(connection for idle in self.idle.values() for connection in idle)
        self.idle = {origin: [] for origin in ORIGINS}

    @invariant()
    def counts_agree(self) -> None:
        assert len(self.pool) == sum(len(idle) for idle in self.idle.values())


TestPoolModel = PoolModel.TestCase
TestPoolModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_retired_origin_keeps_nothing_any_more() -> None:
    pool: IdlePool[str] = IdlePool(2)
    pool.give("gone", "idle")
    pool.give("stays", "other")
    assert pool.retire("gone") == ["idle"]
    assert pool.give("gone", "was in use") == "was in use"
    assert pool.take("gone") is None
    assert pool.take("stays") == "other"


def test_what_is_remembered_of_retired_origins_is_bounded() -> None:
    pool: IdlePool[str] = IdlePool(2)
    for origin in range(5_000):
        pool.retire(origin)
    assert len(pool._retired) <= 1_024
    assert pool.give(4_999, "x") == "x"
