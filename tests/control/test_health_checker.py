"""The health checker: a bounded first round, no upstream delays another, refusals count, reloads keep state."""

from __future__ import annotations

import errno
import logging
import os
import random
import socket
import threading
import time
from dataclasses import replace
from typing import NoReturn

import pytest

from minato.control.health import HealthChecker
from minato.control.probe import ProbeTarget
from minato.control.upstream_watch import UpstreamWatch
from minato.decide.health import Health
from minato.net.loop import Loop
from minato.shared.board import Board
from tests.control.health_bench import (
    SELDOM,
    SICK,
    Bench,
    addresses_of,
    by_key,
    fork_child,
    messages,
    wait_for,
    wait_for_child,
)
from tests.control.health_origin import (
    OK,
    QUICK,
    Origin,
    full_listener,
    make_upstream,
    refusing_port,
    respond,
    stay_silent,
)

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


def test_a_change_is_published_before_it_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads that an upstream is down must not see it get requests still."""
    origin = bench.origin()
    upstream = origin.upstream()
    published: list[bool | None] = []

    class Reader(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            published.append(bench.published.up.get(upstream.key))

    reader, logger = Reader(), logging.getLogger("minato.health")
    caplog.set_level(logging.INFO, "minato.health")
    logger.addHandler(reader)
    try:
        bench.checker(upstream)
        for number, behave in enumerate((respond(OK), SICK, respond(OK)), 1):
            origin.behave = behave
            wait_for(lambda number=number: len(published) >= number)
    finally:
        logger.removeHandler(reader)
    assert published == [True, False, True]


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
