"""What takes responses out of the store before their time, and off their way into it: changed resources, purges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from minato.caching.flights import Flights
from minato.caching.key import PrimaryKey, ResourceKey, resource_of
from minato.caching.location import find_changed_targets
from minato.caching.pending import ChangeLog, PurgeLog
from minato.caching.policy import NotStored
from minato.caching.purge import PurgeKind, PurgeRequest
from minato.caching.purge_search import find_purged
from minato.caching.request import SAFE_METHODS, CacheRequest
from minato.caching.rules import CacheRules
from minato.caching.store import Store
from minato.caching.stored import StoredResponse, as_stale
from minato.caching.writer import StoreWriter
from minato.protocol.message import Fields


class Removal:
    """Knows what is stored, what is being stored and what is asked for, and takes away what no longer holds.

    Attributes:
        purged: how many responses purges have found since the start.
    """

    def __init__(self, store: Store, flights: Flights, rules_of: Callable[[int], CacheRules]) -> None:
        self._store = store
        self._flights = flights
        self._rules_of = rules_of
        self._writers: dict[PrimaryKey, set[StoreWriter]] = {}
        self._services: set[int] = set()  # that anything was stored for
        self._has_extended_keys = False
        self._purges = PurgeLog()
        self._changes = ChangeLog()
        self.purged = 0

    def __len__(self) -> int:
        """How many responses are being stored."""
        return sum(map(len, self._writers.values()))

    def watch(self, writer: StoreWriter) -> None:
        """A response is being stored."""
        key = writer.stored.key
        self._services.add(key[0])
        self._has_extended_keys = self._has_extended_keys or resource_of(key) != key
        self._writers.setdefault(key, set()).add(writer)

    def unwatch(self, writer: StoreWriter) -> None:
        """It is stored, or given up."""
        writers = self._writers[writer.stored.key]
        writers.discard(writer)
        if not writers:
            del self._writers[writer.stored.key]

    def is_outdated(
        self, request: CacheRequest, fields: Fields, *, request_time_s: float, response_time_s: float
    ) -> bool:
        """Tell whether a response with those fields may be from before a purge that is about it, or a change."""
        key, asked_s, came_s = request.key, request_time_s, response_time_s
        is_change = request.method not in SAFE_METHODS
        resource = resource_of(key)
        if self._changes.covers(resource, request_time_s=asked_s, response_time_s=came_s, is_change=is_change):
            return True
        return self._purges.covers(key, fields, request_time_s=asked_s, response_time_s=came_s)

    def invalidate(self, request: CacheRequest, response_status: int, response_fields: Fields, now_s: float) -> None:
        """Forget what is stored of the target after an unsafe request that did not fail.

        RFC 9111, 4.4: MUST invalidate the target URI on a non-error status (2xx, 3xx) to an unsafe method, known or
        not; Location and Content-Location as well, where they are of the same origin. Responses that are just being
        stored go as well, and what was asked for before ``now_s``, a wall clock, is not stored after it.
        """
        if request.method in SAFE_METHODS or not 200 <= response_status < 400:
            return
        self._forget(resource_of(request.key), now_s)
        for target in find_changed_targets(request, response_fields):
            # Another path of the same origin may be another service's.
            for service in self._services:
                self._forget((service, request.scheme, request.host, target), now_s)

    def purge(self, purges: Sequence[PurgeRequest], now_s: float) -> int:
        """Forget, or make stale, what purges ask for, over all services; return how many stored responses they found.

        What several of them find counts once. What is being stored and what was asked for before is never stored,
        whether a purge is soft or not.

        Args:
            purges: what to look for.
            now_s: wall clock.
        """
        if len(purges) == 1:
            count = len(self._purge(purges[0], now_s))
        else:  # a soft one leaves another object in the place of what the next may find again
            found = (stored for purge in purges for stored in self._purge(purge, now_s))
            count = len({(stored.key, stored.names, stored.values) for stored in found})
        self.purged += count
        return count

    def _purge(self, purge: PurgeRequest, now_s: float) -> list[StoredResponse]:
        found, matches = find_purged(self._store, purge, self._to_key_target)
        for writers in list(self._writers.values()):
            for writer in list(writers):
                if matches(writer.stored.key, list(writer.stored.fields)):
                    writer.abort(NotStored.INVALIDATED)
        # By tag there is no telling yet: such a response will be refused when it comes.
        for key in [key for key in self._flights.keys() if matches(key, [])]:  # noqa: SIM118, no dict
            self._flights.retire_all(key)
        self._purges.note(matches, now_s)
        if purge.kind is PurgeKind.ALL and not purge.soft:
            self._store.clear()
            return found
        for stored in found:
            if not purge.soft:
                self._store.discard(stored)
            elif stored.is_live:  # to replace another one may have needed room
                self._store.replace(stored, as_stale(stored, now_s))
        return found

    def clear(self) -> int:
        """Forget everything stored and being stored; return how many responses were stored."""
        for key in {*self._writers, *self._flights.keys()}:
            self._abort_writers(key)
        return self._store.clear()

    def _forget(self, resource: ResourceKey, now_s: float) -> None:
        """Forget all that is stored of a URL, whatever else its keys hold."""
        service, scheme, host, target = resource
        rules = self._rules_of(service)
        resource = (service, scheme, host, rules.key_target(target))
        self._changes.note(resource, now_s)
        keys: list[PrimaryKey] = [resource]
        if rules.has_extra or self._has_extended_keys or self._flights.has_extended_keys:
            keys = [key for key in {*self._writers, *self._flights.keys()} if resource_of(key) == resource]
        for key in keys:
            self._abort_writers(key)
        self._store.discard_resource(resource)

    def _abort_writers(self, key: PrimaryKey) -> None:
        """What is asked of the upstream already must answer nobody who comes after this."""
        self._flights.retire_all(key)
        for writer in list(self._writers.get(key, ())):
            writer.abort(NotStored.INVALIDATED)

    def _to_key_target(self, service: int, target: bytes) -> bytes:
        return self._rules_of(service).key_target(target)
