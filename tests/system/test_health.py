"""Issue line 5, health: dead at start, failing, recovering, hanging, thresholds, expected statuses, probes by https."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from .harness import App, Minato, fetch, free_port, wait_until
from .harness.tls import Authority, unknown_server

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]

# Often; but whoever answers has time to, however busy the machine is.
QUICK = {"interval": 0.3, "tcp_timeout": 3, "http_timeout": 3}


def who(instance: Minato) -> bytes | int:
    response = fetch(instance.port)
    return response.get(b"x-origin") or response.status


def test_upstream_dead_at_start_gets_no_traffic(minato: StartMinato, origin: MakeApp) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    instance = minato(dead, origin(name="alive"), service_keys={"retries": 0})
    assert [who(instance) for _ in range(10)] == [b"alive"] * 10
    assert len(instance.find_log(r"upstream .* is down: .*refused")) == 1


def test_no_healthy_upstream_is_503_with_retry_after(minato: StartMinato) -> None:
    instance = minato(f"http://127.0.0.1:{free_port()}")
    response = fetch(instance.port)
    assert response.status == 503
    assert int(response.get(b"retry-after") or b"0") >= 1
    assert b"127.0.0.1" not in response.body


def test_failing_upstream_is_removed_and_comes_back(minato: StartMinato, origin: MakeApp) -> None:
    a, b = origin(name="a"), origin(name="b")
    instance = minato(a, b, health=QUICK)
    assert {who(instance) for _ in range(4)} == {b"a", b"b"}
    a.health.status = b"500 Sick"
    instance.wait_for_log(rf"upstream {a.url}/health is down: .*500")
    assert [who(instance) for _ in range(10)] == [b"b"] * 10
    a.health.status = b"200 OK"
    instance.wait_for_log(rf"upstream {a.url}/health is up again")
    assert {who(instance) for _ in range(4)} == {b"a", b"b"}


def test_a_change_is_logged_once(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app, health=QUICK)
    app.health.status = b"503 Sick"
    instance.wait_for_log(r"is down")
    probes = app.health.probes
    app.wait_for(lambda: app.health.probes >= probes + 3, "three more probes")
    assert len(instance.find_log(r"is down")) == 1
    app.health.status = b"200 OK"
    instance.wait_for_log(r"is up again")
    probes = app.health.probes
    app.wait_for(lambda: app.health.probes >= probes + 3, "three more probes")
    assert len(instance.find_log(r"is up again")) == 1


def test_stopped_upstream_is_noticed_and_recovers(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, health=QUICK)
    app.stop()
    instance.wait_for_log(r"is down")
    assert fetch(instance.port).status == 503
    app.start()
    instance.wait_for_log(r"is up again")
    assert who(instance) == b"a"


def test_probe_that_hangs_counts_as_failed_and_delays_no_other(minato: StartMinato, origin: MakeApp) -> None:
    hanging = [origin(name=f"h{n}") for n in range(8)]
    for app in hanging:
        app.health.hang = True
    good = origin(name="good")
    began_s = time.monotonic()
    instance = minato(*hanging, good, health={"interval": 0.5, "tcp_timeout": 1, "http_timeout": 2})
    assert time.monotonic() - began_s < 12  # side by side: one http_timeout, not eight
    assert len(instance.find_log(r"is down: .*")) == 8
    assert [who(instance) for _ in range(5)] == [b"good"] * 5
    good.health.status = b"500 Sick"
    probes = good.health.probes
    good.wait_for(lambda: good.health.probes >= probes + 3, "probes on time", timeout_s=5)
    instance.wait_for_log(rf"{good.url}/health is down")


def test_upstream_that_accepts_no_connection_is_down_at_start(minato: StartMinato, origin: MakeApp) -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        instance = minato(f"http://127.0.0.1:{port}", origin(name="good"), health={"interval": 5, "tcp_timeout": 0.5})
        assert [who(instance) for _ in range(4)] == [b"good"] * 4
        for filler in fillers:
            filler.close()


def test_rise_and_fall_ask_for_several_results(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, health=QUICK | {"rise": 3, "fall": 3})
    app.health.status = b"500 Sick"
    probes = app.health.probes
    instance.wait_for_log(r"is down")
    assert app.health.probes - probes >= 3
    app.health.status = b"200 OK"
    probes = app.health.probes
    instance.wait_for_log(r"is up again")
    assert app.health.probes - probes >= 3


def test_one_failed_probe_ejects_nobody_when_fall_is_two(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, health=QUICK | {"fall": 2})
    probes = app.health.probes
    app.health.once.append(b"500 Sick")
    app.wait_for(lambda: app.health.probes >= probes + 3, "more probes")
    assert instance.find_log(r"is down") == [] and who(instance) == b"a"


@pytest.mark.parametrize(("expect", "healthy"), [("200", False), ("200-399", True), ("200,301", True), ("204", False)])
def test_expect_says_which_statuses_are_healthy(
    minato: StartMinato, origin: MakeApp, expect: str, healthy: bool
) -> None:
    app = origin(name="a")
    app.health.status = b"301 Moved"
    assert who(minato(app, health={"expect": expect})) == (b"a" if healthy else 503)


def test_probe_is_a_proper_request(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    minato(app)
    head = app.health.heads[0]
    assert head.startswith(b"GET /health HTTP/1.1\r\n")
    assert b"\r\nhost: 127.0.0.1:%d\r\n" % app.port in head.lower()


def test_https_upstream_is_probed_by_https(minato: StartMinato, origin: MakeApp, authority: Authority) -> None:
    good = origin(name="good", tls=authority.server("127.0.0.1"))
    bad = origin(name="bad", tls=unknown_server("127.0.0.1"))
    instance = minato(good, bad, env=authority.env)
    assert good.health.probes == 1 and bad.health.probes == 0
    assert len(instance.find_log(rf"upstream {bad.url}/health is down: .*certificate")) == 1
    assert [who(instance) for _ in range(4)] == [b"good"] * 4


def test_services_that_name_the_same_server_share_its_probes(minato: StartMinato, origin: MakeApp) -> None:
    from .harness import service

    app, port = origin(), free_port()
    minato(services=[service(port, [app], name=f"s{n}", hosts=[f"http://h{n}.test/"]) for n in range(5)])
    assert app.health.probes == 1


def test_refused_connection_counts_at_once(minato: StartMinato, origin: MakeApp) -> None:
    a, b = origin(name="a"), origin(name="b")
    instance = minato(a, b, health={"interval": 3})
    a.stop()
    assert [who(instance) for _ in range(6)] == [b"b"] * 6  # retried on the other one
    instance.wait_for_log(rf"upstream {a.url}/health is down: .*refused", timeout_s=1.5)
    a.start()
    instance.wait_for_log(rf"upstream {a.url}/health is up again", timeout_s=8)
    assert {who(instance) for _ in range(4)} == {b"a", b"b"}


def test_probes_go_on_during_forks_and_signals(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    hanging = origin()
    hanging.health.hang = True
    instance = minato(app, hanging, health=QUICK | {"http_timeout": 1})
    for _ in range(5):
        instance.reload()
    probes = app.health.probes
    app.wait_for(lambda: app.health.probes >= probes + 2, "probes after five reloads")
    wait_until(lambda: len(instance.generations()) == 1, "old generations to end")
