"""Shown by, large bodies: 300 MB each way and to a slow reader; right to the last byte, memory that stays flat."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from .harness import Minato, fetch, request_bytes, response_bytes
from .harness.app import pattern, pattern_sha256
from .harness.proxy import fd_count, rss_bytes

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]

SIZE = 300_000_000
MAX_GROWTH = 40 * 1_048_576

pytestmark = pytest.mark.slow


@contextmanager
def flat_memory(instance: Minato) -> Iterator[None]:
    """Watch the worker's resident memory while the block runs: its peak is less than 40 MiB above its start."""
    fetch(instance.port)  # whatever is allocated once has been
    (worker,) = instance.workers()
    before, peak, done = rss_bytes(worker), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak[0] = max(peak[0], rss_bytes(worker))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(5)
    assert 0 < peak[0] < before + MAX_GROWTH, f"grew by {(peak[0] - before) / 1_048_576:.1f} MiB"


@pytest.mark.parametrize("kind", [b"bytes", b"chunked", b"close"])
def test_download(minato: StartMinato, origin: MakeOrigin, kind: bytes) -> None:
    instance = minato(origin(), cache={"enabled": True})
    with flat_memory(instance), instance.client(timeout_s=30) as client:
        client.send(request_bytes(target=b"/%s/%d" % (kind, SIZE)))
        assert client.digest(client.receive_head()) == (SIZE, pattern_sha256(SIZE))


@pytest.mark.parametrize("chunked", [False, True])
def test_upload(minato: StartMinato, origin: MakeOrigin, chunked: bool) -> None:
    instance = minato(origin())
    with flat_memory(instance), instance.client(timeout_s=30) as client:
        if chunked:
            client.send(request_bytes(b"PUT", fields=[(b"Transfer-Encoding", b"chunked")]))
            for piece in pattern(SIZE):
                client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            client.send(b"0\r\n\r\n")
        else:
            client.send(request_bytes(b"PUT", fields=[(b"Content-Length", b"%d" % SIZE)]))
            for piece in pattern(SIZE):
                client.send(piece)
        echo = json.loads(client.receive().body)
    assert (echo["body_bytes"], echo["body_sha256"]) == (SIZE, pattern_sha256(SIZE))


def test_download_by_a_slow_reader(minato: StartMinato, origin: MakeOrigin) -> None:
    """About 30 MB/s through a small window, while the upstream could send ten times that."""
    instance = minato(origin())
    with flat_memory(instance), instance.client(timeout_s=30, rcvbuf_bytes=32_768) as client:
        client.send(request_bytes(target=b"/bytes/%d" % SIZE))
        head = client.receive_head()
        pause = threading.Event()
        import hashlib

        sha, size, until_pause = hashlib.sha256(), 0, 0
        for piece in client.pieces(head):
            sha.update(piece)
            size += len(piece)
            if size > until_pause:
                pause.wait(0.03)
                until_pause = size + 1_000_000
    assert (size, sha.hexdigest()) == (SIZE, pattern_sha256(SIZE))


@pytest.mark.parametrize("target", [b"/bytes/100000", b"/cached"])
def test_pipelining_client_that_reads_nothing(minato: StartMinato, origin: MakeOrigin, target: bytes) -> None:
    """Thousands of requests, no response taken: minato must stop reading instead of queueing the answers."""
    app = origin()
    body = b"".join(pattern(100_000))
    app.routes[b"/cached"] = response_bytes(body, fields=[(b"Cache-Control", b"max-age=60")])
    instance = minato(app, cache={"enabled": True}, timeouts={"write": 3})
    fetch(instance.port, b"/cached")
    with flat_memory(instance), instance.client(rcvbuf_bytes=8192) as client:
        client.sock.settimeout(1)
        with contextlib.suppress(TimeoutError, ConnectionError):
            for _ in range(100):
                client.send(request_bytes(target=target) * 1000)
    assert fetch(instance.port).status == 200


def test_several_large_downloads_at_once(minato: StartMinato, origin: MakeOrigin) -> None:
    instance = minato(origin())
    results: list[Any] = []

    def load() -> None:
        with instance.client(timeout_s=30) as client:
            client.send(request_bytes(target=b"/bytes/30000000"))
            results.append(client.digest(client.receive_head()))

    with flat_memory(instance):
        threads = [threading.Thread(target=load, daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
    assert results == [(30_000_000, pattern_sha256(30_000_000))] * 6


def test_bodies_both_ways_in_turn_on_one_connection(minato: StartMinato, origin: MakeOrigin) -> None:
    """None of them leaves anything in the way of the next, and few descriptors are kept for another time."""
    instance = minato(origin())
    (worker,) = instance.workers()
    size = 5_000_000
    put = request_bytes(b"PUT", fields=[(b"Content-Length", b"%d" % size)]) + b"".join(pattern(size))
    with instance.client(timeout_s=30) as client:
        for _ in range(20):
            client.send(request_bytes(target=b"/bytes/%d" % size))
            assert client.digest(client.receive_head()) == (size, pattern_sha256(size))
            client.send(put)
            echo = json.loads(client.receive().body)
            assert (echo["body_bytes"], echo["body_sha256"]) == (size, pattern_sha256(size))
            assert fd_count(worker) < 64
