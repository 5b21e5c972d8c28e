"""What a purge asks for: by URL, by prefix, by tag or everything; to forget it, or to make it stale."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class PurgeKind(enum.Enum):
    """What the value of a purge is compared with; the value is the word of the admin API."""

    URL = "url"
    PREFIX = "prefix"
    TAG = "tag"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """One purge; it is for every service and every variant.

    Attributes:
        kind: what ``value`` is.
        value: URL: ``http://host[:port]/path?query``; PREFIX: the beginning of one. Without ``scheme://`` either is for
            every scheme. TAG: the tag. ALL: not looked at.
        soft: what is found becomes stale, to be validated or served where stale responses may be; otherwise it is
            forgotten.
    """

    kind: PurgeKind
    value: bytes = b""
    soft: bool = False
