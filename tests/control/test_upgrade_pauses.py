"""A master that is stopped (SIGSTOP) in the middle of an upgrade: the other goes on and says why; then one serves."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.control.runner import Instance, ask, write_config
from tests.control.test_binary_upgrade import children, file, new_master, wait_gone
from tests.ports import free_port

Start = Callable[..., Instance]


@contextlib.contextmanager
def stopped(process: psutil.Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    yield
    process.send_signal(signal.SIGCONT)


def start_with(start: Start, config: Path, port: int, timeouts: str) -> Instance:
    write_config(config, port, extra=f"timeouts: {{{timeouts}}}")
    instance = start(config)
    instance.wait_ready()
    return instance


def new_process(instance: Instance) -> psutil.Process:
    """Return what will be the new master, from its fork on."""
    workers = {worker.pid for worker in instance.workers()}
    deadline_s = time.monotonic() + 20
    while time.monotonic() < deadline_s:
        for child in children(instance.pid):
            if child.pid not in workers:
                instance._seen.add(child.pid)
                return child
    raise AssertionError(instance.log)


def answers(port: int, seconds: float) -> set[int]:
    """Ask for so long; return the pids of the workers that answered."""
    until_s = time.monotonic() + seconds
    found = set()
    while time.monotonic() < until_s:
        found.add(int(ask(port)["pid"]))
    return found


def only_of(pid: int, port: int) -> bool:
    return answers(port, 0.5) <= {child.pid for child in children(pid)}


def test_old_master_that_is_stopped_before_it_hands_over_goes_on_later(start: Start, config: Path) -> None:
    port = free_port()
    minato = start_with(start, config, port, "upgrade: 30, drain: 5")
    old = psutil.Process(minato.pid)
    minato.signal(signal.SIGUSR2)
    new = new_process(minato)
    with stopped(old):
        minato.wait_for("handed nothing over within 10 s")
        answers(port, 0.5)
    minato.wait_for("upgrade given up")
    assert only_of(old.pid, port)
    minato.signal(signal.SIGUSR2)
    minato.upgraded()
    assert minato.wait_exit() == 0
    assert not new.is_running()


def test_old_master_that_is_stopped_while_the_new_one_boots_is_waited_for(start: Start, config: Path) -> None:
    """Both serve meanwhile, and the new one says what it waits for."""
    port = free_port()
    minato = start_with(start, config, port, "upgrade: 30, drain: 5")
    old = psutil.Process(minato.pid)
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new = new_master(minato)
        while len(children(new.pid)) < 2:
            time.sleep(0.01)
        old.send_signal(signal.SIGSTOP)
    with stopped(old):
        minato.wait_for("waits for the old master .* it may be stopped")
        assert len(answers(port, 1.0)) > 2
        assert len([line for line in minato.log if line.startswith("minato: ready")]) == 1
    assert minato.upgraded() == new.pid
    assert minato.wait_exit() == 0
    assert only_of(new.pid, port)


def test_old_master_that_is_stopped_while_it_hands_over_is_waited_for(start: Start, config: Path) -> None:
    port = free_port()
    minato = start_with(start, config, port, "upgrade: 30, drain: 5")
    old = psutil.Process(minato.pid)
    workers = minato.workers()
    for worker in workers:
        worker.suspend()  # so that handing over takes its two seconds
    minato.signal(signal.SIGUSR2)
    new = new_master(minato)
    minato.wait_for("all workers of the new master .* serve")
    time.sleep(0.2)  # the log is before the deed
    with stopped(old):
        for worker in workers:
            worker.resume()
        minato.wait_for("waits for the old master .* it may be stopped")
        time.sleep(1)
        assert answers(port, 0.5) <= {child.pid for child in children(new.pid)}
    assert minato.upgraded() == new.pid
    assert minato.wait_exit() == 0


def test_new_master_that_is_stopped_while_it_boots_is_given_up(start: Start, config: Path) -> None:
    port = free_port()
    minato = start_with(start, config, port, "upgrade: 2, drain: 2")
    with file(config.parent / "boot-hangs"):
        minato.signal(signal.SIGUSR2)
        new = new_master(minato)
        new.suspend()
        minato.wait_for("upgrade given up: the new master: it was not ready in time")
        minato.wait_for("is gone")
    assert only_of(minato.pid, port)
    minato.signal(signal.SIGUSR2)
    minato.upgraded()
    assert minato.wait_exit() == 0


def test_new_master_that_is_stopped_when_it_is_ready_takes_over_later(
    start: Start, config: Path, tmp_path: Path
) -> None:
    port, pid_file = free_port(), tmp_path / "pid"
    write_config(config, port, extra="timeouts: {upgrade: 30, drain: 2}")
    minato = start(config, "2", str(pid_file))
    minato.wait_ready()
    workers = minato.workers()
    for worker in workers:
        worker.suspend()
    minato.signal(signal.SIGUSR2)
    new = new_master(minato)
    minato.wait_for("all workers of the new master .* serve")
    time.sleep(0.2)
    with stopped(new):
        for worker in workers:
            worker.resume()
        minato.wait_for("the new master .* is stopped; its workers serve")
        assert minato.wait_exit() == 0
        assert answers(port, 0.5) <= {child.pid for child in children(new.pid)}
    assert minato.upgraded() == new.pid
    assert pid_file.read_text().strip() == str(new.pid)
    minato.signal(signal.SIGTERM)
    wait_gone(new)
