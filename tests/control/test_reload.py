"""SIGHUP: the new generation serves before the old one drains; whatever is wrong with the new one, the old goes on."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.control.runner import Instance, ask, connect, finish, wait_refused, write_config
from tests.ports import free_port

Start = Callable[..., Instance]


@contextlib.contextmanager
def origin_server() -> Iterator[int]:
    """Serve 200 to everybody on a port of its own; probes come one connection each."""
    with socket.create_server(("127.0.0.1", 0)) as origin:

        def serve() -> None:
            with contextlib.suppress(OSError):  # of the shutdown below
                while True:
                    sock, _ = origin.accept()
                    with sock:
                        sock.recv(1000)
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield int(origin.getsockname()[1])
        origin.shutdown(socket.SHUT_RDWR)
        thread.join()


def reload(minato: Instance, number: int) -> None:
    minato.signal(signal.SIGHUP)
    minato.wait_for(f"generation {number} serves")


def test_new_generation_serves_and_the_old_one_finishes(minato: Instance, port: int) -> None:
    with connect(port) as slow:
        minato.wait_workers("0 gen 1", "1 gen 1")
        minato.wait_accepted(slow)
        reload(minato, 2)
        assert ask(port)["gen"] == "2"
        assert finish(slow)["gen"] == "1"
    minato.wait_workers("0 gen 2", "1 gen 2")
    minato.wait_for("generation 1 is gone")
    assert len(minato.segments()) == 1


def test_ports_come_and_go(minato: Instance, config: Path, port: int) -> None:
    added = free_port()
    write_config(config, port, added)
    reload(minato, 2)
    assert ask(added)["gen"] == ask(port)["gen"] == "2"
    write_config(config, added)
    reload(minato, 3)
    minato.wait_for("generation 2 is gone")
    assert ask(added)["gen"] == "3"
    wait_refused(port)


def test_what_waits_at_a_dropped_port_is_answered(start: Start, config: Path, port: int) -> None:
    write_config(config, port, workers=1)
    minato = start(config)
    minato.wait_ready()
    (old,) = minato.workers()
    other = free_port()
    write_config(config, other, workers=1)
    old.suspend()
    with connect(port) as waiting:
        reload(minato, 2)
        old.resume()
        assert finish(waiting)["gen"] == "1"


def test_number_of_workers_changes_both_ways(minato: Instance, config: Path, port: int) -> None:
    write_config(config, port, workers=3)
    reload(minato, 2)
    minato.wait_workers("0 gen 2", "1 gen 2", "2 gen 2")
    write_config(config, port, workers=1)
    reload(minato, 3)
    (left,) = minato.wait_workers("0 gen 3")
    # Slots 1 and 2 still have sockets, in which the kernel puts connections: the one worker serves them all.
    assert {ask(port)["pid"] for _ in range(30)} == {str(left.pid)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("services: [", r"config\.yaml:\d+:.*"),
        ("services: []\nworkerz: 1\n", r"config\.yaml:2: workerz: .*did you mean"),
    ],
)
def test_invalid_config_is_logged_by_line_and_the_old_generation_goes_on(
    minato: Instance, config: Path, port: int, text: str, expected: str
) -> None:
    config.write_text(text)
    minato.signal(signal.SIGHUP)
    minato.wait_for(expected)
    minato.wait_for("reload given up: the new config cannot be used; generation 1 goes on")
    assert ask(port)["gen"] == "1"
    write_config(config, port)
    reload(minato, 2)


def test_missing_config_is_no_reason_to_end(minato: Instance, config: Path, port: int) -> None:
    config.unlink()
    minato.signal(signal.SIGHUP)
    minato.wait_for("generation 1 goes on")
    assert ask(port)["gen"] == "1"


def test_address_in_use_keeps_the_old_generation_and_binds_nothing(minato: Instance, config: Path, port: int) -> None:
    free = free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        write_config(config, port, free, taken)
        minato.signal(signal.SIGHUP)
        minato.wait_for(f"cannot listen on 127.0.0.1:{taken}: address already in use")
        minato.wait_for("generation 1 goes on")
    assert ask(port)["gen"] == "1"
    wait_refused(free)
    assert len(minato.segments()) == 1
    reload(minato, 3)
    assert ask(free)["gen"] == ask(taken)["gen"] == "3"


def test_new_workers_that_cannot_boot_keep_the_old_generation(
    minato: Instance, config: Path, port: int, tmp_path: Path
) -> None:
    added = free_port()
    write_config(config, port, added)
    (tmp_path / "boot-fails").touch()
    minato.signal(signal.SIGHUP)
    minato.wait_for("reload given up: a new worker died while it started; generation 1 goes on")
    minato.wait_for("generation 2 is gone")
    assert ask(port)["gen"] == "1"
    wait_refused(added)
    assert len(minato.segments()) == 1


def test_signals_and_deaths_are_served_while_new_workers_boot(
    minato: Instance, config: Path, port: int, tmp_path: Path
) -> None:
    (tmp_path / "boot-hangs").touch()
    minato.signal(signal.SIGHUP)
    workers = minato.wait_workers("0 gen 1", "0 gen 2", "1 gen 1", "1 gen 2")
    minato.signal(signal.SIGUSR1)
    minato.wait_for("standin: reopened logs", count=2)
    workers[0].kill()
    minato.wait_for("worker 0 gen 1 .* was killed by SIGKILL")
    minato.signal(signal.SIGTERM)
    (tmp_path / "boot-hangs").unlink()
    assert minato.wait_exit() == 0
    assert minato.segments() == []


def test_reloads_asked_for_during_one_make_one_more(minato: Instance, port: int, tmp_path: Path) -> None:
    (tmp_path / "boot-hangs").touch()
    minato.signal(signal.SIGHUP)
    minato.wait_workers("0 gen 1", "0 gen 2", "1 gen 1", "1 gen 2")
    for count in range(1, 4):
        minato.signal(signal.SIGHUP)
        minato.wait_for("one more follows")
        minato.signal(signal.SIGUSR1)
        minato.wait_for("reopening the access log", count=count)  # signals are obeyed in order: the HUP was, too
    (tmp_path / "boot-hangs").unlink()
    minato.wait_for("generation 3 serves")
    minato.wait_workers("0 gen 3", "1 gen 3")
    minato.signal(signal.SIGTERM)
    assert minato.wait_exit() == 0
    assert not any("generation 4" in line for line in minato.log)
    assert sum("one more follows" in line for line in minato.log) == 1, "a storm does not flood the log"


def test_old_worker_that_does_not_drain_is_killed_after_the_deadline(start: Start, config: Path, port: int) -> None:
    write_config(config, port, workers=1, extra="timeouts: {drain: 0.2}")
    minato = start(config)
    minato.wait_ready()
    with connect(port):
        ask(port)
        reload(minato, 2)
        minato.wait_for(r"worker 0 gen 1 .* did not end in time; killing it")
        minato.wait_workers("0 gen 2")


def test_health_of_unchanged_upstreams_survives_and_new_ones_are_probed_before_the_switch(
    minato: Instance, config: Path, port: int
) -> None:
    assert ask(port)["healthy"] == "0"
    with origin_server() as upstream:
        write_config(config, port, upstream=upstream)
        reload(minato, 2)
        assert ask(port)["healthy"] == "1"
    # It is gone, which the next probe would tell, in ten seconds: until then a reload knows what was known before.
    reload(minato, 3)
    assert ask(port)["healthy"] == "1"


def test_descriptors_stay_level_over_reloads(minato: Instance, port: int) -> None:
    reload(minato, 2)
    minato.wait_for("generation 1 is gone")
    master = psutil.Process(minato.pid)
    before = master.num_fds(), minato.wait_workers("0 gen 2", "1 gen 2")[0].num_fds()
    for number in range(3, 9):
        reload(minato, number)
        minato.wait_for(f"generation {number - 1} is gone")
    after = master.num_fds(), minato.wait_workers("0 gen 8", "1 gen 8")[0].num_fds()
    assert after == before


def test_no_connection_is_lost_while_generations_change(minato: Instance, port: int) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []
    answered: list[str] = []

    def client() -> None:
        while not stop.is_set():
            try:
                answered.append(ask(port)["gen"])
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(2, 12):
        reload(minato, number)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(set(answered)) > 1
