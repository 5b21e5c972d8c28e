"""Single byte ranges of a stored response (RFC 9110, 14); several ranges are answered with the whole."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SINGLE_RANGE = re.compile(rb"bytes[ \t]*=[ \t]*(\d{0,18})-(\d{0,18})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Positions of the first and the last byte, both within the content."""

    first: int
    last: int


class Unsatisfiable:
    """The one range asked for lies outside of the content."""


UNSATISFIABLE = Unsatisfiable()


def parse_single_range(value: bytes, length_bytes: int) -> ByteRange | Unsatisfiable | None:
    """Return the one range that a Range field asks for, or None where it is to be ignored (RFC 9110, 14.1.2, 14.2).

    Ignored are: another unit, several ranges, malformed ones.
    """
    match = _SINGLE_RANGE.fullmatch(value)
    if match is None or match.groups() == (b"", b""):
        return None
    first, last = match[1], match[2]
    if not first:  # the last so many bytes
        suffix_bytes = int(last)
        if suffix_bytes == 0 or length_bytes == 0:
            return UNSATISFIABLE
        return ByteRange(max(0, length_bytes - suffix_bytes), length_bytes - 1)
    if last and int(last) < int(first):
        return None
    if int(first) >= length_bytes:
        return UNSATISFIABLE
    return ByteRange(int(first), min(int(last), length_bytes - 1) if last else length_bytes - 1)
