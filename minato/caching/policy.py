"""May a response be stored, may a stored one be reused: decisions with a reason (RFC 9111, 3, 3.5, 4 and 5.2)."""

from __future__ import annotations

import enum

from minato.caching.directives import RequestDirectives, ResponseDirectives
from minato.caching.freshness import HEURISTIC_STATUSES, Freshness, LifetimeSource
from minato.caching.key import VariantNames
from minato.caching.request import RequestTraits
from minato.caching.stored import StoredResponse
from minato.protocol.message import Fields

_UNDERSTOOD_STATUSES = HEURISTIC_STATUSES | {302, 303, 307, 400, 401, 403, 500, 502, 503}
# They answer a precondition or a range that the cache key does not hold.
_NEVER_STORED_STATUSES = frozenset({304, 412, 416})
FAILURE_STATUSES = frozenset({500, 502, 503, 504})
"""RFC 5861, 4: those that stale-if-error is about."""

MAX_DISCONNECTED_STALE_S = 86_400
"""How stale a response may be that answers because no upstream does, where nobody named a limit."""
_FIRST_FINAL_STATUS = 200


class NotStored(enum.Enum):
    """Why a response is not stored; the value is the log's word."""

    METHOD = "method"
    BYPASS = "bypass"
    REQUEST_BODY = "request-body"
    REQUEST_CONDITION = "request-condition"
    REQUEST_NO_STORE = "request-no-store"
    REQUEST_HOST = "request-host"
    REQUEST_FIELD = "request-field"
    STATUS = "status"
    NO_STORE = "no-store"
    PRIVATE = "private"
    AUTHORIZATION = "authorization"
    SET_COOKIE = "set-cookie"
    VARY = "vary"
    PART = "part"
    NO_LIFETIME = "no-lifetime"
    TOO_LARGE = "too-large"
    NO_MEMORY = "no-memory"
    NOT_ADMITTED = "not-admitted"
    INCOMPLETE = "incomplete"
    SUPERSEDED = "superseded"
    INVALIDATED = "invalidated"
    ABORTED = "aborted"

    @property
    def is_about_resource(self) -> bool:
        """Whether it says that nobody's response of this resource is to be stored, not merely this request's."""
        return self in _ABOUT_RESOURCE

    @property
    def is_about_request(self) -> bool:
        """Whether the request is why: of what is stored already it says nothing."""
        return self in _ABOUT_REQUEST

    @property
    def is_about_response(self) -> bool:
        """Whether the response is why, so that the next one of the resource is likely to be no other."""
        return self in _ABOUT_RESPONSE


_ABOUT_RESOURCE = frozenset({NotStored.NO_STORE, NotStored.PRIVATE, NotStored.VARY})
_ABOUT_REQUEST = frozenset({NotStored.AUTHORIZATION, NotStored.REQUEST_HOST, NotStored.REQUEST_FIELD})
_ABOUT_RESPONSE = _ABOUT_RESOURCE | {
    NotStored.STATUS,
    NotStored.SET_COOKIE,
    NotStored.NO_LIFETIME,
    NotStored.TOO_LARGE,
}


class Reuse(enum.Enum):
    """Whether a stored response may answer a request."""

    FRESH = "fresh"
    STALE_ACCEPTED = "stale, and the request accepts that"
    STALE_WHILE_REVALIDATE = "stale, and the response allows that while it is validated"
    STALE = "stale"
    NO_CACHE = "the response says no-cache"
    REQUEST = "the request does not accept it"

    @property
    def is_allowed(self) -> bool:
        return self in _ALLOWED


_ALLOWED = frozenset({Reuse.FRESH, Reuse.STALE_ACCEPTED, Reuse.STALE_WHILE_REVALIDATE})


def check_request_storable(method: bytes, has_body: bool, traits: RequestTraits) -> NotStored | None:
    """Return why no response to such a request may be stored, or None."""
    if method not in (b"GET", b"POST"):
        return NotStored.METHOD
    if has_body and method == b"GET":
        return NotStored.REQUEST_BODY
    if traits.is_for_origin:
        return NotStored.REQUEST_CONDITION
    # RFC 9111, 5.2.1.5: a cache MUST NOT store any part of either this request or any response to it.
    return NotStored.REQUEST_NO_STORE if traits.directives.no_store else None


def check_response_storable(
    traits: RequestTraits,
    status: int,
    fields: Fields,
    directives: ResponseDirectives,
    names: VariantNames | None,
    freshness: Freshness,
) -> NotStored | None:
    """Return why a shared cache must not, or had better not, store a response, or None (RFC 9111, 3).

    Args:
        traits: of its request, which ``check_request_storable`` has let pass.
        status: of the response.
        fields: of the response, those that are kept of it.
        directives: its Cache-Control, or the targeted field that stands in for it.
        names: of its Vary; None where no request can be told to match.
        freshness: its lifetime.
    """
    if status < _FIRST_FINAL_STATUS or status in _NEVER_STORED_STATUSES:
        return NotStored.STATUS
    if directives.must_understand and status not in _UNDERSTOOD_STATUSES:
        return NotStored.STATUS
    # RFC 9111, 5.2.2.3: a cache that understands the status ought to ignore no-store beside must-understand.
    if directives.no_store and not directives.must_understand:
        return NotStored.NO_STORE
    if directives.private:
        return NotStored.PRIVATE
    if traits.has_authorization and not _allows_authorized(directives):
        return NotStored.AUTHORIZATION
    # RFC 9111, 7.3: Set-Cookie does not inhibit caching, the origin's own word does. Most origins that set cookies
    # never gave it: what is merely guessed to be fresh shares nobody's cookie.
    is_shared_by_intent = directives.public or freshness.source.is_explicit
    if not is_shared_by_intent and any(name in (b"set-cookie", b"set-cookie2") for name, _ in fields):
        return NotStored.SET_COOKIE
    return NotStored.VARY if names is None else None


def check_worth_storing(
    stored: StoredResponse, directives: ResponseDirectives, freshness: Freshness
) -> NotStored | None:
    """Return NO_LIFETIME where a response must not be reused, not even after validation, else None.

    RFC 9111, 3: without explicit lifetime or ``public`` the status has to be cacheable by default.
    """
    is_permitted = freshness.source.is_explicit or directives.public or stored.status in HEURISTIC_STATUSES
    # Deviation: negative_ttl permits it for a status that is not: good for upstreams that errors cost as much.
    # A gateway acts as the origin server (RFC 9110, 3.7), and whoever runs both configures it in its name, as RFC 9111,
    # 4.2.4 knows it of stale responses ("configuration in accordance with an out-of-band contract").
    is_permitted = is_permitted or freshness.source is LifetimeSource.STATUS
    can_be_hit = not stored.must_validate and stored.initial_age_s < stored.lifetime_s
    return None if is_permitted and (can_be_hit or stored.has_validator) else NotStored.NO_LIFETIME


def decide_reuse(stored: StoredResponse, directives: RequestDirectives, now_s: float) -> Reuse:
    """Return whether a stored response may answer a request as it is (RFC 9111, 4)."""
    age_s = stored.age_s(now_s)
    is_fresh = age_s < stored.lifetime_s
    if stored.must_validate:
        return Reuse.NO_CACHE
    reuse = Reuse.FRESH if is_fresh else _judge_stale(stored, directives, age_s - stored.lifetime_s)
    if not reuse.is_allowed:
        return reuse
    if directives.no_cache:
        return Reuse.REQUEST
    # RFC 9111, 5.2.1.1: "Unless the max-stale request directive is also present, the client does not wish to receive a
    # stale response." Nor one that is staler than it says.
    limits_staleness = directives.max_age_s is not None or directives.max_stale_s is not None
    if reuse is Reuse.STALE_WHILE_REVALIDATE and limits_staleness:
        return Reuse.REQUEST
    # max-age=0 asks for validation, also within the second (RFC 9111, 5.2.1.1).
    if directives.max_age_s is not None and (directives.max_age_s == 0 or age_s > directives.max_age_s):
        return Reuse.REQUEST
    if directives.min_fresh_s is not None and stored.lifetime_s - age_s < directives.min_fresh_s:
        return Reuse.REQUEST
    return reuse


def may_answer_failure(stored: StoredResponse, directives: RequestDirectives, now_s: float, status: int | None) -> bool:
    """Tell whether a stale response may answer a request that the upstream failed to answer.

    RFC 9111, 4.2.4: a cache MUST NOT generate a stale response unless it is disconnected or that is explicitly
    permitted, and never where a directive prohibits it. RFC 5861, 4: stale-if-error permits it, of the response or of
    the request.

    Args:
        stored: what would be validated or fetched anew, since it is stale.
        directives: of the request.
        now_s: wall clock.
        status: what the upstream answered; None where it did not answer.
    """
    if stored.forbids_stale:
        return False
    stale_s = stored.age_s(now_s) - stored.lifetime_s
    if directives.stale_if_error_s is not None and stale_s <= directives.stale_if_error_s:
        return True
    # What the request says besides is what it would rather have than an error from the cache.
    if directives.no_cache or directives.max_age_s is not None or directives.min_fresh_s is not None:
        return False
    # RFC 9111, 5.2.1.2: the client accepts what is stale "by no more than the specified number of seconds".
    if directives.max_stale_s is not None and stale_s > directives.max_stale_s:
        return False
    if stored.if_error_s and stale_s <= stored.if_error_s:
        return True
    return status is None and stale_s <= MAX_DISCONNECTED_STALE_S


def _judge_stale(stored: StoredResponse, directives: RequestDirectives, stale_s: float) -> Reuse:
    """RFC 9111, 4.2.4: MUST NOT where the response forbids it; else as far as the request or the response allows."""
    if stored.forbids_stale:
        return Reuse.STALE
    if directives.max_stale_s is not None and stale_s <= directives.max_stale_s:
        return Reuse.STALE_ACCEPTED
    return Reuse.STALE_WHILE_REVALIDATE if stale_s < stored.while_revalidate_s else Reuse.STALE


def _allows_authorized(directives: ResponseDirectives) -> bool:
    """RFC 9111, 3.5: must-revalidate, public and s-maxage allow to store a response to Authorization."""
    return directives.must_revalidate or directives.public or directives.s_maxage_s is not None
