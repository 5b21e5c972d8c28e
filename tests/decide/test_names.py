"""When a name is asked for, what is made of answers and failures, and what is told of it: each thing once."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from minato.config.model import DnsConfig
from minato.decide.names import Names, News, Turn, is_name, sort_addresses

NAME = "app.test"
A, B = "10.0.0.1", "10.0.0.2"


def watching(*hosts: str, interval_s: float = 30.0, timeout_s: float = 10.0, max_addresses: int = 16) -> Names:
    names = Names(DnsConfig(interval_s, timeout_s, max_addresses))
    names.watch(hosts or [NAME])
    return names


def ask(names: Names, mono_s: float, *found: str, reason: str = "no such name") -> News | None:
    assert names.take_due(mono_s) == [NAME]
    return names.answer(NAME, found, reason, mono_s, chance=0.0)


def test_new_name_is_asked_for_at_once_and_again_after_the_interval() -> None:
    names = watching()
    assert ask(names, 0.0, A) == News(NAME, Turn.RESOLVED, (A,))
    assert names.take_due(29.9) == []
    assert names.take_due(30.0) == [NAME]


def test_chance_spreads_the_questions() -> None:
    names = watching()
    names.take_due(0.0)
    names.answer(NAME, [A], "", 0.0, chance=1.0)
    assert names.take_due(26.9) == []
    assert names.take_due(27.0) == [NAME]


def test_name_is_not_asked_for_while_a_question_for_it_is_under_way() -> None:
    names = watching()
    names.take_due(0.0)
    names.want([NAME], 1.0)
    assert names.take_due(1e6) == []


def test_other_order_of_an_answer_is_no_change() -> None:
    names = watching()
    ask(names, 0.0, A, B)
    assert ask(names, 30.0, B, A, B) is None
    assert names.addresses(NAME) == (A, B)


def test_other_addresses_are_news() -> None:
    names = watching()
    ask(names, 0.0, A)
    assert ask(names, 30.0, B) == News(NAME, Turn.CHANGED, (B,))


def test_failure_keeps_the_last_answer_and_is_told_once() -> None:
    names = watching()
    ask(names, 0.0, A)
    assert ask(names, 30.0) == News(NAME, Turn.FAILING, (A,), "no such name")
    assert ask(names, 31.0) is None
    assert names.addresses(NAME) == (A,)


def test_recovery_is_told() -> None:
    names = watching()
    ask(names, 0.0, A)
    ask(names, 30.0)
    assert ask(names, 31.0, A) == News(NAME, Turn.RECOVERED, (A,))
    assert ask(names, 61.0, A) is None


def test_name_that_does_not_resolve_is_asked_for_with_growing_pauses() -> None:
    names = watching()
    asked_s, due_s = [], 0.0
    while due_s < 120:
        if names.take_due(due_s):
            asked_s.append(due_s)
            names.answer(NAME, (), "down", due_s, chance=0.0)
        due_s += 0.5
    assert asked_s == [0, 1, 3, 7, 15, 31, 61, 91]


def test_pauses_are_never_longer_than_a_short_interval() -> None:
    names = watching(interval_s=0.5)
    ask(names, 0.0)
    assert names.take_due(0.5) == [NAME]


def test_question_that_hangs_counts_as_failed_but_not_as_over() -> None:
    names = watching()
    ask(names, 0.0, A)
    assert names.take_due(30.0) == [NAME]
    assert names.take_overdue(39.9) == []
    assert names.take_overdue(40.0) == [News(NAME, Turn.FAILING, (A,), "no answer within 10 s")]
    assert names.take_overdue(500.0) == []
    assert names.take_due(500.0) == []
    assert names.answer(NAME, [B], "", 501.0, 0.0) == News(NAME, Turn.CHANGED, (B,))


def test_interval_of_zero_asks_only_when_it_is_wanted() -> None:
    names = watching(interval_s=0.0)
    ask(names, 0.0)
    assert names.take_due(1e9) == []
    names.want([NAME], 1e9)
    ask(names, 1e9, A)
    assert names.take_due(1e10) == []


def test_what_was_wanted_during_a_question_is_asked_right_after_it() -> None:
    names = watching()
    names.take_due(0.0)
    names.want([NAME], 1.0)
    names.answer(NAME, [A], "", 2.0, 0.0)
    assert names.is_heard(NAME, 1.0)
    assert ask(names, 2.0, B) == News(NAME, Turn.CHANGED, (B,))
    assert names.take_due(3.0) == []


def test_shorter_interval_counts_from_now_on() -> None:
    names = watching()
    ask(names, 0.0, A)
    names.configure(DnsConfig(interval_s=1.0), 2.0)
    assert names.take_due(2.9) == []
    assert names.take_due(3.0) == [NAME]


def test_interval_that_became_zero_ends_the_questions() -> None:
    names = watching()
    ask(names, 0.0, A)
    names.configure(DnsConfig(interval_s=0.0), 2.0)
    assert names.take_due(1e9) == []


def test_too_many_addresses_are_cut_the_same_way_whatever_their_order() -> None:
    many = [f"10.0.{n // 256}.{n % 256}" for n in range(1_000)]
    names = watching(max_addresses=3)
    assert ask(names, 0.0, *many) == News(NAME, Turn.RESOLVED, ("10.0.0.0", "10.0.0.1", "10.0.0.2"), left_out=997)
    assert ask(names, 30.0, *reversed(many)) is None


def test_name_that_is_not_watched_any_more_is_forgotten() -> None:
    names = watching("a.test", "b.test")
    names.take_due(0.0)
    names.answer("a.test", [A], "", 0.0, 0.0)
    names.watch(["b.test"])
    assert names.answer("a.test", [B], "", 1.0, 0.0) is None
    assert names.addresses("a.test") == ()


def test_name_that_is_still_watched_keeps_what_is_known() -> None:
    names = watching()
    ask(names, 0.0, A)
    names.watch([NAME, "new.test"])
    assert names.take_due(1.0) == ["new.test"]
    assert names.addresses(NAME) == (A,)


def test_addresses_stand_in_numeric_order() -> None:
    assert sort_addresses(["::2", "10.0.0.10", "10.0.0.9", "::1", "fe80::1%3"]) == [
        "10.0.0.9",
        "10.0.0.10",
        "::1",
        "::2",
        "fe80::1%3",
    ]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("app.test", True),
        ("app", True),
        ("notlocalhost", True),
        ("10.0.0.1", False),
        ("::1", False),
        ("localhost", False),
        ("localhost.", False),
        ("x.localhost", False),
    ],
)
def test_names_whose_addresses_are_servers_of_their_own(host: str, expected: bool) -> None:
    assert is_name(host) is expected


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.floats(0.01, 40)),
        st.tuples(st.just("want"), st.none()),
        st.tuples(st.just("answer"), st.lists(st.sampled_from([A, B, "::1", "10.9.9.9"]), max_size=4)),
    ),
    max_size=60,
)


@given(_STEPS, st.sampled_from([0.0, 0.05, 1.0, 30.0]), st.floats(0, 1))
def test_whatever_happens_the_last_answer_stays_and_one_question_is_under_way_at_most(
    steps: list[tuple[str, object]], interval_s: float, chance: float
) -> None:
    names = watching(interval_s=interval_s, max_addresses=3)
    mono_s, under_way, last, is_failing = 0.0, False, (), False
    ended_s = -math.inf
    for kind, value in steps:
        if kind == "wait":
            mono_s += value  # type: ignore[operator]
        elif kind == "want":
            names.want([NAME], mono_s)
        elif under_way:
            news = names.answer(NAME, value, "none", mono_s, chance)  # type: ignore[arg-type]
            under_way, ended_s = False, mono_s
            expected = tuple(sort_addresses(value)[:3]) or last  # type: ignore[arg-type]
            assert (news is not None) == (expected != last or bool(value) == is_failing)
            last, is_failing = expected, not value
        for one in names.take_overdue(mono_s):
            assert one.turn is Turn.FAILING and not is_failing and under_way
            is_failing = True
        due = names.take_due(mono_s)
        assert not (due and under_way)
        under_way = under_way or bool(due)
        assert names.addresses(NAME) == last
        # Nothing is forgotten: with an interval the next question comes within it.
        assert under_way or not interval_s or mono_s < ended_s + max(interval_s, 0.1)
