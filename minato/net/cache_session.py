"""One exchange's dealings with the cache: lookup, validation, storing beside the client's copy, invalidation."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from minato.caching.answer import CachedAnswer
from minato.caching.cache import Cache
from minato.caching.freshening import fields_for_client_alone
from minato.caching.lookup import Outcome
from minato.caching.policy import FAILURE_STATUSES, NotStored
from minato.caching.ranges import ByteRange
from minato.caching.request import CacheRequest
from minato.caching.status import ONLY_IF_CACHED, LookupReason, render_forwarded
from minato.caching.stored import StoredResponse
from minato.caching.writer import StoreWriter
from minato.errors import ExchangeError, Source, UpstreamError
from minato.protocol.fields import Fields, make_block
from minato.protocol.message import ResponseHead

_PARTIAL_CONTENT: Final = 206
_RANGE_NOT_SATISFIABLE: Final = 416
_NOT_MODIFIED: Final = 304
_GATEWAY_TIMEOUT: Final = 504
_CACHEABLE_METHODS: Final = frozenset([b"GET", b"HEAD"])
_DISCONNECTED: Final = b"disconnected"
_STALE_IF_ERROR: Final = b"stale-if-error"


class CacheSession:
    """Made once per exchange where the cache is on.

    Attributes:
        hit: the stored response that answers, None where the request is forwarded.
        reason: how the lookup came out, for the log and Cache-Status.
    """

    __slots__ = (
        "_cache",
        "_fallback",
        "_missing",
        "_request",
        "_request_time_s",
        "_stored",
        "_writer",
        "hit",
        "reason",
    )

    def __init__(self, cache: Cache, request: CacheRequest) -> None:
        self._cache = cache
        self._request = request
        self._request_time_s = 0.0
        self._stored: StoredResponse | None = None  # to be validated, or made whole
        self._missing: ByteRange | None = None  # of the stored part
        self._fallback: StoredResponse | None = None  # answers where the upstream fails, if it may
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
        if found.outcome is Outcome.GATEWAY_TIMEOUT:
            fields = ((b"cache-status", ONLY_IF_CACHED),)
            raise ExchangeError(_GATEWAY_TIMEOUT, "nothing usable is stored", source=Source.DOWNSTREAM, fields=fields)
        self._fallback = found.fallback
        if found.outcome is Outcome.HIT and found.stored is not None:
            if not found.needs_background_validation:
                self.hit = found.stored
                return self._cache.answer(self._request, found.stored, now_s)
            # As long as nobody validates in the background, the request that is there does it.
            self.reason = LookupReason.STALE
            self._fallback = found.stored
            self._stored = found.stored if found.stored.has_validator else None
            return None
        self._stored = found.stored
        self._missing = found.missing
        return None

    def fields_to_forward(self, now_s: float) -> Fields | None:
        """Return the end-to-end fields to send upstream where they are not the request's own: those of a validation."""
        self._request_time_s = now_s
        if self._stored is not None and self._missing is not None:
            return self._cache.completing_fields(self._request, self._stored, self._missing)
        if self._stored is not None:
            return self._cache.validation_fields(self._request, self._stored)
        fields = self._cache.forward_fields(self._request)
        return None if fields is self._request.fields else fields

    # -- responses that are not relayed: what is stored answers instead

    def answer_head(self, head: ResponseHead, now_s: float) -> CachedAnswer | None:
        """Return the answer from the store that a final response calls for: a 304, or a failure. None: relay it."""
        if self._stored is not None and self._missing is None and head.status == _NOT_MODIFIED:
            return self._freshen(self._stored, head, now_s)
        if head.status in FAILURE_STATUSES:
            return self.answer_failure(now_s, head.status)
        return None

    def answer_failure(self, now_s: float, status: int | None = None) -> CachedAnswer | None:
        """Return the stale answer that may be given where the upstream failed, None where none may be.

        Args:
            now_s: wall clock.
            status: what the upstream answered, None where it did not answer.
        """
        fallback = self._fallback
        if fallback is None or not self._cache.may_answer_failure(self._request, fallback, now_s, status):
            return None
        detail = _DISCONNECTED if status is None else _STALE_IF_ERROR
        ttl_s = fallback.lifetime_s - fallback.age_s(now_s)
        member = render_forwarded(self.reason, upstream_status=status, ttl_s=ttl_s, detail=detail)
        return self._cache.answer(self._request, fallback, now_s, member)

    @property
    def error_status(self) -> int | None:
        """The status of an answer of our own where the upstream failed, if it is not that of the failure.

        RFC 9111, 5.2.2.2: a disconnected cache that must not reuse a stale response SHOULD say 504.
        """
        fallback = self._fallback
        return _GATEWAY_TIMEOUT if fallback is not None and fallback.forbids_stale else None

    def _freshen(self, stored: StoredResponse, head: ResponseHead, now_s: float) -> CachedAnswer:
        head = replace(head, block=make_block(head.block.end_to_end))
        fresh = self._cache.freshen(
            self._request, stored, head, request_time_s=self._request_time_s, response_time_s=now_s
        )
        status = render_forwarded(self.reason, upstream_status=_NOT_MODIFIED, stored=fresh.is_live)
        answer = self._cache.answer(self._request, fresh, now_s, status)
        answer.fields += fields_for_client_alone(fresh, head.fields)
        return answer

    def begin_completion(self, head: ResponseHead, now_s: float) -> bool:
        """Begin to make a stored part whole, where a final response brings what is missing; it is not relayed.

        Raises:
            UpstreamError: it brings something else, which nobody asked for; the part is forgotten.
        """
        if self._missing is None or head.status not in (_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE):
            return False
        stored, self._stored, self._missing = self._stored, None, None
        assert stored is not None
        self._begin_store(head, now_s, completes=stored)
        writer = self._writer
        if writer is None or not writer.completes:
            self.abort()
            self._cache.forget(stored)
            raise UpstreamError(502, "the upstream failed", detail="a range that was not asked for")
        return True

    def answer_completed(self, now_s: float) -> CachedAnswer | None:
        """Store what makes the part whole, now that it ended, and return the answer; None where that failed."""
        writer, self._writer = self._writer, None
        whole = writer.commit(now_s) if writer is not None else NotStored.ABORTED
        if isinstance(whole, NotStored):
            return None
        member = render_forwarded(self.reason, upstream_status=_PARTIAL_CONTENT, stored=True)
        return self._cache.answer(self._request, whole, now_s, member)

    # -- responses that are relayed

    def begin(self, head: ResponseHead, now_s: float) -> Fields:
        """Begin to store a final response that is to be relayed, if it may be; return the fields to add to it."""
        request = self._request
        end_to_end = head.block.end_to_end
        self._cache.invalidate(request, head.status, end_to_end)
        refusal = self._begin_store(head, now_s)
        if request.method == b"HEAD":
            self._cache.freshen_by_head(
                request,
                replace(head, block=make_block(end_to_end)),
                request_time_s=self._request_time_s,
                response_time_s=now_s,
            )
        if request.method not in _CACHEABLE_METHODS and self._writer is None:
            return []
        why_not = b"" if refusal is None or refusal is NotStored.METHOD else refusal.value.encode()
        return [(b"cache-status", render_forwarded(self.reason, stored=refusal is None, detail=why_not))]

    def _begin_store(
        self, head: ResponseHead, now_s: float, completes: StoredResponse | None = None
    ) -> NotStored | None:
        head = replace(head, block=make_block(head.block.end_to_end))
        begun = self._cache.begin_store(
            self._request,
            head,
            request_time_s=self._request_time_s,
            response_time_s=now_s,
            completes=completes,
        )
        if isinstance(begun, NotStored):
            return begun
        self._writer = begun
        return None

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
