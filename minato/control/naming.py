"""Names of upstreams in the master: asks for them again and again, and has every worker follow what they are."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import AbstractContextManager

from minato.config.model import Config, DnsConfig
from minato.control.boards import Boards
from minato.control.channel import Message, Verb
from minato.control.generation import Generation, WorkerHandle
from minato.control.places import Places
from minato.control.resolver import Lookup, Resolver
from minato.control.supervisor import Supervisor
from minato.control.telling import Telling
from minato.decide.names import Names, News, Turn
from minato.net.loop import Loop
from minato.net.resolve import resolve_numeric

log = logging.getLogger("minato.resolve")

# A reload waits so long for names whose last answer is there to go on with.
KNOWN_WAIT_S = 1.0
# With nobody for a name for so long, for want of columns, a new generation is asked for, whose board is larger; and
# again after ... As long as every name has somebody, its other addresses wait: a rollover has the old workers end in
# timeouts.drain, which would cut the long streams that hold the columns.
SHORT_WAIT_S = 3.0
SHORT_AGAIN_S = 60.0
MAX_TOLD_ADDRESSES = 16
MAX_WAIT_S = 60.0
# Between two looks while an address waits for another one to become healthy, or a worker for what it is to be told.
MOVING_S = 0.1


class Naming:
    """All names of one master.

    Attributes:
        on_changed: called when other upstreams are to be probed.
        on_short: called with the serving generation when a name has had nobody for a while, for want of columns.
    """

    def __init__(
        self,
        loop: Loop,
        supervisor: Supervisor,
        boards: Boards,
        fork_lock: AbstractContextManager[object],
        lookup: Lookup | None,
    ) -> None:
        self._loop = loop  # its clock forgives pauses: a resolver that was not waited for is not late
        self._supervisor = supervisor
        self._boards = boards
        self._fork_lock = fork_lock
        self._resolver = Resolver(lookup)
        self._dns = DnsConfig()
        self._names = Names(self._dns)
        self._watched: set[str] = set()
        self._edition = 0
        self._serial = 0
        self._preparing: Config | None = None
        self._prepared_hosts: set[str] = set()
        self._prepared_since_s = 0.0
        self._tellings: dict[int, Telling] = {}
        self._short_from_s: float | None = None
        self._starved_from_s: float | None = None
        self._is_shortage_told = False
        self._rng = random.Random()
        self._alarm = loop.timer(lambda: None)  # ends the turn that the main loop waits in
        self.on_changed: Callable[[], None] = lambda: None
        self.on_short: Callable[[Generation], None] = lambda generation: None
        supervisor.on_addressed = self._on_addressed

    def __repr__(self) -> str:
        return f"<Naming {self._names!r}, {self._resolver!r}, {len(self._tellings)} workers told>"

    # -- for rollovers

    def prepare(self, config: Config) -> None:
        """Ask for all names of a config, those that are known as well."""
        self._preparing = config
        hosts = {upstream.host for service in config.services for upstream in service.upstreams}
        self._prepared_hosts = {host for host in hosts if resolve_numeric(host, 0) is None}
        self._prepared_since_s = now_s = self._loop.now_s
        self._watch(now_s)
        self._names.want(self._prepared_hosts, now_s)

    def is_prepared(self) -> bool:
        """Tell whether all have answered, or have had time enough."""
        since_s = self._prepared_since_s
        waited_s = self._loop.now_s - since_s
        if waited_s >= self._dns.timeout_s:
            return True
        may_go_on = waited_s >= KNOWN_WAIT_S and self._dns.interval_s
        return all(
            self._names.is_heard(host, since_s) or (may_go_on and self._names.addresses(host))
            for host in self._prepared_hosts
        )

    def make_places(self, config: Config) -> Places:
        """Return what the upstreams of a config are now."""
        return Places(config, self._names.addresses, self._edition)

    def end_preparation(self) -> None:
        """The generation that was prepared is there, or was given up."""
        self._preparing = None
        self._prepared_hosts = set()

    # -- in the main loop

    def advance(self) -> None:
        """Take in answers, ask for what is due, and pass on what has changed. Never waits."""
        now_s = self._loop.now_s
        self._watch(now_s)
        news = [
            self._names.answer(one.host, one.addresses, one.reason, now_s, self._rng.random())
            for one in self._resolver.take()
        ]
        for told in [*news, *self._names.take_overdue(now_s)]:
            if told is not None:
                self._note(told)
        for host in self._names.take_due(now_s):
            self._resolver.ask(host)
        if any([self._follow(generation, now_s) for generation in self._supervisor.generations]):
            self.on_changed()
        self._tell()
        self._release()
        self._note_shortage(now_s)
        self._alarm.set(min(self._names.next_look_s(now_s), MOVING_S if self._is_moving() else MAX_WAIT_S))

    def _is_moving(self) -> bool:
        """Tell whether somebody is about to follow."""
        if any(not telling.is_settled for telling in self._tellings.values()):
            return True
        return any(not generation.places.is_settled for generation in self._supervisor.generations)

    def _watch(self, now_s: float) -> None:
        """Watch the names that any generation has, by the config that counts."""
        hosts = set(self._prepared_hosts)
        for generation in self._supervisor.generations:
            hosts |= generation.places.hosts
        if hosts != self._watched:
            self._watched = hosts
            self._names.watch(hosts)
        current = self._supervisor.current
        config = self._preparing or (current.config if current is not None else None)
        if config is not None and config.dns != self._dns:
            self._dns = config.dns
            self._names.configure(config.dns, now_s)

    def _note(self, news: News) -> None:
        addresses = ", ".join(news.addresses[:MAX_TOLD_ADDRESSES])
        if len(news.addresses) > MAX_TOLD_ADDRESSES:
            addresses += f" and {len(news.addresses) - MAX_TOLD_ADDRESSES} more"
        if news.turn is Turn.FAILING and news.addresses:
            log.warning("cannot resolve %s: %s; going on with what it was before", news.host, news.reason)
        elif news.turn is Turn.FAILING:
            log.error("cannot resolve %s: %s; it gets no traffic until it does", news.host, news.reason)
        elif news.turn is Turn.RESOLVED:
            log.info("%s is %s", news.host, addresses)
        elif news.turn is Turn.CHANGED:
            log.info("%s is now %s", news.host, addresses)
        else:
            log.info("%s resolves again, to what it was before", news.host)
        if news.left_out:
            log.warning("%s has %d more addresses than dns.max_addresses; they are not used", news.host, news.left_out)
        if news.turn in (Turn.RESOLVED, Turn.CHANGED):
            self._edition += 1

    def _follow(self, generation: Generation, now_s: float) -> bool:
        """Have a generation go by the newest answers; tell whether anything changed for it."""
        places = generation.places
        if places.edition == self._edition and places.is_settled:
            return False
        changed = places.follow(
            self._names.addresses,
            self._edition,
            until_s=now_s + self._hold_s(generation.config),
            mono_s=now_s,
            is_up=generation.board.is_healthy,
            set_key=lambda column, key: self._set_key(generation, column, key),
        )
        for worker in generation.workers.values():
            if changed:
                self._tellings.setdefault(worker.pid, Telling(worker.channel.send)).add(changed)
        return bool(changed)

    def _hold_s(self, config: Config) -> float:
        """Return how long what is in no answer any more may go on, while nobody else is healthy."""
        return max(config.dns.interval_s, config.health.tcp_timeout_s + config.health.http_timeout_s)

    def _set_key(self, generation: Generation, column: int, key: str) -> None:
        with self._fork_lock:
            self._boards.set_key(generation.board, column, key)

    def _tell(self) -> None:
        if not self._tellings:
            return
        living = {worker.pid: generation for generation, worker in self._supervisor.workers()}
        self._tellings = {pid: telling for pid, telling in self._tellings.items() if pid in living}
        for pid, telling in self._tellings.items():
            telling.flush(lambda key, places=living[pid].places: self._make_message(key, places))  # type: ignore[misc]

    def _make_message(self, key: str, places: Places) -> Message:
        self._serial += 1
        return Message(Verb.ADDRESSES, serial=self._serial, upstream=key, places=places.placed(key))

    def _on_addressed(self, worker: WorkerHandle, message: Message) -> None:
        if (telling := self._tellings.get(worker.pid)) is not None:
            telling.confirm(message.serial)

    def _release(self) -> None:
        """Let columns be given out again that no worker knows of any more, and that nothing is in flight in."""
        for generation in self._supervisor.generations:
            tellings = [self._tellings.get(pid) for pid in generation.workers]
            if all(telling is None or telling.is_settled for telling in tellings):
                board = generation.board
                generation.places.release(
                    lambda column, board=board: not board.active(column),  # type: ignore[misc]
                    lambda column, key, of=generation: self._set_key(of, column, key),  # type: ignore[misc]
                )

    def _note_shortage(self, now_s: float) -> None:
        current = self._supervisor.current
        if current is None or not current.places.is_short:
            self._short_from_s = self._starved_from_s = None
            self._is_shortage_told = False
            return
        if self._short_from_s is None:
            self._short_from_s = now_s
        if not current.places.is_starved:
            self._starved_from_s = None
        elif self._starved_from_s is None:
            self._starved_from_s = now_s
        if self._starved_from_s is not None and now_s >= self._starved_from_s + SHORT_WAIT_S:
            self._starved_from_s = now_s + SHORT_AGAIN_S
            log.warning("the board has no room for any healthy address of a name: rolling over to a larger one")
            self.on_short(current)
        elif not self._is_shortage_told and now_s >= self._short_from_s + SHORT_WAIT_S:
            self._is_shortage_told = True
            log.warning(
                "the board has no room for all addresses of names: some get no requests until exchanges with addresses "
                "that are gone are over, or a reload"
            )
