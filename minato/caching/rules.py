"""What one service does differently about the cache: which requests pass it by, what their keys hold, lifetimes.

Whatever spelling a rule could miss, it errs to the safe side: a request that some server might take for one of a
bypassed path, or with a cookie that bypasses, passes the cache by; a cookie that some reader might find is in the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from minato.caching.key import has_name_taken_for, select_variant_values
from minato.config.model import CacheConfig, ServiceCacheConfig
from minato.config.values import NOT_NEGATIVE
from minato.errors import RequestError
from minato.protocol.message import Fields
from minato.protocol.paths import UNUSUAL_PATH, split_path

_SEPARATORS: Final = re.compile(rb"[/\\]")
_ODD: Final = re.compile(rb"[\\;]|" + UNUSUAL_PATH.pattern)


class CacheRules:
    """The compiled rules of one service.

    Attributes:
        enabled: whether the cache is on for it.
        ttl_s: freshness lifetime of responses that bring none and whose status is cacheable by default.
        negative_ttl_s: the same for single statuses of errors, cacheable by default or not.
        has_extra: whether its keys have an extra part.
        looks_at_cookies: whether it may depend on Cookie which answer a request gets, if any.
        is_plain: whether it is on and leaves every request and every key as they are.
    """

    __slots__ = (
        "_bypass_cookies",
        "_bypass_lengths",
        "_bypass_paths",
        "_ignored",
        "_key_cookies",
        "_key_headers",
        "enabled",
        "has_extra",
        "is_plain",
        "looks_at_cookies",
        "negative_ttl_s",
        "ttl_s",
    )

    def __init__(self, config: CacheConfig, service: ServiceCacheConfig) -> None:
        """Compile what a service says for itself, and what the top-level section says for it."""
        self.enabled = config.enabled if service.enabled is None else service.enabled
        self.ttl_s = config.ttl_s if service.ttl_s is None else service.ttl_s
        self.negative_ttl_s = _expand_statuses(service.negative_ttl_s)
        self._bypass_paths = frozenset(map(_read_prefix, service.bypass_paths))
        self._bypass_lengths = sorted({len(prefix) for prefix in self._bypass_paths})
        self._bypass_cookies = _Names(service.bypass_cookies)
        self._key_cookies = _Names(service.key_cookies)
        self._key_headers = tuple(name.lower().encode() for name in service.key_headers)
        self._ignored = _Names(service.ignore_query)
        self.has_extra = bool(self._key_cookies or self._key_headers)
        self.looks_at_cookies = bool(self._bypass_cookies or self._key_cookies or b"cookie" in self._key_headers)
        self.is_plain = self.enabled and not (
            self._bypass_paths or self._bypass_cookies or self.has_extra or self._ignored
        )

    def is_bypassed(self, target: bytes, fields: Fields) -> bool:
        """Tell whether a request is neither to be answered from the cache nor its response to be stored.

        Args:
            target: path and query as the client sent them.
            fields: end-to-end fields as the client sent them.
        """
        if not self.enabled:
            return True
        if self._bypass_paths and self._is_bypassed_path(target):
            return True
        if self._key_headers and has_name_taken_for(self._key_headers, fields):
            return True
        return bool(self._bypass_cookies) and any(map(self._bypass_cookies.has, _cookie_names(fields)))

    def is_keyed(self, name: bytes) -> bool:
        """Tell whether the key has the values of a field."""
        return name in self._key_headers

    def key_target(self, target: bytes) -> bytes:
        """Return a target without the query parameters that are ignored; what is left keeps its order and spelling.

        It is what is forwarded, too, where the response may be stored: an upstream that never sees what is no part of
        the key cannot let it into a response that others get.
        """
        path, mark, query = target.partition(b"?")
        if not self._ignored or not mark:
            return target
        pieces = query.split(b"&")
        kept = [piece for piece in pieces if not piece or not self._ignored.has(piece.partition(b"=")[0])]
        if len(kept) == len(pieces):
            return target
        rest = b"&".join(kept)
        return path + b"?" + rest if rest else path

    def key_extra(self, fields: Fields) -> bytes | None:
        """Return the extra part of a request's key, None where the service has none.

        Two requests have the same exactly if they agree in every cookie and field that is named: LF, which no value
        holds, stands between them, and an absent field is told from an empty one.
        """
        if not self.has_extra:
            return None
        parts = [self._select_cookies(fields)] if self._key_cookies else []
        for value in select_variant_values(self._key_headers, fields):
            parts.append(b"-" if value is None else b"=" + value)
        return b"\n".join(parts)

    def _is_bypassed_path(self, target: bytes) -> bool:
        try:
            readings = list(_read_path(target))
        except RequestError:  # not routed either
            return True
        return any(
            tuple(segments[:length]) in self._bypass_paths for segments in readings for length in self._bypass_lengths
        )

    def _select_cookies(self, fields: Fields) -> bytes:
        """Return the named cookies by name, those of one name as they came: which of them counts is the upstream's."""
        named = [piece for piece in _cookies(fields) if any(map(self._key_cookies.has, _names_in(piece)))]
        named.sort(key=lambda piece: piece.partition(b"=")[0])
        return b"; ".join(named)


class _Names:
    """Names, each whole or as what it begins with."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, patterns: Iterable[str]) -> None:
        encoded = [pattern.encode() for pattern in patterns]
        self._exact = frozenset(pattern for pattern in encoded if not pattern.endswith(b"*"))
        self._prefixes = tuple(pattern[:-1] for pattern in encoded if pattern.endswith(b"*"))

    def __bool__(self) -> bool:
        return bool(self._exact or self._prefixes)

    def has(self, name: bytes) -> bool:
        return name in self._exact or name.startswith(self._prefixes)


def _expand_statuses(ranges: Iterable[tuple[int, int, float]]) -> Mapping[int, float]:
    """Return seconds by status: of several ranges the first that holds a status counts."""
    found: dict[int, float] = {}
    for first, last, ttl_s in ranges:
        for status in range(first, last + 1):
            if status not in NOT_NEGATIVE:
                found.setdefault(status, ttl_s)
    return found


def _read_prefix(path: str) -> tuple[bytes, ...]:
    return tuple(_split_further(split_path(path.encode())))


def _read_path(target: bytes) -> Iterator[list[bytes]]:
    """Yield the segments that servers may take a path for: as it is routed, and in the wider senses some have of it.

    Those take an encoded slash or a backslash for a slash, cut a segment at a semicolon, or leave dot segments alone.
    """
    path = target.partition(b"?")[0]
    segments = split_path(path)
    if _ODD.search(path) is None:
        yield segments
        return
    yield segments
    yield list(_split_further(segments))
    yield list(_split_further([unquote_to_bytes(path)]))


def _split_further(segments: Iterable[bytes]) -> Iterator[bytes]:
    for segment in segments:
        for part in _SEPARATORS.split(segment):
            name = part.partition(b";")[0]
            if name and name != b".":
                yield name


def _cookies(fields: Fields) -> Iterator[bytes]:
    """Yield every ``name=value`` of the Cookie lines (RFC 6265, 4.2.1)."""
    for name, value in fields:
        if name == b"cookie":
            for piece in value.split(b";"):
                if stripped := piece.strip(b" \t"):
                    yield stripped


def _names_in(piece: bytes) -> Iterator[bytes]:
    """Yield the names in one piece of Cookie: some servers still let a comma separate cookies (RFC 2965, 3.3.4)."""
    for part in piece.split(b","):
        yield part.partition(b"=")[0].strip(b" \t")


def _cookie_names(fields: Fields) -> Iterator[bytes]:
    for piece in _cookies(fields):
        yield from _names_in(piece)
