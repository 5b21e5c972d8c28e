"""Byte ranges (RFC 9110, 14): what a Range asks for, what a Content-Range says, and what is missing of a whole."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_RANGES = 16
"""A Range that asks for more is ignored (RFC 9110, 14.2 and 17.15: many small ones are an attack)."""

_BYTES = re.compile(rb"bytes[ \t]*=(.*)", re.IGNORECASE | re.DOTALL)
_SPEC = re.compile(rb"(\d{0,18})-(\d{0,18})")
_CONTENT_RANGE = re.compile(rb"bytes[ \t]+(\d{1,18})-(\d{1,18})/(\d{1,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True, order=True)
class ByteRange:
    """Positions of the first and the last byte, both within the content."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    def holds(self, other: ByteRange) -> bool:
        return self.first <= other.first and other.last <= self.last


class Unsatisfiable:
    """None of the ranges asked for lies within the content."""


UNSATISFIABLE = Unsatisfiable()


def parse_ranges(value: bytes, length_bytes: int) -> list[ByteRange] | Unsatisfiable | None:
    """Return the ranges that a Range field asks for, or None where it is to be ignored (RFC 9110, 14.1.2, 14.2).

    Ignored are: another unit, malformed ones, more than ``MAX_RANGES``, and the last so many bytes of an empty content,
    which are satisfiable (14.1.2) and cannot be told in a Content-Range. Those outside of the content are left out,
    those that overlap are joined (14.2), the others keep their order.
    """
    unit = _BYTES.fullmatch(value)
    if unit is None:
        return None
    specs = [spec for raw in unit[1].split(b",") if (spec := raw.strip(b" \t"))]
    if not 0 < len(specs) <= MAX_RANGES:
        return None
    wanted: list[ByteRange] = []
    for spec in specs:
        found = _parse_spec(spec, length_bytes)
        if found is None:
            return None
        if isinstance(found, ByteRange):
            wanted.append(found)
    return _join_overlapping(wanted) if wanted else UNSATISFIABLE


def parse_content_range(value: bytes) -> tuple[ByteRange, int] | None:
    """Return the range and the complete length of a Content-Range, None where it is invalid or leaves one out.

    RFC 9110, 14.4: invalid where the last position is before the first, or not within the complete length.
    """
    match = _CONTENT_RANGE.fullmatch(value)
    if match is None:
        return None
    first, last, complete = int(match[1]), int(match[2]), int(match[3])
    return (ByteRange(first, last), complete) if first <= last < complete else None


def find_gaps(held: tuple[ByteRange, ...], complete_bytes: int) -> list[ByteRange]:
    """Return what is missing of a content of so many bytes; the ranges held are in order and do not touch."""
    gaps, position = [], 0
    for span in held:
        if span.first > position:
            gaps.append(ByteRange(position, span.first - 1))
        position = span.last + 1
    if position < complete_bytes:
        gaps.append(ByteRange(position, complete_bytes - 1))
    return gaps


def _parse_spec(spec: bytes, length_bytes: int) -> ByteRange | Unsatisfiable | None:
    match = _SPEC.fullmatch(spec)
    if match is None or match.groups() == (b"", b""):
        return None
    first, last = match[1], match[2]
    if not first:  # the last so many bytes
        suffix_bytes = int(last)
        if suffix_bytes == 0:
            return UNSATISFIABLE
        if length_bytes == 0:
            return None
        return ByteRange(max(0, length_bytes - suffix_bytes), length_bytes - 1)
    if last and int(last) < int(first):
        return None
    if int(first) >= length_bytes:
        return UNSATISFIABLE
    return ByteRange(int(first), min(int(last), length_bytes - 1) if last else length_bytes - 1)


def _join_overlapping(wanted: list[ByteRange]) -> list[ByteRange]:
    joined: list[ByteRange] = []
    for span in wanted:
        apart = []
        for other in joined:
            if other.first <= span.last and span.first <= other.last:
                span = ByteRange(min(span.first, other.first), max(span.last, other.last))  # noqa: PLW2901
            else:
                apart.append(other)
        joined = [*apart, span]
    return joined
