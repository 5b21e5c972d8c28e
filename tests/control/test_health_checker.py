"""The health thread: a bounded first round, no upstream delays another, reloads keep state, forks never deadlock."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import NoReturn

import pytest

from minato.config.model import HealthConfig, Upstream
from minato.control.health import HealthChecker
from minato.control.probe import Probe, ProbeTarget
from minato.control.upstream_watch import UpstreamWatch
from minato.decide.health import Health
from minato.decide.outliers import Outcomes
from minato.decide.standing import Standing
from minato.errors import BootError
from minato.net.loop import Loop
from minato.net.resolve import ResolvedAddress
from minato.shared.board import Board
from tests.control.health_origin import (
    OK,
    QUICK,
    Behaviour,
    Origin,
    full_listener,
    make_upstream,
    refusing_port,
    resolved,
    respond,
    stay_silent,
)

SICK = respond(b"HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n")
# Far away: what happens in a test with this interval is not the next regular round.
SELDOM = replace(QUICK, interval_s=3600.0, tcp_timeout_s=2.0, http_timeout_s=2.0)

MakeOrigin = Callable[..., Origin]


class Published:
    """What the checker published, to be waited for."""

    def __init__(self) -> None:
        self.up: dict[str, bool] = {}
        self.calls: list[tuple[str, bool]] = []
        self._changed = threading.Condition()

    def __call__(self, key: str, standing: Standing, recovered_ms: int) -> None:
        up = standing is Standing.UP
        with self._changed:
            self.up[key] = up
            self.calls.append((key, up))
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], bool], timeout_s: float = 10.0) -> None:
        with self._changed:
            assert self._changed.wait_for(predicate, timeout_s), (self.up, self.calls[-20:])

    def wait_until(self, upstream: Upstream, up: bool) -> None:
        self.wait_for(lambda: self.up.get(upstream.key) is up)


class Bench:
    """Makes checkers and origins, and stops them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.published = Published()
        self.refused: dict[str, int] = {}
        self.tripped: dict[str, int] = {}

    def origin(self, behave: Behaviour | None = None, **options: int | str) -> Origin:
        origin = Origin(behave or respond(OK), **options)  # type: ignore[arg-type]
        self._stack.callback(origin.stop)
        return origin

    def checker(self, *upstreams: Upstream, config: HealthConfig = QUICK, start: bool = True) -> HealthChecker:
        checker = HealthChecker(
            config,
            by_key(*upstreams),
            addresses_of(*upstreams),
            publish=self.published,
            outcomes=self.outcomes,
            rng=random.Random(1),
        )
        self._stack.callback(checker.stop)
        if start:
            checker.start()
        return checker

    def outcomes(self) -> dict[str, Outcomes]:
        keys = [*self.refused, *self.tripped]
        return {key: Outcomes(refused=self.refused.get(key, 0), tripped=self.tripped.get(key, 0)) for key in keys}

    def refuse(self, checker: HealthChecker, upstream: Upstream, count: int = 1) -> None:
        with checker.fork_lock:
            self.refused[upstream.key] = self.refused.get(upstream.key, 0) + count
        checker.wake()


def by_key(*upstreams: Upstream) -> dict[str, Upstream]:
    return {upstream.key: upstream for upstream in upstreams}


def addresses_of(*upstreams: Upstream) -> dict[str, tuple[ResolvedAddress, ...]]:
    return {upstream.key: (resolved(upstream.port, upstream.host),) for upstream in upstreams}


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        yield Bench(stack)


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "minato.health"]


# Rounds


def test_the_first_round_tells_up_from_down(bench: Bench) -> None:
    well, sick = bench.origin().upstream(), bench.origin(SICK).upstream()
    dead = make_upstream(refusing_port())
    checker = bench.checker(well, sick, dead, config=SELDOM)
    assert checker.wait_first_round()
    assert bench.published.up == {well.key: True, sick.key: False, dead.key: False}
    assert checker.states() == {well.key: Health.UP, sick.key: Health.DOWN, dead.key: Health.DOWN}


def test_the_first_round_is_bounded_by_both_timeouts_whatever_hangs(bench: Bench) -> None:
    silent = [bench.origin(stay_silent).upstream() for _ in range(5)]
    with full_listener() as port:
        hanging = [make_upstream(port, health_uri=f"/{number}") for number in range(20)]
        checker = bench.checker(*silent, *hanging, config=replace(QUICK, interval_s=60))
        assert not checker.wait_first_round(0)
        assert checker.wait_first_round(QUICK.tcp_timeout_s + QUICK.http_timeout_s + 1)
    assert set(bench.published.up.values()) == {False}


def test_hanging_upstreams_do_not_delay_a_good_one(bench: Bench) -> None:
    origin = bench.origin()
    good = origin.upstream()
    slow = replace(QUICK, tcp_timeout_s=30.0, http_timeout_s=30.0)
    with full_listener() as port:
        hanging = [make_upstream(port, health_uri=f"/{number}") for number in range(100)]
        checker = bench.checker(*hanging, good, config=slow)
        # Several rounds of the good one, while not one of the others' probes has come to an end.
        origin.wait_for_connections(5)
        bench.published.wait_until(good, True)
        assert set(bench.published.up) == {good.key}
        assert not checker.wait_first_round(0)


def test_a_failing_upstream_goes_down_and_comes_back_each_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "minato.health")
    origin = bench.origin()
    upstream = origin.upstream()
    bench.checker(upstream)
    bench.published.wait_until(upstream, True)
    for behave, up in ((SICK, False), (respond(OK), True)):
        origin.behave = behave
        bench.published.wait_until(upstream, up)
        more = len(bench.published.calls) + 3
        bench.published.wait_for(lambda more=more: len(bench.published.calls) >= more)
    changes = messages(caplog)
    assert changes[:2] == [
        f"upstream {upstream.key} is up",
        f"upstream {upstream.key} is down: status 500, expected 200",
    ]
    assert changes[2].startswith(f"upstream {upstream.key} is up again after 0.")
    assert len(changes) == 3
    levels = [record.levelno for record in caplog.records if record.name == "minato.health"]
    assert levels == [logging.INFO, logging.WARNING, logging.INFO]


def test_an_upstream_that_stops_listening_goes_down_and_is_found_again(bench: Bench) -> None:
    origin = bench.origin()
    upstream = origin.upstream()
    bench.checker(upstream)
    bench.published.wait_until(upstream, True)
    origin.stop()
    bench.published.wait_until(upstream, False)
    bench.origin(port=origin.port)
    bench.published.wait_until(upstream, True)


def test_probes_without_descriptors_take_no_upstream_down_and_bring_none_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    origin = bench.origin()
    upstream = origin.upstream()
    checker = bench.checker(upstream)
    bench.published.wait_until(upstream, True)
    tried = threading.Semaphore(0)

    def fail(*args: object) -> NoReturn:
        tried.release()
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr("minato.control.probe.socket.socket", fail)
        for _ in range(3):
            assert tried.acquire(timeout=10)
        assert checker.states() == {upstream.key: Health.UP}
        assert (upstream.key, False) not in bench.published.calls
        told = [line for line in messages(caplog) if "cannot probe" in line]
        assert told == [f"cannot probe upstream {upstream.key} from here: too many open files"]
    published = len(bench.published.calls)
    bench.published.wait_for(lambda: len(bench.published.calls) > published)
    origin.stop()
    bench.published.wait_until(upstream, False)


def test_rise_and_fall_count_rounds(bench: Bench) -> None:
    origin = bench.origin()
    upstream = origin.upstream()
    bench.checker(upstream, config=replace(QUICK, rise=3, fall=3))
    bench.published.wait_until(upstream, True)
    origin.behave = SICK
    bench.published.wait_until(upstream, False)
    origin.behave = respond(OK)
    bench.published.wait_until(upstream, True)
    ups = [up for _, up in bench.published.calls]
    down_from = ups.index(False)
    came_back = ups.index(True, down_from)
    assert came_back - down_from >= 3


def test_the_next_round_begins_an_interval_after_the_last_began(bench: Bench) -> None:
    """A probe that takes longer than the interval is followed at once, and never by two side by side."""
    running, most = [0], [0]

    def slow(origin: Origin, conn: socket.socket) -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        origin.read_head(conn)
        time.sleep(0.12)
        running[0] -= 1
        conn.sendall(OK)

    origin = bench.origin(slow)
    bench.checker(origin.upstream(), config=replace(QUICK, interval_s=0.03, http_timeout_s=5))
    origin.wait_for_connections(4)
    assert most[0] == 1


def test_an_upstream_without_address_is_down_and_says_so(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    upstream = make_upstream(80, host="does-not-exist.test")
    checker = HealthChecker(
        SELDOM,
        by_key(upstream),
        {},
        publish=bench.published,
        outcomes=dict,
    )
    checker.start()
    assert checker.wait_first_round()
    checker.stop()
    assert bench.published.up == {upstream.key: False}
    assert messages(caplog) == [f"upstream {upstream.key} is down: its name does not resolve"]


# Refused connections


def test_a_refused_connection_takes_an_upstream_out_at_once_and_a_probe_brings_it_back(bench: Bench) -> None:
    origin = bench.origin()
    upstream = origin.upstream()
    checker = bench.checker(upstream, config=SELDOM)
    assert checker.wait_first_round()
    bench.refuse(checker, upstream)
    bench.published.wait_for(lambda: bench.published.calls[1:] == [(upstream.key, False), (upstream.key, True)])
    assert origin.connections == 2


def test_a_storm_of_refusals_counts_once_and_fall_is_respected(bench: Bench) -> None:
    upstream = bench.origin().upstream()
    checker = bench.checker(upstream, config=replace(SELDOM, fall=3))
    assert checker.wait_first_round()
    bench.refuse(checker, upstream, 1000)
    # Its own result, the failure that does not suffice, and the success of the extra probe.
    bench.published.wait_for(lambda: len(bench.published.calls) == 3)
    assert bench.published.calls == [(upstream.key, True)] * 3


def test_refusals_and_failed_probes_add_up_to_fall(bench: Bench) -> None:
    origin = bench.origin()
    upstream = origin.upstream()
    checker = bench.checker(upstream, config=replace(SELDOM, fall=2))
    assert checker.wait_first_round()
    origin.stop()
    bench.refuse(checker, upstream)
    bench.published.wait_until(upstream, False)
    assert [up for _, up in bench.published.calls] == [True, True, False]


def test_extra_probes_keep_a_distance(bench: Bench) -> None:
    origin = bench.origin()
    upstream = origin.upstream()
    checker = bench.checker(upstream, config=SELDOM)
    assert checker.wait_first_round()
    began_s = time.monotonic()
    while origin.connections < 4:  # the first round and three extra probes
        bench.refuse(checker, upstream)
        time.sleep(0.01)
        assert time.monotonic() - began_s < 20
    assert time.monotonic() - began_s >= 2


def test_falling_counts_are_no_refusals_and_later_growth_is(bench: Bench) -> None:
    upstream = bench.origin().upstream()
    checker = bench.checker(upstream, config=SELDOM)
    assert checker.wait_first_round()
    bench.refuse(checker, upstream, 10)
    bench.published.wait_for(lambda: len(bench.published.calls) == 3)
    bench.refuse(checker, upstream, -7)
    with checker.fork_lock:
        scanned_s = checker._scanned_s
    checker.wake()
    wait_for(lambda: checker._scanned_s > scanned_s)
    assert len(bench.published.calls) == 3
    bench.refuse(checker, upstream)
    bench.published.wait_for(lambda: len(bench.published.calls) >= 4)
    assert bench.published.calls[3] == (upstream.key, False)


def test_a_forked_worker_wakes_the_thread_through_the_board(bench: Bench) -> None:
    upstream = bench.origin().upstream()
    board = Board.create(slots=1, upstream_keys=[upstream.key], serial=800)
    checker = HealthChecker(
        SELDOM,
        by_key(upstream),
        addresses_of(upstream),
        publish=bench.published,
        outcomes=lambda: {key: board.outcomes(index) for index, key in enumerate(board.upstream_keys)},
    )
    checker.start()
    assert checker.wait_first_round()
    pid = fork_child(checker, lambda: (board.row(0).count_refused(0), checker.wake()))
    bench.published.wait_for(lambda: (upstream.key, False) in bench.published.calls)
    assert wait_for_child(pid) == 0
    checker.stop()
    board.unlink()
    board.close()


# Reload


def test_update_keeps_the_state_of_known_upstreams_and_waits_for_new_ones_alone(bench: Bench) -> None:
    origin = bench.origin()
    known, gone = origin.upstream(), make_upstream(refusing_port())
    checker = bench.checker(known, gone, config=SELDOM)
    assert checker.wait_first_round()
    late = bench.origin(stay_silent)
    new = late.upstream()
    checker.update(SELDOM, by_key(known, new), addresses_of(known, new))
    assert not checker.wait_first_round(0)
    assert checker.states() == {known.key: Health.UP, new.key: Health.UNKNOWN}
    late.wait_for_connections(1)
    late.stop()
    assert checker.wait_first_round()
    assert checker.states() == {known.key: Health.UP, new.key: Health.DOWN}
    assert origin.connections == 1


def test_update_without_new_upstreams_is_ready_at_once(bench: Bench) -> None:
    upstream = bench.origin().upstream()
    checker = bench.checker(upstream, config=SELDOM)
    assert checker.wait_first_round()
    checker.update(SELDOM, by_key(upstream), addresses_of(upstream))
    assert checker.wait_first_round(0)


def test_update_with_another_config_or_address_probes_at_once(bench: Bench) -> None:
    origin, moved = bench.origin(), bench.origin()
    upstream = origin.upstream()
    checker = bench.checker(upstream, config=SELDOM)
    assert checker.wait_first_round()
    checker.update(replace(SELDOM, expect=((204, 204),)), by_key(upstream), addresses_of(upstream))
    bench.published.wait_until(upstream, False)
    checker.update(SELDOM, by_key(upstream), {upstream.key: (moved.address,)})
    bench.published.wait_until(upstream, True)
    assert (origin.connections, moved.connections) == (2, 1)


def test_update_drops_removed_upstreams_with_their_probes_in_flight(bench: Bench) -> None:
    hanging = bench.origin(stay_silent)
    removed, kept = hanging.upstream(), bench.origin().upstream()
    checker = bench.checker(removed, kept, config=replace(SELDOM, http_timeout_s=0.2))
    hanging.wait_for_connections(1)
    checker.update(SELDOM, by_key(kept), addresses_of(kept))
    assert checker.wait_first_round()
    assert checker.states() == {kept.key: Health.UP}
    assert removed.key not in bench.published.up


def test_update_before_the_first_round_of_all_ended_still_waits_for_the_known(bench: Bench) -> None:
    hanging = bench.origin(stay_silent)
    first, second = hanging.upstream(), bench.origin().upstream()
    checker = bench.checker(first, config=SELDOM)
    hanging.wait_for_connections(1)
    checker.update(SELDOM, by_key(first, second), addresses_of(first, second))
    bench.published.wait_until(second, True)
    assert not checker.wait_first_round(0)
    hanging.stop()
    assert checker.wait_first_round()


def test_no_upstreams_at_all_is_a_first_round_done(bench: Bench) -> None:
    assert bench.checker().wait_first_round(0)


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


def wait_for(predicate: Callable[[], bool], timeout_s: float = 10.0) -> None:
    give_up_s = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < give_up_s, "it never came"
        time.sleep(0.005)


def fork_child(checker: HealthChecker, work: Callable[[], object]) -> int:
    """Fork as the master does; the child forgets, works, and says by its status whether all went well."""
    with checker.fork_lock:
        pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.alarm(20)  # a child that deadlocks dies by this
        checker.forget()
        work()
        status = 0
    finally:
        os._exit(status)


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def wait_for_child(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


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


def test_second_rounds_are_spread_and_never_late() -> None:
    loop = Loop()
    rng = random.Random(7)
    config = replace(QUICK, interval_s=10.0)

    def report(watch: UpstreamWatch, transition: object) -> None:
        assert transition is not None

    gaps = []
    for number in range(50):
        target = ProbeTarget(make_upstream(80, health_uri=f"/{number}"), (), config)
        watch = UpstreamWatch(loop, target, report=report, rng=rng)
        watch.start()
        loop.turn(0.0)
        gaps.append(watch._timer.due_s - loop.now_s)
    loop.close()
    assert all(8.9 < gap <= 10.0 for gap in gaps)
    assert max(gaps) - min(gaps) > 0.5


def test_what_the_old_master_knew_is_published_at_once_and_needs_no_first_round(bench: Bench) -> None:
    up, down, new = bench.origin(stay_silent), bench.origin(stay_silent), bench.origin(stay_silent)
    known, sick, unknown = (make_upstream(origin.port) for origin in (up, down, new))
    checker = bench.checker(config=SELDOM)
    checker.adopt_health(
        {
            known.key: {"state": "up", "run": 0, "down_since_s": 0.0},
            sick.key: {"state": "down", "run": 0, "down_since_s": 1.0},
            "http://not.configured/": {"state": "up", "run": 0, "down_since_s": 0.0},
        }
    )
    checker.update(SELDOM, by_key(known, sick), addresses_of(known, sick))
    assert bench.published.up == {known.key: True, sick.key: False}
    assert checker.wait_first_round(0.0)
    checker.update(SELDOM, by_key(known, unknown), addresses_of(known, unknown))
    assert not checker.wait_first_round(0.0)


def test_what_is_known_survives_from_one_checker_to_the_next(bench: Bench) -> None:
    well, sick = make_upstream(bench.origin().port), make_upstream(bench.origin(SICK).port)
    old = bench.checker(well, sick, config=SELDOM)
    assert old.wait_first_round(10)
    new = bench.checker(config=SELDOM, start=False)
    new.adopt_health(json.loads(json.dumps(old.export_health())))
    new.update(SELDOM, by_key(well, sick), addresses_of(well, sick))
    assert new.states() == {well.key: Health.UP, sick.key: Health.DOWN}


def test_drains_survive_from_one_checker_to_the_next_before_any_result(bench: Bench) -> None:
    stays, leaves = (make_upstream(bench.origin().port) for _ in range(2))
    old = bench.checker(stays, leaves, config=SELDOM)
    assert old.wait_first_round(10)
    old.mark_drain([leaves.key], True)
    new = bench.checker(config=SELDOM, start=False)
    new.adopt_health(json.loads(json.dumps(old.export_health())))
    new.update(SELDOM, by_key(stays, leaves), addresses_of(stays, leaves))
    assert {status.key: status.standing for status in new.statuses()} == {
        stays.key: Standing.UP,
        leaves.key: Standing.DRAINING,
    }


def test_what_was_known_of_an_upstream_that_comes_later_is_not_believed(bench: Bench) -> None:
    late = make_upstream(bench.origin(stay_silent).port)
    checker = bench.checker(config=SELDOM)
    checker.adopt_health({late.key: {"state": "up", "run": 0, "down_since_s": 0.0}})
    checker.update(SELDOM, {}, {})
    checker.update(SELDOM, by_key(late), addresses_of(late))
    assert checker.states() == {late.key: Health.UNKNOWN}
