"""The pretended world: processes that boot, serve, hang, drain and die, and the system calls that reach them."""

from __future__ import annotations

import contextlib
import errno
import random
import signal
from collections.abc import Callable, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from minato.config.model import Config, RecycleConfig, Timeouts
from minato.control import rollover, supervisor
from minato.control.channel import Message, Verb
from minato.control.places import Places
from minato.control.rollover import RolloverDriver
from minato.control.supervisor import Supervisor
from minato.decide.rollover import Preparation
from minato.decide.supervision import STALE_S
from minato.errors import BootError

HEARTBEAT_S = 4.0
DRAIN_S = 4.0
PROBE_S = 1.0


class Plan:
    """What a config file holds, and what becomes of who uses it."""

    def __init__(self, workers: int, *, fate: str = "good", recycle: int = 0, drain_s: float = DRAIN_S) -> None:
        self.fate = fate  # good, broken, unbindable, unresolved, no boot, slow boot, crash
        self.config = Config(
            path="config.yaml",
            services=(),
            workers=workers,
            timeouts=Timeouts(heartbeat_s=HEARTBEAT_S, drain_s=drain_s),
            recycle=RecycleConfig(requests=recycle),
        )


class Process:
    """A worker as it really is, whatever the master knows of it."""

    def __init__(
        self, world: World, pid: int, slot: int, row: int, generation: int, board: PretendedBoard, fate: str
    ) -> None:
        self.world = world
        self.pid, self.slot, self.row, self.generation, self.fate = pid, slot, row, generation, fate
        self.board = board
        self.boots_at_s = world.now_s + world.rng.choice((0.0, 0.05, 0.3))
        if fate == "slow boot":
            self.boots_at_s = world.now_s + world.rng.choice((1.0, 9.0, 30.0))
        self.ends_at_s = float("inf")
        self.status: int | None = None  # as waitpid tells it
        self.is_accepting = False
        self.is_draining = False
        self.is_hung = False
        self.beat_s = world.now_s
        self.said: list[Message] = []
        self.unread: list[Message] = []
        self.borrowed: set[int] = set()
        self.requests = 0

    @property
    def is_alive(self) -> bool:
        return self.status is None

    @property
    def serves(self) -> bool:
        return self.is_alive and self.is_accepting and not self.is_hung

    @property
    def seems_to_serve(self) -> bool:
        """Whether it serves, as far as anybody can know who looks at heartbeats."""
        return self.is_alive and self.is_accepting and self.world.now_s - self.beat_s <= STALE_S

    def end(self, status: int) -> None:
        if self.is_alive:
            self.status = status
            self.is_accepting = False

    def live(self) -> None:
        """Let it do what it does in a moment."""
        if not self.is_alive or self.is_hung:
            return
        now_s = self.world.now_s
        self.beat_s = now_s
        self.board.beats[self.row] = int(now_s * 1000) + 1
        if not self.is_accepting and not self.is_draining and now_s >= self.boots_at_s:
            if self.fate == "no boot":
                return self.end(3)
            self.is_accepting = True
            self.said.append(Message(Verb.READY))
            if self.fate == "crash":
                self.ends_at_s = now_s + self.world.rng.uniform(0.0, 1.0)
        self.read()
        if now_s >= self.ends_at_s:
            self.end(1 if self.fate == "crash" and not self.is_draining else 0)
        self.requests += self.is_accepting
        return None

    def read(self) -> None:
        """Do what the master has asked for, unless it hangs."""
        while self.unread and self.is_alive and not self.is_hung:
            self._obey(self.unread.pop(0))

    def drain(self) -> None:
        """Accept no more, and say so."""
        if not self.is_draining:
            self.is_draining = True
            self.is_accepting = False
            self.borrowed.clear()
            self.said.append(Message(Verb.DRAINING))
            self.ends_at_s = self.world.now_s + self.world.rng.choice(self.world.drains_s)

    def _obey(self, message: Message) -> None:
        if message.verb is Verb.DRAIN:
            self.drain()
        elif message.verb is Verb.STOP:
            self.is_accepting = False
            self.ends_at_s = self.world.now_s
        elif message.verb is Verb.BORROW and not self.is_draining:
            self.borrowed.add(message.slot)
        elif message.verb is Verb.GIVE_BACK:
            self.borrowed.discard(message.slot)


class PretendedBoard:
    """A board of heartbeats and counts; it knows which rows a living or unburied worker wrote."""

    def __init__(self, world: World, slots: int) -> None:
        self.world, self.slots = world, slots
        self.beats = [0] * slots
        self.used: set[int] = set()
        self.is_dropped = False

    def row(self, row: int) -> Any:
        alive = (one for one in self.world.processes.values() if one.is_alive and one.board is self and one.row == row)
        process = next(alive, None)
        return SimpleNamespace(heartbeat_ms=self.beats[row], get=lambda counter: process.requests if process else 0)


class PretendedChannel:
    """The master's end of the channel to one process; what is sent arrives when that runs."""

    def __init__(self) -> None:
        self.process: Process | None = None
        self.number = 0

    @classmethod
    def pair(cls) -> tuple[PretendedChannel, PretendedChannel]:
        return cls(), cls()

    def fileno(self) -> int:
        return self.number

    def close(self) -> None:
        self.number = -1

    def send(self, message: Message) -> bool:
        assert self.process is not None
        self.process.unread.append(message)
        self.process.read()
        return True

    def receive(self) -> Message | None:
        return self.process.said.pop(0) if self.process is not None and self.process.said else None


class World:
    """One run: the real Supervisor and RolloverDriver over a pretended system.

    Attributes:
        processes: every one there ever was, by pid.
        reaped: the pids that were waited for, in order.
        killed: the processes that the master killed, with whether they were hung, or late to end, just then.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.now_s = 1000.0
        self.processes: dict[int, Process] = {}
        self.reaped: list[int] = []
        self.killed: list[tuple[Process, bool]] = []
        self.boards: list[PretendedBoard] = []
        self.forks_fail = 0
        self.drains_s: tuple[float, ...] = (0.0, 0.5, DRAIN_S, DRAIN_S, 100.0)
        self.file = Plan(self.rng.randint(1, 3), recycle=self.rng.choice((0, 0, 40)))
        self._plans: dict[int, Plan] = {}  # by the identity of a config
        self._slots: set[int] = set()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self.over_s = self.now_s  # when a rollover ended last
        self.cannot_start = False
        self.returns = 0
        self.recycled = 0
        self._last_note = ""
        self._is_first_round_over_s = 0.0
        self._new_channel: PretendedChannel | None = None
        self._forking: dict[str, Any] = {}
        self._make_master()

    # -- what the master is given

    def _make_master(self) -> None:
        self._plans[id(self.file.config)] = self.file
        loop = SimpleNamespace(now_s=self.now_s, add=self._handlers_add, remove=lambda fd: self._handlers.pop(fd, None))
        self.loop = loop
        self.supervisor = Supervisor(
            loop=loop,  # type: ignore[arg-type]
            signals=SimpleNamespace(),  # type: ignore[arg-type]
            listeners=self,  # type: ignore[arg-type]
            boards=self,  # type: ignore[arg-type]
            guard=SimpleNamespace(fork_lock=contextlib.nullcontext(), wake=None, forget=None),  # type: ignore[arg-type]
            server_factory=None,  # type: ignore[arg-type]
            last_will=None,  # type: ignore[arg-type]
        )
        nothing = SimpleNamespace(bind=lambda listen: None, drop_others=lambda: None, serve=lambda listen: None)
        self.driver = RolloverDriver(
            supervisor=self.supervisor,
            listeners=self,  # type: ignore[arg-type]
            admin=nothing,  # type: ignore[arg-type]
            checker=self,  # type: ignore[arg-type]
            naming=SimpleNamespace(end_preparation=lambda: None),  # type: ignore[arg-type]
            load=lambda: self.file.config,
            first=self.file.config,
            count_workers=lambda config: config.workers or 1,
            on_begun=lambda: None,
            on_over=self._note_over,
        )

    def patches(self) -> list[tuple[Any, str, Any]]:
        """What stands in for the system: (module, name, stand-in)."""
        fake_os = SimpleNamespace(
            fork=self._fork,
            waitpid=self._waitpid,
            waitstatus_to_exitcode=lambda status: status,
            kill=self._kill,
            WNOHANG=1,
            _exit=None,
        )
        return [
            (supervisor, "os", fake_os),
            (supervisor, "gc", SimpleNamespace(collect=lambda: None, freeze=lambda: None)),
            (supervisor, "Channel", self._channels()),
            (supervisor, "WorkerPlan", self._plan_worker),
            (supervisor, "hold_signals", lambda numbers: contextlib.nullcontext()),
            (supervisor, "random", self.rng),
            (rollover, "Board", SimpleNamespace(create=self._create_board)),
            (rollover, "Preparing", self._prepare),
        ]

    def _note_over(self, serving: Any) -> None:
        self.cannot_start |= serving is None
        self.over_s = self.now_s

    def _handlers_add(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        self._handlers[fd] = handler

    def _channels(self) -> Any:
        def pair() -> tuple[PretendedChannel, PretendedChannel]:
            self._new_channel = PretendedChannel()
            return self._new_channel, PretendedChannel()

        return SimpleNamespace(pair=pair)

    def _create_board(self, *, slots: int, **rest: object) -> PretendedBoard:
        self.boards.append(PretendedBoard(self, slots))
        return self.boards[-1]

    def _prepare(self, load: Callable[[], Config], known: object) -> Any:
        config = load()
        fate = self._plans[id(config)].fate
        status = {"broken": Preparation.FAILED, "unresolved": Preparation.PENDING}.get(fate, Preparation.DONE)
        return SimpleNamespace(progress=lambda: status, result=lambda: (config, Places(config, lambda host: ())))

    # -- the system calls

    def _fork(self) -> int:
        if self.forks_fail:
            self.forks_fail -= 1
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        plan = self._forking
        board, row = plan["board"], plan["row"]
        assert row not in board.used, "a row is used again before it was zeroed"
        board.used.add(row)
        pid = 100 + len(self.processes)
        fate = self._plans[id(plan["config"])].fate
        process = Process(self, pid, plan["slot"], row, plan["generation"], board, fate)
        self.processes[pid] = process
        assert self._new_channel is not None
        self._new_channel.process = process
        self._new_channel.number = pid
        return pid

    def _plan_worker(self, **plan: Any) -> None:
        self._forking = plan

    def _waitpid(self, pid: int, flags: int) -> tuple[int, int]:
        for process in self.processes.values():
            if process.status is not None and process.pid not in self.reaped:
                self.reaped.append(process.pid)
                return process.pid, process.status
        if all(process.pid in self.reaped for process in self.processes.values()):
            raise ChildProcessError
        return 0, 0

    def _kill(self, pid: int, number: int) -> None:
        process = self.processes[pid]
        if not process.is_alive:
            raise ProcessLookupError
        handle = next(worker for _, worker in self.supervisor.workers() if worker.pid == pid)
        is_due = process.is_hung or handle.kill_at_s <= self.now_s or not (process.is_accepting or process.is_draining)
        self.killed.append((process, is_due))
        process.end(-signal.SIGKILL)

    # -- listeners, boards and checker of the master

    def slots(self) -> list[int]:
        return sorted(self._slots)

    def of_slot(self, slot: int, addresses: Iterable[object]) -> tuple[()]:
        return ()

    def fresh_of_slot(self, slot: int, addresses: Iterable[object]) -> tuple[()]:
        return ()

    def bind(self, addresses: Sequence[object], slots: int) -> list[object]:
        if self.binds_fail():
            raise BootError("cannot listen")
        self._slots.update(range(slots))
        return []

    def binds_fail(self) -> bool:
        preparing = self.driver._preparing
        return preparing is not None and self._plans[id(preparing.result()[0])].fate == "unbindable"

    def unbind(self, keys: Iterable[object]) -> None: ...
    def keep_only(self, addresses: Iterable[object]) -> None: ...
    def invite_nobody(self, addresses: Iterable[object]) -> None: ...
    def addresses(self) -> tuple[()]:
        return ()

    def add(self, board: PretendedBoard) -> None: ...

    def drop(self, board: PretendedBoard) -> None:
        assert not board.is_dropped, "a board is dropped twice"
        board.is_dropped = True

    def zero_row(self, board: PretendedBoard, row: int) -> None:
        board.used.discard(row)
        board.beats[row] = 0

    def update(self, config: object, *rest: object) -> None:
        self._is_first_round_over_s = self.now_s + self.rng.uniform(0.0, PROBE_S)

    def wait_first_round(self, timeout_s: float) -> bool:
        return self.now_s >= self._is_first_round_over_s

    # -- what there is

    def alive(self) -> list[Process]:
        return [process for process in self.processes.values() if process.is_alive]

    def serving(self) -> list[Process]:
        """The processes that would serve a client now."""
        return [process for process in self.processes.values() if process.serves]

    def current_number(self) -> int:
        generation = self.supervisor.current
        return generation.number if generation is not None else 0

    def fate_of(self, generation: Any) -> str:
        return self._plans[id(generation.config)].fate

    def slots_bound(self, slots: int) -> None:
        self._slots.update(range(slots))

    # -- time

    def write_file(self, plan: Plan) -> None:
        self.file = plan
        self._plans[id(plan.config)] = plan

    def stand_still(self, seconds: float) -> None:
        self.now_s += seconds
        self.loop.now_s = self.now_s

    def pass_time(self, seconds: float) -> None:
        self.stand_still(seconds)
        for process in self.alive():
            process.live()

    def turn_master(self) -> None:
        """What Master.run does in one turn of its loop, once signals were obeyed."""
        for fd, handler in list(self._handlers.items()):
            if fd in self._handlers:
                handler(1)
        supervised = self.supervisor
        supervised.reap()
        supervised.murder()
        self.driver.advance()
        supervised.manage()
        supervised.lend()
        self.returns += bool(self.driver.note and self.driver.note != self._last_note)
        self._last_note = self.driver.note
        if not self.driver.is_busy:
            known = len(self.processes)
            supervised.recycle()
            self.recycled += len(self.processes) - known
