"""What a request looks like to the cache and to the upstream, given who sent it and whom minato believes."""

from __future__ import annotations

from typing import Final

from minato.caching.key import normalize_authority
from minato.caching.request import CacheRequest
from minato.caching.rules import CacheRules
from minato.caching.targeted import OWN_CAPABILITY
from minato.net.client import Client
from minato.net.context import WorkerContext
from minato.net.runtime import UpstreamRuntime
from minato.protocol.fields import OVERRIDE, FieldBlock, Fields
from minato.protocol.forward import forward_request_fields, forward_request_lines, join_target
from minato.protocol.forwarded import Claims, render_element
from minato.protocol.message import Framing, RequestHead
from minato.protocol.render import render_lines, render_request_head

# Of what a trusted proxy says: the client's address, which every request has another of, and what is in the key itself.
_IN_KEY: Final = frozenset([b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"])
_CAPABILITY: Final = b"surrogate-capability"
_CAPABILITY_LINE: Final = b"surrogate-capability: " + OWN_CAPABILITY + b"\r\n"


def build_cache_request(context: WorkerContext, claims: Claims | None, head: RequestHead, service: int) -> CacheRequest:
    """Return the request as the cache sees it.

    What is forwarded and names another resource must be in the key: what a trusted proxy says of it is. What cannot be
    in it lets the request pass the cache by.
    """
    block = head.block
    fields = block.end_to_end
    rules = context.cache_rules[service]
    scheme = b"http" if claims is None else claims.scheme
    host = normalize_authority(head.host, scheme) if b":" in head.host else head.host
    is_oddly_spelt = head.host_as_sent != host
    extra = None if rules is None else rules.key_extra(fields)
    if claims is not None:
        named = normalize_authority(claims.host.lower(), scheme)
        is_oddly_spelt = is_oddly_spelt or claims.host != named
        if named != host:
            host += b" " + named
        others = [b"%b: %b" % field for field in fields if claims.passes(field[0]) and field[0] not in _IN_KEY]
        if others:
            extra = b"\n".join([extra or b"", *others])
    is_bypassed = rules is not None and rules.is_bypassed(head.path, fields)
    if block.known.has_override:
        is_bypassed = is_bypassed or _has_unkeyed_override(block.known, rules)
    return CacheRequest(
        method=head.method,
        scheme=scheme,
        host=host,
        target=head.path if rules is None else rules.key_target(head.path),
        fields=fields,
        has_body=head.framing is not Framing.NONE,
        service=service,
        extra=extra,
        is_bypassed=is_bypassed,
        is_oddly_spelt=is_oddly_spelt,
    )


def _has_unkeyed_override(block: FieldBlock, rules: CacheRules | None) -> bool:
    names = [line.name for line in block.lines if line.role == OVERRIDE]
    return rules is None or not all(map(rules.is_keyed, names))


def render_upstream_request(
    context: WorkerContext,
    client: Client,
    head: RequestHead,
    upstream: UpstreamRuntime,
    altered: Fields | None = None,
    target: bytes | None = None,
    *,
    is_cached: bool = False,
) -> bytes:
    """Return the head of the request to an upstream.

    Args:
        context: the worker's.
        client: where it came from.
        head: of the request.
        upstream: where it goes.
        altered: its end-to-end fields if they are not its own.
        target: its path and query if they are not its own.
        is_cached: whether the cache has to do with it: the upstream is told that there is one. It is the same for
            every request of the same head to the same upstream.
    """
    peer = client.peer_bytes
    memo = head.memo
    is_own = altered is None and target is None
    if memo is not None and is_own:
        rendered = memo.rendered
        # The same head from the same peer makes the same claims.
        if rendered is not None and rendered[0] is upstream and rendered[1] == peer:
            return rendered[2]
    capability = b""
    if is_cached:
        fields = altered if altered is not None else head.block.end_to_end
        if any(name == _CAPABILITY for name, _ in fields):
            altered = _append_capability(fields)
        else:
            capability = _CAPABILITY_LINE
    claims = client.claims
    if altered is None and claims is None:
        lines = forward_request_lines(head, peer, upstream.authority)
    else:
        fields = altered if altered is not None else head.block.end_to_end
        lines = render_lines(forward_request_fields(head, fields, peer, claims, upstream.authority))
    if context.sends_forwarded and claims is None:
        lines += b"forwarded: %b\r\n" % render_element(peer, head.host_as_sent)
    lines += capability
    if target is None:
        target = head.path
    if upstream.prefix or upstream.query:
        target = join_target(upstream.prefix, upstream.query, target)
    wire = render_request_head(head.method, target, lines, head.framing, head.length_bytes)
    if memo is not None and memo.is_exact and is_own:
        memo.rendered = (upstream, peer, wire)
    return wire


def _append_capability(fields: Fields) -> Fields:
    """Return fields whose Surrogate-Capability, which a surrogate in front of minato or the client sent, is continued.

    Edge Architecture Specification, 2.1: the capabilities of each surrogate on the way are appended.
    """
    known = b", ".join(value for name, value in fields if name == _CAPABILITY and value)
    others = [field for field in fields if field[0] != _CAPABILITY]
    return [*others, (_CAPABILITY, known + b", " + OWN_CAPABILITY if known else OWN_CAPABILITY)]
