"""Request targets and the Host field: which authority and path a client asked for (RFC 9112, 3.2)."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address

from minato.protocol.guard import Malformed

_AUTHORITY = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._~!$&'()*+,;=-]+(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~!$&'()*+,;=-]*)*)"
    rb"(?::([0-9]{1,5})?)?"
)
_ABSOLUTE = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^#]*)")


def check_authority(authority: bytes) -> bytes:
    """Return a ``host[:port]`` in lower case.

    Raises:
        Malformed: an empty or invalid one (RFC 9112, 3.2: 400), a port over 65535.
    """
    match = _AUTHORITY.fullmatch(authority)
    if match is None or (match[1] and int(match[1]) > 65_535):
        raise Malformed("an invalid Host")
    if authority[:1] == b"[":
        try:
            IPv6Address(authority[1 : authority.index(b"]")].decode("ascii"))
        except AddressValueError:
            raise Malformed("an invalid Host") from None
    return authority.lower()


def resolve_target(method: bytes, target: bytes, hosts: list[bytes], version: int) -> tuple[bytes, bytes]:
    """Return ``(authority, path)`` of a request: the authority in lower case, the path in origin-form or ``*``.

    ``hosts`` are the values of all Host fields. The authority is empty only for an HTTP/1.0 request without Host.

    Raises:
        Malformed: a target of a form the method does not allow, no or several Host fields, CONNECT (501).
    """
    if method == b"CONNECT":
        raise Malformed("CONNECT is not spoken here", 501)
    # RFC 9112, 3.2: "A server MUST respond with a 400 (Bad Request) status code to any HTTP/1.1 request message that
    # lacks a Host header field and to any request message that contains more than one Host header field line".
    if len(hosts) > 1 or (not hosts and version >= 11):
        raise Malformed("a request needs exactly one Host")
    host = check_authority(hosts[0]) if hosts else b""
    if target[:1] == b"/":
        if b"#" in target:
            raise Malformed("a fragment in the request target")
        return host, target
    if target == b"*":
        if method != b"OPTIONS":
            raise Malformed("the target * belongs to OPTIONS alone")
        return host, target
    return _resolve_absolute(method, target)


def _resolve_absolute(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    match = _ABSOLUTE.fullmatch(target)
    if match is None or match[1].lower() != b"http":
        raise Malformed("a malformed request target")
    # RFC 9112, 3.2.2: the Host field is ignored and replaced by the host of the target.
    authority = check_authority(match[2])
    path: bytes = match[3]
    if not path:
        # RFC 9112, 3.2.4: OPTIONS for an absolute-form without path and query asks for the server as a whole.
        return authority, b"*" if method == b"OPTIONS" else b"/"
    return authority, path if path[:1] == b"/" else b"/" + path
