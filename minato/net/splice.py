"""Bodies that nobody here looks at, moved from socket to socket within the kernel: splice(2) by way of a pipe.

A pipe is held only while there are bytes in it: by `Splice.move` from one socket to the other, and by the receiving
stream for as long as its socket takes no more. So a worker's pipes serve all its transfers, and only those whose
receiver is slow keep one. Where there is none to be had, the body is copied like any other.
"""

from __future__ import annotations

import enum
import fcntl
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from minato.net.stream import Stream

MIN_SPLICE_BYTES: Final = 65_536
"""A body of which less is still to come is copied: up to some 50 KB that costs no more (measured on loopback)."""

MAX_HELD_BYTES: Final = 524_288
"""What a pipe holds at most. Half as much costs 15 % more CPU for a response of 1 MB, twice as much saves nothing."""

MAX_MOVE_BYTES: Final = 1_048_576
"""What is moved at most before the other connections have their turn."""

MAX_TURN_BYTES: Final = 8_388_608
"""What all transfers of a worker move at most in one turn of the loop, but for _MIN_MOVE_BYTES each: hundreds that are
ready together would make all others wait for half a second."""

_MIN_MOVE_BYTES: Final = 65_536

# A pipe smaller than that costs more than it saves. All pipes of a user may have 64 MiB together (pipe(7)), so that a
# worker has few, and keeps fewer.
_MIN_PIPE_BYTES: Final = 65_536
_MAX_PIPES: Final = 64
_MAX_IDLE_PIPES: Final = 8
_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """A pipe of the pool.

    Attributes:
        held_bytes: what is in it.
    """

    __slots__ = ("_pool", "_read_fd", "_write_fd", "held_bytes")

    def __init__(self, pool: PipePool, read_fd: int, write_fd: int) -> None:
        self._pool = pool
        self._read_fd = read_fd
        self._write_fd = write_fd
        self.held_bytes = 0

    def __repr__(self) -> str:
        return f"<Pipe {self._read_fd} {self.held_bytes} bytes>"

    def fill(self, fd: int, max_bytes: int) -> int:
        """Move bytes from a socket into the empty pipe; return how many, 0 at the end.

        Raises:
            OSError: the connection broke; BlockingIOError: there is nothing yet.
        """
        size = self.held_bytes = os.splice(fd, self._write_fd, max_bytes, flags=_FLAGS)
        return size

    def drain(self, fd: int) -> int:
        """Move bytes from the pipe, which holds some, into a socket; return how many it took.

        Raises:
            OSError: the connection broke; BlockingIOError: it takes nothing now.
        """
        size = os.splice(self._read_fd, fd, self.held_bytes, flags=_FLAGS)
        self.held_bytes -= size
        return size

    def release(self) -> None:
        """Give it back; what it still holds is lost."""
        self._pool.put(self)

    def close(self) -> None:
        """Close both ends (for the pool alone)."""
        os.close(self._read_fd)
        os.close(self._write_fd)


class PipePool:
    """The pipes of one worker: few, since a pipe is held only while there are bytes in it.

    Attributes:
        held: how many are in use.
    """

    def __init__(self, max_pipes: int = _MAX_PIPES, max_idle: int = _MAX_IDLE_PIPES) -> None:
        self._max_pipes = max_pipes
        self._max_idle = max_idle
        self._idle: list[Pipe] = []
        self._turn_s = 0.0
        self._turn_bytes = 0
        self.held = 0

    def __repr__(self) -> str:
        return f"<PipePool {self.held} held, {len(self._idle)} idle>"

    def take(self) -> Pipe | None:
        """Return an empty pipe, None where there is none to be had."""
        pipe = self._idle.pop() if self._idle else self._make()
        if pipe is not None:
            self.held += 1
        return pipe

    def share_of_turn(self, turn_s: float) -> int:
        """Return how many bytes may be moved now, in the turn of the loop that began then."""
        if turn_s != self._turn_s:
            self._turn_s = turn_s
            self._turn_bytes = 0
        return min(MAX_MOVE_BYTES, max(MAX_TURN_BYTES - self._turn_bytes, _MIN_MOVE_BYTES))

    def count_moved(self, size: int) -> None:
        """So much was moved in this turn."""
        self._turn_bytes += size

    def put(self, pipe: Pipe) -> None:
        """Take a pipe back. One that still holds something is closed: that must not get into another body."""
        self.held -= 1
        if pipe.held_bytes or len(self._idle) >= self._max_idle:
            pipe.close()
        else:
            self._idle.append(pipe)

    def close(self) -> None:
        """Close what is idle, and from now on what is given back."""
        self._max_idle = 0
        while self._idle:
            self._idle.pop().close()

    def _make(self) -> Pipe | None:
        if self.held >= self._max_pipes:
            return None
        try:
            ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None  # no descriptors left, of which connections have more need
        pipe = Pipe(self, *ends)
        if _enlarge(ends[1]) < _MIN_PIPE_BYTES:
            pipe.close()
            return None
        return pipe


def _enlarge(fd: int) -> int:
    """Make a pipe as large as it is of use; return how large it is, which is less for a user who has many."""
    try:
        return fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, MAX_HELD_BYTES)
    except OSError:
        return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


class Moved(enum.Enum):
    """How a move came out."""

    ALL = "as much as was there, or as may be moved at once"
    NOTHING = "there was nothing"
    END = "the source has ended"
    BLOCKED = "the receiver takes no more; it is congested until it has taken all"
    FAILED = "the receiver's connection broke, of which its owner was told"
    NO_PIPE = "no pipe to be had"


class Splice:
    """The rest of one body on its way from one plain stream to another.

    Attributes:
        sink: the receiving stream.
    """

    __slots__ = ("_pool", "_source", "sink")

    def __init__(self, pool: PipePool, source: Stream, sink: Stream) -> None:
        self._pool = pool
        self._source = source
        self.sink = sink

    def move(self, left_bytes: int, count: Callable[[int], None]) -> Moved:
        """Move what is there, at most what is left of the body, behind what the receiver has queued.

        Args:
            left_bytes: of the body; what comes behind it stays in the source's socket.
            count: told of bytes that left the source, before they go on.

        Returns:
            How it came out. The receiver's owner may have been told something meanwhile that ended the exchange.

        Raises:
            OSError: the source's connection broke.
        """
        source, sink = self._source, self.sink
        if sink.pending_bytes and not sink.flush():
            sink.hold_back()
            return Moved.BLOCKED if sink.pending_bytes else Moved.FAILED
        budget = left = min(left_bytes, self._pool.share_of_turn(source.turn_s))
        while budget:
            wanted = min(budget, MAX_HELD_BYTES)
            pipe = self._pool.take()
            if pipe is None:
                return Moved.NO_PIPE
            size = source.splice_into(pipe, wanted)
            if size is None:
                return Moved.NOTHING if budget == left else Moved.ALL
            if not size:
                return Moved.END
            count(size)
            self._pool.count_moved(size)
            if not sink.send_pipe(pipe):
                return Moved.BLOCKED if sink.pending_bytes else Moved.FAILED
            budget -= size
            if size < wanted:
                break
        return Moved.ALL
