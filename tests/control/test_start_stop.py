"""From start to end: the ready line, titles, conflicts, graceful and fast stop, nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.control.runner import WAIT_S, Instance, ask, connect, finish, read_answer, write_config
from tests.ports import free_port

Start = Callable[..., Instance]


def test_ready_line_titles_and_answers(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port)
    minato = start(config)
    minato.wait_ready()
    assert minato.wait_for("ready") == f"minato: ready pid={minato.pid} workers=2 listening on 127.0.0.1:{port}"
    minato.wait_workers("0 gen 1", "1 gen 1")
    assert psutil.Process(minato.pid).cmdline()[0].startswith(f"minato: master [{config}]")
    assert ask(port)["gen"] == "1"


def test_service_manager_hears_ready_reload_and_stop(start: Start, config: Path, tmp_path: Path) -> None:
    write_config(config, free_port(), workers=1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(WAIT_S)
        minato = start(config, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert manager.recv(1000) == b"READY=1"
        minato.signal(signal.SIGHUP)
        assert manager.recv(1000).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(1000) == b"READY=1"
        minato.signal(signal.SIGTERM)
        assert manager.recv(1000) == b"STOPPING=1"


def test_command_line_decides_the_number_of_workers_also_after_a_reload(start: Start, config: Path) -> None:
    write_config(config, free_port(), workers=3)
    minato = start(config, "1")
    minato.wait_ready()
    minato.signal(signal.SIGHUP)
    minato.wait_workers("0 gen 2")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stop_exits_0_and_leaves_nothing(start: Start, config: Path, tmp_path: Path, number: signal.Signals) -> None:
    port = free_port()
    pid_file = tmp_path / "pid"
    write_config(config, port)
    minato = start(config, "2", str(pid_file))
    minato.wait_ready()
    workers = minato.workers()
    assert pid_file.read_text() == f"{minato.pid}\n"
    assert len(minato.segments()) == 1
    minato.signal(number)
    assert minato.wait_exit() == 0
    assert not any(worker.is_running() for worker in workers)
    assert minato.segments() == []
    assert not pid_file.exists()


def test_graceful_stop_finishes_what_is_in_flight_and_what_waits_in_the_queue(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, workers=1)
    minato = start(config)
    minato.wait_ready()
    (worker,) = minato.workers()
    with connect(port) as slow, connect(port) as queued:
        slow.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
        worker.suspend()
        with connect(port) as last:
            minato.signal(signal.SIGTERM)
            minato.wait_for("stopping: what is in flight")
            worker.resume()
            assert finish(queued)["pid"] == finish(last)["pid"] == read_answer(slow)["pid"] == str(worker.pid)
    assert minato.wait_exit() == 0


def test_second_term_stops_at_once(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port)
    minato = start(config)
    minato.wait_ready()
    with connect(port) as idle:
        minato.wait_accepted(idle)
        minato.signal(signal.SIGTERM)
        minato.wait_for("stopping: what is in flight")
        minato.signal(signal.SIGTERM)
        assert minato.wait_exit() == 0
        assert idle.recv(1) == b""


def test_fast_stop_kills_a_worker_that_does_not_listen(start: Start, config: Path) -> None:
    write_config(config, free_port(), workers=1)
    minato = start(config)
    minato.wait_ready()
    minato.workers()[0].suspend()
    minato.signal(signal.SIGINT)
    assert minato.wait_exit() == 0
    minato.wait_for("did not end in time; killing it")


def test_address_in_use_is_exit_1_and_one_line(start: Start, config: Path, tmp_path: Path) -> None:
    port = free_port()
    write_config(config, port)
    start(config).wait_ready()
    second = start(config)
    assert second.wait_exit() == 1
    # Other tests kill masters meanwhile; whoever starts next clears up behind them, and says so.
    said = [line for line in second.log if "left behind by a master that was killed" not in line]
    assert said == [f"minato: cannot listen on 127.0.0.1:{port}: address already in use"]
    assert ask(port)["gen"] == "1"


def test_workers_that_cannot_boot_end_the_first_start(start: Start, config: Path, tmp_path: Path) -> None:
    write_config(config, free_port())
    (tmp_path / "boot-fails").touch()
    minato = start(config)
    assert minato.wait_exit() == 1
    minato.wait_for("worker . gen 1 cannot start: told to fail")
    minato.wait_for("^minato: cannot start")
    assert minato.segments() == []


def test_term_is_obeyed_while_the_first_workers_boot(start: Start, config: Path, tmp_path: Path) -> None:
    write_config(config, free_port())
    (tmp_path / "boot-hangs").touch()
    minato = start(config)
    minato.wait_workers("0 gen 1", "1 gen 1")
    minato.signal(signal.SIGINT)
    assert minato.wait_exit() == 0


def test_killed_master_that_nobody_follows_leaves_no_worker_and_no_segment(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, extra="timeouts: {orphaned: 1}")
    minato = start(config)
    minato.wait_ready()
    workers = minato.workers()
    minato.signal(signal.SIGKILL)
    time.sleep(0.5)
    assert ask(port)["gen"] == "1"
    assert psutil.wait_procs(workers, timeout=WAIT_S)[1] == []
    assert minato.segments() == []
    with pytest.raises(ConnectionRefusedError):
        ask(port)
    start(config).wait_ready()
    assert ask(port)["gen"] == "1"


def test_restart_right_after_a_kill_does_not_find_the_address_in_use(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port)
    minato = start(config)
    minato.wait_ready()
    minato.workers()
    minato.signal(signal.SIGKILL)
    start(config).wait_ready()


def test_interrupt_of_the_whole_group_is_the_masters_to_obey(start: Start, config: Path) -> None:
    write_config(config, free_port())
    minato = start(config)
    minato.wait_ready()
    os.killpg(minato.pid, signal.SIGINT)
    assert minato.wait_exit() == 0
    assert not any("WARNING" in line and "worker" in line for line in minato.log)
