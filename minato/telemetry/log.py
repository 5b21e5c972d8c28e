"""The log of events: standard library loggers on stderr, one line an event and one write a line."""

from __future__ import annotations

import logging
import os
import select
import time
from pathlib import Path
from types import TracebackType

LEVELS = ("debug", "info", "warning", "error")

# A write of at most PIPE_BUF bytes to a pipe is never torn or mixed with that of another process (POSIX, write()).
MAX_LINE_BYTES = select.PIPE_BUF
MAX_FRAMES = 12
# How long a line waits for a reader that lags; once it waited in vain, further lines do not wait at all.
PATIENCE_MS = 100

_STDERR_FD = 2
_CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROL_CHARACTERS |= {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"}


def setup_logging(level: str, fd: int = _STDERR_FD) -> None:
    """Send what the ``minato`` loggers say from ``level`` up to ``fd``. Called again, it replaces what was set up.

    Args:
        level: one of ``LEVELS``, in any case.
        fd: where the lines go; standard error by default.

    Raises:
        ValueError: the level is not one of ``LEVELS``.
    """
    if level.lower() not in LEVELS:
        raise ValueError(f"unknown log level {level!r}; one of {', '.join(LEVELS)}")
    logger = logging.getLogger("minato")
    logger.handlers[:] = [LineHandler(fd)]
    logger.setLevel(level.upper())
    logger.propagate = False


class LineHandler(logging.Handler):
    """Writes each record as one line with one ``os.write``.

    It has no lock and no buffer, so a fork in the middle of a line of another thread leaves the child nothing to
    dead-lock on. A stderr that is gone, full or not read never raises and never stops the process: lines are lost,
    and the first one that gets through says how many.
    """

    def __init__(self, fd: int = _STDERR_FD) -> None:
        super().__init__()
        self._fd = fd
        self._lost = 0
        self._is_stuck = False

    def createLock(self) -> None:
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Write the record; the base class would take the lock that this one does not have."""
        if not self.filter(record):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        lost = self._lost
        if lost and self._write(_to_line(record, f"{lost} log lines were lost: stderr could not be written")):
            self._lost -= lost
        if not self._write(_to_line(record, _describe(record))):
            self._lost += 1

    def _write(self, line: bytes) -> bool:
        try:
            poll = select.poll()  # for each line: two threads must not use one at a time
            poll.register(self._fd, select.POLLOUT)
            if not poll.poll(0 if self._is_stuck else PATIENCE_MS):
                self._is_stuck = True
                return False
            self._is_stuck = False
            return os.write(self._fd, line) == len(line)
        except OSError:
            return False  # EPIPE, ENOSPC, EBADF ...: there is no other place to say so


def _to_line(record: logging.LogRecord, text: str) -> bytes:
    """Return ``2026-11-24 05:41:34.123 WARNING health[1234]: text`` in UTF-8, cut to ``MAX_LINE_BYTES``."""
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
    area = record.name.removeprefix("minato.")
    line = f"{stamp}.{int(record.msecs):03d} {record.levelname:<7} {area}[{os.getpid()}]: {text}"
    data = line.translate(_CONTROL_CHARACTERS).encode("utf-8", "backslashreplace")
    if len(data) >= MAX_LINE_BYTES:
        data = data[: MAX_LINE_BYTES - 4].decode("utf-8", "ignore").encode() + b"..."
    return data + b"\n"


def _describe(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError):
        text = f"{record.msg!r} {record.args!r}"  # the caller's arguments do not fit its format; say it anyway
    if record.exc_info and record.exc_info[1] is not None:
        text += f": {describe_exception(record.exc_info[1])}"
    return text


def describe_exception(error: BaseException) -> str:
    """Return an exception with its traceback in one line: what, then where, innermost frame first, then its cause."""
    text = f"{type(error).__name__}: {error}"
    frames = _frames(error.__traceback__)
    if frames:
        text += f" (at {' < '.join(frames)})"
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        text += f"; after {type(cause).__name__}: {cause}"
    return text


def _frames(traceback: TracebackType | None) -> list[str]:
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        path = Path(code.co_filename)
        frames.append(f"{path.parent.name}/{path.name}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames[: -MAX_FRAMES - 1 : -1]
