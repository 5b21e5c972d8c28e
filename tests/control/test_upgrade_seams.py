"""Where a binary upgrade meets something else: reload storms, more workers, crash loops, older masters that drain."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from minato.config.model import ListenAddress
from minato.control.admin.client import post
from minato.control.purges import WAIT_S
from minato.decide.rollover import MAX_DRAINING_GENERATIONS
from tests.control.runner import Instance, ask, connect, finish, read_answer, write_config
from tests.control.test_binary_upgrade import children, file, new_master, service_manager, wait_gone
from tests.ports import free_port

Start = Callable[..., Instance]


@pytest.fixture
def extra() -> str:
    return "timeouts: {upgrade: 20, drain: 5}"


def test_nobody_waits_for_workers_that_are_more_than_before_while_they_boot(
    minato: Instance, config: Path, port: int
) -> None:
    write_config(config, port, workers=6, extra="timeouts: {upgrade: 20, drain: 5}")
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new = new_master(minato)
        deadline_s = time.monotonic() + 20
        while len(children(new.pid)) < 6:
            assert time.monotonic() < deadline_s
            time.sleep(0.01)
        waiting = [connect(port) for _ in range(24)]
        for sock in waiting:
            sock.settimeout(10)
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert read_answer(sock)["gen"] == "1"
        minato.workers()
        minato._seen.update(child.pid for child in children(new.pid))
    minato.upgraded()
    assert len({ask(port)["pid"] for _ in range(60)}) > 2
    assert minato.wait_exit() == 0


def test_upgrade_begins_in_a_storm_of_reloads(minato: Instance) -> None:
    over = threading.Event()

    def storm() -> None:
        while not over.wait(0.002):
            os.kill(minato.process.pid, signal.SIGHUP)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        minato.wait_for("generation 2 serves")
        minato.signal(signal.SIGUSR2)
        minato.wait_for("upgrading: starting")
    finally:
        over.set()
        thread.join()
    minato.upgraded()
    assert minato.wait_exit() == 0


def test_what_the_service_manager_was_told_of_a_crash_loop_is_taken_back(
    start: Start, config: Path, tmp_path: Path
) -> None:
    port = free_port()
    write_config(config, port, workers=1)
    with service_manager(tmp_path / "notify") as read:
        instance = start(config, env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        instance.wait_ready()
        read(1)
        write_config(config, port, workers=1, extra="limits: {connections: 666}")
        instance.signal(signal.SIGHUP)
        while True:
            ((_, state),) = read(1)
            if state.startswith("STATUS=generation"):
                break
        write_config(config, port, workers=1)
        instance.signal(signal.SIGUSR2)
        new = instance.upgraded()
        states = [state for _, state in read(4)]
        assert states[1:] == ["STATUS=", f"MAINPID={new}", "READY=1"]
        assert instance.wait_exit() == 0


def test_master_ends_after_the_one_before_it(start: Start, config: Path) -> None:
    """With the master in office the service manager's unit ends, and whatever is left of it is killed."""
    port = free_port()
    write_config(config, port, extra="timeouts: {drain: 10}")
    instance = start(config)
    instance.wait_ready()
    with connect(port) as slow:
        slow.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
        instance.wait_accepted(slow)
        instance.signal(signal.SIGUSR2)
        new = psutil.Process(instance.upgraded())
        instance.signal(signal.SIGTERM)
        # As long as the old one drains; it closes the link before the last of it is gone.
        while not select.select([slow], [], [], 0.01)[0]:
            assert new.is_running() and new.status() != psutil.STATUS_ZOMBIE
        assert read_answer(slow)["gen"] == "1"
    wait_gone(new)


def test_master_between_two_others_ends_after_the_one_before_it(start: Start, config: Path) -> None:
    """Purges and signals reach the first through it."""
    port = free_port()
    write_config(config, port, extra="timeouts: {drain: 10}")
    instance = start(config)
    instance.wait_ready()
    with connect(port) as slow:
        slow.sendall(b"GET /slow HTTP/1.1\r\n\r\n")
        instance.wait_accepted(slow)
        instance.signal(signal.SIGUSR2)
        second = psutil.Process(instance.upgraded())
        instance.signal(signal.SIGUSR2)
        instance.upgraded()
        instance.signal(signal.SIGUSR1)
        while instance.process.poll() is None:
            assert second.is_running() and second.status() != psutil.STATUS_ZOMBIE
            time.sleep(0.01)
        assert read_answer(slow)["gen"] == "1"
    wait_gone(second)


def test_generations_that_drained_before_the_upgrade_let_go_of_what_they_stored(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, workers=1, extra="timeouts: {drain: 10}")
    instance = start(config)
    instance.wait_ready()
    with connect(port) as first:
        instance.wait_accepted(first)
        instance.signal(signal.SIGHUP)
        instance.wait_for("generation 2 serves")
        assert not [line for line in instance.log if "standin: shed" in line]
        with connect(port) as second:
            instance.wait_accepted(second)
            instance.signal(signal.SIGUSR2)
            instance.wait_for("standin: shed")
            assert finish(second)["gen"] == "2"
        assert finish(first)["gen"] == "1"
    instance.upgraded()
    assert instance.wait_exit() == 0


def test_master_that_drains_lets_go_of_what_it_stored_when_the_new_one_reloads(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, workers=1, extra="timeouts: {drain: 10}")
    instance = start(config)
    instance.wait_ready()
    with connect(port) as first:
        instance.wait_accepted(first)
        instance.signal(signal.SIGUSR2)
        instance.upgraded()
        assert not [line for line in instance.log if "standin: shed" in line]
        instance.signal(signal.SIGHUP)
        instance.wait_for("standin: shed")
        assert finish(first)["gen"] == "1"
    assert instance.wait_exit() == 0


def test_master_that_drains_keeps_what_it_stored_when_the_new_one_gives_a_reload_up(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, workers=1, extra="timeouts: {drain: 10}")
    instance = start(config)
    instance.wait_ready()
    with connect(port) as first:
        time.sleep(0.1)  # it is accepted
        instance.signal(signal.SIGUSR2)
        instance.upgraded()
        config.write_text("services: [")
        instance.signal(signal.SIGHUP)
        instance.wait_for("reload given up")
        time.sleep(0.3)
        assert not [line for line in instance.log if "standin: shed" in line]
        assert finish(first)["gen"] == "1"
    assert instance.wait_exit() == 0


@pytest.mark.parametrize("workers", [1, 4])
def test_new_master_whose_workers_crash_again_and_again_is_given_up(start: Start, config: Path, workers: int) -> None:
    """It has no earlier generation to go back to; the old master is there yet."""
    port = free_port()
    write_config(config, port, workers=workers, extra="timeouts: {drain: 5}")
    minato = start(config)
    minato.wait_ready()
    write_config(config, port, workers=workers, extra="timeouts: {drain: 5}\nlimits: {connections: 666}")
    minato.signal(signal.SIGUSR2)
    minato.wait_for("upgrade given up: the new master: its workers crash again and again")
    minato.wait_for("that was given up is gone")
    pids = {str(worker.pid) for worker in minato.workers()}
    assert {ask(port)["pid"] for _ in range(20)} <= pids
    write_config(config, port, workers=workers, extra="timeouts: {drain: 5}")
    minato.signal(signal.SIGUSR2)
    minato.upgraded()
    assert minato.wait_exit() == 0


def test_address_that_the_new_master_dropped_is_served_again_when_that_dies(start: Start, config: Path) -> None:
    port, dropped = free_port(), free_port()
    write_config(config, port, dropped)
    minato = start(config)
    minato.wait_ready()
    workers = minato.workers()
    for worker in workers:
        worker.suspend()  # so the hand-over takes its two seconds
    write_config(config, port)
    minato.signal(signal.SIGUSR2)
    new = new_master(minato)
    minato.wait_for("all workers of the new master .* serve")
    new.kill()
    minato.wait_for("upgrade given up")
    for worker in workers:
        worker.resume()
    minato.wait_for("generation 2 serves")
    assert {ask(dropped)["gen"] for _ in range(8)} == {"2"}


def test_upgrade_has_its_time_still_after_all_were_stopped(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, extra="timeouts: {upgrade: 3, drain: 5}")
    minato = start(config)
    minato.wait_ready()
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new_master(minato)
        os.killpg(minato.pid, signal.SIGSTOP)
        time.sleep(3.5)
        os.killpg(minato.pid, signal.SIGCONT)
        time.sleep(0.3)
    minato.upgraded()
    assert minato.wait_exit() == 0


def test_purge_is_not_answered_later_for_a_stop_that_was_before_it(start: Start, config: Path) -> None:
    admin = free_port()
    write_config(config, free_port(), extra=f"timeouts: {{heartbeat: 60}}\nadmin: {{listen: '127.0.0.1:{admin}'}}")
    minato = start(config)
    minato.wait_ready()
    workers = minato.workers()
    minato.signal(signal.SIGSTOP)
    time.sleep(3)
    minato.signal(signal.SIGCONT)
    workers[0].suspend()
    began_s = time.monotonic()
    status, told = post(ListenAddress("127.0.0.1", admin), "/purge", {"all": True})
    took_s = time.monotonic() - began_s
    workers[0].resume()
    assert status != 200, told
    assert took_s < WAIT_S + 2


def test_old_masters_that_drain_are_bounded_and_a_further_upgrade_waits(start: Start, config: Path) -> None:
    """As older generations are: each is a process, and holds workers."""
    port = free_port()
    write_config(config, port, workers=1, extra="timeouts: {drain: 120}")
    instance = start(config)
    instance.wait_ready()
    streams = []
    for _ in range(MAX_DRAINING_GENERATIONS):
        streams.append(connect(port))
        instance.wait_accepted(streams[-1])
        instance.signal(signal.SIGUSR2)
        instance.upgraded()
    instance.signal(signal.SIGUSR2)
    instance.wait_for("the upgrade waits: 8 older generations still drain")
    instance.signal(signal.SIGUSR2)
    instance.wait_for("no further upgrade: one waits already")
    assert len([pid for pid in instance.masters if psutil.pid_exists(pid)]) == MAX_DRAINING_GENERATIONS + 1
    assert ask(port)["gen"] == "1"
    finish(streams.pop())  # the youngest but one; it waits for those before it, which are seven
    time.sleep(0.5)
    assert len([line for line in instance.log if line.startswith("minato: ready")]) == len(instance.masters)
    finish(streams.pop(0))
    instance.upgraded()
    for stream in streams:
        finish(stream)
    assert instance.wait_exit() == 0


def test_reload_waits_for_generations_of_older_masters_too(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, workers=1, extra="timeouts: {drain: 120}")
    instance = start(config)
    instance.wait_ready()
    streams = []
    for number in range(MAX_DRAINING_GENERATIONS):
        streams.append(connect(port))
        instance.wait_accepted(streams[-1])
        if number == 5:
            instance.signal(signal.SIGUSR2)
            instance.upgraded()
        else:
            instance.signal(signal.SIGHUP)
            instance.wait_for("generation . serves", count=number + (number < 5))
    instance.signal(signal.SIGHUP)
    instance.wait_for("the reload waits: 8 older generations still drain")
    finish(streams.pop())
    instance.wait_for("generation . serves", count=MAX_DRAINING_GENERATIONS)
    for stream in streams:
        finish(stream)
