"""What a request looks like to the cache and to the upstream, given who sent it and whom minato believes."""

from __future__ import annotations

from minato.caching.request import CacheRequest
from minato.net.context import WorkerContext
from minato.net.runtime import UpstreamRuntime
from minato.protocol.fields import Fields, first_value
from minato.protocol.forward import forward_request_fields, forward_request_lines, join_target
from minato.protocol.message import Framing, RequestHead
from minato.protocol.render import render_lines, render_request_head


def build_cache_request(context: WorkerContext, client: str, head: RequestHead, service: int) -> CacheRequest:
    """Return the request as the cache sees it.

    What is forwarded and names another resource must be in the key: a trusted proxy's X-Forwarded-Proto and -Host are.
    """
    fields = head.block.end_to_end
    trusted = context.is_trusted(client)
    proto = first_value(fields, b"x-forwarded-proto") if trusted else None
    host = first_value(fields, b"x-forwarded-host") if trusted else None
    rules = context.cache_rules[service]
    return CacheRequest(
        method=head.method,
        scheme=proto or b"http",
        host=head.host if host is None or host == head.host else head.host + b" " + host,
        target=head.path if rules is None else rules.key_target(head.path),
        fields=fields,
        has_body=head.framing is not Framing.NONE,
        service=service,
        extra=None if rules is None else rules.key_extra(fields),
        is_bypassed=rules is not None and rules.is_bypassed(head.path, fields),
    )


def render_upstream_request(
    context: WorkerContext,
    client: bytes,
    head: RequestHead,
    upstream: UpstreamRuntime,
    altered: Fields | None = None,
    target: bytes | None = None,
) -> bytes:
    """Return the head of the request to an upstream.

    Args:
        context: the worker's.
        client: its address.
        head: of the request.
        upstream: where it goes.
        altered: its end-to-end fields if they are not its own.
        target: its path and query if they are not its own.
    """
    memo = head.memo
    is_own = altered is None and target is None
    if memo is not None and is_own:
        rendered = memo.rendered
        if rendered is not None and rendered[0] is upstream and rendered[1] == client:
            return rendered[2]
    trusted = context.trusts_some and context.is_trusted(client.decode("ascii"))
    if altered is None and not trusted:
        lines = forward_request_lines(head, client, upstream.authority)
    else:
        fields = altered if altered is not None else head.block.end_to_end
        lines = render_lines(forward_request_fields(head, fields, client, trusted, upstream.authority))
    if target is None:
        target = head.path
    if upstream.prefix or upstream.query:
        target = join_target(upstream.prefix, upstream.query, target)
    wire = render_request_head(head.method, target, lines, head.framing, head.length_bytes)
    if memo is not None and memo.is_exact and is_own:
        memo.rendered = (upstream, client, wire)
    return wire
