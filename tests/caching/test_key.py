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
    assert values("x-a", "X-A: a, B") != values("x-a", "X-A: a,b")


def test_two_fields_do_not_run_into_each_other() -> None:
    names = (b"x-a", b"x-b")
    first = select_variant_values(names, fields_of("X-A: 1,2", "X-B: 3"))
    assert first != select_variant_values(names, fields_of("X-A: 1", "X-B: 2,3"))
