"""A response as it would be stored: every rule that decides about it applied to its head, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from minato.caching.freshness import calculate_initial_age, calculate_lifetime, read_date
from minato.caching.key import has_name_taken_for, read_variant_names, select_variant_values
from minato.caching.policy import NotStored, check_response_storable, check_worth_storing
from minato.caching.request import CacheRequest, RequestTraits
from minato.caching.rules import CacheRules
from minato.caching.stored import StoredResponse, make_stored, with_date
from minato.caching.targeted import read_control
from minato.protocol.message import Fields

_WHOLE = 200
_PART = 206


@dataclass(frozen=True, slots=True)
class Arrival:
    """A response head and when it came.

    Attributes:
        status: of the response.
        reason: its reason phrase.
        fields: end-to-end fields; those of the stored response merged in after a 304.
        request_time_s: wall clock when the request was forwarded.
        response_time_s: wall clock when the head arrived.
        serial: a larger one arrived later.
    """

    status: int
    reason: bytes
    fields: Fields
    request_time_s: float
    response_time_s: float
    serial: int


def make_draft(
    request: CacheRequest, traits: RequestTraits, arrival: Arrival, *, rules: CacheRules, body: bytes = b""
) -> tuple[StoredResponse, NotStored | None]:
    """Return a response as it would be stored, not live yet, and why it must not be stored, or None.

    A 206 is kept as a 200 of which not all is there.

    Args:
        request: that it answers; whether the request alone forbids storing is not looked at here.
        traits: of the request.
        arrival: the response.
        rules: of the service, for the lifetime of responses that bring none.
        body: the content where it is known already, as it is after a 304.
    """
    fields, now_s = arrival.fields, arrival.response_time_s
    directives = read_control(fields)
    names = read_variant_names(fields)
    stated_date_s = read_date(fields, now_s)
    date_s = int(now_s) if stated_date_s is None else stated_date_s
    freshness = calculate_lifetime(
        arrival.status,
        fields,
        directives,
        date_s=date_s,
        response_time_s=now_s,
        ttl_s=rules.ttl_s,
        negative_ttl_s=rules.negative_ttl_s.get(arrival.status),
    )
    initial_age_s = calculate_initial_age(
        fields, date_s=date_s, request_time_s=arrival.request_time_s, response_time_s=now_s
    )
    is_part = arrival.status == _PART
    draft = make_stored(
        key=request.key,
        names=names or (),
        values=select_variant_values(names or (), request.fields),
        status=_WHOLE if is_part else arrival.status,
        reason=b"OK" if is_part else arrival.reason,
        fields=with_date(fields, stated_date_s, now_s),
        directives=directives,
        freshness=freshness,
        date_s=date_s,
        response_time_s=now_s,
        initial_age_s=initial_age_s,
        body=body,
        serial=arrival.serial,
    )
    if request.method == b"POST" and not freshness.source.is_explicit:
        return draft, NotStored.METHOD  # RFC 9110, 9.3.3: only with explicit freshness
    if names and has_name_taken_for(names, request.fields):
        return draft, NotStored.REQUEST_FIELD
    refusal = check_response_storable(traits, arrival.status, list(draft.fields), directives, names, freshness)
    return draft, refusal or check_worth_storing(draft, directives, freshness)
