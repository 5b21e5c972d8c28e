"""Workers are replaced before they grow old, pauses hold nothing against anybody, storms of reloads cost no request."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable

import psutil

from minato.decide.rollover import MAX_DRAINING_GENERATIONS

from .harness import App, Client, Minato, OriginConnection, fetch, make_config, request_bytes, service, wait_until
from .harness.proxy import rss_bytes

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]


def test_worker_that_served_enough_is_replaced_by_a_fresh_one_that_serves_first(
    minato: StartMinato, origin: MakeApp
) -> None:
    app = origin(name="a")
    instance = minato(app, recycle={"requests": 30, "jitter": 0})
    (old,) = instance.worker_pids()
    with instance.client() as kept, instance.client() as slow:
        assert not kept.request().says_close()
        slow.send(request_bytes(target=b"/slow"))
        app.wait_requests(2)
        for _ in range(28):
            assert fetch(instance.port).status == 200
        assert len(instance.workers()) == 1
        assert fetch(instance.port).status == 200
        line = instance.wait_for_log(rf"worker 0 gen 1 \(pid {old}\) is replaced")
        assert "(recycle.requests): 31 requests" in line or "(recycle.requests): 30 requests" in line
        wait_until(lambda: len(instance.workers()) == 2, "the fresh worker")
        (fresh,) = set(instance.worker_pids()) - {old}
        deadline_s = time.monotonic() + 0.7
        while time.monotonic() < deadline_s:
            assert fetch(instance.port).get(b"x-origin") == b"a"
        # The old one finishes what it has: a request in flight, and one more on a connection that was kept.
        assert kept.request().says_close() and kept.is_closed()
        app.gate.set()
        assert slow.receive().body == b"slow\n"
    wait_until(lambda: old not in instance.worker_pids(), "the old worker to end")
    assert fresh in instance.worker_pids() or len(instance.find_log("is replaced")) > 1
    assert instance.generations() == {1}


def test_workers_are_replaced_also_after_some_were_added(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), recycle={"requests": 5, "jitter": 0})
    for count in range(2, 6):  # one at a time: two pending signals of one kind are one
        instance.signal(signal.SIGTTIN)
        instance.wait_for_log(rf"\b{count} workers")
        wait_until(lambda count=count: len(instance.workers()) == count, f"{count} workers")
    for _ in range(100):
        assert fetch(instance.port).status == 200
    instance.wait_for_log("is replaced")


def test_worker_that_takes_too_much_memory_is_replaced_but_not_over_and_over(
    minato: StartMinato, origin: MakeApp
) -> None:
    instance = minato(origin(name="a"), workers=2, recycle={"memory": 1_000_000})
    wait_until(lambda: len(instance.find_log("is replaced")) == 2 and len(instance.workers()) == 2, "fresh workers")
    assert {fetch(instance.port).get(b"x-origin") for _ in range(10)} == {b"a"}
    lines = instance.find_log("is replaced")
    assert len(lines) == 2 and all(
        re.search(r"\(recycle\.memory\): \d+ requests, \d{7,} bytes", line) for line in lines
    )


def hold_probes(app: App) -> tuple[threading.Event, threading.Event]:
    """Have probes wait for their answer. Returns what says that one does, and what lets them all go on."""
    answer_probe = app._answer_probe
    probed, answer = threading.Event(), threading.Event()

    def hold(connection: OriginConnection) -> None:
        probed.set()
        answer.wait(20)
        answer_probe(connection)

    app._answer_probe = hold  # type: ignore[method-assign]
    return probed, answer


def test_group_that_stood_still_takes_nobody_for_late(minato: StartMinato, origin: MakeApp) -> None:
    """The machine was suspended: no worker is killed, no upstream taken down, no request in flight given up."""
    app = origin(name="a")
    health = {"interval": 0.3, "http_timeout": 1.5}
    timeouts = {"heartbeat": 1, "response": 2, "client_idle": 2, "client_header": 2, "drain": 2}
    instance = minato(app, workers=2, health=health, timeouts=timeouts)
    pids = instance.worker_pids()
    with instance.client() as waiting, instance.client() as idle, instance.client() as half:
        idle.request()
        half.send(request_bytes()[:20])
        waiting.send(request_bytes(target=b"/slow"))
        app.wait_requests(2)
        probed, answer = hold_probes(app)
        assert probed.wait(5)
        os.killpg(instance.pid, signal.SIGSTOP)
        time.sleep(3)  # there is no event: nothing happens, and that for longer than any timeout
        os.killpg(instance.pid, signal.SIGCONT)
        time.sleep(0.5)  # whoever wanted to be late would be late now
        answer.set()
        assert idle.request().status == 200
        half.send(request_bytes()[20:])
        assert half.receive().status == 200
        app.gate.set()
        assert waiting.receive().body == b"slow\n"
    assert instance.worker_pids() == pids
    assert instance.find_log(r"hangs|is down|killing") == []


def test_stopped_worker_that_finds_its_master_gone_ends(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, workers=2, timeouts={"orphaned": 1, "drain": 2})
    stopped, other = instance.worker_pids()
    os.kill(stopped, signal.SIGSTOP)
    os.kill(instance.pid, signal.SIGKILL)
    instance.wait_exit(5)
    wait_until(lambda: not psutil.pid_exists(other), "the other worker to end", 8)
    # Time in which it did not run is none: but it finds that the others have given up.
    os.kill(stopped, signal.SIGCONT)
    wait_until(lambda: instance.survivors() == [], "the stopped worker to end", 8)


class Caller(threading.Thread):
    """A client that asks again and again, on one connection as long as nobody says close, and notes what goes wrong."""

    def __init__(self, port: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self._port, self._stop_event = port, stop
        self.answers = 0
        self.failures: list[BaseException] = []

    def run(self) -> None:
        client = Client(self._port)
        while not self._stop_event.is_set():
            try:
                response = client.request(target=b"/bytes/3000")
                assert response.status == 200 and len(response.body) == 3000
                self.answers += 1
                if response.says_close():
                    client.close()
                    client = Client(self._port)
            except BaseException as error:
                self.failures.append(error)
                client.close()
                client = Client(self._port)
        client.close()


def test_storm_of_reloads_loses_no_request_and_closes_no_idle_connection(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, workers=2, timeouts={"drain": 30})
    configs = [
        {"workers": 2, **make_config([service(instance.port, [app])], timeouts={"drain": 30})},
        "services: [\n",
        {"workers": 3, **make_config([service(instance.port, [app])], timeouts={"drain": 30})},
    ]
    stop = threading.Event()
    callers = [Caller(instance.port, stop) for _ in range(3)]
    for caller in callers:
        caller.start()
    idle = []
    most = 0
    for number in range(60):
        instance.write_config(configs[number % 3])
        instance.signal(signal.SIGHUP)
        if number % 5 == 0:
            client = instance.client()
            first = client.request()
            assert first.status == 200
            if first.says_close():  # accepted by workers that were just told to drain
                client.close()
            else:
                idle.append(client)
        most = max(most, len(instance.generations()))
        time.sleep(0.05)
    stop.set()
    for caller in callers:
        caller.join(10)
    assert [failure for caller in callers for failure in caller.failures] == []
    assert all(caller.answers > 50 for caller in callers)
    assert 1 < most <= MAX_DRAINING_GENERATIONS + 2
    assert idle, "every connection began with a generation that drained"
    # Nobody closed them behind their client's back.
    assert all(client.request().status == 200 for client in idle)
    for client in idle:
        client.close()
    wait_until(lambda: len(instance.generations()) == 1, "the old generations to end")


def test_memory_of_generations_that_pile_up_is_given_back(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    body = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 1000000\r\n\r\n" + bytes(1_000_000)
    instance = minato(app, cache={"enabled": True, "max_body_size": 2_000_000, "capacity": 100})
    for number in range(40):
        app.routes[b"/%d" % number] = body
        assert len(fetch(instance.port, b"/%d" % number).body) == 1_000_000
    (first,) = instance.workers()
    with instance.client() as slow:
        slow.send(request_bytes(target=b"/slow"))
        app.wait_for(lambda: any(request.target == b"/slow" for request in app.requests), "the request")
        full_bytes = rss_bytes(first)
        instance.reload()
        assert rss_bytes(first) > full_bytes - 10_000_000, "one reload takes no cache away from whoever is served yet"
        instance.reload()
        wait_until(lambda: rss_bytes(first) < full_bytes - 30_000_000, "the memory to be given back")
        app.gate.set()
        assert slow.receive().body == b"slow\n"
