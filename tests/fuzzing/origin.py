"""The recording origin of the rig: keeps every byte it gets, by connection, and answers well or as a case says."""

from __future__ import annotations

import contextlib
import re
import socket
from collections import deque

from tests.fuzzing.cases import ID_PLACE, Answer
from tests.fuzzing.messages import Message, Reading
from tests.fuzzing.plain_reader import read_requests

_ID = re.compile(rb"9[0-9]{5}")


class OriginConnection:
    """One connection from minato.

    Attributes:
        number: counts connections over the life of the origin.
        received: what came in this case.
        ended: whether minato ended it.
    """

    def __init__(self, origin: RecordingOrigin, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.received = b""
        self.ended = False
        self._origin = origin
        self._answered = 0
        self._continued = 0
        self._pieces: deque[bytes] = deque()
        self._closes = False

    def begin_case(self) -> None:
        self.received = b""
        self._answered = self._continued = 0
        self._pieces.clear()

    def reading(self) -> Reading:
        return read_requests(self.received)

    def on_readable(self) -> bool:
        """Take what came, and answer; False where the connection is over."""
        try:
            data = self.sock.recv(65_536)
        except ConnectionError:
            data = b""
        self.received += data
        if not data:
            self.ended = True
            return False
        reading = self.reading()
        for message in reading.complete[self._answered :]:
            self._answered += 1
            self._origin.answer(self, message, self._answered)
        self._continue(reading)
        return self._alive(not reading.error)

    def put(self, answer: Answer, own_id: bytes) -> None:
        """Begin to send an answer. What was left of the one before is dropped: no proxy could tell it from this one."""
        self._pieces = deque(_spell(answer, own_id))
        self._closes = answer.closes
        if not self.send_next() and answer.closes:
            self.end()

    def send_next(self) -> bool:
        """Send the next piece; False where there is none, or nobody to send it to."""
        if not self._pieces:
            return False
        piece = self._pieces.popleft()
        try:
            rest = piece[self.sock.send(piece) :]
        except BlockingIOError:
            self._pieces.appendleft(piece)
            return False
        except OSError:
            rest = b""
        if rest:
            self._pieces.appendleft(rest)
        if not self._pieces and self._closes:
            self.end()
        return True

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)

    def _continue(self, reading: Reading) -> None:
        """Answer an expectation once, while the body is not there."""
        count = len(reading.messages)
        last = reading.messages[-1] if reading.messages else None
        is_due = last is not None and not last.complete and last.get(b"expect") is not None
        if is_due and self._continued < count and not self._origin.is_hostile:
            self._continued = count
            self.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _alive(self, is_clean: bool) -> bool:
        if not is_clean:
            self.end()
        return True


def _spell(answer: Answer, own_id: bytes) -> list[bytes]:
    """Return the pieces with the id in its place, also where a cut goes through it."""
    wire, pieces, at = answer.wire.replace(ID_PLACE, own_id), [], 0
    for piece in answer.pieces:
        pieces.append(wire[at : at + len(piece)])
        at += len(piece)
    return [piece for piece in pieces if piece]


class RecordingOrigin:
    """Listens on loopback; the rig watches its sockets.

    Attributes:
        connections: those that are open, and those that ended in this case.
        given: in this case, by the request's id: the method, and each answer that was given to it.
    """

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.listener.setblocking(False)
        self.port: int = self.listener.getsockname()[1]
        self.connections: list[OriginConnection] = []
        self.is_hostile = False
        self.given: dict[bytes, list[tuple[bytes, Answer]]] = {}
        self._answers: deque[Answer] = deque()
        self._accepted = 0

    def begin_case(self, answers: tuple[Answer, ...] | None, *, keep_given: bool = False) -> None:
        self.is_hostile = answers is not None
        self._answers = deque(answers or ())
        self.given = self.given if keep_given else {}
        self.connections = [one for one in self.connections if not one.ended]
        for connection in self.connections:
            connection.begin_case()

    def accept(self) -> OriginConnection:
        sock, _ = self.listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        connection = OriginConnection(self, sock, self._accepted)
        self._accepted += 1
        self.connections.append(connection)
        return connection

    def answer(self, connection: OriginConnection, request: Message, number: int) -> None:
        """Answer a request: by the next of the case's answers, or plainly, saying which request this was to it."""
        method, target = request.start
        assert isinstance(target, bytes)
        found = _ID.search(target)
        own_id = found[0] if found else b"000000"
        answer = self._answers.popleft() if self._answers else _plain(method == b"HEAD", connection.number, number)
        self.given.setdefault(own_id, []).append((bytes(method), answer))  # type: ignore[arg-type]
        connection.put(answer, own_id)

    def send_next(self) -> bool:
        """Let every connection send its next piece; False where none has one."""
        return any([connection.send_next() for connection in self.connections if not connection.ended])

    def waits(self) -> bool:
        """Tell whether a request is not all there, on a connection that has not ended."""
        open_ones = [connection.reading() for connection in self.connections if not connection.ended]
        return any(reading.messages and not reading.messages[-1].complete for reading in open_ones)

    def close(self) -> None:
        for connection in self.connections:
            connection.sock.close()
        self.listener.close()


def _plain(is_head: bool, connection: int, number: int) -> Answer:
    body = b"plain answer to %b" % ID_PLACE
    head = b"HTTP/1.1 200 OK\r\nX-Seen: %d/%d\r\nContent-Length: %d\r\n\r\n" % (connection, number, len(body))
    return Answer((head if is_head else head + body,))
