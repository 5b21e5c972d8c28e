"""The admin API of real processes (the server is the stand-in): purges reach every worker, whatever these do."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from minato.control.purges import WAIT_S
from tests.control.runner import WAIT_S as PATIENCE_S
from tests.control.runner import Instance, ask, connect, finish, wait_refused, write_config
from tests.ports import free_port

Start = Callable[..., Instance]
ALL = {"all": True}


def write(config: Path, port: int, admin: int | None, workers: int = 2, extra: str = "") -> None:
    listen = "off" if admin is None else f"127.0.0.1:{admin}"
    write_config(config, port, workers=workers, extra=f'admin: {{listen: "{listen}"}}\n{extra}')


@pytest.fixture
def port(config: Path) -> int:
    return free_port()


@pytest.fixture
def admin(config: Path, port: int) -> int:
    admin = free_port()
    write(config, port, admin)
    return admin


@pytest.fixture
def minato(start: Start, config: Path, port: int, admin: int) -> Instance:
    return start_serving(start, config)


def start_serving(start: Start, config: Path) -> Instance:
    """Start, and wait until each worker has said so itself: it would not any more, were it stopped or killed first."""
    instance = start(config)
    instance.wait_ready()
    for slot in range(2):
        instance.wait_for(f"worker {slot} gen 1 serves")
    return instance


def call(admin: int, method: str, path: str, content: Any = None) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=PATIENCE_S)
    body = None if content is None else json.dumps(content)
    connection.request(method, path, body, {} if body is None else {"Content-Type": "application/json"})
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def purge(admin: int, content: Any = ALL) -> tuple[int, dict[str, Any]]:
    return call(admin, "POST", "/purge", content)


def standin_purges(minato: Instance) -> list[str]:
    return [line.removeprefix("standin: purge ") for line in minato.log if line.startswith("standin: purge ")]


def test_purge_reaches_every_worker_before_it_is_answered(minato: Instance, admin: int) -> None:
    assert purge(admin, {"url": "http://A.test/x", "tag": ["t", "u"], "soft": True}) == (
        200,
        {"purged": 6, "workers": 2},
    )
    minato.wait_for("purged url http://a.test/x and 2 more, soft: 6 found by 2 workers")
    assert sorted(standin_purges(minato)) == sorted(["url http://a.test/x soft", "tag t soft", "tag u soft"] * 2)


def test_largest_purge_there_can_be_reaches_the_workers(minato: Instance, admin: int) -> None:
    urls = [f"http://{i:03}.test/" + '"\\'[i % 2] * 300 for i in range(64)]
    assert purge(admin, {"url": urls}) == (200, {"purged": 128, "workers": 2})
    minato.wait_for(rf"^standin: purge url {re.escape(urls[63])}$", count=2)  # said before, but perhaps not read yet


def test_health_says_how_many_workers_serve(minato: Instance, admin: int) -> None:
    assert call(admin, "GET", "/health") == (200, {"status": "ok", "workers": 2})


def test_health_says_that_workers_start(start: Start, config: Path, port: int, admin: int, tmp_path: Path) -> None:
    (tmp_path / "boot-hangs").touch()
    minato = start(config)
    minato.wait_workers("0 gen 1", "1 gen 1")
    assert call(admin, "GET", "/health") == (503, {"status": "starting", "workers": 0})
    assert purge(admin) == (200, {"purged": 0, "workers": 0})
    (tmp_path / "boot-hangs").unlink()
    minato.wait_ready()
    assert call(admin, "GET", "/health") == (200, {"status": "ok", "workers": 2})


def test_off_is_off(start: Start, config: Path, port: int) -> None:
    admin = free_port()
    write(config, port, None)
    start(config).wait_ready()
    with pytest.raises(ConnectionRefusedError):
        connect(admin)


def test_address_in_use_is_one_clear_line_and_exit_status_1(start: Start, config: Path, port: int, admin: int) -> None:
    with socket.create_server(("127.0.0.1", admin)):
        minato = start(config)
        assert minato.wait_exit() == 1
    minato.wait_for(f"^minato: cannot listen on 127.0.0.1:{admin}: address already in use$")
    assert minato.segments() == []


def test_generation_that_drains_is_asked_as_well(minato: Instance, port: int, admin: int) -> None:
    with connect(port) as slow:
        minato.wait_accepted(slow)
        minato.signal(signal.SIGHUP)
        minato.wait_for("generation 2 serves")
        status, answer = purge(admin)
        assert finish(slow)["gen"] == "1"
    assert (status, answer) == (200, {"purged": 3, "workers": 3})


def test_stopped_worker_is_missing_and_purges_when_it_goes_on(
    start: Start, config: Path, port: int, admin: int
) -> None:
    write(config, port, admin, extra="timeouts: {heartbeat: 60}")
    minato = start(config)
    minato.wait_ready()
    silent, _ = minato.workers()
    silent.suspend()
    begun_s = time.monotonic()
    status, answer = purge(admin)
    assert 0.9 * WAIT_S < time.monotonic() - begun_s < WAIT_S + 5
    assert (status, answer.pop("error")[:20]) == (504, "not every worker con")
    assert answer == {"purged": 1, "workers": 1, "missing": 1}
    minato.wait_for(rf"not confirmed within 2 s by the workers with pid {silent.pid}$")
    silent.resume()
    minato.wait_for("^standin: purge all", count=2)
    assert purge(admin) == (200, {"purged": 2, "workers": 2})


def test_purges_that_a_stopped_worker_has_no_room_for_become_one_of_all(
    start: Start, config: Path, port: int, admin: int
) -> None:
    write(config, port, admin, extra="timeouts: {heartbeat: 60}")
    minato = start(config)
    minato.wait_ready()
    silent, _ = minato.workers()
    silent.suspend()
    long = "x" * 40_000

    def ask_for(number: int) -> None:
        assert purge(admin, {"url": f"http://a.test/{number}/{long}"})[0] == 504

    threads = [threading.Thread(target=ask_for, args=[number]) for number in range(12)]
    for count, thread in enumerate(threads, 1):
        thread.start()
        # All at once might be too many for the other worker, too, if it has little time just now.
        minato.wait_for("^standin: purge url", count=count)
    for thread in threads:
        thread.join()
    assert len(standin_purges(minato)) == 12
    minato.signal(signal.SIGUSR1)  # there is room for other commands
    silent.resume()
    minato.wait_for("^standin: purge all")
    minato.wait_for("standin: reopened logs", count=2)
    assert 12 < len(standin_purges(minato)) < 24
    assert purge(admin) == (200, {"purged": 2, "workers": 2})


def test_worker_that_is_killed_meanwhile_is_not_waited_for(start: Start, config: Path, port: int, admin: int) -> None:
    write(config, port, admin, extra="timeouts: {heartbeat: 60}")
    minato = start_serving(start, config)
    victim, _ = minato.workers()
    victim.suspend()
    answers: list[tuple[int, dict[str, Any]]] = []
    asker = threading.Thread(target=lambda: answers.append(purge(admin)))
    asker.start()
    minato.wait_for("^standin: purge all")
    victim.kill()
    asker.join()
    assert answers == [(200, {"purged": 1, "workers": 1})]
    minato.wait_for("worker 0 gen 1 serves", count=2)
    assert purge(admin) == (200, {"purged": 2, "workers": 2})


def test_worker_that_is_about_to_start_is_not_waited_for(
    start: Start, config: Path, port: int, admin: int, tmp_path: Path
) -> None:
    minato = start_serving(start, config)
    (tmp_path / "boot-hangs").touch()
    minato.workers()[0].kill()
    minato.wait_for("was killed by SIGKILL")
    minato.wait_workers("0 gen 1", "1 gen 1")
    assert purge(admin) == (200, {"purged": 1, "workers": 1})
    (tmp_path / "boot-hangs").unlink()
    minato.wait_for("worker 0 gen 1 serves", count=2)
    assert purge(admin) == (200, {"purged": 2, "workers": 2})


def test_purges_during_reloads_and_deaths_are_all_answered(minato: Instance, admin: int) -> None:
    over = threading.Event()
    answers: list[tuple[int, dict[str, Any]]] = []
    failures: list[BaseException] = []

    def client() -> None:
        try:
            while not over.is_set():
                answers.append(purge(admin))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2, 6):
        minato.signal(signal.SIGHUP)
        minato.wait_for(f"generation {number} serves")
        minato.workers()[-1].kill()
        minato.wait_for("killed by SIGKILL", count=number - 1)
    over.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {status for status, _ in answers} == {200}
    assert all(1 <= answer["workers"] <= 6 and answer["purged"] == answer["workers"] for _, answer in answers)


def test_pipelined_purges_are_answered_in_order(minato: Instance, admin: int) -> None:
    body = json.dumps({"tag": ["a", "b"]}).encode()
    request = (
        b"POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    )
    one = request % (len(json.dumps(ALL)), json.dumps(ALL).encode())
    with connect(admin) as sock:
        sock.sendall(
            one + request % (len(body), body) + b"GET /health HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n"
        )
        data = b""
        while part := sock.recv(65_536):
            data += part
    bodies = re.findall(rb"\r\n\r\n(\{.*?\})\n", data)
    assert [json.loads(body) for body in bodies] == [
        {"purged": 2, "workers": 2},
        {"purged": 4, "workers": 2},
        {"status": "ok", "workers": 2},
    ]


def test_reload_moves_the_admin_address(minato: Instance, config: Path, port: int, admin: int) -> None:
    other = free_port()
    write(config, port, other)
    with connect(admin) as idle, connect(admin) as begun:
        idle.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 200 OK" in idle.recv(65_536)
        begun.sendall(b"GET /hea")
        time.sleep(0.1)  # no event tells that the master has read it
        minato.signal(signal.SIGHUP)
        minato.wait_for("generation 2 serves")
        assert idle.recv(1) == b""
        begun.sendall(b"lth HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"onnection: close" in begun.recv(65_536)
    assert purge(other)[0] == 200
    with pytest.raises(ConnectionRefusedError):
        connect(admin)
    write(config, port, None)
    minato.signal(signal.SIGHUP)
    minato.wait_for("generation 3 serves")
    with pytest.raises(ConnectionRefusedError):
        connect(other)
    write(config, port, admin)
    minato.signal(signal.SIGHUP)
    minato.wait_for("generation 4 serves")
    assert purge(admin)[0] == 200


def test_reload_to_an_admin_address_in_use_is_given_up(minato: Instance, config: Path, port: int, admin: int) -> None:
    added = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        write_config(config, port, added, extra=f'admin: {{listen: "127.0.0.1:{taken}"}}')
        minato.signal(signal.SIGHUP)
        minato.wait_for(f"cannot listen on 127.0.0.1:{taken}: address already in use")
        minato.wait_for("generation 1 goes on")
    assert purge(admin) == (200, {"purged": 2, "workers": 2})
    with pytest.raises(ConnectionRefusedError):
        connect(added)


def test_reload_that_is_given_up_drops_the_new_admin_address(
    minato: Instance, config: Path, port: int, admin: int, tmp_path: Path
) -> None:
    other = free_port()
    write(config, port, other)
    (tmp_path / "boot-fails").touch()
    minato.signal(signal.SIGHUP)
    minato.wait_for("generation 1 goes on")
    wait_refused(other)
    assert purge(admin)[0] == 200


def test_workers_hold_no_descriptor_of_the_admin_api(minato: Instance, port: int, admin: int) -> None:
    with connect(admin) as open_connection:
        open_connection.sendall(b"GET /hea")
        time.sleep(0.1)
        minato.signal(signal.SIGHUP)
        minato.wait_for("generation 2 serves")
        minato.wait_for("generation 1 is gone")
        for worker in minato.workers():
            assert {item.laddr.port for item in worker.net_connections("tcp")} == {port}
        assert admin in {item.laddr.port for item in psutil.Process(minato.pid).net_connections("tcp")}


def test_admin_port_is_free_while_workers_drain_after_sigterm(minato: Instance, port: int, admin: int) -> None:
    with connect(port) as slow:
        minato.wait_accepted(slow)
        minato.signal(signal.SIGTERM)
        wait_refused(admin)
        with socket.create_server(("127.0.0.1", admin)):
            assert finish(slow)["gen"] == "1"
    assert minato.wait_exit() == 0


def test_purge_under_way_is_answered_though_minato_stops(minato: Instance, admin: int) -> None:
    for worker in minato.workers():
        worker.suspend()
    asker = http.client.HTTPConnection("127.0.0.1", admin, timeout=PATIENCE_S)
    asker.request("POST", "/purge", json.dumps(ALL), {"Content-Type": "application/json"})
    assert call(admin, "GET", "/health")[0] == 200  # it came later, so the purge is under way
    minato.signal(signal.SIGTERM)
    minato.wait_for("stopping: what is in flight")
    for worker in minato.workers():
        worker.resume()
    answer = asker.getresponse()
    assert (answer.status, json.loads(answer.read())) == (200, {"purged": 2, "workers": 2})
    asker.close()
    assert minato.wait_exit() == 0


def test_proxy_serves_and_dead_workers_are_replaced_while_the_admin_api_is_attacked(
    minato: Instance, port: int, admin: int
) -> None:
    over = threading.Event()
    threads = [
        threading.Thread(target=attack, args=[admin, over]) for attack in (_drip, _flood, _garbage, _huge, _bomb)
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            assert ask(port)["gen"] == "1"
            assert purge(admin)[0] == 200
        minato.workers()[0].kill()
        minato.wait_for("worker 0 gen 1 serves", count=2)
        minato.signal(signal.SIGHUP)
        minato.wait_for("generation 2 serves")
        assert purge(admin)[0] == 200
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not any("Traceback" in line or "a bug" in line for line in minato.log)
    assert psutil.Process(minato.pid).memory_info().rss < 150_000_000


def _until(over: threading.Event, attack: Callable[[], None]) -> None:
    while not over.is_set():
        try:
            attack()
        except OSError:
            continue


def _drip(admin: int, over: threading.Event) -> None:
    """Hold more connections than there may be, each with a request that never ends."""

    def attack() -> None:
        socks = [connect(admin) for _ in range(100)]
        for byte in b"GET /health HTTP/1.1\r\nX: ":
            for sock in socks:
                try:
                    sock.send(bytes([byte]))
                except OSError:
                    continue
            time.sleep(0.02)
        for sock in socks:
            sock.close()

    _until(over, attack)


def _flood(admin: int, over: threading.Event) -> None:
    def attack() -> None:
        with connect(admin) as sock:
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 3_000)
            sock.recv(65_536)

    _until(over, attack)


def _garbage(admin: int, over: threading.Event) -> None:
    def attack() -> None:
        with connect(admin) as sock:
            sock.sendall(os.urandom(20_000))
            sock.recv(65_536)

    _until(over, attack)


def _huge(admin: int, over: threading.Event) -> None:
    def attack() -> None:
        with connect(admin) as sock:
            head = b"POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            sock.sendall(head + b"Content-Length: 99999999999\r\n\r\n")
            for _ in range(100):
                sock.sendall(b"x" * 100_000)

    _until(over, attack)


def _bomb(admin: int, over: threading.Event) -> None:
    body = b"[" * 49_000
    head = b"POST /purge HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 49000\r\n\r\n"

    def attack() -> None:
        with connect(admin) as sock:
            sock.sendall(head + body)
            sock.recv(65_536)

    _until(over, attack)
