"""Structured fields: what is a dictionary, what is none, and that no bytes raise anything else."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minato.caching.structured import InnerList, NotStructured, Token, parse_dictionary


def values_of(*lines: bytes) -> dict[bytes, object]:
    return {name: value for name, (value, _) in parse_dictionary(list(lines)).items()}


@pytest.mark.parametrize(
    ("line", "values"),
    [
        (b"", {}),
        (b"   ", {}),
        (b"a", {b"a": True}),
        (b"a=1, b=-2,c=?0", {b"a": 1, b"b": -2, b"c": False}),
        (b"a=1.5", {b"a": 1.5}),
        (b'a="x \\"y\\" \\\\"', {b"a": b'x "y" \\'}),
        (b"a=tok/en:1", {b"a": Token(b"tok/en:1")}),
        (b"a=:aGk=:", {b"a": b"hi"}),
        (b"a=1;x;y=2, b", {b"a": 1, b"b": True}),
        (b"a=1\t,\t b=2", {b"a": 1, b"b": 2}),
        (b"a=1, b=2, a=3", {b"b": 2, b"a": 3}),
        (b"*a-b_c.d*=1", {b"*a-b_c.d*": 1}),
        (b"a=999999999999999", {b"a": 999_999_999_999_999}),
    ],
)
def test_dictionaries(line: bytes, values: dict[bytes, object]) -> None:
    found = values_of(line)
    assert found == values
    assert list(found) == list(values)
    assert [type(value) for value in found.values()] == [type(value) for value in values.values()]


def test_an_inner_list_is_a_value_and_its_members_are_checked() -> None:
    assert isinstance(values_of(b'a=( 1 "x";q  t ), b')[b"a"], InnerList)
    with pytest.raises(NotStructured):
        parse_dictionary([b"a=(1 2"])
    with pytest.raises(NotStructured):
        parse_dictionary([b"a=(1,2)"])


def test_parameters_are_read() -> None:
    assert parse_dictionary([b'a;x=1; y="z";w'])[b"a"] == (True, {b"x": 1, b"y": b"z", b"w": True})


def test_lines_are_combined() -> None:
    assert values_of(b"a=1", b"b=2") == {b"a": 1, b"b": 2}


@pytest.mark.parametrize(
    "line",
    [
        b"A=1",
        b"max-Age=1",
        b"a =1",
        b"a= 1",
        b"a=",
        b"a,",
        b",a",
        b"a,,b",
        b"a b",
        b"1a",
        b"a=1000000000000000",
        b"a=1.",
        b"a=1.1234",
        b"a=1234567890123.1",
        b"a=--1",
        b"a=?2",
        b'a="x',
        b'a="\\x"',
        b'a="\xfc"',
        b"a=:x:",
        b"a=:aGk=",
        b"a=1, &&&",
        b"a;",
        b"a;X",
        b"a=\xfc",
        b"\ta",
    ],
)
def test_one_mistake_and_it_is_none(line: bytes) -> None:
    with pytest.raises(NotStructured):
        parse_dictionary([line])


@given(st.binary(max_size=40) | st.text('ab=;,"\\ ()?:01.-*', max_size=40).map(str.encode))
@example(b"a=-")
@example(b"a=(")
def test_no_bytes_raise_anything_else(line: bytes) -> None:
    with contextlib.suppress(NotStructured):
        parse_dictionary([line])


@given(
    st.dictionaries(st.from_regex(rb"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True), st.integers(-(10**15) + 1, 10**15 - 1))
)
def test_integers_come_back(members: dict[bytes, int]) -> None:
    line = b", ".join(b"%b=%d" % member for member in members.items())
    assert values_of(line) == members
