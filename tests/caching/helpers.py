"""Short ways to write the requests and responses that the tests of the cache are about."""

from __future__ import annotations

from minato.caching import Cache, CacheRequest, NotStored, StoredResponse
from minato.caching.dates import format_http_date
from minato.caching.writer import StoreWriter
from minato.config.model import CacheConfig, CacheKind
from minato.protocol.fields import make_block
from minato.protocol.message import Fields, Framing, ResponseHead

NOW_S = 1_700_000_000.0
"""The wall clock of every test, a whole second."""

DATE = format_http_date(NOW_S)


def date_after(seconds: float) -> bytes:
    return format_http_date(NOW_S + seconds)


def fields_of(*lines: str) -> Fields:
    """``"Cache-Control: no-store"`` -> ``(b"cache-control", b"no-store")``."""
    pairs = (line.split(":", 1) for line in lines)
    return [(name.lower().encode(), value.strip().encode("latin-1")) for name, value in pairs]


def make_cache(**settings: object) -> Cache:
    values: dict[str, object] = {"enabled": True, "kind": CacheKind.LRU, "ttl_s": 0.0} | settings
    return Cache(CacheConfig(**values))  # type: ignore[arg-type]


def make_request(
    *lines: str, method: bytes = b"GET", target: bytes = b"/page", has_body: bool = False, service: int = 0
) -> CacheRequest:
    return CacheRequest(method, b"http", b"example.com:8080", target, fields_of(*lines), has_body, service)


def make_head(
    *lines: str, status: int = 200, framing: Framing = Framing.CHUNKED, length_bytes: int = 0
) -> ResponseHead:
    """A response head; without a Date line it is dated NOW_S."""
    fields = fields_of(*lines)
    if not any(name == b"date" for name, _ in fields):
        fields.append((b"date", DATE))
    return ResponseHead(status, b"Reason", 11, make_block(fields), framing, length_bytes, keep_alive=True)


def begin(
    cache: Cache, request: CacheRequest, head: ResponseHead, *, at_s: float = NOW_S, delay_s: float = 0.0
) -> StoreWriter | NotStored:
    return cache.begin_store(request, head, request_time_s=at_s - delay_s, response_time_s=at_s)


def store(
    cache: Cache, request: CacheRequest, head: ResponseHead, body: bytes = b"body", *, at_s: float = NOW_S
) -> StoredResponse | NotStored:
    writer = begin(cache, request, head, at_s=at_s)
    if isinstance(writer, NotStored):
        return writer
    writer.write(body)
    return writer.commit(at_s)


def must_store(
    cache: Cache, request: CacheRequest, head: ResponseHead, body: bytes = b"body", *, at_s: float = NOW_S
) -> StoredResponse:
    stored = store(cache, request, head, body, at_s=at_s)
    assert isinstance(stored, StoredResponse), stored
    return stored
