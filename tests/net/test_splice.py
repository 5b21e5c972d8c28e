"""Bodies that go from socket to socket through a pipe: the pipes, the order of bytes, ends that block or break."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from minato.net import splice as splice_module
from minato.net.loop import Loop
from minato.net.splice import MAX_HELD_BYTES, MAX_MOVE_BYTES, Moved, Pipe, PipePool, Splice
from tests.net.support import Clock, Recorder, open_pipes, read_exactly, recorded_stream, reset, settle, turn_until
from tests.net.upstream_bench import BIG

Pair = Callable[[], tuple[socket.socket, socket.socket]]
BODY = BIG[:200_000]


@pytest.fixture
def pool() -> Iterator[PipePool]:
    """A pool all of whose pipes are back at the end of the test, and closed with it."""
    before = open_pipes()
    pool = PipePool(max_pipes=3, max_idle=2)
    yield pool
    assert pool.held == 0
    pool.close()
    assert open_pipes() == before


class Way:
    """A body's way: what the far source sends comes to the far sink by way of two streams."""

    def __init__(self, loop: Loop, pool: PipePool, pair: Pair) -> None:
        self.loop = loop
        near_source, self.far_source = pair()
        near_sink, self.far_sink = pair()
        self.source, self.source_owner = recorded_stream(loop, near_source)
        self.sink, self.sink_owner = recorded_stream(loop, near_sink, write_timeout_s=60.0)
        self.sink.tells_flushed = False
        self.splice = Splice(pool, self.source, self.sink)
        self.moved_bytes = 0
        self._fed_bytes = 0

    def move(self, left_bytes: int) -> Moved:
        return self.splice.move(left_bytes, self._count)

    def _count(self, size: int) -> None:
        self.moved_bytes += size

    def move_until(self, outcome: Moved, left_bytes: int = 1_000_000_000) -> None:
        turn_until(self.loop, lambda: self.move(left_bytes) is outcome, outcome.name)

    def block(self) -> None:
        """Send until the sink's socket and a pipe are full."""
        self.far_source.setblocking(False)
        while self.move(1_000_000_000) is not Moved.BLOCKED:
            with contextlib.suppress(BlockingIOError):
                self._fed_bytes += self.far_source.send(BIG[self._fed_bytes % len(BIG) :])

    def take(self, done: Callable[[], object]) -> bytes:
        """Let the far sink read, bit by bit, until ``done``; return what it read."""
        received = bytearray()
        self.far_sink.setblocking(False)
        while not done():
            try:
                received += self.far_sink.recv(65_536)
            except BlockingIOError:
                self.loop.turn(0.01)
        return bytes(received)

    def close(self) -> None:
        self.source.close()
        self.sink.close()


@pytest.fixture
def way(loop: Loop, pool: PipePool, pair: Pair) -> Iterator[Way]:
    way = Way(loop, pool, pair)
    # Interest in the source stays as it is; the tests move by hand.
    way.source.pause_reading()
    yield way
    way.close()


# -- pipes


def test_a_pipe_that_is_given_back_empty_is_used_again(pool: PipePool) -> None:
    pipe = pool.take()
    assert pipe is not None
    pipe.release()
    assert repr(pool) == "<PipePool 0 held, 1 idle>"
    assert pool.take() is pipe
    pipe.release()


def test_no_more_pipes_are_made_than_allowed_and_few_are_kept(pool: PipePool) -> None:
    pipes = [pool.take() for _ in range(3)]
    assert all(pipes)
    assert pool.take() is None
    for pipe in pipes:
        assert pipe is not None
        pipe.release()
    assert repr(pool) == "<PipePool 0 held, 2 idle>"


def test_a_pipe_with_something_left_in_it_is_never_used_again(pool: PipePool, pair: Pair) -> None:
    near, far = pair()
    far.sendall(b"secret")
    pipe = pool.take()
    assert pipe is not None
    assert pipe.fill(near.fileno(), 100) == 6
    pipe.release()
    assert repr(pool) == "<PipePool 0 held, 0 idle>"


def test_a_pipe_given_back_to_a_closed_pool_is_closed(pool: PipePool) -> None:
    pipe = pool.take()
    pool.close()
    assert pipe is not None
    pipe.release()
    assert repr(pool) == "<PipePool 0 held, 0 idle>"


def test_there_is_no_pipe_without_descriptors(pool: PipePool, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", refuse)
    assert pool.take() is None


def test_a_pipe_that_cannot_be_enlarged_is_used_as_it_is(pool: PipePool, monkeypatch: pytest.MonkeyPatch) -> None:
    real = splice_module.fcntl.fcntl

    def refuse(fd: int, command: int, argument: int = 0) -> int:
        if command == splice_module.fcntl.F_SETPIPE_SZ:
            raise PermissionError(1, "Operation not permitted")
        return real(fd, command, argument)

    monkeypatch.setattr(splice_module.fcntl, "fcntl", refuse)
    pipe = pool.take()
    assert pipe is not None
    pipe.release()


def test_a_pipe_of_two_pages_is_not_worth_it(pool: PipePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice_module, "_enlarge", lambda fd: 8192)
    assert pool.take() is None


def test_pipes_are_not_inherited_and_never_wait(pool: PipePool, pair: Pair) -> None:
    near, _ = pair()
    before = open_pipes()
    pipe = pool.take()
    assert pipe is not None
    ends = open_pipes() - before
    assert len(ends) == 2
    assert not any(os.get_inheritable(fd) or os.get_blocking(fd) for fd in ends)
    with pytest.raises(BlockingIOError):
        pipe.fill(near.fileno(), 100)
    pipe.release()


# -- moving


def test_a_body_arrives_as_it_was_sent_behind_what_was_queued(way: Way) -> None:
    way.far_source.sendall(BODY)
    way.sink.write(b"head")
    way.move_until(Moved.ALL, len(BODY))
    while way.moved_bytes < len(BODY):
        way.move(len(BODY) - way.moved_bytes)
    way.sink.write(b"tail")
    way.sink.flush()
    assert read_exactly(way.far_sink, len(BODY) + 8) == b"head" + BODY + b"tail"
    assert way.sink.sent_bytes == len(BODY) + 8


def test_what_comes_behind_the_body_stays_unread(way: Way) -> None:
    way.far_source.sendall(b"bodysurplus")
    turn_until(way.loop, way.source.is_readable)
    assert way.move(4) is Moved.ALL
    assert read_exactly(way.far_sink, 4) == b"body"
    assert way.source.has_unread()
    assert way.source.recv() == b"surplus"


def test_nothing_is_behind_a_body_that_came_alone(way: Way) -> None:
    way.far_source.sendall(b"body")
    turn_until(way.loop, way.source.is_readable)
    way.move(4)
    assert not way.source.has_unread()


def test_a_source_that_is_silent_blocks_nobody(way: Way) -> None:
    assert way.move(100) is Moved.NOTHING
    assert not way.sink.congested


def test_the_end_of_the_source_is_told_behind_its_last_bytes(way: Way) -> None:
    way.far_source.sendall(b"body")
    way.far_source.close()
    way.move_until(Moved.END)
    assert read_exactly(way.far_sink, 4) == b"body"


def test_what_came_before_a_reset_is_moved(way: Way) -> None:
    way.far_source.sendall(b"body")
    turn_until(way.loop, way.source.is_readable)
    reset(way.far_source)
    with pytest.raises(ConnectionResetError):
        for _ in range(3):
            way.move(100)
    assert read_exactly(way.far_sink, 4) == b"body"


def test_one_move_leaves_the_others_their_turn(way: Way) -> None:
    way.far_source.setblocking(False)
    way.far_sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_388_608)
    largest = 0
    for _ in range(20):
        for _ in range(5):
            with contextlib.suppress(BlockingIOError):
                way.far_source.send(BIG)
        before = way.moved_bytes
        way.move(1_000_000_000)
        largest = max(largest, way.moved_bytes - before)
        way.far_sink.recv(16_000_000)
        settle(way.loop)
    assert MAX_HELD_BYTES < largest <= MAX_MOVE_BYTES


# -- receivers


def test_a_receiver_that_does_not_read_is_congested_until_it_has_taken_what_the_pipe_holds(way: Way) -> None:
    way.sink.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # so that it takes little at once
    way.block()
    assert 0 < way.sink.pending_bytes <= MAX_HELD_BYTES
    assert way.sink.congested
    moved_bytes = way.moved_bytes
    assert way.move(1_000_000) is Moved.BLOCKED
    assert way.moved_bytes == moved_bytes
    received = way.take(lambda: way.sink_owner.told)
    assert way.sink_owner.told == ["drained"]
    assert not way.sink.pending_bytes
    assert not way.sink.congested
    way.far_sink.settimeout(5)
    received += read_exactly(way.far_sink, moved_bytes - len(received))
    assert received == (BIG * (moved_bytes // len(BIG) + 1))[:moved_bytes]
    assert way.sink.sent_bytes == moved_bytes


def test_what_is_written_while_a_pipe_waits_goes_behind_it(way: Way) -> None:
    way.block()
    way.sink.write(b"the end")
    settle(way.loop)
    total = way.moved_bytes + 7
    assert way.sink.pending_bytes + way.sink.sent_bytes == total
    received = way.take(lambda: not way.sink.pending_bytes)
    way.far_sink.settimeout(5)
    received += read_exactly(way.far_sink, total - len(received))
    assert received == (BIG * (total // len(BIG) + 1))[: total - 7] + b"the end"


def test_a_receiver_with_much_queued_is_waited_for_before_anything_is_moved(way: Way) -> None:
    way.sink.write(b"x" * 20_000_000)
    way.far_source.sendall(b"body")
    turn_until(way.loop, way.source.is_readable)
    assert way.move(4) is Moved.BLOCKED
    assert way.moved_bytes == 0
    way.take(lambda: way.sink_owner.told)
    assert (way.sink_owner.told, way.moved_bytes) == (["drained"], 0)


def test_a_receiver_that_takes_nothing_is_waited_for_however_little_is_queued(way: Way) -> None:
    for size in (1_000_000, 1):  # until not even a byte is taken
        with contextlib.suppress(BlockingIOError):
            while True:
                way.sink.sock.send(b"x" * size)
    way.sink.write(b"head")
    way.far_source.sendall(b"body")
    turn_until(way.loop, way.source.is_readable)
    assert way.move(4) is Moved.BLOCKED
    assert way.sink.congested
    way.take(lambda: way.sink_owner.told)
    assert way.sink_owner.told == ["drained"]


def test_an_idle_turn_of_a_blocked_transfer_is_really_idle(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    way.block()
    settle(way.loop)
    calls: list[object] = []
    monkeypatch.setattr(Pipe, "drain", lambda *arguments: calls.append(arguments))
    for _ in range(10):
        way.loop.turn(0.0)
    assert calls == []


def test_a_receiver_that_is_gone_is_told_to_its_owner(way: Way) -> None:
    reset(way.far_sink)
    way.far_source.sendall(b"body")
    way.move_until(Moved.FAILED)
    assert way.sink_owner.told == ["write failed"]
    assert way.sink.pending_bytes == 0
    assert not way.sink.congested


def test_a_receiver_that_leaves_while_a_pipe_waits_gives_the_pipe_up(way: Way, pool: PipePool) -> None:
    way.block()
    assert repr(pool) == "<PipePool 1 held, 0 idle>"
    reset(way.far_sink)
    turn_until(way.loop, lambda: way.sink_owner.told)
    assert way.sink_owner.told[0] == "write failed"
    assert repr(pool) == "<PipePool 0 held, 0 idle>"


def test_a_stream_that_is_closed_gives_its_pipe_up(way: Way, pool: PipePool) -> None:
    way.block()
    way.sink.close()
    assert repr(pool) == "<PipePool 0 held, 0 idle>"


def test_a_source_that_is_closed_by_the_receivers_owner_is_left_alone(way: Way) -> None:
    class Closer(Recorder):
        def on_write_failed(self, error: OSError) -> None:
            super().on_write_failed(error)
            way.source.close()
            way.sink.close()

    closer = Closer()
    way.sink.set_owner(closer)
    reset(way.far_sink)
    way.far_source.sendall(BIG[:1_000_000])
    way.move_until(Moved.FAILED)
    assert closer.told == ["write failed"]


def test_the_write_timeout_runs_from_the_last_progress(clock: Clock, loop: Loop, pool: PipePool, pair: Pair) -> None:
    way = Way(loop, pool, pair)
    way.source.pause_reading()
    way.block()
    clock.advance(50.0)
    sent = way.sink.sent_bytes
    way.take(lambda: way.sink.sent_bytes > sent)
    if way.sink.pending_bytes == 0:
        way.block()
    clock.advance(50.0)
    settle(loop)
    assert "write failed" not in way.sink_owner.told
    clock.advance(20.0)
    settle(loop)
    assert way.sink_owner.told[-1] == "write failed"
    assert isinstance(way.sink_owner.error, TimeoutError)
    way.close()


def test_without_a_pipe_nothing_is_moved(way: Way, pool: PipePool) -> None:
    pipes = [pool.take() for _ in range(3)]
    way.far_source.sendall(b"body")
    turn_until(way.loop, way.source.is_readable)
    assert way.move(4) is Moved.NO_PIPE
    assert way.source.recv() == b"body"
    for pipe in pipes:
        assert pipe is not None
        pipe.release()
