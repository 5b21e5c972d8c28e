"""The response cache of one worker: what an exchange asks before it forwards, and tells after it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minato.caching.answer import CachedAnswer, make_answer
from minato.caching.draft import Arrival, make_draft
from minato.caching.flights import Flights
from minato.caching.freshening import Freshener
from minato.caching.freshness import read_date
from minato.caching.key import PrimaryKey, VariantNames
from minato.caching.location import names_own_target
from minato.caching.lookup import Lookup, Outcome, look_up_stored
from minato.caching.partial import OF_ONE_CONTENT, Part, place_part
from minato.caching.policy import (
    NotStored,
    check_request_storable,
    may_answer_failure,
)
from minato.caching.purge import PurgeRequest
from minato.caching.ranges import ByteRange
from minato.caching.removal import Removal
from minato.caching.request import CacheRequest, read_traits
from minato.caching.rules import CacheRules
from minato.caching.status import LookupReason, render_hit, render_key
from minato.caching.store import Store
from minato.caching.stored import StoredResponse, with_date
from minato.caching.validation import (
    make_completing_fields,
    make_unconditional_fields,
    make_validation_fields,
    merge_fields,
)
from minato.caching.writer import StoreWriter
from minato.config.model import CacheConfig, ServiceCacheConfig
from minato.protocol.message import Fields, Framing, ResponseHead

_OK = 200
_PARTIAL_CONTENT = 206


@dataclass(frozen=True, slots=True)
class CacheStats:
    """The cache at one moment.

    Attributes:
        stored: responses.
        used_bytes: all memory that they take, the index and what eviction remembers included.
        reserved_bytes: of responses being stored.
        evictions: how many responses went for want of room since the start; replaced and purged ones do not count.
        purged: how many responses purges have found since the start.
    """

    stored: int
    used_bytes: int
    reserved_bytes: int
    evictions: int
    purged: int = 0


class Cache:
    """Stored responses and what RFC 9111 says about them. Single-threaded; every time is a wall clock given to it.

    Attributes:
        flights: requests under way whose responses others may wait for.
    """

    def __init__(self, config: CacheConfig, rules: Mapping[int, CacheRules] | None = None) -> None:
        """Make an empty one.

        Args:
            config: the top-level section; a service without rules of its own is as that says.
            rules: by service index.
        """
        self._config = config
        self._rules = rules or {}
        self._default_rules = CacheRules(config, ServiceCacheConfig())
        self._store = Store(config.kind, capacity=config.capacity, max_memory_bytes=config.max_memory_bytes)
        self.flights = Flights()
        self._removal = Removal(self._store, self.flights, self._rules_of)

    def __repr__(self) -> str:
        return f"<Cache {self._store!r}, {len(self._removal)} being stored>"

    def stats(self) -> CacheStats:
        """Return the figures of this moment."""
        store = self._store
        return CacheStats(len(store), store.used_bytes, store.reserved_bytes, store.evictions, self._removal.purged)

    def lookup(self, request: CacheRequest, now_s: float) -> Lookup:
        """Return what is to be done with a request, and why (RFC 9111, 4)."""
        if request.method not in (b"GET", b"HEAD"):
            return Lookup(Outcome.BYPASS, LookupReason.METHOD)
        traits = read_traits(request.fields)
        found = look_up_stored(self._store, request, traits, now_s)
        if traits.directives.only_if_cached and found.outcome is not Outcome.HIT:
            # RFC 9111, 5.2.1.7: SHOULD either respond from the stored response or with a 504.
            return Lookup(Outcome.GATEWAY_TIMEOUT, found.reason)
        if found.outcome is Outcome.PARTIAL and request.is_oddly_spelt:
            return Lookup(Outcome.MISS, found.reason)  # what is missing could not be put to it
        return found

    def answer(
        self, request: CacheRequest, stored: StoredResponse, now_s: float, cache_status: bytes | None = None
    ) -> CachedAnswer:
        """Return the answer to a GET or HEAD from a stored response (a HIT, or one that was just freshened).

        Args:
            request: conditions and a single Range of it are evaluated.
            stored: what the lookup or ``freshen`` gave; it need not be live any more.
            now_s: wall clock.
            cache_status: this cache's member; that of a hit where it is left out.
        """
        if cache_status is None:
            cache_status = render_hit(stored.ttl_s(now_s), key=self.shown_key(stored.key))
        return make_answer(request, stored, now_s, cache_status)

    def shown_key(self, key: PrimaryKey) -> bytes:
        """Return the ``key`` of Cache-Status, empty where it is not to be shown."""
        return render_key(key) if self._config.show_key else b""

    def find_plain_hit(self, key: PrimaryKey, now_s: float) -> StoredResponse | None:
        """Return what answers a GET that has nothing to say about it: `lookup`, for the plainest case alone.

        The request has no body and none of the fields in `DECIDING_FIELDS`; what is stored has no Vary. None means that
        `lookup` has to be asked.
        """
        stored = self._store.only_variant(key)
        if stored is None or not stored.is_plain or not stored.is_fresh(now_s):
            return None
        self._store.touch(stored)
        return stored

    def touch(self, stored: StoredResponse) -> None:
        """A stored response answered once more without a lookup: it counts for what is evicted first."""
        self._store.touch(stored)

    def variant_names(self, key: PrimaryKey) -> list[VariantNames]:
        """Return what the stored responses of a resource vary on."""
        return self._store.variant_names(key)

    def forward_fields(self, request: CacheRequest) -> Fields:
        """Return the fields to forward on a MISS: the request's own, conditions and Range included.

        A 304, 206 or 412 to them goes to the client as it is and is never stored; a 200 is.
        """
        return request.fields

    def validation_fields(self, request: CacheRequest, stored: StoredResponse) -> Fields:
        """Return the fields to forward on STALE (RFC 9111, 4.3.1); the request's own conditions and Range are gone."""
        return make_validation_fields(request.fields, stored)

    def completing_fields(self, request: CacheRequest, stored: StoredResponse, missing: ByteRange) -> Fields:
        """Return the fields to forward on PARTIAL: a 206 to them completes the stored part, a 200 replaces it."""
        return make_completing_fields(request.fields, stored, missing)

    def unconditional_fields(self, request: CacheRequest) -> Fields:
        """Return the fields to forward where what came was of no use with what is stored: they ask for the whole."""
        return make_unconditional_fields(request.fields)

    def may_answer_failure(
        self, request: CacheRequest, stored: StoredResponse, now_s: float, status: int | None
    ) -> bool:
        """Tell whether a lookup's ``fallback`` may answer a request whose upstream failed.

        Args:
            request: as looked up.
            stored: the fallback; it need not be live any more.
            now_s: wall clock.
            status: 500, 502, 503 or 504, which the upstream answered; None where it gave no answer.
        """
        return may_answer_failure(stored, read_traits(request.fields).directives, now_s, status)

    def freshen(
        self,
        request: CacheRequest,
        stored: StoredResponse,
        response: ResponseHead,
        *,
        request_time_s: float,
        response_time_s: float,
    ) -> StoredResponse | None:
        """Return the stored response updated by a 304 to its validation, to answer with (RFC 9111, 4.3.4).

        It takes the old one's place in the store where that still is there, storing is still allowed, and nothing was
        purged since it was asked for. None: the 304 speaks of another response; the stored one is forgotten.
        """
        freshener = self._freshener(request, response, request_time_s, response_time_s)
        is_outdated = self._was_removed(request, stored, response, request_time_s, response_time_s)
        return freshener.freshen(stored, is_outdated=is_outdated)

    def freshen_by_head(
        self, request: CacheRequest, response: ResponseHead, *, request_time_s: float, response_time_s: float
    ) -> None:
        """Update, or forget, what is stored of a resource by the 200 to a HEAD (RFC 9111, 4.3.5)."""
        if response.status != _OK or request.is_bypassed:
            return
        if not read_traits(request.fields).directives.no_store:
            freshener = self._freshener(request, response, request_time_s, response_time_s)
            freshener.freshen_by_head(
                lambda stored: self._was_removed(request, stored, response, request_time_s, response_time_s)
            )

    def begin_store(
        self,
        request: CacheRequest,
        response: ResponseHead,
        *,
        request_time_s: float,
        response_time_s: float,
        completes: StoredResponse | None = None,
        is_awaited: bool = False,
    ) -> StoreWriter | NotStored:
        """Begin to store a final response while it is relayed, or say why it is not stored.

        Args:
            request: as looked up.
            response: hop-by-hop fields are gone from it; Content-Length and framing are those of the upstream.
            request_time_s: wall clock when the request was forwarded.
            response_time_s: wall clock when the head arrived.
            completes: the stored part of which the missing range was asked for.
            is_awaited: whether others wait for it: it was asked for more than once, and is admitted.
        """
        if request.is_bypassed:
            return NotStored.BYPASS
        if request.is_oddly_spelt:
            return NotStored.REQUEST_HOST
        traits = read_traits(request.fields)
        refusal = check_request_storable(request.method, request.has_body, traits)
        if refusal is None and request.method == b"POST" and not _is_for_get(request, response):
            refusal = NotStored.METHOD
        if refusal is not None:
            return refusal
        fields = [field for field in response.fields if field[0] != b"content-length"]
        part = base = None
        if response.status == _PARTIAL_CONTENT:
            placed = self._place(request, response, completes)
            if isinstance(placed, NotStored):
                return placed
            part, base = placed
            fields = [field for field in fields if field[0] not in OF_ONE_CONTENT]
            if base is not None:
                update = with_date(fields, read_date(fields, response_time_s), response_time_s)
                fields = merge_fields(list(base.fields), update)
        serial = self._store.take_serial()
        arrival = Arrival(response.status, response.reason, fields, request_time_s, response_time_s, serial)
        stored, refusal = make_draft(request, traits, arrival, rules=self._rules_of(request.service))
        if refusal is not None:
            if refusal.is_about_resource:
                # The origin server changed its mind: what is stored of the resource is no longer for everybody.
                self._discard_selected(request)
            return refusal
        if self._removal.is_outdated(request, fields, request_time_s=request_time_s, response_time_s=response_time_s):
            return NotStored.INVALIDATED
        return self._open_writer(request, response, stored, part, base, is_admitted=is_awaited)

    def invalidate(self, request: CacheRequest, response_status: int, response_fields: Fields, now_s: float) -> None:
        """Forget what is stored of the target after an unsafe request that did not fail (RFC 9111, 4.4).

        What was asked for before ``now_s``, the wall clock, and is still on its way is not stored.
        """
        self._removal.invalidate(request, response_status, response_fields, now_s)

    def purge(self, purges: PurgeRequest | Sequence[PurgeRequest], now_s: float) -> int:
        """Forget, or make stale, what purges ask for; return how many stored responses they found, each counted once.

        What is being stored and what was asked for before is never stored, whether a purge is soft or not.
        """
        return self._removal.purge([purges] if isinstance(purges, PurgeRequest) else purges, now_s)

    def clear(self) -> int:
        """Forget everything stored and being stored; return how many responses were stored."""
        return self._removal.clear()

    def forget(self, stored: StoredResponse) -> None:
        """Forget one stored response, since it turned out to be of no use."""
        self._store.discard(stored)

    def _was_removed(
        self,
        request: CacheRequest,
        stored: StoredResponse,
        response: ResponseHead,
        request_time_s: float,
        response_time_s: float,
    ) -> bool:
        """Tell whether a response to that request, which updates a stored one, may be from before a purge of either."""
        is_outdated = self._removal.is_outdated
        return any(
            is_outdated(request, fields, request_time_s=request_time_s, response_time_s=response_time_s)
            for fields in (list(stored.fields), response.fields)  # of what it was tagged with, and is now
        )

    def _freshener(
        self, request: CacheRequest, response: ResponseHead, request_time_s: float, response_time_s: float
    ) -> Freshener:
        return Freshener(
            self._store,
            request,
            response,
            rules=self._rules_of(request.service),
            request_time_s=request_time_s,
            response_time_s=response_time_s,
        )

    def _place(
        self, request: CacheRequest, response: ResponseHead, completes: StoredResponse | None
    ) -> tuple[Part, StoredResponse | None] | NotStored:
        """Return where a 206 belongs, and what it is combined with, or why it is not stored."""
        names = {name for name, _ in request.fields}
        if completes is None and b"range" not in names:
            return NotStored.PART  # nobody asked for it
        known = self._store.select(request.key, request.fields)
        is_bare = completes is not None or b"if-range" in names
        return place_part(known, response, self._config.max_body_size_bytes, is_bare=is_bare)

    def _open_writer(
        self,
        request: CacheRequest,
        response: ResponseHead,
        stored: StoredResponse,
        part: Part | None,
        base: StoredResponse | None,
        *,
        is_admitted: bool,
    ) -> StoreWriter | NotStored:
        length_bytes = {Framing.LENGTH: response.length_bytes, Framing.NONE: 0}.get(response.framing)
        config = self._config
        limit_bytes = min(config.max_body_size_bytes, config.max_memory_bytes - stored.size_bytes)
        if (length_bytes or 0) > limit_bytes:
            return NotStored.TOO_LARGE
        if not (is_admitted or self._store.admits(stored, stored.size_bytes + (length_bytes or 0))):
            return NotStored.NOT_ADMITTED
        if not self._store.reserve(stored.size_bytes):
            return NotStored.NO_MEMORY
        writer = StoreWriter(
            self._store,
            stored,
            request.fields,
            length_bytes=length_bytes if part is None else part.span.size,
            max_body_bytes=limit_bytes,
            on_closed=self._removal.unwatch,
            part=part,
            base=base,
            is_admitted=is_admitted,
        )
        self._removal.watch(writer)
        return writer

    def _rules_of(self, service: int) -> CacheRules:
        return self._rules.get(service, self._default_rules)

    def _discard_selected(self, request: CacheRequest) -> None:
        stored = self._store.select(request.key, request.fields)
        if stored is not None:
            self._store.discard(stored)


def _is_for_get(request: CacheRequest, response: ResponseHead) -> bool:
    """Tell whether the response to a POST may answer GET, as far as its head says (RFC 9110, 9.3.3)."""
    return response.status == _OK and names_own_target(request, response.fields)
