"""What a HEAD tells of stored responses, what a 304 tells of several, and fields that are for one client alone."""

from __future__ import annotations

import pytest

from minato.caching import Cache, StoredResponse
from minato.caching.freshening import fields_for_client_alone
from minato.protocol.message import first_value
from tests.caching.helpers import (
    NOW_S,
    date_after,
    fields_of,
    make_cache,
    make_head,
    make_request,
    must_store,
)

FRESH = "Cache-Control: max-age=60"
LATER_S = NOW_S + 100


def send_head(cache: Cache, *lines: str, status: int = 200, request: tuple[str, ...] = ()) -> None:
    cache.freshen_by_head(
        make_request(*request, method=b"HEAD"),
        make_head(*lines, f"Date: {date_after(100).decode()}", status=status),
        request_time_s=LATER_S,
        response_time_s=LATER_S,
    )


def selected(cache: Cache) -> StoredResponse | None:
    return cache.lookup(make_request(), LATER_S + 1).stored


def test_a_head_that_agrees_freshens_what_is_stored() -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH, 'ETag: "1"', "X-A: old", "X-B: old"), b"body")
    send_head(cache, FRESH, 'ETag: "1"', "X-A: new", "Content-Length: 4")
    fresh = selected(cache)
    assert fresh is not None
    assert fresh.is_fresh(LATER_S + 59)
    assert fresh.body == b"body"
    fields = list(fresh.fields)
    assert [first_value(fields, name) for name in (b"x-a", b"x-b", b"content-length")] == [b"new", b"old", b"4"]


@pytest.mark.parametrize("line", ['ETag: "2"', "Content-Length: 5", f"Last-Modified: {date_after(-5).decode()}"])
def test_a_head_that_disagrees_ends_it(line: str) -> None:
    cache = make_cache()
    old = must_store(cache, make_request(), make_head(FRESH, 'ETag: "1"'), b"body")
    send_head(cache, FRESH, line)
    assert not old.is_live


def test_a_head_that_says_no_store_ends_it() -> None:
    cache = make_cache()
    old = must_store(cache, make_request(), make_head(FRESH, 'ETag: "1"'))
    send_head(cache, "Cache-Control: no-store", 'ETag: "1"')
    assert not old.is_live


def test_another_status_or_a_request_with_no_store_changes_nothing() -> None:
    cache = make_cache()
    old = must_store(cache, make_request(), make_head(FRESH, 'ETag: "1"'))
    send_head(cache, 'ETag: "2"', status=404)
    send_head(cache, 'ETag: "2"', request=("Cache-Control: no-store",))
    assert old.is_live


def test_vary_is_not_lost_by_a_304_whatever_no_cache_names() -> None:
    cache = make_cache()
    lines = ('Cache-Control: max-age=60, no-cache="vary"', 'ETag: "1"')
    stored = must_store(cache, make_request("X-V: a"), make_head(*lines, "Vary: x-v"))
    times = {"request_time_s": LATER_S, "response_time_s": LATER_S}
    fresh = cache.freshen(make_request("X-V: a"), stored, make_head(*lines, status=304), **times)
    assert fresh is not None
    assert fresh.names == (b"x-v",)
    assert first_value(list(fresh.fields), b"vary") == b"x-v"
    assert cache.lookup(make_request("X-V: b"), LATER_S).stored is None


def test_a_head_speaks_of_the_variant_it_selects_alone() -> None:
    cache = make_cache()
    vary = (FRESH, 'ETag: "1"', "Vary: x-v")
    kept = must_store(cache, make_request("X-V: a"), make_head(*vary))
    gone = must_store(cache, make_request("X-V: b"), make_head(*vary))
    send_head(cache, 'ETag: "2"', request=("X-V: b",))
    assert kept.is_live
    assert not gone.is_live


def test_a_304_freshens_every_response_of_its_strong_etag_that_the_request_could_select() -> None:
    cache = make_cache()
    tag = 'ETag: "1"'
    one = must_store(cache, make_request("X-V: a"), make_head(FRESH, tag, "Vary: x-v"))
    store_other = make_request("X-W: c")
    two = must_store(cache, store_other, make_head(FRESH, tag, "Vary: x-w", f"Date: {date_after(1).decode()}"))
    request = make_request("X-V: a", "X-W: c")
    response = make_head(FRESH, tag, f"Date: {date_after(100).decode()}", status=304)
    cache.freshen(request, two, response, request_time_s=LATER_S, response_time_s=LATER_S)
    assert not one.is_live
    for lines in (("X-V: a",), ("X-W: c",)):
        stored = cache.lookup(make_request(*lines), LATER_S).stored
        assert stored is not None
        assert stored.is_fresh(LATER_S + 1), lines


@pytest.mark.parametrize(("other_tag", "is_updated"), [((), True), (('ETag: "other"',), False)])
def test_a_strong_last_modified_freshens_the_like_of_it_but_gives_no_other_tag(
    other_tag: tuple[str, ...], is_updated: bool
) -> None:
    cache = make_cache()
    modified = f"Last-Modified: {date_after(-1000).decode()}"
    other = must_store(cache, make_request("X-V: a"), make_head(FRESH, modified, *other_tag, "Vary: x-v"))
    own = must_store(cache, make_request("X-W: c"), make_head(FRESH, modified, 'ETag: "1"', "Vary: x-w"))
    response = make_head(FRESH, modified, 'ETag: "1"', f"Date: {date_after(100).decode()}", status=304)
    request = make_request("X-V: a", "X-W: c")
    cache.freshen(request, own, response, request_time_s=LATER_S, response_time_s=LATER_S)
    assert other.is_live is not is_updated


def test_withheld_fields_are_not_stored_and_go_to_whoever_asked() -> None:
    cache = make_cache()
    control = 'Cache-Control: max-age=60, no-cache="x-own", private="x-mine"'
    stored = must_store(cache, make_request(), make_head(control, 'ETag: "1"', "X-Own: 1", "X-Mine: 2", "X-All: 3"))
    names = {name for name, _ in stored.fields}
    assert b"x-all" in names
    assert not names & {b"x-own", b"x-mine"}
    update = fields_of('ETag: "1"', "X-Own: 2", "X-All: 4")
    assert fields_for_client_alone(stored, update) == [(b"x-own", b"2")]
    response = make_head('ETag: "1"', "X-Own: 2", status=304)
    fresh = cache.freshen(make_request(), stored, response, request_time_s=LATER_S, response_time_s=LATER_S)
    assert fresh is not None
    assert b"x-own" not in {name for name, _ in fresh.fields}
