"""Parts: stored by their positions, combined where they are of one version, never taken for the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.caching import Cache, LookupReason, NotStored, Outcome, StoredResponse
from minato.caching.ranges import ByteRange, find_gaps, parse_content_range
from minato.caching.writer import StoreWriter
from minato.protocol.message import Framing, ResponseHead, first_value
from tests.caching.helpers import NOW_S, begin, date_after, make_cache, make_head, make_request, must_store

WHOLE = b"0123456789"
FRESH = "Cache-Control: max-age=60"
TAG = 'ETag: "1"'


def ask(cache: Cache, *lines: str, at_s: float = NOW_S) -> tuple[Outcome, bytes]:
    request = make_request(*lines)
    found = cache.lookup(request, at_s)
    if found.outcome is not Outcome.HIT:
        return found.outcome, b""
    assert found.stored is not None
    return found.outcome, bytes(cache.answer(request, found.stored, at_s).body)


def part_head(first: int, last: int, *lines: str, of: int = 10) -> ResponseHead:
    return make_head(*(lines or (FRESH, TAG)), f"Content-Range: bytes {first}-{last}/{of}", status=206)


def store_part(
    cache: Cache, first: int, last: int, *lines: str, at_s: float = NOW_S, body: bytes = WHOLE
) -> StoredResponse | NotStored:
    request = make_request(f"Range: bytes={first}-{last}")
    writer = begin(cache, request, part_head(first, last, *lines, of=len(body)), at_s=at_s)
    if isinstance(writer, NotStored):
        return writer
    writer.write(body[first : last + 1])
    return writer.commit(at_s)


def test_a_part_answers_ranges_within_it_and_nothing_else() -> None:
    cache = make_cache()
    store_part(cache, 4, 8)
    assert ask(cache, "Range: bytes=4-8") == (Outcome.HIT, b"45678")
    assert ask(cache, "Range: bytes=6-7") == (Outcome.HIT, b"67")
    assert ask(cache, "Range: bytes=8-8,4-4")[0] is Outcome.HIT
    for other in ("bytes=3-8", "bytes=4-9", "bytes=4-", "bytes=-2", "bytes=0-0", "bytes=4-5,9-9", "lines=4-5"):
        assert ask(cache, f"Range: {other}")[0] is Outcome.MISS, other
    assert ask(cache)[0] is Outcome.MISS
    assert cache.lookup(make_request(method=b"HEAD"), NOW_S).outcome is Outcome.MISS
    assert cache.find_plain_hit(make_request().key, NOW_S) is None


def test_a_part_knows_how_long_the_whole_is() -> None:
    cache = make_cache()
    store_part(cache, 4, 9)
    assert ask(cache, "Range: bytes=-3") == (Outcome.HIT, b"789")
    request = make_request("Range: bytes=10-")
    found = cache.lookup(request, NOW_S)
    assert found.stored is not None
    assert cache.answer(request, found.stored, NOW_S).status == 416


def test_an_answer_from_a_part_says_where_it_belongs() -> None:
    cache = make_cache()
    stored = store_part(cache, 4, 8)
    assert isinstance(stored, StoredResponse)
    answer = cache.answer(make_request("Range: bytes=5-6"), stored, NOW_S)
    assert answer.status == 206
    assert first_value(answer.fields, b"content-range") == b"bytes 5-6/10"
    assert first_value(answer.fields, b"content-length") == b"2"


def test_a_stale_part_does_not_answer() -> None:
    cache = make_cache()
    store_part(cache, 4, 8)
    assert ask(cache, "Range: bytes=4-8", at_s=NOW_S + 60)[0] is Outcome.MISS


def test_parts_of_one_version_are_combined_until_they_are_whole() -> None:
    cache = make_cache()
    store_part(cache, 0, 3)
    store_part(cache, 6, 9)
    assert ask(cache, "Range: bytes=1-2") == (Outcome.HIT, b"12")
    assert ask(cache, "Range: bytes=-4") == (Outcome.HIT, b"6789")
    assert ask(cache, "Range: bytes=2-7")[0] is Outcome.MISS
    whole = store_part(cache, 2, 7)
    assert isinstance(whole, StoredResponse)
    assert (whole.spans, whole.body, whole.status) == ((), WHOLE, 200)
    assert ask(cache) == (Outcome.HIT, WHOLE)
    assert first_value(list(whole.fields), b"content-length") == b"10"
    assert cache.stats().stored == 1


@pytest.mark.parametrize(
    "lines",
    [
        (FRESH,),
        (FRESH, 'ETag: "2"'),
        (FRESH, 'ETag: W/"1"'),
        (FRESH, f"Last-Modified: {date_after(-1).decode()}"),
    ],
    ids=["none", "another", "weak", "young-date"],
)
def test_parts_without_the_same_strong_validator_are_not_combined(lines: tuple[str, ...]) -> None:
    cache = make_cache()
    store_part(cache, 0, 4, *(lines if lines[1:] != ('ETag: "2"',) else (FRESH, TAG)))
    store_part(cache, 5, 9, *lines, body=b"abcdefghij")
    assert ask(cache, "Range: bytes=5-9") == (Outcome.HIT, b"fghij")
    assert ask(cache, "Range: bytes=0-4")[0] is Outcome.MISS


def test_a_strong_last_modified_combines() -> None:
    cache = make_cache()
    lines = (FRESH, f"Last-Modified: {date_after(-1000).decode()}")
    store_part(cache, 0, 4, *lines)
    store_part(cache, 5, 9, *lines)
    assert ask(cache) == (Outcome.HIT, WHOLE)


def test_another_length_is_another_version() -> None:
    cache = make_cache()
    store_part(cache, 0, 4)
    store_part(cache, 5, 10, body=WHOLE + b"X")
    assert ask(cache, "Range: bytes=0-4")[0] is Outcome.MISS


def test_the_fields_of_the_newer_part_count_and_the_others_stay() -> None:
    cache = make_cache()
    store_part(cache, 0, 4, FRESH, TAG, "X-A: old", "X-B: old")
    whole = store_part(cache, 5, 9, "Cache-Control: max-age=600", TAG, "X-A: new")
    assert isinstance(whole, StoredResponse)
    fields = list(whole.fields)
    assert [first_value(fields, name) for name in (b"x-a", b"x-b", b"content-range")] == [b"new", b"old", None]
    assert whole.lifetime_s == 600


def test_a_part_of_the_same_version_freshens_the_whole() -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH, TAG), WHOLE)
    store_part(cache, 2, 3, FRESH, TAG, f"Date: {date_after(100).decode()}", at_s=NOW_S + 100)
    assert ask(cache, at_s=NOW_S + 120) == (Outcome.HIT, WHOLE)


def test_a_part_replaces_no_whole_unless_that_is_outdated() -> None:
    cache = make_cache()
    must_store(cache, make_request(), make_head(FRESH, TAG), WHOLE)
    assert store_part(cache, 2, 3, FRESH) is NotStored.PART
    assert ask(cache) == (Outcome.HIT, WHOLE)
    assert isinstance(store_part(cache, 0, 3, FRESH, 'ETag: "2"'), StoredResponse)
    assert ask(cache)[0] is Outcome.PARTIAL


@pytest.mark.parametrize(
    ("content_range", "reason"),
    [
        ("bytes 2-4/*", NotStored.PART),
        ("bytes 4-2/10", NotStored.PART),
        ("bytes 2-10/10", NotStored.PART),
        ("bytes */10", NotStored.PART),
        ("lines 2-4/10", NotStored.PART),
        ("bytes 2-4/10, bytes 6-7/10", NotStored.PART),
        ("", NotStored.PART),
        ("bytes 2-4/99999999", NotStored.TOO_LARGE),
    ],
)
def test_a_206_that_cannot_be_placed_is_not_stored(content_range: str, reason: NotStored) -> None:
    head = make_head(FRESH, TAG, f"Content-Range: {content_range}", status=206)
    assert begin(make_cache(), make_request("Range: bytes=2-4"), head) is reason


def test_a_206_that_nobody_asked_for_is_not_stored() -> None:
    assert begin(make_cache(), make_request(), part_head(2, 4)) is NotStored.PART


def test_a_206_to_if_range_is_stored_only_with_what_it_adds_to() -> None:
    """RFC 9110, 15.3.7: such a 206 need not say of what type or coding the content is."""
    cache = make_cache()
    request = make_request("Range: bytes=0-9", f"If-Range: {TAG.removeprefix('ETag: ')}")
    assert begin(cache, request, part_head(0, 9, FRESH, TAG)) is NotStored.PART
    store_part(cache, 0, 4, FRESH, TAG, "Content-Type: text/x")
    writer = begin(cache, request, part_head(5, 9, FRESH, TAG))
    assert not isinstance(writer, NotStored)
    writer.write(WHOLE[5:])
    whole = writer.commit(NOW_S)
    assert isinstance(whole, StoredResponse)
    assert (whole.body, dict(whole.fields)[b"content-type"]) == (WHOLE, b"text/x")


def test_a_206_that_completes_what_is_gone_is_not_stored() -> None:
    cache = make_cache()
    store_part(cache, 0, 4)
    stored = cache.lookup(make_request(), NOW_S).stored
    assert stored is not None
    cache.forget(stored)
    head = part_head(5, 9)
    begun = cache.begin_store(make_request(), head, request_time_s=NOW_S, response_time_s=NOW_S, completes=stored)
    assert begun is NotStored.PART


def test_a_multipart_206_is_not_stored() -> None:
    head = make_head(FRESH, TAG, "Content-Type: multipart/byteranges; boundary=x", status=206)
    assert begin(make_cache(), make_request("Range: bytes=2-4,6-7"), head) is NotStored.PART


@pytest.mark.parametrize("content_type", ["multipart/byteranges; boundary=x", "Multipart/ByteRanges"])
def test_a_multipart_that_claims_one_range_is_not_stored(content_type: str) -> None:
    head = make_head(FRESH, TAG, f"Content-Type: {content_type}", "Content-Range: bytes 0-9/10", status=206)
    assert begin(make_cache(), make_request("Range: bytes=0-1,6-7"), head) is NotStored.PART


@pytest.mark.parametrize("body", [b"23", b"2345"])
def test_a_206_of_another_length_than_its_range_is_not_stored(body: bytes) -> None:
    cache = make_cache()
    head = make_head(
        FRESH, TAG, "Content-Range: bytes 2-4/10", status=206, framing=Framing.LENGTH, length_bytes=len(body)
    )
    assert begin(cache, make_request("Range: bytes=2-4"), head) is NotStored.INCOMPLETE
    writer = begin(cache, make_request("Range: bytes=2-4"), part_head(2, 4))
    assert not isinstance(writer, NotStored)
    writer.write(body)
    assert writer.commit(NOW_S) is NotStored.INCOMPLETE
    assert cache.stats().stored == cache.stats().reserved_bytes == 0


def test_what_is_missing_is_asked_for_with_if_range() -> None:
    cache = make_cache()
    store_part(cache, 0, 4)
    request = make_request('If-None-Match: "0"', "X-A: 1")
    found = cache.lookup(request, NOW_S)
    assert (found.outcome, found.reason, found.missing) == (Outcome.PARTIAL, LookupReason.PARTIAL, ByteRange(5, 9))
    assert found.stored is not None
    assert found.missing is not None
    fields = cache.completing_fields(request, found.stored, found.missing)
    assert fields == [(b"x-a", b"1"), (b"range", b"bytes=5-"), (b"if-range", b'"1"')]
    cache = make_cache()
    store_part(cache, 3, 9)
    found = cache.lookup(make_request(), NOW_S)
    assert found.stored is not None
    assert found.missing is not None
    assert (b"range", b"bytes=0-2") in cache.completing_fields(make_request(), found.stored, found.missing)


def test_a_part_with_two_gaps_or_without_validator_is_fetched_anew() -> None:
    cache = make_cache()
    store_part(cache, 3, 4)
    assert ask(cache)[0] is Outcome.MISS
    cache = make_cache()
    store_part(cache, 0, 4, FRESH)
    assert ask(cache)[0] is Outcome.MISS


def test_gaps() -> None:
    assert find_gaps((), 3) == [ByteRange(0, 2)]
    assert find_gaps((ByteRange(1, 1), ByteRange(3, 4)), 5) == [ByteRange(0, 0), ByteRange(2, 2)]
    assert find_gaps((ByteRange(0, 4),), 5) == []


@given(st.binary(max_size=30))
def test_no_content_range_raises(value: bytes) -> None:
    parse_content_range(value)
    parse_content_range(b"bytes " + value)


@given(
    st.binary(min_size=1, max_size=40).flatmap(
        lambda body: st.tuples(
            st.just(body),
            st.lists(st.tuples(st.integers(0, len(body) - 1), st.integers(0, len(body) - 1)), min_size=1, max_size=25),
        )
    )
)
def test_whatever_parts_came_every_range_that_is_answered_is_right(drawn: tuple[bytes, list[tuple[int, int]]]) -> None:
    body, pairs = drawn
    cache = make_cache()
    held: set[int] = set()
    for pair in pairs:
        first, last = min(pair), max(pair)
        store_part(cache, first, last, body=body)
        held |= set(range(first, last + 1))
        for at in range(len(body)):
            found = ask(cache, f"Range: bytes={at}-{at}")
            assert found == (Outcome.MISS, b"") or (at in held and found == (Outcome.HIT, body[at : at + 1]))
        # The newest part is always there, and the whole once all of it came.
        assert ask(cache, f"Range: bytes={first}-{last}") == (Outcome.HIT, body[first : last + 1])
    if ask(cache)[0] is Outcome.HIT:
        assert ask(cache)[1] == body
    stats = cache.stats()
    assert stats.reserved_bytes == 0


def complete(cache: Cache, first: int, last: int) -> StoreWriter:
    """Begin to store what a request for the whole asks for where a part is stored."""
    request = make_request()
    found = cache.lookup(request, NOW_S)
    assert found.outcome is Outcome.PARTIAL and found.stored is not None
    writer = cache.begin_store(
        request, part_head(first, last), request_time_s=NOW_S, response_time_s=NOW_S, completes=found.stored
    )
    assert isinstance(writer, StoreWriter)
    return writer


def test_two_that_complete_the_same_part_both_have_the_whole() -> None:
    cache = make_cache()
    store_part(cache, 0, 4)
    writers = [complete(cache, 5, 9), complete(cache, 5, 9)]
    for writer in writers:
        assert writer.completes
        writer.write(WHOLE[5:])
        stored = writer.commit(NOW_S)
        assert isinstance(stored, StoredResponse)
        assert (stored.spans, stored.body) == ((), WHOLE)


def test_what_completes_a_part_that_was_evicted_meanwhile_has_the_whole() -> None:
    cache = make_cache(capacity=1)
    store_part(cache, 0, 4)
    writer = complete(cache, 5, 9)
    writer.write(WHOLE[5:])
    must_store(cache, make_request(target=b"/other"), make_head(FRESH))
    stored = writer.commit(NOW_S)
    assert isinstance(stored, StoredResponse)
    assert (stored.spans, stored.body) == ((), WHOLE)


def test_parts_that_come_at_the_same_time_are_combined() -> None:
    cache = make_cache()
    writers = {
        first: begin(cache, make_request(f"Range: bytes={first}-"), part_head(first, first + 2)) for first in (0, 3)
    }
    for first, writer in writers.items():
        assert isinstance(writer, StoreWriter)
        writer.write(WHOLE[first : first + 3])
        writer.commit(NOW_S)
    assert ask(cache, "Range: bytes=0-5") == (Outcome.HIT, WHOLE[:6])


def test_what_completes_a_part_of_which_the_whole_is_there_by_now_completes_it_too() -> None:
    cache = make_cache()
    store_part(cache, 0, 4)
    first = complete(cache, 5, 9)
    part = cache.lookup(make_request(), NOW_S).stored
    first.write(WHOLE[5:])
    first.commit(NOW_S)
    second = cache.begin_store(
        make_request(), part_head(5, 9), request_time_s=NOW_S, response_time_s=NOW_S, completes=part
    )
    assert isinstance(second, StoreWriter)
    assert second.completes
    second.write(WHOLE[5:])
    stored = second.commit(NOW_S)
    assert isinstance(stored, StoredResponse)
    assert (stored.spans, stored.body) == ((), WHOLE)


@pytest.mark.parametrize("name", ["Content-Digest", "Content-MD5"])
def test_a_digest_of_one_content_is_not_told_of_another(name: str) -> None:
    """RFC 9530, 2: it is that of the message's own content, which a part has another of than the whole."""
    cache = make_cache()
    store_part(cache, 0, 4, FRESH, TAG, f"{name}: of-the-part", "Repr-Digest: of-the-whole")
    whole = store_part(cache, 5, 9, FRESH, TAG, f"{name}: of-the-rest")
    assert isinstance(whole, StoredResponse)
    assert first_value(list(whole.fields), name.lower().encode()) is None
    assert first_value(list(whole.fields), b"repr-digest") == b"of-the-whole"
    request = make_request()
    stored = must_store(cache, request, make_head(FRESH, TAG, f"{name}: of-the-whole"), WHOLE)
    for wanted in ("0-1", "0-1,4-5", "20-"):
        answer = cache.answer(make_request(f"Range: bytes={wanted}"), stored, NOW_S)
        assert answer.status in (206, 416)
        assert first_value(answer.fields, name.lower().encode()) is None
    assert first_value(cache.answer(request, stored, NOW_S).fields, name.lower().encode()) == b"of-the-whole"
