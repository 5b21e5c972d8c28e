"""Caps on what an upstream has at once, over all workers, and the queue in front of it: a crowd is served in turns."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from minato.config.model import ListenAddress
from minato.control.admin.client import post
from tests.chaos.sockets import has_accepted

from .harness import App, Client, Minato, Origin, OriginConnection, fetch, free_port, request_bytes, wait_until
from .harness.proxy import fd_count
from .harness.wire import Truncated, response_bytes

StartMinato = Callable[..., Minato]
MakeOrigin = Callable[..., Origin]


class SlowOrigin:
    """A script that takes its time, and knows how many requests it had at once.

    Attributes:
        peak: the most so far.
        gate: what everybody waits for, where it is given.
    """

    def __init__(self, seconds: float = 0.0, gate: threading.Event | None = None) -> None:
        self.peak = 0
        self.now = 0
        self.gate = gate
        self._seconds = seconds
        self._lock = threading.Lock()

    def __call__(self, connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            with self._lock:
                self.now += 1
                self.peak = max(self.peak, self.now)
            if self.gate is not None:
                self.gate.wait(20)
            time.sleep(self._seconds)
            with self._lock:
                self.now -= 1
            connection.send(response_bytes(request.target))


def ask(instance: Minato, targets: list[bytes]) -> list[tuple[int, bytes]]:
    """Have a client of its own ask for each, all at once; what each was answered."""

    def one(target: bytes) -> tuple[int, bytes]:
        with instance.client(timeout_s=20) as client:
            response = client.request(target=target)
            return response.status, response.body

    with ThreadPoolExecutor(len(targets)) as pool:
        return list(pool.map(one, targets))


def test_a_crowd_is_served_two_at_a_time_over_all_workers(minato: StartMinato, origin: MakeOrigin) -> None:
    script = SlowOrigin(0.01)
    app = origin(script)
    instance = minato(
        {"host": app.url, "health_uri": "/health", "max_connections": 2},
        workers=3,
        service_keys={"queue": {"timeout": 15}},
    )
    targets = [b"/%d" % number for number in range(50)]
    assert ask(instance, targets) == [(200, target) for target in targets]
    assert script.peak <= 2
    assert len(app.requests) == 50


def test_no_worker_starves_where_all_have_more_than_there_is_room_for(minato: StartMinato, origin: MakeOrigin) -> None:
    """A worker learns of its own room at once and of others' late; it must not keep it for all that."""
    script = SlowOrigin(0.004)
    instance = minato(origin(script), workers=3, limits={"upstream_connections": 1})
    done = [0] * 24
    ended = time.monotonic() + 3

    def client(number: int) -> None:
        with instance.client(timeout_s=20) as one:
            while time.monotonic() < ended:
                assert one.request().status == 200
                done[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert script.peak == 1
    mean = sum(done) / len(done)
    assert mean >= 5, done
    assert min(done) >= mean / 3, done


def test_who_waits_too_long_or_in_vain_gets_a_503(minato: StartMinato, origin: MakeOrigin) -> None:
    gate = threading.Event()
    app = origin(SlowOrigin(gate=gate))
    instance = minato(app, limits={"upstream_connections": 1}, service_keys={"queue": {"size": 2, "timeout": 1}})
    with instance.client() as holding:
        holding.send(request_bytes(target=b"/held"))
        app.wait_requests(1)
        began_s = time.monotonic()
        answers = ask(instance, [b"/%d" % number for number in range(5)])
        assert [status for status, _ in answers] == [503] * 5
        assert 0.9 < time.monotonic() - began_s < 10
        gate.set()
        assert holding.receive().status == 200
        assert holding.request().status == 200
    instance.wait_for_log("2 requests wait for room already")
    instance.wait_for_log("no room at an upstream of service test within 1 s; the request gets a 503")
    assert len(app.requests) == 2


def test_clients_that_left_are_not_asked_for(minato: StartMinato, origin: MakeOrigin) -> None:
    gate = threading.Event()
    app = origin(SlowOrigin(gate=gate))
    instance = minato(app, limits={"upstream_connections": 1})
    (worker,) = instance.workers()
    idle = fd_count(worker)
    with instance.client() as holding, instance.client() as patient:
        holding.send(request_bytes(target=b"/held"))
        app.wait_requests(1)
        leaving = [instance.client() for _ in range(10)]
        for client in leaving:
            client.send(request_bytes(target=b"/left"))
        patient.send(request_bytes(target=b"/patient"))
        wait_until(lambda: fd_count(worker) == idle + 13, "all to be accepted, and one at the upstream")
        for number, client in enumerate(leaving):
            client.reset() if number % 2 else client.close()
        wait_until(lambda: fd_count(worker) == idle + 3, "minato to let go of those that left")
        gate.set()
        assert [client.receive().body for client in (holding, patient)] == [b"/held", b"/patient"]
    assert [request.target for request in app.requests] == [b"/held", b"/patient"]


def test_reloads_lose_nobody_who_waits(minato: StartMinato, origin: MakeOrigin) -> None:
    script = SlowOrigin(0.02)
    app = origin(script)
    instance = minato(app, workers=2, limits={"upstream_connections": 2}, service_keys={"queue": {"timeout": 15}})
    targets = [b"/%d" % number for number in range(60)]
    answers: list[tuple[int, bytes]] = []
    crowd = threading.Thread(target=lambda: answers.extend(ask(instance, targets)))
    crowd.start()
    app.wait_requests(4)
    instance.reload()
    instance.reload()
    crowd.join()
    assert answers == [(200, target) for target in targets]
    # Each generation counts for itself, and those that drain still have some.
    assert script.peak <= 6


def test_a_stop_serves_who_waits(minato: StartMinato, origin: MakeOrigin) -> None:
    gate = threading.Event()
    app = origin(SlowOrigin(gate=gate))
    instance = minato(app, limits={"upstream_connections": 1})
    clients = [instance.client() for _ in range(5)]
    for number, client in enumerate(clients):
        client.send(request_bytes(target=b"/%d" % number))
    app.wait_requests(1)
    time.sleep(0.2)
    instance.signal(signal.SIGTERM)
    time.sleep(0.2)
    gate.set()
    assert sorted(client.receive().body for client in clients) == [b"/%d" % number for number in range(5)]
    for client in clients:
        client.close()
    assert instance.wait_exit() == 0


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_stopped_while_it_waits_holds_up_nobody(
    end: signal.Signals, minato: StartMinato, origin: MakeOrigin
) -> None:
    """The others leave the room to whoever has waited longest: not to one that cannot take it."""
    gate = threading.Event()
    app = origin(SlowOrigin(gate=gate))
    instance = minato(app, workers=2, limits={"upstream_connections": 1}, timeouts={"heartbeat": 30})
    first, second = instance.workers()
    clients: dict[int, list[Client]] = {first.pid: [], second.pid: []}
    with contextlib.ExitStack() as stack:
        while min(map(len, clients.values())) < 3:
            client = stack.enter_context(instance.client(timeout_s=20))
            clients[_find_worker(client, (first.pid, second.pid))].append(client)
        holding, *rest = clients[first.pid][:3]
        holding.send(request_bytes(target=b"/held"))
        app.wait_requests(1)
        for client in clients[second.pid]:
            client.send(request_bytes(target=b"/other"))
        time.sleep(0.2)
        for client in rest:
            client.send(request_bytes(target=b"/mine"))
        time.sleep(0.1)
        os.kill(second.pid, end)
        gate.set()
        began_s = time.monotonic()
        assert [client.receive().body for client in (holding, *rest)] == [b"/held", b"/mine", b"/mine"]
        assert time.monotonic() - began_s < 10  # long before the heartbeat's time
        if end is signal.SIGSTOP:
            os.kill(second.pid, signal.SIGCONT)
            assert {client.receive().body for client in clients[second.pid]} == {b"/other"}


def test_crowds_failures_leavers_and_reloads_together_leave_nothing_behind(
    minato: StartMinato, origin: MakeOrigin
) -> None:
    """Whatever happens to who waits: room is never lost, so that in the end everybody is served at once again."""
    rng = random.Random(6)
    answered = SlowOrigin(0.003)

    def unreliable(connection: OriginConnection) -> None:
        while (request := connection.read_request()) is not None:
            if rng.random() < 0.2:
                connection.reset() if rng.random() < 0.5 else connection.close()
                return
            time.sleep(0.003)
            connection.send(response_bytes(request.target))

    good, bad = origin(answered), origin(unreliable)
    instance = minato(
        good,
        bad,
        workers=2,
        limits={"upstream_connections": 2},
        service_keys={"queue": {"size": 30, "timeout": 2}, "retries": 2},
        health={"interval": 600},
        timeouts={"drain": 10},
    )
    statuses: Counter[int] = Counter()
    ended = time.monotonic() + 4

    def client(number: int) -> None:
        choice = random.Random(number)
        while time.monotonic() < ended:
            with contextlib.suppress(OSError, Truncated), instance.client(timeout_s=20) as one:
                for _ in range(choice.randrange(1, 20)):
                    method, body = (
                        (b"POST", b"x" * choice.randrange(90_000)) if choice.random() < 0.2 else (b"GET", None)
                    )
                    wire = request_bytes(method, b"/%d" % number, body=body)
                    if choice.random() < 0.1:  # it leaves, in the middle of its request or behind it
                        one.send(wire[: choice.randrange(1, len(wire) + 1)])
                        one.reset() if choice.random() < 0.5 else one.close()
                        break
                    one.send(wire)
                    response = one.receive()
                    statuses[response.status] += 1
                    assert response.status != 200 or response.body == b"/%d" % number
                    if response.says_close():
                        break

    with ThreadPoolExecutor(60) as pool:
        running = [pool.submit(client, number) for number in range(60)]
        while time.monotonic() < ended - 1:
            time.sleep(0.5)
            instance.reload()
        for one in running:
            one.result()
    assert set(statuses) <= {200, 502, 503}
    assert statuses[200] > 100, statuses
    wait_until(lambda: len(instance.generations()) == 1, "the old generations to end")
    # All room is there again, and nobody waits: two at a time are answered at once, again and again.
    began_s = time.monotonic()
    for _ in range(20):
        assert {status for status, _ in ask(instance, [b"/1", b"/2"])} <= {200, 502}
    assert time.monotonic() - began_s < 10


def _find_worker(client: Client, pids: tuple[int, int]) -> int:
    """Return the process that accepts a connection."""
    return wait_until(
        lambda: next((pid for pid in pids if has_accepted(pid, client.sock)), 0), "a worker to accept the connection"
    )


def test_sessions_whose_upstream_drains_and_is_full_wait_for_it_where_nobody_else_is(
    minato: StartMinato, origin: Callable[..., App]
) -> None:
    home, other, admin = origin(name="home"), origin(name="other"), free_port()
    instance = minato(
        {"host": home.url, "health_uri": "/health", "max_connections": 1},
        {"host": other.url, "health_uri": "/health", "max_connections": 1},
        service_keys={"sticky": {"cookie": "srv"}, "queue": {"timeout": 10}, "retries": 1},
        health={"interval": 0.2},
        admin={"listen": f"127.0.0.1:{admin}"},
    )
    answers = [fetch(instance.port) for _ in range(4)]
    cookie = next(one.get(b"set-cookie") for one in answers if one.get(b"x-origin") == b"home")
    assert cookie is not None
    fields = [(b"cookie", cookie.split(b";")[0])]
    assert post(ListenAddress("127.0.0.1", admin), "/drain", {"upstream": home.url})[0] == 200
    other.health.status = b"500 Sick"
    instance.wait_for_log(f"{other.url}/health is down")
    with instance.client() as first, instance.client(timeout_s=20) as second:
        first.send(request_bytes(target=b"/slow", fields=fields))
        wait_until(lambda: home.hits.get(b"/slow"), "the first request at its upstream")
        second.send(request_bytes(fields=fields))
        time.sleep(0.2)
        assert fetch(instance.port).status == 503  # who has no session there has nobody
        home.gate.set()
        assert first.receive().body == b"slow\n"
        assert second.receive().get(b"x-origin") == b"home"
