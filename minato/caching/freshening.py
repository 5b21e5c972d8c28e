"""Stored responses updated by a 304 to a validation, and by the response to HEAD (RFC 9111, 4.3.4, 4.3.5 and 3.2)."""

from __future__ import annotations

from collections.abc import Callable

from minato.caching.draft import Arrival, make_draft
from minato.caching.freshness import read_date
from minato.caching.policy import NotStored
from minato.caching.request import CacheRequest, read_traits
from minato.caching.rules import CacheRules
from minato.caching.store import Store
from minato.caching.stored import StoredResponse, complete_stored, with_date
from minato.caching.targeted import read_control
from minato.caching.validation import (
    is_same_representation,
    is_same_strong_date,
    is_strong_etag,
    merge_fields,
)
from minato.protocol.message import Fields, ResponseHead, field_values, first_value


class Freshener:
    """One response that updates stored ones."""

    def __init__(
        self,
        store: Store,
        request: CacheRequest,
        response: ResponseHead,
        *,
        rules: CacheRules,
        request_time_s: float,
        response_time_s: float,
    ) -> None:
        self._store = store
        self._request = request
        self._response = response
        self._rules = rules
        self._request_time_s = request_time_s
        self._response_time_s = response_time_s

    def freshen(self, stored: StoredResponse, *, is_outdated: bool = False) -> StoredResponse | None:
        """Return the stored response that was validated, updated by the 304, and update its like.

        None: the 304 speaks of another one. The stored response goes.
        """
        if not is_same_representation(stored, self._response.fields, self._response_time_s):
            self._store.discard(stored)
            return None
        if is_outdated:  # it answers who asked, and tells nothing of what is stored by now
            return self._make(stored)[0]
        for other in self._store.matching(self._request.key, self._request.fields):
            if other is not stored and self._identifies(other):
                self._update(other)
        return self._update(stored)

    def _identifies(self, other: StoredResponse) -> bool:
        """Tell whether a strong validator of the 304 is one of another response that the request could have selected.

        Deviation: not by Last-Modified where the entity tags differ, as those of two codings of one file do. It is good
        for whoever would get the bytes of one under the name of the other.
        """
        fields = self._response.fields
        etag = first_value(fields, b"etag") or b""
        if etag and other.etag:
            return etag == other.etag and is_strong_etag(etag)
        return is_same_strong_date(other, fields, self._response_time_s)

    def freshen_by_head(self, is_outdated: Callable[[StoredResponse], bool]) -> None:
        """Update what is stored of the resource where HEAD says that it is still the same; forget it otherwise.

        RFC 9111, 4.3.5: matching values for any received validator fields and for Content-Length, SHOULD update;
        otherwise SHOULD consider the stored response to be stale.
        """
        for stored in self._store.matching(self._request.key, self._request.fields):
            if stored.status != self._response.status or is_outdated(stored):
                continue
            if _is_confirmed(stored, self._response.fields):
                self._update(stored)
            else:
                self._store.discard(stored)

    def _update(self, stored: StoredResponse) -> StoredResponse:
        fresh, refusal = self._make(stored)
        may_keep = not (self._request.is_oddly_spelt or read_traits(self._request.fields).directives.no_store)
        if refusal is None and may_keep:
            self._store.replace(stored, fresh)
        elif refusal is not None and not refusal.is_about_request:
            self._store.discard(stored)
        return fresh

    def _make(self, stored: StoredResponse) -> tuple[StoredResponse, NotStored | None]:
        request, response, now_s = self._request, self._response, self._response_time_s
        # A 304 without Date is dated by its arrival, not by the stored Date (RFC 9110, 6.6.1).
        update = with_date(response.fields, read_date(response.fields, now_s), now_s)
        merged = merge_fields(list(stored.fields), update)
        serial = self._store.take_serial()
        arrival = Arrival(stored.status, stored.reason, merged, self._request_time_s, now_s, serial)
        traits = read_traits(request.fields)
        fresh, refusal = make_draft(request, traits, arrival, rules=self._rules)
        complete_stored(fresh, stored.body, stored.spans, stored.complete_bytes)
        return fresh, refusal


def fields_for_client_alone(stored: StoredResponse, fields: Fields) -> Fields:
    """Return those fields of a 304 that are not stored, but are for whoever asked (RFC 9111, 5.2.2.4: qualified)."""
    withheld = read_control(list(stored.fields)).withheld
    return [field for field in fields if field[0] in withheld]


def _is_confirmed(stored: StoredResponse, fields: Fields) -> bool:
    etag, modified = first_value(fields, b"etag"), first_value(fields, b"last-modified")
    lengths = field_values(fields, b"content-length")
    return (
        (etag is None or etag == stored.etag)
        and (modified is None or modified == stored.last_modified)
        and all(length == b"%d" % stored.complete_bytes for length in lengths)
    )
