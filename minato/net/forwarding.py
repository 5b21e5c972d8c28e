"""What a request looks like to the cache and to the upstream, given who sent it and whom minato believes."""

from __future__ import annotations

from minato.caching.request import CacheRequest
from minato.net.context import WorkerContext
from minato.net.runtime import UpstreamRuntime
from minato.protocol.forward import forward_request_fields, join_target, strip_hop_by_hop
from minato.protocol.message import Fields, Framing, RequestHead, first_value
from minato.protocol.render import render_request


def build_cache_request(context: WorkerContext, client: str, head: RequestHead, service: int) -> CacheRequest:
    """Return the request as the cache sees it.

    What is forwarded and names another resource must be in the key: a trusted proxy's X-Forwarded-Proto and -Host are.
    """
    fields = strip_hop_by_hop(head.fields)
    trusted = context.is_trusted(client)
    proto = first_value(fields, b"x-forwarded-proto") if trusted else None
    host = first_value(fields, b"x-forwarded-host") if trusted else None
    return CacheRequest(
        method=head.method,
        scheme=proto or b"http",
        host=head.host if host is None or host == head.host else head.host + b" " + host,
        target=head.path,
        fields=fields,
        has_body=head.framing is not Framing.NONE,
        service=service,
    )


def render_upstream_request(
    context: WorkerContext, client: str, head: RequestHead, end_to_end: Fields, upstream: UpstreamRuntime
) -> bytes:
    """Return the head of the request to an upstream; ``end_to_end`` are its fields without those for one connection."""
    fields = forward_request_fields(
        head, end_to_end, client.encode("ascii"), context.is_trusted(client), upstream.authority
    )
    target = join_target(upstream.prefix, upstream.query, head.path)
    return render_request(head.method, target, fields, head.framing, head.length_bytes)
