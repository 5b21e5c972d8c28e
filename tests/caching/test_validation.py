"""Conditions answered from the store, requests that validate, 304s that freshen."""

from __future__ import annotations

import pytest

from minato.caching import CachedAnswer, LookupReason, Outcome, StoredResponse, render_forwarded
from minato.caching.cache import Cache
from minato.caching.store import GROUP_BYTES, RESOURCE_BYTES
from minato.caching.validation import strong_validator
from minato.protocol.fields import make_block
from minato.protocol.message import Framing, ResponseHead, first_value
from tests.caching.helpers import DATE, NOW_S, date_after, fields_of, make_cache, make_head, make_request, must_store

FRESH = "Cache-Control: max-age=60"
MODIFIED = f"Last-Modified: {date_after(-1000).decode()}"


def answer_to(*request_lines: str, status: int = 200, lines: tuple[str, ...] = ('ETag: "1"', MODIFIED)) -> CachedAnswer:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head(FRESH, *lines, status=status))
    return cache.answer(make_request(*request_lines), stored, NOW_S + 5)


@pytest.mark.parametrize(
    ("etag", "condition", "status"),
    [
        ('"1"', '"1"', 304),
        ('"1"', '"2"', 200),
        ('"1"', '"2", "1"', 304),
        ('"1"', '"2" ,, "1" , "3"', 304),
        ('"1"', 'W/"1"', 304),
        ('W/"1"', '"1"', 304),
        ('W/"1"', 'w/"1"', 200),
        ('"a,b"', '"a,b"', 304),
        ('"b"', '"a,b"', 200),
        ('"1"', "*", 304),
        ('"1"', "1", 200),
        ("1", "1", 304),
        ('"1"', "", 200),
        ('"\xfc"', '"\xfc"', 304),
    ],
)
def test_if_none_match_is_compared_weakly(etag: str, condition: str, status: int) -> None:
    assert answer_to(f"If-None-Match: {condition}", lines=(f"ETag: {etag}",)).status == status


def test_if_none_match_lines_are_combined() -> None:
    assert answer_to('If-None-Match: "2"', 'If-None-Match: "1"').status == 304


@pytest.mark.parametrize(("offset_s", "status"), [(-1001, 200), (-1000, 304), (0, 304)])
def test_if_modified_since_is_compared_with_last_modified(offset_s: int, status: int) -> None:
    assert answer_to(f"If-Modified-Since: {date_after(offset_s).decode()}").status == status


def test_without_last_modified_the_date_stands_in() -> None:
    assert answer_to(f"If-Modified-Since: {date_after(-1).decode()}", lines=()).status == 200
    assert answer_to(f"If-Modified-Since: {DATE.decode()}", lines=()).status == 304


def test_if_none_match_has_precedence_over_if_modified_since() -> None:
    assert answer_to('If-None-Match: "2"', f"If-Modified-Since: {DATE.decode()}").status == 200


def test_an_invalid_or_double_if_modified_since_is_ignored() -> None:
    assert answer_to("If-Modified-Since: now").status == 200
    line = f"If-Modified-Since: {DATE.decode()}"
    assert answer_to(line, line).status == 200


def test_a_stored_404_is_no_304() -> None:
    assert answer_to('If-None-Match: "1"', status=404).status == 404


def test_a_304_has_what_a_client_cache_needs_and_no_content_metadata() -> None:
    lines = ('ETag: "1"', MODIFIED, "Vary: accept", "Content-Type: text/plain", "Content-Location: /x", "X-Own: 1")
    answer = answer_to('If-None-Match: "1"', lines=lines)
    assert {name for name, _ in answer.fields} == {
        b"cache-control", b"etag", b"vary", b"content-location", b"x-own", b"date", b"age", b"cache-status"
    }  # fmt: skip
    assert answer.body == b""


def test_a_304_without_etag_keeps_last_modified() -> None:
    answer = answer_to(f"If-Modified-Since: {DATE.decode()}", lines=(MODIFIED,))
    assert first_value(answer.fields, b"last-modified") == date_after(-1000)


def test_a_validation_carries_the_stored_validators_instead_of_the_clients_conditions() -> None:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head(FRESH, 'ETag: "1"', MODIFIED))
    request = make_request(
        "Accept: */*", 'If-None-Match: "9"', f"If-Modified-Since: {DATE.decode()}", "Range: bytes=0-1", 'If-Range: "9"'
    )
    assert cache.validation_fields(request, stored) == fields_of("Accept: */*", 'If-None-Match: "1"', MODIFIED.replace(
        "Last-Modified", "If-Modified-Since"
    ))  # fmt: skip


def test_a_miss_is_forwarded_with_the_clients_own_fields() -> None:
    request = make_request("Accept: */*", 'If-None-Match: "9"', "Range: bytes=0-1")
    assert make_cache().forward_fields(request) == request.fields


def not_modified(*lines: str) -> ResponseHead:
    return ResponseHead(304, b"Not Modified", 11, make_block(fields_of(*lines)), Framing.NONE, 0, keep_alive=True)


def stale_one(cache: Cache, *lines: str) -> StoredResponse:
    must_store(cache, make_request(), make_head(FRESH, *(lines or ('ETag: "1"',)), "X-Own: old", "Content-Type: a/b"))
    found = cache.lookup(make_request(), NOW_S + 100)
    assert found.outcome is Outcome.STALE
    assert found.stored is not None
    return found.stored


def try_to_freshen(
    cache: Cache, stored: StoredResponse, *lines: str, request_line: str = "Accept: */*"
) -> StoredResponse | None:
    return cache.freshen(
        make_request(request_line),
        stored,
        not_modified(*lines),
        request_time_s=NOW_S + 100,
        response_time_s=NOW_S + 100,
    )


def freshen(cache: Cache, stored: StoredResponse, *lines: str, request_line: str = "Accept: */*") -> StoredResponse:
    new = try_to_freshen(cache, stored, *lines, request_line=request_line)
    assert new is not None
    return new


def test_a_304_makes_it_fresh_again_and_updates_its_fields() -> None:
    cache = make_cache()
    old = stale_one(cache)
    new = freshen(
        cache, old, f"Date: {date_after(100).decode()}", 'ETag: "1"', "X-Own: new", "Cache-Control: max-age=9"
    )
    assert not old.is_live
    assert new.is_live
    assert cache.lookup(make_request(), NOW_S + 108).stored is new
    assert cache.lookup(make_request(), NOW_S + 109).outcome is Outcome.STALE
    status = render_forwarded(LookupReason.STALE, upstream_status=304, stored=True)
    answer = cache.answer(make_request(), new, NOW_S + 100, status)
    assert (answer.status, answer.body) == (200, b"body")
    assert sorted(answer.fields) == sorted(
        fields_of("X-Own: new", "Content-Type: a/b", 'ETag: "1"', f"Date: {date_after(100).decode()}", "Age: 0",
                  "Cache-Control: max-age=9", "Content-Length: 4",
                  "Cache-Status: minato; fwd=stale; fwd-status=304; stored")
    )  # fmt: skip


def test_a_304_without_date_is_dated_by_its_arrival() -> None:
    cache = make_cache()
    new = freshen(cache, stale_one(cache))
    assert new.age_s(NOW_S + 100) == 0
    assert new.is_live


def test_the_age_of_a_304_counts() -> None:
    cache = make_cache()
    new = freshen(cache, stale_one(cache), f"Date: {date_after(100).decode()}", "Age: 55")
    assert new.is_fresh(NOW_S + 104)
    assert not new.is_fresh(NOW_S + 105)


def test_a_304_relabels_neither_length_nor_coding() -> None:
    cache = make_cache()
    new = freshen(
        cache, stale_one(cache), "Content-Length: 0", "Content-Encoding: gzip", "Content-Range: x", "Content-MD5: y"
    )
    names = [name for name, _ in new.fields]
    assert first_value(list(new.fields), b"content-length") == b"4"
    assert not {b"content-encoding", b"content-range", b"content-md5"} & set(names)


def test_a_cookie_of_a_304_is_stored_only_where_the_origin_says_how_long_that_is_fresh() -> None:
    cache = make_cache()
    assert first_value(list(freshen(cache, stale_one(cache), "Set-Cookie: a=b").fields), b"set-cookie") == b"a=b"
    cache = make_cache(ttl_s=60.0)
    old = must_store(cache, make_request(), make_head('ETag: "1"'))
    new = freshen(cache, old, 'ETag: "1"', "Set-Cookie: a=b")
    assert first_value(list(new.fields), b"set-cookie") == b"a=b"  # whoever asked gets it
    assert not new.is_live
    assert not old.is_live


WEAKLY = f"Last-Modified: {date_after(70).decode()}"  # half a minute before the 304


@pytest.mark.parametrize(
    ("stored_lines", "lines", "matches"),
    [
        (['ETag: "1"'], ['ETag: "1"'], True),
        (['ETag: "1"'], ['ETag: W/"1"'], True),
        (['ETag: W/"1"'], ['ETag: W/"1"'], True),
        (['ETag: W/"1"'], ['ETag: "1"'], False),
        (['ETag: "1"'], ['ETag: "2"'], False),
        (['ETag: W/"1"'], ['ETag: W/"2"'], False),
        ([MODIFIED], ['ETag: "2"'], False),
        ([MODIFIED], ['ETag: W/"2"'], False),
        ([MODIFIED], [MODIFIED], True),
        ([MODIFIED], [MODIFIED, 'ETag: W/"2"'], True),
        ([MODIFIED], [f"Last-Modified: {DATE.decode()}"], False),
        ([MODIFIED], [WEAKLY], False),
        (['ETag: "1"', MODIFIED], [f"Last-Modified: {DATE.decode()}"], False),
        (['ETag: "1"', MODIFIED], [WEAKLY], False),
        (['ETag: "1"', MODIFIED], [MODIFIED], True),
        (['ETag: "1"', MODIFIED], ['ETag: "1"', WEAKLY], True),
        (['ETag: "1"', MODIFIED], ['ETag: "2"', MODIFIED], True),
        (['ETag: "1"', MODIFIED], ['ETag: "2"', WEAKLY], False),
        (['ETag: "1"', MODIFIED], ['ETag: W/"1"', f"Last-Modified: {DATE.decode()}"], False),
        (['ETag: "1"'], [MODIFIED], False),
        (['ETag: "1"'], ["X-Nothing: 1"], True),
        (['ETag: "1"'], ["Last-Modified: yesterday"], True),
    ],
)
def test_a_304_about_another_representation_updates_nothing(
    stored_lines: list[str], lines: list[str], matches: bool
) -> None:
    cache = make_cache()
    old = stale_one(cache, *stored_lines)
    new = try_to_freshen(cache, old, *lines)
    assert (new is not None) == matches
    assert cache.stats().stored == (1 if matches else 0)


def test_weak_bytes_are_never_called_strong() -> None:
    cache = make_cache()
    new = freshen(cache, stale_one(cache, 'ETag: W/"1"'), 'ETag: W/"1"')
    assert new.etag == b'W/"1"'
    assert strong_validator(new) == b""


@pytest.mark.parametrize("word", ["no-store", "private"])
def test_a_304_may_end_the_storing(word: str) -> None:
    cache = make_cache()
    new = freshen(cache, stale_one(cache), f"Cache-Control: max-age=60, {word}")
    assert not new.is_live
    assert new.body == b"body"
    assert cache.stats().stored == 0
    assert cache.stats().used_bytes == 0


@pytest.mark.parametrize("line", ["Cache-Control: no-store", "Authorization: Basic x"])
def test_a_request_whose_response_must_not_be_stored_leaves_the_stored_one_as_it_was(line: str) -> None:
    cache = make_cache()
    old = stale_one(cache)
    new = freshen(cache, old, request_line=line)
    assert (old.is_live, new.is_live) == (True, False)
    assert new.is_fresh(NOW_S + 100)


def test_a_304_for_what_was_replaced_meanwhile_stores_nothing() -> None:
    cache = make_cache()
    old = stale_one(cache)
    newer = must_store(cache, make_request(), make_head(FRESH, 'ETag: "2"'), b"newer", at_s=NOW_S + 100)
    new = freshen(cache, old)
    assert not new.is_live
    assert cache.lookup(make_request(), NOW_S + 50).stored is newer


def test_a_304_that_changes_vary_moves_the_variant() -> None:
    cache = make_cache()
    new = freshen(cache, stale_one(cache), "Vary: accept")
    assert cache.lookup(make_request("Accept: */*"), NOW_S + 101).stored is new
    assert cache.lookup(make_request("Accept: other"), NOW_S + 101).reason is LookupReason.VARY_MISS


def test_a_304_that_changes_vary_takes_the_place_of_what_is_stored_under_that() -> None:
    cache = make_cache()
    lines = (FRESH, 'ETag: "1"')
    twin = must_store(cache, make_request("X-B: 1"), make_head(*lines, "Vary: X-B"))
    later = f"Date: {date_after(5).decode()}"
    old = must_store(cache, make_request("X-A: 1"), make_head(*lines, "Vary: X-A", later))
    request = make_request("X-A: 1", "X-B: 1")
    assert cache.lookup(request, NOW_S + 100).stored is old
    head = not_modified("Vary: X-B")
    new = cache.freshen(request, old, head, request_time_s=NOW_S + 100, response_time_s=NOW_S + 100)
    assert (twin.is_live, old.is_live, new.is_live) == (False, False, True)
    assert cache.stats().stored == 1
    assert cache.stats().used_bytes == new.size_bytes + RESOURCE_BYTES + GROUP_BYTES
