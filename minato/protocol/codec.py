"""The codec's interface: all that connections and the exchange know of how a message is read from bytes."""

from __future__ import annotations

import enum
from typing import Protocol

from minato.protocol.message import Fields, RequestHead, ResponseHead


class Signal(enum.Enum):
    """What a codec says besides heads and pieces of a body."""

    NEED_DATA = "needs more bytes"
    END = "the message is complete"


ServerEvent = RequestHead | bytes | Signal
ClientEvent = ResponseHead | bytes | Signal


class ServerCodec(Protocol):
    """Reads requests from one downstream connection, one after the other."""

    trailers: Fields
    """At the END of a request whose framing is CHUNKED: its trailer fields, whatever they are."""

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket; they are kept until ``next_event`` reads them."""

    def read_whole(self, data: bytes) -> RequestHead | None:
        """Return the head of the one request that ``data`` is the whole of, None where there is more or less to it.

        Only between two requests. It is then read, without ``feed``: its body is the last ``length_bytes`` of ``data``,
        and its END is not told. On None nothing has happened.
        """

    def next_event(self) -> ServerEvent:
        """Return a head, a piece of its body, END, or NEED_DATA. After END comes the next request.

        Raises:
            Malformed: the connection must be answered with its status and closed.
        """

    @property
    def buffered_bytes(self) -> int:
        """How many bytes were fed and not read yet."""

    @property
    def begins_head_request(self) -> bool:
        """Whether what was fed and not read begins as a HEAD request does; between two requests."""

    @property
    def passable_bytes(self) -> int:
        """How many bytes are still to come of the present body that may go by the codec; 0 where it must see them."""

    def skip(self, size: int) -> None:
        """So many of the passable bytes went by."""

    def take_rest(self) -> bytes:
        """Hand over what was fed and not read, for a tunnel."""


class ClientCodec(Protocol):
    """Reads responses from one upstream connection; told of each request before its response may come."""

    def expect_response(self, method: bytes, upgrade: bytes) -> None:
        """A request was sent: what it asks decides how its response is framed."""

    trailers: Fields
    """At an END that ``next_event`` told: the trailer fields of that response, whatever they are."""
    body_at: int
    """Where in the bytes of the last ``read_whole`` the body began."""
    payload_bytes: int
    """The size of that body, without what frames it."""

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket."""

    def read_whole(self, data: bytes) -> ResponseHead | None:
        """Return the head of the one final response that ``data`` is the whole of, None where it is anything else.

        It is then read, without ``feed``, and its END is not told. Its body is ``data[body_at:]`` as it came: where the
        framing is CHUNKED that is the chunks, whole and free of extensions and trailers. On None nothing has happened.
        """

    def feed_eof(self) -> None:
        """The upstream will send nothing more."""

    def next_event(self) -> ClientEvent:
        """Return an interim or final head, a piece of the body, END, or NEED_DATA.

        Raises:
            Malformed: the response is not to be trusted, or ended too early; the connection must be closed.
        """

    @property
    def buffered_bytes(self) -> int:
        """How many bytes were fed and not read yet; some after END means that the connection must not be reused."""

    @property
    def passable_bytes(self) -> int:
        """How many bytes are still to come of the present body that may go by the codec; 0 where it must see them."""

    def skip(self, size: int) -> None:
        """So many of the passable bytes went by."""

    def take_rest(self) -> bytes:
        """Hand over what was fed and not read, for a tunnel."""
