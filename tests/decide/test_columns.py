"""Columns of a board: never two upstreams in one, never one given out that is in use."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from minato.decide.columns import Columns


def test_first_keys_have_the_first_columns_and_the_rest_is_spare() -> None:
    columns = Columns(["a", "b"], 4)
    assert columns.by_key == {"a": 0, "b": 1}
    assert [columns.assign(key) for key in "cde"] == [2, 3, None]


def test_upstream_that_has_a_column_keeps_it() -> None:
    columns = Columns(["a"], 1)
    assert columns.assign("a") == 0


def test_withdrawn_column_is_given_to_another_only_once_it_is_idle() -> None:
    columns = Columns(["a"], 1)
    columns.withdraw("a")
    assert columns.assign("b") is None
    assert columns.release(lambda column: False) == []
    assert columns.assign("b") is None
    assert columns.release(lambda column: True) == [0]
    assert columns.assign("b") == 0


def test_upstream_that_comes_back_gets_the_column_where_its_exchanges_count() -> None:
    columns = Columns(["a"], 2)
    columns.withdraw("a")
    assert columns.assign("a") == 0
    assert not columns.is_waiting


def test_keys_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Columns(["a", "b"], 1)
    with pytest.raises(ValueError, match="do not fit"):
        Columns(["a", "a"], 2)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["assign", "withdraw", "release"]), st.sampled_from("abcdef"), st.sets(st.integers(0, 3))
        )
    )
)
def test_column_in_use_is_never_given_to_another(steps: list[tuple[str, str, set[int]]]) -> None:
    columns = Columns(["a", "b"], 4)
    owner = {0: "a", 1: "b"}  # whose a column is: given out or not idle yet
    for action, key, busy in steps:
        if action == "assign":
            column = columns.assign(key)
            if column is None:
                assert len(owner) == 4 and key not in owner.values()
            else:
                assert owner.setdefault(column, key) == key
        elif action == "withdraw" and key in columns.by_key:
            columns.withdraw(key)
        elif action == "release":
            for column in columns.release(lambda column, busy=busy: column not in busy):
                assert column not in busy and owner[column] not in columns.by_key
                del owner[column]
        assert len(set(columns.by_key.values())) == len(columns.by_key)
