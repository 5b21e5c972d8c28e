"""Issue line 4, balancing: even, weighted, least connections over all workers; healthy upstreams only."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise

import pytest

from .harness import App, Client, Minato, fetch, request_bytes, wait_until

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]


def spread(port: int, number: int, *, per_connection: int = 1) -> Counter[bytes]:
    """Send that many requests; how many each origin answered."""
    seen: Counter[bytes] = Counter()
    while number > 0:
        with Client(port) as client:
            for _ in range(min(per_connection, number)):
                seen[client.request().get(b"x-origin") or b"none"] += 1
        number -= per_connection
    return seen


def test_round_robin_is_even(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(*(origin(name=f"o{n}") for n in range(3)))
    assert spread(instance.port, 90) == {b"o0": 30, b"o1": 30, b"o2": 30}


def test_round_robin_alternates_within_one_connection(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), origin(name="b"))
    with instance.client() as client:
        names = [client.request().get(b"x-origin") for _ in range(10)]
    assert all(first != second for first, second in pairwise(names))


def test_round_robin_over_several_workers_stays_nearly_even(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(*(origin(name=f"o{n}") for n in range(2)), workers=4)
    seen = spread(instance.port, 200)
    assert sum(seen.values()) == 200
    assert abs(seen[b"o0"] - seen[b"o1"]) <= 4  # each of the four workers is at most one off


def test_weights_share_the_traffic_smoothly(minato: StartMinato, origin: MakeApp) -> None:
    heavy, light = origin(name="heavy"), origin(name="light")
    instance = minato(
        {"host": heavy.url, "health_uri": "/health", "weight": 3}, {"host": light.url, "health_uri": "/health"}
    )
    with instance.client() as client:
        names = [client.request().get(b"x-origin") for _ in range(40)]
    assert Counter(names) == {b"heavy": 30, b"light": 10}
    assert all(b"light" in names[start : start + 4] for start in range(0, 40, 4))


@contextmanager
def held(port: int, apps: list[App], number: int) -> Iterator[list[tuple[Client, App]]]:
    """Hold that many slow requests open, begun one after the other; each client with the origin that has it."""
    with ExitStack() as stack:
        holding = []
        for _ in range(number):
            before = {app.name: len(app.requests) for app in apps}
            client = stack.enter_context(Client(port))
            client.send(request_bytes(target=b"/slow"))
            holding.append((client, wait_until(lambda before=before: _who_got_one(apps, before), "the request")))
        yield holding


def _who_got_one(apps: list[App], before: dict[str, int]) -> App | None:
    return next((app for app in apps if len(app.requests) > before[app.name]), None)


@pytest.mark.parametrize("workers", [1, 3])
def test_least_connections_counts_over_all_workers(minato: StartMinato, origin: MakeApp, workers: int) -> None:
    apps = [origin(name=f"o{n}") for n in range(3)]
    instance = minato(*apps, workers=workers, service_keys={"balancer": "LeastConnections"})
    with held(instance.port, apps, 18):
        assert [len(app.requests) for app in apps] == [6, 6, 6]


def test_least_connections_avoids_the_busy_one(minato: StartMinato, origin: MakeApp) -> None:
    busy, idle = origin(name="busy"), origin(name="idle")
    instance = minato(busy, idle, workers=2, service_keys={"balancer": "LeastConnections"})
    with held(instance.port, [busy, idle], 8):
        idle.gate.set()
        wait_until(lambda: fetch(instance.port).get(b"x-origin") == b"idle", "the idle one to be picked")
        assert spread(instance.port, 20) == {b"idle": 20}


def test_least_connections_ties_are_broken_fairly(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), origin(name="b"), service_keys={"balancer": "LeastConnections"})
    seen = spread(instance.port, 200, per_connection=20)
    assert min(seen[b"a"], seen[b"b"]) > 40  # a fair coin falls outside once in 10^17 runs


def test_aborted_exchanges_are_counted_off_like_finished_ones(minato: StartMinato, origin: MakeApp) -> None:
    a, b = origin(name="a"), origin(name="b")
    instance = minato(a, b, service_keys={"balancer": "LeastConnections"})
    with held(instance.port, [a, b], 10) as holding:
        b.gate.set()
        for client, app in holding:
            if app is a:
                client.close()
            else:
                assert client.receive().status == 200
    wait_until(lambda: fetch(instance.port).get(b"x-origin") == b"a", "the aborted exchanges to be counted off")
    seen = spread(instance.port, 100, per_connection=50)
    assert min(seen[b"a"], seen[b"b"]) > 10


def test_only_healthy_upstreams_are_picked(minato: StartMinato, origin: MakeApp) -> None:
    sick = origin(name="sick")
    sick.health.status = b"500 Sick"
    instance = minato(sick, origin(name="a"), origin(name="b"))
    assert spread(instance.port, 40) == {b"a": 20, b"b": 20}


def test_parallel_clients_are_all_answered(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), origin(name="b"), workers=2)
    seen: Counter[bytes] = Counter()
    threads = [
        threading.Thread(target=lambda: seen.update(spread(instance.port, 50, per_connection=10))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert seen[b"a"] + seen[b"b"] == 400
