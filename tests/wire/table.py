"""A table of the wire: what a client sends, what the upstream is to see of it, what the client is to get; to the byte.

Behind every case the same last request follows on the same connection. Where the case ends cleanly, it is answered, and
then the connection closes; where it does not, nobody may ever see it. So each case also shows where its message ended.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.system.harness import Client, Minato
from tests.wire.recorder import Recorder, merge_chunks, without_chunks

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
OK = b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Length: 2\r\n\r\nok" % DATE
LAST = b"GET /last HTTP/1.1\r\nHost: test.local\r\nConnection: close\r\n\r\n"


def request(line: bytes = b"GET /x", *lines: bytes, body: bytes = b"", host: bytes | None = b"test.local") -> bytes:
    """Return a request as a client sends it; ``line`` has no version unless it is another one than HTTP/1.1."""
    first = line if b" HTTP/" in line else line + b" HTTP/1.1"
    hosts = [] if host is None else [b"Host: " + host]
    return b"\r\n".join([first, *hosts, *lines]) + b"\r\n\r\n" + body


def seen(
    line: bytes = b"GET /x",
    *lines: bytes,
    host: bytes = b"test.local",
    via: bytes = b"1.1 minato",
    more: Sequence[bytes] = (),
    body: bytes = b"",
) -> bytes:
    """Return a request as the upstream is to see it; ``more`` are the lines behind Via."""
    own = [b"x-forwarded-for: 127.0.0.1", b"x-forwarded-proto: http", b"x-forwarded-host: " + host, b"via: " + via]
    return b"\r\n".join([line + b" HTTP/1.1", b"host: " + host, *lines, *own, *more]) + b"\r\n\r\n" + body


def response(status: bytes = b"200 OK", *lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """Return a response as the upstream sends it."""
    return b"\r\n".join([b"HTTP/%b %b" % (version, status), b"Date: " + DATE, *lines]) + b"\r\n\r\n" + body


def got(
    status: bytes = b"200 OK",
    *lines: bytes,
    via: bytes = b"1.1 minato",
    more: Sequence[bytes] = (b"content-length: 2",),
    body: bytes = b"ok",
) -> bytes:
    """Return the pattern of a response as the client is to get it; ``more`` are the lines behind Via."""
    head = [b"HTTP/1.1 " + status, b"date: " + DATE, *lines, b"via: " + via, *more]
    return re.escape(b"\r\n".join(head) + b"\r\n\r\n" + body)


SEEN = seen()
GOT = got()
GOT_CLOSING = got(more=[b"connection: close", b"content-length: 2"])
LAST_SEEN = seen(b"GET /last")
LAST_GOT = GOT_CLOSING
_OWN_DATE = rb"date: [A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT\r\n"


def own(status: bytes, *lines: bytes, closes: bool = False, body: bool = True) -> bytes:
    """Return the pattern of an answer of minato's own: short, plain, nothing about who says it."""
    more = re.escape(b"".join(line + b"\r\n" for line in (*lines, *([b"connection: close"] if closes else []))))
    head = rb"HTTP/1\.1 %b\r\ncontent-type: text/plain\r\n%b%bcontent-length: [0-9]{2}\r\n\r\n"
    return head % (re.escape(status), _OWN_DATE, more) + (rb"[a-zA-Z /.,0-9'-]{3,60}\n" if body else rb"")


REFUSED = own(b"400 Bad Request", closes=True)
BAD_GATEWAY = own(b"502 Bad Gateway")


@dataclass(frozen=True)
class Case:
    """One line of a table.

    Attributes:
        name: what is special about it.
        sent: by the client, in front of the last request.
        seen: by the upstream.
        got: by the client; a pattern.
        answer: of the upstream, to every request but the last one.
        ends: whether the upstream closes behind its answer.
        goes_on: whether the last request is answered.
    """

    name: str
    sent: bytes = request()
    seen: bytes = SEEN
    got: bytes = GOT
    answer: bytes = OK
    ends: bool = False
    goes_on: bool = True


def refused(
    name: str, sent: bytes, status: bytes = b"400 Bad Request", *, seen: bytes = b"", body: bool = True
) -> Case:
    """Return the case of a request that is answered with an error, and whose connection ends."""
    return Case(name, sent, seen, own(status, closes=True, body=body), goes_on=False)


def bad_gateway(name: str, answer: bytes, *, ends: bool = False, sent: bytes = request(), seen: bytes = SEEN) -> Case:
    """Return the case of a response that is not passed on."""
    return Case(name, sent, seen, BAD_GATEWAY, answer, ends)


def names(cases: Sequence[Case]) -> list[str]:
    """Return the ids of a table; no two may be the same."""
    found = [case.name for case in cases]
    assert len(set(found)) == len(found), found
    return found


def ways(data: bytes) -> list[list[bytes]]:
    """Return the pieces in which a case is sent: in one, and byte by byte (long ones in small pieces)."""
    size = 1 if len(data) < 2_000 else 997
    return [[data], [data[at : at + size] for at in range(0, len(data), size)]]


@dataclass
class Wire:
    """One minato in front of one recording origin."""

    proxy: Minato
    origin: Recorder

    def run(self, case: Case) -> None:
        """Play a case in one piece and byte by byte; whatever the pieces, the outcome is the same."""
        for pieces in ways(case.sent + LAST):
            with self.origin.recording(case.answer, ends=case.ends) as record:
                received = merge_chunks(self.talk(pieces))
                record.expect(case.seen + (LAST_SEEN if case.goes_on else b""))
            pattern = case.got + (LAST_GOT if case.goes_on else b"")
            assert re.fullmatch(pattern, received, re.DOTALL), (received, pattern)

    def run_cut(self, case: Case) -> None:
        """Play a case whose request turns out wrong in its body: the upstream may get some of it, and no end.

        ``seen`` is the head and what may come of the payload, here without chunks around it.
        """
        for pieces in ways(case.sent + LAST):
            with self.origin.recording(case.answer) as record:
                received = self.talk(pieces)
                recorded = record.settled()
            assert re.fullmatch(case.got, received, re.DOTALL), (received, case.got)
            assert case.seen.startswith(without_chunks(recorded)), (recorded, case.seen)

    def talk(self, pieces: Sequence[bytes]) -> bytes:
        """Send the pieces on a connection of their own; return all that comes until it is closed."""
        with Client(self.proxy.port) as client:
            with contextlib.suppress(ConnectionError):  # it may have been answered and closed before all was sent
                for piece in pieces:
                    client.send(piece)
            return client.read_to_end()
