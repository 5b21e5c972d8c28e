"""Upstreams that are names: their addresses come, go, fail and hang while minato serves; real processes, no DNS."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter as Tally
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import StartMinato
from .harness import App, Client, Minato, fetch, free_port, service, wait_until
from .harness.apps import LETTERS, Apps, address
from .harness.names import HANGS, Names
from .harness.tls import Authority

# Whoever answers has time to, however busy the machine is.
DNS = {"interval": 0.1, "timeout": 5}
HANGING = DNS | {"timeout": 0.5}
HEALTH = {"interval": 0.2, "tcp_timeout": 3, "http_timeout": 3}

Start = Callable[..., Minato]


@pytest.fixture
def start(minato: StartMinato, apps: Apps, names: Names) -> Start:
    def start_minato(*upstreams: dict[str, Any], **options: Any) -> Minato:
        options = {"dns": DNS, "health": HEALTH} | options
        return minato(*(upstreams or (apps.upstream(),)), names=names, **options)

    return start_minato


def who(instance: Minato, number: int = 1) -> Tally[str]:
    """Ask on one connection, while nobody says close; a status in place of a letter where nobody answered."""
    client, answers = Client(instance.port), []
    for _ in range(number):
        answers.append(client.request(target=b"/who"))
        if answers[-1].says_close():
            client.close()
            client = Client(instance.port)
    client.close()
    return Tally(one.body.decode() if one.status == 200 else str(one.status) for one in answers)


def wait_for_answers(instance: Minato, *letters: str) -> None:
    """Wait until these and only these answer."""
    wait_until(lambda: set(who(instance, 4 * len(letters))) == set(letters), f"answers of {letters}")


class Load:
    """Requests without a pause on kept and on new connections; all but a 200 with a known letter fails."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.answers: Tally[str] = Tally()
        self.failures: list[str] = []
        self._port = port
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number % 2 == 0,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, keeps: bool) -> None:
        client = Client(self._port) if keeps else None
        while not self._over.is_set():
            try:
                response = client.request(target=b"/who") if client else fetch(self._port, b"/who")
                letter = response.body.decode() if response.status == 200 else str(response.status)
                if client and response.says_close():
                    client.close()
                    client = Client(self._port)
            except Exception as error:
                letter = repr(error)
                client = Client(self._port) if keeps else None
            with self._lock:
                self.answers[letter] += 1
                if letter not in LETTERS:
                    self.failures.append(letter)
        if client:
            client.close()

    def wait_for(self, letter: str, more: int = 20) -> None:
        before = self.answers[letter]
        wait_until(lambda: self.answers[letter] >= before + more, f"{more} answers of {letter}")


def test_each_address_of_a_name_gets_the_weight_of_its_upstream(start: Start, apps: Apps, names: Names) -> None:
    names.set(app=[address("b"), address("a")], other=[address("c")])
    instance = start(apps.upstream(weight=2), apps.upstream("other"))
    assert who(instance, 50) == {"a": 20, "b": 20, "c": 10}


def test_changed_answers_lose_no_request_under_load(start: Start, apps: Apps, names: Names) -> None:
    instance = start(workers=2)
    with Load(instance.port) as load:
        load.wait_for("a")
        for letters in ("b", "cd", "a", "abcde", "e"):
            names.set(app=[address(letter) for letter in letters])
            for letter in letters:
                load.wait_for(letter)
    assert load.failures == []
    wait_for_answers(instance, "e")
    assert not instance.find_log("reloading|rolling over|generation 2")
    assert instance.find_log(r"app\.test is now 127\.0\.0\.2")


def test_address_that_is_gone_gets_no_request_and_its_connections_are_closed(
    start: Start, apps: Apps, names: Names
) -> None:
    instance = start()
    assert who(instance, 2) == {"a": 2}
    names.set(app=[address("b")])
    wait_for_answers(instance, "b")
    assert all(connection.wait_closed() for connection in apps["a"].connections)
    probes = apps["a"].health.probes
    before = len(apps["a"].requests)
    wait_until(lambda: apps["b"].health.probes > 4, "b to be probed")
    assert who(instance, 20) == {"b": 20}
    assert len(apps["a"].requests) == before
    assert apps["a"].health.probes <= probes + 1


def test_old_address_serves_until_the_new_one_is_healthy(start: Start, apps: Apps, names: Names) -> None:
    apps["b"].health.status = b"503 Starting"
    # How long it may serve on is the longer of a probe's timeouts, so that a machine that is busy has time enough.
    instance = start(health=HEALTH | {"http_timeout": 15})
    with Load(instance.port) as load:
        names.set(app=[address("b")])
        instance.wait_for_log(r"upstream http://app\.test:\d+/health \[127\.0\.0\.2\] is down: status 503")
        load.wait_for("a")
        apps["b"].health.status = b"200 OK"
        load.wait_for("b")
    assert load.failures == []
    wait_for_answers(instance, "b")


def test_old_address_does_not_serve_for_ever(start: Start, apps: Apps, names: Names) -> None:
    """Its number may be somebody else's by now."""
    instance = start(health=HEALTH | {"tcp_timeout": 0.5, "http_timeout": 0.5})
    apps["b"].health.status = b"503 Gone"
    names.set(app=[address("b")])
    instance.wait_for_log(r"app\.test is now")
    wait_until(lambda: set(who(instance)) == {"503"}, "nobody to be left")
    apps["b"].health.status = b"200 OK"
    wait_for_answers(instance, "b")


def test_failing_resolver_keeps_the_last_answer_and_says_so_once(start: Start, apps: Apps, names: Names) -> None:
    instance = start()
    names.set(app=[])
    instance.wait_for_log(r"cannot resolve app\.test: Name or service not known; going on with what it was before")
    asked = len(names.asked())
    wait_until(lambda: len(names.asked()) >= asked + 5, "further questions")
    assert who(instance, 5) == {"a": 5}
    assert len(instance.find_log("cannot resolve")) == 1
    names.set(app=[address("a")])
    instance.wait_for_log(r"app\.test resolves again")
    assert who(instance, 5) == {"a": 5}


def test_name_that_does_not_resolve_at_the_start_serves_as_soon_as_it_does(
    start: Start, apps: Apps, names: Names
) -> None:
    names.set(app=[])
    instance = start()
    assert instance.find_log(r"cannot resolve app\.test: .*; it gets no traffic until it does")
    assert who(instance) == {"503": 1}
    names.set(app=[address("a")])
    wait_for_answers(instance, "a")
    names.set(app=[address("b")])
    wait_for_answers(instance, "b")


def test_resolver_that_hangs_holds_up_neither_start_nor_others_nor_a_reload(
    start: Start, apps: Apps, names: Names
) -> None:
    names.set(slow=HANGS)
    upstreams = apps.upstream(), apps.upstream("slow")
    instance = start(*upstreams, workers=2, dns=HANGING)
    assert instance.find_log(r"cannot resolve slow\.test: no answer within 0\.5 s; it gets no traffic")
    names.set(app=[address("b")])
    wait_for_answers(instance, "b")
    for _ in range(3):
        instance.reload()
    assert names.asked().count("slow.test") == 1
    assert psutil.Process(instance.pid).num_threads() <= 4  # main, health, two that ask
    wait_for_answers(instance, "b")
    names.set(slow=[address("c")])
    wait_for_answers(instance, "b", "c")


def test_address_that_dies_is_left_out_and_the_others_go_on(start: Start, apps: Apps, names: Names) -> None:
    names.set(app=[address("a"), address("b")])
    instance = start()
    with Load(instance.port, clients=2) as load:
        load.wait_for("a")
        apps["a"].health.status = b"500 Broken"
        instance.wait_for_log(r"upstream http://app\.test:\d+/health \[127\.0\.0\.1\] is down: status 500")
        wait_for_answers(instance, "b")
        apps["a"].health.status = b"200 OK"
        wait_for_answers(instance, "a", "b")
    assert load.failures == []


def test_shuffled_answers_are_no_change(start: Start, apps: Apps, names: Names) -> None:
    names.set(app=[address("a"), address("b")])
    instance = start()
    asked = len(names.asked())
    for number in range(3):
        order = "ba" if number % 2 else "ab"
        names.set(app=[address(letter) for letter in order])
        wait_until(lambda goal=asked + 3 * number + 3: len(names.asked()) >= goal, "questions")
    assert who(instance, 10) == {"a": 5, "b": 5}
    assert not instance.find_log("is now")


def test_change_keeps_the_cache(start: Start, apps: Apps, names: Names) -> None:
    instance = start(cache={"enabled": True, "ttl": 0})
    assert fetch(instance.port, b"/kept").body == b"a"
    names.set(app=[address("b")])
    wait_for_answers(instance, "b")
    assert fetch(instance.port, b"/kept").body == b"a"


def test_exchange_under_way_ends_at_the_address_that_is_gone(start: Start, apps: Apps, names: Names) -> None:
    instance = start()
    with Client(instance.port) as client:
        client.send(b"GET /slow HTTP/1.1\r\nHost: test.local\r\n\r\n")
        apps["a"].wait_requests(1)
        names.set(app=[address("b")])
        wait_for_answers(instance, "b")
        apps["a"].gate.set()
        assert client.receive().status == 200


def test_reload_between_changes_goes_on_with_the_newest(start: Start, apps: Apps, names: Names) -> None:
    instance = start(workers=2)
    with Load(instance.port) as load:
        for letter in ("b", "c", "d"):
            names.set(app=[address(letter)])
            instance.signal(signal.SIGHUP)
            load.wait_for(letter)
    assert load.failures == []
    wait_for_answers(instance, "d")


def test_interval_of_zero_asks_at_start_and_at_reload_alone(start: Start, apps: Apps, names: Names) -> None:
    instance = start(dns={"interval": 0})
    names.set(app=[address("b")])
    wait_until(lambda: apps["a"].health.probes >= 4, "time to pass")
    assert who(instance, 5) == {"a": 5}
    assert len(names.asked()) == 1
    instance.reload()
    assert who(instance, 5) == {"b": 5}


def test_worker_that_is_replaced_knows_what_changed_before(start: Start, apps: Apps, names: Names) -> None:
    instance = start()
    names.set(app=[address("b")])
    wait_for_answers(instance, "b")
    (worker,) = instance.workers()
    os.kill(worker.pid, signal.SIGKILL)
    wait_until(lambda: [one.pid for one in instance.workers()] not in ([], [worker.pid]), "another worker")
    wait_for_answers(instance, "b")
    names.set(app=[address("c")])
    wait_for_answers(instance, "c")


def test_worker_that_was_stopped_hears_of_what_is_true_when_it_goes_on(start: Start, apps: Apps, names: Names) -> None:
    instance = start(timeouts={"heartbeat": 60})
    (worker,) = instance.workers()
    worker.suspend()
    for letter in "bcdebcde":
        names.set(app=[address(letter)])
        since = len(instance.lines)
        instance.wait_for_log(rf"app\.test is now {address(letter)}", since=max(since - 3, 0))
    worker.resume()
    wait_for_answers(instance, "e")


def test_too_many_addresses_are_bounded_and_told(start: Start, apps: Apps, names: Names) -> None:
    names.set(app=[address("b"), address("a")] + [f"127.1.{n // 250}.{n % 250}" for n in range(1_000)])
    instance = start(dns=DNS | {"max_addresses": 2})
    assert instance.find_log(r"app\.test has 1000 more addresses than dns\.max_addresses")
    assert who(instance, 10) == {"a": 5, "b": 5}
    names.set(app=[address("c")])
    wait_for_answers(instance, "c")


def test_more_addresses_than_the_board_has_room_for_get_a_larger_one(start: Start, apps: Apps, names: Names) -> None:
    names.set(more=["127.8.0.1"])
    instance = start(apps.upstream(), apps.upstream("more"), dns=DNS | {"max_addresses": 200})
    with Load(instance.port, clients=2) as load:
        # Nobody is at the second name, but might be at one of the addresses that have no column.
        names.set(
            app=[address("c")] + [f"127.9.0.{n}" for n in range(1, 150)],
            more=[f"127.8.0.{n}" for n in range(1, 200)],
        )
        instance.wait_for_log("rolling over to a larger one")
        instance.wait_for_log("generation 2 serves", 20)
        load.wait_for("c")
    assert load.failures == []


def test_access_log_names_the_address(start: Start, apps: Apps, names: Names, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    instance = start(access_log={"path": str(path), "format": "json"})
    assert who(instance) == {"a": 1}
    wait_until(lambda: path.exists() and path.read_text().strip(), "a line")
    assert json.loads(path.read_text())["upstream"] == f"app.test:{apps.port} [127.0.0.1]"


def test_name_and_number_of_one_server_are_two_upstreams(start: Start, apps: Apps, names: Names) -> None:
    number = {"host": f"http://{address('b')}:{apps.port}", "health_uri": "/health"}
    instance = start(apps.upstream(), number)
    assert who(instance, 10) == {"a": 5, "b": 5}


def test_reload_with_another_name_asks_for_that(start: Start, apps: Apps, names: Names) -> None:
    names.set(other=[address("d")])
    instance = start()
    instance.write_config(instance.config | {"services": [service(instance.port, [apps.upstream("other")])]})
    instance.reload()
    assert who(instance, 3) == {"d": 3}
    asked = names.asked().count("app.test")
    wait_until(lambda: names.asked().count("other.test") >= 5, "questions")
    assert names.asked().count("app.test") <= asked + 1


def test_session_stays_at_its_address_and_leaves_it_when_that_is_gone(start: Start, apps: Apps, names: Names) -> None:
    names.set(app=[address("a"), address("b")])
    instance = start(service_keys={"sticky": {"cookie": "session"}})

    def ask(*fields: tuple[bytes, bytes]) -> tuple[str, tuple[bytes, bytes]]:
        response = fetch(instance.port, b"/who", fields=fields)
        cookie = (response.get(b"set-cookie") or b"").partition(b";")[0]
        return response.body.decode(), (b"cookie", cookie)

    home, cookie = ask()
    assert {ask(cookie)[0] for _ in range(6)} == {home}
    names.set(app=[address(letter) for letter in "abc"])
    wait_until(lambda: "c" in who(instance, 6), "c to serve")
    assert {ask(cookie)[0] for _ in range(6)} == {home}
    names.set(app=[address(letter) for letter in "abc" if letter != home])
    wait_until(lambda: home not in who(instance, 6), "it to be gone")
    moved, other = ask(cookie)
    assert moved != home and other[1]
    assert {ask(other)[0] for _ in range(6)} == {moved}


def test_hash_moves_only_what_an_address_that_comes_takes(start: Start, apps: Apps, names: Names) -> None:
    names.set(app=[address("a"), address("b")])
    instance = start(service_keys={"balancer": "ConsistentHash", "hash": {"by": "url"}})
    for letter in "abc":
        apps[letter].routes |= {b"/who%d" % number: apps[letter].routes[b"/who"] for number in range(40)}

    def ask() -> list[str]:
        with Client(instance.port) as client:
            return [client.request(target=b"/who%d" % number).body.decode() for number in range(40)]

    before = ask()
    assert set(before) == {"a", "b"} and ask() == before
    names.set(app=[address(letter) for letter in "cab"])
    wait_until(lambda: "c" in ask(), "c to serve")
    assert all(new in (old, "c") for old, new in zip(before, ask(), strict=True))


def test_certificate_is_verified_by_name_at_every_address(
    minato: StartMinato, names: Names, authority: Authority
) -> None:
    first = App(name="a", host=address("a"), tls=authority.server("app.test"))
    second = App(name="b", host=address("b"), port=first.port, tls=authority.server("app.test"))
    wrong = App(name="c", host=address("c"), port=first.port, tls=authority.server("other.test"))
    names.set(app=[address("a"), address("b"), address("c")])
    upstream = {"host": f"https://app.test:{first.port}", "health_uri": "/health"}
    try:
        instance = minato(upstream, names=names, dns=DNS, health=HEALTH, env=authority.env)
        assert instance.find_log(r"\[127\.0\.0\.3\] is down: .*certificate")
        assert [fetch(instance.port, b"/echo").status for _ in range(6)] == [200] * 6
        assert first.hits == second.hits == {b"/echo": 3}
        assert not wrong.hits
    finally:
        for app in (first, second, wrong):
            app.stop()


def test_stop_does_not_wait_for_a_resolver_that_hangs(start: Start, apps: Apps, names: Names) -> None:
    names.set(slow=HANGS)
    instance = start(apps.upstream(), apps.upstream("slow"), dns=HANGING)
    instance.signal(signal.SIGTERM)
    assert instance.process.wait(5) == 0


def test_drain_of_a_name_holds_for_addresses_that_come(start: Start, apps: Apps, names: Names) -> None:
    names.set(app=[address("a"), address("b")])
    admin = free_port()
    instance = start(apps.upstream(), apps["e"], workers=1, admin={"listen": f"127.0.0.1:{admin}"})
    body = json.dumps({"upstream": f"http://app.test:{apps.port}"}).encode()
    fields = [(b"Content-Type", b"application/json")]
    assert fetch(admin, b"/drain", method=b"POST", host=b"localhost", fields=fields, body=body).status == 200
    names.set(app=[address("c")])
    instance.wait_for_log(rf"upstream .*\[{address('c')}\] drains: asked by the admin API")
    assert who(instance, 10) == {"e": 10}
    assert fetch(admin, b"/undrain", method=b"POST", host=b"localhost", fields=fields, body=body).status == 200
    wait_for_answers(instance, "c", "e")
