"""The access log of one worker: lines are gathered and written whole; what cannot be written never hurts the proxy."""

from __future__ import annotations

import contextlib
import enum
import errno
import fcntl
import logging
import os
import select
import stat
import time
from collections.abc import Callable

from minato.config.model import AccessLogConfig, LogFormat
from minato.errors import BootError
from minato.telemetry.access_format import AccessEntry, CombinedFormatter, make_formatter, shorten

__all__ = ["AccessEntry", "AccessLog"]

log = logging.getLogger("minato.access_log")

FLUSH_BYTES = 65_536
MAX_WAITING_BYTES = 1_048_576
# Writes of at most PIPE_BUF bytes to a pipe are not mixed with those of other workers (POSIX, write()). The fields of
# a longer line are cut to the first of these lengths that makes it fit; the last one always does.
PIPE_FIELD_BYTES = (512, 64)
# What a pipe should hold: the kernel gives it 64 KiB, which workers fill within milliseconds.
PIPE_BYTES = 1_048_576
# How soon a pipe or terminal that is full is tried again: its reader may be as fast as we are, and take turns with us.
RETRY_S = 0.02
# A reader that takes nothing for so long does not read; from then on, and for a file, a try each second is enough.
STUCK_S = 1.0
FLUSH_S = 1.0
# How long the end of a worker waits for its last lines to be taken; less than the least timeouts.heartbeat.
CLOSE_S = 0.9

_OPEN_FLAGS = os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_STDOUT_FD = 1


class _State(enum.Enum):
    """How the latest write came out."""

    WRITTEN = "all was written"
    FULL = "there was no room in what somebody reads"
    FAILING = "it failed for another reason"


class AccessLog:
    """A buffered access log, to be flushed by its worker every ``next_flush_s``; it flushes itself at ``FLUSH_BYTES``.

    Several workers append to one file: every write is made of whole lines. Where the file cannot be written (disk full,
    nobody reads the pipe) up to ``MAX_WAITING_BYTES`` wait, further lines are lost and counted, and the log of events
    says so once, and once more when it is over. A pipe that is merely full at the moment is no failure: it is tried
    again soon, and nothing is said unless a line is lost or nobody reads for a second. Only opening raises.

    Attributes:
        is_combined: whether ``record_combined`` may be told instead of ``record``.
        lost_lines: lines lost so far.
        on_full: called when a pipe or terminal was found to be full: a flush is due sooner than it was.
    """

    def __init__(self, config: AccessLogConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.on_full: Callable[[], None] = lambda: None
        self._path = config.path
        self._format = make_formatter(config.format)
        self._front = CombinedFormatter().front
        self.is_combined = config.format is LogFormat.COMBINED
        self._fd = -1
        self._is_stream = False
        self._poll = select.poll()
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._is_torn = False
        self._state = _State.WRITTEN
        self._took_s = 0.0  # when that took something last
        self._reason = ""
        self._is_told = False
        self._reported_lost = 0
        self.lost_lines = 0
        self._attach(_open(config.path))

    @classmethod
    def open(cls, config: AccessLogConfig) -> AccessLog | None:
        """Open the log; None when it is off.

        Raises:
            BootError: the path cannot be opened for writing.
        """
        return None if config.path == "off" else cls(config)

    @property
    def next_flush_s(self) -> float:
        """In how many seconds it should be flushed again."""
        return RETRY_S if self._state is _State.FULL and self._clock() - self._took_s < STUCK_S else FLUSH_S

    def record(self, entry: AccessEntry) -> None:
        """Add an exchange's line."""
        line = self._format(entry)
        if self._is_stream and len(line) > select.PIPE_BUF:
            line = self._format_short(entry)
        self._add(line)

    def record_combined(self, client: str, tail: bytes, wall_s: float) -> bool:
        """Add an exchange's line, the tail of which was rendered before (`access_format.render_tail`).

        Returns:
            False where the line is too long to be written as it is: `record` shortens it.
        """
        line = self._front(client, wall_s) + tail
        if self._is_stream and len(line) > select.PIPE_BUF:
            return False
        self._add(line)
        return True

    def _add(self, line: bytes) -> None:
        waiting_bytes = self._waiting_bytes + len(line)
        if waiting_bytes > MAX_WAITING_BYTES:
            self.lost_lines += 1
            self._tell_failure()
            return
        self._lines.append(line)
        self._waiting_bytes = waiting_bytes
        # While it fails, the worker's flush is enough; not a try for every exchange.
        if waiting_bytes >= FLUSH_BYTES and self._state is _State.WRITTEN:
            self.flush()

    def flush(self) -> None:
        """Write what waits, as far as it goes without blocking."""
        has_taken = False
        while self._lines:
            count, data = self._next_write()
            try:
                if not self._is_writable():
                    raise BlockingIOError(errno.EAGAIN, "nobody reads it")
                written = os.write(self._fd, data)
            except BlockingIOError:
                self._note_full(has_taken)
                return
            except OSError as error:
                self._note_failure(error.strerror or str(error))
                return
            has_taken = True
            if written < len(data):
                self._keep_unwritten(data, written)
                if self._is_stream:
                    self._note_full(has_taken)
                else:
                    self._note_failure("it took a part of a line only")
                return
            self._forget(count)
            self._is_torn = False
        self._note_success()

    def reopen(self) -> None:
        """Open the path anew, after a log rotation moved the file away; if that fails, go on with the old file."""
        self.flush()
        try:
            fd = _open(self._path)
        except BootError as error:
            log.error("%s; going on with the file that was open", error)
            return
        os.close(self._fd)
        self._is_torn = False
        self._attach(fd)
        self.flush()

    def close(self) -> None:
        """Write what can be written, for `CLOSE_S` at the most, and close; what is left is lost.

        Closing twice does nothing.
        """
        if self._fd < 0:
            return
        self.flush()
        end_s = self._clock() + CLOSE_S
        while self._state is _State.FULL and (left_s := end_s - self._clock()) > 0:
            self._poll.poll(left_s * 1000)
            self.flush()
        self.lost_lines += len(self._lines)
        self._forget(len(self._lines))
        if lost := self._take_lost():
            log.error("access log %s: %d lines were lost", self._path, lost)
        os.close(self._fd)
        self._fd = -1

    def _format_short(self, entry: AccessEntry) -> bytes:
        for max_field_bytes in PIPE_FIELD_BYTES:
            line = self._format(shorten(entry, max_field_bytes))
            if len(line) <= select.PIPE_BUF:
                break
        return line

    def _attach(self, fd: int) -> None:
        self._fd = fd
        mode = os.fstat(fd).st_mode
        self._is_stream = not stat.S_ISREG(mode)
        if stat.S_ISFIFO(mode):
            _widen(fd)
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def _is_writable(self) -> bool:
        """Tell whether a write would not block, for a stdout whose blocking mode is not ours to change."""
        return not self._is_stream or bool(self._poll.poll(0))

    def _next_write(self) -> tuple[int, bytes]:
        """Return as many whole lines as one write may take, at least one; the number first.

        After a line that was cut short, a line feed goes in front, so that its remains stand alone.
        """
        limit = select.PIPE_BUF if self._is_stream else FLUSH_BYTES
        count = len(self._lines)
        if self._waiting_bytes > limit:
            size = count = 0
            for line in self._lines:
                if count and size + len(line) > limit:
                    break
                size += len(line)
                count += 1
        data = b"".join(self._lines[:count])
        return count, b"\n" + data if self._is_torn else data

    def _keep_unwritten(self, data: bytes, written: int) -> None:
        """Forget the lines that a short write took whole. The one it tore is written again, on a line of its own."""
        lines = data.count(b"\n", 0, written)
        if self._is_torn and lines:
            lines -= 1
        if written:
            self._is_torn = data[written - 1] != ord("\n")
        self._forget(lines)

    def _forget(self, count: int) -> None:
        if count == len(self._lines):
            self._waiting_bytes = 0
            self._lines.clear()
            return
        self._waiting_bytes -= sum(map(len, self._lines[:count]))
        del self._lines[:count]

    def _note_full(self, has_taken: bool) -> None:
        """There is no room at the moment. Only where that lasts does nobody read."""
        now_s = self._clock()
        before, self._state = self._state, _State.FULL
        if has_taken or before is _State.WRITTEN:
            self._took_s = now_s
        self._reason = "its reader does not keep up"
        if now_s - self._took_s >= STUCK_S:
            self._tell_failure()
        if before is not _State.FULL:
            self.on_full()

    def _note_failure(self, reason: str) -> None:
        self._state = _State.FAILING
        self._reason = reason
        self._tell_failure()

    def _tell_failure(self) -> None:
        if not self._is_told:
            self._is_told = True
            log.error("access log %s cannot be written: %s; lines wait, then are lost", self._path, self._reason)

    def _note_success(self) -> None:
        self._state = _State.WRITTEN
        if self._is_told:
            self._is_told = False
            log.warning("access log %s is written again; %d lines were lost", self._path, self._take_lost())

    def _take_lost(self) -> int:
        """Return how many lines were lost of which nobody has been told yet."""
        lost, self._reported_lost = self.lost_lines - self._reported_lost, self.lost_lines
        return lost


def _widen(fd: int) -> None:
    """Give a pipe more room, where it has less and the system lets us."""
    with contextlib.suppress(OSError):
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < PIPE_BYTES:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)


def _open(path: str) -> int:
    try:
        return _open_stdout() if path == "-" else os.open(path, _access_mode(path) | _OPEN_FLAGS, 0o644)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BootError(f"cannot open access log {path}: {reason}") from error


def _access_mode(path: str) -> int:
    """A FIFO is opened for reading, too: without a reader, opening it would fail, and so would writing later on."""
    try:
        is_fifo = stat.S_ISFIFO(os.stat(path).st_mode)
    except FileNotFoundError:
        is_fifo = False
    return os.O_RDWR if is_fifo else os.O_WRONLY


def _open_stdout() -> int:
    """Return a descriptor of standard output that is non-blocking where it can be had.

    The blocking mode belongs to the open file, which the shell and others share: a pipe or a terminal is therefore
    opened once more. A file is not, since two open files have two positions and would write over each other.
    """
    mode = os.fstat(_STDOUT_FD).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
        try:
            return os.open(f"/proc/self/fd/{_STDOUT_FD}", os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK)
        except OSError:
            log.debug("standard output cannot be opened anew; it is written as it is")
    return os.dup(_STDOUT_FD)
