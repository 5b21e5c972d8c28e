"""From field lines to heads: the meaning of a valid message's fields, the same for both codecs."""

from __future__ import annotations

import re

from minato.protocol.fields import FieldBlock, Fields
from minato.protocol.guard import Malformed
from minato.protocol.message import Framing, RequestHead, ResponseHead, field_values, list_members
from minato.protocol.target import resolve_target
from minato.protocol.via import is_looping

_HTTP_1_1 = 11
_NO_CONTENT = 204
_RESET_CONTENT = 205
_NOT_MODIFIED = 304
_SWITCHING_PROTOCOLS = 101
_UPGRADE_REQUIRED = 426
_FIRST_FINAL = 200
_NO_BODY = (Framing.LENGTH, 0)
_HOPS = re.compile(rb"[0-9]+")
_MAX_HOPS = 999
# RFC 9110, 7.8: protocol = protocol-name ["/" protocol-version], both tokens.
_PROTOCOL = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:/[!#$%&'*+.^_`|~0-9A-Za-z-]+)?")


def make_request_head(
    method: bytes, target: bytes, version: int, block: FieldBlock, framing: tuple[Framing, int] | None
) -> RequestHead:
    """Return the head of a request whose lines passed the guard; ``framing`` is what its fields declare.

    Raises:
        Malformed: with 400, 417 for an unknown expectation, 501 for CONNECT, 508 for a loop.
    """
    fields = block.fields
    if is_looping(fields):
        raise Malformed("a request that goes round in circles", 508)
    host, path = resolve_target(method, target, field_values(fields, b"host"), version)
    connection = list_members(fields, b"connection")
    kind, length_bytes = framing or (Framing.NONE, 0)
    if method == b"TRACE" and framing not in (None, _NO_BODY):
        raise Malformed("a TRACE with a body")  # RFC 9110, 9.3.8: "A client MUST NOT send content in a TRACE request."
    has_content = framing not in (None, _NO_BODY)
    return RequestHead(
        method=method,
        target=target,
        version=version,
        block=block,
        framing=kind,
        length_bytes=length_bytes,
        host=host,
        path=path,
        keep_alive=_wants_keep_alive(connection, version),
        expects_continue=_expects_continue(fields, version, has_content),
        upgrade=_asked_upgrade(fields, connection, version, has_content),
        accepts_trailers=_accepts_trailers(fields, connection, version),
        hops_left=_hops_left(fields) if method in (b"OPTIONS", b"TRACE") else None,
    )


def make_response_head(
    method: bytes, status: int, reason: bytes, version: int, block: FieldBlock, framing: tuple[Framing, int] | None
) -> ResponseHead:
    """Return the head of a response to ``method`` whose lines passed the guard (RFC 9112, 6.3).

    Raises:
        Malformed: an interim response that declares a body: one reader would look for it, another would not.
    """
    fields = block.fields
    connection = list_members(fields, b"connection")
    kind, length_bytes = framing or (Framing.CLOSE, 0)
    keep_alive = _wants_keep_alive(connection, version)
    if status < _FIRST_FINAL:
        # Forbidden (RFC 9110, 8.6; RFC 9112, 6.1); what follows could be a body or the next response.
        if framing not in (None, _NO_BODY):
            raise Malformed("an interim response that declares a body")
        kind = Framing.NONE
    elif status == _NO_CONTENT:
        # Framing fields are forbidden here, too: whoever sends them may send a body too.
        keep_alive = keep_alive and framing in (None, _NO_BODY)
        kind = Framing.NONE
    elif status == _RESET_CONTENT and method != b"HEAD":
        # RFC 9110, 15.3.6: "a server MUST NOT generate content in a 205 response". Some clients look for none, so that
        # none may follow; what comes nevertheless is no part of the message.
        keep_alive = keep_alive and framing == _NO_BODY
        kind, length_bytes = _NO_BODY
    elif status == _NOT_MODIFIED or method == b"HEAD":
        # They may name the framing of a body that does not come. Should it come after all, and late, nothing would tell
        # it from the response to the next request (RFC 9112, 6.3).
        keep_alive = keep_alive and framing in (None, _NO_BODY)
        kind = Framing.NONE
    elif kind is Framing.CLOSE:
        keep_alive = False
    upgrade = b""
    if status == _SWITCHING_PROTOCOLS and b"upgrade" in connection:
        upgrade = b", ".join(field_values(fields, b"upgrade")).lower()
    elif status == _UPGRADE_REQUIRED:
        upgrade = b", ".join(_protocols(fields))
    return ResponseHead(status, reason, version, block, kind, length_bytes, keep_alive, upgrade)


def _wants_keep_alive(connection: list[bytes], version: int) -> bool:
    if b"close" in connection:
        return False
    return version >= _HTTP_1_1 or b"keep-alive" in connection


def _expects_continue(fields: Fields, version: int, has_content: bool) -> bool:
    expectations = list_members(fields, b"expect")
    # RFC 9110, 10.1.1: a 100-continue expectation in an HTTP/1.0 request MUST be ignored; other ones may get a 417.
    if any(expectation != b"100-continue" for expectation in expectations):
        raise Malformed("an unknown expectation", 417)
    return bool(expectations) and version >= _HTTP_1_1 and has_content


def _accepts_trailers(fields: Fields, connection: list[bytes], version: int) -> bool:
    # RFC 9110, 10.1.4: "a sender of TE MUST also send a "TE" connection option"; without one it may have been meant for
    # somebody else.
    return version >= _HTTP_1_1 and b"te" in connection and b"trailers" in list_members(fields, b"te")


def _hops_left(fields: Fields) -> int | None:
    """Return the value of Max-Forwards (RFC 9110, 7.6.2)."""
    values = field_values(fields, b"max-forwards")
    if not values:
        return None
    if len(values) > 1 or not _HOPS.fullmatch(values[0]):
        raise Malformed("an invalid Max-Forwards")
    digits = values[0].lstrip(b"0")
    # What goes on is "the lesser of" it and "the recipient's maximum supported value".
    return _MAX_HOPS if len(digits) > 3 else int(digits or b"0")


def is_asked_switch(asked: bytes, switched: bytes) -> bool:
    """Tell whether a 101 names protocols, and only such as were asked for; ``switched`` is in lower case.

    RFC 9110, 7.8: "A server MUST NOT switch to a protocol that was not indicated by the client".
    """
    named = {protocol.strip(b" \t") for protocol in switched.split(b",")}
    return b"" not in named and named <= set(asked.lower().split(b", "))


def _asked_upgrade(fields: Fields, connection: list[bytes], version: int, has_content: bool) -> bytes:
    """Return the protocols to switch to as they were spelt, empty where the request has content or asks for h2c.

    A server may ignore Upgrade (RFC 9110, 7.8). h2c is: a tunnel of it would carry requests past the proxy. So is what
    is no list of protocols.
    """
    if version < _HTTP_1_1 or b"upgrade" not in connection or has_content:
        return b""
    protocols = _protocols(fields)
    if any(protocol.lower().startswith((b"h2c", b"http/")) for protocol in protocols):
        return b""
    return b", ".join(protocols)


def _protocols(fields: Fields) -> list[bytes]:
    """Return what Upgrade names, as it is spelt; nothing where anything in it is no protocol."""
    raw_members = [raw.strip(b" \t") for value in field_values(fields, b"upgrade") for raw in value.split(b",")]
    protocols = [member for member in raw_members if member]
    return protocols if all(map(_PROTOCOL.fullmatch, protocols)) else []
