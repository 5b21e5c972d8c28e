"""A response on its way into the store: collects the body beside the client's copy, gives up rather than overrun."""

from __future__ import annotations

import enum
from collections.abc import Callable

from minato.caching.partial import Part, combine, is_combinable
from minato.caching.policy import NotStored
from minato.caching.ranges import find_gaps
from minato.caching.store import Store
from minato.caching.stored import StoredResponse, complete_stored
from minato.protocol.message import Fields

_SMALL_BYTES = 4096


class _State(enum.Enum):
    OPEN = "open"
    CLOSED = "closed"


class StoreWriter:
    """Collects one body. Whoever began it ends it with ``commit`` or ``abort``: until then its bytes are reserved."""

    def __init__(
        self,
        store: Store,
        stored: StoredResponse,
        fields: Fields,
        *,
        length_bytes: int | None,
        max_body_bytes: int,
        on_closed: Callable[[StoreWriter], None],
        part: Part | None = None,
        base: StoredResponse | None = None,
        is_admitted: bool = False,
    ) -> None:
        """Begin with a head for whose ``size_bytes`` room has been reserved.

        Args:
            store: where it goes.
            stored: the response without its body.
            fields: of the request.
            length_bytes: what the response declares, or None.
            max_body_bytes: a longer body is not stored.
            on_closed: called once, when it is committed, aborted or gives up.
            part: of a 206, where its content belongs.
            base: what the part is combined with, unless more of the same version is stored by then.
            is_admitted: whether it is worth what has to go for it, however large it turns out to be.
        """
        self._store = store
        self._stored = stored
        self._fields = fields
        self._length_bytes = length_bytes
        self._max_body_bytes = max_body_bytes
        self._on_closed = on_closed
        self._part = part
        self._base = base
        self._is_admitted = is_admitted
        self._pieces: list[bytes] = []
        self._body_bytes = 0
        self._reserved_bytes = stored.size_bytes
        self._state = _State.OPEN
        self._refusal = NotStored.ABORTED

    @property
    def stored(self) -> StoredResponse:
        """The response being stored, not live before ``commit``."""
        return self._stored

    @property
    def length_bytes(self) -> int | None:
        """What the response declared, None where it did not."""
        return self._length_bytes

    @property
    def is_open(self) -> bool:
        """Whether the response is still on its way into the store."""
        return self._state is _State.OPEN

    @property
    def pieces(self) -> list[bytes]:
        """What has come of the body so far; it grows at its end, where a small piece is replaced by a larger one."""
        return self._pieces

    @property
    def is_part(self) -> bool:
        """Whether what is stored is a part of the whole."""
        return self._part is not None

    @property
    def refusal(self) -> NotStored:
        """Why it gave up, once it did."""
        return self._refusal

    @property
    def completes(self) -> bool:
        """Whether this is the last that is missing of a stored response."""
        part, base = self._part, self._base
        if part is None or base is None:
            return False
        return not base.spans or all(part.span.holds(gap) for gap in find_gaps(base.spans, part.complete_bytes))

    def write(self, data: bytes) -> bool:
        """Take a piece of the body, content without chunk framing.

        Returns:
            False once it gave up (too large, no memory, invalidated ...): nothing is kept, no further call is needed.
        """
        if self._state is _State.CLOSED:
            return False
        size_bytes = self._body_bytes + len(data)
        if size_bytes > self._max_body_bytes:
            return self._give_up(NotStored.TOO_LARGE)
        if self._length_bytes is not None and size_bytes > self._length_bytes:
            return self._give_up(NotStored.INCOMPLETE)
        needed_bytes = self._stored.size_bytes + _allocated_bytes(size_bytes)
        if not (self._is_admitted or self._store.admits(self._stored, needed_bytes)):
            return self._give_up(NotStored.NOT_ADMITTED)
        if not self._reserve(needed_bytes):
            return self._give_up(NotStored.NO_MEMORY)
        self._body_bytes = size_bytes
        pieces = self._pieces
        # Many small pieces would be many objects.
        if pieces and len(pieces[-1]) < _SMALL_BYTES:
            pieces[-1] += data
        else:
            pieces.append(data)
        return True

    def commit(self, now_s: float) -> StoredResponse | NotStored:
        """Store the response: call it when its end was read, and only if that end was clean.

        Args:
            now_s: wall clock; a response that took longer than its lifetime and has no validator is not kept.

        Returns:
            The stored response, or why there is none; a writer that gave up says why it did.
        """
        if self._state is _State.CLOSED:
            return self._refusal
        stored = self._stored
        if self._length_bytes is not None and self._body_bytes != self._length_bytes:
            self._give_up(NotStored.INCOMPLETE)  # RFC 9111, 3.3: incomplete, and no 206 is made of it
            return self._refusal
        self._complete(stored)
        self._close()
        if not stored.has_validator and not stored.is_fresh(now_s):
            self._refusal = NotStored.NO_LIFETIME
            return self._refusal
        refusal = self._store.put(stored, self._fields)
        if refusal is None:
            return stored
        self._refusal = refusal
        return refusal

    def _complete(self, stored: StoredResponse) -> None:
        part, base, body = self._part, self._base, b"".join(self._pieces)
        if part is None:
            complete_stored(stored, body)
            return
        # Others may have come and been combined since this one began: what they brought is not to be lost. A base that
        # is no longer stored (evicted, or replaced by a part too many) still is what the head was merged with.
        known = self._store.select(stored.key, self._fields)
        if known is not None and is_combinable(known, stored, part.complete_bytes):
            base = known
        if base is not None:
            spans, body = combine(base, part.span, body, part.complete_bytes)
        else:
            spans = () if part.span.size == part.complete_bytes else (part.span,)
        complete_stored(stored, body, spans, part.complete_bytes)

    def abort(self, reason: NotStored = NotStored.ABORTED) -> None:
        """Keep nothing, since the response was cut short or the resource has changed; may be called at any time."""
        self._give_up(reason)

    def _reserve(self, needed_bytes: int) -> bool:
        more = needed_bytes - self._reserved_bytes
        if more > 0:
            if not self._store.reserve(more):
                return False
            self._reserved_bytes = needed_bytes
        return True

    def _give_up(self, reason: NotStored) -> bool:
        if self._state is _State.OPEN:
            self._refusal = reason
            self._close()
        return False

    def _close(self) -> None:
        self._state = _State.CLOSED
        self._store.release(self._reserved_bytes)
        self._reserved_bytes = 0
        self._pieces = []
        self._body_bytes = 0
        self._on_closed(self)


def _allocated_bytes(size_bytes: int) -> int:
    """Return what pieces of that size take together at most: each of some kilobytes has a header and a list's place."""
    return size_bytes + (size_bytes >> 6) + 128
