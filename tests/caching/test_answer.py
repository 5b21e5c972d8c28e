"""Answers made of a stored response: whole, head alone, ranges; Age and Cache-Status."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching import CachedAnswer, LookupReason, render_forwarded
from minato.caching.answer import make_answer
from minato.caching.key import PrimaryKey
from minato.caching.ranges import UNSATISFIABLE, parse_ranges
from minato.caching.status import render_key
from minato.protocol.message import Framing, field_values, first_value
from tests.caching.helpers import DATE, NOW_S, date_after, fields_of, make_cache, make_head, make_request, must_store

FRESH = "Cache-Control: max-age=60"
BODY = b"0123456789"


def answer_to(*lines: str, response: tuple[str, ...] = (), method: bytes = b"GET", status: int = 200) -> CachedAnswer:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head(FRESH, *response, status=status), BODY)
    return cache.answer(make_request(*lines, method=method), stored, NOW_S + 7.9)


def test_a_hit_is_the_whole_response_with_age_and_cache_status() -> None:
    answer = answer_to(response=("Content-Type: a/b",))
    assert (answer.status, answer.reason, answer.body) == (200, b"Reason", BODY)
    assert answer.fields == fields_of(
        FRESH,
        "Content-Type: a/b",
        f"Date: {DATE.decode()}",
        "Content-Length: 10",
        "Age: 7",
        "Cache-Status: minato; hit; ttl=53",
    )


def test_age_of_the_upstream_is_replaced_not_repeated() -> None:
    assert field_values(answer_to(response=("Age: 20",)).fields, b"age") == [b"27"]


def test_cache_status_is_appended_to_those_of_caches_further_back() -> None:
    fields = answer_to(response=("Cache-Status: origin; hit",)).fields
    assert field_values(fields, b"cache-status") == [b"origin; hit", b"minato; hit; ttl=53"]


def test_head_is_answered_from_a_stored_get_with_its_length_and_no_body() -> None:
    answer = answer_to(method=b"HEAD")
    assert answer.body == b""
    assert first_value(answer.fields, b"content-length") == b"10"


def test_a_stored_204_has_neither_body_nor_length() -> None:
    cache = make_cache()
    stored = must_store(
        cache, make_request(), make_head(FRESH, "Content-Length: 0", status=204, framing=Framing.NONE), b""
    )
    answer = cache.answer(make_request(), stored, NOW_S)
    assert (answer.status, answer.body) == (204, b"")
    assert first_value(answer.fields, b"content-length") is None


def test_what_must_not_be_stored_is_not_sent() -> None:
    names = (
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Trailer",
    )
    answer = answer_to(response=tuple(f"{name}: x" for name in names))
    assert not {name.lower().encode() for name in names} & {name for name, _ in answer.fields}


def test_a_missing_or_invalid_date_becomes_the_time_of_arrival() -> None:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head(FRESH, "Date: now"))
    assert field_values(list(stored.fields), b"date") == [DATE]


@pytest.mark.parametrize(
    ("value", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", b"bytes 0-3/10"),
        ("bytes=8-", 206, b"89", b"bytes 8-9/10"),
        ("bytes=-2", 206, b"89", b"bytes 8-9/10"),
        ("bytes=-99", 206, BODY, b"bytes 0-9/10"),
        ("bytes=5-99", 206, b"56789", b"bytes 5-9/10"),
        ("BYTES=9-9", 206, b"9", b"bytes 9-9/10"),
        ("bytes=10-", 416, b"", b"bytes */10"),
        ("bytes=-0", 416, b"", b"bytes */10"),
        ("bytes=3-2", 200, BODY, None),
        ("bytes=-", 200, BODY, None),
        ("bytes=0-1, 1-4", 206, b"01234", b"bytes 0-4/10"),
        ("bytes=10-, ,2-3", 206, b"23", b"bytes 2-3/10"),
        ("bytes=10-11,12-", 416, b"", b"bytes */10"),
        ("bytes=0-1,3-2", 200, BODY, None),
        ("bytes=," + ",".join(["0-0"] * 17), 200, BODY, None),
        ("bytes=", 200, BODY, None),
        ("bytes=+1-2", 200, BODY, None),
        ("lines=0-1", 200, BODY, None),
        ("bytes=0-" + "9" * 5000, 200, BODY, None),
    ],
)
def test_a_single_range(value: str, status: int, body: bytes, content_range: bytes | None) -> None:
    answer = answer_to(f"Range: {value}")
    assert (answer.status, answer.body, first_value(answer.fields, b"content-range")) == (status, body, content_range)
    assert field_values(answer.fields, b"content-length") == [b"%d" % len(body)]


def test_several_ranges_are_a_multipart_in_the_order_asked_for() -> None:
    answer = answer_to("Range: bytes=8-,0-1,3-3", response=("Content-Type: a/b; c=100%",))
    assert answer.status == 206
    content_type = first_value(answer.fields, b"content-type") or b""
    assert field_values(answer.fields, b"content-type") == [content_type]
    assert content_type.startswith(b"multipart/byteranges; boundary=")
    boundary = content_type.partition(b"=")[2]
    body = b"".join([answer.body, *answer.more])
    assert (
        body
        == b"".join(
            b"--%b\r\ncontent-type: a/b; c=100%%\r\ncontent-range: bytes %b/10\r\n\r\n%b\r\n" % (boundary, at, data)
            for at, data in ((b"8-9", b"89"), (b"0-1", b"01"), (b"3-3", b"3"))
        )
        + b"--%b--\r\n" % boundary
    )
    assert field_values(answer.fields, b"content-length") == [b"%d" % answer.body_bytes] == [b"%d" % len(body)]
    assert first_value(answer.fields, b"content-range") is None


def test_clients_that_are_slow_to_take_several_ranges_share_the_stored_content() -> None:
    stored = must_store(make_cache(), make_request(), make_head(FRESH), BODY)
    request = make_request("Range: bytes=0-2,4-")
    answers = [make_answer(request, stored, NOW_S, b"minato; hit") for _ in range(2)]
    assert answers[0].more == answers[1].more
    shared = [piece for piece in answers[0].more if isinstance(piece, memoryview)]
    assert [bytes(piece) for piece in shared] == [b"012", b"456789"]
    assert all(piece.obj is stored.body for piece in shared)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=16), st.integers(1, 50))
def test_ranges_never_overlap_and_hold_all_that_was_asked_for(pairs: list[tuple[int, int]], length_bytes: int) -> None:
    pairs = [(min(pair), max(pair)) for pair in pairs]
    wanted = parse_ranges(b"bytes=" + b",".join(b"%d-%d" % pair for pair in pairs), length_bytes)
    asked = {at for first, last in pairs for at in range(first, last + 1) if at < length_bytes}
    if not asked:
        assert not isinstance(wanted, list)
        return
    assert isinstance(wanted, list)
    got = [at for span in wanted for at in range(span.first, span.last + 1)]
    assert sorted(got) == sorted(asked)


def test_a_range_is_a_view_of_the_stored_body_and_no_copy_for_every_slow_client() -> None:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head(FRESH), BODY)
    for value in ("bytes=2-5", "bytes=0-", "bytes=-3"):
        body = cache.answer(make_request(f"Range: {value}"), stored, NOW_S).body
        assert isinstance(body, memoryview)
        assert body.obj is stored.body
    assert cache.answer(make_request(), stored, NOW_S).body is stored.body


def test_ranges_are_for_get_and_200_alone() -> None:
    assert answer_to("Range: bytes=0-1", method=b"HEAD").status == 200
    assert answer_to("Range: bytes=0-1", status=404).status == 404
    assert answer_to("Range: bytes=0-1", "Range: bytes=0-1").status == 200


def test_a_condition_comes_before_the_range() -> None:
    assert answer_to("Range: bytes=0-1", 'If-None-Match: "1"', response=('ETag: "1"',)).status == 304


@pytest.mark.parametrize(
    ("response", "condition", "status"),
    [
        ('ETag: "1"', '"1"', 206),
        ('ETag: "1"', '"2"', 200),
        ('ETag: W/"1"', 'W/"1"', 200),
        (f"Last-Modified: {date_after(-60).decode()}", date_after(-60).decode(), 206),
        (f"Last-Modified: {date_after(-60).decode()}", date_after(-10).decode(), 200),
        (f"Last-Modified: {date_after(-1).decode()}", date_after(-1).decode(), 200),
        ("X-Nothing: 1", "", 200),
    ],
)
def test_if_range_compares_strongly(response: str, condition: str, status: int) -> None:
    assert answer_to("Range: bytes=0-1", f"If-Range: {condition}", response=(response,)).status == status


def test_several_if_range_are_no_condition_that_holds() -> None:
    request = ("Range: bytes=0-1", 'If-Range: "1"', 'If-Range: "2"')
    assert answer_to(*request, response=('ETag: "1"',)).status == 200


def test_the_last_bytes_of_an_empty_content_are_all_of_it() -> None:
    """RFC 9110, 14.1.2: a suffix that is not 0 is satisfiable; no Content-Range can tell of no bytes."""
    assert parse_ranges(b"bytes=-5", 0) is None
    assert parse_ranges(b"bytes=-0", 0) is UNSATISFIABLE
    assert parse_ranges(b"bytes=0-", 0) is UNSATISFIABLE


@given(st.from_regex(rb"bytes=[0-9]{0,3}-[0-9]{0,3}", fullmatch=True), st.integers(0, 500))
def test_a_range_lies_within_the_content(value: bytes, length_bytes: int) -> None:
    wanted = parse_ranges(value, length_bytes)
    if isinstance(wanted, list):
        assert wanted
        assert all(0 <= span.first <= span.last < length_bytes for span in wanted)


@pytest.mark.parametrize(
    ("after_s", "ttl"),
    [(0, 60), (0.9, 60), (1, 59), (59.9, 1), (60, -1), (60.1, -1), (61, -1), (61.1, -2), (160, -100)],
)
def test_ttl_is_what_is_left_in_whole_seconds_and_negative_where_it_is_stale(after_s: float, ttl: int) -> None:
    cache = make_cache()
    stored = must_store(cache, make_request(), make_head(FRESH))
    (member,) = field_values(cache.answer(make_request(), stored, NOW_S + after_s).fields, b"cache-status")
    assert member == b"minato; hit; ttl=%d" % ttl
    assert (ttl >= 0) == stored.is_fresh(NOW_S + after_s)


@pytest.mark.parametrize(
    ("key", "member"),
    [
        ((0, b"http", b"a:81", b"/x?y=1"), b'; key="http://a:81/x?y=1"'),
        ((0, b"http", b"a b", b"/"), b'; key="http://a b/"'),
        ((0, b"http", b"a", b'/"\\', b'c="\xe4"\n=\x7f'), b'; key="http://a/\\"\\\\ c=\\"%E4\\"%0A=%7F"'),
    ],
)
def test_a_key_that_is_shown_is_a_string_of_structured_fields(key: PrimaryKey, member: bytes) -> None:
    assert render_key(key) == member


@pytest.mark.parametrize(
    ("arguments", "member"),
    [
        ({"reason": LookupReason.URI_MISS, "stored": True}, b"minato; fwd=uri-miss; stored"),
        ({"reason": LookupReason.VARY_MISS}, b"minato; fwd=vary-miss"),
        ({"reason": LookupReason.METHOD}, b"minato; fwd=method"),
        (
            {"reason": LookupReason.PARTIAL, "stored": True, "collapsed": True},
            b"minato; fwd=partial; stored; collapsed",
        ),
        ({"reason": LookupReason.STALE, "ttl_s": -0.5, "detail": b"x"}, b"minato; fwd=stale; ttl=-1; detail=x"),
        ({"reason": LookupReason.STALE, "ttl_s": 9.9}, b"minato; fwd=stale; ttl=9"),
        ({"reason": LookupReason.STALE, "upstream_status": 304}, b"minato; fwd=stale; fwd-status=304"),
    ],
)
def test_cache_status_of_what_was_forwarded(arguments: dict[str, object], member: bytes) -> None:
    assert render_forwarded(**arguments) == member  # type: ignore[arg-type]
