"""What is known of upstreams, and what ties clients to them, over an upgrade: names, ejections, drains, sessions."""

from __future__ import annotations

import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import psutil
import pytest

from .harness import App, Client, Minato, Origin, fetch, free_port, make_config, request_bytes, service, wait_until
from .harness.apps import Apps, address
from .harness.names import Names
from .test_affinity import HASHED, STICKY, TARGETS, begin_session, where
from .test_names import DNS, HEALTH, Load, wait_for_answers, who
from .test_outliers import PROBED, SHORT, ask, drop, spread, state_of
from .test_upgrade_seams import wait_taken_over

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]
MakeOrigin = Callable[..., Origin]


# -- names


def test_name_that_changes_while_the_new_master_boots_loses_no_request(
    minato: StartMinato, apps: Apps, names: Names
) -> None:
    instance = minato(apps.upstream(), names=names, workers=2, dns=DNS, health=HEALTH)
    with Load(instance.port) as load:
        for letter in "bcd":
            load.wait_for(load_letter := next(iter(who(instance))))
            assert load_letter != letter
            since = len(instance.lines)
            instance.signal(signal.SIGUSR2)
            names.set(app=[address(letter)])
            wait_taken_over(instance, since)
            wait_for_answers(instance, letter)
    assert load.failures == []


def test_address_that_drains_and_leaves_its_name_before_an_upgrade_begins_anew_later(
    minato: StartMinato, apps: Apps, names: Names
) -> None:
    """What an address was is forgotten when its name loses it; so it is where that happens as masters change."""
    names.set(app=[address("a"), address("b")])
    admin = free_port()
    sections = {"dns": DNS, "health": HEALTH, "admin": {"listen": f"127.0.0.1:{admin}"}}
    instance = minato(apps.upstream(), names=names, **sections)
    drained = f"http://app.test:{apps.port} [{address('b')}]"
    assert ask(admin, b"/drain", {"upstream": drained})[0] == 200
    assert set(who(instance, 8)) == {"a"}
    since = len(instance.lines)
    with instance.client() as client:
        client.request(target=b"/who")
        names.set(app=[address("a")])  # for the new master from the start
        instance.signal(signal.SIGUSR2)
        wait_taken_over(instance, since)
    wait_for_answers(instance, "a")
    time.sleep(3 * DNS["interval"])
    names.set(app=[address("a"), address("b")])
    wait_for_answers(instance, "a", "b")


# -- standings


def test_ejections_drains_and_their_times_survive_an_upgrade(minato: StartMinato, origin: MakeApp) -> None:
    bad, leaving, good = origin(name="bad"), origin(name="leaving"), origin(name="good")
    bad.routes[b"/"] = drop
    admin = free_port()
    instance = minato(
        *(bad, leaving, good),
        health=PROBED,
        passive_health=SHORT | {"eject": 60},
        admin={"listen": f"127.0.0.1:{admin}"},
    )
    spread(instance.port, 15)
    instance.wait_for_log("is ejected")
    assert ask(admin, b"/drain", {"upstream": leaving.url})[0] == 200
    left_s = state_of(admin, bad)["ejected_for_s"]
    instance.upgrade()
    instance.upgrade()
    assert set(spread(instance.port, 10)) == {b"good"}
    told = state_of(admin, bad)
    assert (told["state"], told["ejections"]) == ("ejected", 1)
    assert left_s - 30 < told["ejected_for_s"] < left_s
    assert state_of(admin, leaving)["state"] == "draining"
    assert ask(admin, b"/undrain", {"upstream": leaving.url})[0] == 200
    assert set(spread(instance.port, 10)) == {b"good", b"leaving"}


def test_slow_start_goes_on_over_an_upgrade(minato: StartMinato, origin: MakeApp) -> None:
    warm, cold = origin(name="warm"), origin(name="cold")
    instance = minato(warm, cold, health=PROBED | {"slow_start": 60})
    cold.health.status = b"500 Sick"
    instance.wait_for_log(rf"{cold.url}/health is down")
    cold.health.status = b"200 OK"
    instance.wait_for_log(rf"{cold.url}/health is up again")
    instance.upgrade()
    with instance.client() as client:
        first = Counter(client.request().get(b"x-origin") for _ in range(200))
    assert 0 < first[b"cold"] < 70


def test_drain_reaches_the_workers_that_drain_for_older_masters(minato: StartMinato, origin: MakeApp) -> None:
    """A kept connection may send one more request there."""
    a, b, admin = origin(name="a"), origin(name="b"), free_port()
    instance = minato(a, b, admin={"listen": f"127.0.0.1:{admin}"}, timeouts={"drain": 60})
    kept = [Client(instance.port) for _ in range(6)]
    try:
        assert {client.request().get(b"x-origin") for client in kept} == {b"a", b"b"}
        instance.upgrade()
        instance.upgrade()
        assert ask(admin, b"/drain", {"upstream": a.url})[0] == 200
        answers = [client.request() for client in kept]
        assert {answer.get(b"x-origin") for answer in answers} == {b"b"}
        assert all(answer.says_close() for answer in answers)
    finally:
        for client in kept:
            client.close()


def test_drain_that_is_asked_of_the_old_master_while_it_hands_over_is_the_new_ones(
    minato: StartMinato, origin: MakeApp
) -> None:
    a, b, admin = origin(name="a"), origin(name="b"), free_port()
    instance = minato(a, b, admin={"listen": f"127.0.0.1:{admin}"})
    (worker,) = instance.workers()
    worker.suspend()  # so that handing over takes its two seconds
    since = len(instance.lines)
    instance.signal(signal.SIGUSR2)
    line = instance.wait_for_log("those of this one drain", 20, since)
    # Both masters have the admin API's socket: with the new one stopped, the old one answers.
    instance.remember_children()
    new = psutil.Process(int(re.findall(r"pid (\d+)", line)[0]))
    new.suspend()
    status, told = ask(admin, b"/drain", {"upstream": a.url})
    assert (status, told["open"], told["missing"]) == (504, {"test": 1}, 1)
    new.resume()
    worker.resume()
    wait_taken_over(instance, since)
    assert set(spread(instance.port, 8)) == {b"b"}
    assert state_of(admin, a)["state"] == "draining"


# -- the admin API


def test_admin_api_moves_with_an_upgrade(minato: StartMinato, origin: MakeApp) -> None:
    app, old, new = origin(), free_port(), free_port()
    instance = minato(app, admin={"listen": f"127.0.0.1:{old}"})
    with instance.client() as stream:
        stream.send(request_bytes(target=b"/slow"))  # has the old master drain
        app.wait_requests(1)
        instance.write_config(make_config([service(instance.port, [app])], admin={"listen": f"127.0.0.1:{new}"}))
        instance.upgrade()
        assert ask(new, b"/drain", {"upstream": app.url})[0] == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", old), 5).close()
        instance.write_config(make_config([service(instance.port, [app])], admin={"listen": "off"}))
        instance.upgrade()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", new), 5).close()
        app.gate.set()
        assert stream.receive().body == b"slow\n"


def test_admin_address_in_use_leaves_the_old_master(minato: StartMinato, origin: MakeApp) -> None:
    app, admin = origin(), free_port()
    instance = minato(app, admin={"listen": f"127.0.0.1:{admin}"})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        instance.write_config(make_config([service(instance.port, [app])], admin={"listen": listen}))
        instance.signal(signal.SIGUSR2)
        instance.wait_for_log("upgrade given up", 20)
    assert fetch(instance.port).status == 200
    assert ask(admin, b"/drain", {"upstream": app.url})[0] == 200


# -- affinity, caps


def test_keys_and_sessions_stay_over_an_upgrade(minato: StartMinato, origin: MakeApp) -> None:
    three = [origin(name=name) for name in "abc"]
    port = free_port()
    services = [
        service(free_port(), three, **STICKY),
        service(port, three, name="hashed", **HASHED),
    ]
    instance = minato(services=services, workers=2)
    begun = [begin_session(instance.port) for _ in range(9)]
    keys = [where(port, target) for target in TARGETS]
    instance.upgrade()
    assert all(where(instance.port, b"/", cookie) == name for cookie, name in begun)
    assert [where(port, target) for target in TARGETS] == keys


# -- signals


def test_ttin_and_ttou_while_an_upgrade_is_under_way_change_nothing(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app, workers=2, recycle={"requests": 30, "jitter": 0})
    stop = threading.Event()
    failures: list[str] = []

    def keep_asking() -> None:
        while not stop.is_set():
            try:
                assert fetch(instance.port).status == 200
            except Exception as error:
                failures.append(repr(error))

    threads = [threading.Thread(target=keep_asking) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGTTIN):
                instance.signal(number)
            wait_until(lambda: len(instance.workers(max(instance.generations()))) >= 3, "a worker more")
            since = len(instance.lines)
            instance.signal(signal.SIGUSR2)
            instance.wait_for_log("upgrading: starting", 10, since)
            for number in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP, signal.SIGTTOU):
                instance.signal(number)
            wait_taken_over(instance, since)
            instance.wait_for_log("generation 2 serves", 20, since)  # the HUP that waited
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert failures == []
    masters = [psutil.Process(pid) for pid in instance.masters[:-1] if psutil.pid_exists(pid)]
    wait_until(lambda: not any(one.is_running() and one.status() != "zombie" for one in masters), "the old ones' end")
    instance.wait_ready()
    wait_until(lambda: len(instance.workers()) == 2, "as many as the command line says", 20)
