"""One non-blocking connection in the loop: reads when asked, writes when it can, tells of back-pressure.

Written pieces are queued and go out in one system call at the end of the loop's turn. The interest registered with
epoll changes only when a socket blocks or a side is paused, so that an ordinary exchange costs no epoll_ctl.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from minato.net.loop import ENDED, HANGUP, READ, WRITE, Loop
from minato.net.write_watch import WriteWatch, unacknowledged_bytes

if TYPE_CHECKING:
    from minato.net.splice import Pipe

RECV_BYTES: Final = 16_384
MAX_RECV_BYTES: Final = 131_072
HIGH_WATER_BYTES: Final = 262_144
LOW_WATER_BYTES: Final = 65_536
_JOIN_BYTES: Final = 65_536
_MAX_PIECES: Final = 64
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_END_ON_CLOSE: Final = struct.pack("ii", 0, 0)


class StreamOwner(Protocol):
    """Who a stream reports to."""

    def on_readable(self) -> object:
        """There are bytes, an end or an error to be fetched by ``recv``."""

    def on_drained(self) -> None:
        """A congested stream is below the low watermark again."""

    def on_flushed(self) -> None:
        """All that was queued has gone to the kernel; told only while ``tells_flushed`` is set."""

    def on_write_failed(self, error: OSError) -> None:
        """The peer takes no more bytes: it reset the connection, or was too slow (TimeoutError)."""

    def on_crash(self) -> None:
        """A bug ended the handling of an event: close this connection and what hangs on it."""


class _Nobody:
    """Who a stream belongs to that is closed and let go of."""

    def on_readable(self) -> None: ...
    def on_drained(self) -> None: ...
    def on_flushed(self) -> None: ...
    def on_write_failed(self, error: OSError) -> None: ...
    def on_crash(self) -> None: ...


_NOBODY: Final = _Nobody()


class Stream:
    """A plain TCP connection.

    ``can_half_close``: whether one direction can end while the other goes on. ``can_splice``: whether the kernel can
    move bytes from and to its socket.

    Attributes:
        sock: the socket.
        congested: whether more than the high watermark is waiting to be sent, or anything in a pipe; ``on_drained``
            tells when it is over.
        pending_bytes: what is waiting to be sent, also in a pipe.
        sent_bytes: what the kernel has taken so far.
        closed: whether ``close`` was called.
        peer_ended: whether the peer's FIN has come, perhaps behind bytes; of streams that were made to tell.
        is_reading: whether the owner wants to hear of bytes.
        tells_flushed: whether the owner wants to hear ``on_flushed``; set by it.
    """

    can_half_close: ClassVar[bool] = True
    can_splice: ClassVar[bool] = True

    __slots__ = (
        "_blocked",
        "_flush_due",
        "_flush_soon",
        "_loop",
        "_mask",
        "_may_hold_more",
        "_min_bytes_per_s",
        "_out",
        "_owner",
        "_parked",
        "_pipe",
        "_read_mask",
        "_recv_bytes",
        "_resets_on_close",
        "_watch",
        "_write_s",
        "closed",
        "congested",
        "is_reading",
        "peer_ended",
        "pending_bytes",
        "sent_bytes",
        "sock",
        "tells_flushed",
    )

    def __init__(
        self,
        loop: Loop,
        sock: socket.SocketType,
        owner: StreamOwner,
        write_timeout_s: float,
        *,
        tells_end: bool = False,
        min_bytes_per_s: int = 0,
    ) -> None:
        self._loop = loop
        self._flush_soon = loop.flush_soon
        self.sock = sock
        self._owner = owner
        self._write_s = write_timeout_s
        self._recv_bytes = RECV_BYTES
        self._resets_on_close = False
        self._may_hold_more = False  # whether the last recv got as much as it asked for
        self._out: list[bytes | memoryview] = []
        self._pipe: Pipe | None = None  # what is in it goes before that
        self._min_bytes_per_s = min_bytes_per_s
        self._watch: WriteWatch | None = None  # over the peer, from the first time that it is waited for
        self._mask = self._read_mask = READ | ENDED if tells_end else READ
        self.peer_ended = False
        self.is_reading = True
        self._blocked = False  # whether the socket takes nothing now, so that its interest in writing is registered
        self._flush_due = False
        self._parked = False  # out of the loop, since a hang-up cannot be masked
        self.congested = False
        self.pending_bytes = 0
        self.sent_bytes = 0
        self.tells_flushed = False
        self.closed = False

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{self.pending_bytes} bytes pending"
        return f"<{type(self).__name__} {state}, {'reading' if self.is_reading else 'paused'}>"

    @property
    def turn_s(self) -> float:
        """When the present turn of its loop began: the loop's clock."""
        return self._loop.now_s

    def start(self) -> None:
        """Begin to watch the socket; to be called once."""
        fd = self.sock.fileno()
        self._loop.add(fd, self._mask, self._on_event)
        self._loop.set_reader(fd, self._owner.on_readable)

    def adopt_registration(self) -> None:
        """Take over a socket that is in the loop already (a finished connect), interest and all."""
        fd = self.sock.fileno()
        self._loop.set_handler(fd, self._on_event)
        self._loop.set_reader(fd, self._owner.on_readable)
        self._loop.modify(fd, self._mask)

    def set_owner(self, owner: StreamOwner) -> None:
        self._owner = owner
        if self.is_reading and not self.closed:
            self._loop.set_reader(self.sock.fileno(), owner.on_readable)

    def recv(self) -> bytes | None:
        """Return what is there, ``b""`` at the end, None if there is nothing yet.

        What fills RECV_BYTES makes the next call ask for more, up to MAX_RECV_BYTES, until one finds less; but not
        while many wait for their turn.

        Raises:
            OSError: the connection broke.
        """
        size = self._recv_bytes
        try:
            data = self.sock.recv(size)
        except BlockingIOError:
            return None
        if len(data) == size:
            self._may_hold_more = True
            self._recv_bytes = RECV_BYTES if self._loop.is_crowded else min(2 * size, MAX_RECV_BYTES)
        elif self._may_hold_more:
            self._may_hold_more = False
            self._recv_bytes = RECV_BYTES
        return data

    def has_unread(self) -> bool:
        """Tell whether the last ``recv`` left anything unread: bytes, an end or an error."""
        return self._may_hold_more and self.is_readable()

    def untaken_bytes(self) -> int:
        """Return how much of what was written waits here, or for the peer to acknowledge it."""
        return 0 if self.closed else self.pending_bytes + unacknowledged_bytes(self.sock)

    def is_readable(self) -> bool:
        """Ask the socket whether there is anything to read: bytes, an end or an error."""
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def write(self, data: bytes | memoryview) -> None:
        """Queue bytes; they leave at the end of this turn of the loop."""
        if not data or self.closed:
            return
        self._out.append(data)
        self.pending_bytes += len(data)
        if self.pending_bytes > HIGH_WATER_BYTES:
            self.congested = True
        if not self._flush_due:
            self._flush_due = True
            self._flush_soon(self)

    def flush(self) -> bool:
        """Send what can be sent now; tell whether all of it went."""
        self._flush_due = False
        if self._pipe is not None:
            return self._flush_pipe(self._pipe)
        out = self._out
        if not out:
            return True
        try:
            sent = self.sock.send(out[0]) if len(out) == 1 else self._send_some()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        except OSError as error:
            return self._fail(error)
        if sent != self.pending_bytes:
            return self._flush_rest(sent)
        out.clear()
        self.pending_bytes = 0
        self.sent_bytes += sent
        if self._blocked or self.congested or self.tells_flushed:
            self._after_flush()
        return True

    def _flush_rest(self, sent: int) -> bool:
        """The first call took ``sent`` bytes, not all: go on until the socket blocks."""
        try:
            self._drop_sent(sent)
            while sent and self._out:
                sent = self._send_some()
                self._drop_sent(sent)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            return self._fail(error)
        return self._end_flush()

    def _flush_pipe(self, pipe: Pipe) -> bool:
        """Send what the pipe holds until the socket blocks, then what is queued."""
        fd = self.sock.fileno()
        try:
            while pipe.held_bytes:
                sent = pipe.drain(fd)
                self.pending_bytes -= sent
                self.sent_bytes += sent
        except BlockingIOError:
            self.congested = True  # until the pipe is empty
            return self._end_flush()
        except OSError as error:
            return self._fail(error)
        self._release_pipe()
        return self.flush() if self._out else self._end_flush()

    def _end_flush(self) -> bool:
        """Nothing more can be sent now, or nothing is left: the peer has to take the rest in time."""
        self._blocked = self.pending_bytes > 0
        if self._blocked:
            if self._watch is None:
                self._watch = WriteWatch(
                    self._loop, self.sock, self._write_s, self._min_bytes_per_s, self._on_write_deadline
                )
            self._watch.note_blocked(self.sent_bytes)
        self._after_flush()
        return not self.pending_bytes

    def _fail(self, error: OSError) -> bool:
        self.discard_output()
        self._owner.on_write_failed(error)
        return False

    def allow_any_pace(self) -> None:
        """From now on it will do if the peer takes anything now and then."""
        self._min_bytes_per_s = 0
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def discard_output(self) -> None:
        """Forget what is waiting to be sent."""
        self._out.clear()
        self._release_pipe()
        self.pending_bytes = 0
        self.congested = False
        self._unblock()

    def splice_into(self, pipe: Pipe, max_bytes: int) -> int | None:
        """Move bytes from the socket into a pipe; return how many, 0 at the end, None if there is nothing yet.

        The pipe is given back unless there are bytes in it.

        Raises:
            OSError: the connection broke.
        """
        self._may_hold_more = True
        self._recv_bytes = RECV_BYTES  # the next head comes alone
        size: int | None = 0
        try:
            size = pipe.fill(self.sock.fileno(), max_bytes)
        except BlockingIOError:
            size = None
        finally:
            if not size:
                pipe.release()
        return size

    def send_pipe(self, pipe: Pipe) -> bool:
        """Send what a pipe holds, now and as the socket takes it; nothing may be queued. Tell whether all of it went.

        The pipe is given back once it is empty, and until then the stream is congested.
        """
        self._pipe = pipe
        self.pending_bytes = pipe.held_bytes
        return self._flush_pipe(pipe)

    def hold_back(self) -> None:
        """Count what is pending as too much, so that ``on_drained`` tells when there is room."""
        self.congested = self.pending_bytes > 0

    def pause_reading(self) -> None:
        if self.is_reading:
            self.is_reading = False
            self._loop.set_reader(self.sock.fileno(), None)
            self._update_interest()

    def resume_reading(self) -> None:
        if not self.is_reading:
            self.is_reading = True
            self._update_interest()
            if not self.closed:
                self._loop.set_reader(self.sock.fileno(), self._owner.on_readable)

    def shutdown_write(self) -> None:
        """Tell the peer that nothing more comes; the output must be empty."""
        with contextlib.suppress(OSError):  # it may be gone already, which the next read tells
            self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Leave the loop and close the socket; what was not sent is lost."""
        if self.closed:
            return
        self.closed = True
        if self._watch is not None:
            self._watch.close()
        self._out.clear()
        self._release_pipe()
        self.pending_bytes = 0
        self.congested = False
        # Closing takes it out of the epoll object, too, since no other process has a copy of it.
        self._loop.forget(self.sock.fileno())
        self.sock.close()

    def disown(self) -> None:
        """After ``close``: let go of the owner, so that the two do not keep each other until a garbage collection."""
        self._owner = _NOBODY

    def set_reset_on_close(self, on: bool) -> None:
        """Have the kernel end the connection with a RST, whoever closes it and be it the end of the process, or not.

        A peer that gets a RST cannot take what it has for a whole message.
        """
        if self._resets_on_close is on or self.closed:
            return
        self._resets_on_close = on
        with contextlib.suppress(OSError):  # then it is reset already
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE if on else _END_ON_CLOSE)

    def on_crash(self) -> None:
        """The loop caught an error that nobody expected while this stream was handled."""
        self._owner.on_crash()

    def _on_event(self, mask: int) -> None:
        if mask & ENDED:
            self.peer_ended = True
        if self.pending_bytes and mask & (WRITE | HANGUP):
            self.flush()
        if self.closed:
            return
        if mask & (READ | HANGUP):
            if self.is_reading:
                self._owner.on_readable()
            elif mask & HANGUP:
                self._on_hangup_while_paused()

    def _on_hangup_while_paused(self) -> None:
        """Nobody reads, and epoll would say it again and again: find out whether the connection broke."""
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.discard_output()
            self._owner.on_write_failed(ConnectionResetError(code, os.strerror(code)))
        else:
            # Both sides have ended in order; what came before the end is read once reading is resumed.
            self._loop.remove(self.sock.fileno())
            self._parked = True

    def _send_some(self) -> int:
        """Offer what is queued to the kernel in one call; return what it took."""
        out = self._out
        if len(out) == 1:
            return self.sock.send(out[0])
        if self.pending_bytes <= _JOIN_BYTES:
            # One send of joined pieces costs less than one sendmsg of several, for what an ordinary response holds.
            data = b"".join(out)
            out.clear()
            out.append(data)
            return self.sock.send(data)
        return self.sock.sendmsg(out[:_MAX_PIECES])

    def _drop_sent(self, sent: int) -> None:
        out = self._out
        self.pending_bytes -= sent
        self.sent_bytes += sent
        whole = 0
        while sent:
            size = len(out[whole])
            if sent < size:
                out[whole] = memoryview(out[whole])[sent:]
                break
            sent -= size
            whole += 1
        del out[:whole]

    def _release_pipe(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            pipe.release()

    def _after_flush(self) -> None:
        """Tell the epoll object and the owner what has changed for them."""
        if not self.pending_bytes:
            self._unblock()
        else:
            self._update_interest()
        if self.congested and self.pending_bytes <= LOW_WATER_BYTES and self._pipe is None:
            self.congested = False
            self._owner.on_drained()
        if self.tells_flushed and not self.pending_bytes:
            self._owner.on_flushed()

    def _unblock(self) -> None:
        self._blocked = False
        if self._watch is not None:
            self._watch.rest()
        self._update_interest()

    def _update_interest(self) -> None:
        mask = (self._read_mask if self.is_reading else 0) | (WRITE if self._blocked else 0)
        if self._parked and mask and not self.closed:
            self._parked = False
            self._mask = mask
            self._loop.add(self.sock.fileno(), mask, self._on_event)
        if mask != self._mask and not self.closed:
            self._mask = mask
            self._loop.modify(self.sock.fileno(), mask)

    def _on_write_deadline(self) -> None:
        self.discard_output()
        self._owner.on_write_failed(TimeoutError("the peer does not read"))
