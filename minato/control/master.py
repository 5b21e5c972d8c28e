"""The master process: from a config to running workers, and what every signal does; its main loop reads as verbs."""

from __future__ import annotations

import enum
import logging
import signal
import time
from collections.abc import Callable

from setproctitle import setproctitle

from minato.config.model import Config, Service, Upstream
from minato.control.admin.api import make_routes
from minato.control.admin.endpoint import AdminEndpoint
from minato.control.boards import Boards
from minato.control.generation import Generation, WorkerState
from minato.control.listeners import Listeners
from minato.control.naming import Naming
from minato.control.purges import Purges
from minato.control.resolver import Lookup
from minato.control.rollover import Checker, RolloverDriver, count_cpus
from minato.control.signals import MASTER_SIGNALS, SignalQueue
from minato.control.supervisor import Supervisor
from minato.control.system import PidFile, notify_service_manager, raise_open_files_limit, say, say_ready
from minato.control.upstream_desk import UpstreamDesk
from minato.control.worker import ServerFactory
from minato.decide.supervision import STOP_GRACE_S
from minato.errors import BootError
from minato.net.loop import Loop
from minato.shared.board import remove_leftovers

log = logging.getLogger("minato.master")

# How long the master sleeps at the most: several looks within the second after which a silent worker's queue is lent.
IDLE_WAIT_S = 0.25
BUSY_WAIT_S = 0.01
# An address in use is tried again for half a second: workers of a master that was killed are about to close it.
BIND_TRIES = 6

CheckerFactory = Callable[[Boards], Checker]


class _State(enum.Enum):
    RUNNING = "running"
    DRAINING = "draining"
    STOPPING = "stopping"


class Master:
    """One instance of minato.

    Args:
        config: what to start with.
        load: reads the config file anew; raises ConfigError.
        workers: how many the command line asks for; None leaves it to the config.
        pid_file: path of the pid file, if one is wanted.
        server_factory: makes a worker's Server.
        checker_factory: makes the health checker that publishes to the boards.
        on_ready: called once, when all workers of the first generation serve.
        lookup: resolves names; None: getaddrinfo does.
    """

    def __init__(
        self,
        config: Config,
        *,
        load: Callable[[], Config],
        server_factory: ServerFactory,
        checker_factory: CheckerFactory,
        workers: int | None = None,
        pid_file: str | None = None,
        on_ready: Callable[[], None] | None = None,
        lookup: Lookup | None = None,
    ) -> None:
        self._config = config
        self._workers_option = workers
        self._on_ready = on_ready
        self._pid_file = PidFile(pid_file) if pid_file else None
        self._state = _State.RUNNING
        self._is_ready = False
        self._told_note = ""
        self._exit_status = 0
        self._loop = Loop(forgives_pauses=True)
        self._signals = SignalQueue(self._loop)
        self._listeners = Listeners()
        self._boards = Boards()
        self._checker = checker_factory(self._boards)
        self._supervisor = Supervisor(
            loop=self._loop,
            signals=self._signals,
            listeners=self._listeners,
            boards=self._boards,
            guard=self._checker,
            server_factory=server_factory,
        )
        routes = make_routes(
            health=self._health,
            begin_purge=Purges(self._loop, self._supervisor).begin,
            upstreams=UpstreamDesk(self._checker, self._serving_upstreams, self._boards.active),
        )
        self._admin = AdminEndpoint(self._loop, routes)
        self._supervisor.forget = self._admin.forget
        self._naming = Naming(self._loop, self._supervisor, self._boards, self._checker.fork_lock, lookup)
        self._rollover = RolloverDriver(
            supervisor=self._supervisor,
            listeners=self._listeners,
            admin=self._admin,
            checker=self._checker,
            naming=self._naming,
            load=load,
            first=config,
            count_workers=self._count_workers,
            on_begun=self._on_rollover_begun,
            on_over=self._on_rollover_over,
        )
        self._naming.on_changed = self._rollover.watch_anew
        self._naming.on_short = self._enlarge
        self._on_signal: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGHUP: self._reload,
            signal.SIGTERM: self._stop_gracefully,
            signal.SIGINT: self._stop_fast,
            signal.SIGQUIT: self._stop_fast,
            signal.SIGTTIN: self._add_worker,
            signal.SIGTTOU: self._remove_worker,
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: self._upgrade,
        }

    def run(self) -> int:
        """Run until told to stop. Returns the exit status: 0 after a stop that was asked for, 1 if it cannot start."""
        self._signals.install(MASTER_SIGNALS)
        try:
            self._boot()
            while self._state is _State.RUNNING or self._supervisor.generations:
                self._loop.turn(BUSY_WAIT_S if self._rollover.is_busy else IDLE_WAIT_S)
                self._obey_signals()
                self._supervisor.reap()
                self._supervisor.murder()
                if self._state is _State.RUNNING:
                    self._naming.advance()
                    self._rollover.advance()
                    self._supervisor.manage()
                    self._supervisor.lend()
                    if not self._rollover.is_busy:
                        self._supervisor.recycle()
        except BootError as error:
            say(f"minato: {error}")
            self._exit_status = 1
        finally:
            self._clean_up()
        return self._exit_status

    def _boot(self) -> None:
        setproctitle(f"minato: master [{self._config.path}]")
        raise_open_files_limit()
        for name in remove_leftovers():
            log.info("removed %s, left behind by a master that was killed", name)
        # Sockets first: whoever starts minato twice hears of it at once, not after the first round of probes.
        self._listeners.bind(self._config.listen_addresses(), self._count_workers(self._config), BIND_TRIES)
        self._admin.bind(self._config.admin.listen, BIND_TRIES)
        if self._pid_file is not None:
            self._pid_file.write()
        self._admin.serve(self._config.admin.listen)
        self._checker.start()
        self._rollover.request()

    def _obey_signals(self) -> None:
        # Those that are there now: a flood of signals must not keep the master from its other work.
        for number in self._signals.take_all():
            action = self._on_signal.get(number)
            if action is not None:
                action()

    def _reload(self) -> None:
        if self._state is _State.RUNNING:
            self._rollover.request()

    def _stop_gracefully(self) -> None:
        if self._state is not _State.RUNNING:
            self._stop_fast()
            return
        log.info("stopping: what is in flight is finished first")
        self._state = _State.DRAINING
        notify_service_manager("STOPPING=1")
        self._rollover.cancel()
        self._listeners.close()
        self._admin.serve(None)
        for generation in self._supervisor.generations:
            self._supervisor.drain(generation.workers.values(), generation.config.timeouts.drain_s)
        self._supervisor.close_idle()
        self._retire_current()

    def _stop_fast(self) -> None:
        if self._state is _State.STOPPING:
            return
        log.info("stopping at once")
        self._state = _State.STOPPING
        notify_service_manager("STOPPING=1")
        self._rollover.cancel()
        self._listeners.close()
        self._admin.serve(None)
        self._supervisor.stop([worker for _, worker in self._supervisor.workers()])
        self._retire_current()

    def _retire_current(self) -> None:
        self._supervisor.current = None
        for generation in list(self._supervisor.generations):
            self._supervisor.bury_if_empty(generation)

    def _add_worker(self) -> None:
        generation = self._serving_generation()
        if generation is None:
            return
        target = generation.target + 1
        if target > generation.board.slots:
            log.info("%d workers need a larger board: rolling over to a new generation", target)
            self._rollover.request(workers=target)
            return
        try:
            self._listeners.bind(generation.config.listen_addresses(), target)
        except BootError as error:
            log.error("cannot add a worker: %s", error)
            return
        generation.target = target
        log.info("%d workers", target)

    def _enlarge(self, generation: Generation) -> None:
        """The board of the serving generation is too small: another one of the same config gets a larger one."""
        if not self._rollover.is_busy and not self._rollover.is_requested:
            self._rollover.request(workers=generation.target)

    def _remove_worker(self) -> None:
        generation = self._serving_generation()
        if generation is None:
            return
        if generation.target == 1:
            log.warning("one worker is the least; SIGTERM stops minato")
            return
        generation.target -= 1
        log.info("%d workers", generation.target)

    def _serving_generation(self) -> Generation | None:
        return self._supervisor.current if self._state is _State.RUNNING else None

    def _serving_upstreams(self) -> list[tuple[Service, list[Upstream]]]:
        current = self._supervisor.current
        return list(current.upstreams()) if current is not None else []

    def _health(self) -> tuple[str, int, str]:
        """Return what there is to say to a health check, how many workers serve, and what else is to be known."""
        if self._state is not _State.RUNNING:
            return "stopping", 0, ""
        current = self._supervisor.current
        if current is None:
            return "starting", 0, ""
        workers = current.count(WorkerState.READY)
        return ("ok" if workers else "no worker serves"), workers, self._rollover.note

    def _reopen_logs(self) -> None:
        log.info("reopening the access log")
        self._supervisor.reopen_logs()

    def _upgrade(self) -> None:
        log.warning("SIGUSR2: the binary upgrade is not yet available in this version")

    def _count_workers(self, config: Config) -> int:
        return self._workers_option or config.workers or count_cpus()

    def _on_rollover_begun(self) -> None:
        if self._is_ready:
            notify_service_manager(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def _on_rollover_over(self, serving: Generation | None) -> None:
        if serving is None:
            raise BootError("cannot start; the log above says why")
        if self._is_ready:
            notify_service_manager("READY=1")
            self._tell_note()
            return
        self._is_ready = True
        say_ready(serving.target, serving.config.listen_addresses())
        if self._on_ready is not None:
            self._on_ready()

    def _tell_note(self) -> None:
        """Have the service manager show what is to be known of the serving generation, or nothing any more."""
        told, self._told_note = self._told_note, self._rollover.note
        if told != self._told_note:
            notify_service_manager(f"STATUS={self._told_note}")

    def _clean_up(self) -> None:
        """Leave nothing behind, whatever ended the main loop: no worker, no segment, no pid file."""
        self._supervisor.current = None
        self._supervisor.stop([worker for _, worker in self._supervisor.workers()])
        deadline_s = time.monotonic() + 2 * STOP_GRACE_S
        while self._supervisor.workers() and time.monotonic() < deadline_s:
            self._loop.turn(BUSY_WAIT_S)
            self._supervisor.reap()
            self._supervisor.murder()
        self._admin.close()
        self._checker.stop()
        for generation in list(self._supervisor.generations):
            self._boards.drop(generation.board)
        self._listeners.close()
        if self._pid_file is not None:
            self._pid_file.remove()
        self._signals.restore(MASTER_SIGNALS)
        self._loop.close()
