"""Purges: which stored responses a URL, a prefix and a tag are about; hard and soft; what is still on its way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching import Cache, NotStored, Outcome, StoredResponse
from minato.caching.purge import PurgeKind, PurgeRequest, UrlPattern, normalize_target
from minato.caching.rules import CacheRules
from minato.caching.writer import StoreWriter
from minato.config.model import CacheConfig, CacheKind, ServiceCacheConfig
from minato.decide.route import RouteTable
from minato.net.hot import HotAnswer
from tests.caching.helpers import NOW_S, begin, make_cache, make_head, make_request, must_store

FRESH = "Cache-Control: max-age=60"
URL = b"http://example.com:8080/page"
LATER_S = NOW_S + 10
Key = tuple[int, bytes, bytes, bytes]


def by_url(value: bytes = URL, *, soft: bool = False) -> PurgeRequest:
    return PurgeRequest(PurgeKind.URL, value, soft)


def by_prefix(value: bytes, *, soft: bool = False) -> PurgeRequest:
    return PurgeRequest(PurgeKind.PREFIX, value, soft)


def by_tag(value: bytes, *, soft: bool = False) -> PurgeRequest:
    return PurgeRequest(PurgeKind.TAG, value, soft)


ALL = PurgeRequest(PurgeKind.ALL)


def key(host: bytes, target: bytes, scheme: bytes = b"http", service: int = 0) -> Key:
    return (service, scheme, host, target)


@pytest.mark.parametrize(
    ("value", "matching", "others"),
    [
        (
            b"http://example.com/a?b=1",
            [
                key(b"example.com", b"/a?b=1"),
                key(b"example.com:80", b"/a?b=1"),
                key(b"example.com.", b"/a?b=1", service=3),
                key(b"example.com:", b"/a?b=1"),
                key(b"internal example.com", b"/a?b=1"),
                key(b"example.com internal", b"/a?b=1"),
                (0, b"http", b"example.com", b"/a?b=1", b"lang=de"),
            ],
            [
                key(b"example.com", b"/a"),
                key(b"example.com", b"/a?b=1&c"),
                key(b"example.com:8080", b"/a?b=1"),
                key(b"www.example.com", b"/a?b=1"),
                key(b"example.com", b"/a?b=1", b"https"),
                key(b"", b"/a?b=1"),
            ],
        ),
        (b"HTTPS://EXAMPLE.com:443", [key(b"example.com", b"/", b"https")], [key(b"example.com:80", b"/", b"https")]),
        (b"example.com?q", [key(b"example.com", b"/?q"), key(b"example.com", b"/?q", b"https")], []),
        (b"h/%7euser/a%2fb", [key(b"h", b"/~user/a%2Fb"), key(b"h", b"/%7Euser/a%2fb")], [key(b"h", b"/~user/a/b")]),
        (b"http://h/#top", [key(b"h", b"/")], [key(b"h", b"/#top")]),
        (b"http://[::1]:8080/", [key(b"[::1]:8080", b"/")], [key(b"[::1]", b"/")]),
        (b"http://[::1]/", [key(b"[::1]", b"/"), key(b"[::1]:80", b"/")], []),
        (b"", [key(b"", b"/")], [key(b"h", b"/")]),
        (b"/page", [key(b"", b"/page")], [key(b"h", b"/page")]),
        (b"h/a\nb", [key(b"h", b"/a\nb")], [key(b"h", b"/a")]),
    ],
)  # fmt: skip
def test_a_url_is_about_its_keys_alone(value: bytes, matching: list[Key], others: list[Key]) -> None:
    pattern = UrlPattern(PurgeKind.URL, value)
    assert [pattern.matches(each) for each in matching] == [True] * len(matching)
    assert [pattern.matches(each) for each in others] == [False] * len(others)


@pytest.mark.parametrize(
    ("value", "matching", "others"),
    [
        (b"http://h/img", [b"/img", b"/img/1", b"/imgs", b"/img?x"], [b"/im", b"/a/img", b"/"]),
        (b"h/img/", [b"/img/", b"/img/1.png"], [b"/img", b"/image"]),
        (b"h", [b"/", b"/a", b"*", b"/?x"], []),
        (b"http://h/a?b=", [b"/a?b=1"], [b"/a", b"/a?c"]),
        (b"h/~u", [b"/%7eu/x"], []),
    ],
)
def test_a_prefix_is_about_every_key_that_begins_so(value: bytes, matching: list[bytes], others: list[bytes]) -> None:
    pattern = UrlPattern(PurgeKind.PREFIX, value)
    assert [pattern.matches(key(b"h", target)) for target in matching] == [True] * len(matching)
    assert [pattern.matches(key(b"h", target)) for target in others] == [False] * len(others)
    assert not any(pattern.matches(key(b"h.evil", target)) for target in matching)


@given(value=st.binary(max_size=40), host=st.binary(max_size=10), target=st.binary(max_size=20))
def test_no_value_and_no_key_raise(value: bytes, host: bytes, target: bytes) -> None:
    for kind in (PurgeKind.URL, PurgeKind.PREFIX):
        UrlPattern(kind, value).matches(key(host, target))
        UrlPattern(kind, b"http://" + host + target).matches(key(host, target, b"ftp"))


@given(target=st.binary(max_size=30))
def test_normalizing_a_target_twice_changes_nothing(target: bytes) -> None:
    once = normalize_target(b"/a" + target.replace(b"%", b"%25"))
    assert normalize_target(once) == once


def test_a_url_is_read_as_the_services_keys_are_made() -> None:
    def without_utm(service: int, target: bytes) -> bytes:
        return target.partition(b"?utm_")[0] if service == 1 else target

    pattern = UrlPattern(PurgeKind.URL, b"http://h/a?utm_x=1", without_utm)
    assert pattern.matches(key(b"h", b"/a", service=1))
    assert not pattern.matches(key(b"h", b"/a", service=0))
    assert pattern.matches(key(b"h", b"/a?utm_x=1", service=0))


def test_a_url_purge_forgets_every_variant_in_every_service() -> None:
    cache = make_cache()
    for service in (0, 1):
        for language in ("de", "en"):
            request = make_request(f"Accept-Language: {language}", service=service)
            must_store(cache, request, make_head(FRESH, "Vary: Accept-Language"))
    other = must_store(cache, make_request(target=b"/other"), make_head(FRESH))
    assert cache.purge(by_url(), LATER_S) == 4
    assert cache.purge(by_url(), LATER_S) == 0
    assert cache.stats().stored == 1
    assert (cache.stats().purged, cache.stats().evictions) == (4, 0)
    assert other.is_live


def test_a_tag_purge_forgets_what_bears_the_tag() -> None:
    cache = make_cache()
    both = must_store(cache, make_request(target=b"/1"), make_head(FRESH, "Cache-Tag: news, front"))
    news = must_store(cache, make_request(target=b"/2"), make_head(FRESH, "Cache-Tag: x  news,,", "Cache-Tag: y"))
    other = must_store(cache, make_request(target=b"/3"), make_head(FRESH, "Cache-Tag: News,newsroom"))
    assert cache.purge(by_tag(b"y, x"), LATER_S) == 0
    assert cache.purge(by_tag(b"news"), LATER_S) == 2
    assert (both.is_live, news.is_live, other.is_live) == (False, False, True)
    assert cache.purge(by_tag(b"newsroom"), LATER_S) == 1


@pytest.mark.parametrize("soft", [False, True])
def test_what_several_purges_of_one_call_find_counts_once(soft: bool) -> None:
    cache = make_cache()
    must_store(cache, make_request("X-A: 1"), make_head(FRESH, "Vary: X-A", "Cache-Tag: a, b"))
    must_store(cache, make_request("X-A: 2"), make_head(FRESH, "Vary: X-A", "Cache-Tag: b"))
    purges = [by_tag(b"a", soft=soft), by_tag(b"b", soft=soft), by_url(soft=soft)]
    assert cache.purge(purges, LATER_S) == 2
    assert cache.stats().purged == 2
    assert cache.stats().stored == (2 if soft else 0)


def test_a_response_that_was_replaced_by_one_without_the_tag_no_longer_bears_it() -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH, "Cache-Tag: old"))
    must_store(cache, make_request(), make_head(FRESH, "Cache-Tag: new"))
    assert cache.purge(by_tag(b"old"), LATER_S) == 0
    assert cache.purge(by_tag(b"new"), LATER_S) == 1


def test_a_304_may_change_the_tags() -> None:
    cache = make_cache()
    old = must_store(cache, make_request(), make_head(FRESH, 'ETag: "1"', "Cache-Tag: old"))
    head = make_head(FRESH, "Cache-Tag: new", status=304)
    cache.freshen(make_request(), old, head, request_time_s=NOW_S, response_time_s=NOW_S)
    assert cache.purge(by_tag(b"old"), LATER_S) == 0
    assert cache.purge(by_tag(b"new"), LATER_S) == 1


@pytest.mark.parametrize("kind", list(CacheKind))
def test_a_purge_of_all_leaves_nothing(kind: CacheKind) -> None:
    cache = make_cache(kind=kind)
    all_stored = [must_store(cache, make_request(target=b"/%d" % n), make_head(FRESH)) for n in range(50)]
    assert cache.purge(ALL, LATER_S) == 50
    assert not any(stored.is_live for stored in all_stored)
    assert cache.stats().used_bytes == cache.stats().stored == 0
    assert cache.lookup(make_request(target=b"/1"), NOW_S).outcome is Outcome.MISS


@pytest.mark.parametrize("kind", list(CacheKind))
@pytest.mark.parametrize("purge", [by_url(soft=True), by_tag(b"a", soft=True), PurgeRequest(PurgeKind.ALL, soft=True)])
def test_a_soft_purge_makes_stale_and_keeps_for_validation(kind: CacheKind, purge: PurgeRequest) -> None:
    cache = make_cache(kind=kind)
    old = must_store(cache, make_request(), make_head(FRESH, 'ETag: "1"', "Cache-Tag: a"))
    before = cache.stats()
    assert cache.purge(purge, LATER_S) == 1
    assert replace(cache.stats(), purged=0) == before
    for now_s in (LATER_S, LATER_S + 1, NOW_S, NOW_S - 1_000):
        assert cache.find_plain_hit(make_request().key, now_s) is None
        assert cache.lookup(make_request(), now_s).outcome is Outcome.STALE
    stale = cache.lookup(make_request(), LATER_S).stored
    assert stale is not None
    assert not old.is_live
    assert (stale.body, stale.age_s(LATER_S), stale.age_s(LATER_S + 5)) == (old.body, 10, 15)
    assert cache.purge(purge, LATER_S) == 1  # a second one finds it, too


def test_a_soft_purge_makes_nothing_younger_that_was_stale_before() -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH, 'ETag: "1"'))
    cache.purge(by_url(soft=True), NOW_S + 100)
    accepts_stale = make_request("Cache-Control: max-stale=40")
    assert cache.lookup(accepts_stale, NOW_S + 100).outcome is Outcome.HIT
    assert cache.lookup(accepts_stale, NOW_S + 101).outcome is Outcome.STALE


def test_what_was_softly_purged_is_fresh_again_once_it_was_validated() -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH, 'ETag: "1"', "Cache-Tag: a"))
    cache.purge(by_url(soft=True), LATER_S)
    stale = cache.lookup(make_request(), LATER_S + 1).stored
    assert stale is not None
    times = {"request_time_s": LATER_S + 1, "response_time_s": LATER_S + 2}
    fresh = cache.freshen(make_request(), stale, make_head(FRESH, status=304), **times)
    assert fresh.is_live
    assert cache.lookup(make_request(), LATER_S + 3).outcome is Outcome.HIT
    assert cache.purge(by_tag(b"a"), LATER_S + 4) == 1


@pytest.mark.parametrize("soft", [False, True])
def test_a_hot_answer_ends_with_the_purge(soft: bool) -> None:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head(FRESH))
    hot = HotAnswer(RouteTable(), NOW_S, stored, b"wire", 200, 4)
    assert hot.holds(NOW_S + 0.5)
    cache.purge(by_url(soft=soft), NOW_S + 0.5)
    assert not hot.holds(NOW_S + 0.5)


def test_a_validation_from_before_a_purge_of_the_tag_that_it_brings_is_not_stored() -> None:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head("Cache-Control: max-age=0", 'ETag: "1"', "Cache-Tag: old"))
    cache.purge(PurgeRequest(PurgeKind.TAG, b"new"), NOW_S + 2)
    head = make_head("Cache-Control: max-age=60", 'ETag: "1"', "Cache-Tag: new", status=304)
    fresh = cache.freshen(make_request(), stored, head, request_time_s=NOW_S + 1, response_time_s=NOW_S + 3)
    assert fresh is not None  # it answers who asked before the purge
    assert not fresh.is_live
    assert cache.lookup(make_request(), NOW_S + 3).outcome is Outcome.STALE


@pytest.mark.parametrize("soft", [False, True])
def test_a_validation_from_before_a_purge_brings_nothing_back(soft: bool) -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head("Cache-Control: max-age=1", 'ETag: "1"'))
    stale = cache.lookup(make_request(), LATER_S).stored
    assert stale is not None
    cache.purge(by_url(soft=soft), LATER_S + 1)
    times = {"request_time_s": LATER_S, "response_time_s": LATER_S + 2}
    answer = cache.freshen(make_request(), stale, make_head(FRESH, status=304), **times)
    assert not answer.is_live
    assert cache.lookup(make_request(), LATER_S + 2).outcome is (Outcome.STALE if soft else Outcome.MISS)


PURGES = [by_url(), by_url(soft=True), by_prefix(b"example.com:8080/"), by_tag(b"a"), by_tag(b"a", soft=True), ALL]


@pytest.mark.parametrize("purge", PURGES)
def test_what_is_just_being_stored_is_not_stored_after_a_purge(purge: PurgeRequest) -> None:
    cache = make_cache()
    writer = begin(cache, make_request(), make_head(FRESH, "Cache-Tag: a"))
    other = begin(cache, make_request(service=1, target=b"/other"), make_head(FRESH))
    assert isinstance(writer, StoreWriter)
    assert isinstance(other, StoreWriter)
    assert cache.purge(purge, LATER_S) == 0
    assert not writer.write(b"body")
    assert writer.commit(LATER_S) is NotStored.INVALIDATED
    is_about_other = purge.kind in (PurgeKind.ALL, PurgeKind.PREFIX)
    assert isinstance(other.commit(LATER_S), NotStored if is_about_other else StoredResponse)
    assert cache.stats().reserved_bytes == 0


@pytest.mark.parametrize("purge", PURGES)
def test_a_response_whose_request_went_out_before_a_purge_is_not_stored(purge: PurgeRequest) -> None:
    cache = make_cache()
    cache.purge(purge, LATER_S)
    head = make_head(FRESH, "Cache-Tag: a")
    assert begin(cache, make_request(), head, at_s=LATER_S + 5, delay_s=6) is NotStored.INVALIDATED
    assert begin(cache, make_request(), head, at_s=LATER_S + 5, delay_s=5.01) is NotStored.INVALIDATED
    assert isinstance(begin(cache, make_request(), head, at_s=LATER_S + 5, delay_s=5), StoreWriter)
    other = begin(cache, make_request(target=b"/other", service=1), make_head(FRESH), at_s=LATER_S + 5, delay_s=6)
    assert isinstance(other, NotStored if purge.kind in (PurgeKind.ALL, PurgeKind.PREFIX) else StoreWriter)


def test_more_purges_than_are_remembered_let_nothing_old_through() -> None:
    cache = make_cache()
    cache.purge(by_url(), LATER_S)
    for number in range(1_000):
        cache.purge(by_url(b"http://h/%d" % number), LATER_S + 1 + number / 1_000)
    late = begin(cache, make_request(), make_head(FRESH), at_s=LATER_S + 10, delay_s=11)
    assert late is NotStored.INVALIDATED
    assert isinstance(begin(cache, make_request(), make_head(FRESH), at_s=LATER_S + 10, delay_s=8), StoreWriter)


def test_a_clock_that_is_set_back_lets_nothing_old_through_and_stops_storing_for_a_minute_at_most() -> None:
    cache = make_cache()
    cache.purge(by_url(), NOW_S)
    back_s = NOW_S - 10_000
    before = cache.begin_store(make_request(), make_head(FRESH), request_time_s=NOW_S - 1, response_time_s=back_s)
    assert before is NotStored.INVALIDATED
    assert isinstance(begin(cache, make_request(), make_head(FRESH), at_s=back_s + 1), StoreWriter)


def test_tags_are_bounded_in_number_and_in_size() -> None:
    cache = make_cache()
    tags = [f"t{number}" for number in range(100)]
    lines = [f"Cache-Tag: {'x' * 257},{'y' * 256}", f"Cache-Tag: {','.join(tags)}"]
    stored = must_store(cache, make_request(), make_head(FRESH, *lines))
    assert len(stored.tags) == 64
    assert stored.tags[:2] == (b"y" * 256, b"t0")
    assert cache.purge(by_tag(b"x" * 257), LATER_S) == 0
    assert cache.purge(by_tag(b"t63"), LATER_S) == 0
    assert cache.purge(by_tag(b"t62"), LATER_S) == 1


def test_the_tags_of_one_many_share_are_one_object() -> None:
    cache = make_cache()
    first = must_store(cache, make_request(target=b"/1"), make_head(FRESH, "Cache-Tag: shared"))
    second = must_store(cache, make_request(target=b"/2"), make_head(FRESH, "Cache-Tag: shared"))
    assert first.tags[0] is second.tags[0]


@pytest.mark.parametrize("kind", list(CacheKind))
def test_a_flood_of_variants_leaves_what_is_used_and_costs_bounded_memory(kind: CacheKind) -> None:
    cache = make_cache(kind=kind, capacity=100_000)
    head = make_head(FRESH, "Vary: Accept-Language")
    wanted = must_store(cache, make_request("Accept-Language: de"), head)
    other = must_store(cache, make_request(target=b"/other"), head)
    for number in range(20_000):
        must_store(cache, make_request(f"Accept-Language: x-{number}"), head)
        if number % 16 == 0:
            cache.lookup(make_request("Accept-Language: de"), NOW_S)
    assert cache.stats().stored == 65
    assert cache.stats().used_bytes < 200_000
    assert other.is_live
    assert wanted.is_live
    assert cache.purge(by_url(), LATER_S) == 64


def test_a_purge_finds_what_the_services_rules_put_under_other_keys() -> None:
    service = ServiceCacheConfig(key_cookies=("lang",), ignore_query=("utm_*",))
    config = CacheConfig(enabled=True, ttl_s=0.0)
    cache = Cache(config, {1: CacheRules(config, service)})
    plain = must_store(cache, make_request(target=b"/page?utm_x=1"), make_head(FRESH))
    for extra in (b"lang=de", b"lang=en"):
        request = replace(make_request(target=b"/page", service=1), extra=extra)
        must_store(cache, request, make_head(FRESH))
    flying = replace(make_request(target=b"/page", service=1), extra=b"lang=fr")
    writer = begin(cache, flying, make_head(FRESH))
    assert isinstance(writer, StoreWriter)
    assert cache.purge(by_url(URL + b"?utm_x=2"), LATER_S) == 2
    assert plain.is_live
    assert writer.commit(LATER_S) is NotStored.INVALIDATED
    assert cache.purge(by_url(URL + b"?utm_x=1"), LATER_S) == 1
    assert cache.stats().used_bytes == 0
