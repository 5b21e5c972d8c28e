"""Forwarding: what an intermediary takes out of a head and puts in (RFC 9110, 7.6; Via, X-Forwarded-*, Host).

Framing fields are taken out here too: what leaves minato is framed anew by protocol.render.
"""

from __future__ import annotations

from minato.protocol.fields import FieldBlock, Fields, field_values, first_value, is_forwarded_name, strip_hop_by_hop
from minato.protocol.forwarded import Claims
from minato.protocol.message import Framing, RequestHead, ResponseHead
from minato.protocol.render import render_lines, render_response_head
from minato.protocol.trailers import announced_trailers

_HTTP_1_1 = 11
_NOT_MODIFIED = 304
_MADE_ANEW = frozenset([b"host", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"])
_VIA_LINE = b"via: 1.1 minato\r\n"


def forward_request_fields(
    head: RequestHead, fields: Fields, client: bytes, claims: Claims | None, authority: bytes
) -> Fields:
    """Return the fields of the request to the upstream, but for its framing.

    Args:
        head: the request as received.
        fields: its end-to-end fields (`strip_hop_by_hop`), perhaps altered by the cache.
        client: the address the request came from, without port.
        claims: what that address says of its client, if it is a trusted proxy's.
        authority: the upstream's, used as Host where the client (HTTP/1.0) sent none.
    """
    forwarded: Fields = [(b"host", head.host_as_sent or authority)]
    # RFC 9110, 10.1.1: an expectation of an HTTP/1.0 client, or of one without a body, is not passed on.
    dropped = _MADE_ANEW if head.expects_continue else _MADE_ANEW | {b"expect"}
    if head.hops_left is not None:
        # RFC 9110, 7.6.2: "an updated Max-Forwards field [...] the received value decremented by one".
        dropped = dropped | {b"max-forwards"}
        forwarded.append((b"max-forwards", b"%d" % (head.hops_left - 1)))
    forwarded += [
        (name, value)
        for name, value in fields
        if name not in dropped and (not is_forwarded_name(name) or (claims is not None and claims.passes(name)))
    ]
    if claims is not None:
        forwarded += claims.fields
    else:
        forwarded += [(b"x-forwarded-for", client), (b"x-forwarded-proto", b"http")]
        if head.host_as_sent:
            forwarded.append((b"x-forwarded-host", head.host_as_sent))
    forwarded.append((b"via", _via(head.version)))
    return forwarded + _fields_for_one_hop(head)


def _fields_for_one_hop(head: RequestHead) -> Fields:
    """Return what the request asks of the next server alone, said anew."""
    fields: Fields = []
    options = []
    if head.accepts_trailers:
        # RFC 9110, 10.1.4: "a sender of TE MUST also send a "TE" connection option".
        options.append(b"te")
        fields.append((b"te", b"trailers"))
    if head.upgrade:
        options.append(b"upgrade")
        fields.append((b"upgrade", head.upgrade))
    if options:
        fields.insert(0, (b"connection", b", ".join(options)))
    trailers = announced_trailers(head.fields) if head.framing is Framing.CHUNKED else b""
    if trailers:
        fields.append((b"trailer", trailers))
    return fields


def forward_request_lines(head: RequestHead, client: bytes, authority: bytes) -> bytes:
    """Return `forward_request_fields` on the wire, for a client that is not trusted and a request as received.

    What follows from the block of fields alone is kept with the block.
    """
    if head.version < _HTTP_1_1 or head.upgrade or head.expects_continue or head.target[:1] != b"/":
        fields = forward_request_fields(head, head.block.end_to_end, client, None, authority)
        return render_lines(fields)
    block = head.block
    if block.cookie is not None:
        known, value, at = block.cookie
        around = known.around_cookie
        if around is None or around[0] != at:
            around = _split_at_line(known, at)
        return b"%bcookie: %b\r\n%b%b%b" % (around[1], value, around[2], client, around[3])
    parts = block.forwarded
    if parts is None:
        if _has_more_to_say(head):
            return render_lines(forward_request_fields(head, block.end_to_end, client, None, authority))
        parts = _surround_client(block)
    return parts[0] + client + parts[1]


def _has_more_to_say(head: RequestHead) -> bool:
    """Tell whether something is said anew that depends on more than the block; never of what the express codec read."""
    return head.accepts_trailers or head.hops_left is not None or head.framing is Framing.CHUNKED


def _surround_client(block: FieldBlock) -> tuple[bytes, bytes]:
    """Return (and keep) the forwarded lines of a block in front of and behind the client's address."""
    host = block.host
    parts = block.forwarded = (
        b"host: %b\r\n%bx-forwarded-for: " % (host, block.upstream_wire),
        b"\r\nx-forwarded-proto: http\r\nx-forwarded-host: %b\r\nvia: 1.1 minato\r\n" % host,
    )
    return parts


def _split_at_line(block: FieldBlock, at: int) -> tuple[int, bytes, bytes, bytes]:
    """Return (and keep) the forwarded lines of a block in front of its line ``at`` and behind, up to the client."""
    _, back = block.forwarded or _surround_client(block)
    before, behind = block.upstream_wire_around(at)
    around = (at, b"host: %b\r\n%b" % (block.host, before), b"%bx-forwarded-for: " % behind, back)
    block.around_cookie = around
    return around


def forward_response_lines(method: bytes, head: ResponseHead, date: bytes) -> bytes:
    """Return `forward_response_fields` as it goes on the wire."""
    if method == b"HEAD" or head.status == _NOT_MODIFIED or head.version < _HTTP_1_1:
        return render_lines(forward_response_fields(method, head, date))
    if head.forwarded is not None:
        return head.forwarded
    block = head.block
    if not block.has_date:
        return b"%bdate: %b\r\n%b" % (block.downstream_wire, date, _VIA_LINE)
    head.forwarded = block.downstream_wire + _VIA_LINE
    return head.forwarded


def forward_response_head(head: ResponseHead, date: bytes, *, closes: bool) -> bytes:
    """Return the head of a response to any method but HEAD, as it goes to a client that speaks HTTP/1.1.

    Args:
        head: the response as received; its framing becomes the client's.
        date: as for `forward_response_fields`.
        closes: whether it says that the connection closes.
    """
    connection = b"close" if closes else b""
    wire = head.relayed_last if connection else head.relayed
    if wire is None:
        lines = forward_response_lines(b"GET", head, date)
        wire = render_response_head(head.status, head.reason, lines, head.framing, head.length_bytes, connection)
        if lines is head.forwarded:  # without a date of our own in it
            if connection:
                head.relayed_last = wire
            else:
                head.relayed = wire
    return wire


def forward_response_fields(method: bytes, head: ResponseHead, date: bytes) -> Fields:
    """Return the fields of the response to the client, but for its framing and Connection.

    Args:
        method: of the request.
        head: the response as received.
        date: an HTTP-date of now, for a response that brings none (RFC 9110, 6.6.1: a recipient with a clock adds it).
    """
    fields = strip_hop_by_hop(head.fields)
    if method == b"HEAD" or head.status == _NOT_MODIFIED:
        # The length of a body that is not sent describes the representation; it frames nothing. Spelt in the one way,
        # without leading zeros, for those who read it all the same.
        fields += [(b"content-length", b"%d" % int(value)) for value in field_values(head.fields, b"content-length")]
    if first_value(fields, b"date") is None:
        fields.append((b"date", date))
    fields.append((b"via", _via(head.version)))
    return fields


def forward_interim_fields(head: ResponseHead) -> Fields:
    """Return the fields of an interim response to the client."""
    return [*strip_hop_by_hop(head.fields), (b"via", _via(head.version))]


def join_target(prefix: bytes, query: bytes, path: bytes) -> bytes:
    """Return the target towards an upstream: its path and query in front of the request's.

    ``prefix`` is ``b""`` or begins with a slash and ends without one; ``path`` is in origin-form or ``*``.
    """
    if path == b"*":
        return path
    if prefix:
        path = prefix + path
    if not query:
        return path
    bare, mark, own_query = path.partition(b"?")
    return bare + b"?" + query + (b"&" + own_query if mark and own_query else b"")


def _via(version: int) -> bytes:
    # RFC 9110, 7.6.3: the received protocol version goes in front of the pseudonym.
    return b"1.1 minato" if version >= _HTTP_1_1 else b"1.0 minato"
