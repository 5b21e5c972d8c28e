"""USR2 with the real thing: no client fails across upgrades, and whatever is wrong, the old master goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from .conftest import Instances
from .harness import App, Client, Minato, fetch, free_port, make_config, request_bytes, service, wait_until
from .harness.app import pattern_sha256
from .harness.proxy import BIN, segments_of, title_of
from .test_upgrade import echoing, open_tunnel

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]

BODY = b"0123456789" * 2_000


class Clients:
    """Clients that ask until they are told to stop, and check every byte of every answer."""

    def __init__(self, port: int) -> None:
        self.failures: list[str] = []
        self.answers = 0
        self._port = port
        self._stop = threading.Event()
        kinds = (self._keep_alive, self._keep_alive, self._one_by_one, self._one_by_one, self._post)
        self._threads = [threading.Thread(target=self._run, args=(kind,), daemon=True) for kind in kinds]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Stop them, and see that none of them failed."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        assert not self.failures, self.failures

    def _run(self, kind: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                kind()
        except Exception as error:
            self.failures.append(f"{kind.__name__}: {error!r}")

    def _keep_alive(self) -> None:
        with Client(self._port) as client:
            while not self._stop.is_set():
                client.send(request_bytes(target=b"/bytes/70000"))
                head = client.receive_head()
                assert (head.status, client.digest(head)) == (200, (70_000, pattern_sha256(70_000)))
                self.answers += 1
                if head.get(b"connection") == b"close":
                    return  # told so: the next one on a new connection

    def _one_by_one(self) -> None:
        response = fetch(self._port)
        assert response.status == 200 and json.loads(response.body)["method"] == "GET"
        self.answers += 1

    def _post(self) -> None:
        with Client(self._port) as client:
            response = client.request(b"POST", body=BODY)
        assert json.loads(response.body)["body_bytes"] == len(BODY)
        self.answers += 1


@contextlib.contextmanager
def clients(instance: Minato) -> Iterator[Clients]:
    running = Clients(instance.port)
    yield running
    running.finish()


def served(running: Clients) -> None:
    """Wait for some more answers."""
    wanted = running.answers + 20
    wait_until(lambda: running.answers >= wanted or running.failures, "answers", 20)


def test_several_upgrades_in_a_row_and_nobody_notices(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app, workers=2)
    first = instance.pid
    with clients(instance) as running, instance.client() as stream, instance.client() as idle:
        stream.send(request_bytes(target=b"/events"))
        head = stream.receive_head()
        events = stream.pieces(head)
        assert idle.request().status == 200
        for number in range(2):
            served(running)
            instance.upgrade()
            app.next_event.release()
            assert b"data: %d\n" % number in next(events)  # through the first master's worker
        assert idle.request().get(b"connection") == b"close"  # not cut, but told
        served(running)
        app.ended = True
        app.next_event.release()
        assert list(events) == []
    assert instance.process.wait(20) == 0
    for pid in instance.masters[:-1]:
        wait_until(lambda pid=pid: segments_of(pid) == [], "the old masters' segments to go")
    assert len(instance.workers()) == 2
    assert first not in psutil.pids()


def test_tunnel_goes_on_across_an_upgrade(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(echoing))
    with instance.client() as client:
        open_tunnel(client)
        instance.upgrade()
        client.send(b"across")
        assert client.read_bytes(6) == b"across"


def test_purge_reaches_the_workers_that_drain_for_the_old_master(minato: StartMinato, origin: MakeApp) -> None:
    from minato.config.model import ListenAddress
    from minato.control.admin.client import post

    app, admin = origin(), free_port()
    answer = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 3\r\n\r\n"
    app.routes[b"/page"] = answer + b"old"
    instance = minato(app, cache={"enabled": True}, admin={"listen": f"127.0.0.1:{admin}"})
    with instance.client() as client:
        assert client.request(target=b"/page").body == b"old"
        instance.upgrade()
        app.routes[b"/page"] = answer + b"new"
        status, body = post(ListenAddress("127.0.0.1", admin), "/purge", {"all": True})
        assert (status, body["workers"]) == (200, 2)  # the old master counts for one
        assert client.request(target=b"/page").body == b"new"  # of the old master's worker
    assert fetch(instance.port, b"/page").body == b"new"


def test_upgrade_takes_new_config_and_new_health_up(minato: StartMinato, origin: MakeApp) -> None:
    a, b, dead = origin(name="a"), origin(name="b"), f"http://127.0.0.1:{free_port()}"
    instance = minato(a, dead, health={"interval": 600}, service_keys={"retries": 0})
    services = [service(instance.port, [a, dead, b], retries=0), service(free_port(), [b], name="more")]
    instance.write_config(make_config(services, health={"interval": 600}))
    instance.upgrade()
    assert {fetch(instance.port).get(b"x-origin") for _ in range(8)} == {b"a", b"b"}
    assert fetch(services[1]["listen_port"]).get(b"x-origin") == b"b"
    assert len(instance.find_log(r"is down")) == 1  # known to the new master from the start


@pytest.mark.parametrize("text", ["services: [\n", "nonsense: 1\n"])
def test_broken_config_leaves_the_old_master_and_no_request_fails(
    minato: StartMinato, origin: MakeApp, text: str
) -> None:
    instance = minato(origin(), workers=2)
    workers = instance.worker_pids()
    with clients(instance) as running:
        instance.write_config(text)
        instance.signal(signal.SIGUSR2)
        assert "ended with status 2" in instance.wait_for_log("upgrade given up")
        served(running)
    assert instance.worker_pids() == workers


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("exit 7", "ended with status 7"),
        ("exec sleep 600", "not ready in time"),
        ("trap '' TERM; while :; do sleep 0.1; done", "not ready in time"),
        ("exec {python} -c 'import socket,os,json; s=socket.socket(fileno=int(os.environ[\"MINATO_HANDOVER\"])); "
         "s.send(json.dumps(dict(hello=0)).encode()); import time; time.sleep(600)'", "another version"),
        ("exec {python} -c 'import socket,os; s=socket.socket(fileno=int(os.environ[\"MINATO_HANDOVER\"])); "
         "s.send(b\"rubbish\"); import time; time.sleep(600)'", "closed its link"),
    ],
    ids=["exits", "hangs", "ignores TERM", "other version", "talks rubbish"],
)  # fmt: skip
def test_program_that_is_no_minato_any_more_is_given_up(
    instances: Instances, origin: MakeApp, tmp_path: Path, program: str, told: str
) -> None:
    """What stands at bin/minato may be anything by the time of the upgrade."""
    script = tmp_path / "program"
    start = f"import runpy, sys; sys.argv[0] = {str(BIN)!r}; runpy.run_path({str(BIN)!r}, run_name='__main__')"
    script.write_text(start)
    config = make_config([service(free_port(), [origin()])], timeouts={"upgrade": 1 if "in time" in told else 60})
    instance = instances.adopt(Minato(tmp_path, config, program=(str(script),))).wait_ready()
    shell = program.replace("{python}", shlex.quote(sys.executable))
    script.write_text(f"import os; os.execv('/bin/sh', ['sh', '-c', {shell!r}])")
    instance.signal(signal.SIGUSR2)
    assert told in instance.wait_for_log("upgrade given up", 15)
    instance.remember_children()
    assert fetch(instance.port).status == 200
    wait_until(lambda: len(psutil.Process(instance.pid).children()) == 1, "the end of what was started", 15)
    script.write_text(start)
    instance.write_config(make_config(config["services"]))
    instance.reload()
    instance.upgrade()
    assert fetch(instance.port).status == 200


def test_working_directory_follows_a_symbolic_link(instances: Instances, origin: MakeApp, tmp_path: Path) -> None:
    """``cd current; bin/minato``, where ``current`` leads to another release by the time of the upgrade."""
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
    current = tmp_path / "current"
    current.symlink_to("one")
    app = origin()
    config = make_config([service(free_port(), [app])])
    instance = instances.adopt(Minato(current, config, relative=True, env={"PWD": str(current)})).wait_ready()
    (tmp_path / "two" / "config.yaml").write_text((tmp_path / "one" / "config.yaml").read_text())
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(current)
    instance.upgrade()
    assert os.readlink(f"/proc/{instance.pid}/cwd") == str(tmp_path / "two")


def test_demo_goes_on_with_its_origins(instances: Instances, tmp_path: Path) -> None:
    ports = [free_port() for _ in range(2)]
    config = make_config([service(ports[0], [f"http://127.0.0.1:{ports[1]}"], hosts=["http://*/"])])
    instance = instances.adopt(Minato(tmp_path, config, command="demo")).wait_ready()
    instance.upgrade()
    wait_until(lambda: f"kill -TERM {instance.pid}" in instance.stdout_path.read_text(), "the new master's hints")
    wait_until(lambda: instance.process.poll() == 0, "the old master's end")
    assert fetch(ports[0], b"/health").body == b"ok\n"
    instance.signal(signal.SIGINT)
    wait_until(lambda: instance.survivors() == [], "every process to end")


def test_stop_of_the_new_master_is_one_of_the_old_that_drains(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app, timeouts={"drain": 60})
    with instance.client() as client, instance.client() as idle:
        idle.request()
        client.send(request_bytes(target=b"/slow"))
        app.wait_requests(2)
        instance.upgrade()
        old = psutil.Process(instance.masters[0])
        assert title_of(old) == f"minato: old master [{instance.config_path}]"
        instance.signal(signal.SIGTERM)
        assert idle.is_closed()
        app.gate.set()
        assert client.receive().body == b"slow\n"
    assert instance.wait_exit() == 0


def test_signals_to_a_master_that_handed_over_are_of_no_account(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app)
    with instance.client() as client:
        client.send(request_bytes(target=b"/slow"))
        app.wait_requests(1)
        instance.upgrade()
        for number, told in (
            (signal.SIGHUP, "no reload: this master is retired"),
            (signal.SIGUSR2, "no upgrade: this"),
        ):
            instance.process.send_signal(number)
            instance.wait_for_log(told)
        instance.process.send_signal(signal.SIGTTIN)
        app.gate.set()
        assert client.receive().body == b"slow\n"
        assert fetch(instance.port).status == 200
