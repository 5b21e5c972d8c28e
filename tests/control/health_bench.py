"""A health checker on a bench: origins of its own, what it published, what workers counted."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace

import pytest

from minato.config.model import HealthConfig, Upstream
from minato.control.health import HealthChecker
from minato.decide.outliers import Outcomes
from minato.decide.standing import Standing
from minato.net.resolve import ResolvedAddress
from tests.control.health_origin import (
    OK,
    QUICK,
    Behaviour,
    Origin,
    resolved,
    respond,
)

SICK = respond(b"HTTP/1.1 500 Sick\r\nContent-Length: 0\r\n\r\n")
# Far away: what happens in a test with this interval is not the next regular round.
SELDOM = replace(QUICK, interval_s=3600.0, tcp_timeout_s=2.0, http_timeout_s=2.0)


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


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "minato.health"]


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


def wait_for_child(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
