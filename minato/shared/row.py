"""One worker's row of the board: what it counts, all of it written by that worker alone."""

from __future__ import annotations

from collections.abc import Callable

from minato.shared.layout import ROW_HEAD_CELLS, Counter, Layout, RowCell

# Plain integers for the hot path: looking up a member of an enum costs more than counting.
_CONNECTIONS_ACCEPTED = int(Counter.CONNECTIONS_ACCEPTED)
_CONNECTIONS_ACTIVE = int(Counter.CONNECTIONS_ACTIVE)
_REQUESTS = int(Counter.REQUESTS)
_REQUESTS_ACTIVE = int(Counter.REQUESTS_ACTIVE)
_BYTES_IN = int(Counter.BYTES_IN)
_BYTES_OUT = int(Counter.BYTES_OUT)
_CACHE_HITS = int(Counter.CACHE_HITS)
_FIRST_CLASS = int(Counter.RESPONSES_1XX) - 1


class WorkerRow:
    """One slot's row. Only the slot's worker writes it; it is of use as long as its board is open."""

    __slots__ = ("_active", "_answered", "_counters", "_failed", "_head", "_refused", "_tripped", "_waiting")

    def __init__(self, cells: memoryview, layout: Layout, slot: int) -> None:
        row_at = layout.row_at(slot)
        self._head = cells[row_at : row_at + ROW_HEAD_CELLS]
        # A view for each part, so that the hot path indexes by the number it has at hand and adds nothing.
        self._counters = cells[row_at + layout.counters_at : row_at + layout.active_at]
        self._active = cells[row_at + layout.active_at : row_at + layout.refused_at]
        self._refused = cells[row_at + layout.refused_at : row_at + layout.waiting_at]
        self._waiting = cells[row_at + layout.waiting_at : row_at + layout.failed_at]
        self._failed = cells[row_at + layout.failed_at : row_at + layout.answered_at]
        self._answered = cells[row_at + layout.answered_at : row_at + layout.tripped_at]
        self._tripped = cells[row_at + layout.tripped_at : row_at + layout.tripped_at + layout.upstreams]

    def beat(self, mono_ms: int) -> None:
        """Say that the worker is alive at that monotonic millisecond."""
        self._head[RowCell.HEARTBEAT_MS] = mono_ms

    @property
    def heartbeat_ms(self) -> int:
        """Monotonic millisecond of the last beat; 0 before the first."""
        return int(self._head[RowCell.HEARTBEAT_MS])

    @property
    def pid(self) -> int:
        return int(self._head[RowCell.PID])

    @pid.setter
    def pid(self, pid: int) -> None:
        self._head[RowCell.PID] = pid

    @property
    def generation(self) -> int:
        return int(self._head[RowCell.GENERATION])

    @generation.setter
    def generation(self, generation: int) -> None:
        self._head[RowCell.GENERATION] = generation

    def add(self, counter: Counter, n: int = 1) -> None:
        """Count ``n`` more (fewer, where negative)."""
        self._counters[counter] += n

    def connection_begun(self) -> None:
        """Count a client's connection that was accepted."""
        counters = self._counters
        counters[_CONNECTIONS_ACCEPTED] += 1
        counters[_CONNECTIONS_ACTIVE] += 1

    def connection_over(self) -> None:
        """Count a client's connection that is gone."""
        self._counters[_CONNECTIONS_ACTIVE] -= 1

    def request_begun(self) -> None:
        """Count a request that begins."""
        counters = self._counters
        counters[_REQUESTS] += 1
        counters[_REQUESTS_ACTIVE] += 1

    def request_uncounted(self) -> None:
        """What `request_begun` counted is no client's request."""
        counters = self._counters
        counters[_REQUESTS] -= 1
        counters[_REQUESTS_ACTIVE] -= 1

    def request_over(self, status: int, bytes_in: int, bytes_out: int) -> None:
        """Count a request that ends, with the status of its response (0 for none) and the sizes of the bodies."""
        counters = self._counters
        counters[_REQUESTS_ACTIVE] -= 1
        if bytes_in:
            counters[_BYTES_IN] += bytes_in
        counters[_BYTES_OUT] += bytes_out
        if status >= 200:
            counters[_FIRST_CLASS + status // 100] += 1

    def forwarded(self, upstream: int, status: int, bytes_in: int, bytes_out: int) -> None:
        """Count a request that ends with the response of that upstream: `upstream_end` and `request_over` in one."""
        self._active[upstream] -= 1
        counters = self._counters
        counters[_REQUESTS_ACTIVE] -= 1
        if bytes_in:
            counters[_BYTES_IN] += bytes_in
        counters[_BYTES_OUT] += bytes_out
        counters[_FIRST_CLASS + status // 100] += 1

    def hit_again(self, status: int, bytes_out: int) -> None:
        """Count a whole exchange that was answered from the cache at once."""
        counters = self._counters
        counters[_REQUESTS] += 1
        counters[_CACHE_HITS] += 1
        counters[_BYTES_OUT] += bytes_out
        counters[_FIRST_CLASS + status // 100] += 1

    def put(self, counter: Counter, value: int) -> None:
        """Set a counter that is a level rather than a sum, such as the cache's bytes."""
        self._counters[counter] = value

    def get(self, counter: Counter) -> int:
        return int(self._counters[counter])

    def upstream_begin(self, upstream: int) -> None:
        """An exchange with that upstream begins."""
        self._active[upstream] += 1

    def upstream_end(self, upstream: int) -> None:
        """An exchange with that upstream is over."""
        self._active[upstream] -= 1

    def upstream_answered(self, upstream: int, status: int) -> None:
        """An exchange with that upstream is over, with all of its response; ``status`` is 0 where that says nothing."""
        del status
        self._active[upstream] -= 1

    def count_refused(self, upstream: int) -> None:
        """That upstream refused a connection."""
        self._refused[upstream] += 1

    def put_waiting(self, upstream: int, since_ms: int) -> None:
        """Say since which monotonic millisecond the oldest request waits for room at an upstream; 0: none does."""
        self._waiting[upstream] = since_ms

    def count_failed(self, upstream: int) -> None:
        """An attempt with that upstream failed."""
        self._failed[upstream] += 1

    def count_answered(self, upstream: int) -> None:
        """That upstream answered, and it was no failure."""
        self._answered[upstream] += 1

    def count_tripped(self, upstream: int) -> None:
        """That upstream failed too often in a row."""
        self._tripped[upstream] += 1

    def release(self) -> None:
        """Let go of the memory (for Board.close alone)."""
        columns = (self._active, self._refused, self._waiting, self._failed, self._answered, self._tripped)
        for view in (self._head, self._counters, *columns):
            view.release()


class ObservedRow(WorkerRow):
    """The same row, on which what was forwarded is told to somebody, too. Put in its place only while that matters."""

    __slots__ = ("_tell",)

    def __init__(self, row: WorkerRow, tell: Callable[[int, int], None]) -> None:
        """``tell`` is called with the upstream and the status of each response that comes whole."""
        for name in WorkerRow.__slots__:
            setattr(self, name, getattr(row, name))
        self._tell = tell

    def forwarded(self, upstream: int, status: int, bytes_in: int, bytes_out: int) -> None:
        super().forwarded(upstream, status, bytes_in, bytes_out)
        self._tell(upstream, status)

    def upstream_answered(self, upstream: int, status: int) -> None:
        super().upstream_answered(upstream, status)
        if status:
            self._tell(upstream, status)
