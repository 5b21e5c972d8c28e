"""Workers that die, hang, come and go: replaced, killed, their queues served by the others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from minato.control.generation import SPARE_ROWS
from tests.control.runner import Instance, ask, connect, finish, title, write_config
from tests.ports import free_port

Start = Callable[..., Instance]


def test_killed_worker_is_replaced_at_once(start: Start, config: Path, port: int) -> None:
    minato = start(config)
    minato.wait_ready()
    victim = minato.workers()[0]
    victim.kill()
    minato.wait_for(rf"worker 0 gen 1 \(pid {victim.pid}\) was killed by SIGKILL")
    minato.wait_for("worker 0 gen 1 serves", count=2)
    assert victim.pid not in [worker.pid for worker in minato.wait_workers("0 gen 1", "1 gen 1")]
    assert not any("started again in" in line for line in minato.log)


def test_exception_in_a_worker_is_logged_with_its_place_and_the_worker_replaced(
    start: Start, config: Path, port: int
) -> None:
    minato = start(config)
    minato.wait_ready()
    with connect(port) as sock:
        sock.sendall(b"GET /crash HTTP/1.1\r\n\r\n")
        minato.wait_for("ended with status 1")
    assert "told to crash" in minato.wait_for("CRITICAL.*crashed")
    minato.wait_workers("0 gen 1", "1 gen 1")


def test_connections_in_the_queue_outlive_their_worker(start: Start, config: Path) -> None:
    port = free_port()
    write_config(config, port, workers=1)
    minato = start(config)
    minato.wait_ready()
    victim = minato.workers()[0]
    victim.suspend()
    with connect(port) as waiting:
        victim.kill()
        assert finish(waiting)["pid"] != str(victim.pid)


def test_worker_that_cannot_boot_again_is_retried_with_back_off_and_its_queue_served(
    start: Start, config: Path, port: int, tmp_path: Path
) -> None:
    minato = start(config)
    minato.wait_ready()
    (tmp_path / "boot-fails").touch()
    minato.workers()[0].kill()
    minato.wait_for(r"worker 0 is started again in 0\.5 s")
    minato.wait_for(r"worker 0 is started again in 1 s")
    (survivor,) = minato.wait_workers("1 gen 1")
    assert {ask(port)["pid"] for _ in range(20)} == {str(survivor.pid)}
    (tmp_path / "boot-fails").unlink()
    minato.wait_workers("0 gen 1", "1 gen 1")


def test_queue_of_a_silent_worker_is_served_by_the_others_before_it_is_killed(
    start: Start, config: Path, port: int
) -> None:
    write_config(config, port, extra="timeouts: {heartbeat: 60}")
    minato = start(config)
    minato.wait_ready()
    silent, other = minato.workers()
    silent.suspend()
    assert {ask(port)["pid"] for _ in range(20)} == {str(other.pid)}
    silent.resume()
    # Its sockets are its own again after a heartbeat; then the kernel's choice decides, over both.
    answered: set[str] = set()
    for _ in range(400):
        answered.add(ask(port)["pid"])
        if len(answered) == 2:
            break
    assert answered == {str(silent.pid), str(other.pid)}


def test_worker_that_hangs_is_killed_and_replaced(start: Start, config: Path, port: int) -> None:
    write_config(config, port, workers=1, extra="timeouts: {heartbeat: 1}")
    minato = start(config)
    minato.wait_ready()
    (hung,) = minato.workers()
    with connect(port) as sock:
        sock.sendall(b"GET /hang HTTP/1.1\r\n\r\n")
        minato.wait_for(rf"\(pid {hung.pid}\) hangs: no heartbeat for (?!0)\d+\..* s; killing it")
        assert ask(port)["pid"] != str(hung.pid)


def test_stopped_group_that_goes_on_is_not_taken_for_hung(start: Start, config: Path, port: int) -> None:
    write_config(config, port, extra="timeouts: {heartbeat: 2}")
    minato = start(config)
    minato.wait_ready()
    minato.workers()
    os.killpg(minato.pid, signal.SIGSTOP)
    time.sleep(3)  # there is no event: nothing happens, and that for longer than the heartbeat's timeout
    os.killpg(minato.pid, signal.SIGCONT)
    for _ in range(10):
        ask(port)
    assert not any("hangs" in line for line in minato.log)


def test_ttin_adds_a_worker_and_ttou_takes_it_away_without_losing_its_queue(
    start: Start, config: Path, port: int
) -> None:
    minato = start(config)
    minato.wait_ready()
    minato.signal(signal.SIGTTIN)
    workers = minato.wait_workers("0 gen 1", "1 gen 1", "2 gen 1")
    minato.wait_for("worker 2 gen 1 serves")
    workers[2].suspend()
    waiting = [connect(port) for _ in range(30)]  # about ten of them in the queue of slot 2
    minato.signal(signal.SIGTTOU)
    minato.wait_for("2 workers$")
    answers = [finish(sock)["pid"] for sock in waiting]
    assert set(answers) <= {str(worker.pid) for worker in workers[:2]}
    workers[2].resume()
    minato.wait_workers("0 gen 1", "1 gen 1")
    assert {ask(port)["pid"] for _ in range(30)} <= {str(worker.pid) for worker in workers[:2]}


def test_last_worker_stays(start: Start, config: Path, port: int) -> None:
    minato = start(config, "1")
    minato.wait_ready()
    minato.signal(signal.SIGTTOU)
    minato.wait_for("one worker is the least")
    assert ask(port)["gen"] == "1"


def test_more_workers_than_leave_a_spare_row_on_the_board_roll_over(start: Start, config: Path, port: int) -> None:
    minato = start(config, "1")
    minato.wait_ready()
    for count in range(2, SPARE_ROWS + 2):
        minato.signal(signal.SIGTTIN)
        minato.wait_for(rf"\]: {count} workers")
    minato.wait_workers(*(f"{slot} gen 2" for slot in range(SPARE_ROWS + 1)))
    assert ask(port)["gen"] == "2"


def test_usr1_reopens_the_logs_of_every_worker(start: Start, config: Path, port: int) -> None:
    minato = start(config)
    minato.wait_ready()
    minato.signal(signal.SIGUSR1)
    minato.wait_for("standin: reopened logs", count=2)


def test_term_to_one_worker_drains_it_and_puts_another_in_its_place(start: Start, config: Path, port: int) -> None:
    write_config(config, port, workers=1)
    minato = start(config)
    minato.wait_ready()
    (old,) = minato.workers()
    with connect(port) as slow:
        minato.wait_accepted(slow)
        old.terminate()
        minato.wait_for(rf"\(pid {old.pid}\) was told to drain")
        minato.wait_for("worker 0 gen 1 serves", count=2)
        assert ask(port)["pid"] != str(old.pid)
        assert finish(slow)["pid"] == str(old.pid)


def test_workers_hold_no_socket_of_another_slot_and_no_channel_of_another_worker(
    start: Start, config: Path, port: int
) -> None:
    write_config(config, port, workers=4)
    minato = start(config)
    minato.wait_ready()
    minato.wait_workers(*(f"{slot} gen 1" for slot in range(4)))
    counts = {title(worker): worker.num_fds() for worker in minato.workers()}
    assert len(set(counts.values())) == 1, counts
