"""One exchange's dealings with the cache: lookup, validation, storing beside the client's copy, invalidation."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from minato.caching.answer import CachedAnswer
from minato.caching.cache import Cache
from minato.caching.directives import NO_REQUEST_DIRECTIVES
from minato.caching.flights import Flight, Leader, Verdict, has_condition, may_collapse, may_lead
from minato.caching.freshening import fields_for_client_alone
from minato.caching.lookup import Outcome
from minato.caching.policy import FAILURE_STATUSES, NotStored, decide_reuse
from minato.caching.ranges import ByteRange
from minato.caching.request import CacheRequest, read_traits
from minato.caching.status import ONLY_IF_CACHED, LookupReason, render_forwarded, render_hit
from minato.caching.stored import StoredResponse
from minato.caching.targeted import read_control
from minato.caching.writer import StoreWriter
from minato.errors import ExchangeError, Source, UpstreamError
from minato.protocol.fields import Fields, make_block
from minato.protocol.message import ResponseHead

_PARTIAL_CONTENT: Final = 206
_RANGE_NOT_SATISFIABLE: Final = 416
_NOT_MODIFIED: Final = 304
_GATEWAY_TIMEOUT: Final = 504
_FIRST_SERVER_ERROR: Final = 500
_COLLAPSIBLE: Final = (Outcome.MISS, Outcome.STALE, Outcome.PARTIAL)
_CACHEABLE_METHODS: Final = frozenset([b"GET", b"HEAD"])
_DISCONNECTED: Final = b"disconnected"
_WHILE_REVALIDATE: Final = b"stale-while-revalidate"
_STALE_IF_ERROR: Final = b"stale-if-error"


class CacheSession:
    """Made once per exchange where the cache is on.

    Attributes:
        hit: the stored response that answers, None where the request is forwarded.
        reason: how the lookup came out, for the log and Cache-Status.
        flight: what it leads: others may wait for the response; None where nobody may.
        is_collapsed: whether it is answered by the response to another request, which it waited for.
        must_ask_again: whether what came is of no use with what is stored, so that the request is to be sent once more.
    """

    __slots__ = (
        "_awaited",
        "_cache",
        "_completed",
        "_fallback",
        "_is_overdue",
        "_is_unconditional",
        "_is_validation",
        "_missing",
        "_outcome",
        "_request",
        "_request_time_s",
        "_stored",
        "_writer",
        "flight",
        "hit",
        "is_collapsed",
        "must_ask_again",
        "reason",
    )

    def __init__(self, cache: Cache, request: CacheRequest) -> None:
        self._cache = cache
        self._request = request
        self._request_time_s = 0.0
        self._stored: StoredResponse | None = None  # to be validated, or made whole
        self._missing: ByteRange | None = None  # of the stored part
        self._completed: StoredResponse | None = None  # the part, once the response began
        self._is_unconditional = False  # asked once more, or for others that wait
        self.must_ask_again = False
        self._fallback: StoredResponse | None = None  # answers where the upstream fails, if it may
        self._writer: StoreWriter | None = None
        self._outcome = Outcome.BYPASS
        self.is_collapsed = False
        self._awaited: LookupReason | None = None
        self.hit: StoredResponse | None = None
        self.reason = LookupReason.BYPASS
        self.flight: Flight | None = None
        self._is_overdue = False
        self._is_validation = False

    @property
    def label(self) -> str:
        """The access log's word."""
        return "collapsed" if self.is_collapsed else self.reason.value

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
        self.reason, self._outcome = found.reason, found.outcome
        if found.outcome is Outcome.GATEWAY_TIMEOUT:
            fields = ((b"cache-status", ONLY_IF_CACHED),)
            raise ExchangeError(_GATEWAY_TIMEOUT, "nothing usable is stored", source=Source.DOWNSTREAM, fields=fields)
        self._fallback = found.fallback
        if found.outcome is Outcome.HIT and found.stored is not None:
            return self._answer_hit(found.stored, now_s, is_overdue=found.needs_background_validation)
        self._stored = found.stored
        self._missing = found.missing
        return None

    def _answer_hit(self, stored: StoredResponse, now_s: float, *, is_overdue: bool) -> CachedAnswer:
        self._is_overdue = is_overdue
        status = None
        if self._awaited is not None:
            self.reason = self._awaited
            status = self._render_collapsed(stored, now_s)
        elif is_overdue:
            self._stored = stored
            status = render_hit(stored.ttl_s(now_s), key=self._shown_key, detail=_WHILE_REVALIDATE)
        else:
            self.hit = stored
        return self._cache.answer(self._request, stored, now_s, status)

    @property
    def is_validation_due(self) -> bool:
        """Whether the answer was stale and is to be validated in the background: nobody does so, or has done."""
        stored, flights, key = self._stored, self._cache.flights, self._request.key
        if not self._is_overdue or stored is None or not stored.is_live:
            return False
        # Nothing of what these brought would be kept.
        if self._request.is_oddly_spelt or read_traits(self._request.fields).directives.no_store:
            return False
        return key not in flights.validating and not flights.is_under_way(key)

    def begin_validation(self, leader: Leader) -> CacheSession:
        """Return the session of the exchange ``leader``, which validates the stale response that answered."""
        # What the client said of its own answer is not about this request: only-if-cached would keep it in a cache.
        fields = [field for field in self._request.fields if field[0] not in (b"cache-control", b"pragma")]
        session = CacheSession(self._cache, replace(self._request, method=b"GET", fields=fields))
        session.reason, session._outcome, session._stored = LookupReason.STALE, Outcome.STALE, self._stored
        session._is_validation = True
        self._cache.flights.validating.add(session._request.key)
        if may_collapse(session._request, read_traits(session._request.fields)):
            session.flight = self._cache.flights.lead(session._request, leader)
        return session

    # -- flights

    def join(self, leader: Leader, now_s: float) -> Flight | None:
        """After a lookup without an answer: return a flight to wait for; else lead one, if others may wait for it."""
        request, flights = self._request, self._cache.flights
        if self._outcome not in _COLLAPSIBLE or not may_collapse(request, read_traits(request.fields)):
            return None
        if flights.is_refused(request.key, now_s):
            return None
        flight = flights.find(request, now_s, self._cache.variant_names(request.key))
        if flight is not None:
            self._awaited = self.reason
        elif not flights.is_crowded(request.key) and may_lead(request, validates=self._stored is not None):
            self.flight = flights.lead(request, leader)
            # Who has waited asks for what all the others can have, not for a 304.
            has_waited = self._awaited is not None
            self._is_unconditional = has_waited and self._stored is None and has_condition(request)
        return flight

    def judge(self, flight: Flight, now_s: float) -> Verdict:
        """Return what this request is to do about a flight it waits for."""
        return flight.judge(self._request, now_s)

    def shared_fields(self, stored: StoredResponse, now_s: float) -> Fields:
        """Return the fields of the answer to a request that shares a response which is being stored."""
        own = [(b"age", b"%d" % stored.age_s(now_s)), (b"cache-status", self._render_collapsed(stored, now_s))]
        return [*stored.fields, *own]

    @property
    def is_wanted(self) -> bool:
        """Whether a response that no client takes is of use to anybody: to others, or to the store."""
        return self.is_awaited or self._writer is not None

    @property
    def is_awaited(self) -> bool:
        """Whether others wait for the response, or share it."""
        return self.flight is not None and self.flight.has_followers

    def close(self) -> None:
        """The exchange is over, whatever became of it."""
        if self._is_validation:
            self._cache.flights.validating.discard(self._request.key)
        flight, self.flight = self.flight, None
        if flight is not None:
            flight.fail()

    # -- forwarding

    def fields_to_forward(self, now_s: float) -> Fields | None:
        """Return the end-to-end fields to send upstream where they are not the request's own: those of a validation."""
        self._request_time_s = now_s
        if self._is_unconditional:
            return self._cache.unconditional_fields(self._request)
        if self._stored is not None and self._missing is not None:
            return self._cache.completing_fields(self._request, self._stored, self._missing)
        if self._stored is not None:
            return self._cache.validation_fields(self._request, self._stored)
        fields = self._cache.forward_fields(self._request)
        return None if fields is self._request.fields else fields

    def target_to_forward(self, path: bytes) -> bytes | None:
        """Return what to ask the upstream for where that is not ``path``, the request's own path and query.

        What may be stored is asked for without the parameters that are no part of its key: they cannot shape it then.
        """
        request = self._request
        if self._outcome is Outcome.BYPASS or request.method not in _CACHEABLE_METHODS or request.target == path:
            return None
        return request.target

    def ask_again(self) -> None:
        """Send the request once more, for the whole: what came is of no use with what is stored, which is forgotten."""
        self._is_unconditional, self.must_ask_again = True, False
        self._stored = self._missing = None
        part, self._completed = self._completed, None
        if part is not None:
            self._cache.forget(part)

    # -- responses that are not relayed: what is stored answers instead

    def answer_head(self, head: ResponseHead, now_s: float) -> CachedAnswer | None:
        """Return the answer from the store that a final response calls for: a 304, or a failure. None: there is none.

        Raises:
            UpstreamError: a 304, and that was asked for no more.
        """
        if head.status == _NOT_MODIFIED and self._is_unconditional:
            raise UpstreamError(502, "the upstream failed", detail="a 304 to a request without a condition")
        if head.status == _NOT_MODIFIED and self._stored is not None and self._missing is None:
            return self._freshen(self._stored, head, now_s)
        if head.status in FAILURE_STATUSES:
            return self.answer_failure(now_s, head.status)
        return None

    def answer_failure(
        self, now_s: float, status: int | None = None, *, is_collapsed: bool = False
    ) -> CachedAnswer | None:
        """Return the stale answer that may be given where the upstream failed, None where none may be.

        Args:
            now_s: wall clock.
            status: what the upstream answered, None where it did not answer.
            is_collapsed: whether it was another request that the upstream failed, which this one waited for.
        """
        fallback = self._fallback
        if fallback is None or not self._cache.may_answer_failure(self._request, fallback, now_s, status):
            return None
        if self.flight is not None:
            self.flight.fall_back(status)
        detail = _DISCONNECTED if status is None else _STALE_IF_ERROR
        self.is_collapsed = is_collapsed
        member = self._render_forwarded(fallback, now_s, upstream_status=status, collapsed=is_collapsed, detail=detail)
        return self._cache.answer(self._request, fallback, now_s, member)

    @property
    def error_status(self) -> int | None:
        """The status of an answer of our own where the upstream failed, if it is not that of the failure.

        RFC 9111, 5.2.2.2: a disconnected cache that must not reuse a stale response SHOULD say 504.
        """
        fallback = self._fallback
        return _GATEWAY_TIMEOUT if fallback is not None and fallback.forbids_stale else None

    def _freshen(self, stored: StoredResponse, head: ResponseHead, now_s: float) -> CachedAnswer | None:
        head = replace(head, block=make_block(head.block.end_to_end))
        fresh = self._cache.freshen(
            self._request, stored, head, request_time_s=self._request_time_s, response_time_s=now_s
        )
        if fresh is None:
            self.must_ask_again = True
            return None
        self._land_withheld(fresh, now_s)
        status = self._render_forwarded(fresh, now_s, upstream_status=_NOT_MODIFIED, is_stored=fresh.is_live)
        answer = self._cache.answer(self._request, fresh, now_s, status)
        answer.fields += fields_for_client_alone(fresh, head.fields)
        return answer

    def begin_completion(self, head: ResponseHead, now_s: float) -> bool:
        """Begin to make a stored part whole, where a final response brings what is missing; it is not relayed.

        Where it brings something else, which nobody asked for, `must_ask_again` is set.
        """
        if self._missing is None or head.status not in (_PARTIAL_CONTENT, _RANGE_NOT_SATISFIABLE):
            return False
        part, self._stored, self._missing = self._stored, None, None
        assert part is not None
        self._completed = part
        self._begin_store(head, now_s, completes=part)
        writer = self._writer
        self.must_ask_again = writer is None or not writer.completes
        return not self.must_ask_again

    def answer_completed(self, now_s: float) -> CachedAnswer | None:
        """Store what makes the part whole, now that it ended, and return the answer; None where that failed."""
        writer, self._writer = self._writer, None
        whole = writer.commit(now_s) if writer is not None else NotStored.ABORTED
        if isinstance(whole, NotStored) or whole.spans:
            return None
        self._land_withheld(whole, now_s)
        member = self._render_forwarded(whole, now_s, upstream_status=_PARTIAL_CONTENT, is_stored=True)
        return self._cache.answer(self._request, whole, now_s, member)

    # -- responses that are relayed

    def begin(self, head: ResponseHead, now_s: float) -> Fields:
        """Begin to store a final response that is to be relayed, if it may be; return the fields to add to it."""
        request = self._request
        end_to_end = head.block.end_to_end
        self._cache.invalidate(request, head.status, end_to_end, now_s)
        refusal = self._begin_store(head, now_s)
        if request.method == b"HEAD":
            # RFC 9111, 4.3.5: its Content-Length is compared, though it is not passed on as a field.
            lengths = [field for field in head.fields if field[0] == b"content-length"]
            self._cache.freshen_by_head(
                request,
                replace(head, block=make_block([*end_to_end, *lengths])),
                request_time_s=self._request_time_s,
                response_time_s=now_s,
            )
        if request.method not in _CACHEABLE_METHODS and self._writer is None:
            return []
        why_not = b"" if refusal is None or refusal is NotStored.METHOD else refusal.value.encode()
        begun = self._writer.stored if self._writer is not None else None
        member = self._render_forwarded(begun, now_s, is_stored=refusal is None, detail=why_not)
        return [(b"cache-status", member)]

    def _begin_store(
        self, head: ResponseHead, now_s: float, completes: StoredResponse | None = None
    ) -> NotStored | None:
        head = replace(head, block=make_block(head.block.end_to_end))
        begun: StoreWriter | NotStored = NotStored.INVALIDATED
        if head.status == _PARTIAL_CONTENT and completes is None and self._stored is not None:
            begun = NotStored.PART  # the range was left out of the validation, so nobody asked for it
        elif self.flight is None or not self.flight.is_outdated:
            begun = self._cache.begin_store(
                self._request,
                head,
                request_time_s=self._request_time_s,
                response_time_s=now_s,
                completes=completes,
                is_awaited=self.is_awaited,
            )
        if isinstance(begun, NotStored):
            if completes is None:
                self._refuse_others(head, begun, now_s)
            return begun
        self._writer = begun
        if completes is not None:  # whoever waits goes on to, until the part is whole or the whole was asked for
            return None
        is_shareable = self._note_shareable(begun.stored, now_s) and not begun.is_part
        if self.flight is not None and is_shareable:
            self.flight.begin(begun)
        elif self.flight is not None:
            self.flight.refuse(NotStored.NO_LIFETIME, now_s, is_lasting=not begun.is_part)
        return None

    def _refuse_others(self, head: ResponseHead, why: NotStored, now_s: float) -> None:
        """The response is for this client alone: whoever waits goes on."""
        flight = self.flight
        if flight is None:
            return
        control = read_control(head.fields) if head.status == _NOT_MODIFIED else None
        if control is None:
            flight.refuse(why, now_s, is_lasting=head.status < _FIRST_SERVER_ERROR)
        elif control.no_store or control.private:
            flight.refuse(NotStored.NO_STORE, now_s, is_lasting=True)
        else:
            flight.fail()  # a 304 to its own condition; the next one asks without any

    def write(self, data: bytes, now_s: float) -> None:
        """Take a piece of the body."""
        writer, flight = self._writer, self.flight
        if writer is not None and not writer.write(data):
            self._writer = None
            if flight is not None:
                flight.overrun(writer.refusal, now_s)
        if flight is not None:
            flight.add(data)

    def commit(self, now_s: float) -> None:
        """The response ended cleanly: store it."""
        writer, self._writer = self._writer, None
        stored = writer.commit(now_s) if writer is not None else None
        if self.flight is not None:
            self.flight.land(stored if isinstance(stored, StoredResponse) else None)

    def abort(self) -> None:
        """The response was cut: store nothing of it."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.abort()

    @property
    def _shown_key(self) -> bytes:
        return self._cache.shown_key(self._request.key)

    def _render_collapsed(self, stored: StoredResponse, now_s: float) -> bytes:
        self.is_collapsed = True
        return self._render_forwarded(stored, now_s, collapsed=True)

    def _render_forwarded(
        self,
        stored: StoredResponse | None,
        now_s: float,
        *,
        upstream_status: int | None = None,
        is_stored: bool = False,
        collapsed: bool = False,
        detail: bytes = b"",
    ) -> bytes:
        """Return the Cache-Status of what was forwarded; ``stored`` is what answers, or is being stored, if any."""
        return render_forwarded(
            self.reason,
            upstream_status=upstream_status,
            stored=is_stored,
            collapsed=collapsed,
            ttl_s=None if stored is None else stored.ttl_s(now_s),
            key=self._shown_key,
            detail=detail,
        )

    def _land_withheld(self, fresh: StoredResponse, now_s: float) -> None:
        """A 304 or the rest of a part came: whoever waits gets what is stored, unless each has to have it validated."""
        flight, is_shareable = self.flight, self._note_shareable(fresh, now_s)
        if flight is None:
            return
        if flight.is_outdated or not fresh.is_live:
            flight.refuse(NotStored.INVALIDATED, now_s, is_lasting=False)
        elif is_shareable:
            flight.land(fresh)
        else:
            flight.refuse(NotStored.NO_LIFETIME, now_s, is_lasting=True)

    def _note_shareable(self, stored: StoredResponse, now_s: float) -> bool:
        """Tell whether others may have a response as it is; then they may wait for such again."""
        is_shareable = decide_reuse(stored, NO_REQUEST_DIRECTIVES, now_s).is_allowed
        if is_shareable:
            self._cache.flights.forget_refusal(self._request.key)
        return is_shareable
