"""Cache tags: what a response calls itself by in Cache-Tag, and who is stored under which tag."""

from __future__ import annotations

import re

from minato.caching.stored import StoredResponse
from minato.protocol.message import Fields

FIELD = b"cache-tag"
MAX_TAGS = 64
"""Of one response; those that follow are left out."""
MAX_TAG_BYTES = 256
"""A longer one is left out."""

# Measured with tracemalloc: the tag's own object and the dict of its first members; a place in that of many members.
TAG_BYTES = 310
TAG_MEMBER_BYTES = 56
TAG_TUPLE_BYTES = 56
_SEPARATORS = re.compile(rb"[\s,]+")


def read_tags(fields: Fields | tuple[tuple[bytes, bytes], ...]) -> tuple[bytes, ...]:
    """Return the tags of a response, once each, in their order: case matters, commas and white space part them."""
    values = [value for name, value in fields if name == FIELD]
    if not values:
        return ()
    tags = (tag for tag in _SEPARATORS.split(b",".join(values)) if tag and len(tag) <= MAX_TAG_BYTES)
    return tuple(dict.fromkeys(tags))[:MAX_TAGS]


def count_tag_bytes(tags: tuple[bytes, ...]) -> int:
    """Return what the index takes for a response with those tags, if nothing else has them."""
    if not tags:
        return 0
    return TAG_TUPLE_BYTES + (TAG_BYTES + TAG_MEMBER_BYTES) * len(tags) + sum(map(len, tags))


class _Group:
    """All that is stored under one tag; ``tag`` is the one object that they share."""

    __slots__ = ("members", "tag")

    def __init__(self, tag: bytes) -> None:
        self.tag = tag
        self.members: dict[StoredResponse, None] = {}


class TagIndex:
    """Stored responses by tag."""

    def __init__(self) -> None:
        self._groups: dict[bytes, _Group] = {}
        self.used_bytes = 0

    def __len__(self) -> int:
        return len(self._groups)

    def tagged(self, tag: bytes) -> list[StoredResponse]:
        """Return what is stored under a tag."""
        group = self._groups.get(tag)
        return [] if group is None else list(group.members)

    def add(self, stored: StoredResponse) -> None:
        """Take in a response that has tags."""
        stored.tags = tuple([self._join(tag, stored) for tag in stored.tags])
        self.used_bytes += TAG_TUPLE_BYTES

    def discard(self, stored: StoredResponse) -> None:
        """Take out a response that was added."""
        for tag in stored.tags:
            group = self._groups[tag]
            del group.members[stored]
            self.used_bytes -= TAG_MEMBER_BYTES
            if not group.members:
                del self._groups[tag]
                self.used_bytes -= TAG_BYTES + len(tag)
        self.used_bytes -= TAG_TUPLE_BYTES

    def _join(self, tag: bytes, stored: StoredResponse) -> bytes:
        group = self._groups.get(tag)
        if group is None:
            group = self._groups[tag] = _Group(tag)
            self.used_bytes += TAG_BYTES + len(tag)
        group.members[stored] = None
        self.used_bytes += TAG_MEMBER_BYTES
        return group.tag
