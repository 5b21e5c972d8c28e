"""The response cache of one worker: what an exchange asks before it forwards, and tells after it did."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from minato.caching.answer import CachedAnswer, make_answer
from minato.caching.draft import Arrival, make_draft
from minato.caching.flights import Flights
from minato.caching.freshness import read_date
from minato.caching.key import PrimaryKey, ResourceKey, resource_of
from minato.caching.pending import PurgeLog
from minato.caching.policy import (
    NotStored,
    Reuse,
    check_request_storable,
    decide_reuse,
)
from minato.caching.purge import PurgeKind, PurgeRequest
from minato.caching.purge_search import find_purged
from minato.caching.request import SAFE_METHODS, CacheRequest, RequestTraits, read_traits
from minato.caching.rules import CacheRules
from minato.caching.status import HIT, LookupReason
from minato.caching.store import Store
from minato.caching.stored import StoredResponse, as_stale, with_date
from minato.caching.validation import is_same_representation, make_validation_fields, merge_fields
from minato.caching.writer import StoreWriter
from minato.config.model import CacheConfig, ServiceCacheConfig
from minato.protocol.message import Fields, Framing, ResponseHead


class Outcome(enum.Enum):
    """What the exchange is to do; the value is the log's word.

    HIT: answer from the stored response. MISS: forward, the response may be stored. STALE: forward as a validation of
    the stored response. BYPASS: forward, nothing is stored. GATEWAY_TIMEOUT: answer 504, since the request says
    only-if-cached and nothing stored may be used.
    """

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"
    BYPASS = "bypass"
    GATEWAY_TIMEOUT = "gateway-timeout"


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a lookup found. ``stored`` is there for HIT and STALE alone."""

    outcome: Outcome
    reason: LookupReason
    stored: StoredResponse | None = None


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
        self._writers: dict[PrimaryKey, set[StoreWriter]] = {}
        self.flights = Flights()
        self._purges = PurgeLog()
        self._purged = 0

    def __repr__(self) -> str:
        return f"<Cache {self._store!r}, {sum(map(len, self._writers.values()))} being stored>"

    def stats(self) -> CacheStats:
        """Return the figures of this moment."""
        store = self._store
        return CacheStats(len(store), store.used_bytes, store.reserved_bytes, store.evictions, self._purged)

    def lookup(self, request: CacheRequest, now_s: float) -> Lookup:
        """Return what is to be done with a request, and why (RFC 9111, 4)."""
        if request.method not in (b"GET", b"HEAD"):
            return Lookup(Outcome.BYPASS, LookupReason.METHOD)
        traits = read_traits(request.fields)
        found = self._look_up(request, traits, now_s)
        if traits.directives.only_if_cached and found.outcome is not Outcome.HIT:
            # RFC 9111, 5.2.1.7: SHOULD either respond from the stored response or with a 504.
            return Lookup(Outcome.GATEWAY_TIMEOUT, found.reason)
        return found

    def answer(
        self, request: CacheRequest, stored: StoredResponse, now_s: float, cache_status: bytes = HIT
    ) -> CachedAnswer:
        """Return the answer to a GET or HEAD from a stored response (a HIT, or one that was just freshened).

        Args:
            request: conditions and a single Range of it are evaluated.
            stored: what the lookup or ``freshen`` gave; it need not be live any more.
            now_s: wall clock.
            cache_status: this cache's member; after a validation ``render_forwarded(..., upstream_status=304)``.
        """
        return make_answer(request, stored, now_s, cache_status)

    def find_plain_hit(self, key: PrimaryKey, now_s: float) -> StoredResponse | None:
        """Return what answers a GET that has nothing to say about it: `lookup`, for the plainest case alone.

        The request has no body and none of the fields in `DECIDING_FIELDS`; what is stored has no Vary. None means that
        `lookup` has to be asked.
        """
        stored = self._store.only_variant(key)
        if stored is None or stored.must_validate or stored.status == 204 or not stored.is_fresh(now_s):
            return None
        self._store.touch(stored)
        return stored

    def touch(self, stored: StoredResponse) -> None:
        """A stored response answered once more without a lookup: it counts for what is evicted first."""
        self._store.touch(stored)

    def forward_fields(self, request: CacheRequest) -> Fields:
        """Return the fields to forward on a MISS: the request's own, conditions and Range included.

        A 304, 206 or 412 to them goes to the client as it is and is never stored; a 200 is.
        """
        return request.fields

    def validation_fields(self, request: CacheRequest, stored: StoredResponse) -> Fields:
        """Return the fields to forward on STALE (RFC 9111, 4.3.1); the request's own conditions and Range are gone."""
        return make_validation_fields(request.fields, stored)

    def freshen(
        self,
        request: CacheRequest,
        stored: StoredResponse,
        response: ResponseHead,
        *,
        request_time_s: float,
        response_time_s: float,
    ) -> StoredResponse:
        """Return the stored response updated by a 304 to its validation, to answer with (RFC 9111, 4.3.4).

        It takes the old one's place in the store where that still is there and storing is still allowed. A 304 that
        names another validator than it was asked for updates nothing: the stored response answers once more and goes.
        """
        if not is_same_representation(stored, response.fields):
            self._store.discard(stored)
            return stored
        # A 304 without Date is dated by its arrival, not by the stored Date (RFC 9110, 6.6.1).
        update = with_date(response.fields, read_date(response.fields, response_time_s), response_time_s)
        merged = merge_fields(list(stored.fields), update)
        serial = self._store.take_serial()
        arrival = Arrival(stored.status, stored.reason, merged, request_time_s, response_time_s, serial)
        traits = read_traits(request.fields)
        fresh, refusal = make_draft(request, traits, arrival, rules=self._rules_of(request.service), body=stored.body)
        if refusal is None and not traits.directives.no_store:
            self._store.replace(stored, fresh)
        elif refusal is not None and refusal is not NotStored.AUTHORIZATION:
            self._store.discard(stored)
        return fresh

    def begin_store(
        self, request: CacheRequest, response: ResponseHead, *, request_time_s: float, response_time_s: float
    ) -> StoreWriter | NotStored:
        """Begin to store a final response while it is relayed, or say why it is not stored.

        Args:
            request: as looked up.
            response: hop-by-hop fields are gone from it; Content-Length and framing are those of the upstream.
            request_time_s: wall clock when the request was forwarded.
            response_time_s: wall clock when the head arrived.
        """
        if request.is_bypassed:
            return NotStored.BYPASS
        traits = read_traits(request.fields)
        refusal = check_request_storable(request.method, request.has_body, traits)
        if refusal is not None:
            return refusal
        fields = [field for field in response.fields if field[0] != b"content-length"]
        serial = self._store.take_serial()
        arrival = Arrival(response.status, response.reason, fields, request_time_s, response_time_s, serial)
        stored, refusal = make_draft(request, traits, arrival, rules=self._rules_of(request.service))
        if refusal is not None:
            if refusal.is_about_resource:
                # The origin server changed its mind: what is stored of the resource is no longer for everybody.
                self._discard_selected(request)
            return refusal
        if self._purges.covers(request.key, fields, request_time_s=request_time_s, response_time_s=response_time_s):
            return NotStored.INVALIDATED
        return self._open_writer(request, response, stored)

    def invalidate(self, request: CacheRequest, response_status: int) -> None:
        """Forget what is stored of the target after an unsafe request that did not fail.

        RFC 9111, 4.4: MUST invalidate the target URI on a non-error status (2xx, 3xx) to an unsafe method, known or
        not. Responses that are just being stored go as well.
        """
        if request.method not in SAFE_METHODS and 200 <= response_status < 400:
            self._forget(resource_of(request.key))

    def purge(self, purge: PurgeRequest, now_s: float) -> int:
        """Forget, or make stale, what a purge asks for, over all services; return how many stored responses it found.

        What is being stored and what was asked for before is never stored, whether the purge is soft or not.

        Args:
            purge: what to look for.
            now_s: wall clock.
        """
        found, matches = find_purged(self._store, purge, self._to_key_target)
        for writers in list(self._writers.values()):
            for writer in list(writers):
                if matches(writer.stored.key, list(writer.stored.fields)):
                    writer.abort(NotStored.INVALIDATED)
        # By tag there is no telling yet: such a response will be refused when it comes.
        for key in [key for key in self.flights.keys() if matches(key, [])]:  # noqa: SIM118, no dict
            self.flights.retire_all(key)
        self._purges.note(matches, now_s)
        if purge.kind is PurgeKind.ALL and not purge.soft:
            self._store.clear()
        else:
            for stored in found:
                if not purge.soft:
                    self._store.discard(stored)
                elif stored.is_live:  # to replace another one may have needed room
                    self._store.replace(stored, as_stale(stored, now_s))
        self._purged += len(found)
        return len(found)

    def clear(self) -> int:
        """Forget everything stored and being stored; return how many responses were stored."""
        for key in {*self._writers, *self.flights.keys()}:
            self._abort_writers(key)
        return self._store.clear()

    def _look_up(self, request: CacheRequest, traits: RequestTraits, now_s: float) -> Lookup:
        if request.is_bypassed or request.has_body or traits.is_for_origin:
            return Lookup(Outcome.BYPASS, LookupReason.BYPASS)
        stored = self._store.select(request.key, request.fields)
        if stored is None:
            known = self._store.has(request.key)
            return Lookup(Outcome.MISS, LookupReason.VARY_MISS if known else LookupReason.URI_MISS)
        reuse = decide_reuse(stored, traits.directives, now_s)
        if reuse.is_allowed:
            self._store.touch(stored)
            return Lookup(Outcome.HIT, LookupReason.HIT, stored)
        reason = LookupReason.REQUEST if reuse is Reuse.REQUEST else LookupReason.STALE
        if not stored.has_validator:
            return Lookup(Outcome.MISS, reason)
        self._store.touch(stored)
        return Lookup(Outcome.STALE, reason, stored)

    def _open_writer(
        self, request: CacheRequest, response: ResponseHead, stored: StoredResponse
    ) -> StoreWriter | NotStored:
        length_bytes = {Framing.LENGTH: response.length_bytes, Framing.NONE: 0}.get(response.framing)
        config = self._config
        limit_bytes = min(config.max_body_size_bytes, config.max_memory_bytes - stored.size_bytes)
        if (length_bytes or 0) > limit_bytes:
            return NotStored.TOO_LARGE
        if not self._store.admits(stored, stored.size_bytes + (length_bytes or 0)):
            return NotStored.NOT_ADMITTED
        if not self._store.reserve(stored.size_bytes):
            return NotStored.NO_MEMORY
        writer = StoreWriter(
            self._store,
            stored,
            request.fields,
            length_bytes=length_bytes,
            max_body_bytes=limit_bytes,
            on_closed=self._forget_writer,
        )
        self._writers.setdefault(stored.key, set()).add(writer)
        return writer

    def _forget_writer(self, writer: StoreWriter) -> None:
        writers = self._writers[writer.stored.key]
        writers.discard(writer)
        if not writers:
            del self._writers[writer.stored.key]

    def _rules_of(self, service: int) -> CacheRules:
        return self._rules.get(service, self._default_rules)

    def _to_key_target(self, service: int, target: bytes) -> bytes:
        return self._rules_of(service).key_target(target)

    def _forget(self, resource: ResourceKey) -> None:
        """Forget all that is stored of a URL, whatever else its keys hold."""
        service, scheme, host, target = resource
        rules = self._rules_of(service)
        resource = (service, scheme, host, rules.key_target(target))
        keys: list[PrimaryKey] = [resource]
        if rules.has_extra:
            keys = [key for key in {*self._writers, *self.flights.keys()} if resource_of(key) == resource]
        for key in keys:
            self._abort_writers(key)
        self._store.discard_resource(resource)

    def _abort_writers(self, key: PrimaryKey) -> None:
        """What is asked of the upstream already must answer nobody who comes after this."""
        self.flights.retire_all(key)
        for writer in list(self._writers.get(key, ())):
            writer.abort(NotStored.INVALIDATED)

    def _discard_selected(self, request: CacheRequest) -> None:
        stored = self._store.select(request.key, request.fields)
        if stored is not None:
            self._store.discard(stored)
