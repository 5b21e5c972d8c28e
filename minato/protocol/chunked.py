"""A strict scanner of chunked bodies: where the message ends, read in the one way there is (RFC 9112, 7.1)."""

from __future__ import annotations

import enum
import re

from minato.protocol.guard import Malformed, check_head

_SIZE_LINE_MAX_BYTES = 256
_TRAILERS_MAX_BYTES = 16_384
# Quoted strings may hold anything but CR, LF and other controls here; extensions are dropped when forwarded.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t \x21-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t \x21-\x7e\x80-\xff]*")


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
    """

    __slots__ = ("_held", "_left_bytes", "_part", "_trailer_bytes")

    def __init__(self) -> None:
        self._part = _Part.SIZE
        self._held = b""  # the beginning of a line that has not ended yet
        self._left_bytes = 0  # of the present chunk's data
        self._trailer_bytes = 0

    @property
    def done(self) -> bool:
        return self._part is _Part.DONE

    def scan(self, data: bytes) -> int:
        """Follow ``data``; return how many of its bytes belong to this message.

        Raises:
            Malformed: a size that is not hexadecimal digits, a line without CRLF, a line or trailers over the caps.
        """
        at = 0
        end = len(data)
        while at < end and self._part is not _Part.DONE:
            if self._part is _Part.DATA:
                step = min(self._left_bytes, end - at)
                self._left_bytes -= step
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
        if self._trailer_bytes > _TRAILERS_MAX_BYTES:
            raise Malformed("trailers over the limit", 431)
        check_head(line)
        if not _TRAILER_LINE.fullmatch(line):
            raise Malformed("a malformed trailer")
