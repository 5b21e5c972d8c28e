"""Issue line 4, exhaustion: drips in both directions, descriptors that run out in workers and in the master, floods."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psutil

from .harness import Client, Minato, OriginConnection, request_bytes, response_bytes, wait_until
from .harness.app import pattern
from .harness.origin import respond_always
from .harness.proxy import fd_count, rss_bytes

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Any]

# The credit of a slow client is never less (README, "Slow clients").
CREDIT_S = 20.0
MIB = 1_048_576


def limit_descriptors(process: psutil.Process, spare: int) -> int:
    """Leave a process as many descriptors as it has and ``spare`` more; return the limit it had."""
    before = process.rlimit(psutil.RLIMIT_NOFILE)[0]
    numbers = sorted(int(name) for name in os.listdir(f"/proc/{process.pid}/fd"))
    holes = numbers[-1] + 1 - len(numbers)  # new ones have the lowest free numbers, and the number is what counts
    lowest = next(number for number in range(numbers[-1] + 2) if number not in numbers)
    process.rlimit(psutil.RLIMIT_NOFILE, (lowest if not spare else numbers[-1] + 1 - holes + spare, before))
    return before


def is_at_rest(process: psutil.Process) -> bool:
    """Whether a process has taken no CPU time for a moment."""
    before = process.cpu_times()[:2]
    time.sleep(0.2)
    return bool(process.cpu_times()[:2] == before)


class Drip:
    """A client that sends a piece now and then until it is answered or cut; in a thread of its own."""

    def __init__(self, client: Client, start: bytes, piece: bytes, pause_s: float = 0.5) -> None:
        self.ended_s = 0.0
        self._client, self._start, self._piece, self._pause_s = client, start, piece, pause_s
        self._stop = threading.Event()
        self._began_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            self._client.send(self._start)
            while not self._stop.wait(self._pause_s):
                self._client.send(self._piece)

    def wait_answered(self, timeout_s: float) -> int:
        """Return the status of the answer that ends it."""
        self._client.sock.settimeout(timeout_s)
        try:
            return self._client.receive().status
        finally:
            self.ended_s = time.monotonic() - self._began_s
            self._stop.set()
            self._thread.join(5)


def read_slowly(client: Client, bytes_per_s: int, seconds: float) -> bool:
    """Read at that rate; tell whether the connection was cut meanwhile."""
    end_s = time.monotonic() + seconds
    try:
        while time.monotonic() < end_s:
            if not client.sock.recv(max(bytes_per_s // 10, 1)):
                return True
            time.sleep(0.1)
    except OSError:
        return True
    return False


def test_drips_in_both_directions_are_ended_and_honest_clients_are_not(minato: StartMinato, origin: MakeOrigin) -> None:
    def script(connection: OriginConnection) -> None:
        while (request := connection.read_head()) is not None:
            if request.target == b"/up":
                with contextlib.suppress(OSError):
                    while connection.read_some():
                        pass
                return
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            with contextlib.suppress(OSError):
                for piece in pattern(100_000_000):
                    connection.send(piece)
            return

    instance = minato(origin(script), timeouts={"client_body": 5, "write": 5, "response": 60})
    limits = {"upload_rate": 100_000, "download_rate": 100_000}
    instance.write_config(instance.config | {"limits": limits})
    instance.reload()
    long = [(b"Content-Length", b"%d" % (50 * MIB))]
    chunked = [(b"Transfer-Encoding", b"chunked")]
    with ExitStack() as stack:
        new = lambda **options: stack.enter_context(instance.client(**options))  # noqa: E731
        uploads = [
            Drip(new(), request_bytes(b"POST", b"/up", fields=long), b"x" * 500),
            Drip(new(), request_bytes(b"POST", b"/up", fields=chunked), b"1\r\nx\r\n" * 50),
            Drip(new(), request_bytes(b"POST", b"/up", fields=long) + b"x" * (8 * MIB), b"x" * 500),  # spliced
        ]
        honest = Drip(new(), request_bytes(b"POST", b"/up", fields=long), b"x" * 60_000, pause_s=0.4)
        slow, steady = new(rcvbuf_bytes=65_536), new(rcvbuf_bytes=65_536)
        for client in (slow, steady):
            client.send(request_bytes())
        results: dict[str, bool] = {}
        readers = [
            threading.Thread(target=lambda: results.update(slow=read_slowly(slow, 20_000, 3 * CREDIT_S))),
            threading.Thread(target=lambda: results.update(steady=read_slowly(steady, 400_000, 1.5 * CREDIT_S))),
        ]
        for reader in readers:
            reader.start()
        for upload in uploads:
            assert upload.wait_answered(2 * CREDIT_S) == 408
            assert CREDIT_S - 1 < upload.ended_s < CREDIT_S + 10
        for reader in readers:
            reader.join()
        assert results == {"slow": True, "steady": False}
        honest._client.sock.settimeout(0.1)
        with contextlib.suppress(TimeoutError):
            raise AssertionError(honest._client.sock.recv(100))
        honest._stop.set()


def test_a_worker_without_descriptors_serves_who_is_there_and_recovers(minato: StartMinato, origin: MakeOrigin) -> None:
    instance = minato(origin(respond_always(response_bytes(b"ok"))), health={"interval": 0.5})
    (worker,) = instance.workers()
    with ExitStack() as stack:
        old = stack.enter_context(instance.client())
        assert old.request().body == b"ok"
        before = limit_descriptors(worker, 20)
        crowd = [stack.enter_context(instance.client()) for _ in range(100)]
        instance.wait_for_log("cannot accept connections: Too many open files")
        began, began_s = sum(worker.cpu_times()[:2]), time.monotonic()
        for _ in range(20):
            response = old.request()  # its pooled connection may have made room
            assert response.status in (200, 503)
            time.sleep(0.05)
        used = sum(worker.cpu_times()[:2]) - began
        assert used < 0.4 * (time.monotonic() - began_s), "a busy loop"
        assert len(instance.find_log("cannot accept")) == 1
        for client in crowd:
            client.close()
        worker.rlimit(psutil.RLIMIT_NOFILE, (before, before))
    with instance.client() as client:
        wait_until(lambda: client.request().status == 200, "the worker to recover")
    assert instance.workers() == [worker]
    assert instance.find_log("is down") == []


def test_a_request_that_no_descriptor_is_left_for_is_503_and_not_blamed_on_the_upstream(
    minato: StartMinato, origin: MakeOrigin
) -> None:
    instance = minato(origin(respond_always(response_bytes(b"ok"))), health={"interval": 600})
    (worker,) = instance.workers()
    with instance.client() as client:
        accepted = fd_count(worker)
        client.send(b"GET / HT")
        wait_until(lambda: fd_count(worker) <= accepted + 1 and is_at_rest(worker), "the client to be accepted")
        before = limit_descriptors(worker, 0)
        client.send(request_bytes()[8:])
        response = client.receive()
        assert (response.status, response.get(b"retry-after"), response.says_close()) == (503, b"1", False)
        worker.rlimit(psutil.RLIMIT_NOFILE, (before, before))
        assert client.request().body == b"ok"
    instance.wait_for_log("cannot connect from here: EMFILE")
    assert instance.find_log("is down") == []


def test_a_master_without_descriptors_takes_no_upstream_down_and_reloads_once_it_has_some(
    minato: StartMinato, origin: MakeOrigin
) -> None:
    instance = minato(origin(respond_always(response_bytes(b"ok"))), health={"interval": 0.2})
    master = psutil.Process(instance.pid)
    before = limit_descriptors(master, 0)
    instance.wait_for_log("cannot probe upstream .* from here: too many open files")
    lines = len(instance.lines)
    instance.signal(1)
    instance.wait_for_log("reload given up|cannot", since=lines)
    time.sleep(1.0)
    with instance.client() as client:
        assert client.request().body == b"ok"
    assert instance.find_log("is down") == []
    master.rlimit(psutil.RLIMIT_NOFILE, (before, before))
    instance.reload()
    with instance.client() as client:
        assert client.request().body == b"ok"


def test_a_flood_of_heads_that_do_not_end_takes_bounded_memory(minato: StartMinato, origin: MakeOrigin) -> None:
    instance = minato(
        origin(respond_always(response_bytes(b"ok"))),
        limits={"partial_heads_bytes": 1_000_000},
        timeouts={"client_header": 60},
    )
    (worker,) = instance.workers()
    with ExitStack() as stack:
        clients = [stack.enter_context(instance.client()) for _ in range(800)]
        wait_until(lambda: fd_count(worker) > 800, "all to be accepted, which takes memory, too")
        before = rss_bytes(worker)
        for client in clients:
            client.send(request_bytes()[:-2] + b"X: %s" % (b"x" * 30_000))
        statuses = [client.receive().status for client in clients[:700]]
        assert set(statuses) == {503}
        assert rss_bytes(worker) < before + 12 * MIB  # of 24
        with instance.client() as client:
            assert client.request().body == b"ok"
        clients[-1].send(b"\r\n\r\n")
        assert clients[-1].receive().body == b"ok"


def test_connections_over_the_cap_are_told_so_at_once_while_others_go_on(
    minato: StartMinato, origin: MakeOrigin
) -> None:
    instance = minato(origin(respond_always(response_bytes(b"ok"))), limits={"connections": 20})
    with ExitStack() as stack:
        inside = [stack.enter_context(instance.client()) for _ in range(20)]
        assert {client.request().status for client in inside} == {200}
        for _ in range(50):
            with instance.client() as client, contextlib.suppress(ConnectionError):
                client.send(request_bytes())
                response = client.receive()
                assert (response.status, response.get(b"retry-after")) == (503, b"1")
        assert {client.request().status for client in inside} == {200}
    wait_until(lambda: _is_served(instance), "room")


def _is_served(instance: Minato) -> bool:
    with instance.client() as client, contextlib.suppress(ConnectionError):
        return bool(client.request().status == 200)
    return False
