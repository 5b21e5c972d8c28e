"""The health thread: errors end nothing, a stop is quick, nothing leaks, forks never deadlock."""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import threading
import time
from dataclasses import replace
from typing import NoReturn

import pytest

from minato.control.health import HealthChecker
from minato.control.probe import Probe
from minato.decide.standing import Standing
from minato.errors import BootError
from minato.net.resolve import ResolvedAddress
from tests.control.health_bench import SELDOM, SICK, Bench, addresses_of, by_key, fork_child, wait_for, wait_for_child
from tests.control.health_origin import (
    OK,
    QUICK,
    Origin,
    full_listener,
    make_upstream,
    refusing_port,
    stay_silent,
)

# Robustness


def test_an_error_in_a_callback_is_logged_and_the_thread_goes_on(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = bench.origin().upstream()
    calls: list[bool] = []

    def publish(key: str, standing: Standing, recovered_ms: int) -> None:
        calls.append(standing is Standing.UP)
        if len(calls) <= 2:
            raise ZeroDivisionError("not foreseen")
        bench.published(key, standing, recovered_ms)

    checker = HealthChecker(
        QUICK, by_key(upstream), addresses_of(upstream), publish=publish, outcomes=lambda: {}[upstream.key]
    )
    checker.start()
    checker.wake()  # outcomes raises as well
    bench.published.wait_until(upstream, True)
    checker.stop()
    assert "not foreseen" in caplog.text
    assert "KeyError" in caplog.text


def test_an_error_at_the_beginning_of_a_round_does_not_end_the_rounds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = bench.origin()
    upstream = origin.upstream()
    fail_times = iter([True, True])
    genuine = Probe._connect

    def fail(probe: Probe, address: ResolvedAddress) -> None:
        if next(fail_times, False):
            raise ZeroDivisionError
        genuine(probe, address)

    monkeypatch.setattr(Probe, "_connect", fail)
    bench.checker(upstream)
    bench.published.wait_until(upstream, True)
    assert [up for _, up in bench.published.calls][:3] == [False, False, True]


def test_an_error_of_the_loop_itself_is_logged_and_survived(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = bench.origin().upstream()
    checker = bench.checker(upstream, start=False)
    turn = checker._loop.turn
    fail_times = iter([True])

    def fail(max_wait_s: float) -> None:
        if next(fail_times, False):
            raise OSError("epoll is out of order")
        turn(max_wait_s)

    monkeypatch.setattr(checker._loop, "turn", fail)
    checker.start()
    assert checker.wait_first_round()
    assert "error in the health checks" in caplog.text


def test_no_file_descriptors_at_start_is_a_boot_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> NoReturn:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(os, "eventfd", fail)
    with pytest.raises(BootError, match=r"^cannot start the health checks: too many open files$"):
        HealthChecker(QUICK, {}, {}, publish=lambda key, standing, recovered_ms: None, outcomes=dict)


def test_stop_is_quick_with_probes_in_flight_and_leaves_no_descriptor(bench: Bench) -> None:
    with full_listener() as port:
        hanging = [make_upstream(port, health_uri=f"/{number}") for number in range(50)]
        fds_before = len(os.listdir("/proc/self/fd"))
        checker = bench.checker(*hanging, config=replace(QUICK, tcp_timeout_s=60.0))
        wait_for(lambda: len(os.listdir("/proc/self/fd")) >= fds_before + 50)
        began_s = time.monotonic()
        checker.stop()
        assert time.monotonic() - began_s < 5  # nothing like tcp_timeout
        assert len(os.listdir("/proc/self/fd")) == fds_before
        assert "minato-health" not in {thread.name for thread in threading.enumerate()}
        checker.stop()


def test_stop_is_noticed_even_when_a_turn_reads_its_wake_away(monkeypatch: pytest.MonkeyPatch) -> None:
    checker = HealthChecker(QUICK, {}, {}, publish=lambda key, standing, recovered_ms: None, outcomes=dict)
    stopper = threading.Thread(target=checker.stop)
    turn = checker._loop.turn

    def turn_while_stopped(max_wait_s: float) -> None:
        if not checker._is_closed:
            os.eventfd_read(checker.wake_fd)  # what update wrote
            stopper.start()
            assert select.select([checker.wake_fd], [], [], 10)[0]
            while select.select([checker.wake_fd], [], [], 0)[0]:
                turn(0.0)

    monkeypatch.setattr(checker._loop, "turn", turn_while_stopped)
    checker.start()
    wait_for(lambda: stopper.ident is not None)
    stopper.join(10)
    assert not stopper.is_alive()


def test_a_checker_that_never_started_stops() -> None:
    HealthChecker(QUICK, {}, {}, publish=lambda key, standing, recovered_ms: None, outcomes=dict).stop()


def test_many_rounds_leak_no_descriptor(bench: Bench) -> None:
    dead = make_upstream(refusing_port())
    checker = bench.checker(dead, config=replace(QUICK, interval_s=0.002))
    assert checker.wait_first_round()
    fds_before = len(os.listdir("/proc/self/fd"))
    bench.published.wait_for(lambda: len(bench.published.calls) > 100)
    with checker.fork_lock:
        assert len(os.listdir("/proc/self/fd")) <= fds_before + 1


def test_the_thread_takes_no_signals(bench: Bench) -> None:
    bench.checker(make_upstream(refusing_port()))
    thread = next(thread for thread in threading.enumerate() if thread.name == "minato-health")
    wait_for(lambda: _blocked_signals(thread.native_id) >= {signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD})
    assert signal.SIGSEGV not in _blocked_signals(thread.native_id)


def _blocked_signals(thread_id: int | None) -> set[int]:
    with open(f"/proc/self/task/{thread_id}/status") as file:
        mask = next(int(line.split()[1], 16) for line in file if line.startswith("SigBlk"))
    return {number + 1 for number in range(64) if mask >> number & 1}


# Forks


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_two_hundred_forks_while_probing_never_deadlock(bench: Bench) -> None:
    silent, sick = bench.origin(stay_silent), bench.origin(SICK)
    with full_listener() as port:
        upstreams = [
            silent.upstream(),
            sick.upstream(),
            bench.origin().upstream(),
            make_upstream(port),
            *(make_upstream(refusing_port(), health_uri=f"/{number}") for number in range(10)),
        ]
        config = replace(QUICK, interval_s=0.002, tcp_timeout_s=0.02, http_timeout_s=0.02)
        checker = bench.checker(*upstreams, config=config)

        def work() -> None:
            logging.getLogger("minato.health").error("the child logs")
            with checker.fork_lock:
                checker.wake()
            threading.Thread(target=lambda: None).start()

        for _ in range(200):
            assert wait_for_child(fork_child(checker, work)) == 0
        before = len(bench.published.calls)
        bench.published.wait_for(lambda: len(bench.published.calls) > before)


def test_the_lock_is_soon_to_be_had_while_the_thread_is_busy(bench: Bench) -> None:
    upstreams = [make_upstream(refusing_port(), health_uri=f"/{number}") for number in range(200)]
    checker = bench.checker(*upstreams, config=replace(QUICK, interval_s=0.001))
    assert checker.wait_first_round()
    for _ in range(50):
        assert checker.fork_lock.acquire(timeout=5)
        checker.fork_lock.release()


def test_forget_closes_the_threads_descriptors_in_the_child_and_harms_no_probe_of_the_parent(bench: Bench) -> None:
    answer = threading.Event()

    def answer_late(origin: Origin, conn: socket.socket) -> None:
        origin.read_head(conn)
        assert answer.wait(10)
        conn.sendall(OK)

    origin = bench.origin(answer_late)
    upstream = origin.upstream()
    checker = bench.checker(upstream, config=replace(SELDOM, http_timeout_s=20.0))
    origin.wait_for_connections(1)
    with checker.fork_lock:
        watched = {checker._loop.fileno(), *checker._loop._handlers} - {checker.wake_fd}
    assert len(watched) == 2

    def work() -> None:
        assert not any(_is_open(fd) for fd in watched)
        assert _is_open(checker.wake_fd)
        checker.stop()  # does nothing in a child
        checker.wake()

    assert wait_for_child(fork_child(checker, work)) == 0
    answer.set()
    bench.published.wait_until(upstream, True)
