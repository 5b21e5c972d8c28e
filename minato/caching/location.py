"""Which stored resources a response names that changed with the one asked for (RFC 9111, 4.4)."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from minato.caching.request import CacheRequest
from minato.protocol.message import Fields, field_values

_DEFAULT_PORTS = {"http": 80, "https": 443}


def find_changed_targets(request: CacheRequest, fields: Fields) -> list[bytes]:
    """Return the targets of Location and Content-Location, those of the request's own origin.

    RFC 9111, 4.4: a cache MUST NOT trigger an invalidation if the origin (scheme, host, port) differs; this prevents
    denial-of-service attacks.
    """
    values = field_values(fields, b"location") + field_values(fields, b"content-location")
    targets = [_resolve(request, value) for value in values]
    return [target for target in targets if target is not None and target != request.target]


def names_own_target(request: CacheRequest, fields: Fields) -> bool:
    """Tell whether a response's Content-Location is the request's target (RFC 9110, 8.7)."""
    values = field_values(fields, b"content-location")
    return len(values) == 1 and _resolve(request, values[0]) == request.target


def _resolve(request: CacheRequest, value: bytes) -> bytes | None:
    """Return the target that a URI reference names, None where it is of another origin or none at all."""
    scheme = request.scheme.decode("latin-1").lower()
    # Where a trusted proxy named another host than the Host field, the client asked for that.
    host = request.host.split(b" ")[-1].decode("latin-1")
    base = f"{scheme}://{host}{request.target.decode('latin-1')}"
    try:
        url = urlsplit(urljoin(base, value.decode("latin-1")))
        if (url.scheme, url.hostname, url.port or _DEFAULT_PORTS.get(url.scheme)) != _origin(scheme, host):
            return None
    except ValueError:  # a port that is no number, brackets that do not match
        return None
    path = url.path or "/"
    return (f"{path}?{url.query}" if url.query else path).encode("latin-1", "replace")


def _origin(scheme: str, host: str) -> tuple[str, str | None, int | None]:
    url = urlsplit(f"{scheme}://{host}")
    return scheme, url.hostname, url.port or _DEFAULT_PORTS.get(scheme)
