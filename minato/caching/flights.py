"""Request collapsing: requests that wait for the response to another one, and share it while it arrives (RFC 9111, 4).

A *flight* is a request on its way to the upstream whose response others may use. Its leader tells it what comes; its
followers are woken when that decides about them, and ask `Flight.judge` what to do.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final, Protocol

from minato.caching.key import PrimaryKey, VariantNames, select_variant_values
from minato.caching.policy import NotStored, decide_reuse
from minato.caching.request import CONDITION_FIELDS, CacheRequest, RequestTraits, read_traits
from minato.caching.stored import StoredResponse
from minato.caching.writer import StoreWriter

REMEMBERED_S: Final = 120.0
"""How long requests for a resource go each on its own once its response turned out not to be shareable; seconds."""

MAX_REMEMBERED: Final = 4096
MAX_FLIGHTS: Final = 16
"""Flights of one resource at the same time: of more variants than that, each request goes on its own."""

_RANGES: Final = frozenset({b"range", b"if-range"})
_TRY_AGAIN: Final = frozenset({NotStored.INVALIDATED, NotStored.NOT_ADMITTED})


def may_collapse(request: CacheRequest, traits: RequestTraits) -> bool:
    """Tell whether a request may wait for the response to another one, or others for its own.

    What asks for a response of its own (no-store, no-cache, max-age=0), and what carries credentials, does neither.
    """
    directives = traits.directives
    wants_its_own = directives.no_store or directives.no_cache or directives.max_age_s == 0
    is_shareable = not (traits.has_authorization or traits.is_for_origin or wants_its_own)
    return is_shareable and request.method == b"GET" and not request.has_body


def may_lead(request: CacheRequest, *, validates: bool) -> bool:
    """Tell whether the response to a request that `may_collapse` can be whole: it has no range.

    One with a condition leads, too. A 304 answers its own condition and fails the flight; the next one to lead has
    waited, and asks without.

    Args:
        request: that is to be forwarded.
        validates: whether its conditions are replaced by those of a validation.
    """
    return not request.is_oddly_spelt and (validates or not any(name in _RANGES for name, _ in request.fields))


class FlightState(enum.Enum):
    """How far a flight has come."""

    AWAITED = "there is no response yet"
    SHARED = "the response arrives and is being stored"
    OVERRUN = "the response arrives, but is no longer being stored"
    STORED = "the response is stored, or the stored one was validated"
    REFUSED = "the response cannot be shared"
    FAILED = "there was no response, or it was cut"
    FALLEN_BACK = "there was no response but a failure, and a stale one may answer"

    @property
    def is_over(self) -> bool:
        return self in _OVER


_OVER = frozenset({FlightState.STORED, FlightState.REFUSED, FlightState.FAILED, FlightState.FALLEN_BACK})


class Verdict(enum.Enum):
    """What a follower that was woken is to do."""

    WAIT = "go on waiting"
    SHARE = "take the response as it arrives"
    LOOK_UP = "look up again, and forward by itself what is not there"
    START_OVER = "look up again, and wait for another one or lead"
    FALL_BACK = "answer with a stale response, where this request may have it"


class Follower(Protocol):
    """A request that waits, or shares."""

    def wake(self) -> None:
        """The flight has come further; `Flight.judge` says what that means. To be acted upon later, not at once."""

    def on_shared_body(self, data: bytes) -> None:
        """A piece of the body came, for one that shares."""

    def on_shared_end(self) -> None:
        """The response is complete."""

    def on_shared_cut(self) -> None:
        """The response was cut short."""

    @property
    def is_congested(self) -> bool:
        """Whether its client is behind."""


class Leader(Protocol):
    """The exchange whose response it is."""

    def on_pace_changed(self) -> None:
        """A follower came, caught up or left: a response that was held back may go on."""

    def on_followers_gone(self) -> None:
        """The last follower left."""


class Flight:
    """One request on its way.

    Attributes:
        request: the leader's.
        state: how far it has come.
        response: on its way into the store, stored, or validated, as far as one came.
        writer: of one on its way into the store.
        failure_status: of an upstream that failed, None where it gave no answer.
        is_outdated: whether the resource has changed since it began.
    """

    def __init__(self, flights: Flights, request: CacheRequest, leader: Leader) -> None:
        self.request = request
        self.state = FlightState.AWAITED
        self.response: StoredResponse | None = None
        self.writer: StoreWriter | None = None
        self.failure_status: int | None = None
        self.is_outdated = False
        self._flights = flights
        self._leader = leader
        self._waiting: dict[Follower, None] = {}
        self._sharing: dict[Follower, None] = {}

    def __repr__(self) -> str:
        waits = f"{len(self._waiting)} waiting, {len(self._sharing)} sharing"
        return f"<Flight {self.request.target!r} {self.state.name}: {waits}>"

    @property
    def has_followers(self) -> bool:
        return bool(self._waiting or self._sharing)

    @property
    def has_failed(self) -> bool:
        return self.state is FlightState.FAILED

    @property
    def has_overrun(self) -> bool:
        return self.state is FlightState.OVERRUN

    @property
    def must_hold_back(self) -> bool:
        """Whether the response is to be held back for followers that are behind.

        What is being stored is not: it is bounded, and kept once for all of them.
        """
        return self.has_overrun and any(follower.is_congested for follower in self._sharing)

    # -- for followers

    def wait(self, follower: Follower) -> None:
        """Begin to wait; the follower is woken when something is decided."""
        self._waiting[follower] = None
        if self.state is not FlightState.AWAITED:
            follower.wake()
            self._leader.on_pace_changed()

    def leave(self, follower: Follower) -> None:
        """Wait and share no more; nothing happens where it does neither."""
        was_following = self.has_followers
        self._waiting.pop(follower, None)
        self._sharing.pop(follower, None)
        if was_following and not self.state.is_over:
            self._leader.on_pace_changed()
            if not self.has_followers:
                self._leader.on_followers_gone()

    def judge(self, request: CacheRequest, now_s: float) -> Verdict:
        """Return what a follower with that request is to do now."""
        state = self.state
        if state is FlightState.AWAITED:
            return Verdict.WAIT
        if state is FlightState.FALLEN_BACK:
            return Verdict.FALL_BACK
        if state is FlightState.FAILED:
            return Verdict.START_OVER
        stored, writer = self.response, self.writer
        if stored is not None and select_variant_values(stored.names, request.fields) != stored.values:
            return Verdict.START_OVER  # it is of no use to this one, but may have been the first of several
        if state is FlightState.STORED and stored is not None and not stored.is_live:
            return Verdict.START_OVER  # it is gone again
        if state is not FlightState.SHARED:
            return Verdict.LOOK_UP
        assert stored is not None and writer is not None
        if not writer.is_open:  # it was invalidated meanwhile, so who comes now must not get it
            return Verdict.START_OVER
        if not decide_reuse(stored, read_traits(request.fields).directives, now_s).is_allowed:
            return Verdict.LOOK_UP
        # A condition or a range is weighed once all of the response is there.
        return Verdict.WAIT if has_condition(request) else Verdict.SHARE

    def share(self, follower: Follower) -> list[bytes]:
        """Begin to take the response as it arrives; return the pieces that were there before."""
        self._waiting.pop(follower, None)
        self._sharing[follower] = None
        self._leader.on_pace_changed()
        assert self.writer is not None
        return list(self.writer.pieces)

    def cut_congested(self) -> None:
        """Those who are behind have held the others back for too long: they share no more."""
        for follower in [one for one in self._sharing if one.is_congested]:
            self._sharing.pop(follower)
            follower.on_shared_cut()

    def on_follower_drained(self) -> None:
        """A follower that was behind has caught up."""
        if self.has_overrun:
            self._leader.on_pace_changed()

    # -- for the leader

    def begin(self, writer: StoreWriter) -> None:
        """The response has begun and is being stored."""
        self.response, self.writer = writer.stored, writer
        self.state = FlightState.SHARED
        self._wake()

    def add(self, data: bytes) -> None:
        """A piece of the body came, and is with the writer."""
        for follower in list(self._sharing):
            follower.on_shared_body(data)

    def overrun(self, reason: NotStored, now_s: float) -> None:
        """The response is stored no longer, too large or invalidated: whoever shares it already gets the rest."""
        if self.state is FlightState.SHARED:
            self.state = FlightState.OVERRUN
            self._flights.remember_refusal(self.request.key, reason, now_s)
            self._flights.retire(self)
            self._wake()

    def refuse(self, reason: NotStored, now_s: float, *, is_lasting: bool) -> None:
        """The response is not stored: the others go on by themselves.

        Args:
            reason: why.
            now_s: wall clock.
            is_lasting: whether the next response is likely to be of that kind, too.
        """
        if is_lasting:
            self._flights.remember_refusal(self.request.key, reason, now_s)
        # One from before a purge, or that is to be asked for twice, says nothing about the next: it is waited for.
        self._end(FlightState.FAILED if reason in _TRY_AGAIN else FlightState.REFUSED)

    def land(self, stored: StoredResponse | None) -> None:
        """The response is complete, or the stored one was found to be good. Nothing happens where the flight is over.

        Args:
            stored: what answers those who waited; None where it was not stored after all.
        """
        if self.state.is_over:
            return
        self.response = stored
        sharing = list(self._sharing)
        self._end(FlightState.FAILED if stored is None else FlightState.STORED)
        for follower in sharing:
            follower.on_shared_end()

    def fall_back(self, status: int | None) -> None:
        """The upstream failed, and the leader is answered with what is stored, stale as it is.

        Args:
            status: what the upstream answered, None where it did not.
        """
        if not self.state.is_over:
            self.failure_status = status
            self._end(FlightState.FALLEN_BACK)

    def fail(self) -> None:
        """There will be no response, or not all of it. Nothing happens where the flight is over."""
        if self.state.is_over:
            return
        sharing = list(self._sharing)
        self._end(FlightState.FAILED)
        for follower in sharing:
            follower.on_shared_cut()

    def _end(self, state: FlightState) -> None:
        self.state = state
        self._sharing.clear()
        self._flights.retire(self)
        self._wake()

    def _wake(self) -> None:
        for follower in list(self._waiting):
            follower.wake()


class Flights:
    """The flights of one worker, and the resources whose responses cannot be shared.

    Attributes:
        validating: the resources that are validated in the background.
        has_extended_keys: whether any flight so far had a key with an extra part.
    """

    def __init__(self) -> None:
        self._by_key: dict[PrimaryKey, list[Flight]] = {}
        self._refused: dict[PrimaryKey, tuple[float, float]] = {}  # from when until when, wall clock
        self.validating: set[PrimaryKey] = set()
        self.has_extended_keys = False

    def __repr__(self) -> str:
        return f"<Flights {sum(map(len, self._by_key.values()))} under way, {len(self._refused)} keys not shared>"

    def __len__(self) -> int:
        return sum(map(len, self._by_key.values()))

    def find(self, request: CacheRequest, now_s: float, known: Iterable[VariantNames] = ()) -> Flight | None:
        """Return a flight whose response may answer that request, None where there is none to wait for.

        Args:
            request: that may collapse.
            now_s: wall clock.
            known: what responses of the resource were found to vary on: a request that differs there from a flight's
                does not wait for it, or one variant would be fetched after the other.
        """
        flights = self._by_key.get(request.key)
        if flights is None:
            return None
        names = {*known, *(flight.response.names for flight in flights if flight.response is not None)}
        for flight in flights:
            is_alike = flight.state is not FlightState.AWAITED or all(
                select_variant_values(name, request.fields) == select_variant_values(name, flight.request.fields)
                for name in names
            )
            if is_alike and flight.judge(request, now_s) in (Verdict.WAIT, Verdict.SHARE):
                return flight
        return None

    def is_crowded(self, key: PrimaryKey) -> bool:
        """Tell whether that many flights of a resource are under way that one more would help nobody."""
        return len(self._by_key.get(key, ())) >= MAX_FLIGHTS

    def is_under_way(self, key: PrimaryKey) -> bool:
        """Tell whether there is any flight of a resource that can be joined."""
        return key in self._by_key

    def is_refused(self, key: PrimaryKey, now_s: float) -> bool:
        """Tell whether requests for that key had better not wait for each other."""
        refused = self._refused.get(key)
        if refused is None:
            return False
        if refused[0] <= now_s < refused[1]:
            return True
        del self._refused[key]  # over, or the clock was set back
        return False

    def lead(self, request: CacheRequest, leader: Leader) -> Flight:
        """Begin a flight."""
        flight = Flight(self, request, leader)
        self._by_key.setdefault(request.key, []).append(flight)
        self.has_extended_keys = self.has_extended_keys or request.extra is not None
        return flight

    def remember_refusal(self, key: PrimaryKey, reason: NotStored, now_s: float) -> None:
        """Let requests for that key go each on its own for a while, where the reason is one of the response's."""
        if not reason.is_about_response:
            return
        self._refused.pop(key, None)
        if len(self._refused) >= MAX_REMEMBERED:
            del self._refused[next(iter(self._refused))]
        self._refused[key] = (now_s, now_s + REMEMBERED_S)

    def forget_refusal(self, key: PrimaryKey) -> None:
        """The resource's response can be shared after all."""
        self._refused.pop(key, None)

    def keys(self) -> list[PrimaryKey]:
        """Return the keys of the flights that can be joined."""
        return list(self._by_key)

    def retire_all(self, key: PrimaryKey) -> None:
        """The resource has changed: nobody may join its flights any more, and what they bring is not stored."""
        for flight in self._by_key.pop(key, ()):
            flight.is_outdated = True

    def retire(self, flight: Flight) -> None:
        """Nobody may join it any more; who follows it already goes on to."""
        flights = self._by_key.get(flight.request.key)
        if flights is not None and flight in flights:
            flights.remove(flight)
            if not flights:
                del self._by_key[flight.request.key]


def has_condition(request: CacheRequest) -> bool:
    """Tell whether the response to a request may be less than the whole one."""
    return any(name in CONDITION_FIELDS for name, _ in request.fields)
