"""Targeted fields: which field counts, and that a malformed one does not."""

from __future__ import annotations

import pytest

from minato.caching import NotStored
from minato.caching.targeted import read_control
from tests.caching.helpers import NOW_S, date_after, fields_of, make_cache, make_head, make_request, must_store, store

LONG_AGO = f"Last-Modified: {date_after(-100_000).decode()}"


@pytest.mark.parametrize(
    ("lines", "max_age_s"),
    [
        (["CDN-Cache-Control: max-age=60", "Cache-Control: max-age=1"], 60),
        (["Cache-Control: max-age=1", "CDN-Cache-Control: max-age=60"], 60),
        (["CDN-Cache-Control: max-age=60", "Minato-Cache-Control: max-age=5"], 5),
        (["CDN-Cache-Control: max-age=60", "Minato-Cache-Control:"], 60),
        (["CDN-Cache-Control: max-age=60", "Minato-Cache-Control: Max-Age=5"], 60),
        (["CDN-Cache-Control: max-age=60, &", "Cache-Control: max-age=1"], 1),
        (["CDN-Cache-Control: max-age=60,", "Cache-Control: max-age=1"], 1),
        (["CDN-Cache-Control: max-age =60", "Cache-Control: max-age=1"], 1),
        (["CDN-Cache-Control: foo", "CDN-Cache-Control: max-age=7"], 7),
        (["CDN-Cache-Control: max-age=99999999999"], 2**31),
        (["CDN-Cache-Control: max-age=60;x=1"], 60),
        (['CDN-Cache-Control: max-age="60"', "Cache-Control: max-age=1"], 0),
        (["CDN-Cache-Control: max-age=1.0", "Cache-Control: max-age=1"], 0),
        (["CDN-Cache-Control: max-age=-1", "Cache-Control: max-age=1"], 0),
        (["CDN-Cache-Control: max-age", "Cache-Control: max-age=1"], 0),
        (["CDN-Cache-Control: none", "Cache-Control: max-age=1"], None),
        (["Surrogate-Control: max-age=60", "Cache-Control: max-age=1"], 60),
        (["Surrogate-Control: max-age=60", "CDN-Cache-Control: max-age=1"], 1),
        (["Surrogate-Control: Max-Age=60;minato"], 60),
        (["Surrogate-Control: max-age=60+600"], 60),
        (["Surrogate-Control: max-age=60;other", "Cache-Control: max-age=1"], 1),
        (['Surrogate-Control: content="ESI/1.0";other, max-age=9', "Cache-Control: max-age=1"], 9),
    ],
)
def test_the_first_valid_field_of_the_list_counts(lines: list[str], max_age_s: int | None) -> None:
    assert read_control(fields_of(*lines)).max_age_s == max_age_s


def test_flags_are_true_members_and_false_ones_are_absent() -> None:
    directives = read_control(fields_of("CDN-Cache-Control: no-store=?0, private=?1, must-revalidate"))
    assert (directives.no_store, directives.private, directives.must_revalidate) == (False, True, True)


def test_a_field_that_only_says_what_is_not_so_counts_nevertheless() -> None:
    directives = read_control(fields_of("CDN-Cache-Control: no-store=?0", "Cache-Control: no-store, max-age=60"))
    assert directives.is_targeted
    assert not directives.no_store
    assert directives.max_age_s is None


def test_field_names_are_read_from_a_string() -> None:
    assert read_control(fields_of('CDN-Cache-Control: no-cache="x-a, x-b"')).withheld == {b"x-a", b"x-b"}


def test_cache_control_and_expires_do_not_count_beside_it() -> None:
    cache = make_cache()
    lines = ("Cache-Control: no-store", f"Expires: {date_after(-9).decode()}", "CDN-Cache-Control: max-age=60")
    stored = must_store(cache, make_request(), make_head(*lines))
    assert stored.is_fresh(NOW_S + 59)
    lines = ("Cache-Control: max-age=60", f"Expires: {date_after(60).decode()}", "CDN-Cache-Control: no-store")
    assert store(cache, make_request(), make_head(*lines)) is NotStored.NO_STORE


def test_expires_does_not_count_where_the_targeted_field_has_no_lifetime() -> None:
    cache = make_cache()
    lines = (f"Expires: {date_after(60).decode()}", "CDN-Cache-Control: public", LONG_AGO)
    stored = must_store(cache, make_request(), make_head(*lines))
    assert stored.lifetime_s == 10_000  # the guess


def test_it_is_passed_on_with_the_response() -> None:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head("CDN-Cache-Control: max-age=60"))
    assert (b"cdn-cache-control", b"max-age=60") in cache.answer(make_request(), stored, NOW_S).fields
