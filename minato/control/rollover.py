"""From one config to the next: does what minato.decide.rollover says, step by step, and never waits."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from minato.config.model import Config, HealthConfig, Upstream
from minato.control.admin.endpoint import AdminEndpoint
from minato.control.generation import SPARE_ROWS, Generation, WorkerState
from minato.control.listeners import Listeners
from minato.control.naming import Naming
from minato.control.preparing import Preparing
from minato.control.supervisor import Supervisor
from minato.decide.rollover import Facts, Phase, Preparation, Rollover, Step
from minato.errors import BootError
from minato.net.resolve import ResolvedAddress
from minato.shared.board import Board

log = logging.getLogger("minato.rollover")

Addresses = Mapping[str, tuple[ResolvedAddress, ...]]

# What the first round of probes may take beyond the timeouts of one probe: the thread's own time for many upstreams.
PROBE_SLACK_S = 1.0


class Checker(Protocol):
    """What the control layer needs of minato.control.health.HealthChecker."""

    @property
    def fork_lock(self) -> AbstractContextManager[object]: ...
    def start(self) -> None: ...
    def update(self, config: HealthConfig, upstreams: Mapping[str, Upstream], addresses: Addresses) -> None: ...
    def wait_first_round(self, timeout_s: float) -> bool: ...
    def export_health(self) -> dict[str, Any]: ...
    def adopt_health(self, health: Mapping[str, Any]) -> None: ...
    def forget(self) -> None: ...
    def wake(self) -> None: ...
    def stop(self) -> None: ...


class RolloverDriver:
    """Carries rollovers out, the first start included.

    Args:
        load: reads the config file; called on another thread.
        first: the config to start with, which was read already.
        count_workers: how many workers a config asks for, the command line considered.
        on_begun: called when a rollover begins.
        on_over: called with the serving generation, or None where there is none, when a rollover succeeded or was
            given up.
    """

    def __init__(
        self,
        *,
        supervisor: Supervisor,
        listeners: Listeners,
        admin: AdminEndpoint,
        checker: Checker,
        naming: Naming,
        load: Callable[[], Config],
        first: Config,
        count_workers: Callable[[Config], int],
        on_begun: Callable[[], None],
        on_over: Callable[[Generation | None], None],
    ) -> None:
        self._supervisor = supervisor
        self._listeners = listeners
        self._admin = admin
        self._checker = checker
        self._naming = naming
        self._watched: list[Generation] = []
        self._load = load
        self._config = first
        self._count_workers = count_workers
        self._on_begun = on_begun
        self._on_over = on_over
        self._plan = Rollover()
        self._serial = 0
        self._next: Generation | None = None
        self._old: Generation | None = None
        self._preparing: Preparing | None = None
        self._wanted_workers: int | None = None
        self._is_waiting_logged = False
        self._steps: dict[Step, Callable[[], None]] = {
            Step.PREPARE: self._prepare,
            Step.BIND: self._bind,
            Step.FORK: self._fork,
            Step.SWITCH: self._switch,
            Step.FINISH: self._finish,
            Step.ABANDON: self._abandon,
        }

    @property
    def is_busy(self) -> bool:
        """Whether a rollover is going on."""
        return self._plan.phase is not Phase.IDLE

    @property
    def is_requested(self) -> bool:
        """Whether one is to begin."""
        return self._plan.is_requested

    def request(self, workers: int | None = None) -> None:
        """Ask for a rollover; during one, it follows that one.

        Args:
            workers: with so many workers and the config as it is, rather than with the config read anew.
        """
        if not self._plan.request():
            log.info("a reload is going on; one more follows it")
        self._wanted_workers = workers
        self._is_waiting_logged = False

    def advance(self) -> None:
        """Take every step that can be taken now."""
        while (step := self._plan.next_step(self._facts(), self._probe_timeout_s())) is not Step.WAIT:
            self._steps[step]()
        if self._plan.is_requested and not self.is_busy and not self._is_waiting_logged:
            self._is_waiting_logged = True
            log.warning("the reload waits: %d older generations still drain", self._supervisor.draining())

    def cancel(self) -> None:
        """Take no further step: minato is stopping. Workers that were forked already are the supervisor's to stop."""
        self._plan.cancel()
        self._preparing = None
        self._naming.end_preparation()

    def _facts(self) -> Facts:
        generation, old = self._next, self._old
        probing = self._plan.phase is Phase.PROBING
        return Facts(
            mono_s=time.monotonic(),
            preparation=self._preparing.progress() if self._preparing else Preparation.PENDING,
            is_probed=probing and self._checker.wait_first_round(0.0),
            wanted=generation.target if generation else 0,
            ready=generation.count(WorkerState.READY) if generation else 0,
            died=generation.died if generation else 0,
            accepting=sum(worker.is_accepting for worker in old.workers.values()) if old else 0,
            draining=self._supervisor.draining(),
        )

    def _probe_timeout_s(self) -> float:
        return self._config.health.tcp_timeout_s + self._config.health.http_timeout_s + PROBE_SLACK_S

    def _prepare(self) -> None:
        current = self._supervisor.current
        if current is None:
            config = self._config
            self._preparing = Preparing(lambda: config, self._naming)
        elif self._wanted_workers is not None:
            config = current.config
            self._preparing = Preparing(lambda: config, self._naming)
        else:
            log.info("reloading %s", current.config.path)
            self._preparing = Preparing(self._load, self._naming)
        self._on_begun()

    def _bind(self) -> None:
        assert self._preparing is not None
        config, places = self._preparing.result()
        target = self._wanted_workers or self._count_workers(config)
        bound = []
        self._serial += 1
        try:
            bound = self._listeners.bind(config.listen_addresses(), target)
            self._admin.bind(config.admin.listen)
            board = Board.create(
                slots=target + SPARE_ROWS,
                upstream_keys=places.keys,
                serial=self._serial,
                spare=places.spare,
                key_bytes=places.key_bytes,
            )
        except BootError as error:
            self._listeners.unbind(bound)
            self._admin.drop_others()
            log.error("%s", error)
            self._plan.fail()
            self._abandon()
            return
        self._config = config
        self._next = Generation(self._serial, config, target, board, places, bound=bound)
        self._supervisor.add(self._next)
        self._watch([self._next, self._supervisor.current])

    def _fork(self) -> None:
        generation = self._next
        assert generation is not None
        for slot in range(generation.target):
            if not self._supervisor.fork(generation, slot):
                generation.died += 1
                return

    def _switch(self) -> None:
        generation, old = self._next, self._supervisor.current
        assert generation is not None
        self._supervisor.current = generation
        # The workers of the old generation hold the sockets of dropped addresses, too: they accept what waits in them
        # and close them.
        self._listeners.keep_only(generation.config.listen_addresses())
        self._admin.serve(generation.config.admin.listen)
        generation.bound.clear()
        generation.died = 0
        self._supervisor.lend()
        if old is not None:
            self._supervisor.drain(old.workers.values(), generation.config.timeouts.drain_s)
            self._supervisor.bury_if_empty(old)
        self._old = old
        self._watch([generation])

    def _finish(self) -> None:
        generation = self._next
        assert generation is not None
        if self._old is not None:
            log.info("generation %d serves with %d workers", generation.number, generation.target)
        self._end()

    def _abandon(self) -> None:
        generation, current = self._next, self._supervisor.current
        if current is not None:
            log.error("reload given up: %s; generation %d goes on", self._plan.reason.value, current.number)
        else:
            log.error("cannot start: %s", self._plan.reason.value)
        if generation is not None:
            self._supervisor.stop(generation.workers.values())
            self._listeners.unbind(generation.bound)
            self._admin.drop_others()
            self._supervisor.bury_if_empty(generation)
            self._config = current.config if current is not None else self._config
            self._watch([current])
        self._end()

    def _watch(self, generations: Sequence[Generation | None]) -> None:
        """Have the upstreams of these generations probed, by the rules of the first, which wins where two differ."""
        upstreams: dict[str, Upstream] = {}
        addresses: dict[str, tuple[ResolvedAddress, ...]] = {}
        self._watched = known = [generation for generation in generations if generation is not None]
        for generation in reversed(known):
            for upstream, found in generation.places.members():
                upstreams[upstream.key] = upstream
                addresses[upstream.key] = found
        if known:
            self._checker.update(known[0].config.health, upstreams, addresses)

    def watch_anew(self) -> None:
        """Names have other addresses: have those probed."""
        self._watch(self._watched)

    def _end(self) -> None:
        self._naming.end_preparation()
        self._next = None
        self._old = None
        self._preparing = None
        if not self._plan.is_requested:
            self._wanted_workers = None
        self._on_over(self._supervisor.current)


def count_cpus() -> int:
    """Return how many processors this process may use."""
    with contextlib.suppress(OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
