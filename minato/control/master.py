"""The master process: from a config to running workers, and what every signal does; its main loop reads as verbs."""

from __future__ import annotations

import enum
import logging
import signal
import time
from collections.abc import Callable, Collection, Sequence

from setproctitle import setproctitle

from minato.config.model import Config, ListenAddress, Service, Upstream
from minato.control.admin.api import make_routes
from minato.control.admin.endpoint import AdminEndpoint
from minato.control.boards import Boards
from minato.control.drains import Drains
from minato.control.generation import Generation, WorkerState
from minato.control.last_will import LastWill
from minato.control.listeners import Listeners
from minato.control.naming import Naming
from minato.control.office import Office
from minato.control.purges import Purges
from minato.control.resizing import Resizing
from minato.control.resolver import Lookup
from minato.control.rollover import Checker, RolloverDriver, count_cpus
from minato.control.signals import MASTER_SIGNALS, SignalQueue
from minato.control.succession import Succession
from minato.control.supervisor import Supervisor
from minato.control.system import raise_open_files_limit, remove_dead_boards, say
from minato.control.takeover import Predecessor
from minato.control.upgrade import Upgrader
from minato.control.upstream_desk import UpstreamDesk
from minato.control.worker import ServerFactory
from minato.decide.supervision import STOP_GRACE_S
from minato.errors import BootError
from minato.net.loop import Loop

log = logging.getLogger("minato.master")

# How long the master sleeps at the most: several looks within the second after which a silent worker's queue is lent.
IDLE_WAIT_S = 0.25
BUSY_WAIT_S = 0.01
# The admin API's address, if it is in use, is tried again for half a second: an old master is about to close it.
BIND_TRIES = 6

CheckerFactory = Callable[[Boards], Checker]


class _State(enum.Enum):
    RUNNING = "running"
    HANDING_OVER = "handing over"  # the workers drain; what they served is the new master's
    RETIRED = "retired"  # the new master is the master; this one finishes what it has
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
        predecessor: the master whose place this one is to take, if there is one.
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
        predecessor: Predecessor | None = None,
    ) -> None:
        self._config = config
        self._workers_option = workers
        self._on_ready = on_ready
        self._state = _State.RUNNING
        self._is_ready = False
        self._told_note = ""
        self._shed_for = 0  # the number of the generation for which older masters let go of what they have stored
        self._predecessor = predecessor or Predecessor()
        self._office = Office(pid_file, is_held=not self._predecessor.is_master)
        self._handed_over = 0
        self._exit_status = 0
        self._loop = Loop(forgives_pauses=True)
        self._signals = SignalQueue(self._loop)
        self._listeners = Listeners()
        self._last_will = LastWill.make()
        self._listeners.on_changed = lambda: self._last_will.write(self._listeners.bound())
        self._succession = Succession()
        self._boards = Boards()
        self._checker = checker_factory(self._boards)
        self._supervisor = Supervisor(
            loop=self._loop,
            signals=self._signals,
            listeners=self._listeners,
            boards=self._boards,
            guard=self._checker,
            server_factory=server_factory,
            last_will=self._last_will,
        )
        self._purges = Purges(self._loop, self._supervisor)
        self._drains = Drains(self._loop, self._checker.mark_drain)
        routes = make_routes(
            health=self._health,
            begin_purge=self._purges.begin,
            upstreams=UpstreamDesk(self._checker, self._serving_upstreams, self._boards.active, self._drains.begin),
        )
        self._admin = AdminEndpoint(self._loop, routes)
        self._supervisor.forget = self._forget
        self._supervisor.draining_before = self._predecessor.count_draining
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
        self._resizing = Resizing(self._listeners, self._rollover)
        self._upgrade = Upgrader(
            loop=self._loop,
            supervisor=self._supervisor,
            listeners=self._listeners,
            admin=self._admin,
            checker=self._checker,
            purges=self._purges,
            drains=self._drains,
            deed=self._last_will.deed,
            master=self,
        )
        self._on_signal: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGHUP: self._reload,
            signal.SIGTERM: self._stop_gracefully,
            signal.SIGINT: self._stop_fast,
            signal.SIGQUIT: self._stop_fast,
            signal.SIGTTIN: self._add_worker,
            signal.SIGTTOU: self._remove_worker,
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: self._begin_upgrade,
        }

    def run(self) -> int:
        """Run until told to stop. Returns the exit status: 0 after a stop that was asked for, 1 if it cannot start."""
        self._signals.install(MASTER_SIGNALS)
        try:
            self._boot()
            while self._has_work():
                self._loop.turn(BUSY_WAIT_S if self._rollover.is_busy else IDLE_WAIT_S)
                self._obey_signals()
                self._supervisor.reap()
                self._supervisor.murder()
                self._upgrade.advance(can_begin=self._can_upgrade())
                if self._state is _State.RETIRED:
                    self._upgrade.tell_draining(self._count_draining())
                if self._state is _State.RUNNING:
                    self._naming.advance()
                    if not self._upgrade.is_under_way:
                        # In a storm of reloads an upgrade has its turn after the present one.
                        waits = self._is_ready and self._upgrade.is_requested
                        self._rollover.advance(may_begin=not waits)
                    self._supervisor.manage()
                    self._supervisor.lend()
                    if not self._rollover.is_busy and not self._upgrade.is_under_way:
                        self._supervisor.recycle()
                self._predecessor.advance(self, is_ready=self._is_fit())
                self._succeed()
        except BootError as error:
            say(f"minato: {error}")
            self._exit_status = 1
        finally:
            self._clean_up()
        return self._exit_status

    def _has_work(self) -> bool:
        """Tell whether to go on. An old master ends before the one after it, by which it is reached."""
        if self._state is _State.RUNNING or self._supervisor.generations:
            return True
        return self._upgrade.is_ending_child or self._predecessor.is_draining(self._loop.now_s)

    def _boot(self) -> None:
        setproctitle(f"minato: master [{self._config.path}]")
        raise_open_files_limit()
        remove_dead_boards()
        self._inherit()
        # Sockets first: whoever starts minato twice hears of it at once, not after the first round of probes.
        addresses, slots = self._config.listen_addresses(), self._count_workers(self._config)
        if self._predecessor.is_master:
            self._listeners.bind(addresses, slots, listens=False)
        else:
            self._succession.bind(self._listeners, addresses, slots)
        self._admin.bind(self._config.admin.listen, BIND_TRIES)
        self._office.write_pid()
        # Workers that serve on do not hear of purges: so nobody is told of any before these do.
        if self._office.is_held and not self._succession.is_heir:
            self._admin.serve(self._config.admin.listen)
        self._checker.start()
        self._rollover.request()

    def _inherit(self) -> None:
        inheritance = self._predecessor.inherit()
        self._office.is_held = not self._predecessor.is_master
        self._listeners.adopt(inheritance.listeners)
        self._admin.adopt(inheritance.admin)
        self._checker.adopt_health(inheritance.health)
        self._succession.inherit(inheritance.deed)
        self._predecessor.attach(self._loop, self._purges, self._drains)

    def _obey_signals(self) -> None:
        # Those that are there now: a flood of signals must not keep the master from its other work.
        for number in self._signals.take_all():
            action = self._on_signal.get(number)
            if action is not None:
                action()

    def _reload(self) -> None:
        if self._state not in (_State.RUNNING, _State.HANDING_OVER):
            log.warning("no reload: this master is %s", self._state.value)
            return
        if self._upgrade.is_under_way:
            log.info("the reload waits for the upgrade: whoever serves after it reads the config")
        self._rollover.request()

    def _stop_gracefully(self) -> None:
        if self._state in (_State.DRAINING, _State.STOPPING):
            self._stop_fast()
            return
        log.info("stopping: what is in flight is finished first")
        self._office.tell("STOPPING=1")
        self._state = _State.DRAINING
        self._succession.renounce()
        self._upgrade.stop(fast=False)
        self._predecessor.stop("stop", self._loop.now_s + self._drain_s() + STOP_GRACE_S)
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
        self._office.tell("STOPPING=1")
        self._state = _State.STOPPING
        self._succession.renounce()
        self._upgrade.stop(fast=True)
        self._predecessor.stop("stop fast", self._loop.now_s + 2 * STOP_GRACE_S)
        self._rollover.cancel()
        self._listeners.close()
        self._admin.serve(None)
        self._supervisor.stop([worker for _, worker in self._supervisor.workers()])
        self._retire_current()

    def _drain_s(self) -> float:
        current = self._supervisor.current
        return (current.config if current is not None else self._config).timeouts.drain_s

    def _retire_current(self) -> None:
        self._supervisor.current = None
        for generation in list(self._supervisor.generations):
            self._supervisor.bury_if_empty(generation)

    def _add_worker(self) -> None:
        if (generation := self._resizable_generation()) is not None:
            self._resizing.add(generation)

    def _enlarge(self, generation: Generation) -> None:
        """The board of the serving generation is too small: another one of the same config gets a larger one."""
        if not self._rollover.is_busy and not self._rollover.is_requested:
            self._rollover.request(workers=generation.target)

    def _remove_worker(self) -> None:
        if (generation := self._resizable_generation()) is not None:
            self._resizing.remove(generation)

    def _resizable_generation(self) -> Generation | None:
        if self._upgrade.is_under_way:
            # A socket bound now would not be among those that are handed over.
            log.warning("the number of workers stays while an upgrade is under way")
            return None
        return self._supervisor.current if self._state is _State.RUNNING else None

    def _serving_upstreams(self) -> list[tuple[Service, list[Upstream]]]:
        current = self._supervisor.current
        return list(current.upstreams()) if current is not None else []

    def _health(self) -> tuple[str, int, str]:
        """Return what there is to say to a health check, how many workers serve, and what else is to be known."""
        if self._state in (_State.HANDING_OVER, _State.RETIRED):
            return "ok", self._handed_over, ""  # those of the new master, who answers for itself in a moment
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
        self._predecessor.pass_on("reopen logs")

    def _shed_all(self) -> None:
        """The new master has older ones than these: of all that drain, only the newest keep what they have stored."""
        self._supervisor.shed(spared=0)
        self._predecessor.pass_on("shed")

    def _begin_upgrade(self) -> None:
        if self._state is not _State.RUNNING:
            log.warning("no upgrade: this master is %s", self._state.value)
        elif self._predecessor.is_master:
            log.warning("no upgrade: this master has not taken over yet")
        else:
            self._upgrade.request()

    def _can_upgrade(self) -> bool:
        return self._state is _State.RUNNING and self._is_ready and not self._rollover.is_busy

    # -- what an upgrade asks of the old master (minato.control.upgrade.OldMaster)

    def note_upgrade_begun(self) -> None:
        self._office.tell_reloading()

    def note_upgrade_given_up(self) -> None:
        if self._state in (_State.RUNNING, _State.HANDING_OVER):
            self._office.tell("READY=1")

    def retire(self, kept: Collection[ListenAddress] | None) -> None:
        """Have all workers accept what waits, then no more.

        Args:
            kept: the addresses at which the new master goes on; None: it does not say.
        """
        self._state = _State.HANDING_OVER
        current = self._supervisor.current
        self._handed_over = current.target if current is not None else 0
        dropped = [address for address in self._listeners.addresses() if kept is not None and address not in kept]
        self._listeners.invite_nobody(dropped)
        for generation in self._supervisor.generations:
            self._supervisor.linger(generation.workers.values(), dropped)
            self._supervisor.drain(generation.workers.values(), generation.config.timeouts.drain_s)

    def resume(self) -> None:
        """Serve again: the new master died in the last moment."""
        self._state = _State.RUNNING
        self._listeners.invite_again()
        current = self._supervisor.current
        # manage() replaces what drains at once, where there are rows; a generation of its own has a board of its own.
        if current is not None and not self._rollover.is_requested:
            self._rollover.request(workers=current.target)

    def settle(self, new_pid: int) -> bool:
        """Be the master no more. Returns whether the config is to be read anew."""
        # The service manager believes this from the master that it knows, and in this order.
        if self._told_note:
            self._office.tell("STATUS=")  # what there is to be known of the new one's generation is for that to say
        self._office.hand_on(new_pid)
        self._state = _State.RETIRED
        setproctitle(f"minato: old master [{self._config.path}]")
        is_reload_due = self._rollover.is_requested
        self._rollover.cancel()
        self._listeners.close()
        self._admin.serve(None)
        self._retire_current()
        self._supervisor.shed()
        self._predecessor.pass_on("shed")
        return is_reload_due

    def _count_draining(self) -> int:
        """Return what the new master has to know of those that drain: one without workers is a process yet."""
        return max(len(self._supervisor.generations), 1) + self._predecessor.count_draining()

    def obey_successor(self, command: str) -> None:
        """Do what the new master was told: this one drains on its behalf."""
        commands = {
            "stop": self._stop_gracefully,
            "stop fast": self._stop_fast,
            "reopen logs": self._reopen_logs,
            "shed": self._shed_all,
        }
        if (action := commands.get(command)) is not None:
            action()

    def _is_fit(self) -> bool:
        """Tell whether this master may take the place of another one: it serves, and its workers do not crash."""
        if not self._is_ready or self._state is not _State.RUNNING:
            return False
        current = self._supervisor.current
        if not self._predecessor.is_contested or current is None:
            return True
        if self._supervisor.fleet.probation.crashes_too_often():
            # There is no earlier generation here to go back to, but an old master that serves well.
            self._predecessor.say_unfit()
            return False
        return self._is_steady(current)

    def _is_steady(self, current: Generation) -> bool:
        are_all_ready = current.count(WorkerState.READY) >= current.target
        return are_all_ready and self._supervisor.fleet.probation.is_fit(self._supervisor.now_s)

    # -- what an upgrade asks of the new one (minato.control.takeover.NewMaster)

    def addresses(self) -> Sequence[ListenAddress]:
        """Return the addresses that are served."""
        return self._listeners.addresses()

    def take_over(self, *, reload: bool) -> None:
        """Be the master from now on."""
        self._office.take()
        self._announce()
        if reload:
            self._reload()

    def yield_to_old(self) -> None:
        """End: the old master goes on."""
        if self._state is _State.RUNNING:
            self._stop_gracefully()

    def _count_workers(self, config: Config) -> int:
        return self._workers_option or config.workers or count_cpus()

    def _on_rollover_begun(self) -> None:
        if self._is_ready:
            self._office.tell_reloading()

    def _on_rollover_over(self, serving: Generation | None) -> None:
        if serving is None:
            raise BootError("cannot start; the log above says why")
        if self._is_ready:
            self._office.tell("READY=1")
            self._tell_note()
            if serving.number != self._shed_for:  # it was not given up
                self._shed_for = serving.number
                self._predecessor.pass_on("shed")
            return
        self._is_ready = True
        self._shed_for = serving.number
        if self._office.is_held and not self._succession.is_heir:
            self._announce()

    def _succeed(self) -> None:
        """Take the place of a master that was killed, once it is clear that these workers do not crash.

        Raises:
            BootError: they do. Those that serve well go on, for the next one to take over from.
        """
        current = self._supervisor.current
        if not (self._is_ready and self._office.is_held and self._succession.is_heir) or current is None:
            return
        if self._supervisor.fleet.probation.crashes_too_often():
            raise BootError("its workers crash again and again; those of the master that was killed go on")
        if self._is_steady(current):
            self._announce()

    def _announce(self) -> None:
        serving = self._supervisor.current
        assert serving is not None
        self._last_will.deed.note_office()
        self._succession.succeed(self._listeners.addresses())
        self._office.announce(serving)
        if self._on_ready is not None:
            self._on_ready()

    def _tell_note(self) -> None:
        """Have the service manager show what is to be known of the serving generation, or nothing any more."""
        told, self._told_note = self._told_note, self._rollover.note
        if told != self._told_note:
            self._office.tell(f"STATUS={self._told_note}")

    def _forget(self) -> None:
        """In a new worker: close the copies of what is neither a socket to accept from nor a channel."""
        self._admin.forget()
        self._upgrade.forget()
        self._predecessor.forget()
        self._succession.renounce()

    def _clean_up(self) -> None:
        """Leave nothing behind, whatever ended the main loop: no worker, no segment, no pid file."""
        self._supervisor.current = None
        self._supervisor.stop([worker for _, worker in self._supervisor.workers()])
        deadline_s = time.monotonic() + 2 * STOP_GRACE_S
        while self._supervisor.workers() and time.monotonic() < deadline_s:
            self._loop.turn(BUSY_WAIT_S)
            self._supervisor.reap()
            self._supervisor.murder()
        self._upgrade.close()
        self._admin.close()
        self._checker.stop()
        for generation in list(self._supervisor.generations):
            self._boards.drop(generation.board)
        self._listeners.close()
        self._last_will.close()
        self._succession.renounce()
        self._office.close()
        self._predecessor.close()
        self._signals.restore(MASTER_SIGNALS)
        self._loop.close()
