"""A strict scanner of chunked bodies: where the message ends, read in the one way there is (RFC 9112, 7.1)."""

from __future__ import annotations

import enum
import re

from minato.protocol.fields import Fields
from minato.protocol.guard import Malformed, check_head

_SIZE_LINE_MAX_BYTES = 256
_TRAILERS_MAX_BYTES = 16_384
_TRAILERS_MAX_FIELDS = 100
# RFC 9112, 7.1.1: "A server ought to limit the total length of chunk extensions received in a request".
_EXTENSIONS_MAX_BYTES = 16_384
# Extensions are dropped when forwarded, but what is none is refused (RFC 9112, 7.1.1), for some readers refuse it, too.
_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_EXTENSION = rb";[\t ]*%b[\t ]*(?:=[\t ]*(?:%b|%b)[\t ]*)?" % (_TOKEN, _TOKEN, _QUOTED)
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:%b)*" % _EXTENSION)
_PLAIN_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
_CANONICAL_SIZE_LINE = re.compile(rb"([1-9A-Fa-f][0-9A-Fa-f]{0,7})\r\n")
_TRAILER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t \x21-\x7e\x80-\xff]*)")


class _Part(enum.Enum):
    SIZE = "size line"
    DATA = "data"
    DATA_END = "CRLF after the data"
    TRAILERS = "trailers"
    DONE = "done"


class ChunkScanner:
    """Follows a chunked body piece by piece without decoding it.

    Attributes:
        done: whether the last chunk and its trailer section have passed.
        trailers: the trailer fields so far, all of them; which may go on is for protocol.trailers to say.
    """

    __slots__ = ("_extension_bytes", "_held", "_left_bytes", "_part", "_trailer_bytes", "trailers")

    def __init__(self) -> None:
        self.trailers: Fields = []
        self._extension_bytes = 0
        self._part = _Part.SIZE
        self._held = b""  # the beginning of a line that has not ended yet
        self._left_bytes = 0  # of the present chunk's data
        self._trailer_bytes = 0

    @property
    def done(self) -> bool:
        return self._part is _Part.DONE

    @property
    def is_between_chunks(self) -> bool:
        """Whether a size line is due and nothing of it has come."""
        return self._part is _Part.SIZE and not self._held

    def scan(self, data: bytes, at: int = 0, pieces: list[bytes] | None = None) -> int:
        """Follow ``data`` from ``at``; return the offset behind what belongs to this message.

        The payload is added to ``pieces``, if they are given.

        Raises:
            Malformed: a size that is not hexadecimal digits, a line without CRLF, a line or trailers over the caps.
        """
        end = len(data)
        while at < end and self._part is not _Part.DONE:
            if self._part is _Part.DATA:
                step = min(self._left_bytes, end - at)
                self._left_bytes -= step
                if pieces is not None:
                    pieces.append(data[at : at + step])
                at += step
                if not self._left_bytes:
                    self._part = _Part.DATA_END
            else:
                at = self._scan_line(data, at)
        return at

    def _scan_line(self, data: bytes, at: int) -> int:
        """Take the rest of the present line from ``data``; return the offset behind it."""
        cut = data.find(b"\n", at)
        line_end = len(data) if cut < 0 else cut + 1
        self._held += data[at:line_end]
        if cut < 0:
            self._check_unfinished()
            return line_end
        line, self._held = self._held, b""
        if not line.endswith(b"\r\n"):
            raise Malformed("a chunk line that does not end in CRLF")
        self._take_line(line[:-2])
        return line_end

    def _check_unfinished(self) -> None:
        cap = {_Part.DATA_END: 1, _Part.TRAILERS: _TRAILERS_MAX_BYTES}.get(self._part, _SIZE_LINE_MAX_BYTES)
        if len(self._held) > cap:
            raise Malformed(f"a chunked body whose {self._part.value} does not end")
        if self._part is _Part.DATA_END and self._held != b"\r":
            raise Malformed("chunk data that runs over its size")

    def _take_line(self, line: bytes) -> None:
        if self._part is _Part.SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None or len(line) > _SIZE_LINE_MAX_BYTES:
                raise Malformed("an invalid chunk size")
            self._extension_bytes += len(line) - match.end(1)
            if self._extension_bytes > _EXTENSIONS_MAX_BYTES:
                raise Malformed("chunk extensions over the limit")
            self._left_bytes = int(match[1], 16)
            self._part = _Part.DATA if self._left_bytes else _Part.TRAILERS
        elif self._part is _Part.DATA_END:
            if line:
                raise Malformed("chunk data that runs over its size")
            self._part = _Part.SIZE
        elif not line:
            self._part = _Part.DONE
        else:
            self._take_trailer(line)

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > _TRAILERS_MAX_BYTES or len(self.trailers) >= _TRAILERS_MAX_FIELDS:
            raise Malformed("trailers over the limit", 431)
        check_head(line)
        match = _TRAILER_LINE.fullmatch(line)
        if match is None:
            raise Malformed("a malformed trailer")
        # RFC 9110, 6.5.1: trailers MUST NOT frame a message; some reader might take them for what they say.
        name = match[1].lower()
        if name.replace(b"_", b"-") in (b"content-length", b"transfer-encoding"):
            raise Malformed("a trailer that would frame the message")
        self.trailers.append((name, match[2].strip(b" \t")))


def measure_whole_chunks(data: bytes, at: int) -> int | None:
    """Return the payload's size if ``data`` from ``at`` on is a whole chunked body, spelt plainly; else None.

    That is: sizes without leading zeros, no extensions, no trailers, nothing behind it. Such a body may go on as it
    is; nothing is said of any other.
    """
    payload_bytes = 0
    while True:
        match = _CANONICAL_SIZE_LINE.match(data, at)
        if match is None:
            return payload_bytes if data[at:] == b"0\r\n\r\n" else None
        size = int(match[1], 16)
        payload_bytes += size
        at = match.end() + size + 2
        if data[at - 2 : at] != b"\r\n":
            return None


class ChunkReader:
    """Decodes chunks; those that are whole in the buffer at once, all others by way of the scanner.

    Attributes:
        done: whether the last chunk has passed.
    """

    __slots__ = ("_is_scanning", "_scanner", "done")

    def __init__(self) -> None:
        self.done = False
        self._is_scanning = False  # in the middle of something that is not for the quick way
        self._scanner: ChunkScanner | None = None  # of the whole message, since it counts

    @property
    def trailers(self) -> Fields:
        """The trailer fields so far."""
        return self._scanner.trailers if self._scanner is not None else []

    def read(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Return what of the body is there, empty for none, and the offset behind it.

        Raises:
            Malformed: chunks that are not of the grammar.
        """
        pieces = []
        end = len(data)
        while at < end and not self.done:
            if not self._is_scanning:
                match = _PLAIN_SIZE_LINE.match(data, at)
                if match is not None:
                    start = match.end()
                    size = int(match[1], 16)
                    stop = start + size
                    if size and data[stop : stop + 2] == b"\r\n":
                        pieces.append(data[start:stop])
                        at = stop + 2
                        continue
                    if not size and data[start : start + 2] == b"\r\n":
                        self.done = True
                        return b"".join(pieces), start + 2
                self._is_scanning = True
            scanner = self._scanner
            if scanner is None:
                scanner = self._scanner = ChunkScanner()
            at = scanner.scan(data, at, pieces)
            if scanner.done:
                self.done = True
            elif scanner.is_between_chunks:
                self._is_scanning = False
        return (pieces[0] if len(pieces) == 1 else b"".join(pieces)), at
