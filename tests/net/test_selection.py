"""Who may be chosen: what is up, backups only in want of others, recovered ones as often as they are warm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from minato.config.model import (
    BalancerKind,
    Config,
    HealthConfig,
    HostRule,
    Limits,
    ListenAddress,
    Service,
    Upstream,
)
from minato.decide.standing import Standing
from minato.errors import ExchangeError, NoRoomError
from minato.net.caps import Caps
from minato.net.loop import Loop
from minato.net.room import Rooms
from minato.net.runtime import ServiceRuntime, build_services
from minato.net.selection import Selector
from minato.shared.board import Board
from tests.net.support import Clock

_SERIALS = count(9800)
NAMES = "abcd"
KINDS = list(BalancerKind)


class Bench:
    """A selector before upstreams a, b, c ... of which ``backups`` are so; all are up."""

    def __init__(
        self,
        stack: ExitStack,
        clock: Clock,
        *,
        backups: str = "",
        slow_start_s: float = 0.0,
        cap: int = 0,
        kind: BalancerKind,
    ) -> None:
        upstreams = tuple(Upstream(f"http://{name}", "http", name, 80, backup=name in backups) for name in NAMES)
        service = Service("web", ListenAddress("", 80), kind, (HostRule("e", "/"),), upstreams)
        config = Config(
            "test.yaml",
            (service,),
            health=HealthConfig(slow_start_s=slow_start_s),
            limits=Limits(upstream_connections=cap),
        )
        keys = list(config.upstream_index())
        self.board = Board.create(slots=1, upstream_keys=keys, serial=next(_SERIALS))
        stack.callback(self.board.close)
        stack.callback(self.board.unlink)
        self.clock = clock
        self._keys = count()
        self.loop = Loop(forgives_pauses=True)
        stack.callback(self.loop.close)
        services = build_services(config, 0, {}, self.board.active)
        self.service: ServiceRuntime = services[0]
        row = self.row = self.board.row(0)
        caps = Caps(self.loop, self.board, row, Rooms(self.loop, row, services))
        self.selector = Selector(config, self.board, row, caps, self.loop)
        for name in NAMES:
            self.put(name, Standing.UP)

    def put(self, name: str, standing: Standing, recovered_s: float = 0.0) -> None:
        self.board.set_standing(NAMES.index(name), standing, int(recovered_s * 1000))

    def wait(self, seconds: float) -> None:
        while seconds > 0:
            self.clock.advance(min(seconds, 0.5))
            self.loop.turn(0.0)
            seconds -= 0.5

    def pause(self, seconds: float) -> None:
        """Let time go by in which this process does not run."""
        self.clock.advance(seconds)
        self.loop.turn(0.0)
        assert self.loop.paused_s >= seconds

    def pick(self, tried: str = "") -> str | None:
        key = b"%d" % next(self._keys)
        picked = self.selector.pick(self.service, tuple(NAMES.index(name) for name in tried), key)
        if picked is None:
            return None
        self.row.upstream_end(picked.index)
        return picked.url.removeprefix("http://")

    def pick_ejected(self, tried: str) -> str | None:
        picked = self.selector.pick_ejected(self.service, tuple(NAMES.index(name) for name in tried), b"")
        if picked is None:
            return None
        self.row.upstream_end(picked.index)
        return picked.url.removeprefix("http://")

    def spread(self, picks: int = 100, tried: str = "") -> Counter[str | None]:
        return Counter(self.pick(tried) for _ in range(picks))


class MakeBench:
    def __init__(self, stack: ExitStack, clock: Clock, kind: BalancerKind) -> None:
        self._made = stack, clock, kind

    def __call__(self, *, backups: str = "", slow_start_s: float = 0.0, cap: int = 0) -> Bench:
        stack, clock, kind = self._made
        return Bench(stack, clock, backups=backups, slow_start_s=slow_start_s, cap=cap, kind=kind)


@pytest.fixture(params=KINDS, ids=[kind.value for kind in KINDS])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeBench]:
    clock = Clock()
    monkeypatch.setattr("minato.net.loop.time", clock)
    with ExitStack() as stack:
        yield MakeBench(stack, clock, request.param)


@pytest.mark.parametrize("standing", [Standing.DOWN, Standing.EJECTED, Standing.DRAINING])
@pytest.mark.parametrize("backups", ["", "d"])
def test_only_what_is_up_gets_anything(bench: MakeBench, standing: Standing, backups: str) -> None:
    here = bench(backups=backups, slow_start_s=5)
    here.put("a", standing)
    here.put("b", standing)
    assert set(here.spread()) == set("cd") - set(backups)
    for name in "cd":
        here.put(name, standing)
    with pytest.raises(ExchangeError) as nobody:
        here.pick()
    assert nobody.value.status == 503


def test_sessions_stay_where_it_is_up_or_draining(bench: MakeBench) -> None:
    here = bench()
    keeps = {}
    for standing in Standing:
        here.put("a", standing)
        keeps[standing] = here.selector.keeps_sessions(here.service.upstreams[0])
    assert [standing for standing, kept in keeps.items() if kept] == [Standing.UP, Standing.DRAINING]


def test_backups_get_nothing_while_another_one_is_open(bench: MakeBench) -> None:
    here = bench(backups="cd")
    assert set(here.spread()) == set("ab")
    here.put("a", Standing.DOWN)
    assert set(here.spread()) == {"b"}
    here.put("b", Standing.EJECTED)
    assert set(here.spread()) == set("cd")
    here.put("a", Standing.UP)
    assert set(here.spread()) == {"a"}


def test_a_retry_goes_to_a_backup_once_the_others_were_tried(bench: MakeBench) -> None:
    here = bench(backups="cd")
    assert set(here.spread(tried="a")) == {"b"}
    assert set(here.spread(tried="ab")) == set("cd")
    assert set(here.spread(tried="abc")) == {"d"}
    assert here.pick(tried="abcd") is None


def test_a_backup_takes_what_the_others_have_no_room_for(bench: MakeBench) -> None:
    here = bench(backups="d", cap=1)
    for column in range(3):
        assert set(here.spread()) == set("abc"[column:])
        here.row.upstream_begin(column)
    assert set(here.spread()) == {"d"}
    here.row.upstream_begin(3)
    with pytest.raises(NoRoomError):
        here.pick()


def test_with_caps_a_recovered_one_takes_what_the_others_have_no_room_for(bench: MakeBench) -> None:
    here = bench(backups="d", cap=1, slow_start_s=1000)
    here.put("a", Standing.UP, recovered_s=here.clock.now_s)
    assert here.spread(400)["a"] < 80  # a quarter or a third of a tenth, and lots to spare
    for column in (1, 2):
        here.row.upstream_begin(column)
    assert set(here.spread(50)) == {"a"}  # and not the backup


def test_one_that_recovers_after_this_process_stood_still_is_spared_all_the_same(bench: MakeBench) -> None:
    here = bench(slow_start_s=10)
    here.pause(60.0)
    here.put("a", Standing.UP, recovered_s=here.clock.now_s - 0.5)
    few = here.spread(2000)["a"]
    assert 0 < few < 200
    here.wait(10.0)
    assert here.spread(2000)["a"] > 2 * few, "and warms up"


def test_a_recovered_one_gets_its_share_step_by_step(bench: MakeBench) -> None:
    here = bench(slow_start_s=10)
    here.put("a", Standing.UP, recovered_s=here.clock.now_s)
    got = []
    for _ in range(5):
        got.append(here.spread(2000)["a"])
        here.wait(2.5)
    assert got == sorted(got)
    full = got[-1]  # all of what is its at the end
    assert got[0] < 0.2 * full and 0.4 * full < got[2] < 0.7 * full


def test_where_all_are_warming_up_all_are_chosen_from(bench: MakeBench) -> None:
    here = bench(slow_start_s=1000)
    for name in NAMES:
        here.put(name, Standing.UP, recovered_s=here.clock.now_s)
    seen = here.spread(400)
    assert sum(seen.values()) == 400 and set(seen) == set(NAMES)


def test_without_slow_start_a_recovered_one_has_its_share_at_once(bench: MakeBench) -> None:
    here = bench()
    here.put("b", Standing.UP, recovered_s=here.clock.now_s)
    assert here.spread(1000)["b"] >= 150  # a quarter; by a hash, not quite


def test_a_retry_that_finds_nobody_may_go_to_one_that_is_ejected_and_was_not_tried(bench: MakeBench) -> None:
    here = bench()
    for name, standing in zip("abc", (Standing.EJECTED, Standing.DOWN, Standing.DRAINING), strict=True):
        here.put(name, standing)
    assert here.pick_ejected(tried="d") == "a"
    assert here.pick_ejected(tried="da") is None
    assert here.spread() == {"d": 100}  # it gets nothing else


def test_one_that_is_ejected_and_full_is_no_last_resort(bench: MakeBench) -> None:
    here = bench(cap=1)
    here.put("a", Standing.EJECTED)
    assert here.pick_ejected(tried="bcd") == "a"
    here.row.upstream_begin(0)
    assert here.pick_ejected(tried="bcd") is None
    assert here.board.active(0) == 1
