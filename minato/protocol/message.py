"""Heads of messages and how their bodies are framed: the values both codecs yield and the exchange works on."""

from __future__ import annotations

import enum
from dataclasses import dataclass

Fields = list[tuple[bytes, bytes]]
"""An ordered list of ``(lower-case name, value)``; values carry no white space around them."""


class Framing(enum.Enum):
    """How the end of a body is found (RFC 9112, 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


@dataclass(slots=True)
class RequestHead:
    """A valid request head.

    Attributes:
        method: as sent, such as ``b"GET"``.
        target: the request target as sent (origin-form, absolute-form, authority-form or ``*``).
        version: ``(1, 1)`` as 11, ``(1, 0)`` as 10.
        fields: every field line in order, names in lower case.
        framing: NONE, LENGTH or CHUNKED.
        length_bytes: the Content-Length where framing is LENGTH, else 0.
        host: the authority the client asked for: of the absolute-form target, else the Host field; lower case.
        path: origin-form path with query, beginning with ``/``, or ``*``.
        keep_alive: whether the client wants the connection kept.
        expects_continue: whether it waits for a 100 before it sends the body.
        upgrade: the Upgrade field's value where Connection names it, else empty.
    """

    method: bytes
    target: bytes
    version: int
    fields: Fields
    framing: Framing
    length_bytes: int
    host: bytes
    path: bytes
    keep_alive: bool
    expects_continue: bool = False
    upgrade: bytes = b""

    @property
    def host_as_sent(self) -> bytes:
        """The authority in the client's own spelling: of the absolute-form target, else the Host field."""
        if self.target[:1] in (b"/", b"*"):
            return first_value(self.fields, b"host") or b""
        return self.target.partition(b"://")[2][: len(self.host)]


@dataclass(slots=True)
class ResponseHead:
    """A valid response head, interim (1xx) or final. ``framing`` NONE where the request or status forbids a body."""

    status: int
    reason: bytes
    version: int
    fields: Fields
    framing: Framing
    length_bytes: int
    keep_alive: bool
    upgrade: bytes = b""


def field_values(fields: Fields, name: bytes) -> list[bytes]:
    """Return the values of every field line of that lower-case name, in order."""
    return [value for key, value in fields if key == name]


def first_value(fields: Fields, name: bytes) -> bytes | None:
    """Return the first value of that lower-case name, or None."""
    for key, value in fields:
        if key == name:
            return value
    return None


def list_members(fields: Fields, name: bytes) -> list[bytes]:
    """Return the comma-separated members of a list field, lower case, empty ones left out (RFC 9110, 5.6.1)."""
    members = []
    for key, value in fields:
        if key == name:
            members += [member for raw in value.split(b",") if (member := raw.strip(b" \t").lower())]
    return members
