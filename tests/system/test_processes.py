"""Issue line 8, processes: stopping, resizing, dying, hanging, leftovers of a killed master, titles, exit statuses."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import Instances
from .harness import App, Client, Minato, Truncated, fetch, request_bytes, wait_until
from .harness.proxy import BIN, run_minato, segments_of, title_of

StartMinato = Callable[..., Minato]
MakeApp = Callable[..., App]


def test_ready_line_names_the_master(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(), workers=2)
    (line,) = instance.find_log(r"^minato: ready")
    assert str(instance.pid) in line
    assert len(instance.workers()) == 2


def test_titles(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(), workers=2)
    assert title_of(psutil.Process(instance.pid)) == f"minato: master [{instance.config_path}]"
    assert [title_of(worker) for worker in instance.workers()] == ["minato: worker 0 gen 1", "minato: worker 1 gen 1"]
    instance.reload()
    assert title_of(instance.workers()[-1]) == "minato: worker 1 gen 2"


def test_works_without_a_subcommand_and_from_any_directory(
    instances: Instances, origin: MakeApp, tmp_path: Path
) -> None:
    from .harness import free_port, make_config, service

    config = make_config([service(free_port(), [origin(name="a")])])
    instance = instances.adopt(Minato(tmp_path, config, workers=4, command="")).wait_ready()
    assert len(instance.workers()) == 4
    assert fetch(instance.port).get(b"x-origin") == b"a"


def test_config_defaults_to_the_working_directory(origin: MakeApp, tmp_path: Path) -> None:
    result = run_minato("check", cwd=tmp_path)
    assert result.returncode == 2 and "config.yaml" in result.stderr + result.stdout


def test_term_finishes_what_is_in_flight_and_exits_0(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app, workers=2)
    with instance.client() as client:
        client.send(request_bytes(target=b"/slow"))
        app.wait_requests(1)
        instance.signal(signal.SIGTERM)
        wait_until(lambda: _is_refused(instance.port), "the listeners to close")
        app.gate.set()
        response = client.receive()
        assert response.body == b"slow\n" and response.says_close()
    assert instance.wait_exit() == 0
    assert instance.survivors() == [] and segments_of(instance.pid) == []


def _is_refused(port: int) -> bool:
    try:
        Client(port).close()
    except ConnectionError:
        return True
    return False


def test_term_does_not_wait_longer_than_the_drain_deadline(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app, timeouts={"drain": 1})
    with instance.client() as client:
        client.send(request_bytes(target=b"/slow"))
        app.wait_requests(1)
        instance.signal(signal.SIGTERM)
        assert instance.wait_exit(8) == 0
        app.gate.set()
        with pytest.raises((Truncated, ConnectionError)):
            client.receive()


def test_term_is_not_held_up_by_idle_connections(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(), timeouts={"drain": 60})
    with instance.client() as client, instance.client():
        client.request()
        instance.signal(signal.SIGTERM)
        assert instance.wait_exit(10) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_stop_at_once_with_0(minato: StartMinato, origin: MakeApp, number: signal.Signals) -> None:
    app = origin()
    instance = minato(app, timeouts={"drain": 60})
    with instance.client() as client:
        client.send(request_bytes(target=b"/slow"))
        app.wait_requests(1)
        instance.signal(number)
        assert instance.wait_exit(6) == 0
        app.gate.set()


def test_second_term_stops_at_once(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app, timeouts={"drain": 60})
    with instance.client() as client:
        client.send(request_bytes(target=b"/slow"))
        app.wait_requests(1)
        instance.signal(signal.SIGTERM)
        instance.wait_for_log(r"stopping")
        instance.signal(signal.SIGTERM)
        assert instance.wait_exit(6) == 0
        app.gate.set()


def test_signal_to_the_whole_group_is_one_stop(minato: StartMinato, origin: MakeApp) -> None:
    """Ctrl-C in a terminal reaches every process of the group."""
    instance = minato(origin(), workers=2)
    instance.remember_children()
    os.killpg(instance.pid, signal.SIGINT)
    assert instance.wait_exit(6) == 0


def test_ttin_and_ttou_change_the_number_of_workers(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"))
    instance.signal(signal.SIGTTIN)
    wait_until(lambda: len(instance.workers()) == 2, "a second worker")
    instance.signal(signal.SIGTTIN)
    wait_until(lambda: len(instance.workers()) == 3, "a third worker")
    assert {fetch(instance.port).get(b"x-origin") for _ in range(20)} == {b"a"}
    for left in (2, 1):  # one at a time: two pending signals of one kind are one
        instance.signal(signal.SIGTTOU)
        wait_until(lambda left=left: len(instance.workers()) == left, f"{left} workers left")
    assert {fetch(instance.port).get(b"x-origin") for _ in range(20)} == {
        b"a"
    }  # queues without a worker are served too
    instance.signal(signal.SIGTTOU)
    instance.wait_for_log(r"one worker is the least")
    assert len(instance.workers()) == 1


def test_ttou_finishes_what_the_worker_has_in_flight(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app, workers=2)
    clients = [instance.client() for _ in range(8)]  # surely some of them with the second worker
    for client in clients:
        client.send(request_bytes(target=b"/slow"))
    app.wait_requests(8)
    instance.signal(signal.SIGTTOU)
    instance.wait_for_log(r"1 workers")
    app.gate.set()
    assert [client.receive().body for client in clients] == [b"slow\n"] * 8
    for client in clients:
        client.close()
    wait_until(lambda: len(instance.workers()) == 1, "one worker left")


def test_killed_worker_is_replaced_at_once(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), workers=2)
    victim, other = instance.worker_pids()
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: len(instance.workers()) == 2 and victim not in instance.worker_pids(), "a new worker", 5)
    assert other in instance.worker_pids()
    instance.wait_for_log(rf"worker 0 .*{victim}.*SIGKILL")
    assert {fetch(instance.port).get(b"x-origin") for _ in range(20)} == {b"a"}


def test_connections_queued_for_a_killed_worker_are_not_lost(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), workers=1)
    (victim,) = instance.worker_pids()
    os.kill(victim, signal.SIGSTOP)
    clients = [instance.client() for _ in range(5)]
    for client in clients:
        client.send(request_bytes())
    os.kill(victim, signal.SIGKILL)
    assert [client.receive().status for client in clients] == [200] * 5
    for client in clients:
        client.close()


def test_counts_of_a_killed_worker_do_not_stay(minato: StartMinato, origin: MakeApp) -> None:
    a, b = origin(name="a"), origin(name="b")
    instance = minato(a, b, service_keys={"balancer": "LeastConnections"})
    clients = []
    for number in range(6):
        clients.append(instance.client())
        clients[-1].send(request_bytes(target=b"/slow"))
        wait_until(lambda number=number: len(a.requests) + len(b.requests) > number, "the request")
    os.kill(instance.worker_pids()[0], signal.SIGKILL)
    for client in clients:
        client.close()
    wait_until(lambda: fetch_or_none(instance.port), "a new worker")
    with instance.client() as client:
        names = [client.request().get(b"x-origin") for _ in range(60)]
    assert min(names.count(b"a"), names.count(b"b")) > 10


def fetch_or_none(port: int) -> Any:
    try:
        return fetch(port)
    except (Truncated, ConnectionError):
        return None


def test_worker_that_is_told_to_end_finishes_first_and_is_replaced(minato: StartMinato, origin: MakeApp) -> None:
    app = origin()
    instance = minato(app)
    (old,) = instance.worker_pids()
    with instance.client() as client:
        client.send(request_bytes(target=b"/slow"))
        app.wait_requests(1)
        os.kill(old, signal.SIGTERM)
        wait_until(lambda: set(instance.worker_pids()) - {old}, "another worker")
        assert fetch(instance.port).status == 200
        app.gate.set()
        assert client.receive().body == b"slow\n"
    wait_until(lambda: old not in instance.worker_pids(), "the old worker to end")


def test_workers_serve_on_while_the_master_is_stopped(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), workers=2, timeouts={"heartbeat": 1})
    pids = instance.worker_pids()
    os.kill(instance.pid, signal.SIGSTOP)
    try:
        deadline_s = time.monotonic() + 2.5
        while time.monotonic() < deadline_s:
            assert fetch(instance.port).get(b"x-origin") == b"a"
    finally:
        os.kill(instance.pid, signal.SIGCONT)
    since = len(instance.lines)
    instance.signal(signal.SIGUSR1)
    instance.wait_for_log("reopening", since=since)
    assert instance.worker_pids() == pids  # its own pause is not held against them


def test_hanging_worker_is_killed_and_replaced(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), timeouts={"heartbeat": 2})
    (victim,) = instance.worker_pids()
    os.kill(victim, signal.SIGSTOP)
    instance.wait_for_log(rf"{victim}.*killing it", timeout_s=8)
    wait_until(lambda: instance.worker_pids() not in ([], [victim]), "a new worker", 5)
    assert fetch(instance.port).get(b"x-origin") == b"a"


def test_no_client_waits_for_a_hanging_worker(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), workers=2, timeouts={"heartbeat": 60})
    os.kill(instance.worker_pids()[0], signal.SIGSTOP)
    began_s = time.monotonic()
    clients = [instance.client() for _ in range(16)]  # surely some of them in the queue of the hanging one
    for client in clients:
        client.send(request_bytes())
    assert [client.receive().status for client in clients] == [200] * 16
    assert time.monotonic() - began_s < 6  # long before the heartbeat's time
    for client in clients:
        client.close()
    os.kill(instance.worker_pids()[0], signal.SIGCONT)


def test_worker_that_comes_back_serves_on(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"), workers=2, timeouts={"heartbeat": 60})
    pids = instance.worker_pids()
    os.kill(pids[0], signal.SIGSTOP)
    for _ in range(8):
        assert fetch(instance.port).status == 200
    os.kill(pids[0], signal.SIGCONT)
    for _ in range(20):
        assert fetch(instance.port).status == 200
    assert instance.worker_pids() == pids


def test_killed_master_lets_requests_in_flight_finish(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, timeouts={"orphaned": 0.2})
    with instance.client() as client:
        client.send(request_bytes(target=b"/slow"))
        app.wait_requests(1)
        os.kill(instance.pid, signal.SIGKILL)
        instance.wait_exit(5)
        app.gate.set()
        assert client.receive().body == b"slow\n"
    wait_until(lambda: instance.survivors() == [], "the worker to end", 8)
    assert segments_of(instance.pid) == []


def test_next_start_removes_what_a_group_that_was_killed_as_a_whole_left(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    instance = minato(app, workers=2)
    instance.remember_children()
    os.killpg(instance.pid, signal.SIGKILL)
    instance.wait_exit(5)
    wait_until(lambda: instance.survivors() == [], "the workers to end", 8)
    # What is left of the segment goes with the next start of any instance, perhaps one of a test beside this one.
    assert len(segments_of(instance.pid)) <= 1
    second = minato(services=instance.config["services"])
    assert segments_of(instance.pid) == []
    assert fetch(second.port).get(b"x-origin") == b"a"


def test_segment_of_a_running_instance_is_left_alone(minato: StartMinato, origin: MakeApp) -> None:
    app = origin(name="a")
    first = minato(app)
    minato(app)
    assert len(segments_of(first.pid)) == 1
    assert fetch(first.port).get(b"x-origin") == b"a"


def test_second_instance_on_the_same_address_exits_1_with_a_clear_line(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(name="a"))
    result = run_minato("run", "--config", str(instance.config_path), "--workers", "1")
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if f":{instance.port}" in line]
    assert len(lines) == 1 and lines[0].startswith("minato: cannot listen on") and "in use" in lines[0]
    assert "Traceback" not in result.stderr
    assert fetch(instance.port).get(b"x-origin") == b"a"


def test_zombies_are_reaped(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(), workers=2)
    for _ in range(3):
        pid = instance.worker_pids()[0]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda pid=pid: pid not in instance.worker_pids() and len(instance.workers()) == 2, "a new worker")
    states = [child.status() for child in instance.remember_children()]
    assert psutil.STATUS_ZOMBIE not in states


def test_pid_file_is_there_while_it_runs(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    pid_file = tmp_path / "minato.pid"
    instance = minato(origin(), arguments=("--pid-file", str(pid_file)))
    assert int(pid_file.read_text()) == instance.pid
    instance.signal(signal.SIGTERM)
    assert instance.wait_exit() == 0
    assert not pid_file.exists()


def test_service_manager_is_told(minato: StartMinato, origin: MakeApp, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        instance = minato(origin(), env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert b"READY=1" in manager.recv(4096)
        instance.signal(signal.SIGTERM)
        assert instance.wait_exit() == 0


def test_listens_on_all_addresses_by_default(minato: StartMinato, origin: MakeApp) -> None:
    from .harness import free_port, service

    entry = service(free_port(), [origin(name="a")])
    del entry["listen"]
    instance = minato(services=[entry])
    for host in ("127.0.0.1", "::1"):
        with Client(instance.port, host=host) as client:
            assert client.request().get(b"x-origin") == b"a"


def test_full_or_closed_stderr_ends_nothing(origin: MakeApp, tmp_path: Path) -> None:
    """Whoever read the log has gone: minato serves on."""
    from .harness import free_port, make_config, service

    app = origin(name="a")
    port = free_port()
    config = tmp_path / "config.yaml"
    import yaml

    config.write_text(yaml.safe_dump(make_config([service(port, [app])], health={"interval": 0.3})))
    command = [sys.executable, str(BIN), "run", "--config", str(config), "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(b"minato: ready"):
                break
        process.stderr.close()
        app.health.status = b"500 Sick"
        wait_until(lambda: fetch(port).status == 503, "the upstream to be taken out")
        app.health.status = b"200 OK"
        wait_until(lambda: fetch(port).status == 200, "the upstream to come back")
        process.send_signal(signal.SIGHUP)
        probes = app.health.probes
        app.wait_for(lambda: app.health.probes > probes + 2, "probes after the reload")
        assert fetch(port).status == 200
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(15) == 0
        finally:
            if process.poll() is None:
                process.kill()
            for child in children:
                if child.is_running():
                    child.kill()


def test_start_and_stop_race(minato: StartMinato, origin: MakeApp) -> None:
    """A stop that comes while the workers boot is a stop."""
    for _ in range(3):
        instance = minato(origin(), wait_ready=False)
        wait_until(
            lambda instance=instance: re.match("minato: master", title_of(psutil.Process(instance.pid))), "title"
        )
        instance.signal(signal.SIGTERM)
        assert instance.wait_exit(10) == 0


def test_clients_during_a_stop_get_whole_answers_or_none(minato: StartMinato, origin: MakeApp) -> None:
    instance = minato(origin(), workers=2)
    broken: list[BaseException] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                with Client(instance.port) as client:
                    client.request(target=b"/bytes/50000")
            except (ConnectionRefusedError, ConnectionResetError):
                return
            except BaseException as error:
                # One that was accepted, and closed before its request came, ends with a FIN or a RST: none.
                if not (isinstance(error, Truncated) and str(error) == "no response"):
                    broken.append(error)
                return

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    instance.signal(signal.SIGTERM)
    assert instance.wait_exit() == 0
    stop.set()
    for thread in threads:
        thread.join(10)
    assert broken == []
