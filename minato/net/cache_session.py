"""One exchange's dealings with the cache: lookup, validation, storing beside the client's copy, invalidation."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from minato.caching.answer import CachedAnswer
from minato.caching.cache import Cache, Outcome
from minato.caching.policy import NotStored
from minato.caching.request import CacheRequest
from minato.caching.status import ONLY_IF_CACHED, LookupReason, render_forwarded
from minato.caching.stored import StoredResponse
from minato.caching.writer import StoreWriter
from minato.errors import ExchangeError, Source
from minato.protocol.fields import Fields, make_block
from minato.protocol.message import ResponseHead

_NOT_MODIFIED: Final = 304
_GATEWAY_TIMEOUT: Final = 504
_CACHEABLE_METHODS: Final = frozenset([b"GET", b"HEAD"])


class CacheSession:
    """Made once per exchange where the cache is on.

    Attributes:
        hit: the stored response that answers, None where the request is forwarded.
        reason: how the lookup came out, for the log and Cache-Status.
    """

    __slots__ = ("_cache", "_is_bypassed", "_request", "_request_time_s", "_stored", "_writer", "hit", "reason")

    def __init__(self, cache: Cache, request: CacheRequest) -> None:
        self._cache = cache
        self._request = request
        self._request_time_s = 0.0
        self._is_bypassed = False
        self._stored: StoredResponse | None = None  # to be validated
        self._writer: StoreWriter | None = None
        self.hit: StoredResponse | None = None
        self.reason = LookupReason.BYPASS

    @property
    def label(self) -> str:
        """The access log's word."""
        return self.reason.value

    @property
    def is_storing(self) -> bool:
        """Whether the response that is relayed is being stored."""
        return self._writer is not None

    def look_up(self, now_s: float) -> CachedAnswer | None:
        """Return the answer from the store, None where the request is to be forwarded.

        Raises:
            ExchangeError: 504, only-if-cached and nothing to answer with.
        """
        found = self._cache.lookup(self._request, now_s)
        self.reason = found.reason
        self._is_bypassed = found.outcome is Outcome.BYPASS
        if found.outcome is Outcome.GATEWAY_TIMEOUT:
            fields = ((b"cache-status", ONLY_IF_CACHED),)
            raise ExchangeError(_GATEWAY_TIMEOUT, "nothing usable is stored", source=Source.DOWNSTREAM, fields=fields)
        if found.outcome is Outcome.HIT and found.stored is not None:
            self.hit = found.stored
            return self._cache.answer(self._request, found.stored, now_s)
        self._stored = found.stored
        return None

    def fields_to_forward(self, now_s: float) -> Fields | None:
        """Return the end-to-end fields to send upstream where they are not the request's own: those of a validation."""
        self._request_time_s = now_s
        if self._stored is not None:
            return self._cache.validation_fields(self._request, self._stored)
        fields = self._cache.forward_fields(self._request)
        return None if fields is self._request.fields else fields

    def target_to_forward(self, path: bytes) -> bytes | None:
        """Return what to ask the upstream for where that is not ``path``, the request's own path and query.

        What may be stored is asked for without the parameters that are no part of its key: they cannot shape it then.
        """
        request = self._request
        if self._is_bypassed or request.method not in _CACHEABLE_METHODS or request.target == path:
            return None
        return request.target

    def is_validated_by(self, head: ResponseHead) -> bool:
        """Tell whether a final response says that the stored one is still good."""
        return self._stored is not None and head.status == _NOT_MODIFIED

    def freshen(self, head: ResponseHead, now_s: float) -> CachedAnswer:
        """Update the stored response by a 304 and answer from it."""
        assert self._stored is not None
        head = replace(head, block=make_block(head.block.end_to_end))
        fresh = self._cache.freshen(
            self._request, self._stored, head, request_time_s=self._request_time_s, response_time_s=now_s
        )
        status = render_forwarded(self.reason, upstream_status=_NOT_MODIFIED, stored=fresh.is_live)
        return self._cache.answer(self._request, fresh, now_s, status)

    def begin(self, head: ResponseHead, now_s: float) -> Fields:
        """Begin to store a final response that is to be relayed, if it may be; return the fields to add to it."""
        request = self._request
        self._cache.invalidate(request, head.status)
        if request.method not in _CACHEABLE_METHODS:
            return []
        head = replace(head, block=make_block(head.block.end_to_end))
        begun = self._cache.begin_store(request, head, request_time_s=self._request_time_s, response_time_s=now_s)
        if not isinstance(begun, NotStored):
            self._writer = begun
        return [(b"cache-status", render_forwarded(self.reason, stored=self._writer is not None))]

    def write(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self._writer is not None and not self._writer.write(data):
            self._writer = None

    def commit(self, now_s: float) -> None:
        """The response ended cleanly: store it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.commit(now_s)

    def abort(self) -> None:
        """The response was cut: store nothing of it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()
