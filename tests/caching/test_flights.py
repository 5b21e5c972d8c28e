"""Flights: who waits for whom, what becomes of those who wait, and what is remembered."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching import NotStored, StoredResponse
from minato.caching.flights import (
    MAX_REMEMBERED,
    REMEMBERED_S,
    Flight,
    Flights,
    FlightState,
    Verdict,
    may_collapse,
    may_lead,
)
from minato.caching.request import read_traits
from tests.caching.helpers import NOW_S, begin, make_cache, make_head, make_request

FRESH = "Cache-Control: max-age=60"


def add(flight: Flight, data: bytes) -> None:
    """A piece came, for the store and for who shares."""
    assert flight.writer is not None
    flight.writer.write(data)
    flight.add(data)


def land(flight: Flight) -> None:
    """The response is complete and stored."""
    writer = flight.writer
    stored = writer.commit(NOW_S) if writer is not None else None
    flight.land(stored if isinstance(stored, StoredResponse) else None)


class Leader:
    def __init__(self) -> None:
        self.pace_changes = self.told_gone = 0

    def on_pace_changed(self) -> None:
        self.pace_changes += 1

    def on_followers_gone(self) -> None:
        self.told_gone += 1


class Waiter:
    """A follower that does what it is told when it is woken, and notes what it gets."""

    def __init__(self, flight: Flight, *lines: str) -> None:
        self.flight = flight
        self.request = make_request(*lines)
        self.told: list[str] = []
        self.body = b""
        self.is_congested = False
        flight.wait(self)

    def wake(self) -> None:
        verdict = self.flight.judge(self.request, NOW_S)
        if verdict is Verdict.SHARE:
            self.body += b"".join(self.flight.share(self))
            self.told.append("share")
        elif verdict is not Verdict.WAIT:
            self.flight.leave(self)
            self.told.append(verdict.name.lower())

    def on_shared_body(self, data: bytes) -> None:
        self.body += data

    def on_shared_end(self) -> None:
        self.told.append("end")

    def on_shared_cut(self) -> None:
        self.told.append("cut")


def writer_for(*lines: str, limit: int = 1000, **settings: Any) -> Any:
    cache = make_cache(max_body_size_bytes=limit)
    return begin(cache, make_request(**settings), make_head(FRESH, *lines))


def lead(flights: Flights | None = None, *lines: str) -> Flight:
    return (Flights() if flights is None else flights).lead(make_request(*lines), Leader())


def test_all_who_wait_share_what_comes_and_hear_of_its_end() -> None:
    flight = lead()
    waiters = [Waiter(flight) for _ in range(3)]
    flight.begin(writer_for(limit=100_000))
    add(flight, b"one ")
    late = Waiter(flight)
    add(flight, b"two")
    land(flight)
    assert [(one.body, one.told) for one in waiters] == [(b"one two", ["share", "end"])] * 3
    assert (late.body, late.told) == (b"one two", ["share", "end"])


def test_who_comes_late_gets_what_the_writer_has() -> None:
    flight, writer = lead(), writer_for(limit=10_000)
    flight.begin(writer)
    for piece in (b"a", b"b" * 5000, b"c"):
        add(flight, piece)
    first = Waiter(flight)
    add(flight, b"d")
    second = Waiter(flight)
    assert first.body == second.body == b"a" + b"b" * 5000 + b"cd"


def test_many_small_pieces_are_few_for_who_comes_late() -> None:
    flight = lead()
    flight.begin(writer_for(limit=100_000))
    Waiter(flight)
    for _ in range(20_000):
        add(flight, b"x")
    late = Waiter(flight)
    assert len(late.body) == 20_000
    assert len(flight.share(late)) < 10


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((), ["share", "end"]),
        (("Accept-Language: de",), ["start_over"]),
        (("Range: bytes=0-1",), ["look_up"]),
        (("If-None-Match: *",), ["look_up"]),
        (("Cache-Control: min-fresh=61",), ["look_up"]),
    ],
)
def test_what_a_request_says_decides_whether_it_shares(lines: tuple[str, ...], told: list[str]) -> None:
    flight = lead()
    waiter = Waiter(flight, *lines)
    flight.begin(writer_for("Vary: Accept-Language"))
    flight.add(b"x")
    land(flight)
    assert waiter.told == told


@pytest.mark.parametrize("lines", [("Cache-Control: no-cache", 'ETag: "1"'), ("Cache-Control: max-age=0", 'ETag: "1"')])
def test_what_must_be_validated_is_not_shared(lines: tuple[str, ...]) -> None:
    cache = make_cache()
    flight = lead()
    waiter = Waiter(flight)
    writer = begin(cache, make_request(), make_head(*lines))
    assert not isinstance(writer, NotStored)
    flight.begin(writer)
    assert waiter.told == ["look_up"]


def test_a_response_that_was_invalidated_is_not_shared_with_who_comes_after_that() -> None:
    flights = Flights()
    flight, writer = lead(flights), writer_for()
    early = Waiter(flight)
    flight.begin(writer)
    writer.abort(NotStored.INVALIDATED)
    assert flights.find(make_request(), NOW_S) is None
    flight.overrun(NotStored.INVALIDATED, NOW_S)
    flight.add(b"rest")
    land(flight)
    assert (early.body, early.told) == (b"rest", ["share", "end"])
    assert not flights.is_refused(make_request().key, NOW_S)


@pytest.mark.parametrize("is_begun", [False, True])
def test_a_failure_is_a_cut_for_who_shares_and_a_new_start_for_who_waits(is_begun: bool) -> None:
    flights = Flights()
    flight = lead(flights)
    waiter, partial = Waiter(flight), Waiter(flight, "Range: bytes=0-1")
    if is_begun:
        flight.begin(writer_for())
    flight.fail()
    flight.fail()
    land(flight)
    assert waiter.told == (["share", "cut"] if is_begun else ["start_over"])
    assert partial.told == ["start_over"]
    assert len(flights) == 0


def test_a_stale_answer_is_one_for_all() -> None:
    flight = lead()
    waiter = Waiter(flight)
    flight.fall_back(503)
    flight.fail()
    assert waiter.told == ["fall_back"]
    assert flight.failure_status == 503


def test_a_refusal_is_remembered_for_a_while_where_it_is_about_the_response() -> None:
    flights = Flights()
    key = make_request().key
    for reason, is_lasting, is_remembered in [
        (NotStored.NO_STORE, True, True),
        (NotStored.NO_STORE, False, False),
        (NotStored.NO_MEMORY, True, False),
        (NotStored.AUTHORIZATION, True, False),
    ]:
        flight = lead(flights)
        waiter = Waiter(flight)
        flight.refuse(reason, NOW_S, is_lasting=is_lasting)
        assert waiter.told == ["look_up"]
        assert flights.is_refused(key, NOW_S) is is_remembered
        flights.forget_refusal(key)
    flights.remember_refusal(key, NotStored.PRIVATE, NOW_S)
    assert flights.is_refused(key, NOW_S + REMEMBERED_S - 1)
    assert not flights.is_refused(key, NOW_S + REMEMBERED_S)
    flights.remember_refusal(key, NotStored.PRIVATE, NOW_S)
    assert not flights.is_refused(key, NOW_S - 1), "the clock was set back"


def test_no_more_than_so_many_refusals_are_remembered() -> None:
    flights = Flights()
    keys = [make_request(target=b"/%d" % number).key for number in range(MAX_REMEMBERED + 10)]
    for key in keys:
        flights.remember_refusal(key, NotStored.PRIVATE, NOW_S)
    assert [flights.is_refused(key, NOW_S) for key in keys] == [False] * 10 + [True] * MAX_REMEMBERED


def test_an_overrun_goes_on_for_who_shares_at_the_pace_of_the_slowest() -> None:
    flights = Flights()
    flight = lead(flights)
    quick, slow = Waiter(flight), Waiter(flight)
    flight.begin(writer_for())
    slow.is_congested = True
    assert not flight.must_hold_back, "what is being stored is bounded"
    flight.overrun(NotStored.TOO_LARGE, NOW_S)
    assert flight.must_hold_back
    assert flights.find(make_request(), NOW_S) is None
    flight.leave(slow)
    assert not flight.must_hold_back
    flight.add(b"rest")
    land(flight)
    assert (quick.body, quick.told) == (b"rest", ["share", "end"])
    assert flights.is_refused(make_request().key, NOW_S)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), True),
        (("Cookie: a=b", "Accept: */*", "Cache-Control: max-age=5", "Range: bytes=0-1"), True),
        (("Cache-Control: no-cache",), False),
        (("Cache-Control: no-store",), False),
        (("Cache-Control: max-age=0",), False),
        (("Pragma: no-cache",), False),
        (("Authorization: Basic eDp5",), False),
        (('If-Match: "1"',), False),
    ],
)
def test_who_may_wait_for_another_ones_response(lines: tuple[str, ...], expected: bool) -> None:
    request = make_request(*lines)
    assert may_collapse(request, read_traits(request.fields)) is expected


def test_only_a_request_for_the_whole_is_waited_for() -> None:
    assert may_lead(make_request(), validates=False)
    assert not may_lead(make_request("Range: bytes=0-1"), validates=False)
    assert may_lead(make_request("Range: bytes=0-1"), validates=True)
    assert may_lead(make_request('If-None-Match: "1"'), validates=False)


EVENTS = ["begin", "add", "overrun", "land", "fail", "refuse", "fall_back", "join", "leave"]


@given(st.lists(st.sampled_from(EVENTS), max_size=25))
def test_whatever_happens_everybody_hears_the_end_once_and_bodies_are_whole(events: list[str]) -> None:
    flights = Flights()
    flight, writer = lead(flights), writer_for(limit=10_000)
    waiters, sent = [Waiter(flight)], b""
    for event in [*events, "fail"]:
        is_open = not flight.state.is_over
        if event == "begin" and flight.state is FlightState.AWAITED:
            flight.begin(writer)
        elif event == "add" and flight.state in (FlightState.SHARED, FlightState.OVERRUN):
            data = b"%d," % len(sent)
            sent += data
            writer.write(data)
            flight.add(data)
        elif event == "overrun" and flight.state is FlightState.SHARED:
            writer.abort()
            flight.overrun(NotStored.TOO_LARGE, NOW_S)
        elif event == "refuse" and flight.state is FlightState.AWAITED:
            flight.refuse(NotStored.PRIVATE, NOW_S, is_lasting=True)
        elif event in ("land", "fail") and is_open and (event == "fail" or flight.response):
            land(flight) if event == "land" else flight.fail()
        elif event == "fall_back" and flight.state is FlightState.AWAITED:
            flight.fall_back(None)
        elif event == "join" and flights.find(make_request(), NOW_S) is flight:
            waiters.append(Waiter(flight))
        elif event == "leave" and len(waiters) > 1:
            flight.leave(waiters.pop())
    assert len(flights) == 0
    assert not flight.has_followers
    for waiter in waiters:
        if waiter.told[0] == "share":
            assert waiter.told[1:] in (["end"], ["cut"])
            assert waiter.body == sent
        else:
            assert len(waiter.told) == 1
