"""The judge excuses what a killed process held, what an origin did on purpose, and nothing else."""

from __future__ import annotations

import pytest

from tests.chaos.judge import Held, Misdeeds, NotConfigured, OriginKilled, judge
from tests.chaos.ledger import Kind, Ledger, Outcome
from tests.chaos.origin import Fate

_POST_504 = {(Fate.HUNG, b"POST"): frozenset([(Kind.STATUS, 504)])}


def outcome(
    kind: Kind, *, name: str = "n", port: int = 1000, begun_s: float = 10.0, ended_s: float = 11.0, **more: object
) -> Outcome:
    values = {"client": "keep-alive", "method": b"GET", "status": 0} | more
    return Outcome(kind=kind, name=name, port=port, begun_s=begun_s, ended_s=ended_s, **values)  # type: ignore[arg-type]


def failures(*outcomes: Outcome, excuses: list[object]) -> list[Outcome]:
    ledger = Ledger()
    for each in outcomes:
        ledger.record(each)
    return judge(ledger, excuses).failures  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Kind.EARLY_CLOSE, Kind.RACE, Kind.UNANSWERED, Kind.CUT])
def test_what_a_killed_process_held_is_excused(kind: Kind) -> None:
    held = Held(frozenset([1000]), 10.5, 10.6)
    assert failures(outcome(kind), excuses=[held]) == []


@pytest.mark.parametrize(
    "trouble",
    [
        outcome(Kind.CUT, port=1001),  # another process had it
        outcome(Kind.CUT, begun_s=10.7),  # it began after the kill, on a port used again
        outcome(Kind.CUT, ended_s=10.4),  # it was over before
        outcome(Kind.REFUSED),  # nobody killed the listening socket
        outcome(Kind.STATUS, status=502),
        outcome(Kind.WRONG, status=200),
        outcome(Kind.SILENT),
    ],
    ids=str,
)
def test_nothing_else_is_excused_by_a_kill(trouble: Outcome) -> None:
    assert failures(trouble, excuses=[Held(frozenset([1000]), 10.5, 10.6)]) == [trouble]


def test_wrong_bytes_are_never_excused() -> None:
    trouble = outcome(Kind.WRONG, status=200)

    class Lenient:
        def covers(self, outcome: Outcome) -> bool:
            return True

    assert failures(trouble, excuses=[Lenient()]) == [trouble]


def test_a_cut_is_excused_by_a_killed_origin_that_had_read_the_request() -> None:
    cut = outcome(Kind.CUT, status=200)
    assert failures(cut, excuses=[OriginKilled(10.2, 10.3, {"n"}, set())]) == []
    assert failures(cut, excuses=[OriginKilled(10.2, 10.3, set(), {"n"})]) == [cut]
    assert failures(cut, excuses=[OriginKilled(11.2, 11.3, {"n"}, set())]) == [cut]


def test_a_post_is_excused_by_a_killed_origin_unless_another_one_had_it() -> None:
    post = outcome(Kind.STATUS, status=502, method=b"POST")
    get = outcome(Kind.STATUS, status=502)
    assert failures(post, excuses=[OriginKilled(10.2, 10.3, set(), set())]) == []
    assert failures(post, excuses=[OriginKilled(10.2, 10.3, set(), {"n"})]) == [post]
    assert failures(get, excuses=[OriginKilled(10.2, 10.3, {"n"}, set())]) == [get]


def test_a_port_that_is_not_configured_excuses_its_own_clients_alone() -> None:
    away = NotConfigured("spare", 10.0, 10.5)
    assert failures(outcome(Kind.REFUSED, client="spare"), excuses=[away]) == []
    for trouble in (
        outcome(Kind.REFUSED),
        outcome(Kind.REFUSED, client="spare", begun_s=10.6),
        outcome(Kind.CUT, client="spare"),
    ):
        assert failures(trouble, excuses=[away]) == [trouble]


def test_what_an_origin_did_must_have_led_to_just_that() -> None:
    misdeeds = Misdeeds({"n": [Fate.GOT, Fate.HUNG]}, _POST_504)
    right = outcome(Kind.STATUS, status=504, method=b"POST")
    assert failures(right, excuses=[misdeeds]) == []
    for wrong in (
        outcome(Kind.STATUS, status=502, method=b"POST"),
        outcome(Kind.OK, status=200, method=b"POST"),  # nobody answered it: where did that come from?
        outcome(Kind.STATUS, status=504),  # a GET should have been asked again elsewhere
        outcome(Kind.STATUS, status=504, method=b"POST", name="other"),
    ):
        assert failures(wrong, excuses=[misdeeds]) == [wrong]


def test_a_process_may_be_killed_while_it_waits_for_an_origin_that_hangs() -> None:
    misdeeds = Misdeeds({"n": [Fate.GOT, Fate.HUNG]}, _POST_504)
    lost = outcome(Kind.UNANSWERED, method=b"POST")
    assert failures(lost, excuses=[misdeeds, Held(frozenset([1000]), 10.5, 10.6)]) == []
    assert failures(lost, excuses=[misdeeds, Held(frozenset([1001]), 10.5, 10.6)]) == [lost]


def test_what_another_origin_answered_must_have_come_right() -> None:
    misdeeds = Misdeeds({"n": [Fate.GOT, Fate.HUNG, Fate.GOT, Fate.DONE]}, _POST_504)
    trouble = outcome(Kind.STATUS, status=504, method=b"POST")
    assert failures(trouble, excuses=[misdeeds]) == [trouble]
    assert failures(outcome(Kind.OK, status=200), excuses=[misdeeds]) == []
