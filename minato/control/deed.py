"""What a killed master leaves to the next one: its listening sockets, and a notice board for its workers.

The sockets are nobody's: they lie in the queue of a Unix socket (SCM_RIGHTS), which every worker inherits. Whoever
looks (MSG_PEEK) gets copies, and they stay where they are. So one worker that lives is enough to hand all of them on,
and a socket that the master takes out is closed: no worker holds a copy that nobody accepts from.

A message takes 253 descriptors at the most (SCM_MAX_FD). So the sockets lie in boxes, and the queue has one message
with all the boxes: the head is what everybody sees, and is exchanged as a whole.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence

from minato.config.model import ListenAddress
from minato.decide.orphanage import Notice
from minato.net.bound import BoundListener

VERSION = 1  # of what lies in the queue and stands on the board
_SHARE = b"minato deed %d" % VERSION
SOCKETS_PER_BOX = 100
MAX_BOXES = 250
_MESSAGE_BYTES = 65_536
_NOTICE_AT, _OFFICE_AT, _KEPT_AT = 0, 1, 8

BoundSlots = Mapping[tuple[int, ListenAddress], BoundListener]


class Deed:
    """A share in what one master leaves.

    Args:
        queue: in which the sockets lie.
        board: descriptor of a memory file: a Notice, whether the master ever was in office, and the addresses at which
            its successor goes on.
    """

    def __init__(self, queue: socket.socket, board: int) -> None:
        self._queue = queue
        self._board = board
        self._is_filled = False

    @classmethod
    def make(cls) -> tuple[Deed, socket.socket]:
        """Return a new one, and the end of the queue that puts something there.

        Raises:
            OSError: no descriptors to be had.
        """
        reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (reader, writer):
            end.setblocking(False)
        board = os.memfd_create("minato-orphans", os.MFD_CLOEXEC)
        os.ftruncate(board, _KEPT_AT + _MESSAGE_BYTES)
        return cls(reader, board), writer

    def send(self, sock: socket.socket) -> None:
        """Give a share to whoever reads from the other end of a Unix socket.

        Raises:
            OSError: that cannot be done.
        """
        _send(sock, _SHARE, [self._queue.fileno(), self._board])

    @classmethod
    def receive(cls, sock: socket.socket) -> Deed | None:
        """Return the share that somebody sent; None where that is something else.

        Raises:
            OSError: nothing came.
        """
        data, fds = _receive(sock, 2, 0)
        if len(fds) == 2 and data == _SHARE:
            return cls(socket.socket(fileno=fds[0]), fds[1])
        for fd in fds:
            os.close(fd)
        return None

    def box(self) -> socket.socket:
        """Return a Unix socket with a share in its queue, for who can send sockets and nothing else.

        Raises:
            OSError: no descriptors to be had.
        """
        return _pack(_SHARE, [self._queue.fileno(), self._board])

    # -- the sockets

    def write(self, writer: socket.socket, bound: BoundSlots) -> None:
        """For the master: put these sockets there, in place of those that lie there.

        Raises:
            OSError: no descriptors to be had; then there are none.
        """
        items = list(bound.items())
        boxes: list[socket.socket] = []
        try:
            for start in range(0, len(items), SOCKETS_PER_BOX):
                part = items[start : start + SOCKETS_PER_BOX]
                names = [[slot, address.host, address.port] for (slot, address), _ in part]
                data = json.dumps(names, separators=(",", ":")).encode()
                boxes.append(_pack(data, [listener.sock.fileno() for _, listener in part]))
            if boxes:
                _send(writer, b"boxes", [box.fileno() for box in boxes[:MAX_BOXES]])
            if self._is_filled:
                self._discard()
            self._is_filled = bool(boxes)
        except OSError:
            self.burn()
            raise
        finally:
            for box in boxes:
                box.close()

    def read(self) -> dict[tuple[int, ListenAddress], BoundListener]:
        """Return copies of the sockets, which the caller owns, by slot and address."""
        bound: dict[tuple[int, ListenAddress], BoundListener] = {}
        with contextlib.suppress(OSError):
            _, boxes = _receive(self._queue, MAX_BOXES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            for box in boxes:
                with socket.socket(fileno=box) as sock:
                    data, fds = _receive(sock, SOCKETS_PER_BOX, socket.MSG_PEEK | socket.MSG_DONTWAIT)
                    # A receiver that is out of descriptors gets fewer than there are.
                    for (slot, host, port), fd in zip(json.loads(data), fds, strict=False):
                        address = ListenAddress(host, port)
                        bound[slot, address] = BoundListener(address, socket.socket(fileno=fd))
        return bound

    def burn(self) -> None:
        """Throw all sockets out of the queue: those that no process holds are closed."""
        self._is_filled = False
        while self._discard():
            pass

    def _discard(self) -> bool:
        """Throw the head of the queue away; what it carried is closed. False where there is none."""
        try:
            return bool(self._queue.recv(1, socket.MSG_DONTWAIT))
        except OSError:
            return False

    # -- the notice board

    def look(self) -> Notice:
        """Return what stands there."""
        return Notice(os.pread(self._board, 1, _NOTICE_AT)[0])

    def kept(self) -> list[ListenAddress]:
        """Return at which addresses the successor goes on."""
        names = json.loads(os.pread(self._board, _MESSAGE_BYTES, _KEPT_AT).rstrip(b"\0") or b"[]")
        return [ListenAddress(host, port) for host, port in names]

    def post(self, notice: Notice, kept: Iterable[ListenAddress] = ()) -> None:
        """Write to the board; the notice itself last."""
        data = json.dumps([[address.host, address.port] for address in kept], separators=(",", ":")).encode()
        if len(data) > _MESSAGE_BYTES:
            data = b"[]"  # then clients that connect just now are waited for everywhere, which harms nobody
        os.pwrite(self._board, data.ljust(_MESSAGE_BYTES, b"\0"), _KEPT_AT)
        os.pwrite(self._board, bytes([notice]), _NOTICE_AT)

    @property
    def was_in_office(self) -> bool:
        """Whether the master ever was."""
        return os.pread(self._board, 1, _OFFICE_AT) == b"\1"

    def note_office(self) -> None:
        """Say that the master is in office."""
        os.pwrite(self._board, b"\1", _OFFICE_AT)

    # -- who may take the sockets: a lock of the process (fcntl(2)), which ends with it and which no fork inherits

    def claim(self) -> bool:
        """Be the one that takes the sockets, until ``close``. False where another process is, or looks just now."""
        return self._lock(fcntl.LOCK_EX)

    def unclaim(self) -> None:
        """Be it no more."""
        with contextlib.suppress(OSError):
            fcntl.lockf(self._board, fcntl.LOCK_UN)

    def is_claimed(self) -> bool:
        """Tell whether another process is it."""
        if not self._lock(fcntl.LOCK_SH):
            return True
        self.unclaim()
        return False

    def _lock(self, kind: int) -> bool:
        try:
            fcntl.lockf(self._board, kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Give this share up."""
        if self._board >= 0:
            self._queue.close()
            os.close(self._board)
            self._board = -1


def _pack(data: bytes, fds: Sequence[int]) -> socket.socket:
    """Return the end of a socket pair in whose queue a message with these descriptors lies."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        _send(writer, data, fds)
    except BaseException:
        reader.close()
        raise
    finally:
        writer.close()
    return reader


# socket.send_fds and recv_fds of Python 3.11 take flags and forget them.


def _send(sock: socket.socket, data: bytes, fds: Sequence[int]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    sock.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def _receive(sock: socket.socket, most: int, flags: int) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    space = socket.CMSG_SPACE(most * fds.itemsize)
    data, ancillary, _, _ = sock.recvmsg(_MESSAGE_BYTES, space, flags | socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
    return data, list(fds)
