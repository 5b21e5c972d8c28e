"""Cache-Control: the syntax, and the strict reading of what is odd."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching.directives import (
    MAX_DELTA_S,
    parse_delta_seconds,
    parse_directives,
    read_request_directives,
)
from minato.caching.targeted import read_control
from tests.caching.helpers import fields_of


@pytest.mark.parametrize(
    ("value", "directives"),
    [
        (b"", []),
        (b" , ,", []),
        (b"No-Store", [(b"no-store", None)]),
        (b"max-age=1, public", [(b"max-age", b"1"), (b"public", None)]),
        (b"max-age=1\t,\tpublic ", [(b"max-age", b"1"), (b"public", None)]),
        (b'max-age="10"', [(b"max-age", b"10")]),
        (b'private="a, b",public', [(b"private", b"a, b"), (b"public", None)]),
        (b'x="max-age=9, \\" no-store", max-age=1', [(b"x", b'max-age=9, " no-store'), (b"max-age", b"1")]),
        (b"max-age =1, public", [(b"max-age", b""), (b"public", None)]),
        (b"max-age= 1", [(b"max-age", b"")]),
        (b"max-age=", [(b"max-age", b"")]),
        (b'x="open, no-store', [(b"x", b""), (b"no-store", None)]),
        (b'x="a"b, no-store', [(b"x", b""), (b"no-store", None)]),
        (b"no-store max-age=1", [(b"no-store", b"")]),
        (b"=5, @, public", [(b"public", None)]),
    ],
)
def test_syntax(value: bytes, directives: list[tuple[bytes, bytes | None]]) -> None:
    assert parse_directives(value) == directives


@pytest.mark.parametrize(
    ("argument", "seconds"),
    [
        (b"0", 0),
        (b"003600", 3600),
        (b"2147483647", 2**31 - 1),
        (b"2147483649", MAX_DELTA_S),
        (b"9" * 20_000, MAX_DELTA_S),
        (b"0" * 20_000, 0),
        (b"", None),
        (b"-1", None),
        (b"+1", None),
        (b"1.0", None),
        (b"1_000", None),
        (b" 1", None),
        (b"'1'", None),
        ("٣".encode(), None),
        (None, None),
    ],
)
def test_delta_seconds(argument: bytes | None, seconds: int | None) -> None:
    assert parse_delta_seconds(argument) == seconds


@pytest.mark.parametrize(
    ("lines", "max_age_s"),
    [
        (["Cache-Control: max-age=60"], 60),
        (["Cache-Control: MAX-AGE=60"], 60),
        (["Cache-Control: max-age=60, max-age=5"], 60),
        (["Cache-Control: max-age=5", "Cache-Control: max-age=60"], 5),
        (["Cache-Control: max-age=60, max-age=abc"], 60),
        (["Cache-Control: max-age=abc, max-age=60"], 0),
        (["Cache-Control: max-age"], 0),
        (['Cache-Control: x="max-age=60"'], None),
        (["Cache-Control: public"], None),
        ([], None),
    ],
)
def test_of_a_response_the_first_max_age_counts_and_an_invalid_one_is_zero(
    lines: list[str], max_age_s: int | None
) -> None:
    assert read_control(fields_of(*lines)).max_age_s == max_age_s


def test_a_restriction_with_an_odd_argument_is_still_one() -> None:
    directives = read_control(fields_of('Cache-Control: no-store=1, private="x a", no-cache=x y'))
    assert directives.no_store
    assert directives.private
    assert directives.no_cache


def test_no_cache_and_private_with_field_names_withhold_those_fields_alone() -> None:
    directives = read_control(fields_of('Cache-Control: no-cache="Set-Cookie, X-A", private=x-b'))
    assert directives.withheld == {b"set-cookie", b"x-a", b"x-b"}
    assert not directives.no_cache
    assert not directives.private
    assert read_control(fields_of('Cache-Control: no-cache="x-a", no-cache')).no_cache


@pytest.mark.parametrize("argument", ['""', '", ,"', '"a b"', '"a', "", '"x/y"'])
def test_names_that_are_none_limit_nothing(argument: str) -> None:
    assert read_control(fields_of(f"Cache-Control: no-cache={argument}")).no_cache


@pytest.mark.parametrize("name", ["vary", "x-a, Vary", "Date", "content-type", "Content-Encoding", "etag", "expires"])
def test_what_a_response_cannot_be_without_is_not_withheld_by_itself(name: str) -> None:
    directives = read_control(fields_of(f'Cache-Control: max-age=60, no-cache="{name}"'))
    assert (directives.no_cache, directives.withheld) == (True, frozenset())
    assert read_control(fields_of(f'Cache-Control: max-age=60, private="{name}"')).private


def test_stale_extensions_are_read_and_invalid_ones_extend_nothing() -> None:
    line = "Cache-Control: max-age=1, stale-while-revalidate=30, stale-if-error=9, stale-if-error=60"
    directives = read_control(fields_of(line))
    assert (directives.stale_while_revalidate_s, directives.stale_if_error_s) == (30, 9)
    directives = read_control(fields_of("Cache-Control: stale-while-revalidate, stale-if-error=-1"))
    assert (directives.stale_while_revalidate_s, directives.stale_if_error_s) == (0, 0)
    assert read_request_directives(fields_of("Cache-Control: stale-if-error=5")).stale_if_error_s == 5
    assert read_request_directives(fields_of("Cache-Control: stale-if-error")).stale_if_error_s == 0


@pytest.mark.parametrize("word", ["must-revalidate", "proxy-revalidate", "no-cache", "s-maxage=1"])
def test_what_forbids_stale_reuse(word: str) -> None:
    assert read_control(fields_of(f"Cache-Control: max-age=1, {word}")).forbids_stale
    assert not read_control(fields_of("Cache-Control: max-age=1")).forbids_stale


def test_of_a_request_invalid_numbers_are_the_strictest() -> None:
    directives = read_request_directives(fields_of("Cache-Control: max-age=x, min-fresh=x, max-stale=x"))
    assert (directives.max_age_s, directives.min_fresh_s, directives.max_stale_s) == (0, MAX_DELTA_S, 0)


def test_of_a_request_the_strictest_of_duplicates_counts() -> None:
    directives = read_request_directives(
        fields_of(
            "Cache-Control: max-age=9, max-age=3, min-fresh=1, min-fresh=7", "Cache-Control: max-stale, max-stale=5"
        )
    )
    assert (directives.max_age_s, directives.min_fresh_s, directives.max_stale_s) == (3, 7, 5)


def test_max_stale_without_argument_is_unlimited() -> None:
    assert read_request_directives(fields_of("Cache-Control: max-stale")).max_stale_s == MAX_DELTA_S


def test_pragma_counts_only_without_cache_control() -> None:
    assert read_request_directives(fields_of("Pragma: no-cache")).no_cache
    assert not read_request_directives(fields_of("Pragma: no-cache", "Cache-Control: max-age=5")).no_cache


@given(st.text("maxage-no,=\"\\ \t'0123", max_size=60))
def test_any_line_is_read_without_raising_and_the_members_are_in_it(line: str) -> None:
    value = line.encode()
    for name, _ in parse_directives(value):
        assert name in value


@given(st.lists(st.sampled_from(["public", "max-age=7", 'x="a,b"', "no-store", "x=1"]), max_size=6), st.integers(0, 6))
def test_no_store_is_seen_wherever_it_stands(members: list[str], position: int) -> None:
    members.insert(position, "no-store")
    assert read_control(fields_of("Cache-Control: " + ", ".join(members))).no_store
