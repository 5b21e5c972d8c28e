"""What an upgrade may meet: a drain asked for while the new master boots, dropped addresses, purges over three."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from minato.config.model import ListenAddress
from minato.control.admin.client import post

from .harness import App, Minato, Origin, fetch, free_port, make_config, request_bytes, service, wait_until
from .test_dropped_addresses import finish_handshake, keep_beginning, listen_again, move_service
from .test_queue import SlowOrigin, ask
from .test_supervision import Caller

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def wait_taken_over(instance: Minato, since: int) -> None:
    instance.note_master(instance.wait_for_log("^minato: ready", 20, since))


def admin_post(port: int, path: str, body: dict[str, Any]) -> dict[str, Any]:
    status, told = post(ListenAddress("127.0.0.1", port), path, body)
    assert status == 200, told
    return told


def test_upstream_that_is_drained_while_the_new_master_boots_stays_drained(
    minato: StartMinato, origin: MakeApp
) -> None:
    a, b, admin = origin(name="a"), origin(name="b"), free_port()
    sections = {"admin": {"listen": f"127.0.0.1:{admin}"}, "health": {"http_timeout": 2.0}}
    instance = minato(a, b, **sections)
    admin_post(admin, "/drain", {"upstream": b.url})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # The first probe of it takes its time, and with it the new master.
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}"
        services = [service(instance.port, [a, b]), service(free_port(), [hanging], name="hanging")]
        instance.write_config(make_config(services, **sections))
        since = len(instance.lines)
        instance.signal(signal.SIGUSR2)
        silent.settimeout(10)
        probe, _ = silent.accept()
        admin_post(admin, "/undrain", {"upstream": b.url})
        admin_post(admin, "/drain", {"upstream": a.url})
        assert not instance.find_log("^minato: ready", since)
        wait_taken_over(instance, since)
        probe.close()
    assert {fetch(instance.port).get(b"x-origin") for _ in range(8)} == {b"b"}


def test_client_in_its_handshake_at_an_address_that_an_upgrade_drops_is_served(
    minato: StartMinato, origin: MakeApp
) -> None:
    app = origin(name="a")
    instance = minato(app, workers=2)
    old, new = move_service(instance, app)
    since = len(instance.lines)
    instance.signal(signal.SIGUSR2)
    clients = keep_beginning(old, lambda: instance.find_log("those of this one drain", since))
    for sock in clients:
        listen_again(sock)
    for sock in clients:
        finish_handshake(sock)
        sock.sendall(request_bytes(fields=[(b"Connection", b"close")]))
        assert b" 200 OK" in sock.recv(65_536).split(b"\r\n")[0]
        sock.close()
    wait_taken_over(instance, since)
    assert fetch(new).get(b"x-origin") == b"a"


def test_purge_reaches_the_first_of_three_masters(minato: StartMinato, origin: MakeApp) -> None:
    app, admin = origin(), free_port()
    app.routes[b"/page"] = answer(b"old")
    instance = minato(app, cache={"enabled": True}, admin={"listen": f"127.0.0.1:{admin}"})
    with instance.client() as client:
        assert client.request(target=b"/page").body == b"old"
        instance.upgrade()
        instance.upgrade()
        app.routes[b"/page"] = answer(b"new")
        admin_post(admin, "/purge", {"all": True})
        assert client.request(target=b"/page").body == b"new"


def test_requests_that_wait_for_room_are_served_after_an_upgrade(
    minato: StartMinato, origin: Callable[..., Origin]
) -> None:
    gate = threading.Event()
    app = origin(SlowOrigin(gate=gate))
    instance = minato({"host": app.url, "health_uri": "/health", "max_connections": 1}, workers=2)
    targets = [b"/%d" % number for number in range(8)]
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(ask, instance, targets)
        wait_until(lambda: app.requests, "the first request at the upstream")
        instance.upgrade()
        gate.set()
        assert answers.result(20) == [(200, target) for target in targets]


def test_upgrades_while_workers_are_recycled_lose_nothing(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), workers=2, recycle={"requests": 50, "jitter": 0})
    stop = threading.Event()
    callers = [Caller(instance.port, stop) for _ in range(3)]
    for caller in callers:
        caller.start()
    for _ in range(2):
        instance.wait_for_log("is replaced", 20, len(instance.lines))
        instance.upgrade()
    stop.set()
    for caller in callers:
        caller.join(10)
    assert [failure for caller in callers for failure in caller.failures] == []
    assert all(caller.answers > 50 for caller in callers)
