"""Cache keys: what Vary nominates and which requests match it."""

from __future__ import annotations

import pytest

from minato.caching.key import read_variant_names, select_variant_values
from tests.caching.helpers import fields_of


def test_vary_names_are_lower_case_sorted_and_once_each() -> None:
    assert read_variant_names(fields_of("Vary: B-Field, accept", "Vary: ACCEPT")) == (b"accept", b"b-field")
    assert read_variant_names(fields_of("Vary: , ,")) == ()
    assert read_variant_names([]) == ()


@pytest.mark.parametrize(
    "vary",
    ["*", "accept, *", "*, accept", "no field", "a;b", "X-Forwarded-For", "via", "forwarded"],
)
def test_a_vary_that_no_request_can_be_told_to_match(vary: str) -> None:
    assert read_variant_names(fields_of(f"Vary: {vary}")) is None


def test_a_vary_on_very_many_fields_is_not_followed() -> None:
    assert read_variant_names(fields_of("Vary: " + ", ".join(f"x-{n}" for n in range(17)))) is None


def values(name: str, *lines: str) -> object:
    return select_variant_values((name.encode(),), fields_of(*lines))


def test_an_absent_field_matches_only_an_absent_one() -> None:
    assert values("x-a") == values("x-a", "X-B: 1")
    assert values("x-a") != values("x-a", "X-A:")


def test_lines_of_one_name_are_combined_in_order() -> None:
    assert values("x-a", "X-A: 1", "X-A: 2") == values("x-a", "X-A: 1,2")
    assert values("x-a", "X-A: 1", "X-A: 2") != values("x-a", "X-A: 2", "X-A: 1")


def test_spaces_and_case_mean_nothing_in_lists_that_have_none() -> None:
    assert values("accept-encoding", "Accept-Encoding: gzip, BR") == values(
        "accept-encoding", "Accept-Encoding: gzip ,br,"
    )
    assert values("x-a", "X-A: a,B") != values("x-a", "X-A: a,b")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("en, de", "de,EN", True),
        ("en;q=1.0, de ; q=0.50", "de;q=0.5, en", True),
        ("en;q=0, de;q=0.000", "de;q=0,en;q=0.0", True),
        ("en, en", "en", True),
        ("en, de;q=0.5", "en;q=0.5, de", False),
        ("en;q=0.5", "en;q=0.55", False),
        ("en;q=0", "en", False),
        ("en;x=1", "en", False),
        ("en;q=2", "en", False),
        ("en", "fr", False),
    ],
)
def test_preferences_are_compared_by_what_they_mean(one: str, other: str, same: bool) -> None:
    for name in ("Accept-Language", "Accept-Encoding", "Accept-Charset"):
        first, second = (values(name.lower(), f"{name}: {value}") for value in (one, other))
        assert (first == second) is same


def test_white_space_around_commas_means_nothing_but_inside_quotes_it_does() -> None:
    assert values("x-a", "X-A: a , b") == values("x-a", "X-A: a,b") == values("x-a", "X-A: a", "X-A: b")
    assert values("x-a", 'X-A: "a, b"') != values("x-a", 'X-A: "a,b"')
    assert values("x-a", 'X-A: "a\\", b", c') == values("x-a", 'X-A: "a\\", b",c')
    assert values("x-a", "X-A: a b") != values("x-a", "X-A: ab")


@pytest.mark.parametrize("name", ["Cookie", "User-Agent"])
def test_a_text_with_a_comma_in_it_is_no_list(name: str) -> None:
    assert values(name.lower(), f"{name}: a, b") != values(name.lower(), f"{name}: a,b")


def test_two_fields_do_not_run_into_each_other() -> None:
    names = (b"x-a", b"x-b")
    first = select_variant_values(names, fields_of("X-A: 1,2", "X-B: 3"))
    assert first != select_variant_values(names, fields_of("X-A: 1", "X-B: 2,3"))
