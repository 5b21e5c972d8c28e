"""Which resources a response to an unsafe request names, and which of them may be forgotten."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching import CacheRequest, NotStored, Outcome
from minato.caching.location import find_changed_targets
from tests.caching.helpers import (
    NOW_S,
    date_after,
    fields_of,
    make_cache,
    make_head,
    make_request,
    must_store,
    store,
)

FRESH = "Cache-Control: max-age=60"


def targets_of(
    value: str, *, target: bytes = b"/a/b?q", host: bytes = b"example.com", name: str = "Location"
) -> object:
    request = CacheRequest(b"POST", b"http", host, target, [], True, 0)
    return find_changed_targets(request, fields_of(f"{name}: {value}"))


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ("/x", b"/x"),
        ("x", b"/a/x"),
        ("../x?y=1", b"/x?y=1"),
        ("?z", b"/a/b?z"),
        ("http://example.com/x", b"/x"),
        ("HTTP://EXAMPLE.com:80/x", b"/x"),
        ("//example.com/x#f", b"/x"),
        ("http://example.com", b"/"),
        ("/\xfc", b"/\xfc"),
    ],
)
def test_references_of_the_same_origin(value: str, target: bytes) -> None:
    assert targets_of(value) == [target]
    assert targets_of(value, name="Content-Location") == [target]


@pytest.mark.parametrize(
    "value",
    ["http://other.test/x", "https://example.com/x", "http://example.com:8080/x", "//x", "http://[::1/", "http://a:b/"],
)
def test_other_origins_are_left_alone(value: str) -> None:
    assert targets_of(value) == []


def test_the_port_is_part_of_the_origin() -> None:
    assert targets_of("http://example.com:81/x", host=b"example.com:81") == [b"/x"]
    assert targets_of("http://example.com/x", host=b"example.com:81") == []


@given(st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=30))
def test_no_value_raises(value: str) -> None:
    targets_of(value)


def test_location_and_content_location_are_forgotten_whatever_service_has_them() -> None:
    cache = make_cache()
    kept = must_store(cache, make_request(target=b"/kept"), make_head(FRESH))
    gone = [
        must_store(cache, make_request(target=target, service=service), make_head(FRESH))
        for target, service in ((b"/page", 0), (b"/new", 1), (b"/other", 0))
    ]
    fields = fields_of("Location: /new", "Content-Location: http://example.com:8080/other")
    cache.invalidate(make_request(method=b"PUT"), 201, fields, NOW_S)
    assert kept.is_live
    assert not any(stored.is_live for stored in gone)


@pytest.mark.parametrize(("method", "status"), [(b"GET", 200), (b"POST", 500), (b"POST", 404)])
def test_safe_requests_and_failures_forget_nothing(method: bytes, status: int) -> None:
    cache = make_cache()
    stored = must_store(cache, make_request(target=b"/new"), make_head(FRESH))
    cache.invalidate(make_request(method=method), status, fields_of("Location: /new"), NOW_S)
    assert stored.is_live


def test_a_post_that_names_its_own_target_and_a_lifetime_answers_get() -> None:
    cache = make_cache()
    request = make_request(method=b"POST", has_body=True)
    must_store(cache, request, make_head(FRESH, "Content-Location: http://example.com:8080/page"), b"posted")
    found = cache.lookup(make_request(), NOW_S)
    assert found.outcome is Outcome.HIT
    assert found.stored is not None
    assert cache.answer(make_request(), found.stored, NOW_S).body == b"posted"
    assert cache.lookup(request, NOW_S).outcome is Outcome.BYPASS


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ((FRESH,), 200),
        ((FRESH, "Content-Location: /other"), 200),
        ((FRESH, "Content-Location: /page"), 201),
        ((FRESH, "Content-Location: /page", "Content-Location: /page"), 200),
        ((f"Last-Modified: {date_after(-9999).decode()}", "Content-Location: /page"), 200),
        (("Cache-Control: private, max-age=60", "Content-Location: /page"), 200),
    ],
)
def test_other_responses_to_post_are_not_stored(lines: tuple[str, ...], status: int) -> None:
    request = make_request(method=b"POST", has_body=True)
    assert isinstance(store(make_cache(), request, make_head(*lines, status=status)), NotStored)
