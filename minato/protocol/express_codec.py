"""The express codec: the common shape of messages read without h11; anything else is handed to the h11 codec untouched.

A head of the common shape is whole in the buffer, of a strict grammar, HTTP/1.1, and framed by at most one
Content-Length, a response also by "chunked" alone. Whatever is not of that shape goes to the h11 codec before a byte of
it is consumed, and comes back for the next message. So this codec never accepts what guard and h11 would refuse, and
never reads it otherwise; tests/protocol/test_express_agrees.py holds the two against each other.
"""

from __future__ import annotations

import re
from typing import Final, Generic, TypeVar

from minato.config.model import Limits
from minato.protocol.chunked import ChunkReader, measure_whole_chunks
from minato.protocol.codec import ClientEvent, ServerEvent, Signal
from minato.protocol.express_facts import RequestFacts, ResponseFacts, read_request_facts, read_response_facts
from minato.protocol.field_table import FieldTable, Halves, read_like
from minato.protocol.fields import FieldBlock, Fields
from minato.protocol.guard import Malformed
from minato.protocol.h11_codec import H11ClientCodec, H11ServerCodec
from minato.protocol.message import Framing, HeadMemo, RequestHead, ResponseHead

_METHODS: Final = frozenset([b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS"])
_TARGET: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: ([\t \x21-\x7e\x80-\xff]*))?")
_END_OF_HEAD: Final = b"\r\n\r\n"
_NO_BODY: Final = frozenset([204, 304])
_RESET_CONTENT: Final = 205
_MAX_STATUS_LINES: Final = 256
_MAX_HEAD_BYTES: Final = 2048

_NEED_DATA: Final = Signal.NEED_DATA
_END: Final = Signal.END
_LENGTH: Final = Framing.LENGTH
_CHUNKED: Final = Framing.CHUNKED
_NO_TRAILERS: Final[Fields] = []  # never added to


_General = TypeVar("_General", H11ServerCodec, H11ClientCodec)


class _Reader(Generic[_General]):
    """What both directions share: the bytes that were fed, how far they were read, and who reads this message."""

    __slots__ = ("_at", "_data", "_ending", "_general", "_left_bytes", "_limits", "_table", "trailers")

    def __init__(self, limits: Limits, table: FieldTable) -> None:
        self.trailers = _NO_TRAILERS
        self._limits = limits
        self._table = table
        self._data = b""
        self._at = 0  # what was read of it
        self._left_bytes = 0  # of the present body
        self._ending = False  # whether END is due
        self._general: _General | None = None  # reads the present message, if it is not of the common shape

    @property
    def buffered_bytes(self) -> int:
        general = self._general
        return len(self._data) - self._at if general is None else general.buffered_bytes

    @property
    def passable_bytes(self) -> int:
        return self._left_bytes if self._at == len(self._data) else 0  # and 0 while the general codec reads

    def skip(self, size: int) -> None:
        self._left_bytes -= size

    def feed(self, data: bytes) -> None:
        if self._general is not None:
            self._general.feed(data)
        elif self._at == len(self._data):
            self._data = data
            self._at = 0
        else:
            self._data = self._data[self._at :] + data
            self._at = 0

    def _end(self) -> Signal:
        """The message has been read: hold on to none of its bytes, since the next may be long in coming."""
        self._ending = False
        if self._at == len(self._data):
            self._data, self._at = b"", 0
        return _END

    def take_rest(self) -> bytes:
        if self._general is not None:
            return self._general.take_rest()
        rest, self._data, self._at = self._data[self._at :], b"", 0
        return rest


def _with_block(like: RequestHead, block: FieldBlock) -> RequestHead:
    """Return the same request with another cookie: nothing but that need be read again."""
    return RequestHead(
        like.method,
        like.target,
        11,
        block,
        like.framing,
        like.length_bytes,
        like.host,
        like.path,
        like.keep_alive,
        memo=like.memo,
    )


class ExpressServerCodec(_Reader[H11ServerCodec]):
    """Reads requests (protocol.codec.ServerCodec)."""

    __slots__ = ("_heads", "_known_head", "_known_memo", "_last", "_memos", "_unused")

    def __init__(
        self, limits: Limits, table: FieldTable, heads: Halves[RequestHead], memos: Halves[RequestHead]
    ) -> None:
        super().__init__(limits, table)
        self._heads = heads  # by their bytes
        self._memos = memos  # by their request line and the tag of their block, the cookie aside
        self._known_head = heads.known
        self._known_memo = memos.known
        # What ``read_whole`` read and did not return: read twice, it would look like seen twice.
        self._unused: tuple[bytes, RequestHead | None] | None = None
        self._last: FieldBlock | None = None  # what this client's requests say, the cookie aside

    def read_whole(self, data: bytes) -> RequestHead | None:
        if self._ending or self._at != len(self._data) or self._left_bytes or self._general is not None:
            return None
        end = data.find(_END_OF_HEAD) + 4
        if end < 4:
            return None  # not all of the head
        raw = data if end == len(data) else data[:end]
        # A client that sent a cookie last is compared with that first: such heads are not kept by their bytes.
        head = (None if self._last is not None else self._known_head(raw)) or self._read_head(raw)
        if head is not None and head.length_bytes == len(data) - end:
            return head
        self._unused = (raw, head)
        return None

    def next_event(self) -> ServerEvent:
        if self._general is not None:
            return self._next_general_event(self._general)
        if self._left_bytes:
            return self._next_piece()
        if self._ending:
            return self._end()
        data, at = self._data, self._at
        if at == len(data):
            return _NEED_DATA
        end = data.find(_END_OF_HEAD, at) + 4
        if end < 4:
            return self._hand_over()
        raw = data[at:end]
        unused, self._unused = self._unused, None
        head = unused[1] if unused is not None and unused[0] == raw else self._known_head(raw) or self._read_head(raw)
        if head is None:
            return self._hand_over()
        self._at = end
        self._left_bytes = head.length_bytes
        self._ending = True
        return head

    @property
    def begins_head_request(self) -> bool:
        general = self._general
        return self._data.startswith(b"HEAD ", self._at) if general is None else general.begins_head_request

    def _read_head(self, raw: bytes) -> RequestHead | None:
        """Return the head that those bytes are, None where the h11 codec is to read it."""
        limits = self._limits
        if len(raw) > limits.header_bytes:
            return None
        if len(raw) > _MAX_HEAD_BYTES and raw.count(b"\r\n") > limits.header_fields + 2:
            return None  # before anything is done with each line
        line_end = raw.find(b"\r\n")
        line = raw[:line_end]
        last = self._last
        block = read_like(last, raw, line_end) if last is not None else None
        if block is None:
            block = self._table.read_block(raw[line_end + 2 : -4])
            if block is None or block.count > self._limits.header_fields:
                return None
            self._last = None if block.cookie is None else block.cookie[0]
        if block.cookie is None:
            known, key = block, b""
        else:
            known = block.cookie[0]
            key = line + known.tag
            like = self._known_memo(key)
            if like is not None:
                return _with_block(like, block)
        parts = line.split(b" ")
        if len(parts) != 3:
            return None
        method, target, version = parts
        if (
            version != b"HTTP/1.1"
            or method not in _METHODS
            or len(target) > self._limits.target_bytes
            or _TARGET.fullmatch(target) is None
        ):
            return None
        facts = known.facts
        if facts is None:
            facts = known.facts = read_request_facts(known)
        if not isinstance(facts, RequestFacts):
            return None
        head = RequestHead(
            method, target, 11, block, facts.framing, facts.length_bytes, facts.host, target, facts.keep_alive
        )
        return self._keep(head, key, raw) if len(raw) <= _MAX_HEAD_BYTES else head

    def _keep(self, head: RequestHead, key: bytes, raw: bytes) -> RequestHead:
        """Keep what comes again; return the head that is kept, if there is one, for it knows more."""
        if not key:
            kept = self._heads.find(raw)
            if kept is not None:
                return kept
            if self._heads.offer(raw, head):
                head.memo = HeadMemo(True)
        else:
            like = self._memos.find(key)
            if like is not None:
                head.memo = like.memo
            elif self._memos.offer(key, head):
                head.memo = HeadMemo(False)
        return head

    def _next_piece(self) -> bytes | Signal:
        data, at = self._data, self._at
        if at == len(data):
            return _NEED_DATA
        piece = data[at : at + self._left_bytes]
        self._left_bytes -= len(piece)
        self._at = at + len(piece)
        return piece

    def _hand_over(self) -> ServerEvent:
        general = H11ServerCodec(self._limits)
        general.feed(self.take_rest())
        self._general = general
        return self._next_general_event(general)

    def _next_general_event(self, general: H11ServerCodec) -> ServerEvent:
        whole = general.give_up_head()
        if whole is not None:  # it was handed over because it came in pieces, and may be of the common shape
            self._general, self._data, self._at = None, whole, 0
            return self.next_event()
        event = general.next_event()
        if event is _END:
            self._general = None
            self.trailers = general.trailers
            self._data, self._at = general.take_rest(), 0
        return event


class ExpressClientCodec(_Reader[H11ClientCodec]):
    """Reads responses (protocol.codec.ClientCodec)."""

    __slots__ = (
        "_chunks",
        "_eof",
        "_heads",
        "_known_head",
        "_method",
        "_status_lines",
        "_upgrade",
        "_waiting",
        "body_at",
        "payload_bytes",
    )

    def __init__(
        self,
        limits: Limits,
        table: FieldTable,
        heads: Halves[ResponseHead],
        status_lines: dict[bytes, tuple[int, bytes]],
    ) -> None:
        super().__init__(limits, table)
        self._heads = heads  # heads of the common shape, by their bytes; to any request but HEAD
        self._known_head = heads.known
        self.body_at = 0
        self.payload_bytes = 0
        self._status_lines = status_lines
        self._chunks: ChunkReader | None = None  # of a chunked body
        self._eof = False
        self._waiting = False  # whether a response is due
        self._method = b""
        self._upgrade = b""

    def expect_response(self, method: bytes, upgrade: bytes) -> None:
        self._method = method
        self._upgrade = upgrade
        self._waiting = True
        if upgrade:
            self._hand_over()

    def feed_eof(self) -> None:
        self._eof = True
        if self._general is not None:
            self._general.feed_eof()

    def read_whole(self, data: bytes) -> ResponseHead | None:
        if self._general is not None or not self._waiting or self._at != len(self._data) or self._method == b"HEAD":
            return None
        end = data.find(_END_OF_HEAD) + 4
        head = self._known_head(data[:end])
        if head is None:
            return None
        size: int | None = len(data) - end
        if head.framing is _CHUNKED:
            size = measure_whole_chunks(data, end)
            if size is None:
                return None
        elif size != (head.length_bytes if head.framing is _LENGTH else 0):
            return None
        self._waiting = False
        self.body_at = end
        self.payload_bytes = size
        return head

    def next_event(self) -> ClientEvent:
        if self._general is not None:
            return self._next_general_event(self._general)
        left_bytes = self._left_bytes
        if left_bytes:
            data, at = self._data, self._at
            if at == len(data):
                return self._need_more()
            piece = data if not at and len(data) <= left_bytes else data[at : at + left_bytes]
            self._left_bytes = left_bytes - len(piece)
            self._at = at + len(piece)
            return piece
        if self._ending:
            return self._end()
        if self._chunks is not None:
            return self._next_chunk(self._chunks)
        if not self._waiting:
            return _NEED_DATA
        return self._next_head()

    def _next_head(self) -> ClientEvent:
        data, at = self._data, self._at
        if at == len(data) and not self._eof:
            return _NEED_DATA
        end = data.find(_END_OF_HEAD, at)
        if end < 0 or end + 4 - at > self._limits.header_bytes:
            return self._hand_over_now()
        raw = data[at : end + 4]
        head = self._heads.find(raw) if self._method != b"HEAD" else None
        if head is not None:
            self._begin_body(head, end + 4)
            return head
        line_end = data.find(b"\r\n", at)
        status_line = self._status_lines.get(data[at:line_end]) or self._read_status_line(data[at:line_end])
        if status_line is None:
            return self._hand_over_now()
        block = self._table.read_block(data[line_end + 2 : end])
        if block is None or len(block.lines) > self._limits.header_fields:
            return self._hand_over_now()
        facts = block.facts
        if facts is None:
            facts = block.facts = read_response_facts(block)
        if not isinstance(facts, ResponseFacts):
            return self._hand_over_now()
        status, reason = status_line
        framing, keep_alive = facts.framing, facts.keep_alive
        if self._method == b"HEAD" or status in _NO_BODY:
            if status == 204 and framing is not Framing.NONE:
                return self._hand_over_now()
            if framing is _CHUNKED or facts.length_bytes:
                keep_alive = False  # as in semantics
            framing = Framing.NONE
        elif framing is Framing.NONE:
            return self._hand_over_now()  # framed by the end of the connection
        elif status == _RESET_CONTENT and (framing is _CHUNKED or facts.length_bytes):
            return self._hand_over_now()
        head = ResponseHead(status, reason, 11, block, framing, facts.length_bytes, keep_alive)
        if self._method != b"HEAD" and len(raw) <= _MAX_HEAD_BYTES:
            self._heads.offer(raw, head)
        self._begin_body(head, end + 4)
        return head

    def _begin_body(self, head: ResponseHead, at: int) -> None:
        self._at = at
        self._waiting = False
        self.trailers = _NO_TRAILERS
        if head.framing is Framing.CHUNKED:
            self._chunks = ChunkReader()
        else:
            self._left_bytes = head.length_bytes if head.framing is Framing.LENGTH else 0
            self._ending = True

    def _read_status_line(self, line: bytes) -> tuple[int, bytes] | None:
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            return None
        if len(self._status_lines) >= _MAX_STATUS_LINES:
            self._status_lines.clear()
        read = self._status_lines[line] = int(match[1]), match[2] or b""
        return read

    def _next_chunk(self, chunks: ChunkReader) -> bytes | Signal:
        piece, self._at = chunks.read(self._data, self._at)
        if chunks.done:
            self._chunks = None
            self.trailers = chunks.trailers
            if not piece:
                return self._end()
            self._ending = True
        return piece or self._need_more()

    def _need_more(self) -> Signal:
        if self._eof:
            raise Malformed("a response that ended too early")
        return _NEED_DATA

    def _hand_over(self) -> H11ClientCodec:
        general = H11ClientCodec(self._limits)
        general.expect_response(self._method, self._upgrade)
        general.feed(self.take_rest())
        if self._eof:
            general.feed_eof()
        self._general = general
        return general

    def _hand_over_now(self) -> ClientEvent:
        return self._next_general_event(self._hand_over())

    def _next_general_event(self, general: H11ClientCodec) -> ClientEvent:
        event = general.next_event()
        if event is _END:
            self._general = None
            self._waiting = False
            self.trailers = general.trailers
            self._data, self._at = general.take_rest(), 0
        return event
