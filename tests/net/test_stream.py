"""Streams: every byte in order whatever the kernel takes, back-pressure, deadlines, and peers that are gone."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

import pytest

from minato.net.loop import Loop
from minato.net.stream import HIGH_WATER_BYTES, LOW_WATER_BYTES, Stream
from tests.net.support import (
    Clock,
    Recorder,
    expect_reset,
    fill,
    read_available,
    read_exactly,
    recorded_stream,
    reset,
    settle,
    turn_until,
)

Pair = Callable[[], tuple[socket.socket, socket.socket]]
BIG = random.Random(1).randbytes(8_000_000)


def read_all_turning(loop: Loop, far: socket.socket, size: int) -> bytes:
    """Read ``size`` bytes at the far side, turning the loop in between."""
    data = bytearray()

    def enough() -> bool:
        data.extend(read_available(far))
        return len(data) >= size

    turn_until(loop, enough, f"{size} bytes")
    return bytes(data)


def test_pieces_leave_together_at_the_end_of_the_turn(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.write(b"one ")
    stream.write(b"two")
    assert (stream.pending_bytes, read_available(far)) == (7, b"")
    loop.turn(0.0)
    assert read_exactly(far, 7) == b"one two"
    assert (stream.pending_bytes, stream.sent_bytes, owner.told) == (0, 7, ["flushed"])


def test_flush_sends_at_once_and_an_empty_write_is_nothing(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.write(b"")
    assert stream.flush()
    assert owner.told == []
    stream.write(b"now")
    assert stream.flush()
    assert read_exactly(far, 3) == b"now"
    settle(loop)
    assert owner.told == ["flushed"]


def test_an_owner_that_does_not_ask_hears_nothing_of_a_flush(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.tells_flushed = False
    stream.write(b"one")
    settle(loop)
    assert (read_exactly(far, 3), stream.pending_bytes, owner.told) == (b"one", 0, [])
    stream.write(b"two")
    stream.tells_flushed = True
    settle(loop)
    assert (read_exactly(far, 3), owner.told) == (b"two", ["flushed"])


def test_many_small_pieces_keep_their_order(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, _ = recorded_stream(loop, near)
    pieces = [b"%d," % number for number in range(500)]
    for piece in pieces:
        stream.write(piece)
    loop.turn(0.0)
    assert read_exactly(far, len(b"".join(pieces))) == b"".join(pieces)


def test_partial_writes_lose_and_repeat_nothing(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    cuts = sorted(random.Random(2).sample(range(len(BIG)), 300))
    for left, right in zip([0, *cuts], [*cuts, len(BIG)], strict=True):
        stream.write(BIG[left:right])
    assert not stream.flush()
    assert stream.pending_bytes + stream.sent_bytes == len(BIG)
    assert read_all_turning(loop, far, len(BIG)) == BIG
    turn_until(loop, lambda: not stream.pending_bytes)
    assert owner.told == ["drained", "flushed"]


def test_a_stream_is_congested_above_the_high_and_drained_below_the_low_mark(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    fill(near)
    near.setblocking(False)
    stream, owner = recorded_stream(loop, near)
    stream.write(b"x" * HIGH_WATER_BYTES)
    assert not stream.congested
    stream.write(b"x")
    assert stream.congested
    settle(loop)
    drained_at = []
    owner.on_drained = lambda: drained_at.append(stream.pending_bytes)  # type: ignore[method-assign]

    def over() -> bool:
        read_available(far)
        return bool(drained_at)

    turn_until(loop, over, "drained")
    assert len(drained_at) == 1
    assert drained_at[0] <= LOW_WATER_BYTES
    assert not stream.congested


def test_a_peer_that_reads_nothing_is_given_up_at_the_write_deadline(clock: Clock, loop: Loop, pair: Pair) -> None:
    near, _ = pair()
    fill(near)
    near.setblocking(False)
    stream, owner = recorded_stream(loop, near, write_timeout_s=10.0)
    stream.write(b"x")
    settle(loop)
    clock.advance(9.9)
    settle(loop)
    assert owner.told == []
    clock.advance(0.2)
    settle(loop)
    assert owner.told == ["write failed"]
    assert isinstance(owner.error, TimeoutError)
    assert stream.pending_bytes == 0


def test_every_byte_the_peer_takes_moves_the_write_deadline(clock: Clock, loop: Loop, pair: Pair) -> None:
    near, far = pair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
    stream, owner = recorded_stream(loop, near, write_timeout_s=10.0)
    stream.write(BIG)
    settle(loop)
    for _ in range(4):
        clock.advance(9.0)
        before = stream.sent_bytes
        read_available(far)
        turn_until(loop, lambda before=before: stream.sent_bytes > before, "progress")
        settle(loop)
    assert "write failed" not in owner.told
    clock.advance(10.1)
    settle(loop)
    assert "write failed" in owner.told


def test_the_write_deadline_is_lifted_when_all_has_gone(clock: Clock, loop: Loop, pair: Pair) -> None:
    near, far = pair()
    fill(near)
    near.setblocking(False)
    stream, owner = recorded_stream(loop, near, write_timeout_s=10.0)
    stream.write(b"x")
    settle(loop)
    turn_until(loop, lambda: (read_available(far), not stream.pending_bytes)[1])
    clock.advance(100.0)
    settle(loop)
    assert owner.told == ["flushed"]


def test_a_paused_stream_leaves_bytes_in_the_kernel(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.pause_reading()
    far.send(b"hello")
    settle(loop)
    assert (owner.readable, repr(stream)) == (0, "<Stream 0 bytes pending, paused>")
    stream.resume_reading()
    turn_until(loop, lambda: owner.received == b"hello")


def test_the_end_is_read_once(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    _, owner = recorded_stream(loop, near)
    far.send(b"last")
    far.shutdown(socket.SHUT_WR)
    turn_until(loop, lambda: owner.told == ["end"])
    settle(loop)
    assert (owner.received, owner.told) == (b"last", ["end"])


def test_a_reset_is_an_error_for_who_reads(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    _, owner = recorded_stream(loop, near)
    reset(far)
    turn_until(loop, lambda: owner.told == ["broken"])
    assert isinstance(owner.error, ConnectionResetError)


def test_a_reset_while_paused_is_told_and_does_not_spin(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.pause_reading()
    settle(loop)

    def close(error: OSError) -> None:
        owner.error = error
        owner.told.append("write failed")
        stream.close()

    owner.on_write_failed = close  # type: ignore[method-assign]
    reset(far)
    turn_until(loop, lambda: owner.told)
    settle(loop)
    assert owner.told == ["write failed"]
    assert isinstance(owner.error, ConnectionResetError)
    assert owner.readable == 0


def test_a_clean_end_of_both_sides_while_paused_loses_nothing(loop: Loop, pair: Pair) -> None:
    """What the peer sent before its FIN is still there to be read, though the socket reports a hang-up at once."""
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.pause_reading()
    stream.shutdown_write()
    far.send(b"last words")
    far.close()
    settle(loop)
    assert owner.told == []
    stream.resume_reading()
    turn_until(loop, lambda: owner.told == ["end"])
    assert owner.received == b"last words"


def test_writing_to_a_peer_that_reset_fails_once(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.pause_reading()
    fill(near)
    near.setblocking(False)
    stream.write(BIG)
    settle(loop)
    reset(far)
    turn_until(loop, lambda: owner.told)
    assert owner.told[0] == "write failed"
    assert stream.pending_bytes == 0
    assert not stream.congested


def test_a_closed_stream_takes_nothing_and_closes_once(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.write(b"lost")
    stream.close()
    stream.write(b"lost")
    stream.close()
    stream.set_reset_on_close(True)
    settle(loop)
    assert far.recv(10) == b""
    assert (owner.told, repr(stream)) == ([], "<Stream closed, reading>")
    assert stream.flush()


def test_reset_shows_the_peer_that_it_was_cut(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, _ = recorded_stream(loop, near)
    stream.write(b"half a bo")
    stream.flush()
    stream.set_reset_on_close(True)
    stream.close()
    expect_reset(far)


def test_reset_that_is_not_needed_any_more_is_none(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, _ = recorded_stream(loop, near)
    stream.set_reset_on_close(True)
    stream.write(b"all of it")
    stream.flush()
    stream.set_reset_on_close(False)
    stream.close()
    assert (far.recv(10), far.recv(10)) == (b"all of it", b"")


def test_shutdown_write_sends_a_clean_end(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.write(b"bye")
    stream.flush()
    stream.shutdown_write()
    assert read_exactly(far, 3) + far.recv(10) == b"bye"
    far.send(b"still here")
    turn_until(loop, lambda: owner.received == b"still here")


def test_a_bug_in_the_owner_closes_only_its_connection(
    loop: Loop, pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    near, far = pair()
    stream, _ = recorded_stream(loop, near)

    class Clumsy(Recorder):
        def on_readable(self) -> None:
            raise ZeroDivisionError

    owner = Clumsy()
    stream.set_owner(owner)
    far.send(b"x")
    loop.turn(1.0)
    assert "crash" in owner.told
    assert "ZeroDivisionError" in caplog.text


def test_another_owner_hears_what_comes_next(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, first = recorded_stream(loop, near)
    second = Recorder()
    second.stream = stream
    stream.set_owner(second)
    far.send(b"x")
    turn_until(loop, lambda: second.received)
    assert first.readable == 0


def test_a_socketpair_will_do(loop: Loop) -> None:
    near, far = socket.socketpair()
    near.setblocking(False)
    with near, far:
        stream, owner = recorded_stream(loop, near)
        stream.write(b"ping")
        far.send(b"pong")
        turn_until(loop, lambda: owner.received)
        assert (far.recv(10), owner.received) == (b"ping", b"pong")
        assert isinstance(stream, Stream)


# -- the peer's end, told with the bytes in front of it


@pytest.mark.parametrize("tells_end", [True, False])
def test_an_end_is_known_with_the_bytes_in_front_of_it(loop: Loop, pair: Pair, tells_end: bool) -> None:
    near, far = pair()
    owner = Recorder()
    stream = owner.stream = Stream(loop, near, owner, 60.0, tells_end=tells_end)
    stream.start()
    far.sendall(b"first")
    settle(loop)
    assert (owner.received, stream.peer_ended) == (b"first", False)
    far.sendall(b"last")
    far.shutdown(socket.SHUT_WR)
    turn_until(loop, lambda: owner.received == b"firstlast")
    assert owner.told == []
    assert stream.peer_ended == tells_end
    settle(loop)
    assert owner.told == ["end"]


@pytest.mark.parametrize("tells_end", [True, False])
def test_an_end_while_paused_does_not_spin_and_is_read_once_resumed(loop: Loop, pair: Pair, tells_end: bool) -> None:
    near, far = pair()
    owner = Recorder()
    stream = owner.stream = Stream(loop, near, owner, 60.0, tells_end=tells_end)
    stream.start()
    stream.pause_reading()
    far.sendall(b"last")
    far.shutdown(socket.SHUT_WR)
    assert loop._poll(0.1, 8) == []
    settle(loop)
    assert owner.readable == 0
    stream.resume_reading()
    turn_until(loop, lambda: owner.told == ["end"])
    assert (owner.received, stream.peer_ended) == (b"last", tells_end)
    assert loop._poll(0.05, 8) == [], "paused at the end, it says no more"


def test_a_stream_that_reads_and_waits_to_write_hears_of_both(loop: Loop, pair: Pair) -> None:
    near, far = pair()
    stream, owner = recorded_stream(loop, near)
    stream.write(BIG)
    settle(loop)
    assert stream.pending_bytes
    far.sendall(b"meanwhile")
    assert read_all_turning(loop, far, len(BIG)) == BIG
    turn_until(loop, lambda: owner.received == b"meanwhile")
    assert not stream.pending_bytes
