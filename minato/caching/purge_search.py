"""What of a store a purge is about, and how to tell it of a response that is still on its way."""

from __future__ import annotations

from minato.caching.pending import Matches
from minato.caching.purge import PurgeKind, PurgeRequest, ToKeyTarget, UrlPattern
from minato.caching.store import Store
from minato.caching.stored import StoredResponse
from minato.caching.tags import read_tags


def find_purged(store: Store, purge: PurgeRequest, to_key_target: ToKeyTarget) -> tuple[list[StoredResponse], Matches]:
    """Return the stored responses that a purge is about, and what tells whether others are."""
    tag = purge.value
    if purge.kind is PurgeKind.ALL:
        return list(store), lambda key, fields: True
    if purge.kind is PurgeKind.TAG:
        return store.tagged(tag), lambda key, fields: tag in read_tags(fields)
    pattern = UrlPattern(purge.kind, purge.value, to_key_target)
    return store.find(pattern.matches), lambda key, fields: pattern.matches(key)
