"""Which upstream a request belongs to: the same in every worker, after a reload and after a restart."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from .harness import App, Client, Minato, fetch, make_config, request_bytes, service, wait_until

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]

HASHED = {"balancer": "ConsistentHash"}
STICKY = {"sticky": {"cookie": "srv", "ttl": 3600}}
TARGETS = [b"/%d" % number for number in range(60)]


@pytest.fixture
def three(origin: MakeApp) -> list[App]:
    return [origin(name=name) for name in "abc"]


def where(port: int, target: bytes = b"/", cookie: bytes | None = None) -> bytes | None:
    """Ask on a connection of its own, so that any worker may answer: who did."""
    fields = [(b"cookie", cookie)] if cookie else []
    return fetch(port, target, fields=fields).get(b"x-origin")


def begin_session(port: int) -> tuple[bytes, bytes | None]:
    """Return the cookie of a new session, and who began it."""
    answer = fetch(port)
    value = answer.get(b"set-cookie")
    assert value is not None
    cookie, attributes = value.split(b"; ", 1)
    assert attributes == b"Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"
    return cookie, answer.get(b"x-origin")


# -- consistent hashing


def test_all_workers_agree_where_a_url_belongs(minato: StartMinato, three: list[App]) -> None:
    instance = minato(*three, workers=4, service_keys=HASHED)
    first = {target: where(instance.port, target) for target in TARGETS}
    assert set(first.values()) == {b"a", b"b", b"c"}
    for _ in range(3):
        assert {target: where(instance.port, target) for target in TARGETS} == first


def test_a_reload_with_the_upstreams_in_another_order_moves_nothing(minato: StartMinato, three: list[App]) -> None:
    instance = minato(*three, workers=2, service_keys=HASHED)
    before = [where(instance.port, target) for target in TARGETS]
    instance.write_config(make_config([service(instance.port, three[::-1], **HASHED)]))
    instance.reload(wait_old_gone=True)
    assert [where(instance.port, target) for target in TARGETS] == before


def test_a_reload_with_one_more_moves_keys_to_that_alone(
    minato: StartMinato, three: list[App], origin: MakeApp
) -> None:
    instance = minato(*three, workers=2, service_keys=HASHED)
    before = [where(instance.port, target) for target in TARGETS]
    instance.write_config(make_config([service(instance.port, [*three, origin(name="d")], **HASHED)]))
    instance.reload(wait_old_gone=True)
    after = [where(instance.port, target) for target in TARGETS]
    assert all(new in (old, b"d") for old, new in zip(before, after, strict=True))
    assert 0 < after.count(b"d") < 35  # a quarter, give or take five standard deviations


def test_another_instance_agrees(minato: StartMinato, three: list[App]) -> None:
    """As after a restart, or on another machine."""
    one = minato(*three, workers=1, service_keys=HASHED)
    other = minato(*three[::-1], workers=2, service_keys={**HASHED, "name": "another name"})
    assert [where(one.port, target) for target in TARGETS] == [where(other.port, target) for target in TARGETS]


def test_only_the_keys_of_a_dead_upstream_move(minato: StartMinato, three: list[App]) -> None:
    instance = minato(*three, workers=2, service_keys=HASHED, health={"interval": 0.1})
    before = [where(instance.port, target) for target in TARGETS]
    dead = three[0]
    dead.stop()
    during = [where(instance.port, target) for target in TARGETS]  # at once: the first attempt is tried again elsewhere
    assert all(now == old for old, now in zip(before, during, strict=True) if old != b"a")
    assert b"a" not in during
    dead.start()
    wait_until(lambda: [where(instance.port, target) for target in TARGETS] == before, "its keys to come back")


@contextmanager
def held(port: int, apps: list[App], target: bytes, number: int) -> Iterator[list[int]]:
    """Hold that many slow requests open, begun one after the other; how many each origin has."""
    with ExitStack() as stack:
        for count in range(1, number + 1):
            stack.enter_context(Client(port)).send(request_bytes(target=target))
            wait_until(lambda count=count: sum(len(app.requests) for app in apps) == count, "the request")
        yield [len(app.requests) for app in apps]


@pytest.mark.parametrize(("factor", "loads"), [(1.25, [3, 8, 8]), (1, [6, 6, 7]), (2, [0, 6, 13]), (0, [0, 0, 19])])
def test_a_hot_url_is_spread_as_the_bound_wants_over_all_workers(
    minato: StartMinato, three: list[App], factor: float, loads: list[int]
) -> None:
    hashed = {"by": "path", "load_factor": factor}
    instance = minato(*three, workers=3, service_keys={**HASHED, "hash": hashed})
    with held(instance.port, three, b"/slow", 19) as found:
        assert sorted(found) == loads


# -- the better of two


@pytest.mark.parametrize("workers", [1, 3])
def test_the_better_of_two_keeps_the_loads_near_the_weights(minato: StartMinato, origin: MakeApp, workers: int) -> None:
    heavy, light = origin(name="heavy"), origin(name="light")
    upstreams = [
        {"host": heavy.url, "health_uri": "/health", "weight": 3},
        {"host": light.url, "health_uri": "/health"},
    ]
    instance = minato(*upstreams, workers=workers, service_keys={"balancer": "PowerOfTwo"})
    with held(instance.port, [heavy, light], b"/slow", 20) as found:
        assert found == [pytest.approx(15, abs=1), pytest.approx(5, abs=1)]


def test_the_better_of_two_spreads_light_traffic_by_weight(minato: StartMinato, origin: MakeApp) -> None:
    heavy, light = origin(name="heavy"), origin(name="light")
    upstreams = [
        {"host": heavy.url, "health_uri": "/health", "weight": 3},
        {"host": light.url, "health_uri": "/health"},
    ]
    instance = minato(*upstreams, service_keys={"balancer": "PowerOfTwo"})
    with instance.client() as client:
        seen = Counter(client.request().get(b"x-origin") for _ in range(400))
    assert 50 < seen[b"light"] < 150  # 100, give or take nearly six standard deviations


# -- sticky sessions


def test_sessions_stay_over_all_workers_and_a_reload(minato: StartMinato, three: list[App]) -> None:
    instance = minato(*three, workers=4, service_keys=STICKY)
    begun = [begin_session(instance.port) for _ in range(12)]
    assert {name for _, name in begun} == {b"a", b"b", b"c"}
    for _ in range(2):
        assert all(where(instance.port, target, cookie) == name for cookie, name in begun for target in TARGETS[:4])
        changed = {**STICKY, "balancer": "LeastConnections", "retries": 2}
        instance.write_config(make_config([service(instance.port, three[::-1], **changed)]))
        instance.reload(wait_old_gone=True)


def test_sessions_are_not_moved_by_reloads_under_way(minato: StartMinato, three: list[App]) -> None:
    """Clients that keep asking while generations come and go are answered by their upstream every time."""
    instance = minato(*three, workers=2, service_keys=STICKY)
    stop = threading.Event()
    wrong: list[tuple[bytes | None, bytes | None]] = []
    asked = Counter[bytes]()

    def keep_asking() -> None:
        cookie, name = begin_session(instance.port)
        while not stop.is_set():
            answer = fetch(instance.port, fields=[(b"cookie", cookie)])
            if (found := answer.get(b"x-origin")) != name or answer.get(b"set-cookie") is not None:
                wrong.append((name, found))
            asked[cookie] += 1

    threads = [threading.Thread(target=keep_asking) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(4):
        instance.reload()
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not wrong
    assert sum(asked.values()) > 20


def test_sessions_outlive_a_restart(minato: StartMinato, three: list[App]) -> None:
    secret = {"sticky": {**STICKY["sticky"], "secret": "one and the same secret"}}
    one = minato(*three, service_keys=secret)
    begun = [begin_session(one.port) for _ in range(3)]
    one.signal(signal.SIGTERM)
    assert one.wait_exit() == 0
    other = minato(*three[::-1], workers=2, service_keys={**secret, "name": "renamed"})
    assert all(where(other.port, cookie=cookie) == name for cookie, name in begun)


def test_sessions_of_a_dead_upstream_move_without_a_failure(minato: StartMinato, three: list[App]) -> None:
    instance = minato(*three, workers=2, service_keys=STICKY)
    begun = [begin_session(instance.port) for _ in range(9)]
    three[0].stop()
    for cookie, name in begun:
        answer = fetch(instance.port, fields=[(b"cookie", cookie)])
        assert answer.status == 200
        assert answer.get(b"x-origin") != b"a"
        moved = answer.get(b"set-cookie")
        assert (moved is not None) == (name == b"a")
        if moved is not None:
            assert where(instance.port, cookie=moved.split(b";")[0]) == answer.get(b"x-origin")


def test_no_client_gets_another_ones_cookie_out_of_the_cache(minato: StartMinato, three: list[App]) -> None:
    """Many clients, a few cacheable pages, several workers: whoever is answered from the cache gets no cookie."""
    page = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 2\r\n\r\nhi"
    for app in three:
        app.routes.update({b"/page/%d" % number: page for number in range(20)})
    instance = minato(*three, workers=2, service_keys=STICKY, cache={"enabled": True})
    answers: list[Any] = []

    def ask() -> None:
        with instance.client() as client:
            for turn in range(3):
                answers.extend(client.request(target=b"/page/%d" % number) for number in range(20) if turn < 3)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(answers) == 360
    forwarded = [answer for answer in answers if b"stored" in answer.get(b"cache-status")]
    assert 20 <= len(forwarded) <= 40  # each worker fetches each page once
    assert all(answer.get(b"set-cookie") is not None for answer in forwarded)
    assert sum(answer.get(b"set-cookie") is not None for answer in answers) == len(forwarded)
