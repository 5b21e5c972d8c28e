"""Issue line 6, streaming: events leave as they come, back-pressure both ways, clients and upstreams that leave."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from .harness import App, Minato, Origin, OriginConnection, Truncated, request_bytes, wait_until
from .harness.app import pattern, pattern_sha256

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]

MEBIBYTE = 1_048_576


def test_events_leave_one_by_one(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    with minato(app).client() as client:
        client.send(request_bytes(target=b"/events"))
        pieces = client.pieces(client.receive_head())  # the head arrives before the first event was made
        for number in range(10):
            app.next_event.release()
            event = b"data: %d\n\n" % number
            received = b""
            while len(received) < len(event):
                received += next(pieces)
            assert received == event
        app.ended = True
        app.next_event.release()
        assert list(pieces) == []


def test_single_bytes_of_a_long_response_leave_as_they_come(minato: StartMinato, origin: MakeOrigin) -> None:
    turn = threading.Semaphore(0)

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
        for number in range(20):
            assert turn.acquire(timeout=10)
            connection.send(b"%d" % (number % 10))

    with minato(origin(script)).client() as client:
        client.send(request_bytes())
        pieces = client.pieces(client.receive_head())
        for number in range(20):
            turn.release()
            assert next(pieces) == b"%d" % (number % 10)


def test_upload_leaves_as_it_comes(minato: StartMinato, origin: MakeOrigin) -> None:
    seen: list[bytes] = []

    def script(connection: OriginConnection) -> None:
        request = connection.read_head()
        assert request is not None
        connection.origin.record(request)
        for piece in connection.body_pieces(request):
            seen.append(piece)
            connection.origin.changed()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    scripted = origin(script)
    with minato(scripted).client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"chunked")]))
        scripted.wait_requests(1)  # the head arrives before the first chunk was sent
        for number in range(1, 6):
            client.send(b"4\r\nabcd\r\n")
            scripted.wait_for(lambda number=number: len(b"".join(seen)) == 4 * number, "the chunk to arrive")
        client.send(b"0\r\n\r\n")
        assert client.receive().status == 200


def test_slow_reader_slows_the_upstream(minato: StartMinato, origin: MakeOrigin) -> None:
    sent = [0]

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (100 * MEBIBYTE))
        for piece in pattern(100 * MEBIBYTE):
            connection.send(piece)
            sent[0] += len(piece)

    with minato(origin(script)).client(rcvbuf_bytes=16_384) as client:
        client.send(request_bytes())
        head = client.receive_head()
        settle(lambda: sent[0])
        assert sent[0] < 40 * MEBIBYTE  # kernel buffers on both sides and minato's watermark, not the whole body
        assert client.digest(head) == (100 * MEBIBYTE, pattern_sha256(100 * MEBIBYTE))


def test_slow_upstream_slows_the_uploader(minato: StartMinato, origin: MakeOrigin) -> None:
    go_on = threading.Event()

    def script(connection: OriginConnection) -> None:
        request = connection.read_head()
        assert request is not None
        go_on.wait(30)
        size = sum(len(piece) for piece in connection.body_pieces(request))
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n%09d" % size)

    with minato(origin(script)).client() as client:
        sent = [0]

        def upload() -> None:
            client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"%d" % (100 * MEBIBYTE))]))
            for piece in pattern(100 * MEBIBYTE):
                client.send(piece)
                sent[0] += len(piece)

        client.sock.settimeout(30)
        thread = threading.Thread(target=upload, daemon=True)
        thread.start()
        settle(lambda: sent[0])
        assert sent[0] < 40 * MEBIBYTE
        go_on.set()
        assert client.receive().body == b"%09d" % (100 * MEBIBYTE)
        thread.join(10)


def settle(value: Callable[[], int]) -> None:
    """Wait until a growing number has not grown for half a second."""
    last = [(value(), time.monotonic())]

    def is_still() -> bool:
        now = (value(), time.monotonic())
        if now[0] != last[0][0] or now[0] == 0:
            last[0] = now
        return now[1] - last[0][1] > 0.5

    wait_until(is_still, "the sender to be held up", timeout_s=20)


def test_download_and_upload_run_at_the_same_time(minato: StartMinato, origin: MakeOrigin) -> None:
    def mirror(connection: OriginConnection) -> None:
        request = connection.read_head()
        assert request is not None
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in connection.body_pieces(request):
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        connection.send(b"0\r\n\r\n")

    with minato(origin(mirror)).client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Transfer-Encoding", b"chunked")]))
        pieces = client.pieces(client.receive_head())
        for number in range(20):
            client.send(b"2\r\n%02d\r\n" % number)
            received = b""
            while len(received) < 2:
                received += next(pieces)
            assert received == b"%02d" % number
        client.send(b"0\r\n\r\n")
        assert list(pieces) == []


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("target", [b"/slow", b"/events"])
def test_client_that_leaves_aborts_its_upstream_exchange(
    minato: StartMinato, origin: MakeOrigin, leave: str, target: bytes
) -> None:
    left_after_s: list[float] = []
    gone = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        if target == b"/events":
            connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert connection.wait_closed(10)
        left_after_s.append(time.monotonic())
        gone.set()

    scripted = origin(script)
    with minato(scripted).client() as client:
        client.send(request_bytes(target=target))
        scripted.wait_requests(1)
        if target == b"/events":
            client.receive_head()
        left_s = time.monotonic()
        client.reset() if leave == "reset" else client.close()
        assert gone.wait(10)
        assert left_after_s[0] - left_s < 5


def test_client_that_leaves_in_mid_upload_aborts_it_uncleanly(minato: StartMinato, origin: MakeOrigin) -> None:
    cut: list[bool] = []
    done = threading.Event()

    def script(connection: OriginConnection) -> None:
        request = connection.read_head()
        assert request is not None
        connection.origin.record(request)
        try:
            list(connection.body_pieces(request))
            cut.append(False)
        except (Truncated, OSError):
            cut.append(True)
        done.set()

    scripted = origin(script)
    with minato(scripted).client() as client:
        client.send(request_bytes(b"POST", fields=[(b"Content-Length", b"1000")]) + b"x" * 10)
        scripted.wait_requests(1)
    assert done.wait(5) and cut == [True]


def test_half_closed_client_still_gets_its_response(minato: StartMinato, origin: MakeOrigin) -> None:
    app = origin()
    with minato(app).client() as client:
        client.send(request_bytes(target=b"/slow"))
        client.half_close()
        app.wait_requests(1)
        app.gate.set()
        assert client.receive().body == b"slow\n"
        assert client.is_closed()


def test_half_closed_client_gets_a_whole_long_response(minato: StartMinato, origin: MakeOrigin) -> None:
    with minato(origin()).client() as client:
        client.send(request_bytes(b"POST", b"/bytes/5000000", body=b"x" * 100_000))
        client.half_close()
        assert client.digest(client.receive_head()) == (5_000_000, pattern_sha256(5_000_000))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    ],
)
@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("end", ["close", "reset"])
def test_body_cut_short_never_ends_cleanly(
    minato: StartMinato, origin: MakeOrigin, answer: bytes, version: bytes, end: str
) -> None:
    release = threading.Event()

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(answer)
        release.wait(10)  # the part before the cut is on its way when the cut comes
        connection.reset() if end == "reset" else connection.close()

    with minato(origin(script)).client() as client:
        client.send(request_bytes(version=version))
        head = client.receive_head()
        release.set()
        if head.status == 502:
            return  # noticed before anything was sent: fine too
        with pytest.raises((Truncated, ConnectionError)):
            list(client.pieces(head))


@pytest.mark.parametrize("end", ["write timeout", "drain deadline", "fast stop", "death of the worker"])
def test_body_that_ends_with_the_connection_and_is_cut_here_never_ends_cleanly(
    minato: StartMinato, origin: MakeOrigin, end: str
) -> None:
    """What HTTP/1.0 gets of a body without a length: only a RST tells a cut from its end."""

    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(64 if end == "write timeout" else 1):
            connection.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        connection.wait_closed(10)

    scripted = origin(script)
    instance = minato(scripted, timeouts={"write": 0.5, "drain": 0.5})
    with instance.client(rcvbuf_bytes=4096) as client:
        client.send(request_bytes(version=b"1.0"))
        head = client.receive_head()
        if end == "write timeout":
            scripted.wait_for(scripted.connections[0].closed.is_set, "the client to be given up")
        elif end == "death of the worker":
            os.kill(instance.worker_pids()[0], signal.SIGKILL)
        else:
            instance.signal(signal.SIGTERM if end == "drain deadline" else signal.SIGINT)
        with pytest.raises(ConnectionError):
            list(client.pieces(head))


def test_upstream_response_that_never_ends_is_passed_on_while_it_comes(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.send(b"x" * 65_536)

    scripted: Origin = origin(script)
    with minato(scripted).client() as client:
        client.send(request_bytes())
        pieces, size = client.pieces(client.receive_head()), 0
        while size < 20 * MEBIBYTE:
            size += len(next(pieces))
    scripted.wait_for(scripted.connections[0].closed.is_set, "the upstream to be left")


def test_large_upload_arrives_unchanged(minato: StartMinato, origin: MakeOrigin) -> None:
    app: App = origin()
    with minato(app).client() as client:
        client.send(request_bytes(b"PUT", fields=[(b"Content-Length", b"%d" % (20 * MEBIBYTE))]))
        for piece in pattern(20 * MEBIBYTE):
            client.send(piece)
        echo = json.loads(client.receive().body)
    assert (echo["body_bytes"], echo["body_sha256"]) == (20 * MEBIBYTE, pattern_sha256(20 * MEBIBYTE))
