"""A lookup: what a cache finds for a request, and what is to be done then (RFC 9111, 4)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from minato.caching.answer import can_answer_range
from minato.caching.partial import find_missing
from minato.caching.policy import Reuse, decide_reuse
from minato.caching.ranges import ByteRange
from minato.caching.request import CacheRequest, RequestTraits
from minato.caching.status import LookupReason
from minato.caching.store import Store
from minato.caching.stored import StoredResponse
from minato.protocol.message import first_value


class Outcome(enum.Enum):
    """What the exchange is to do; the value is the log's word.

    HIT: answer from the stored response. MISS: forward, the response may be stored. STALE: forward as a validation of
    the stored response. PARTIAL: forward, asking for what is missing of the stored part. BYPASS: forward, nothing is
    stored, but for the answer to a POST that names its own target. GATEWAY_TIMEOUT: answer 504, since the request says
    only-if-cached and nothing stored may be used.
    """

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"
    PARTIAL = "partial"
    BYPASS = "bypass"
    GATEWAY_TIMEOUT = "gateway-timeout"


@dataclass(frozen=True, slots=True)
class Lookup:
    """What a lookup found.

    Attributes:
        outcome: what is to be done.
        reason: why.
        stored: of HIT, STALE and PARTIAL.
        missing: of PARTIAL, the range to ask for.
        needs_background_validation: a HIT that is stale, and may be reused while it is validated (RFC 5861, 3).
        fallback: what may answer where the upstream fails, see ``may_answer_failure``.
    """

    outcome: Outcome
    reason: LookupReason
    stored: StoredResponse | None = None
    missing: ByteRange | None = None
    needs_background_validation: bool = False
    fallback: StoredResponse | None = None


def look_up_stored(store: Store, request: CacheRequest, traits: RequestTraits, now_s: float) -> Lookup:
    """Return what is to be done with a GET or HEAD as far as what is stored decides (RFC 9111, 4)."""
    if request.is_bypassed or request.has_body or traits.is_for_origin:
        return Lookup(Outcome.BYPASS, LookupReason.BYPASS)
    stored = store.select(request.key, request.fields)
    if stored is None:
        known = store.has(request.key)
        return Lookup(Outcome.MISS, LookupReason.VARY_MISS if known else LookupReason.URI_MISS)
    reuse = decide_reuse(stored, traits.directives, now_s)
    if stored.spans:
        return _look_up_part(store, request, stored, reuse)
    if reuse.is_allowed:
        store.touch(stored)
        is_overdue = reuse is Reuse.STALE_WHILE_REVALIDATE
        return Lookup(Outcome.HIT, LookupReason.HIT, stored, needs_background_validation=is_overdue)
    reason = LookupReason.REQUEST if reuse is Reuse.REQUEST else LookupReason.STALE
    fallback = None if reuse is Reuse.REQUEST else stored
    if not stored.has_validator:
        return Lookup(Outcome.MISS, reason, fallback=fallback)
    store.touch(stored)
    return Lookup(Outcome.STALE, reason, stored, fallback=fallback)


def _look_up_part(store: Store, request: CacheRequest, stored: StoredResponse, reuse: Reuse) -> Lookup:
    """RFC 9111, 3.3: a part MUST NOT answer as if it were whole; it does for ranges within it."""
    is_get = request.method == b"GET"
    if is_get and can_answer_range(request.fields, stored):
        if reuse is Reuse.FRESH or reuse is Reuse.STALE_ACCEPTED:
            store.touch(stored)
            return Lookup(Outcome.HIT, LookupReason.HIT, stored)
        return Lookup(Outcome.MISS, LookupReason.REQUEST if reuse is Reuse.REQUEST else LookupReason.STALE)
    missing = find_missing(stored)
    if not is_get or missing is None or first_value(request.fields, b"range") is not None:
        return Lookup(Outcome.MISS, LookupReason.PARTIAL)
    store.touch(stored)
    return Lookup(Outcome.PARTIAL, LookupReason.PARTIAL, stored, missing)
