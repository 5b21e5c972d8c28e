"""Where everything lies on the shared-memory board: one table of 64-bit cells.

The segment, in order; every part begins on a cache line (64 bytes, 8 cells), so that no two writers share one::

    header    16 cells            see Header; the magic is written last
    health    one cell/upstream   1 may get new traffic, 0 may not; written by the master alone, as the next two are
    standing  one cell/upstream   why not, a number of decide.standing.Standing: 0 down or unknown, 1 up, 2 ejected,
                                  3 draining (well; only what belongs there already may go there)
    recovered one cell/upstream   monotonic ms at which it came up again; 0: it never was down since it is known
    rows      one row/slot        written by the slot's worker alone (zeroed by the master once that worker is dead):
                  head       8 cells             see RowCell
                  counters   one cell/Counter
                  active     one cell/upstream   exchanges in flight
                  refused    one cell/upstream   connections refused, ever
                  waiting    one cell/upstream   since when its first request waits for room, monotonic ms; 0: none
                  failed     one cell/upstream   attempts failed, ever; passive_health counts these three, if it is on
                  answered   one cell/upstream   responses that were no failure, ever; with error_rate alone
                  tripped    one cell/upstream   how often too many failures came in a row, ever
    keys      bytes               the upstream keys in order, a JSON list in UTF-8; "" for a spare column. The master
                                  may write them anew; while it does, the header's edition is odd

All milliseconds are of the machine's monotonic clock, never of a Loop's, which forgives the pauses of its own process.

Cells are aligned and in native order, hence one load or store each: a reader sees the old or the new value, never half.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from minato.errors import MinatoError

MAGIC = int.from_bytes(b"minato\x00B", "little")
VERSION = 3
CELL_BYTES = 8
LINE_CELLS = 8
HEADER_CELLS = 16
ROW_HEAD_CELLS = 8


class Header(enum.IntEnum):
    """The cells of the header."""

    MAGIC = 0
    VERSION = 1
    SLOTS = 2
    UPSTREAMS = 3
    COUNTERS = 4
    KEYS_BYTES = 5
    SERIAL = 6
    MASTER_PID = 7
    EDITION = 8


class RowCell(enum.IntEnum):
    """The cells of a row's head. ``HEARTBEAT_MS`` is monotonic milliseconds."""

    HEARTBEAT_MS = 0
    PID = 1
    GENERATION = 2


class Counter(enum.IntEnum):
    """What a worker counts. Those named ``_ACTIVE``, ``CACHE_RESPONSES`` and ``CACHE_BYTES`` go up and down.

    In hot code bind the members to locals or constants: looking one up on the class costs more than counting.
    """

    CONNECTIONS_ACCEPTED = 0
    CONNECTIONS_ACTIVE = 1
    REQUESTS = 2
    REQUESTS_ACTIVE = 3
    RESPONSES_1XX = 4
    RESPONSES_2XX = 5
    RESPONSES_3XX = 6
    RESPONSES_4XX = 7
    RESPONSES_5XX = 8
    CACHE_HITS = 9
    CACHE_MISSES = 10
    CACHE_VALIDATIONS = 11
    CACHE_STORED = 12
    CACHE_EVICTED = 13
    CACHE_RESPONSES = 14
    CACHE_BYTES = 15
    RETRIES = 16
    UPSTREAM_CONNECTS = 17
    UPSTREAM_REUSES = 18
    UPSTREAM_FAILURES = 19
    CLIENT_ABORTS = 20
    BYTES_IN = 21
    BYTES_OUT = 22
    CACHE_COLLAPSED = 23
    RETRIES_DENIED = 24
    REQUESTS_QUEUED = 25
    QUEUE_TIMEOUTS = 26
    QUEUE_OVERFLOWS = 27


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes of one board, and by them the place of every part, in cells from the beginning."""

    slots: int
    upstreams: int
    keys_bytes: int

    @classmethod
    def read(cls, cells: memoryview) -> Layout:
        """Return the layout that a board's header describes.

        Raises:
            MinatoError: not a board, or one of another version.
        """
        if len(cells) < HEADER_CELLS or cells[Header.MAGIC] != MAGIC:
            raise MinatoError("not a board of minato")
        if cells[Header.VERSION] != VERSION or cells[Header.COUNTERS] != len(Counter):
            raise MinatoError("a board of another version of minato")
        layout = cls(cells[Header.SLOTS], cells[Header.UPSTREAMS], cells[Header.KEYS_BYTES])
        if len(cells) * CELL_BYTES < layout.size_bytes:
            raise MinatoError("a board that is cut short")
        return layout

    @property
    def health_at(self) -> int:
        return HEADER_CELLS

    @property
    def standing_at(self) -> int:
        return self.health_at + _whole_lines(self.upstreams)

    @property
    def recovered_at(self) -> int:
        return self.standing_at + _whole_lines(self.upstreams)

    @property
    def rows_at(self) -> int:
        return self.recovered_at + _whole_lines(self.upstreams)

    @property
    def counters_at(self) -> int:
        """From the beginning of a row."""
        return ROW_HEAD_CELLS

    @property
    def active_at(self) -> int:
        """From the beginning of a row."""
        return self.counters_at + len(Counter)

    @property
    def refused_at(self) -> int:
        """From the beginning of a row."""
        return self.active_at + self.upstreams

    @property
    def waiting_at(self) -> int:
        """From the beginning of a row."""
        return self.refused_at + self.upstreams

    @property
    def failed_at(self) -> int:
        """From the beginning of a row."""
        return self.waiting_at + self.upstreams

    @property
    def answered_at(self) -> int:
        """From the beginning of a row."""
        return self.failed_at + self.upstreams

    @property
    def tripped_at(self) -> int:
        """From the beginning of a row."""
        return self.answered_at + self.upstreams

    @property
    def row_cells(self) -> int:
        return _whole_lines(self.tripped_at + self.upstreams)

    def row_at(self, slot: int) -> int:
        return self.rows_at + slot * self.row_cells

    @property
    def keys_at(self) -> int:
        return self.row_at(self.slots)

    @property
    def size_bytes(self) -> int:
        """Bytes of the whole segment, rounded up to whole lines."""
        keys_cells = -(-self.keys_bytes // CELL_BYTES)
        return (self.keys_at + _whole_lines(keys_cells)) * CELL_BYTES


def _whole_lines(cells: int) -> int:
    return -(-cells // LINE_CELLS) * LINE_CELLS
