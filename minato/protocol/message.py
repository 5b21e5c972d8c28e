"""Heads of messages and how their bodies are framed: the values both codecs yield and the exchange works on."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from minato.protocol.fields import FieldBlock, Fields, field_values, first_value, list_members

__all__ = [
    "Fields",
    "Framing",
    "HeadMemo",
    "RequestHead",
    "ResponseHead",
    "field_values",
    "first_value",
    "list_members",
]


class Framing(enum.Enum):
    """How the end of a body is found (RFC 9112, 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class HeadMemo:
    """What others derive from a request head and find again with the next one that says the same.

    Attributes:
        is_exact: whether its heads are the same to the byte; otherwise their Cookie may differ, and nothing else.
        routed: for the exchange, the route table the head was looked up in and the service found.
        rendered: for net.forwarding, the upstream and the client it was rendered for last, and how; of exact ones.
        hot: for net.hits, the answer that may go out again.
        access_tail: for net.record: status, size of the body, and the end of the access log's line that goes with them.
    """

    __slots__ = ("access_tail", "hot", "is_exact", "rendered", "routed")

    def __init__(self, is_exact: bool) -> None:
        self.is_exact = is_exact
        self.routed: tuple[object, int] | None = None
        self.rendered: tuple[object, bytes, bytes] | None = None
        self.hot: object = None
        self.access_tail: tuple[int, int, bytes] | None = None


@dataclass(slots=True)
class RequestHead:
    """A valid request head.

    Attributes:
        method: as sent, such as ``b"GET"``.
        target: the request target as sent (origin-form, absolute-form, authority-form or ``*``).
        version: ``(1, 1)`` as 11, ``(1, 0)`` as 10.
        block: its field lines; ``fields`` are their names and values.
        framing: NONE, LENGTH or CHUNKED.
        length_bytes: the Content-Length where framing is LENGTH, else 0.
        host: the authority the client asked for: of the absolute-form target, else the Host field; lower case.
        path: origin-form path with query, beginning with ``/``, or ``*``.
        keep_alive: whether the client wants the connection kept.
        expects_continue: whether it waits for a 100 before it sends the body.
        upgrade: the protocols to switch to, a list in the client's spelling; empty where there are none.
        accepts_trailers: whether its TE says so.
        hops_left: of TRACE and OPTIONS, the Max-Forwards field; None where there is none.
        memo: what is kept of heads that come again, shared among them; None for one that is seen for the first time.
    """

    method: bytes
    target: bytes
    version: int
    block: FieldBlock
    framing: Framing
    length_bytes: int
    host: bytes
    path: bytes
    keep_alive: bool
    expects_continue: bool = False
    upgrade: bytes = b""
    accepts_trailers: bool = False
    hops_left: int | None = None
    memo: HeadMemo | None = field(default=None, compare=False)

    @property
    def fields(self) -> Fields:
        """Every field in order."""
        return self.block.fields

    @property
    def host_as_sent(self) -> bytes:
        """The authority in the client's own spelling: of the absolute-form target, else the Host field."""
        if self.target[:1] in (b"/", b"*"):
            return self.block.known.host
        return self.target.partition(b"://")[2][: len(self.host)]


@dataclass(slots=True)
class ResponseHead:
    """A valid response head, interim (1xx) or final. Never changed once it is made: codecs may return one again.

    Attributes:
        status: 100 to 599.
        reason: the reason phrase, perhaps empty.
        version: ``(1, 1)`` as 11, ``(1, 0)`` as 10.
        block: its field lines; ``fields`` are their names and values.
        framing: NONE where the request or the status forbids a body.
        length_bytes: the Content-Length, else 0.
        keep_alive: whether the connection may serve another exchange.
        upgrade: of a 101, the protocols switched to, lower case; of a 426, those it requires.
        forwarded: for protocol.forward, its lines as they go to a client.
        relayed: for protocol.forward, the whole head as it goes to one whose connection stays; ``relayed_last`` to one
            whose connection closes.
    """

    status: int
    reason: bytes
    version: int
    block: FieldBlock
    framing: Framing
    length_bytes: int
    keep_alive: bool
    upgrade: bytes = b""
    forwarded: bytes | None = field(default=None, compare=False)
    relayed: bytes | None = field(default=None, compare=False)
    relayed_last: bytes | None = field(default=None, compare=False)

    @property
    def fields(self) -> Fields:
        """Every field in order."""
        return self.block.fields
