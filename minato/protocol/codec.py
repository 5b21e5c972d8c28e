"""The codec's interface: all that connections and the exchange know of how a message is read from bytes."""

from __future__ import annotations

import enum
from typing import Protocol

from minato.protocol.message import RequestHead, ResponseHead


class Signal(enum.Enum):
    """What a codec says besides heads and pieces of a body."""

    NEED_DATA = "needs more bytes"
    END = "the message is complete"


ServerEvent = RequestHead | bytes | Signal
ClientEvent = ResponseHead | bytes | Signal


class ServerCodec(Protocol):
    """Reads requests from one downstream connection, one after the other."""

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket; they are kept until ``next_event`` reads them."""

    def recall(self, data: bytes) -> RequestHead | None:
        """Return the head of a request without a body, if ``data`` is just that, seen before, and nothing is buffered.

        It is then read, without ``feed``; its END is not told.
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

    def feed(self, data: bytes) -> None:
        """Take bytes from the socket."""

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
