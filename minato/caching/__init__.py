"""The response cache (RFC 9111), sans-IO: the clock is an argument."""

from __future__ import annotations

from minato.caching.answer import CachedAnswer
from minato.caching.cache import Cache, CacheStats
from minato.caching.lookup import Lookup, Outcome
from minato.caching.policy import NotStored
from minato.caching.request import CacheRequest
from minato.caching.status import ONLY_IF_CACHED, LookupReason, render_forwarded
from minato.caching.stored import StoredResponse
from minato.caching.writer import StoreWriter

__all__ = [
    "ONLY_IF_CACHED",
    "Cache",
    "CacheRequest",
    "CacheStats",
    "CachedAnswer",
    "Lookup",
    "LookupReason",
    "NotStored",
    "Outcome",
    "StoreWriter",
    "StoredResponse",
    "render_forwarded",
]
