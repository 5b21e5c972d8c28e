"""A worker process from fork to end: signals, commands of the master, heartbeat; the Server does the serving."""

from __future__ import annotations

import enum
import itertools
import logging
import os
import random
import signal
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from setproctitle import setproctitle

from minato.caching.purge import PurgeRequest
from minato.config.model import Config, ListenAddress
from minato.control.channel import Channel, ChannelClosedError, Message, Verb
from minato.control.last_will import LastWill
from minato.control.orphan import Orphan
from minato.control.signals import SignalQueue
from minato.errors import BootError
from minato.net.bound import BoundListener
from minato.net.loop import READ, Loop
from minato.net.resolve import ResolvedAddress
from minato.shared.board import Board
from minato.shared.segment import remove_segment
from minato.telemetry.access_log import AccessLog

log = logging.getLogger("minato.worker")

HEARTBEAT_S = 0.25
EXIT_CRASH = 1
EXIT_BOOT_FAILURE = 3

# Ctrl-C and a terminal that closes signal the whole group; the master decides what becomes of it.
_IGNORED = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
_CAUGHT = (signal.SIGTERM, signal.SIGQUIT)
# Of a worker whose master is gone.
_CAUGHT_ALONE = (*_CAUGHT, signal.SIGINT)


class ServerLike(Protocol):
    """What a worker needs of minato.net.server.Server."""

    def start(self) -> None: ...
    def adopt(self, orphans: Sequence[BoundListener]) -> None: ...
    def release(self, orphans: Sequence[BoundListener]) -> None: ...
    def drain(self, deadline_s: float, on_drained: Callable[[], None], *, sweep: bool = False) -> None: ...
    def linger(self, addresses: Collection[ListenAddress], on_lingered: Callable[[], None]) -> None: ...
    def shed(self) -> None: ...
    def close_idle(self) -> None: ...
    def stop(self) -> None: ...
    def reopen_logs(self) -> None: ...
    def purge(self, requests: Sequence[PurgeRequest]) -> int: ...
    def change_addresses(self, key: str, places: Sequence[tuple[str, int]]) -> None: ...


class ServerFactory(Protocol):
    """What makes the Server; tests put a stand-in here."""

    def __call__(
        self,
        *,
        config: Config,
        loop: Loop,
        board: Board,
        slot: int,
        own: Sequence[BoundListener],
        orphans: Sequence[BoundListener],
        addresses: Mapping[str, tuple[ResolvedAddress, ...]],
        wake_health: Callable[[], None],
        access_log: AccessLog | None,
        columns: Mapping[str, int] | None = None,
    ) -> ServerLike: ...


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """All that a worker is given.

    Attributes:
        slot: which of the sockets of each address are its own.
        row: its row on the board; mostly the slot's number, another one while an older worker of the slot still drains.
        generation: number of its generation.
        own: the sockets it accepts from.
        fresh: for which addresses these are such as no other master had.
        addresses: of the upstreams, by Upstream.key.
        columns: of the upstreams on the board, each address of a name its own, by Upstream.key.
        wake_health: tells the health checker to look at the refused counts.
        channel: its end of the channel to the master.
        last_will: of the master.
    """

    slot: int
    row: int
    generation: int
    config: Config
    board: Board
    own: tuple[BoundListener, ...]
    fresh: tuple[ListenAddress, ...]
    addresses: Mapping[str, tuple[ResolvedAddress, ...]]
    columns: Mapping[str, int]
    wake_health: Callable[[], None]
    channel: Channel
    last_will: LastWill


class _State(enum.Enum):
    SERVING = "serving"
    DRAINING = "draining"
    STOPPED = "stopped"


def run_worker(plan: WorkerPlan, server_factory: ServerFactory) -> int:
    """Serve until told to end. Returns the exit status: 0, or 3 where the worker could not start.

    An exception that nobody caught is for the caller, who logs it and exits with 1.
    """
    setproctitle(f"minato: worker {plan.slot} gen {plan.generation}")
    random.seed()  # the fork copied the master's state to every worker
    try:
        worker = Worker(plan, server_factory)
        worker.start()
    except BootError as error:
        log.error("worker %d gen %d cannot start: %s", plan.slot, plan.generation, error)
        return EXIT_BOOT_FAILURE
    except Exception:
        log.critical("worker %d gen %d cannot start", plan.slot, plan.generation, exc_info=True)
        return EXIT_BOOT_FAILURE
    worker.run()
    return 0


class Worker:
    """One worker: a loop, a Server, and what is between them and the master."""

    def __init__(self, plan: WorkerPlan, server_factory: ServerFactory) -> None:
        self._plan = plan
        self._state = _State.SERVING
        self._loop = loop = Loop(forgives_pauses=True)
        self._signals = SignalQueue(loop)
        self._signals.install(_CAUGHT, _IGNORED)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._row = plan.board.row(plan.row)
        self._heartbeat = loop.timer(self._beat)
        self._flush = loop.timer(self._flush_log)
        self._dropped: set[ListenAddress] = set()
        self._borrowed: dict[int, list[BoundListener]] = {}
        self._orphan = Orphan(loop, plan.last_will, plan.config, plan.own, plan.fresh, self)
        self._is_alone = False
        self._access_log = AccessLog.open(plan.config.access_log)
        if self._access_log is not None:
            self._access_log.on_full = self._schedule_flush
        self._server = server_factory(
            config=plan.config,
            loop=loop,
            board=plan.board,
            slot=plan.row,
            own=plan.own,
            orphans=(),
            addresses=plan.addresses,
            wake_health=plan.wake_health,
            access_log=self._access_log,
            columns=plan.columns,
        )

    def start(self) -> None:
        """Begin to serve and say so."""
        self._row.pid = os.getpid()
        self._row.generation = self._plan.generation
        self._loop.add(self._plan.channel.fileno(), READ, self._on_channel)
        # After a long stop, what was purged meanwhile must go before anybody is answered from it.
        self._loop.put_first(self._plan.channel.fileno())
        self._beat()
        self._flush_log()
        for listener in self._plan.own:
            # For most, again: in an upgrade nobody is invited to the sockets of slots that the old master does not have
            # before there is somebody to accept.
            listener.sock.listen(socket.SOMAXCONN)
        self._server.start()
        self._plan.channel.send(Message(Verb.READY))
        log.debug("worker %d gen %d serves", self._plan.slot, self._plan.generation)

    def run(self) -> None:
        """Turn the loop until the worker has drained or was told to stop."""
        while self._state is not _State.STOPPED:
            self._loop.turn()
            while (number := self._signals.take()) is not None:
                self._obey_signal(number)
        if self._access_log is not None:
            self._beat()  # it may wait for its reader
            self._access_log.close()

    def _obey_signal(self, number: signal.Signals) -> None:
        if number is signal.SIGQUIT:
            self._stop()
            return
        self._drain(self._plan.config.timeouts.drain_s)
        if self._is_alone:
            self._server.close_idle()

    def _on_channel(self, events: int) -> None:
        channel = self._plan.channel
        try:
            while (message := channel.receive()) is not None:
                self._obey(message)
        except ChannelClosedError:
            self._loop.remove(channel.fileno())
            self._be_alone()

    def _be_alone(self) -> None:
        """The master is gone."""
        self._is_alone = True
        self._signals.install(_CAUGHT_ALONE)
        remove_segment(self._plan.board.name)  # it stays mapped; nobody else would remove it
        if self._state is _State.SERVING:
            setproctitle(f"minato: worker {self._plan.slot} gen {self._plan.generation} without a master")
            self._orphan.begin()

    def leave(self, dropped: Collection[ListenAddress]) -> None:
        """Accept what waits, then no more; at these addresses nobody comes after this worker."""
        self._dropped.update(dropped)
        # What is purged from now on, this worker does not hear of.
        self._server.shed()
        self._drain(self._plan.config.timeouts.drain_s)

    def _obey(self, message: Message) -> None:
        if message.verb is Verb.DRAIN:
            self._drain(message.seconds)
        elif message.verb is Verb.LINGER:
            self._note_dropped(message.listeners)
        elif message.verb is Verb.SHED:
            self._server.shed()
        elif message.verb is Verb.CLOSE_IDLE:
            self._server.close_idle()
        elif message.verb is Verb.STOP:
            self._stop()
        elif message.verb is Verb.REOPEN_LOGS:
            self._server.reopen_logs()
        elif message.verb is Verb.BORROW:
            self.borrow(message.slot, message.listeners)
        elif message.verb is Verb.GIVE_BACK:
            self._give_back(message.slot)
        elif message.verb is Verb.PURGE:
            count = self._server.purge(message.purges)
            self._plan.channel.send(Message(Verb.PURGED, serial=message.serial, count=count))
        elif message.verb is Verb.ADDRESSES:
            self._server.change_addresses(message.upstream, message.places)
            self._plan.channel.send(Message(Verb.ADDRESSED, serial=message.serial))

    def borrow(self, slot: int, listeners: tuple[BoundListener, ...]) -> None:
        """Accept from these sockets of a slot, too."""
        if self._state is not _State.SERVING:
            for listener in listeners:
                listener.sock.close()
            return
        self._borrowed.setdefault(slot, []).extend(listeners)
        self._server.adopt(listeners)

    def _note_dropped(self, listeners: tuple[BoundListener, ...]) -> None:
        for listener in listeners:
            self._dropped.add(listener.address)
            listener.sock.close()  # a copy of one that it has

    def _give_back(self, slot: int) -> None:
        listeners = self._borrowed.pop(slot, [])
        if listeners and self._state is _State.SERVING:
            self._server.release(listeners)

    def _drain(self, deadline_s: float) -> None:
        if self._state is _State.SERVING:
            self._state = _State.DRAINING
            if self._dropped:
                self._server.linger(self._dropped, self._close_listeners)
            # What waits in the queues is accepted first, then the sockets are closed: some may be the last of their
            # address, and as long as one is open the kernel puts connections there.
            self._server.drain(deadline_s, self._end, sweep=True)
            if not self._dropped:
                self._close_listeners()

    def _close_listeners(self) -> None:
        self._orphan.close()
        for listener in [*self._plan.own, *itertools.chain.from_iterable(self._borrowed.values())]:
            listener.sock.close()
        # Where it was a signal that told, the master puts another worker in this slot at once.
        self._plan.channel.send(Message(Verb.DRAINING))

    def _stop(self) -> None:
        if self._state is not _State.STOPPED:
            self._server.stop()
            self._end()

    def _end(self) -> None:
        self._state = _State.STOPPED

    def _beat(self) -> None:
        self._row.beat(self._loop.machine_ms(self._loop.now_s))
        self._heartbeat.set(HEARTBEAT_S)

    def _flush_log(self) -> None:
        if self._access_log is not None:
            self._access_log.flush()
            self._schedule_flush()

    def _schedule_flush(self) -> None:
        if self._access_log is not None:
            self._flush.set(self._access_log.next_flush_s)
