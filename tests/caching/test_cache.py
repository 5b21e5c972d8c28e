"""The facade: keys, variants, incomplete responses, invalidation, and what interleaves."""

from __future__ import annotations

import pytest

from minato.caching import CacheRequest, LookupReason, NotStored, Outcome
from minato.caching.writer import StoreWriter
from minato.protocol.message import Framing
from tests.caching.helpers import NOW_S, begin, date_after, make_cache, make_head, make_request, must_store, store

FRESH = "Cache-Control: max-age=60"


def test_nothing_stored_is_a_uri_miss() -> None:
    found = make_cache().lookup(make_request(), NOW_S)
    assert (found.outcome, found.reason, found.stored) == (Outcome.MISS, LookupReason.URI_MISS, None)


def test_only_if_cached_with_nothing_stored_is_a_504() -> None:
    found = make_cache().lookup(make_request("Cache-Control: only-if-cached"), NOW_S)
    assert found.outcome is Outcome.GATEWAY_TIMEOUT


@pytest.mark.parametrize("method", [b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"get"])
def test_other_methods_pass_by_the_cache(method: bytes) -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH))
    found = cache.lookup(make_request(method=method), NOW_S)
    assert (found.outcome, found.reason) == (Outcome.BYPASS, LookupReason.METHOD)


def test_a_get_with_a_body_is_not_answered_from_the_cache() -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH))
    found = cache.lookup(make_request(has_body=True), NOW_S)
    assert (found.outcome, found.reason) == (Outcome.BYPASS, LookupReason.BYPASS)


def test_head_hits_a_stored_get() -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH))
    assert cache.lookup(make_request(method=b"HEAD"), NOW_S).outcome is Outcome.HIT


@pytest.mark.parametrize(
    "other",
    [
        CacheRequest(b"GET", b"https", b"example.com:8080", b"/page", [], False, 0),
        CacheRequest(b"GET", b"http", b"example.com:8081", b"/page", [], False, 0),
        CacheRequest(b"GET", b"http", b"example.com", b"/page", [], False, 0),
        CacheRequest(b"GET", b"http", b"example.com:8080", b"/page?", [], False, 0),
        CacheRequest(b"GET", b"http", b"example.com:8080", b"/Page", [], False, 0),
        CacheRequest(b"GET", b"http", b"example.com:8080", b"/page", [], False, 1),
    ],
)
def test_scheme_host_port_target_and_service_are_all_in_the_key(other: CacheRequest) -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH))
    assert cache.lookup(other, NOW_S).reason is LookupReason.URI_MISS


def test_variants_are_kept_apart() -> None:
    cache = make_cache()
    for language in (b"de", b"en"):
        request = make_request(f"Accept-Language: {language.decode()}")
        must_store(cache, request, make_head(FRESH, "Vary: Accept-Language"), language)
    for language in (b"de", b"en"):
        stored = cache.lookup(make_request(f"Accept-Language: {language.decode()}"), NOW_S).stored
        assert stored is not None
        assert stored.body == language
    assert cache.lookup(make_request("Accept-Language: fr"), NOW_S).reason is LookupReason.VARY_MISS
    assert cache.lookup(make_request(), NOW_S).reason is LookupReason.VARY_MISS


def test_a_new_response_takes_the_place_of_what_its_request_selected_under_another_vary() -> None:
    cache = make_cache()
    old = must_store(cache, make_request("X-A: 1"), make_head(FRESH), b"for everybody")
    must_store(cache, make_request("X-A: 1"), make_head(FRESH, "Vary: X-A"), b"for 1")
    assert not old.is_live
    assert cache.lookup(make_request("X-A: 2"), NOW_S).reason is LookupReason.VARY_MISS


def test_of_several_that_match_the_latest_by_date_is_taken() -> None:
    cache = make_cache()
    by_b = must_store(cache, make_request("X-B: 1"), make_head(FRESH, "Vary: X-B", f"Date: {date_after(5).decode()}"))
    by_a = must_store(cache, make_request("X-A: 1"), make_head(FRESH, "Vary: X-A"))
    assert by_a.is_live
    assert by_b.is_live
    assert cache.lookup(make_request("X-A: 1", "X-B: 1"), NOW_S).stored is by_b


@pytest.mark.parametrize("pieces", [[b""], [b"1234"], [b"123456"], [b"123", b"456"]])
def test_a_body_of_another_length_than_declared_is_not_stored(pieces: list[bytes]) -> None:
    cache = make_cache()
    writer = begin(cache, make_request(), make_head(FRESH, framing=Framing.LENGTH, length_bytes=5))
    assert isinstance(writer, StoreWriter)
    for piece in pieces:
        writer.write(piece)
    assert writer.commit(NOW_S) is NotStored.INCOMPLETE
    assert (cache.stats().stored, cache.stats().reserved_bytes) == (0, 0)


def test_a_body_longer_than_declared_is_given_up_at_once() -> None:
    writer = begin(make_cache(), make_request(), make_head(FRESH, framing=Framing.LENGTH, length_bytes=5))
    assert isinstance(writer, StoreWriter)
    assert writer.write(b"12345")
    assert not writer.write(b"6")


@pytest.mark.parametrize("length_bytes", [100, 101])
def test_a_declared_length_over_the_limit_is_not_begun(length_bytes: int) -> None:
    cache = make_cache(max_body_size_bytes=100)
    head = make_head(FRESH, framing=Framing.LENGTH, length_bytes=length_bytes)
    writer = begin(cache, make_request(), head)
    assert (writer is NotStored.TOO_LARGE) == (length_bytes > 100)


def test_a_body_that_grows_over_the_limit_is_given_up_at_once() -> None:
    cache = make_cache(max_body_size_bytes=100)
    writer = begin(cache, make_request(), make_head(FRESH))
    assert isinstance(writer, StoreWriter)
    assert writer.write(bytes(100))
    assert not writer.write(b"x")
    assert cache.stats().reserved_bytes == 0
    assert not writer.write(b"")
    assert writer.commit(NOW_S) is NotStored.TOO_LARGE


def test_an_aborted_response_is_not_stored_and_what_was_stored_stays() -> None:
    cache = make_cache()
    old = must_store(cache, make_request(), make_head(FRESH))
    writer = begin(cache, make_request(), make_head(FRESH))
    assert isinstance(writer, StoreWriter)
    writer.write(b"half")
    writer.abort()
    writer.abort()
    assert writer.commit(NOW_S) is NotStored.ABORTED
    assert cache.lookup(make_request(), NOW_S).stored is old


def test_a_body_slower_than_its_lifetime_is_not_kept_without_validator() -> None:
    for lines, kept in (([FRESH], False), ([FRESH, 'ETag: "1"'], True)):
        cache = make_cache()
        writer = begin(cache, make_request(), make_head(*lines))
        assert isinstance(writer, StoreWriter)
        assert (writer.commit(NOW_S + 60) is not NotStored.NO_LIFETIME) == kept


def test_nothing_is_found_before_the_commit() -> None:
    cache = make_cache()
    writer = begin(cache, make_request(), make_head(FRESH))
    assert isinstance(writer, StoreWriter)
    writer.write(b"half")
    assert cache.lookup(make_request(), NOW_S).outcome is Outcome.MISS


def test_an_older_response_that_ends_later_does_not_replace_a_newer_one() -> None:
    cache = make_cache()
    slow = begin(cache, make_request(), make_head(FRESH))
    assert isinstance(slow, StoreWriter)
    newer = must_store(cache, make_request(), make_head(FRESH))
    assert slow.commit(NOW_S) is NotStored.SUPERSEDED
    assert cache.lookup(make_request(), NOW_S).stored is newer


@pytest.mark.parametrize(
    ("method", "status", "is_gone"),
    [
        (b"POST", 200, True),
        (b"PUT", 201, True),
        (b"DELETE", 204, True),
        (b"PATCH", 303, True),
        (b"FROB", 200, True),
        (b"POST", 404, False),
        (b"POST", 500, False),
        (b"POST", 101, False),
        (b"GET", 200, False),
        (b"HEAD", 200, False),
        (b"OPTIONS", 200, False),
    ],
)
def test_unsafe_requests_that_succeed_invalidate_every_variant(method: bytes, status: int, is_gone: bool) -> None:
    cache = make_cache()
    for value in "12":
        must_store(cache, make_request(f"X-A: {value}"), make_head(FRESH, "Vary: X-A"))
    other = must_store(cache, make_request(target=b"/other"), make_head(FRESH))
    cache.invalidate(make_request(method=method), status, [], NOW_S)
    assert cache.stats().stored == (1 if is_gone else 3)
    assert other.is_live


def test_a_response_being_stored_while_its_resource_is_changed_is_not_kept() -> None:
    cache = make_cache()
    writer = begin(cache, make_request(), make_head(FRESH))
    assert isinstance(writer, StoreWriter)
    cache.invalidate(make_request(method=b"POST"), 200, [], NOW_S)
    assert not writer.write(b"old state")
    assert writer.commit(NOW_S) is NotStored.INVALIDATED
    assert cache.stats().reserved_bytes == 0


@pytest.mark.parametrize(
    ("lines", "is_gone"),
    [("Cache-Control: no-store", True), ("Cache-Control: private", True), ("Vary: *", True), ("X-A: 1", False)],
)
def test_a_response_that_turned_private_takes_the_stored_one_with_it(lines: str, is_gone: bool) -> None:
    cache = make_cache()
    old = must_store(cache, make_request(), make_head(FRESH))
    store(cache, make_request("Cache-Control: no-cache"), make_head(lines))
    assert old.is_live != is_gone


def test_a_personal_response_does_not_drive_out_the_public_one() -> None:
    cache = make_cache()
    old = must_store(cache, make_request(), make_head(FRESH))
    store(cache, make_request("Authorization: Basic x"), make_head(FRESH))
    store(cache, make_request(), make_head('ETag: "2"', "Set-Cookie: a=b"))
    assert old.is_live


def test_the_time_the_request_took_counts_as_age() -> None:
    cache = make_cache()
    writer = begin(cache, make_request(), make_head(FRESH), delay_s=59.5)
    assert isinstance(writer, StoreWriter)
    writer.commit(NOW_S)
    assert cache.lookup(make_request(), NOW_S + 0.4).outcome is Outcome.HIT
    assert cache.lookup(make_request(), NOW_S + 0.5).outcome is Outcome.MISS


def test_a_clock_that_was_set_back_makes_nothing_younger() -> None:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head(FRESH, "Age: 10"))
    assert stored.age_s(NOW_S - 1000) == 10


def test_repr_tells_what_it_holds() -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH))
    begin(cache, make_request(), make_head(FRESH))
    assert "1 stored" in repr(cache)
    assert "1 being stored" in repr(cache)
