"""The workers of all generations: forking, reaping, killing those that hang, replacing them, lending their sockets."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from minato.control.boards import Boards
from minato.control.channel import Channel, ChannelClosedError, Message, Verb
from minato.control.generation import Generation, WorkerHandle, WorkerState
from minato.control.listeners import Listeners
from minato.control.signals import MASTER_SIGNALS, SignalQueue, hold_signals
from minato.control.worker import EXIT_CRASH, ServerFactory, WorkerPlan, run_worker
from minato.decide.rollover import BOOT_TIMEOUT_S
from minato.net.loop import READ, Loop

log = logging.getLogger("minato.master")

STALE_S = 1.0
STOP_GRACE_S = 2.0
# A worker beats four times a second; a shorter timeout would kill healthy ones on a busy machine.
MIN_HEARTBEAT_TIMEOUT_S = 1.0
# Several turns of the master's loop: longer than this between two looks, and it was the master that did not run.
MASTER_GAP_S = 2.0


class ForkGuard(Protocol):
    """What the supervisor needs of the health checker."""

    @property
    def fork_lock(self) -> AbstractContextManager[object]: ...
    def forget(self) -> None: ...
    def wake(self) -> None: ...


class Supervisor:
    """All worker processes of one master.

    Attributes:
        generations: those that have workers, the oldest first.
        current: the one that serves; None before the first does.
        on_purged: hears what a worker says of a purge.
        on_addressed: hears that a worker goes by other addresses.
        on_gone: hears that a worker ended.
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
    ) -> None:
        self._loop = loop
        self._signals = signals
        self._listeners = listeners
        self._boards = boards
        self._guard = guard
        self._server_factory = server_factory
        self._looked_s = time.monotonic()
        self._awake_since_s = self._looked_s
        self.generations: list[Generation] = []
        self.current: Generation | None = None
        self.on_purged: Callable[[WorkerHandle, Message], None] = lambda worker, message: None
        self.on_addressed: Callable[[WorkerHandle, Message], None] = lambda worker, message: None
        self.on_gone: Callable[[WorkerHandle], None] = lambda worker: None
        self.on_stranger: Callable[[int, int], None] = lambda pid, status: None
        self.forget: Callable[[], None] = lambda: None

    def workers(self) -> list[tuple[Generation, WorkerHandle]]:
        """Return every living worker with its generation."""
        return [(generation, worker) for generation in self.generations for worker in generation.workers.values()]

    def draining(self) -> int:
        """Return how many generations but the current one have workers."""
        return sum(generation is not self.current for generation in self.generations)

    def fork(self, generation: Generation, slot: int) -> bool:
        """Fork a worker into a slot. False when that is not possible now."""
        row = generation.free_row(slot)
        if row is None:
            log.warning("no room on the board for a worker in slot %d yet: older ones still drain", slot)
            generation.respawn(slot).note_boot_failure(time.monotonic())
            return False
        ours, theirs = Channel.pair()
        plan = WorkerPlan(
            slot=slot,
            row=row,
            generation=generation.number,
            config=generation.config,
            board=generation.board,
            own=self._listeners.of_slot(slot, generation.config.listen_addresses()),
            addresses=generation.places.addresses(),
            columns=generation.places.columns,
            wake_health=self._guard.wake,
            channel=theirs,
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
            generation.respawn(slot).note_boot_failure(time.monotonic())
            return False
        theirs.close()
        worker = WorkerHandle(pid=pid, slot=slot, row=row, channel=ours, forked_s=time.monotonic())
        generation.workers[pid] = worker
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
                    self._bury(generation, worker, exit_code)
                    break
            else:
                self.on_stranger(pid, exit_code)

    def hear(self) -> None:
        """Read what workers have said up to now, before the loop gets to it."""
        for generation, worker in self.workers():
            self._on_channel(generation, worker)

    def murder(self) -> None:
        """Kill the workers that hang, and those that were told to end and did not in time."""
        now_s = time.monotonic()
        self._note_gap(now_s)
        for generation, worker in self.workers():
            if worker.state is not WorkerState.KILLED and (why := self._why_kill(generation, worker, now_s)):
                self._kill(generation, worker, why)

    def manage(self) -> None:
        """Fork what the current generation lacks, drain what it has too many of."""
        generation = self.current
        if generation is None:
            return
        for slot in generation.vacant_slots(time.monotonic()):
            self.fork(generation, slot)
        surplus = [worker for worker in generation.serving() if worker.slot >= generation.target]
        if surplus:
            self.lend()  # first: whoever comes while the surplus drains is accepted by the others
            self.drain(surplus, generation.config.timeouts.drain_s)

    def lend(self) -> None:
        """Let the others accept from the sockets of slots that nobody attends to; end that when somebody does again.

        That is so for slots beyond the number of workers, for one whose worker died and is not there again, and for one
        whose worker has not been heard of for ``STALE_S``.
        """
        generation = self.current
        if generation is None:
            return
        now_s = time.monotonic()
        ready = [worker for worker in generation.workers.values() if worker.state is WorkerState.READY]
        fresh = {worker.slot for worker in ready if self._silent_s(generation, worker, now_s) <= STALE_S}
        unattended = {slot for slot in self._listeners.slots() if slot not in fresh}
        addresses = generation.config.listen_addresses()
        for worker in ready:
            if worker.slot not in fresh:
                continue
            for slot in sorted(worker.borrowed - unattended):
                worker.channel.send(Message(Verb.GIVE_BACK, slot))
            for slot in sorted(unattended - worker.borrowed):
                worker.channel.send(Message(Verb.BORROW, slot, listeners=self._listeners.of_slot(slot, addresses)))
            worker.borrowed = set(unattended)

    def drain(self, workers: Iterable[WorkerHandle], deadline_s: float) -> None:
        """Tell workers to accept no more and end when all is finished, at the latest after so many seconds."""
        now_s = time.monotonic()
        for worker in workers:
            if worker.is_serving:
                worker.state = WorkerState.DRAINING
                worker.kill_at_s = now_s + deadline_s + STOP_GRACE_S
                worker.channel.send(Message(Verb.DRAIN, seconds=deadline_s))

    def close_idle(self) -> None:
        """Tell every worker, draining by now, to close connections that nothing is under way on."""
        for _, worker in self.workers():
            worker.channel.send(Message(Verb.CLOSE_IDLE))

    def stop(self, workers: Iterable[WorkerHandle]) -> None:
        """Tell workers to end now."""
        now_s = time.monotonic()
        for worker in workers:
            if worker.state not in (WorkerState.STOPPING, WorkerState.KILLED):
                worker.state = WorkerState.STOPPING
                worker.kill_at_s = now_s + STOP_GRACE_S
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
        if generation.workers or generation is self.current or generation not in self.generations:
            return
        self.generations.remove(generation)
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
                    worker.ready_s = time.monotonic()
                    if worker.state is WorkerState.STARTING:
                        worker.state = WorkerState.READY
                elif message.verb is Verb.DRAINING:
                    self._note_draining(generation, worker)
                elif message.verb is Verb.PURGED:
                    self.on_purged(worker, message)
                elif message.verb is Verb.ADDRESSED:
                    self.on_addressed(worker, message)
        except ChannelClosedError:
            self._loop.remove(worker.channel.fileno())  # it ended; reap hears of it, too

    def _note_draining(self, generation: Generation, worker: WorkerHandle) -> None:
        worker.is_accepting = False
        if worker.is_serving:
            log.info("worker %d gen %d (pid %d) was told to drain", worker.slot, generation.number, worker.pid)
            worker.state = WorkerState.DRAINING
            worker.kill_at_s = time.monotonic() + generation.config.timeouts.drain_s + STOP_GRACE_S

    def _bury(self, generation: Generation, worker: WorkerHandle, status: int) -> None:
        self._on_last_words(generation, worker)
        self._loop.remove(worker.channel.fileno())
        worker.channel.close()
        del generation.workers[worker.pid]
        generation.died += 1
        self.on_gone(worker)
        with self._guard.fork_lock:
            self._boards.zero_row(generation.board, worker.row)
        self._log_death(generation, worker, status)
        self.bury_if_empty(generation)

    def _on_last_words(self, generation: Generation, worker: WorkerHandle) -> None:
        """Read what a dead worker said before it died: one that was ready did not fail to boot."""
        if worker.channel.fileno() >= 0:
            self._on_channel(generation, worker)

    def _log_death(self, generation: Generation, worker: WorkerHandle, status: int) -> None:
        who = f"worker {worker.slot} gen {generation.number} (pid {worker.pid})"
        how = describe_exit(status)
        expected = worker.state in (WorkerState.DRAINING, WorkerState.STOPPING, WorkerState.KILLED)
        log.log(logging.DEBUG if expected and status == 0 else logging.WARNING, "%s %s", who, how)
        if generation is not self.current or worker.state in (WorkerState.DRAINING, WorkerState.STOPPING):
            return
        now_s = time.monotonic()
        respawn = generation.respawn(worker.slot)
        if worker.ready_s > now_s:
            delay_s = respawn.note_boot_failure(now_s)
        else:
            delay_s = respawn.note_death(now_s - worker.ready_s, now_s)
        if delay_s:
            log.error("worker %d is started again in %g s", worker.slot, delay_s)

    def _kill(self, generation: Generation, worker: WorkerHandle, why: str) -> None:
        log.error("worker %d gen %d (pid %d) %s; killing it", worker.slot, generation.number, worker.pid, why)
        worker.state = WorkerState.KILLED
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.pid, signal.SIGKILL)

    def _why_kill(self, generation: Generation, worker: WorkerHandle, now_s: float) -> str:
        if worker.kill_at_s <= now_s:
            return "did not end in time"
        silent_s = self._silent_s(generation, worker, now_s)
        if worker.state is not WorkerState.STARTING:
            limit_s = max(generation.config.timeouts.heartbeat_s, MIN_HEARTBEAT_TIMEOUT_S)
            return f"hangs: no heartbeat for {silent_s:.1f} s" if silent_s > limit_s else ""
        # A generation that is not the current one yet has its own boot deadline, and is given up as a whole.
        is_late = generation is self.current and silent_s > BOOT_TIMEOUT_S
        return f"was not ready within {BOOT_TIMEOUT_S:g} s" if is_late else ""

    def _silent_s(self, generation: Generation, worker: WorkerHandle, now_s: float) -> float:
        """Return the seconds since a worker was last heard of, not counting those in which the master itself slept."""
        beat_s = generation.board.row(worker.row).heartbeat_ms / 1000
        return now_s - max(beat_s, worker.forked_s, self._awake_since_s)

    def _note_gap(self, now_s: float) -> None:
        # The whole group was stopped, or the machine: then silence says nothing until everyone had time to run.
        if now_s - self._looked_s > MASTER_GAP_S:
            self._awake_since_s = now_s
        self._looked_s = now_s


def describe_exit(status: int) -> str:
    """Say how a process ended by its exit status, negative for a signal."""
    return f"was killed by {_signal_name(-status)}" if status < 0 else f"ended with status {status}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
