"""Names in the master: asked for off the loop, told to every worker of every generation, columns given out again."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from minato.config.model import Config, DnsConfig, HealthConfig
from minato.control.boards import Boards
from minato.control.channel import Channel, Message, Verb
from minato.control.naming import Naming
from minato.net.loop import Loop
from minato.shared.board import Board
from tests.system.harness.waiting import wait_until

from .test_places import APP, A, B, C, config_of, upstream

_SERIALS = itertools.count(7300)
_PIDS = itertools.count(1)
DNS = DnsConfig(interval_s=0.1, timeout_s=0.3, max_addresses=16)
HEALTH = HealthConfig(tcp_timeout_s=0.2, http_timeout_s=0.2)


class Worker:
    """The master's end is real; what the worker would do is done by the test."""

    def __init__(self, row: int) -> None:
        self.pid = next(_PIDS)
        self.row = row
        self.channel, self.theirs = Channel.pair()

    def read(self) -> list[Message]:
        messages = []
        while (message := self.theirs.receive()) is not None:
            messages.append(message)
        return messages


class Rig:
    """A Naming with generations that the test makes; ``answers`` is what the resolver says."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[str, ...]] = {}
        self.hangs = threading.Event()
        self.hangs.set()
        self.loop = Loop()
        self.boards = Boards()
        self.supervisor: Any = SimpleNamespace(generations=[], current=None, on_addressed=None, workers=self._workers)
        self.naming = Naming(self.loop, self.supervisor, self.boards, contextlib.nullcontext(), self._look_up)
        self.rewatched = 0
        self.short: list[Any] = []
        self.naming.on_changed = self._count_change
        self.naming.on_short = self.short.append

    def _look_up(self, host: str) -> tuple[str, ...]:
        self.hangs.wait(20)
        if not self.answers.get(host):
            raise OSError("no such name")
        return self.answers[host]

    def _count_change(self) -> None:
        self.rewatched += 1

    def _workers(self) -> list[tuple[Any, Worker]]:
        return [(one, worker) for one in self.supervisor.generations for worker in one.workers.values()]

    def prepare(self, config: Config, timeout_s: float = 10.0) -> float:
        """Return how long it took."""
        began_s = time.monotonic()
        self.naming.prepare(config)
        self.advance_until(self.naming.is_prepared, timeout_s)
        return time.monotonic() - began_s

    def generation(self, config: Config, workers: int = 1, spare: int | None = None) -> Any:
        """Prepare and start one."""
        self.prepare(config)
        places = self.naming.make_places(config)
        if spare is not None:
            places._columns._free = places._columns._free[:spare]
        board = Board.create(
            slots=4,
            upstream_keys=places.keys,
            serial=next(_SERIALS),
            spare=places.spare,
            key_bytes=places.key_bytes,
        )
        self.boards.add(board)
        made = [Worker(row) for row in range(workers)]
        generation = SimpleNamespace(
            config=config, places=places, board=board, workers={worker.pid: worker for worker in made}, target=workers
        )
        self.supervisor.generations.append(generation)
        self.supervisor.current = generation
        self.naming.end_preparation()
        return generation

    def advance_until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        def step() -> object:
            self.loop.refresh()
            self.naming.advance()
            return condition()

        wait_until(step, "the master to follow", timeout_s, every_s=0.005)

    def confirm(self) -> None:
        """Every worker reads and confirms."""
        for _, worker in self._workers():
            for message in worker.read():
                self.supervisor.on_addressed(worker, Message(Verb.ADDRESSED, serial=message.serial))

    def serving(self, generation: Any) -> list[str]:
        return [member.address for member, _ in generation.places.members()]

    def close(self) -> None:
        self.hangs.set()
        for board in list(self.boards.in_use()):
            self.boards.drop(board)
        for _, worker in self._workers():
            worker.channel.close()
            worker.theirs.close()
        self.loop.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.close()


def named(*upstreams: Any, dns: DnsConfig = DNS) -> Config:
    return replace(config_of(*(upstreams or (APP,))), dns=dns, health=HEALTH)


def up(generation: Any, address: str) -> None:
    generation.board.set_health(generation.places.columns[APP.at(address).key], True)


def test_time_in_which_the_master_did_not_run_is_no_waiting_for_names(rig: Rig) -> None:
    rig.hangs.clear()
    rig.naming.prepare(named())
    time.sleep(DNS.timeout_s)  # the loop's clock, which forgives it, does not show it
    assert not rig.naming.is_prepared()
    rig.loop.now_s += DNS.timeout_s
    assert rig.naming.is_prepared()


def test_config_without_names_is_prepared_at_once(rig: Rig) -> None:
    config = named(upstream("10.0.0.1"))
    rig.naming.prepare(config)
    assert rig.naming.is_prepared()


def test_every_worker_of_every_generation_is_told(rig: Rig) -> None:
    rig.answers["app.test"] = (A,)
    old, new = rig.generation(named(), workers=2), rig.generation(named(), workers=1)
    rig.answers["app.test"] = (A, B)
    rig.advance_until(lambda: rig.rewatched)
    for generation in (old, new):
        column = generation.places.columns[APP.at(B).key]
        for worker in generation.workers.values():
            (message,) = worker.read()
            assert (message.upstream, message.places) == (APP.key, ((A, 0), (B, column)))
        assert generation.board.upstream_keys[column] == APP.at(B).key


def test_column_is_given_out_again_when_all_have_confirmed_and_nothing_is_in_flight(rig: Rig) -> None:
    rig.answers["app.test"] = (A,)
    generation = rig.generation(named(), workers=2)
    board = generation.board
    board.row(1).upstream_begin(0)
    rig.answers["app.test"] = (B,)
    rig.advance_until(lambda: B in rig.serving(generation))
    up(generation, B)
    rig.advance_until(lambda: rig.serving(generation) == [B])
    assert board.upstream_keys[0] == APP.at(A).key
    board.row(1).upstream_end(0)
    rig.naming.advance()
    assert board.upstream_keys[0] == APP.at(A).key  # nobody has confirmed
    rig.confirm()
    rig.naming.advance()
    assert board.upstream_keys[0] == ""


def test_worker_that_does_not_confirm_holds_the_columns_until_it_is_gone(rig: Rig) -> None:
    rig.answers["app.test"] = (A,)
    generation = rig.generation(named(), workers=1)
    (worker,) = generation.workers.values()
    rig.answers["app.test"] = (B,)
    rig.advance_until(lambda: B in rig.serving(generation))
    up(generation, B)
    rig.advance_until(lambda: rig.serving(generation) == [B])
    for _ in range(3):
        rig.naming.advance()
    assert generation.board.upstream_keys[0] == APP.at(A).key
    del generation.workers[worker.pid]
    worker.channel.close()
    worker.theirs.close()
    rig.naming.advance()
    assert generation.board.upstream_keys[0] == ""


def test_address_that_comes_back_before_its_column_was_given_out_is_not_up_by_what_it_was(rig: Rig) -> None:
    rig.answers["app.test"] = (A,)
    generation = rig.generation(named())
    up(generation, A)
    rig.answers["app.test"] = (B,)
    rig.advance_until(lambda: B in rig.serving(generation))
    up(generation, B)
    rig.advance_until(lambda: rig.serving(generation) == [B])
    rig.answers["app.test"] = (A, B)
    rig.advance_until(lambda: A in rig.serving(generation))
    assert generation.places.columns[APP.at(A).key] == 0
    assert not generation.board.is_healthy(0)


def test_known_names_do_not_hold_up_a_reload_while_the_resolver_hangs(rig: Rig) -> None:
    rig.answers["app.test"] = (A,)
    config = named(dns=replace(DNS, timeout_s=5.0))
    rig.generation(config)
    rig.hangs.clear()
    assert rig.prepare(config) < 3.0
    assert [member.address for member, _ in rig.naming.make_places(config).members()] == [A]


def test_unknown_names_hold_up_a_start_for_the_timeout_alone(rig: Rig) -> None:
    rig.hangs.clear()
    assert 0.25 < rig.prepare(named()) < 3.0
    assert [member.address for member, _ in rig.naming.make_places(named()).members()] == [""]


def test_name_that_no_generation_has_any_more_is_not_asked_for(rig: Rig) -> None:
    rig.answers["app.test"] = (A,)
    old = rig.generation(named())
    rig.generation(named(upstream("other.test")))
    rig.supervisor.generations.remove(old)
    rig.naming.advance()
    assert rig.naming._watched == {"other.test"}


def test_config_that_was_given_up_leaves_no_name_and_no_interval_behind(rig: Rig) -> None:
    rig.answers["app.test"] = (A,)
    rig.generation(named())
    rig.prepare(named(upstream("other.test"), dns=replace(DNS, interval_s=5.0)))
    assert rig.naming._dns.interval_s == 5.0
    rig.naming.end_preparation()
    rig.naming.advance()
    assert rig.naming._watched == {"app.test"}
    assert rig.naming._dns == DNS


def test_board_without_room_for_anybody_of_a_name_is_told_after_a_while_and_not_at_every_turn(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minato.control.naming.SHORT_WAIT_S", 0.1)
    rig.answers["app.test"] = (A,)
    generation = rig.generation(named(), spare=1)
    rig.answers["app.test"] = (A, B, C)
    rig.advance_until(lambda: rig.short)
    assert rig.serving(generation) == [A, B]
    began_s = time.monotonic()
    rig.advance_until(lambda: time.monotonic() > began_s + 0.3)
    assert rig.short == [generation]


def test_board_without_room_for_all_of_a_name_goes_on_with_those_that_are_healthy_and_have_room(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("minato.control.naming.SHORT_WAIT_S", 0.1)
    rig.answers["app.test"] = (A,)
    generation = rig.generation(named(), spare=0)
    generation.board.set_health(0, True)
    rig.answers["app.test"] = (A, B)
    rig.advance_until(lambda: "no room for all addresses" in caplog.text)
    began_s = time.monotonic()
    rig.advance_until(lambda: time.monotonic() > began_s + 0.3)
    assert rig.short == [] and rig.serving(generation) == [A]
    assert caplog.text.count("no room for all addresses") == 1
    generation.board.set_health(0, False)
    rig.advance_until(lambda: rig.short)
    assert rig.short == [generation]


def test_failure_is_logged_once_and_so_is_its_end(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    rig.answers["app.test"] = (A,)
    generation = rig.generation(named())
    rig.answers["app.test"] = ()
    rig.advance_until(lambda: "going on with what it was before" in caplog.text)
    began_s = time.monotonic()
    rig.advance_until(lambda: time.monotonic() > began_s + 0.5)
    assert caplog.text.count("cannot resolve") == 1
    assert rig.serving(generation) == [A]
    rig.answers["app.test"] = (A,)
    rig.advance_until(lambda: "app.test resolves again" in caplog.text)
    assert rig.rewatched == 0
