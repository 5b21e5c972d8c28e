"""Single-threaded tests of the net layer: a clock moved by hand, TCP pairs, a loop turned until something holds."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable

import pytest

from minato.net.loop import Loop
from minato.net.stream import Stream

PATIENCE_S = 5.0


class Clock:
    """Stands in for the ``time`` module inside the loop: time passes only by ``advance``."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.now_s + 1_000_000_000

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


def turn_until(loop: Loop, condition: Callable[[], object], what: str = "the condition") -> None:
    """Turn the loop until the condition holds; bounded by real time."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"not in time: {what}"
        loop.turn(0.01)


def settle(loop: Loop, turns: int = 5) -> None:
    """Handle what is there already, without waiting."""
    for _ in range(turns):
        loop.turn(0.0)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return a connected pair over loopback: the near side non-blocking, the far side with a timeout."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    near.setblocking(False)
    far.settimeout(PATIENCE_S)
    return near, far


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(size - len(data))
        assert piece, f"ended after {len(data)} of {size} bytes"
        data += piece
    return bytes(data)


def read_available(sock: socket.socket) -> bytes:
    """Return what has arrived, without waiting."""
    data = bytearray()
    sock.setblocking(False)
    try:
        while piece := sock.recv(1_048_576):
            data += piece
    except BlockingIOError:
        pass
    finally:
        sock.settimeout(PATIENCE_S)
    return bytes(data)


def fill(sock: socket.socket) -> int:
    """Send until the kernel takes no more; return how many bytes it took."""
    sent = 0
    sock.setblocking(False)
    try:
        while True:
            sent += sock.send(b"x" * 65_536)
    except BlockingIOError:
        return sent
    finally:
        sock.settimeout(PATIENCE_S)


def send_until_stuck(sock: socket.socket, data: bytes, stuck_s: float = 0.5) -> int:
    """Send the same bytes again and again until nobody has taken any for a while; return how many went."""
    sent = 0
    sock.settimeout(stuck_s)
    with contextlib.suppress(TimeoutError):
        while sent < 200_000_000:
            sent += sock.send(data)
    return sent


def open_pipes() -> set[int]:
    """Return the pipe ends of this process."""
    pipes = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            if os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):
                pipes.add(int(fd))
    return pipes


class Recorder:
    """A StreamOwner that writes down what it is told and reads what there is."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.received = b""
        self.told: list[str] = []
        self.readable = 0
        self.error: OSError | None = None

    def on_readable(self) -> None:
        self.readable += 1
        assert self.stream is not None
        try:
            data = self.stream.recv()
        except OSError as error:
            self.error = error
            self.told.append("broken")
            self.stream.close()
            return
        if data:
            self.received += data
        elif data is not None:
            self.told.append("end")
            self.stream.pause_reading()

    def on_drained(self) -> None:
        self.told.append("drained")

    def on_flushed(self) -> None:
        self.told.append("flushed")

    def on_write_failed(self, error: OSError) -> None:
        self.error = error
        self.told.append("write failed")

    def on_crash(self) -> None:
        self.told.append("crash")


def recorded_stream(loop: Loop, sock: socket.socket, write_timeout_s: float = 60.0) -> tuple[Stream, Recorder]:
    owner = Recorder()
    stream = owner.stream = Stream(loop, sock, owner, write_timeout_s)
    stream.tells_flushed = True
    stream.start()
    return stream, owner


def expect_reset(sock: socket.socket) -> None:
    with pytest.raises(ConnectionResetError):
        while sock.recv(65_536):
            pass
        raise AssertionError("a clean end where a reset was due")
