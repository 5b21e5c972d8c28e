"""The store: stored responses by key and variant, bounded in number and in bytes; it knows nothing of freshness."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from minato.caching.key import (
    ExtendedKeys,
    PrimaryKey,
    ResourceKey,
    VariantNames,
    VariantValues,
    resource_of,
    select_variant_values,
)
from minato.caching.order import make_order
from minato.caching.policy import NotStored
from minato.caching.stored import StoredResponse
from minato.caching.tags import TagIndex, count_tag_bytes, read_tags
from minato.config.model import CacheKind
from minato.protocol.message import Fields

MAX_VARIANTS = 64
"""Stored responses of one URL, whether Vary tells them apart or the extra part of their keys; the least used one goes
first, so that no URL's variants drive out the rest."""

# Measured with tracemalloc: a place among the resources, and the dict of a resource or of a group.
RESOURCE_BYTES = 296
GROUP_BYTES = 232

_Resource = dict[VariantNames, dict[VariantValues, StoredResponse]]


class Store:
    """Stored responses under a count and a byte limit.

    Bytes that writers have reserved count as well: what is stored and what is being stored never exceed the limit
    together.
    """

    def __init__(self, kind: CacheKind, *, capacity: int, max_memory_bytes: int) -> None:
        self._kind = kind
        self._capacity = capacity
        self._max_memory_bytes = max_memory_bytes
        self._resources: dict[PrimaryKey, _Resource] = {}
        self._extended = ExtendedKeys()
        self._tags = TagIndex()
        self._order = make_order(kind, capacity=capacity, max_memory_bytes=max_memory_bytes)
        self._linked_bytes = 0  # stored responses and their places among the resources
        self._serial = 0
        self.reserved_bytes = 0
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._order)

    def __repr__(self) -> str:
        return f"<Store {len(self)} stored in {self.used_bytes} bytes, {self.reserved_bytes} bytes reserved>"

    def __iter__(self) -> Iterator[StoredResponse]:
        for resource in self._resources.values():
            for group in resource.values():
                yield from group.values()

    @property
    def used_bytes(self) -> int:
        """All memory that is taken: stored responses, the index, tags, and what the eviction order remembers."""
        return self._linked_bytes + self._tags.used_bytes + self._order.overhead_bytes

    def has(self, key: PrimaryKey) -> bool:
        """Tell whether any variant is stored under that key."""
        return key in self._resources

    def select(self, key: PrimaryKey, fields: Fields) -> StoredResponse | None:
        """Return the stored response that a request with those fields selects (RFC 9111, 4.1), or None.

        Where several match, the one of the latest Date is taken, the later arrival among equals.
        """
        matching = self.matching(key, fields)
        if len(matching) > 1:
            return max(matching, key=lambda stored: (stored.date_s, stored.serial))
        return matching[0] if matching else None

    def only_variant(self, key: PrimaryKey) -> StoredResponse | None:
        """Return what is stored under a key whose responses have no Vary, None where there is nothing or more to it."""
        resource = self._resources.get(key)
        if resource is None or len(resource) != 1:
            return None
        group = resource.get(())
        return None if group is None else group.get(())

    def find(self, matches: Callable[[PrimaryKey], bool]) -> list[StoredResponse]:
        """Return all variants of every key that matches: a look at each key, a third of a microsecond."""
        return [stored for key in self._resources if matches(key) for stored in self.variants(key)]

    def variants(self, key: PrimaryKey) -> list[StoredResponse]:
        """Return everything stored under a key."""
        return [stored for group in self._resources.get(key, {}).values() for stored in group.values()]

    def variant_names(self, key: PrimaryKey) -> list[VariantNames]:
        """Return what the responses stored under a key vary on."""
        return list(self._resources.get(key, ()))

    def tagged(self, tag: bytes) -> list[StoredResponse]:
        """Return everything stored under a cache tag."""
        return self._tags.tagged(tag)

    def touch(self, stored: StoredResponse) -> None:
        """Note a use of a stored response, for the eviction order. It does not lengthen its life."""
        if stored.is_live:
            self._order.touch(stored)

    def take_serial(self) -> int:
        """Return a number larger than any before: what arrived in which order, whatever the clock says."""
        self._serial += 1
        return self._serial

    def put(self, stored: StoredResponse, fields: Fields) -> NotStored | None:
        """Store a complete response instead of everything that its request would have selected before.

        Args:
            stored: not live yet, with its serial.
            fields: of the request that it answers.

        Returns:
            None once it is stored; SUPERSEDED where a later arrival is stored already; NO_MEMORY without room for it.
        """
        superseded = self.matching(stored.key, fields)
        if any(old.serial > stored.serial for old in superseded):
            return NotStored.SUPERSEDED
        for old in superseded:
            stored.uses = max(stored.uses, old.uses)
            self.discard(old)
        self._limit_variants(resource_of(stored.key))
        stored.tags = read_tags(stored.fields)
        index_bytes = RESOURCE_BYTES + GROUP_BYTES + count_tag_bytes(stored.tags)
        if not self._make_room(stored.size_bytes + index_bytes, 1):
            return NotStored.NO_MEMORY
        self._link(stored)
        self._order.add(stored, is_known=bool(superseded))
        return None

    def replace(self, old: StoredResponse, new: StoredResponse) -> bool:
        """Store a freshened response in the place of the old one; False where that is gone or there is no room."""
        if not old.is_live:
            return False
        new.tags = read_tags(new.fields)
        self._order.replace(old, new)
        self._unlink(old)
        twin = self._resources.get(new.key, {}).get(new.names, {}).get(new.values)
        if twin is not None:  # the 304 changed Vary to what another one is stored under
            self.discard(twin)
        self._link(new)
        self._make_room(0, 0)
        return new.is_live

    def discard(self, stored: StoredResponse) -> None:
        """Forget a stored response; nothing happens where it is gone already."""
        if stored.is_live:
            self._order.discard(stored)
            self._unlink(stored)

    def discard_resource(self, key: ResourceKey) -> int:
        """Forget all that is stored of a URL, whatever its variant and the extra part of its key; return how many."""
        found = self._all_of(key)
        for stored in found:
            self.discard(stored)
        return len(found)

    def admits(self, stored: StoredResponse, size_bytes: int) -> bool:
        """Tell whether a response being stored is worth what would have to go for it once it has that size."""
        if self.used_bytes + self.reserved_bytes + size_bytes <= self._max_memory_bytes:
            return True
        return self.has(stored.key) or self._order.admits(stored, size_bytes)

    def clear(self) -> int:
        """Forget everything stored at once; return how many there were."""
        found = list(self)
        for stored in found:
            stored.is_live = False
        self._resources = {}
        self._extended.clear()
        self._tags = TagIndex()
        self._order = make_order(self._kind, capacity=self._capacity, max_memory_bytes=self._max_memory_bytes)
        self._linked_bytes = 0
        return len(found)

    def reserve(self, size_bytes: int) -> bool:
        """Set bytes aside for a response being stored, at the cost of stored ones; False where they are too many."""
        if not self._make_room(size_bytes, 0):
            return False
        self.reserved_bytes += size_bytes
        return True

    def release(self, size_bytes: int) -> None:
        """Give reserved bytes back."""
        self.reserved_bytes -= size_bytes

    def matching(self, key: PrimaryKey, fields: Fields) -> list[StoredResponse]:
        """Return every stored response that a request with those fields could select (RFC 9111, 4.1)."""
        resource = self._resources.get(key)
        if resource is None:
            return []
        selected = (group.get(select_variant_values(names, fields)) for names, group in resource.items())
        return [stored for stored in selected if stored is not None]

    def _make_room(self, size_bytes: int, count: int) -> bool:
        """Evict until that many bytes and responses more find room; evict nothing where they never will."""
        incoming_bytes = self.reserved_bytes + size_bytes
        bytes_left = self._max_memory_bytes - incoming_bytes
        if count > self._capacity or self._order.overhead_bytes > bytes_left:
            return False
        while self.used_bytes > bytes_left or len(self._order) + count > self._capacity:
            self._unlink(self._order.evict(incoming_bytes))
            self.evictions += 1
        return True

    def _all_of(self, key: ResourceKey) -> list[StoredResponse]:
        """Return all that is stored of a URL."""
        return [stored for one in self._extended.all_of(key) for stored in self.variants(one)]

    def _limit_variants(self, key: ResourceKey) -> None:
        """Make room among those of a URL: a flood of them drives out those of the flood, not what is used."""
        variants = self._all_of(key)
        if len(variants) >= MAX_VARIANTS:
            victim = min(variants, key=lambda stored: (stored.uses, stored.serial))
            for stored in variants if victim.uses else ():  # all were used: what was once is no reason to stay for good
                stored.uses -= 1
            self.discard(victim)
            self.evictions += 1

    def _link(self, stored: StoredResponse) -> None:
        resource = self._resources.get(stored.key)
        if resource is None:
            resource = self._resources[stored.key] = {}
            self._extended.add(stored.key)
            self._linked_bytes += RESOURCE_BYTES
        group = resource.get(stored.names)
        if group is None:
            group = resource[stored.names] = {}
            self._linked_bytes += GROUP_BYTES
            if len(resource) > 1:
                for rival in self.variants(stored.key):
                    rival.has_rivals = True
        elif group:
            stored.names = next(iter(group.values())).names  # the dict's own, so that no other object lives on in it
        group[stored.values] = stored
        stored.has_rivals = len(resource) > 1
        if stored.tags:
            self._tags.add(stored)
        self._linked_bytes += stored.size_bytes
        stored.is_live = True

    def _unlink(self, stored: StoredResponse) -> None:
        resource = self._resources.pop(stored.key)
        group = resource[stored.names]
        del group[stored.values]
        if not group:
            del resource[stored.names]
            self._linked_bytes -= GROUP_BYTES
        self._extended.discard(stored.key)
        if resource:
            # Under the key of one that stays: what is gone leaves nothing behind that is not counted.
            key = next(iter(next(iter(resource.values())).values())).key
            self._resources[key] = resource
            self._extended.add(key)
        else:
            self._linked_bytes -= RESOURCE_BYTES
        if stored.tags:
            self._tags.discard(stored)
        self._linked_bytes -= stored.size_bytes
        stored.is_live = False
