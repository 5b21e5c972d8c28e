"""Paths as an upstream may take them: what rules about paths are held against, whatever the spelling."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from minato.errors import RequestError

UNUSUAL_PATH: Final = re.compile(rb"%|//|/\.|\.\.")
"""What makes a path need more than a split: escapes, empty segments, dot segments in any disguise."""

_SEPARATORS: Final = re.compile(rb"[/\\]")


def split_path(path: bytes) -> list[bytes]:
    """Return the segments that a path is routed by.

    What is forwarded is the path as it came; but routing looks at what an upstream may take it for, so that no spelling
    dodges a prefix: percent-escapes are decoded (``/%61dmin``), dot segments removed (``/public/../admin``; RFC 3986,
    5.2.4), empty segments left out (``//admin``, which many servers merge).

    Raises:
        RequestError: 400, for a path that climbs above the root, which in front of an upstream's own path would leave
            that path; and for dot segments that servers read in different ways: after an empty segment (``//../``), or
            beside an encoded slash, a backslash or a semicolon (``..%2f``, ``..;/``).
    """
    raw = path.partition(b"?")[0]
    pieces = raw.split(b"/")[1:]
    if UNUSUAL_PATH.search(raw) is None:
        return pieces
    segments: list[bytes] = []
    for piece in pieces:
        segment = unquote_to_bytes(piece)
        if segment == b"..":
            _climb(segments)
        elif b".." in segment and _hides_dot_segment(segment):
            raise RequestError(400, "ambiguous path", detail="a dot segment beside a separator inside a path segment")
        elif segment != b".":
            segments.append(segment)
    return [segment for segment in segments if segment]


def _climb(segments: list[bytes]) -> None:
    if not segments:
        raise RequestError(400, "invalid path", detail="the path climbs above the root")
    if not segments[-1]:
        raise RequestError(400, "ambiguous path", detail="a dot segment after an empty segment")
    segments.pop()


def _hides_dot_segment(segment: bytes) -> bool:
    return any(part.partition(b";")[0] == b".." for part in _SEPARATORS.split(segment))
