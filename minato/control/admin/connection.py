"""One connection to the admin API: one request after the other, each bounded in bytes and time, and its answer."""

from __future__ import annotations

import enum
import socket
from collections.abc import Callable

from minato.config.model import Limits
from minato.control.admin.answer import Answer, Refused, refuse, render_answer
from minato.control.admin.gate import check_sender
from minato.control.admin.routes import Route, Routes, find_route
from minato.net.loop import Loop
from minato.net.stream import Stream
from minato.protocol.codec import Signal
from minato.protocol.guard import Malformed
from minato.protocol.h11_codec import H11ServerCodec
from minato.protocol.message import Framing, RequestHead
from minato.protocol.render import render_interim

MAX_BODY_BYTES = 49_152
# A whole request has this long from its first byte, or from the connection's beginning: a drip does not extend it.
REQUEST_S = 5.0
IDLE_S = 30.0
WRITE_S = 5.0
LINGER_S = 1.0
# What is pipelined waits for the next tick of the loop, so that no client keeps the master in one turn.
_NEXT_S = 0.01
_LIMITS = Limits(header_bytes=16_384, header_fields=64, target_bytes=2_048)


class _State(enum.Enum):
    READING = "reading"
    ANSWERING = "answering"
    SENDING = "sending"  # the client has not taken all of the answer: its next request has to wait
    CLOSING = "closing"
    LINGERING = "lingering"
    CLOSED = "closed"


class AdminConnection:
    """A client of the admin API.

    Attributes:
        is_last: whether the present request is the last: the connection ends with its answer.
    """

    def __init__(
        self, loop: Loop, sock: socket.socket, routes: Routes, on_closed: Callable[[AdminConnection], None]
    ) -> None:
        self._loop = loop
        self._routes = routes
        self._on_closed = on_closed
        self._state = _State.READING
        self._codec = H11ServerCodec(_LIMITS)
        self._stream = Stream(loop, sock, self, WRITE_S)
        self._head: RequestHead | None = None
        self._route: Route | None = None
        self._body = bytearray()
        self._was_answered = False
        self._has_begun = False  # whether any byte of the present request is there
        self._deadline = loop.timer(self._on_deadline)
        self._next = loop.timer(self._read_next)
        self.is_last = False
        self._stream.start()
        self._deadline.set(REQUEST_S)

    def __repr__(self) -> str:
        return f"<AdminConnection {self._state.value}>"

    @property
    def is_waiting(self) -> bool:
        """Whether the next request is not all there yet: nobody would miss an answer."""
        return self._state in (_State.READING, _State.LINGERING)

    def finish(self) -> None:
        """End with the answer that is due, or to the first request; where none is, now."""
        self.is_last = True
        if self._state is _State.READING and self._was_answered and not self._has_begun:
            self.close()

    def close(self) -> None:
        """End at once."""
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self._deadline.close()
        self._next.close()
        # A worker that is just being forked has a copy yet: closing alone would not take it out of the loop.
        self._loop.remove(self._stream.sock.fileno())
        self._stream.close()
        self._stream.disown()
        self._on_closed(self)

    def forget(self) -> None:
        """In a new worker: close its copy."""
        self._stream.sock.close()

    # -- what the stream tells

    def on_readable(self) -> None:
        try:
            data = self._stream.recv()
        except OSError:
            self.close()
            return
        if data is None:
            return
        if not data:
            self.close()
        elif self._state is _State.READING:
            if not self._has_begun:
                self._has_begun = True
                self._deadline.set(REQUEST_S)
            self._codec.feed(data)
            self._advance()

    def on_drained(self) -> None:
        """Answers are small: nothing waits for room."""

    def on_flushed(self) -> None:
        if self._state is _State.CLOSING:
            self._linger()
        elif self._state is _State.SENDING:
            self._go_on()

    def on_write_failed(self, error: OSError) -> None:
        self.close()

    def on_crash(self) -> None:
        self.close()

    # -- reading

    def _advance(self) -> None:
        """Read what is there, up to the end of one request."""
        try:
            while self._state is _State.READING:
                event = self._codec.next_event()
                if event is Signal.NEED_DATA:
                    return
                if isinstance(event, RequestHead):
                    self._begin(event)
                elif isinstance(event, bytes):
                    self._body += event
                else:
                    self._handle()
                    return
        except Malformed as error:
            self._refuse(refuse(error.status, error.reason))
        except Refused as refused:
            self._refuse(refused)

    def _begin(self, head: RequestHead) -> None:
        self._head = head
        check_sender(head)
        self._route = find_route(self._routes, head)
        if head.framing is Framing.CHUNKED:
            # RFC 9110, 15.5.12. In tiny chunks, a small body would cost the master seconds.
            raise refuse(411, "the body needs a Content-Length")
        if head.length_bytes > MAX_BODY_BYTES:
            raise refuse(413, f"the body is larger than {MAX_BODY_BYTES} bytes; send several requests")
        if head.expects_continue:
            self._stream.write(render_interim(100, b"Continue", []))

    def _handle(self) -> None:
        """The request is all there."""
        route, head, body = self._route, self._head, bytes(self._body)
        assert route is not None and head is not None
        self._body.clear()
        self._state = _State.ANSWERING
        self._deadline.cancel()
        self._stream.pause_reading()
        self.is_last = self.is_last or not head.keep_alive
        try:
            route.handle(body, self._answer)
        except Refused as refused:
            self._answer(refused.answer)

    # -- answering

    def _answer(self, answer: Answer) -> None:
        """Answer the present request; where the client has left meanwhile, nobody is answered."""
        if self._state is not _State.ANSWERING:
            return
        self._state = _State.CLOSING if self.is_last else _State.READING
        self._stream.write(render_answer(answer, self._head, self._loop.wall_s, close=self.is_last))
        self._stream.flush()  # now: the master may be about to end
        if self._state is _State.CLOSING:
            self._end()
        if self._state is not _State.READING:
            return
        self._head = self._route = None
        self._has_begun = False
        self._was_answered = True
        if self._stream.pending_bytes:
            self._state = _State.SENDING
            self._stream.tells_flushed = True
        else:
            self._go_on()

    def _go_on(self) -> None:
        """The answer has left: on to the next request, which may be here already."""
        self._stream.tells_flushed = False
        if self.is_last:
            self._linger()
            return
        self._state = _State.READING
        if self._codec.buffered_bytes:
            self._next.set(_NEXT_S)
        else:
            self._stream.resume_reading()
            self._deadline.set(IDLE_S)

    def _read_next(self) -> None:
        self._has_begun = True
        self._deadline.set(REQUEST_S)
        self._stream.resume_reading()
        self._advance()

    def _refuse(self, refused: Refused) -> None:
        """Answer a request of which not all was read, and end."""
        self._state = _State.ANSWERING
        self.is_last = True
        self._answer(refused.answer)

    def _end(self) -> None:
        """The last answer is on its way."""
        self._deadline.cancel()
        if self._stream.pending_bytes:
            self._stream.tells_flushed = True
        else:
            self._linger()

    def _linger(self) -> None:
        """Unread bytes would turn the close into a RST that destroys the answer: read on for a moment, and drop it."""
        self._state = _State.LINGERING
        self._codec.take_rest()
        self._stream.shutdown_write()
        self._stream.resume_reading()
        self._deadline.set(LINGER_S)

    def _on_deadline(self) -> None:
        if self._state is _State.READING and self._has_begun:
            self._refuse(refuse(408, f"the request did not come within {REQUEST_S:g} s"))
        else:
            self.close()
