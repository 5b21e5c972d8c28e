"""Values full of one thing are read in linear time: keys of variants, and what responses say to caches."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from minato.caching.key import select_variant_values
from minato.caching.ranges import parse_ranges
from minato.caching.tags import read_tags
from minato.caching.targeted import read_control
from minato.caching.validation import is_not_modified
from tests.caching.helpers import NOW_S, make_cache, make_head, make_request, must_store

_BYTES = 32_000
_ROUNDS = 5  # one in which nothing else got in the way will do
_SLACK = 9.0  # four times the bytes: 4 is linear, 16 is quadratic
_LEAST_S = 0.001  # what takes less holds nobody up

_VALUES = [b"a,b%bc", b'a,"%b', b"a,%b", b"%b;a", b"max-age=1%b", b"max-age=1%b;x", b'"a", %b', b"bytes=0-1%b,2-3"]
_RUNS = [
    b" ",
    b"\t ",
    b",",
    b" ,",
    b'\\"',
    b'"',
    b"a",
    b"a ",
    b";",
    b"=",
    b"1",
    b"1-1,",
    b'"a"',
    b'"a", ',
    b"W/",
    b"a=b,",
]


def _cpu_s(read: Callable[[], object]) -> float:
    """Return the CPU time of this thread that it takes."""
    began_s = time.thread_time()
    read()
    return time.thread_time() - began_s


def _read_everything(value: bytes) -> list[Callable[[], object]]:
    stored = must_store(make_cache(), make_request(), make_head("Cache-Control: max-age=60", 'ETag: "x"'))
    return [
        lambda: select_variant_values((b"accept",), [(b"accept", value)]),
        lambda: select_variant_values((b"accept-language",), [(b"accept-language", value)]),
        lambda: read_control([(b"cache-control", value)]),
        lambda: read_control([(b"surrogate-control", value)]),
        lambda: read_control([(b"cdn-cache-control", value)]),
        lambda: read_tags([(b"cache-tag", value)]),
        lambda: parse_ranges(value, 1000),
        lambda: is_not_modified([(b"if-none-match", value)], stored, NOW_S),
    ]


@pytest.mark.parametrize("run", _RUNS)
@pytest.mark.parametrize("value", _VALUES)
def test_a_value_is_read_in_linear_time(value: bytes, run: bytes) -> None:
    few, many = (_read_everything(value % (run * (size // len(run)))) for size in (_BYTES // 4, _BYTES))
    for read_few, read_many in zip(few, many, strict=True):
        bound_s = max(_LEAST_S, _SLACK * min(_cpu_s(read_few) for _ in range(_ROUNDS)))
        assert any(_cpu_s(read_many) < bound_s for _ in range(_ROUNDS))
