"""From one config to the next: does what minato.decide.rollover says, step by step, and never waits."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from minato.config.model import Config, HealthConfig, ListenAddress, PassiveHealthConfig, Upstream
from minato.control.admin.endpoint import AdminEndpoint
from minato.control.generation import SPARE_ROWS, Generation, WorkerState, make_generation
from minato.control.listeners import Listeners
from minato.control.naming import Naming
from minato.control.preparing import Preparing
from minato.control.standings import UpstreamStatus
from minato.control.supervisor import Supervisor
from minato.decide.fleet import Group
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
    def update(
        self,
        config: HealthConfig,
        upstreams: Mapping[str, Upstream],
        addresses: Addresses,
        groups: Sequence[Group],
        passive: PassiveHealthConfig,
    ) -> None: ...
    def statuses(self) -> Sequence[UpstreamStatus]: ...
    def mark_drain(self, keys: Sequence[str], on: bool) -> dict[str, int]: ...
    def wait_first_round(self, timeout_s: float) -> bool: ...
    def export_health(self) -> dict[str, Any]: ...
    def adopt_health(self, health: Mapping[str, Any]) -> None: ...
    def forget(self) -> None: ...
    def wake(self) -> None: ...
    def stop(self) -> None: ...


@dataclass(slots=True)
class Wish:
    """What rollovers that were asked for, and have not begun, are about; all together make one.

    Attributes:
        reads_file: with the config read anew.
        workers: with so many workers, rather than as many as the config asks for.
        is_return: with the config of the generation in reserve; a config read anew goes before it.
    """

    reads_file: bool = False
    workers: int | None = None
    is_return: bool = False


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
        self._note = ""
        self._next: Generation | None = None
        self._old: Generation | None = None
        self._preparing: Preparing | None = None
        self._wish = Wish()
        self._work = Wish()
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
    def is_requested(self) -> bool:
        """Whether one is to begin."""
        return self._plan.is_requested

    @property
    def is_busy(self) -> bool:
        """Whether a rollover is going on."""
        return self._plan.phase is not Phase.IDLE

    @property
    def note(self) -> str:
        """What is to be known of the serving generation besides that it serves; mostly empty."""
        return self._note

    def request(self, workers: int | None = None) -> None:
        """Ask for a rollover; during one, it follows that one.

        Args:
            workers: with so many workers and the config as it is, rather than with the config read anew.
        """
        is_first = not self._plan.is_requested
        can_begin = self._plan.request()
        if is_first:  # of a storm, one is told about
            self._is_waiting_logged = False
            if not can_begin:
                log.info("a reload is going on; one more follows it")
        self._wish.reads_file |= workers is None
        self._wish.workers = workers

    def advance(self, *, may_begin: bool = True) -> None:
        """Take every step that can be taken now.

        Args:
            may_begin: whether another one may begin after the present one; False: something else is to be done first.
        """
        self._watch_crashes()
        while (step := self._plan.next_step(self._facts(may_begin), self._probe_timeout_s())) is not Step.WAIT:
            self._steps[step]()
        if may_begin and self._plan.is_requested and not self.is_busy and not self._is_waiting_logged:
            self._is_waiting_logged = True
            log.warning("the reload waits: %d older generations still drain", self._supervisor.draining())

    def cancel(self) -> None:
        """Take no further step: minato is stopping. Workers that were forked already are the supervisor's to stop."""
        self._plan.cancel()
        self._preparing = None
        self._naming.end_preparation()

    def _watch_crashes(self) -> None:
        """Go back to the config that served before, where the workers of the new one crash again and again."""
        probation, current = self._supervisor.fleet.probation, self._supervisor.current
        if self.is_busy or self._plan.is_requested or current is None or not probation.is_lost():
            return
        assert probation.reserve is not None
        self._note = (
            f"generation {current.number} crashed again and again; the config of generation "
            f"{probation.reserve.number} serves in its place"
        )
        log.error(
            "generation %d is given up: %d of its workers crashed within %.1f s; going back to the config of "
            "generation %d, which served well. Mend the config file and reload",
            *(current.number, probation.crashes),
            *(probation.seconds_served(self._supervisor.now_s), probation.reserve.number),
        )
        self._wish.is_return = True
        self._plan.request()

    def _facts(self, may_begin: bool) -> Facts:
        generation, old = self._next, self._old
        probing = self._plan.phase is Phase.PROBING
        return Facts(
            mono_s=self._supervisor.now_s,
            may_begin=may_begin,
            preparation=self._preparing.progress() if self._preparing else Preparation.PENDING,
            is_probed=probing and self._checker.wait_first_round(0.0),
            wanted=generation.target if generation else 0,
            ready=generation.count(WorkerState.READY) if generation else 0,
            died=generation.died if generation else 0,
            accepting=sum(worker.is_accepting for worker in old.workers.values()) if old else 0,
            draining=self._supervisor.draining(),
            is_stranded=self._supervisor.fleet.is_stranded(self._supervisor.now_s),
        )

    def _probe_timeout_s(self) -> float:
        return self._config.health.tcp_timeout_s + self._config.health.http_timeout_s + PROBE_SLACK_S

    def _prepare(self) -> None:
        current = self._supervisor.current
        reserve = self._supervisor.fleet.probation.reserve
        wish, self._work, self._wish = self._wish, self._wish, Wish()
        wish.is_return = wish.is_return and not wish.reads_file and reserve is not None
        if current is None:
            config = self._config
            self._preparing = Preparing(lambda: config, self._naming)
        elif wish.reads_file:
            log.info("reloading %s", current.config.path)
            self._preparing = Preparing(self._load, self._naming)
        else:
            model = reserve if wish.is_return and reserve is not None else current
            self._preparing = Preparing(lambda: model.config, self._naming)
        self._on_begun()

    def _bind(self) -> None:
        assert self._preparing is not None
        config, places = self._preparing.result()
        target = self._work.workers or self._count_workers(config)
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
            self._unbind(bound)
            self._admin.drop_others()
            log.error("%s", error)
            self._plan.fail()
            self._abandon()
            return
        self._config = config
        self._next = make_generation(self._serial, config, target, board, places, bound)
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
        generation = self._next
        assert generation is not None
        is_return = self._work.is_return
        old = self._supervisor.fleet.switch(generation, self._supervisor.now_s, is_return=is_return)
        if not is_return:
            self._note = ""
        if old is not None:
            self._drop_addresses(generation, old)
        else:
            # What was inherited and is not wanted: the old master's workers accept from it until they drain.
            self._listeners.keep_only(generation.config.listen_addresses())
        self._admin.serve(generation.config.admin.listen)
        generation.bound.clear()
        self._supervisor.lend()
        if old is not None:
            self._supervisor.drain(old.workers.values(), generation.config.timeouts.drain_s)
            self._supervisor.shed()
            self._supervisor.bury_if_empty(old)
        self._old = old
        self._watch([generation])

    def _drop_addresses(self, generation: Generation, old: Generation) -> None:
        """Close the master's sockets of addresses that the new generation has no more.

        The old workers hold them, too: they accept what waits in them, and who is about to connect, and close them.
        """
        kept = generation.config.listen_addresses()
        dropped = [address for address in self._listeners.addresses() if address not in kept]
        self._listeners.invite_nobody(dropped)
        self._supervisor.linger(old.workers.values(), dropped)
        self._listeners.keep_only(kept)

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
            self._unbind(generation.bound)
            self._admin.drop_others()
            self._supervisor.bury_if_empty(generation)
            self._config = current.config if current is not None else self._config
            self._watch([current])
        self._end()

    def _unbind(self, keys: Iterable[tuple[int, ListenAddress]]) -> None:
        """Close what was bound for a config that is given up, but no socket of an address that is served.

        Clients may have come to it; the workers that serve accept from it, as from that of any slot without a worker.
        """
        current = self._supervisor.current
        served = set(current.config.listen_addresses()) if current is not None else set()
        self._listeners.unbind([key for key in keys if key[1] not in served])

    def _watch(self, generations: Sequence[Generation | None]) -> None:
        """Have the upstreams of these generations probed, by the rules of the first, which wins where two differ."""
        upstreams: dict[str, Upstream] = {}
        addresses: dict[str, tuple[ResolvedAddress, ...]] = {}
        groups: list[Group] = []
        self._watched = known = [generation for generation in generations if generation is not None]
        for generation in reversed(known):
            for upstream, found in generation.places.members():
                upstreams[upstream.key] = upstream
                addresses[upstream.key] = found
            for service, members in generation.upstreams():
                groups.append(Group(service.name, tuple(dict.fromkeys(member.key for member in members))))
        if known:
            config = known[0].config
            self._checker.update(config.health, upstreams, addresses, groups, config.passive_health)

    def watch_anew(self) -> None:
        """Names have other addresses: have those probed."""
        self._watch(self._watched)

    def _end(self) -> None:
        self._naming.end_preparation()
        self._next = None
        self._old = None
        self._preparing = None
        self._work = Wish()
        self._on_over(self._supervisor.current)


def count_cpus() -> int:
    """Return how many processors this process may use."""
    with contextlib.suppress(OSError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
