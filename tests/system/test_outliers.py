"""Upstreams whose requests fail, that recover, stand by or are about to leave: real origins, and what the log says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from .harness import App, Client, Minato, OriginConnection, Request, fetch, free_port, request_bytes, wait_until
from .harness.proxy import run_minato

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]

# Probes often, so that nobody waits long for the one that ends an ejection.
PROBED = {"interval": 0.2, "tcp_timeout": 3, "http_timeout": 3}
SHORT = {"eject": 2, "consecutive": 3}


def spread(port: int, number: int) -> Counter[bytes | int]:
    """Who answered that many requests, each on a connection of its own; a status where it was nobody."""
    seen: Counter[bytes | int] = Counter()
    for _ in range(number):
        response = fetch(port)
        seen[response.get(b"x-origin") or response.status] += 1
    return seen


def drop(connection: OriginConnection, request: Request) -> None:
    connection.reset()


def hang(connection: OriginConnection, request: Request) -> None:
    connection.wait_closed()


def sick(app: App) -> bytes:
    return b"HTTP/1.1 500 Sick\r\nX-Origin: %b\r\nContent-Length: 0\r\n\r\n" % app.name.encode()


def state_of(admin: int, app: App) -> dict[str, Any]:
    told = json.loads(fetch(admin, b"/upstreams", host=b"localhost").body)["upstreams"]
    (one,) = [upstream for upstream in told if upstream["url"] == app.url]
    assert isinstance(one, dict)
    return one


def ask(admin: int, path: bytes, content: Any) -> tuple[int, dict[str, Any]]:
    fields = [(b"Content-Type", b"application/json")]
    response = fetch(admin, path, method=b"POST", host=b"localhost", fields=fields, body=json.dumps(content).encode())
    return response.status, json.loads(response.body)


# Ejection


def test_an_upstream_that_resets_is_ejected_and_comes_back(minato: StartMinato, origin: MakeApp) -> None:
    bad, good = origin(name="bad"), origin(name="good")
    bad.routes[b"/"] = drop
    instance = minato(bad, good, health=PROBED, passive_health=SHORT)
    assert set(spread(instance.port, 10)) == {b"good"}  # sent once more, each of them
    instance.wait_for_log(rf"upstream {bad.url}/health is ejected for 2 s: 3 failures in a row")
    before = bad.hits[b"/"]
    assert set(spread(instance.port, 10)) == {b"good"} and bad.hits[b"/"] == before
    del bad.routes[b"/"]
    instance.wait_for_log(rf"upstream {bad.url}/health is back after its ejection")
    assert spread(instance.port, 10)[b"bad"] == 5
    assert not instance.find_log(rf"{bad.url}/health is down")


def test_an_upstream_that_hangs_is_ejected(minato: StartMinato, origin: MakeApp) -> None:
    bad, good = origin(name="bad"), origin(name="good")
    bad.routes[b"/"] = hang
    instance = minato(bad, good, health=PROBED, passive_health=SHORT | {"eject": 60}, timeouts={"response": 0.5})
    assert set(spread(instance.port, 6)) == {b"good"}
    instance.wait_for_log(rf"upstream {bad.url}/health is ejected for 60 s")


def test_a_retry_that_finds_nobody_else_goes_to_one_that_is_ejected_and_well_again(
    minato: StartMinato, origin: MakeApp
) -> None:
    healed, fails = origin(name="healed"), origin(name="fails")
    healed.routes[b"/"] = drop
    instance = minato(healed, fails, health=PROBED, passive_health=SHORT | {"eject": 60})
    assert set(spread(instance.port, 10)) == {b"fails"}
    instance.wait_for_log(rf"upstream {healed.url}/health is ejected for 60 s")
    del healed.routes[b"/"]
    fails.routes[b"/"] = drop
    assert set(spread(instance.port, 4)) == {b"healed"}
    healed.routes[b"/"] = drop
    assert set(spread(instance.port, 1)) == {502}


def test_statuses_eject_where_the_config_says_so(minato: StartMinato, origin: MakeApp) -> None:
    bad, good = origin(name="bad"), origin(name="good")
    bad.routes[b"/"] = sick(bad)
    instance = minato(bad, good, workers=2, health=PROBED, passive_health=SHORT | {"statuses": "500-599", "eject": 60})
    spread(instance.port, 20)
    instance.wait_for_log(rf"upstream {bad.url}/health is ejected for 60 s: 3 failures in a row")
    assert set(spread(instance.port, 6)) == {b"good"}


def test_statuses_do_not_eject_by_themselves(minato: StartMinato, origin: MakeApp) -> None:
    bad, good = origin(name="bad"), origin(name="good")
    bad.routes[b"/"] = sick(bad)
    instance = minato(bad, good, passive_health=SHORT)
    assert spread(instance.port, 20) == {b"bad": 10, b"good": 10}
    assert not instance.find_log("eject")


def test_a_share_of_failures_ejects_over_all_workers(minato: StartMinato, origin: MakeApp) -> None:
    bad, good = origin(name="bad"), origin(name="good")

    def by_turns(connection: OriginConnection, request: Request) -> None:
        if bad.hits[b"/"] % 2:
            connection.reset()
        else:
            connection.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    bad.routes[b"/"] = by_turns
    rules = {"consecutive": 0, "error_rate": 0.3, "min_requests": 10, "window": 5, "eject": 60}
    instance = minato(bad, good, workers=2, health=PROBED, passive_health=rules)
    spread(instance.port, 40)
    line = instance.wait_for_log(rf"upstream {bad.url}/health is ejected for 60 s: ")
    assert re.search(r": \d+ of \d+ requests failed within 5 s$", line)


def test_the_only_upstream_keeps_its_traffic_and_the_log_says_why(minato: StartMinato, origin: MakeApp) -> None:
    only = origin(name="only")
    only.routes[b"/"] = drop
    instance = minato(only, health=PROBED, passive_health=SHORT)
    assert set(spread(instance.port, 12)) == {502}
    instance.wait_for_log(rf"upstream {only.url}/health fails \(3 failures in a row\), but is not ejected: no other")
    assert only.hits[b"/"] >= 12
    del only.routes[b"/"]
    assert set(spread(instance.port, 3)) == {b"only"}
    assert len(instance.find_log("is not ejected")) == 1


def test_an_ejection_ends_early_when_the_other_one_goes_down(minato: StartMinato, origin: MakeApp) -> None:
    bad, good = origin(name="bad"), origin(name="good")
    bad.routes[b"/"] = drop
    instance = minato(bad, good, health=PROBED, passive_health=SHORT | {"eject": 60})
    spread(instance.port, 10)
    instance.wait_for_log("is ejected")
    del bad.routes[b"/"]
    good.stop()
    instance.wait_for_log(rf"upstream {bad.url}/health is back early: no other upstream of service test is open")
    assert fetch(instance.port).get(b"x-origin") == b"bad"


def test_ejections_drains_and_marks_survive_a_reload(minato: StartMinato, origin: MakeApp) -> None:
    bad, leaving, good = origin(name="bad"), origin(name="leaving"), origin(name="good")
    bad.routes[b"/"] = drop
    admin = free_port()
    instance = minato(
        bad,
        leaving,
        good,
        health=PROBED,
        passive_health=SHORT | {"eject": 60},
        admin={"listen": f"127.0.0.1:{admin}"},
    )
    spread(instance.port, 15)
    instance.wait_for_log("is ejected")
    assert ask(admin, b"/drain", {"upstream": leaving.url})[0] == 200
    instance.reload()
    assert set(spread(instance.port, 10)) == {b"good"}
    assert (state_of(admin, bad)["state"], state_of(admin, leaving)["state"]) == ("ejected", "draining")


# Backups and slow start


def test_a_backup_gets_traffic_only_while_nobody_else_can_take_it(minato: StartMinato, origin: MakeApp) -> None:
    main, spare = origin(name="main"), origin(name="spare")
    instance = minato(
        {"host": main.url, "health_uri": "/health"},
        {"host": spare.url, "health_uri": "/health", "backup": True},
        health=PROBED,
    )
    assert set(spread(instance.port, 10)) == {b"main"}
    main.routes[b"/"] = drop
    assert set(spread(instance.port, 2)) == {b"spare"}  # what failed goes to the backup
    del main.routes[b"/"]
    main.health.status = b"500 Sick"
    instance.wait_for_log(rf"{main.url}/health is down")
    assert set(spread(instance.port, 10)) == {b"spare"}
    main.health.status = b"200 OK"
    instance.wait_for_log(rf"{main.url}/health is up again")
    assert set(spread(instance.port, 10)) == {b"main"}


def test_a_recovered_upstream_gets_little_at_first_and_all_in_the_end(minato: StartMinato, origin: MakeApp) -> None:
    warm, cold = origin(name="warm"), origin(name="cold")
    instance = minato(warm, cold, health=PROBED | {"slow_start": 4})
    assert spread(instance.port, 40)[b"cold"] == 20  # nobody has recovered at the start
    cold.health.status = b"500 Sick"
    instance.wait_for_log(rf"{cold.url}/health is down")
    cold.health.status = b"200 OK"
    instance.wait_for_log(rf"{cold.url}/health is up again")
    with instance.client() as client:
        first = Counter(client.request().get(b"x-origin") for _ in range(100))
    assert first[b"cold"] < 30  # 10 by the share of the first moment

    def has_its_share() -> bool:
        with instance.client() as client:
            return Counter(client.request().get(b"x-origin") for _ in range(40))[b"cold"] == 20

    wait_until(has_its_share, "its whole share")


# Drains


def test_a_drained_upstream_gets_nothing_new_in_any_worker_and_finishes_what_it_has(
    minato: StartMinato, origin: MakeApp
) -> None:
    leaving, staying = origin(name="leaving"), origin(name="staying")
    admin = free_port()
    instance = minato(leaving, staying, workers=3, admin={"listen": f"127.0.0.1:{admin}"})
    with Client(instance.port) as first, Client(instance.port) as second:
        for client in (first, second):
            client.send(request_bytes(target=b"/slow"))
        wait_until(lambda: leaving.hits.get(b"/slow", 0) + staying.hits.get(b"/slow", 0) == 2, "the slow requests")
        held = leaving.hits.get(b"/slow", 0)
        status, answer = ask(admin, b"/drain", {"upstream": leaving.url})
        assert (status, answer) == (200, {"draining": [f"{leaving.url}/health"], "open": {"test": 1}})
        before = leaving.hits.get(b"/", 0)
        assert set(spread(instance.port, 20)) == {b"staying"} and leaving.hits.get(b"/", 0) == before
        told = state_of(admin, leaving)
        assert (told["state"], told["reason"], told["active"]) == ("draining", "asked by the admin API", held)
        leaving.gate.set()
        staying.gate.set()
        assert [client.receive().status for client in (first, second)] == [200, 200]
    instance.wait_for_log(rf"upstream {leaving.url}/health drains: asked by the admin API")
    assert ask(admin, b"/undrain", {"upstream": [leaving.url]})[1]["open"] == {"test": 2}
    assert spread(instance.port, 20)[b"leaving"]


def test_drain_from_the_command_line(minato: StartMinato, origin: MakeApp) -> None:
    leaving, staying = origin(name="leaving"), origin(name="staying")
    instance = minato(leaving, staying, admin={"listen": f"127.0.0.1:{free_port()}"})
    config = str(instance.config_path)
    done = run_minato("drain", leaving.url, "--config", config)
    assert (done.returncode, done.stdout) == (0, "test: 1 upstreams get new requests\n")
    assert set(spread(instance.port, 6)) == {b"staying"}
    assert run_minato("drain", leaving.url, "--undo", "--config", config).returncode == 0
    assert spread(instance.port, 6)[b"leaving"] == 3
    wrong = run_minato("drain", "http://nobody", "--config", config)
    assert wrong.returncode == 1 and "no upstream is called" in wrong.stderr


@pytest.mark.parametrize("status", [b"404 Leaving", b"503 Leaving"])
def test_a_health_check_may_say_that_its_upstream_drains(minato: StartMinato, origin: MakeApp, status: bytes) -> None:
    leaving, staying = origin(name="leaving"), origin(name="staying")
    instance = minato(leaving, staying, health=PROBED | {"drain": "404,503"})
    leaving.health.status = status
    instance.wait_for_log(rf"upstream {leaving.url}/health drains: its health check says {status[:3].decode()}")
    assert set(spread(instance.port, 6)) == {b"staying"}
    assert not instance.find_log("is down")
    staying.health.status = status
    instance.wait_for_log(rf"upstream {staying.url}/health drains")
    assert fetch(instance.port).status == 503
    leaving.health.status = b"200 OK"
    instance.wait_for_log(rf"upstream {leaving.url}/health drains no more")
    assert set(spread(instance.port, 6)) == {b"leaving"}


def test_a_drain_that_is_asked_wrongly_changes_nothing(minato: StartMinato, origin: MakeApp) -> None:
    app, admin = origin(name="app"), free_port()
    instance = minato(app, admin={"listen": f"127.0.0.1:{admin}"})
    for content in (
        {},
        [],
        {"upstream": 5},
        {"upstream": []},
        {"upstream": [app.url, ""]},
        {"upstream": app.url, "service": "test"},
        {"upstream": [app.url] * 300},
    ):
        status, answer = ask(admin, b"/drain", content)
        assert status == 400 and answer["error"], content
    status, answer = ask(admin, b"/drain", {"upstream": [app.url, "http://nobody"]})
    assert status == 404 and app.url in answer["error"]
    assert fetch(admin, b"/drain", host=b"localhost").status == 405
    assert spread(instance.port, 2) == {b"app": 2}


def test_a_pooled_connection_gone_stale_sends_nobody_to_a_backup(minato: StartMinato, origin: MakeApp) -> None:
    main, spare = origin(name="main"), origin(name="spare")
    answered: set[int] = set()

    def once(connection: OriginConnection, request: Request) -> None:
        if connection.number in answered:
            connection.close()
            return
        answered.add(connection.number)
        connection.send(b"HTTP/1.1 200 OK\r\nX-Origin: main\r\nContent-Length: 0\r\n\r\n")

    main.routes[b"/"] = once
    instance = minato(main, {"host": spare.url, "health_uri": "/health", "backup": True})
    assert spread(instance.port, 8) == {b"main": 8}
    assert len(answered) == 8
