"""The cache under the rules of its services: lifetimes, bypass, and what is forgotten of a URL with several keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from minato.caching import Cache, CacheRequest, NotStored, Outcome, StoredResponse
from minato.caching.rules import CacheRules
from minato.caching.store import MAX_VARIANTS
from minato.config.model import CacheConfig, ServiceCacheConfig
from tests.caching.helpers import NOW_S, begin, date_after, fields_of, make_head, make_request, must_store, store

FRESH = "Cache-Control: max-age=60"


def make_cache(*services: ServiceCacheConfig, ttl_s: float = 0.0) -> Cache:
    """A cache of services 0, 1, ... with those rules."""
    config = CacheConfig(enabled=True, ttl_s=ttl_s)
    return Cache(config, {index: CacheRules(config, service) for index, service in enumerate(services)})


def outcome(cache: Cache, request: CacheRequest, after_s: float = 0.0) -> Outcome:
    return cache.lookup(request, NOW_S + after_s).outcome


# -- lifetimes


def test_each_service_has_its_own_ttl() -> None:
    cache = make_cache(ServiceCacheConfig(ttl_s=5.0), ServiceCacheConfig(), ServiceCacheConfig(ttl_s=0.0), ttl_s=50.0)
    stored = [store(cache, make_request(service=service), make_head()) for service in range(4)]
    lifetimes = [one.lifetime_s if isinstance(one, StoredResponse) else one for one in stored]
    assert lifetimes == [5.0, 50.0, NotStored.NO_LIFETIME, 50.0]


NEGATIVE = ServiceCacheConfig(ttl_s=50.0, negative_ttl_s=((404, 404, 10.0), (410, 410, 0.0), (500, 599, 1.0)))


@pytest.mark.parametrize(
    ("status", "lines", "lifetime_s"),
    [
        (404, [], 10.0),
        (500, [], 1.0),
        (503, [], 1.0),
        (502, ["Retry-After: 60"], 1.0),
        (404, [FRESH], 60.0),
        (500, [FRESH], 60.0),
        (500, ["Cache-Control: s-maxage=3, max-age=60"], 3.0),
        (404, [f"Expires: {date_after(7).decode()}"], 7.0),
        (404, [f"Last-Modified: {date_after(-1000).decode()}"], 10.0),
        (500, ["Cache-Control: public"], 1.0),
        (500, ["Cache-Control: public", "Set-Cookie: a=1"], 1.0),
        (500, ["Cache-Control: must-revalidate"], 1.0),
        (200, [], 50.0),
        (301, [], 50.0),
        (501, [], 1.0),
    ],
)
def test_a_negative_ttl_is_for_the_responses_of_its_status_that_bring_none(
    status: int, lines: list[str], lifetime_s: float
) -> None:
    cache = make_cache(NEGATIVE)
    stored = must_store(cache, make_request(), make_head(*lines, status=status))
    assert stored.lifetime_s == lifetime_s
    assert outcome(cache, make_request(), lifetime_s - 0.5) is Outcome.HIT
    assert outcome(cache, make_request(), lifetime_s) is not Outcome.HIT


@pytest.mark.parametrize(
    ("status", "lines", "refusal"),
    [
        (500, ["Cache-Control: no-store"], NotStored.NO_STORE),
        (500, ["Cache-Control: private"], NotStored.PRIVATE),
        (404, ["Set-Cookie: a=1"], NotStored.SET_COOKIE),
        (500, ["Vary: *"], NotStored.VARY),
        (500, ["Cache-Control: no-cache"], NotStored.NO_LIFETIME),
        (500, ["Cache-Control: max-age=0"], NotStored.NO_LIFETIME),
        (500, ["Pragma: no-cache"], NotStored.NO_LIFETIME),
        (404, ["Expires: 0"], NotStored.NO_LIFETIME),
        (500, ["Age: 1"], NotStored.NO_LIFETIME),
        (410, [], NotStored.NO_LIFETIME),
        (403, [], NotStored.NO_LIFETIME),
        (401, [], NotStored.NO_LIFETIME),
        (302, [], NotStored.NO_LIFETIME),
        (412, [FRESH], NotStored.STATUS),
    ],
)
def test_a_negative_ttl_permits_nothing_that_the_response_forbids(
    status: int, lines: list[str], refusal: NotStored
) -> None:
    assert store(make_cache(NEGATIVE), make_request(), make_head(*lines, status=status)) is refusal


def test_an_error_to_a_request_with_authorization_is_not_stored() -> None:
    cache = make_cache(NEGATIVE)
    assert store(cache, make_request("Authorization: Basic x"), make_head(status=404)) is NotStored.AUTHORIZATION
    assert store(cache, make_request("Cache-Control: no-store"), make_head(status=404)) is NotStored.REQUEST_NO_STORE


def test_without_a_negative_ttl_an_error_that_is_not_cacheable_by_default_is_not_stored() -> None:
    cache = make_cache(ServiceCacheConfig(), ttl_s=300.0)
    assert store(cache, make_request(), make_head(status=500)) is NotStored.NO_LIFETIME
    assert must_store(cache, make_request(), make_head(status=404)).lifetime_s == 300.0


# -- bypass


def test_a_bypassed_request_is_neither_answered_nor_its_response_stored() -> None:
    cache = make_cache(ServiceCacheConfig())
    must_store(cache, make_request(), make_head(FRESH))
    bypassed = replace(make_request(), is_bypassed=True)
    found = cache.lookup(bypassed, NOW_S)
    assert (found.outcome, found.reason.value, found.stored) == (Outcome.BYPASS, "bypass", None)
    assert store(cache, bypassed, make_head(FRESH, "Cache-Control: no-store")) is NotStored.BYPASS
    assert outcome(cache, make_request()) is Outcome.HIT, "what others may have stays"


def test_a_bypassed_request_that_takes_nothing_but_the_cache_gets_a_504() -> None:
    cache = make_cache(ServiceCacheConfig())
    must_store(cache, make_request(), make_head(FRESH))
    asked = replace(make_request("Cache-Control: only-if-cached"), is_bypassed=True)
    assert outcome(cache, asked) is Outcome.GATEWAY_TIMEOUT


def test_a_bypassed_unsafe_request_invalidates() -> None:
    cache = make_cache(ServiceCacheConfig())
    must_store(cache, make_request(), make_head(FRESH))
    cache.invalidate(replace(make_request(method=b"POST"), is_bypassed=True), 200, [], NOW_S)
    assert outcome(cache, make_request()) is Outcome.MISS


# -- keys with an extra part

BY_CURRENCY = ServiceCacheConfig(key_cookies=("currency",), ignore_query=("utm_*",))


def paying(currency: str, **options: object) -> CacheRequest:
    lines = [f"Cookie: currency={currency}"] if currency else []
    request = make_request(*lines, **options)  # type: ignore[arg-type]
    rules = CacheRules(CacheConfig(), BY_CURRENCY)
    return replace(request, extra=rules.key_extra(request.fields))


def test_each_extra_part_has_its_own_response() -> None:
    cache = make_cache(BY_CURRENCY)
    for currency in ("EUR", "USD", ""):
        assert outcome(cache, paying(currency)) is Outcome.MISS
        must_store(cache, paying(currency), make_head(FRESH), currency.encode())
    for currency in ("EUR", "USD", ""):
        found = cache.lookup(paying(currency), NOW_S).stored
        assert found is not None
        assert found.body == currency.encode()


def test_vary_picks_among_the_responses_of_one_extra_part() -> None:
    cache = make_cache(BY_CURRENCY)
    eur, usd = paying("EUR"), paying("USD")
    must_store(cache, eur, make_head(FRESH, "Vary: Accept"), b"1")
    assert outcome(cache, replace(eur, fields=[*eur.fields, *fields_of("Accept: x")])) is Outcome.MISS
    assert outcome(cache, usd) is Outcome.MISS
    assert outcome(cache, eur) is Outcome.HIT


@pytest.mark.parametrize("target", [b"/page", b"/page?utm_source=x"])
def test_an_unsafe_request_invalidates_the_url_whatever_else_is_in_the_keys(target: bytes) -> None:
    cache = make_cache(BY_CURRENCY)
    for currency in ("EUR", "USD", ""):
        must_store(cache, paying(currency), make_head(FRESH))
    must_store(cache, paying("EUR", target=b"/other"), make_head(FRESH))
    cache.invalidate(paying("GBP", method=b"POST", target=target), 204, [], NOW_S)
    assert [outcome(cache, paying(currency)) for currency in ("EUR", "USD", "")] == [Outcome.MISS] * 3
    assert outcome(cache, paying("EUR", target=b"/other")) is Outcome.HIT


def test_an_unsafe_request_ends_what_is_being_stored_of_the_url_whatever_else_is_in_the_key() -> None:
    cache = make_cache(BY_CURRENCY)
    writers = [begin(cache, paying(currency), make_head(FRESH)) for currency in ("EUR", "USD")]
    other = begin(cache, paying("EUR", target=b"/other"), make_head(FRESH))
    cache.invalidate(paying("EUR", method=b"DELETE"), 200, [], NOW_S)
    assert not any(isinstance(writer, NotStored) for writer in [*writers, other])
    results = [writer.commit(NOW_S) for writer in [*writers, other] if not isinstance(writer, NotStored)]
    assert results[:2] == [NotStored.INVALIDATED] * 2
    assert isinstance(results[2], StoredResponse)


def test_what_is_evicted_or_cleared_leaves_nothing_behind_in_the_index_of_urls() -> None:
    config = CacheConfig(enabled=True, capacity=3)
    cache = Cache(config, {0: CacheRules(config, BY_CURRENCY)})
    for number in range(50):
        must_store(cache, paying(str(number), target=b"/%d" % (number % 2)), make_head(FRESH))
    index = cache._store._extended
    assert len(index) == cache.stats().stored == 3
    assert cache.clear() == 3
    assert index._by_resource == {}
    assert (cache.stats().used_bytes, cache.stats().stored) == (0, 0)


def test_tens_of_thousands_of_values_of_a_key_cookie_stay_within_the_bounds() -> None:
    config = CacheConfig(enabled=True, capacity=100, max_memory_bytes=100_000)
    cache = Cache(config, {0: CacheRules(config, BY_CURRENCY)})
    for number in range(20_000):
        store(cache, paying(f"{number}" + "x" * (number % 200)), make_head(FRESH))
    assert cache.stats().used_bytes <= 100_000
    assert len(cache._store._extended) == cache.stats().stored <= 100


def test_a_flood_of_key_cookies_on_one_url_drives_out_its_own_and_nothing_else() -> None:
    config = CacheConfig(enabled=True, capacity=100)
    cache = Cache(config, {0: CacheRules(config, BY_CURRENCY)})
    others = [must_store(cache, paying("EUR", target=b"/%d" % number), make_head(FRESH)) for number in range(30)]
    used = must_store(cache, paying("EUR"), make_head(FRESH))
    for number in range(300):
        cache.touch(used)
        request = paying(str(number))
        must_store(cache, replace(request, fields=[*request.fields, (b"x-a", b"1")]), make_head(FRESH, "Vary: X-A"))
    assert used.is_live
    assert all(other.is_live for other in others)
    assert cache.stats().stored == len(others) + MAX_VARIANTS
