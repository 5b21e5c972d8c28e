"""The shared-memory board: health cells that the master writes, and a row of counters for every worker slot.

One writer per cell, since Python has no atomics; whoever wants a total sums a column.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from multiprocessing.shared_memory import SharedMemory

from minato.decide.outliers import Outcomes
from minato.decide.standing import Standing
from minato.errors import MinatoError
from minato.shared.layout import MAGIC, VERSION, Counter, Header, Layout
from minato.shared.row import WorkerRow
from minato.shared.segment import (
    create_segment,
    open_segment,
    remove_leftovers,
    remove_segment,
    segment_buffer,
    segment_name,
)

__all__ = ["Board", "Counter", "remove_leftovers"]

_READ_TRIES = 100


class Board:
    """One shared-memory segment, laid out as minato.shared.layout says.

    Attributes:
        name: of the segment, without a directory.
        upstream_keys: the upstreams in the order of their columns, "" for a spare one; of an attached board as they
            were when it was attached.
        slots: number of rows.
        health: per upstream whether it may get new traffic, 1 or 0; a read-only view, to be read in place on the hot
            path, as the next two are.
        standing: per upstream the number of its Standing.
        recovered_ms: per upstream the monotonic millisecond at which it came up again; 0: it was never down.
    """

    def __init__(self, segment: SharedMemory, layout: Layout, keys: Sequence[str], *, writable: bool) -> None:
        """For create and attach alone."""
        cells = segment_buffer(segment).cast("q")
        self._segment = segment
        self._layout = layout
        self._creator_pid = os.getpid() if writable else 0
        self._cells = cells if writable else cells.toreadonly()
        self.name = segment.name
        self.slots = layout.slots
        self.upstream_keys = tuple(keys)
        self._views = [cells, self._cells]
        self.health = self._view(layout.health_at, layout.upstreams).toreadonly()
        self.standing = self._view(layout.standing_at, layout.upstreams).toreadonly()
        self.recovered_ms = self._view(layout.recovered_at, layout.upstreams).toreadonly()
        self._views += [self.health, self.standing, self.recovered_ms]
        self._rows = [WorkerRow(self._cells, layout, slot) for slot in range(layout.slots)]
        self._active = self._columns(layout.active_at)
        self._refused = self._columns(layout.refused_at)
        self._waiting = self._columns(layout.waiting_at)
        self._failed = self._columns(layout.failed_at)
        self._answered = self._columns(layout.answered_at)
        self._tripped = self._columns(layout.tripped_at)

    @classmethod
    def create(
        cls, *, slots: int, upstream_keys: Sequence[str], serial: int, spare: int = 0, key_bytes: int = 0
    ) -> Board:
        """Make a new segment: all upstreams down, all rows zero.

        Args:
            slots: number of worker slots, at least 1.
            upstream_keys: Upstream.key of every column, no two alike.
            serial: tells the boards of one master apart.
            spare: further columns, whose keys are set later.
            key_bytes: how long a key that is set later may be at the most.

        Raises:
            BootError: there is no shared memory to be had.
        """
        if slots < 1 or len(set(upstream_keys)) != len(upstream_keys):
            raise ValueError(f"a board needs a slot and distinct upstream keys: {slots}, {upstream_keys}")
        upstream_keys = [*upstream_keys, *[""] * spare]
        keys_bytes = 2 + sum(max(len(json.dumps(key)), key_bytes + 2) + 2 for key in upstream_keys)
        layout = Layout(slots=slots, upstreams=len(upstream_keys), keys_bytes=keys_bytes)
        pid = os.getpid()
        segment = create_segment(segment_name(pid, serial), layout.size_bytes)
        board = cls(segment, layout, upstream_keys, writable=True)
        board._write_keys(upstream_keys)
        board._write_header(pid, serial)
        return board

    @classmethod
    def attach(cls, name: str) -> Board:
        """Map the board of a running master, to read it only.

        Raises:
            MinatoError: there is no such board, it is another user's, or of another version.
        """
        try:
            segment = open_segment(name)
        except (OSError, ValueError) as error:
            raise MinatoError(f"cannot open the board {name}: {error}") from error
        try:
            layout, keys = _read_description(segment_buffer(segment))
        except (MinatoError, ValueError) as error:
            segment.close()
            raise MinatoError(f"cannot read the board {name}: {error}") from error
        return cls(segment, layout, keys, writable=False)

    def row(self, slot: int) -> WorkerRow:
        """Return the slot's row, the same object every time."""
        return self._rows[slot]

    def is_healthy(self, upstream: int) -> bool:
        return self.health[upstream] == 1

    def set_health(self, upstream: int, up: bool) -> None:
        """Say that an upstream is up or down, and has been from the beginning; for the master alone."""
        self.set_standing(upstream, Standing.UP if up else Standing.DOWN, 0)

    def set_standing(self, upstream: int, standing: Standing, recovered_ms: int) -> None:
        """Say where an upstream stands, and since when it is up again; for the master alone."""
        layout, cells = self._layout, self._cells
        if not 0 <= upstream < layout.upstreams:
            raise IndexError(f"no upstream {upstream} on a board of {layout.upstreams}")
        cells[layout.recovered_at + upstream] = recovered_ms  # first: who sees it up sees that it is to be spared
        cells[layout.standing_at + upstream] = standing
        cells[layout.health_at + upstream] = 1 if standing is Standing.UP else 0

    def standing_of(self, upstream: int) -> tuple[Standing, int]:
        """Return where an upstream stands, and since which monotonic millisecond it is up again."""
        return Standing(self.standing[upstream]), self.recovered_ms[upstream]

    def set_key(self, upstream: int, key: str) -> None:
        """Give a column to an upstream, or make it a spare one (``""``); down either way. For the master alone.

        Raises:
            ValueError: that upstream has a column already, or there is no room for its key.
        """
        if key and key in self.upstream_keys:
            raise ValueError(f"there is a column for {key} already")
        keys = list(self.upstream_keys)
        keys[upstream] = key
        self.set_health(upstream, False)
        self._write_keys(keys)
        self.upstream_keys = tuple(keys)

    def active(self, upstream: int) -> int:
        """Return the exchanges in flight with an upstream, over all slots."""
        return sum(self._active[upstream].tolist())

    def refused(self, upstream: int) -> int:
        """Return the connections an upstream refused, over all slots; it only falls when a row is zeroed."""
        return sum(self._refused[upstream].tolist())

    def waiting_since_ms(self, upstream: int) -> list[int]:
        """Return by slot since which monotonic millisecond a request waits for room at an upstream; 0: none does."""
        return self._waiting[upstream].tolist()

    def heartbeats_ms(self) -> list[int]:
        """Return by slot the monotonic millisecond of the last beat."""
        return [row.heartbeat_ms for row in self._rows]

    def outcomes(self, upstream: int) -> Outcomes:
        """Return what all slots counted of an upstream; like `refused`, it only falls when a row is zeroed."""
        columns = (self._refused, self._failed, self._answered, self._tripped)
        return Outcomes(*[sum(column[upstream].tolist()) for column in columns])

    def total(self, counter: Counter) -> int:
        """Return a counter's sum over all slots."""
        return sum(row.get(counter) for row in self._rows)

    def zero_row(self, slot: int) -> None:
        """Forget what a slot's worker counted; for the master, once that worker is dead."""
        row_cells = self._layout.row_cells
        row_at = self._layout.row_at(slot)
        with self._cells[row_at : row_at + row_cells] as row:
            row[:] = memoryview(bytes(row_cells * 8)).cast("q")

    def copy_health_from(self, other: Board) -> None:
        """Take over the health of the upstreams that both boards know, by key."""
        theirs = {key: index for index, key in enumerate(other.upstream_keys)}
        for upstream, key in enumerate(self.upstream_keys):
            if (index := theirs.get(key)) is not None:
                self.set_standing(upstream, *other.standing_of(index))

    def close(self) -> None:
        """Unmap the segment in this process; it stays for the others. The rows and ``health`` are dead after this."""
        for row in self._rows:
            row.release()
        for view in self._views:
            view.release()
        self._segment.close()

    def unlink(self) -> None:
        """Remove the segment's name, once; in other processes than the one that made it this does nothing."""
        if self._creator_pid == os.getpid():
            self._creator_pid = 0
            remove_segment(self.name)

    def __repr__(self) -> str:
        return f"<Board {self.name}: {self.slots} slots, {len(self.upstream_keys)} upstreams>"

    def __del__(self) -> None:
        # SharedMemory's own finalizer complains on stderr when views are still out. Not made: nothing to close.
        if hasattr(self, "_tripped"):
            self.close()

    def _write_header(self, pid: int, serial: int) -> None:
        cells = self._cells
        layout = self._layout
        cells[Header.VERSION] = VERSION
        cells[Header.SLOTS] = layout.slots
        cells[Header.UPSTREAMS] = layout.upstreams
        cells[Header.COUNTERS] = len(Counter)
        cells[Header.KEYS_BYTES] = layout.keys_bytes
        cells[Header.SERIAL] = serial
        cells[Header.MASTER_PID] = pid
        cells[Header.MAGIC] = MAGIC  # last: whoever attaches finds all the rest in place

    def _write_keys(self, keys: Sequence[str]) -> None:
        """Write all keys; what is left of their room is blanks. Whoever reads meanwhile sees an odd edition."""
        room = self._layout.keys_bytes
        data = json.dumps(list(keys)).encode().ljust(room)
        if len(data) > room:
            raise ValueError(f"{len(data)} bytes of keys do not fit into {room}")
        at = self._layout.keys_at * 8
        self._cells[Header.EDITION] += 1
        segment_buffer(self._segment)[at : at + room] = data
        self._cells[Header.EDITION] += 1

    def _view(self, at: int, count: int, step: int = 1) -> memoryview:
        view = self._cells[at : at + count * step : step]
        self._views.append(view)
        return view

    def _columns(self, at: int) -> list[memoryview]:
        """Return per upstream a view with that row cell of every slot: summing one is two calls, whatever the slots."""
        layout = self._layout
        first = layout.rows_at + at
        return [self._view(first + upstream, layout.slots, layout.row_cells) for upstream in range(layout.upstreams)]


def _read_description(buffer: memoryview) -> tuple[Layout, list[str]]:
    with buffer[: len(buffer) // 8 * 8].cast("q") as cells:
        layout = Layout.read(cells)
        keys = json.loads(_read_keys(buffer, cells, layout))
    if not isinstance(keys, list) or len(keys) != layout.upstreams:
        raise MinatoError("its upstream keys are damaged")
    return layout, [str(key) for key in keys]


def _read_keys(buffer: memoryview, cells: memoryview, layout: Layout) -> bytes:
    """Return the keys as they were at one moment; the master writes them in microseconds, and seldom."""
    at = layout.keys_at * 8
    for _ in range(_READ_TRIES):
        edition = cells[Header.EDITION]
        keys = bytes(buffer[at : at + layout.keys_bytes])
        if not edition % 2 and edition == cells[Header.EDITION]:
            return keys
    raise MinatoError("its upstream keys are being written")
