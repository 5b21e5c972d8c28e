"""From field lines to heads: the meaning of a valid message's fields, the same for both codecs."""

from __future__ import annotations

from minato.protocol.fields import FieldBlock, Fields
from minato.protocol.guard import Malformed
from minato.protocol.message import Framing, RequestHead, ResponseHead, field_values, list_members
from minato.protocol.target import resolve_target

_HTTP_1_1 = 11
_NO_CONTENT = 204
_NOT_MODIFIED = 304
_SWITCHING_PROTOCOLS = 101
_FIRST_FINAL = 200


def make_request_head(
    method: bytes, target: bytes, version: int, block: FieldBlock, framing: tuple[Framing, int] | None
) -> RequestHead:
    """Return the head of a request whose lines passed the guard; ``framing`` is what its fields declare.

    Raises:
        Malformed: with 400, 417 for an unknown expectation, 501 for CONNECT.
    """
    fields = block.fields
    host, path = resolve_target(method, target, field_values(fields, b"host"), version)
    connection = list_members(fields, b"connection")
    kind, length_bytes = framing or (Framing.NONE, 0)
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
        expects_continue=_expects_continue(fields, version, kind is not Framing.NONE),
        upgrade=_asked_upgrade(fields, connection, version, kind),
    )


def make_response_head(
    method: bytes, status: int, reason: bytes, version: int, block: FieldBlock, framing: tuple[Framing, int] | None
) -> ResponseHead:
    """Return the head of a response to ``method`` whose lines passed the guard (RFC 9112, 6.3)."""
    fields = block.fields
    connection = list_members(fields, b"connection")
    kind, length_bytes = framing or (Framing.CLOSE, 0)
    keep_alive = _wants_keep_alive(connection, version)
    if status < _FIRST_FINAL or status == _NO_CONTENT:
        # Framing fields are forbidden here (RFC 9110, 8.6; RFC 9112, 6.1): whoever sends them may send a body too.
        keep_alive = keep_alive and framing in (None, (Framing.LENGTH, 0))
        kind = Framing.NONE
    elif status == _NOT_MODIFIED or method == b"HEAD":
        kind = Framing.NONE
    elif kind is Framing.CLOSE:
        keep_alive = False
    upgrade = b""
    if status == _SWITCHING_PROTOCOLS and b"upgrade" in connection:
        upgrade = b", ".join(field_values(fields, b"upgrade")).lower()
    return ResponseHead(status, reason, version, block, kind, length_bytes, keep_alive, upgrade)


def _wants_keep_alive(connection: list[bytes], version: int) -> bool:
    if b"close" in connection:
        return False
    return version >= _HTTP_1_1 or b"keep-alive" in connection


def _expects_continue(fields: Fields, version: int, has_body: bool) -> bool:
    expectations = list_members(fields, b"expect")
    # RFC 9110, 10.1.1: a 100-continue expectation in an HTTP/1.0 request MUST be ignored; other ones may get a 417.
    if any(expectation != b"100-continue" for expectation in expectations):
        raise Malformed("an unknown expectation", 417)
    return bool(expectations) and version >= _HTTP_1_1 and has_body


def _asked_upgrade(fields: Fields, connection: list[bytes], version: int, framing: Framing) -> bytes:
    """Return the protocols to switch to, empty where the request has a body or asks for h2c.

    A server may ignore Upgrade (RFC 9110, 7.8). h2c is: a tunnel of it would carry requests past the proxy.
    """
    if version < _HTTP_1_1 or b"upgrade" not in connection or framing is not Framing.NONE:
        return b""
    protocols = list_members(fields, b"upgrade")
    if any(protocol.startswith(b"h2c") or protocol.startswith(b"http/") for protocol in protocols):
        return b""
    return b", ".join(protocols)
