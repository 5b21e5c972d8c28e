"""The cap on what one client has open: never exceeded, never leaking, and no memory for those who have nothing open."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from minato.decide.clients import ClientCap


def test_a_client_has_at_most_as_many_as_it_may_and_others_do_not_count() -> None:
    cap = ClientCap(2)
    assert [cap.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert cap.enter("192.0.2.2")
    cap.leave("192.0.2.1")
    assert [cap.enter("192.0.2.1") for _ in range(2)] == [True, False]
    assert repr(cap) == "<ClientCap 3 of 2 clients, at most 2 each>"


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:0:8000::1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("192.0.2.1", "192.0.2.2", False),
    ],
)
def test_a_client_of_ipv6_is_a_network_of_64_bits(one: str, other: str, are_one: bool) -> None:
    cap = ClientCap(1)
    assert cap.enter(one)
    assert cap.enter(other) is not are_one


def test_without_a_limit_nothing_is_counted() -> None:
    cap = ClientCap(0)
    assert all(cap.enter("192.0.2.1") for _ in range(100))
    assert (len(cap), cap.is_set) == (0, False)
    cap.leave("192.0.2.1")


ADDRESSES = st.sampled_from(["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:1::1"])


def network_of(address: str) -> str:
    return "2001:db8::/64" if address.startswith("2001:db8::") else address


class Counting(RuleBasedStateMachine):
    """Against a list of what is open."""

    def __init__(self) -> None:
        super().__init__()
        self.cap = ClientCap(3)
        self.open: list[str] = []

    @rule(address=ADDRESSES)
    def enter(self, address: str) -> None:
        has = sum(network_of(one) == network_of(address) for one in self.open)
        assert self.cap.enter(address) == (has < 3)
        if has < 3:
            self.open.append(address)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        if self.open:
            self.cap.leave(self.open.pop(data.draw(st.integers(0, len(self.open) - 1))))

    @invariant()
    def counts_those_that_are_open(self) -> None:
        assert len(self.cap) == len({network_of(one) for one in self.open})


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)


@given(st.lists(ADDRESSES, max_size=50))
def test_who_left_leaves_nothing_behind(addresses: list[str]) -> None:
    cap = ClientCap(4)
    for address in [address for address in addresses if cap.enter(address)]:
        cap.leave(address)
    assert len(cap) == 0
