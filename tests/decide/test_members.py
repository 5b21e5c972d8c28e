"""Which addresses of a name get requests while its answers change."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from minato.config.model import Upstream
from minato.decide.members import Members, split

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
NAME = Upstream("http://app.test", "http", "app.test", 80, weight=3)
NUMBER = Upstream("http://10.9.9.9", "http", "10.9.9.9", 80)


def nobody(address: str) -> bool:
    return False


def test_address_that_left_the_answer_goes_on_until_a_new_one_is_healthy() -> None:
    members = Members([A])
    members.take([B], until_s=30.0)
    members.settle(nobody, 1.0)
    assert members.all == (B, A)
    members.settle(lambda address: address == B, 2.0)
    assert members.all == (B,)
    assert members.is_settled


def test_address_that_left_goes_when_its_time_is_up_whatever_the_new_ones_are() -> None:
    members = Members([A])
    members.take([B], until_s=30.0)
    members.settle(nobody, 30.0)
    assert members.all == (B,)


def test_address_that_left_goes_at_once_where_one_that_stayed_is_healthy() -> None:
    members = Members([A, B])
    members.take([B, C], until_s=30.0)
    members.settle(lambda address: address == B, 0.0)
    assert members.all == (B, C)


def test_healthy_address_that_left_does_not_hold_itself() -> None:
    members = Members([A])
    members.take([B], until_s=30.0)
    members.settle(lambda address: address == A, 29.9)
    assert members.all == (B, A)
    members.settle(lambda address: address == A, 30.0)
    assert members.all == (B,)


def test_address_that_comes_back_stays() -> None:
    members = Members([A])
    members.take([B], until_s=30.0)
    members.take([A], until_s=60.0)
    assert members.all == (A, B)
    members.settle(nobody, 30.0)
    assert members.all == (A, B)  # it left later
    members.settle(nobody, 60.0)
    assert members.all == (A,)


def test_answers_that_change_again_and_again_do_not_prolong_what_leaves() -> None:
    members = Members([A])
    members.take([B], until_s=30.0)
    members.take([C], until_s=31.0)
    members.settle(nobody, 30.0)
    assert members.all == (C, B)


def test_each_address_of_a_name_is_an_upstream_with_the_whole_weight() -> None:
    first, second = split(NAME, [A, B])
    assert (first.address, second.address) == (A, B)
    assert first.weight == second.weight == 3


def test_number_localhost_and_unresolved_name_stay_one() -> None:
    local = Upstream("http://localhost", "http", "localhost", 80)
    assert split(NUMBER, ["10.9.9.9"]) == (NUMBER,)
    assert split(local, ["::1", "127.0.0.1"]) == (local,)
    assert split(NAME, []) == (NAME,)


_ADDRESSES = st.lists(st.sampled_from([A, B, C, "::1"]), min_size=1, unique=True)


@given(
    st.lists(st.tuples(_ADDRESSES, st.sets(st.sampled_from([A, B, C, "::1"])), st.floats(0, 20)), max_size=30),
)
def test_there_is_always_somebody_and_a_healthy_one_is_only_let_go_for_another_or_in_time(
    steps: list[tuple[list[str], set[str], float]],
) -> None:
    members, mono_s = Members([A]), 0.0
    for answer, healthy, wait_s in steps:
        before = set(members.all)
        members.take(answer, mono_s + 10)
        assert set(members.all) == before | set(answer)
        members.settle(lambda address, up=healthy: address in up, mono_s)
        assert set(answer) <= set(members.all)
        assert len(set(members.all)) == len(members.all)
        gone_healthy = before & healthy - set(members.all)
        assert not gone_healthy or healthy & set(answer)
        mono_s += wait_s
        members.settle(nobody, mono_s)
        if wait_s >= 10:
            assert members.all == tuple(answer)
