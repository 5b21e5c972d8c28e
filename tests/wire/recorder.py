"""An origin that records every byte it is sent, and answers each request with what the present case says."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator

from tests.system.harness import Origin, OriginConnection, wait_until

_LAST_ANSWER = b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: 2\r\n\r\nok"
LAST_TARGET = b"/last"
_CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
_SIZE_LINE = re.compile(rb"([1-9a-f][0-9a-f]*)\r\n")

MakeOrigin = Callable[..., Origin]


def merge_chunks(data: bytes) -> bytes:
    """Return messages with the chunks of each body made one, as far as they are whole and spelt canonically.

    How a body is cut into chunks is a matter of how its bytes arrived.
    """
    merged, at = b"", 0
    while (found := data.find(_CHUNKED, at)) >= 0:
        start = found + len(_CHUNKED)
        merged += data[at:start]
        at, payload = start, b""
        while (size_line := _SIZE_LINE.match(data, at)) is not None:
            end = size_line.end() + int(size_line[1], 16)
            if data[end : end + 2] != b"\r\n":
                break
            payload += data[size_line.end() : end]
            at = end + 2
        if payload:
            merged += b"%x\r\n%b\r\n" % (len(payload), payload)
    return merged + data[at:]


def without_chunks(data: bytes) -> bytes:
    """Return a message that has no end with the payload of its body as it is; every chunk of it is whole."""
    merged = merge_chunks(data)
    start = merged.find(_CHUNKED) + len(_CHUNKED)
    size_line = _SIZE_LINE.match(merged, start) if start > len(_CHUNKED) else None
    if size_line is None:
        return merged
    assert len(merged) == size_line.end() + int(size_line[1], 16) + 2, merged
    return merged[:start] + merged[size_line.end() : -2]


class Recorder:
    """Records what arrives on all connections of an origin.

    Attributes:
        answer: of requests, but for the last one of a case, which is always answered well.
        ends: whether the connection is closed behind that answer.
        head_answer: sent as soon as the head of a request is there; a final one is all there is.
        origin: the server.
    """

    def __init__(self, make: MakeOrigin) -> None:
        self.answer = _LAST_ANSWER
        self.ends = False
        self.head_answer = b""
        self._before: dict[int, int] = {}
        self.origin = make(self._script)

    def _script(self, connection: OriginConnection) -> None:
        while (request := connection.read_head()) is not None:
            if self.head_answer:
                connection.send(self.head_answer)
                if not self.head_answer.startswith(b"HTTP/1.1 1"):
                    connection.wait_closed(10)
                    return
            for _ in connection.body_pieces(request):
                pass
            if request.target == LAST_TARGET:
                connection.send(_LAST_ANSWER)
            else:
                connection.send(self.answer)
                if self.ends:
                    return

    @contextlib.contextmanager
    def recording(
        self, answer: bytes = _LAST_ANSWER, *, ends: bool = False, head_answer: bytes = b""
    ) -> Iterator[Recorder]:
        """Answer so while the block lasts; ``expect`` in it sees what came since it began."""
        stray = self.recorded()
        self._forget()
        assert stray == b"", f"came after the case it belongs to: {stray!r}"
        self.answer, self.ends, self.head_answer = answer, ends, head_answer
        try:
            yield self
        finally:
            self._forget()

    def _forget(self) -> None:
        self._before = {connection.number: len(connection.received) for connection in list(self.origin.connections)}

    def recorded(self) -> bytes:
        """All bytes since the last case, connection after connection."""
        return b"".join(
            bytes(connection.received[self._before.get(connection.number, 0) :])
            for connection in list(self.origin.connections)
        )

    def expect(self, data: bytes) -> None:
        """Wait until exactly those bytes have come.

        Raises:
            AssertionError: others came.
        """
        with contextlib.suppress(AssertionError):
            self.origin.wait_for(lambda: len(self.recorded()) >= len(data), "the bytes of the case", 2)
        recorded = merge_chunks(self.recorded())
        assert recorded == data, (recorded, data)

    def arrived(self) -> bytes:
        """Wait until every connection that was opened is known; return what came."""
        self.origin.wait_for(lambda: not self.origin.has_unread, "what is on its way")
        return self.recorded()

    def settled(self) -> bytes:
        """Wait until all that is on its way has come and every connection that it came on has ended; return it."""
        wait_until(lambda: self._is_settled() and not time.sleep(0.01) and self._is_settled(), "the end of the case")
        return self.recorded()

    def _is_settled(self) -> bool:
        begun = [
            connection
            for connection in list(self.origin.connections)
            if len(connection.received) > self._before.get(connection.number, 0)
        ]
        return not self.origin.has_unread and all(one.saw_end.is_set() or one.closed.is_set() for one in begun)
