"""The table of lines and blocks seen before: what repeats is kept, the rest floods nothing, nothing is mixed up."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minato.protocol.field_table import FieldTable, Halves
from minato.protocol.fields import MAX_LINES, FieldBlock, FieldLine, make_block


def read(table: FieldTable, *lines: bytes) -> FieldBlock:
    block = table.read_block(b"\r\n".join(lines))
    assert block is not None
    return block


def line_of(table: FieldTable, raw: bytes) -> FieldLine:
    """Return the line, read in a block that is new each time (blocks are kept, too)."""
    line_of.serial += 1  # type: ignore[attr-defined]
    return read(table, raw, b"x-serial: %d" % line_of.serial).lines[0]  # type: ignore[attr-defined]


line_of.serial = 0  # type: ignore[attr-defined]


# -- what is kept


def test_a_line_is_kept_from_its_second_sight_on() -> None:
    table = FieldTable()
    first, second, third = (line_of(table, b"Accept: */*") for _ in range(3))
    assert first is not second
    assert second is third
    assert first.pair == third.pair == (b"accept", b"*/*")


def test_a_block_is_kept_from_its_second_sight_on() -> None:
    table = FieldTable()
    first, second, third = (read(table, b"Host: a", b"Accept: */*") for _ in range(3))
    assert first is not second
    assert second is third
    assert first == third


def test_spelling_is_part_of_the_line_and_not_of_its_name() -> None:
    table = FieldTable()
    spellings = [b"Accept: x", b"accept: x", b"ACCEPT:x", b"Accept:\t x \t"]
    for _ in range(3):
        assert {line_of(table, spelling).pair for spelling in spellings} == {(b"accept", b"x")}


def count_objects(kind: type) -> int:
    gc.collect()
    return sum(isinstance(one, kind) for one in gc.get_objects())


@pytest.mark.parametrize("repeats", [1, 2])
def test_the_table_is_bounded_whatever_is_sent(repeats: int) -> None:
    capacity = 64
    lines_before, blocks_before = count_objects(FieldLine), count_objects(FieldBlock)
    table = FieldTable(capacity)
    for number in range(3000):
        for _ in range(repeats):
            read(table, b"Host: a%d" % number, b"Cookie: c=%d" % number, b"X-%d: y" % number)
    blocks = count_objects(FieldBlock) - blocks_before
    assert blocks <= 2 * (capacity // 4)
    assert count_objects(FieldLine) - lines_before <= 2 * capacity + 3 * blocks


@pytest.mark.parametrize("repeats", [1, 2])
def test_lines_that_pass_do_not_evict_one_that_comes_again_and_again(repeats: int) -> None:
    table = FieldTable(64)
    kept = [line_of(table, b"Accept: */*") for _ in range(2)][-1]
    for number in range(2000):
        for _ in range(repeats):
            line_of(table, b"X-Passing: %d" % number)
        if not number % 20:
            assert line_of(table, b"Accept: */*") is kept


def test_a_block_that_repeats_stays_though_others_pass() -> None:
    table = FieldTable(64)
    kept = [read(table, b"Host: a", b"Accept: */*") for _ in range(2)][-1]
    for number in range(1000):
        read(table, b"Host: a", b"X-Passing: %d" % number)
        read(table, b"Host: a", b"X-Passing: %d" % number)
        if not number % 10:
            assert read(table, b"Host: a", b"Accept: */*") is kept


def test_what_is_too_large_is_read_but_not_kept() -> None:
    table = FieldTable(max_raw_bytes=20)
    long = b"X-Long: " + b"y" * 30
    assert line_of(table, long) is not line_of(table, long)
    assert len({id(block) for block in [read(table, b"Host: a", long) for _ in range(4)]}) == 4


class Thing:
    """Something a weak reference can be made to."""


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=200), st.integers(1, 8))
def test_halves_hold_what_was_offered_twice_and_never_more_than_twice_their_capacity(
    steps: list[tuple[int, bool]], capacity: int
) -> None:
    halves: Halves[Thing] = Halves(capacity)
    alive: weakref.WeakSet[Thing] = weakref.WeakSet()
    made: dict[bytes, weakref.ref[Thing]] = {}
    offered: set[bytes] = set()
    for number, is_offer in steps:
        raw = b"%d" % number
        if is_offer:
            thing = Thing()
            alive.add(thing)
            if halves.offer(raw, thing):
                assert raw in offered
                made[raw] = weakref.ref(thing)
                assert halves.find(raw) is thing
            offered.add(raw)
            del thing
        else:
            found = halves.find(raw)
            assert found is None or found is made[raw]()
            assert found is halves.find(raw)
            del found
        assert len(halves._young) <= capacity
        assert len(alive) <= 2 * capacity


# -- what is read


NOT_OF_THE_GRAMMAR = [
    *[b"", b"X", b": x", b"X : x", b" X: x", b"X\t: x", b"X\xe4: x", b"(X): x", b"X: a\x00", b"X: a\x7f", b"X: \x0b"],
    *[b"X: a\rb", b"X: a\nb", b"X: \x1f", b"Cookie: a\x00b", b"Cookie: \x0c", b"Cookie: a\nb", b"Cookie: a\x7f"],
]


@pytest.mark.parametrize("line", NOT_OF_THE_GRAMMAR)
def test_a_block_with_a_line_that_is_not_of_the_grammar_is_refused_however_often_it_comes(line: bytes) -> None:
    table = FieldTable()
    for _ in range(4):
        assert table.read_block(b"Host: a\r\nAccept: b") is not None
        assert table.read_block(b"Host: a\r\n" + line + b"\r\nAccept: b") is None
        assert table.read_block(b"Host: a\r\nAccept: b\r\n" + line) is None


@pytest.mark.parametrize(
    "line", [b"X:", b"X: ", b"X:\t\t", b"X: \xff\x80", b"X: a\t b", b"!#$%&'*+-.^_`|~0: 1", b"Cookie:"]
)
def test_odd_lines_of_the_grammar_are_read(line: bytes) -> None:
    name, _, value = line.partition(b":")
    assert read(FieldTable(), b"Host: a", line).fields == [(b"host", b"a"), (name.lower(), value.strip(b" \t"))]


def test_more_lines_than_the_counters_are_for_are_refused() -> None:
    lines = [b"X-%d: y" % number for number in range(MAX_LINES)]
    assert read(FieldTable(), *lines).count == MAX_LINES
    assert FieldTable().read_block(b"\r\n".join([*lines, b"X: y"])) is None


TOKENS = st.sampled_from([b"Host", b"Accept", b"X-A", b"Connection", b"Cookie", b"cookie", b"Date", b"Content-Length"])
VALUES = st.one_of(
    st.sampled_from([b"", b"a", b"close", b"cookie", b"x-a", b"a\x00", b"Cookie: x", b"\xff", b"a  b", b"\x0b"]),
    st.text(st.characters(max_codepoint=255, exclude_characters="\r\n"), max_size=4).map(
        lambda one: one.encode("latin-1")
    ),
)
RAW_LINES = st.lists(st.builds(b"%b:%b%b".__mod__, st.tuples(TOKENS, st.sampled_from([b" ", b""]), VALUES)), max_size=7)
SHARED = FieldTable(16)  # over all examples: what one leaves there must not show in another


def told(block: FieldBlock | None) -> object:
    """All that a block says."""
    if block is None:
        return None
    pairs = [line.pair for line in block.lines]
    assert (block.fields, block.count, len(block.lines)) == (pairs, len(pairs), len(pairs))
    return pairs, block.roles, block.has_date, block.upstream_wire, block.downstream_wire, block.end_to_end


@given(RAW_LINES, st.binary(max_size=3))
def test_a_table_that_has_seen_much_reads_as_a_new_one(lines: list[bytes], cookie: bytes) -> None:
    raw = b"\r\n".join(lines)
    with_cookie = b"\r\n".join([*lines[:2], b"Cookie: %b" % cookie.translate(None, b"\r\n"), *lines[2:]])
    for one in (raw, with_cookie, raw, with_cookie):
        assert told(SHARED.read_block(one)) == told(FieldTable().read_block(one))


@given(RAW_LINES.filter(bool))
def test_a_block_says_the_same_as_one_made_of_its_fields(lines: list[bytes]) -> None:
    block = FieldTable().read_block(b"\r\n".join(lines))
    if block is not None:
        assert told(block) == told(make_block(list(block.fields)))


# -- cookies


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("value", [b"sid=%d", b" sid=%d ", b"", b"a; b=\xff\t%d"])
def test_a_new_cookie_is_read_at_its_place_while_the_rest_is_known(at: int, value: bytes) -> None:
    lines = [b"Host: a", b"Accept: b", b"X: c"]
    table = FieldTable()
    known = [read(table, *lines) for _ in range(2)][-1]
    for serial in range(3):
        sent = value % serial if b"%" in value else value
        block = read(table, *lines[:at], b"Cookie: " + sent, *lines[at:])
        expected = [*known.fields[:at], (b"cookie", sent.strip(b" \t")), *known.fields[at:]]
        assert block.known is known
        assert told(block) == told(make_block(expected))
        assert known.count == 3


def test_a_cookie_may_come_at_another_place_each_time() -> None:
    lines = [b"Host: a", b"Accept: b", b"X: c"]
    table = FieldTable()
    known = [read(table, *lines) for _ in range(2)][-1]
    for at in (1, 3, 2, 1, 2):
        block = read(table, *lines[:at], b"Cookie: d", *lines[at:])
        assert block.known is known
        assert told(block) == told(make_block([*known.fields[:at], (b"cookie", b"d"), *known.fields[at:]]))


def test_two_cookies_and_other_spellings_are_read_like_any_line() -> None:
    table = FieldTable()
    for _ in range(4):
        block = read(table, b"Host: a", b"Cookie: 1", b"cookie: 2", b"Cookie:3", b"Cookie: 4", b"X: y")
        assert [value for name, value in block.fields if name == b"cookie"] == [b"1", b"2", b"3", b"4"]
        assert block.fields[0] == (b"host", b"a")
        assert block.fields[-1] == (b"x", b"y")


def test_what_is_derived_for_one_cookie_is_not_told_of_the_next() -> None:
    table = FieldTable()
    for serial in range(4):
        block = read(table, b"Host: a", b"Cookie: %d" % serial, b"Connection: x")
        assert b"cookie: %d\r\n" % serial in block.upstream_wire
        assert (b"cookie", b"%d" % serial) in block.end_to_end
        nominated = read(table, b"Host: a", b"Cookie: %d" % serial, b"Connection: cookie")
        assert b"cookie: %d\r\n" % serial in nominated.upstream_wire, "nobody may nominate it"
