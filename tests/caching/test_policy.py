"""The policy, as tables: storable or not and why, reusable or not and why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching import LookupReason, NotStored, Outcome, StoredResponse
from tests.caching.helpers import NOW_S, date_after, make_cache, make_head, make_request, must_store, store

FRESH = "Cache-Control: max-age=60"
TAG = 'ETag: "1"'
AUTH = "Authorization: Basic x"
COOKIE = "Set-Cookie: a=b"
LONG_AGO = f"Last-Modified: {date_after(-100_000).decode()}"

STORABLE = [
    (200, [], [FRESH]),
    (200, [], ["Cache-Control: s-maxage=60"]),
    (200, [], [f"Expires: {date_after(60).decode()}"]),
    (200, [], [LONG_AGO]),
    (200, [], [TAG]),  # stale at once, but validated with profit
    (200, [], ["Cache-Control: no-cache", TAG]),
    (200, [], ["Cache-Control: max-age=0", TAG]),
    (404, [], [FRESH]),
    (302, [], [FRESH]),
    (500, [], [FRESH]),
    (299, [], [FRESH]),
    (302, [], ["Cache-Control: public", LONG_AGO]),
    (200, [AUTH], ["Cache-Control: max-age=60, public"]),
    (200, [AUTH], ["Cache-Control: max-age=60, must-revalidate"]),
    (200, [AUTH], ["Cache-Control: s-maxage=60"]),
    (200, [], [COOKIE, "Cache-Control: max-age=60, public"]),
    (200, [], [COOKIE, "Cache-Control: s-maxage=60"]),
    (200, [], [COOKIE, FRESH]),
    (200, [], [COOKIE, LONG_AGO, 'Cache-Control: no-cache="set-cookie"']),
    (200, [], ['Cache-Control: max-age=60, private="set-cookie"']),
    (200, ["Cookie: a=b"], [FRESH]),
    (200, ["If-None-Match: *"], [FRESH]),
    (200, ["Range: bytes=0-1"], [FRESH]),
    (200, [], ["Cache-Control: max-age=60, must-understand, no-store"]),
    (200, [], [FRESH, "Vary: Accept"]),
]

UNSTORABLE = [
    (200, [], ["Cache-Control: max-age=60, no-store"], NotStored.NO_STORE),
    (200, [], ['Cache-Control: max-age=60, no-store="x"'], NotStored.NO_STORE),
    (200, [], ["Cache-Control: max-age=60, private"], NotStored.PRIVATE),
    (200, ["Cache-Control: no-store"], [FRESH], NotStored.REQUEST_NO_STORE),
    (200, [AUTH], [FRESH], NotStored.AUTHORIZATION),
    (200, [AUTH], [TAG], NotStored.AUTHORIZATION),
    (200, [], [COOKIE, LONG_AGO], NotStored.SET_COOKIE),
    (200, [], [COOKIE, TAG], NotStored.SET_COOKIE),
    (200, [], [FRESH, "Vary: *"], NotStored.VARY),
    (200, [], [FRESH, "Vary: x-forwarded-for"], NotStored.VARY),
    (200, [], [], NotStored.NO_LIFETIME),
    (200, [], ["Cache-Control: max-age=0"], NotStored.NO_LIFETIME),
    (200, [], ["Cache-Control: max-age=oops"], NotStored.NO_LIFETIME),
    (200, [], ["Cache-Control: max-age=60, no-cache"], NotStored.NO_LIFETIME),
    (200, [], [FRESH, "Age: 60"], NotStored.NO_LIFETIME),
    (200, [], ["Expires: 0"], NotStored.NO_LIFETIME),
    (302, [], [TAG], NotStored.NO_LIFETIME),
    (302, [], ["Cache-Control: no-cache", TAG], NotStored.NO_LIFETIME),
    (302, [], [LONG_AGO], NotStored.NO_LIFETIME),
    (206, [], [FRESH, "Content-Range: bytes 0-3/9"], NotStored.PART),
    (304, [], [FRESH], NotStored.STATUS),
    (412, ["If-None-Match: *"], [FRESH], NotStored.STATUS),
    (416, [], [FRESH], NotStored.STATUS),
    (103, [], [FRESH], NotStored.STATUS),
    (299, [], ["Cache-Control: max-age=60, must-understand"], NotStored.STATUS),
    (200, ["If-Match: *"], [FRESH], NotStored.REQUEST_CONDITION),
    (200, [f"If-Unmodified-Since: {date_after(0).decode()}"], [FRESH], NotStored.REQUEST_CONDITION),
]


@pytest.mark.parametrize(("status", "request_lines", "response_lines"), STORABLE)
def test_storable(status: int, request_lines: list[str], response_lines: list[str]) -> None:
    result = store(make_cache(), make_request(*request_lines), make_head(*response_lines, status=status))
    assert isinstance(result, StoredResponse)


@pytest.mark.parametrize(("status", "request_lines", "response_lines", "reason"), UNSTORABLE)
def test_unstorable(status: int, request_lines: list[str], response_lines: list[str], reason: NotStored) -> None:
    cache = make_cache()
    assert store(cache, make_request(*request_lines), make_head(*response_lines, status=status)) is reason
    assert cache.stats().stored == 0


@pytest.mark.parametrize("method", [b"HEAD", b"POST", b"PUT", b"OPTIONS", b"get", b"QUERY"])
def test_only_get_is_stored(method: bytes) -> None:
    assert store(make_cache(), make_request(method=method), make_head(FRESH)) is NotStored.METHOD


def test_a_get_with_a_body_is_not_stored() -> None:
    assert store(make_cache(), make_request(has_body=True), make_head(FRESH)) is NotStored.REQUEST_BODY


def test_ttl_makes_a_response_without_lifetime_storable() -> None:
    cache = make_cache(ttl_s=300.0)
    stored = must_store(cache, make_request(), make_head())
    assert stored.is_fresh(NOW_S + 299)
    assert not stored.is_fresh(NOW_S + 300)


def test_ttl_does_not_override_no_cache_set_cookie_or_authorization() -> None:
    cache = make_cache(ttl_s=300.0)
    assert store(cache, make_request(), make_head("Cache-Control: no-cache")) is NotStored.NO_LIFETIME
    assert store(cache, make_request(), make_head(COOKIE)) is NotStored.SET_COOKIE
    assert store(cache, make_request(AUTH), make_head()) is NotStored.AUTHORIZATION


REUSE = [
    # response, seconds later, request, outcome, reason
    ([FRESH], 59, [], Outcome.HIT, LookupReason.HIT),
    ([FRESH], 60, [], Outcome.MISS, LookupReason.STALE),
    ([FRESH, TAG], 60, [], Outcome.STALE, LookupReason.STALE),
    ([FRESH, LONG_AGO], 60, [], Outcome.STALE, LookupReason.STALE),
    ([FRESH, "Last-Modified: long ago"], 60, [], Outcome.MISS, LookupReason.STALE),
    (["Cache-Control: no-cache, max-age=60", TAG], 1, [], Outcome.STALE, LookupReason.STALE),
    (["Cache-Control: no-cache, max-age=60", TAG], 1, ["Cache-Control: max-stale"], Outcome.STALE, LookupReason.STALE),
    ([FRESH, TAG], 1, ["Cache-Control: no-cache"], Outcome.STALE, LookupReason.REQUEST),
    ([FRESH], 1, ["Cache-Control: no-cache"], Outcome.MISS, LookupReason.REQUEST),
    ([FRESH, TAG], 1, ["Pragma: no-cache"], Outcome.STALE, LookupReason.REQUEST),
    ([FRESH, TAG], 1, ["Pragma: no-cache", "Cache-Control: max-age=9"], Outcome.HIT, LookupReason.HIT),
    ([FRESH, TAG], 0, ["Cache-Control: max-age=0"], Outcome.STALE, LookupReason.REQUEST),
    ([FRESH, TAG], 9, ["Cache-Control: max-age=9"], Outcome.HIT, LookupReason.HIT),
    ([FRESH, TAG], 10, ["Cache-Control: max-age=9"], Outcome.STALE, LookupReason.REQUEST),
    ([FRESH, TAG], 50, ["Cache-Control: min-fresh=10"], Outcome.HIT, LookupReason.HIT),
    ([FRESH, TAG], 51, ["Cache-Control: min-fresh=10"], Outcome.STALE, LookupReason.REQUEST),
    ([FRESH], 1, ["Cache-Control: no-store"], Outcome.HIT, LookupReason.HIT),
    ([FRESH], 1, [AUTH], Outcome.HIT, LookupReason.HIT),
    ([FRESH], 1000, ["Cache-Control: max-stale"], Outcome.HIT, LookupReason.HIT),
    ([FRESH], 70, ["Cache-Control: max-stale=10"], Outcome.HIT, LookupReason.HIT),
    ([FRESH], 71, ["Cache-Control: max-stale=10"], Outcome.MISS, LookupReason.STALE),
    (
        ["Cache-Control: max-age=60, must-revalidate"],
        70,
        ["Cache-Control: max-stale"],
        Outcome.MISS,
        LookupReason.STALE,
    ),
    (
        ["Cache-Control: max-age=60, proxy-revalidate"],
        70,
        ["Cache-Control: max-stale"],
        Outcome.MISS,
        LookupReason.STALE,
    ),
    (["Cache-Control: s-maxage=60"], 70, ["Cache-Control: max-stale"], Outcome.MISS, LookupReason.STALE),
    ([FRESH], 1, ["Cache-Control: only-if-cached"], Outcome.HIT, LookupReason.HIT),
    ([FRESH], 60, ["Cache-Control: only-if-cached"], Outcome.GATEWAY_TIMEOUT, LookupReason.STALE),
    ([FRESH, TAG], 60, ["Cache-Control: only-if-cached"], Outcome.GATEWAY_TIMEOUT, LookupReason.STALE),
    ([FRESH, TAG], 60, ["Cache-Control: only-if-cached, max-stale"], Outcome.HIT, LookupReason.HIT),
    ([FRESH, "Age: 50"], 9, [], Outcome.HIT, LookupReason.HIT),
    ([FRESH, "Age: 50"], 10, [], Outcome.MISS, LookupReason.STALE),
    ([FRESH], 1, ["If-Match: *"], Outcome.BYPASS, LookupReason.BYPASS),
]


@pytest.mark.parametrize(("response_lines", "later_s", "request_lines", "outcome", "reason"), REUSE)
def test_reuse(
    response_lines: list[str], later_s: float, request_lines: list[str], outcome: Outcome, reason: LookupReason
) -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(*response_lines))
    found = cache.lookup(make_request(*request_lines), NOW_S + later_s)
    assert (found.outcome, found.reason) == (outcome, reason)
    assert (found.stored is not None) == (outcome in (Outcome.HIT, Outcome.STALE))


@given(
    lifetime_s=st.integers(1, 10_000),
    age_s=st.integers(0, 9_999),
    later_s=st.floats(0, 20_000),
)
def test_a_hit_without_max_stale_is_always_fresh(lifetime_s: int, age_s: int, later_s: float) -> None:
    cache = make_cache()
    result = store(cache, make_request(), make_head(f"Cache-Control: max-age={lifetime_s}", f"Age: {age_s}"))
    found = cache.lookup(make_request(), NOW_S + later_s)
    current_age_s = age_s + ((NOW_S + later_s) - NOW_S)
    assert isinstance(result, StoredResponse) == (age_s < lifetime_s)
    assert (found.outcome is Outcome.HIT) == (current_age_s < lifetime_s)


@given(st.lists(st.floats(0, 200), min_size=1, max_size=20))
def test_uses_do_not_lengthen_a_life(moments: list[float]) -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH))
    for later_s in sorted(moments):
        found = cache.lookup(make_request(), NOW_S + later_s)
        assert (found.outcome is Outcome.HIT) == (NOW_S + later_s < NOW_S + 60)
