"""Changed resources: what was asked for before a change and comes after it is not stored."""

from __future__ import annotations

import pytest

from minato.caching import NotStored, StoredResponse
from minato.caching.pending import MAX_RECENT_CHANGES, PLACES, ChangeLog
from tests.caching.helpers import NOW_S, begin, fields_of, make_cache, make_head, make_request, must_store, store

FRESH = "Cache-Control: max-age=60"
POST = make_request(method=b"POST")
RESOURCE = (0, b"http", b"a", b"/")


@pytest.mark.parametrize(("status", "expected"), [(200, NotStored.INVALIDATED), (303, NotStored.INVALIDATED)])
def test_what_was_asked_for_before_a_change_and_comes_after_it_is_not_stored(status: int, expected: NotStored) -> None:
    cache = make_cache()
    cache.invalidate(POST, status, [], NOW_S)
    for lines in ([], ["Cache-Control: no-cache"]):
        assert begin(cache, make_request(*lines), make_head(FRESH), at_s=NOW_S + 2, delay_s=3) is expected
    assert isinstance(store(cache, make_request(target=b"/other"), make_head(FRESH)), StoredResponse)


@pytest.mark.parametrize("asked_s", [NOW_S, NOW_S + 1])
def test_what_was_asked_for_with_or_after_a_change_is_stored(asked_s: float) -> None:
    cache = make_cache()
    cache.invalidate(POST, 200, [], NOW_S)
    must_store(cache, make_request(), make_head(FRESH), at_s=asked_s)


def test_the_response_to_the_change_itself_is_stored_unless_another_came_between() -> None:
    cache = make_cache()
    head = make_head(FRESH, "Content-Location: /page")
    posting = make_request(method=b"POST", has_body=True)
    cache.invalidate(posting, 200, [], NOW_S + 2)
    writer = begin(cache, posting, head, at_s=NOW_S + 2, delay_s=2)
    assert not isinstance(writer, NotStored)
    cache.invalidate(posting, 200, [], NOW_S + 3)
    assert not writer.is_open
    assert begin(cache, posting, head, at_s=NOW_S + 3, delay_s=2) is NotStored.INVALIDATED


def test_a_change_that_failed_changes_nothing() -> None:
    cache = make_cache()
    cache.invalidate(POST, 500, [], NOW_S)
    assert not isinstance(begin(cache, make_request(), make_head(FRESH), at_s=NOW_S + 1, delay_s=2), NotStored)


def test_a_change_of_what_location_names_is_remembered_too() -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH))
    cache.invalidate(make_request(method=b"POST", target=b"/form"), 303, fields_of("Location: /page"), NOW_S + 1)
    assert begin(cache, make_request(), make_head(FRESH), at_s=NOW_S + 2, delay_s=2) is NotStored.INVALIDATED


def test_every_change_is_remembered_however_many_follow_in_bounded_memory() -> None:
    log = ChangeLog()
    resources = [(0, b"http", b"a", b"/%d" % number) for number in range(3 * (MAX_RECENT_CHANGES + PLACES))]
    for number, resource in enumerate(resources):
        log.note(resource, NOW_S + number)
    for number, resource in enumerate(resources):
        assert log.covers(resource, request_time_s=NOW_S + number - 1, response_time_s=NOW_S + 99_999)
    assert (len(log._recent), len(log._older_s)) == (MAX_RECENT_CHANGES, PLACES)


def test_as_many_changes_as_are_known_each_keep_no_other_response_from_being_stored() -> None:
    log = ChangeLog()
    for number in range(MAX_RECENT_CHANGES):
        log.note((0, b"http", b"a", b"/%d" % number), NOW_S)
    others = [(0, b"http", b"b", b"/%d" % number) for number in range(10_000)]
    assert not any(log.covers(other, request_time_s=NOW_S - 1, response_time_s=NOW_S + 1) for other in others)


def test_a_change_forgotten_for_newer_ones_still_counts_against_the_response_to_the_next_change() -> None:
    log = ChangeLog()
    log.note(RESOURCE, NOW_S)
    for number in range(MAX_RECENT_CHANGES):
        log.note((0, b"http", b"a", b"/%d" % number), NOW_S + 1)
    log.note(RESOURCE, NOW_S + 2)
    assert log.covers(RESOURCE, request_time_s=NOW_S - 1, response_time_s=NOW_S + 2, is_change=True)


def test_a_resource_that_changes_again_and_again_is_no_older_than_its_latest_change() -> None:
    log = ChangeLog()
    for number in range(MAX_RECENT_CHANGES):
        log.note((0, b"http", b"a", b"/%d" % number), NOW_S + number)
        log.note(RESOURCE, NOW_S + number)
    at_s = NOW_S + MAX_RECENT_CHANGES - 1
    assert log.covers(RESOURCE, request_time_s=at_s - 0.5, response_time_s=at_s + 1)
    assert not log.covers(RESOURCE, request_time_s=at_s, response_time_s=at_s + 1)
    assert not log.covers(RESOURCE, request_time_s=at_s - 0.5, response_time_s=at_s + 1, is_change=True)


def test_a_clock_that_was_set_back_lets_changes_go_and_keeps_what_was_on_its_way_out() -> None:
    log = ChangeLog()
    log.note(RESOURCE, NOW_S)
    assert log.covers(RESOURCE, request_time_s=NOW_S, response_time_s=NOW_S - 3600)
    assert not log.covers(RESOURCE, request_time_s=NOW_S - 3600, response_time_s=NOW_S - 3599)
    assert log.covers(RESOURCE, request_time_s=NOW_S - 30, response_time_s=NOW_S - 29), "too little to tell"
