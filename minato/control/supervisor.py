"""The workers of all generations, as processes: forked, reaped, killed, told. What is due is for Supervision to say."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import random
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from minato.config.model import ListenAddress
from minato.control.boards import Boards
from minato.control.channel import Channel, ChannelClosedError, Message, Verb
from minato.control.deaths import Coroner, Death
from minato.control.generation import Generation, WorkerHandle, WorkerState
from minato.control.last_will import LastWill
from minato.control.listeners import Listeners
from minato.control.loads import measure_loads
from minato.control.signals import MASTER_SIGNALS, SignalQueue, hold_signals
from minato.control.worker import EXIT_CRASH, ServerFactory, WorkerPlan, run_worker
from minato.decide.recycling import Allowance
from minato.decide.supervision import Supervision
from minato.net.loop import READ, Loop

log = logging.getLogger("minato.master")

LOADS_EVERY_S = 1.0


class ForkGuard(Protocol):
    """What the supervisor needs of the health checker."""

    @property
    def fork_lock(self) -> AbstractContextManager[object]: ...
    def forget(self) -> None: ...
    def wake(self) -> None: ...


class Supervisor:
    """All worker processes of one master.

    Attributes:
        fleet: what is known of them, and what decides about them.
        on_purged: hears what a worker says of a purge.
        on_addressed: hears that a worker goes by other addresses.
        on_gone: hears that a worker ended.
        draining_before: returns how many generations of masters before this one drain.
        on_stranger: hears of every other child that ended: its pid, and its exit status (negative: the signal).
        forget: what else a new worker lets go of.
    """

    def __init__(
        self,
        *,
        loop: Loop,
        signals: SignalQueue,
        listeners: Listeners,
        boards: Boards,
        guard: ForkGuard,
        server_factory: ServerFactory,
        last_will: LastWill,
    ) -> None:
        self._loop = loop
        self._signals = signals
        self._listeners = listeners
        self._boards = boards
        self._guard = guard
        self._server_factory = server_factory
        self._last_will = last_will
        self._coroner = Coroner()
        self._loads_due_s = loop.now_s
        self.fleet: Supervision[Generation, WorkerHandle] = Supervision()
        self.on_purged: Callable[[WorkerHandle, Message], None] = lambda worker, message: None
        self.on_addressed: Callable[[WorkerHandle, Message], None] = lambda worker, message: None
        self.on_gone: Callable[[WorkerHandle], None] = lambda worker: None
        self.on_stranger: Callable[[int, int], None] = lambda pid, status: None
        self.forget: Callable[[], None] = lambda: None
        self.draining_before: Callable[[], int] = lambda: 0

    @property
    def generations(self) -> list[Generation]:
        """Those that have workers, the oldest first."""
        return self.fleet.generations

    @property
    def current(self) -> Generation | None:
        """The one that serves; None before the first does, and once all are to end."""
        return self.fleet.current

    @current.setter
    def current(self, generation: Generation | None) -> None:
        self.fleet.current = generation

    @property
    def now_s(self) -> float:
        """Seconds by the clock that all decisions about workers go by: the loop's, which forgives pauses."""
        return self._loop.now_s

    def workers(self) -> list[tuple[Generation, WorkerHandle]]:
        """Return every living worker with its generation."""
        return self.fleet.workers()

    def draining(self) -> int:
        """Return how many generations but the current one have workers, those of older masters included."""
        return self.fleet.draining() + self.draining_before()

    def fork(self, generation: Generation, slot: int) -> bool:
        """Fork a worker into a slot. False when that is not possible now."""
        row = generation.free_row(slot)
        if row is None:
            log.warning("no room on the board for a worker in slot %d yet: older ones still drain", slot)
            self.fleet.note_not_forked(generation, slot, self._loop.now_s)
            return False
        ours, theirs = Channel.pair()
        plan = WorkerPlan(
            slot=slot,
            row=row,
            generation=generation.number,
            config=generation.config,
            board=generation.board,
            own=self._listeners.of_slot(slot, generation.config.listen_addresses()),
            fresh=self._listeners.fresh_of_slot(slot, generation.config.listen_addresses()),
            addresses=generation.places.addresses(),
            columns=generation.places.columns,
            wake_health=self._guard.wake,
            channel=theirs,
            last_will=self._last_will,
        )
        # What the master has allocated so far is never collected: a child that looked for garbage in it would copy it.
        gc.collect()
        gc.freeze()
        try:
            with hold_signals(MASTER_SIGNALS), self._guard.fork_lock:
                pid = os.fork()
                if pid == 0:
                    self._become_worker(plan, ours)
        except OSError as error:
            log.error("cannot fork worker %d: %s", slot, error.strerror)
            ours.close()
            theirs.close()
            self.fleet.note_not_forked(generation, slot, self._loop.now_s)
            return False
        theirs.close()
        allowance = Allowance.draw(generation.config.recycle, random.random())
        worker = WorkerHandle(pid=pid, slot=slot, row=row, channel=ours, forked_s=self._loop.now_s, allowance=allowance)
        self.fleet.note_forked(generation, worker)
        self._loop.add(ours.fileno(), READ, lambda events: self._on_channel(generation, worker))
        return True

    def reap(self) -> None:
        """Collect every child that ended; strangers, too, where minato is the first process of a container."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            exit_code = os.waitstatus_to_exitcode(status)
            for generation, worker in self.workers():
                if worker.pid == pid:
                    self._bury(generation, worker, self._coroner.examine(exit_code))
                    break
            else:
                self.on_stranger(pid, exit_code)

    def hear(self) -> None:
        """Read what workers have said up to now, before the loop gets to it."""
        for generation, worker in self.workers():
            self._on_channel(generation, worker)

    def murder(self) -> None:
        """Kill the workers that hang, and those that were told to end and did not in time."""
        now_s = self._loop.now_s
        for generation, worker in self.workers():
            worker.hear(generation.board.row(worker.row).heartbeat_ms, now_s)
        for generation, worker, why in self.fleet.overdue(now_s):
            log.error("worker %d gen %d (pid %d) %s; killing it", worker.slot, generation.number, worker.pid, why)
            worker.become(WorkerState.KILLED)
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)

    def manage(self) -> None:
        """Fork what the current generation lacks, drain what it has too many of."""
        generation = self.current
        if generation is None:
            return
        for slot in self.fleet.vacancies(self._loop.now_s):
            self.fork(generation, slot)
        surplus = self.fleet.surplus(self._loop.now_s)
        if surplus:
            self.lend()  # first: whoever comes while the surplus drains is accepted by the others
            self.drain(surplus, generation.config.timeouts.drain_s)

    def recycle(self) -> None:
        """Fork a fresh worker beside one that has done or taken enough; that one drains once the other serves."""
        generation = self.current
        now_s = self._loop.now_s
        if generation is None or not generation.config.recycle.is_on or now_s < self._loads_due_s:
            return
        self._loads_due_s = now_s + LOADS_EVERY_S
        loads = measure_loads(generation, generation.workers.values())
        if (due := self.fleet.due_recycle(loads, now_s)) is None:
            return
        worker, load = due.worker, loads[due.worker.pid]
        if not due.has_row:
            log.warning(
                "worker %d gen %d (pid %d) is due to be replaced (%s), but the board has no room for a fresh one: "
                "it waits until one that drains is gone",
                *(worker.slot, generation.number, worker.pid, due.reason.value),
            )
            return
        log.info(
            "worker %d gen %d (pid %d) is replaced (%s): %d requests, %d bytes resident",
            *(worker.slot, generation.number, worker.pid, due.reason.value, load.requests, load.memory_bytes),
        )
        self.fork(generation, worker.slot)

    def lend(self) -> None:
        """Let the others accept from the sockets of slots that nobody attends to; end that when somebody does again."""
        generation = self.current
        if generation is None:
            return
        addresses = generation.config.listen_addresses()
        for loan in self.fleet.loans(self._listeners.slots(), self._loop.now_s):
            for slot in loan.give_back:
                loan.worker.channel.send(Message(Verb.GIVE_BACK, slot))
            for slot in loan.borrow:
                listeners = self._listeners.of_slot(slot, addresses)
                loan.worker.channel.send(Message(Verb.BORROW, slot, listeners=listeners))

    def drain(self, workers: Iterable[WorkerHandle], deadline_s: float) -> None:
        """Tell workers to accept no more and end when all is finished, at the latest after so many seconds."""
        for worker in self.fleet.drain(workers, deadline_s, self._loop.now_s):
            worker.channel.send(Message(Verb.DRAIN, seconds=deadline_s))

    def linger(self, workers: Iterable[WorkerHandle], dropped: Sequence[ListenAddress]) -> None:
        """Tell workers, which are to drain next, for which addresses they have no successor."""
        for worker in workers:
            listeners = self._listeners.of_slot(worker.slot, dropped)
            if listeners and worker.is_serving:
                worker.channel.send(Message(Verb.LINGER, listeners=listeners))

    def shed(self, spared: int = 1) -> None:
        """Have all generations that drain, but the newest of them, let go of what they have stored.

        Args:
            spared: 0: that one, too.
        """
        draining = [generation for generation in self.generations if generation is not self.current]
        for generation in draining[: len(draining) - spared]:
            for worker in generation.workers.values():
                worker.channel.send(Message(Verb.SHED))

    def close_idle(self) -> None:
        """Tell every worker, draining by now, to close connections that nothing is under way on."""
        for _, worker in self.workers():
            worker.channel.send(Message(Verb.CLOSE_IDLE))

    def stop(self, workers: Iterable[WorkerHandle]) -> None:
        """Tell workers to end now."""
        for worker in self.fleet.stop(workers, self._loop.now_s):
            worker.channel.send(Message(Verb.STOP))

    def reopen_logs(self) -> None:
        """Tell every worker to open its access log anew."""
        for _, worker in self.workers():
            worker.channel.send(Message(Verb.REOPEN_LOGS))

    def add(self, generation: Generation) -> None:
        """Take up a new generation, which has no workers yet."""
        with self._guard.fork_lock:
            self._boards.add(generation.board)
        self.generations.append(generation)

    def bury_if_empty(self, generation: Generation) -> None:
        """Remove a generation that has no workers left and gets no more."""
        if self.fleet.bury(generation):
            with self._guard.fork_lock:
                self._boards.drop(generation.board)
            log.debug("generation %d is gone", generation.number)

    def _become_worker(self, plan: WorkerPlan, ours: Channel) -> None:
        """In the child: let go of all that is the master's, serve, exit. Never returns."""
        status = EXIT_CRASH
        try:
            self._guard.forget()
            self._signals.forget()
            self._loop.close()
            ours.close()
            for _, worker in self.workers():
                worker.channel.close()
            self._boards.forget(plan.board)
            self._listeners.close_others(plan.own)
            self._last_will.become_worker()
            self.forget()
            status = run_worker(plan, self._server_factory)
        except BaseException:
            log.critical("worker %d gen %d crashed", plan.slot, plan.generation, exc_info=True)
        finally:
            os._exit(status)

    def _on_channel(self, generation: Generation, worker: WorkerHandle) -> None:
        try:
            while (message := worker.channel.receive()) is not None:
                if message.verb is Verb.READY:
                    replaced = self.fleet.note_ready(generation, worker, self._loop.now_s)
                    self.drain(replaced, generation.config.timeouts.drain_s)
                elif message.verb is Verb.DRAINING:
                    if self.fleet.note_draining(generation, worker, self._loop.now_s):
                        who = (worker.slot, generation.number, worker.pid)
                        log.info("worker %d gen %d (pid %d) was told to drain", *who)
                elif message.verb is Verb.PURGED:
                    self.on_purged(worker, message)
                elif message.verb is Verb.ADDRESSED:
                    self.on_addressed(worker, message)
        except ChannelClosedError:
            self._loop.remove(worker.channel.fileno())  # it ended; reap hears of it, too

    def _bury(self, generation: Generation, worker: WorkerHandle, death: Death) -> None:
        if worker.channel.fileno() >= 0:
            self._on_channel(generation, worker)  # its last words: one that was ready did not fail to boot
        self._loop.remove(worker.channel.fileno())
        worker.channel.close()
        with self._guard.fork_lock:
            self._boards.zero_row(generation.board, worker.row)
        who = f"worker {worker.slot} gen {generation.number} (pid {worker.pid})"
        is_expected = death.is_clean and (worker.was_told or worker.state is WorkerState.KILLED)
        log.log(logging.DEBUG if is_expected else logging.WARNING, "%s %s", who, death.how)
        delay_s = self.fleet.note_dead(generation, worker, self._loop.now_s, is_crash=death.is_crash)
        if delay_s:
            log.error("worker %d is started again in %g s", worker.slot, delay_s)
        self.on_gone(worker)
        self.bury_if_empty(generation)
